import { afterEach, describe, expect, it } from 'vitest';
import { activateInner } from '../../src/kernels/inner-activation.js';
import { activateInnerReference, INNER_ACTIVATIONS } from '../../src/kernels/inner-activation-reference.js';
import { configureKernels, nativeKernels } from '../../src/kernels/native.js';
import { createRandom } from '../../src/random.js';

afterEach(() => {
  configureKernels({ native: true, threads: 0 });
  nativeKernels()?.limitSimd(2);
});

const random = createRandom(11);
const COUNT = 20_003;
const values = Float64Array.from({ length: COUNT }, (_, i) => (i % 9 === 0 ? 300 : 3) * random.normal());
values.set([0, -0, 1e-30, -1e-30, 800, -800, 3e4, -3e4]);
const others = Float64Array.from({ length: COUNT }, () => random.normal());

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array | Float64Array) =>
  Buffer.from(buffer, byteOffset, byteLength);
const sameBytes = (a: Float32Array | Float64Array, b: Float32Array | Float64Array) => bytesOf(a).equals(bytesOf(b));

describe('inner activations', () => {
  it.each(INNER_ACTIVATIONS)('%s is the same natively, at every vector width', (activation) => {
    for (const Floats of [Float64Array, Float32Array]) {
      const single = Floats === Float32Array;
      // The incomplete gamma function of the reference has 13 digits, the error function of C all of them.
      const tolerance = single ? 1e-6 : activation === 'gelu' ? 1e-13 : 4e-15;
      for (const gated of [true, false]) {
        const gate = gated ? Floats.from(values) : undefined;
        const start = Floats.from(gated ? others : values);
        const expected = Float64Array.from(start);
        activateInnerReference(activation, expected, gate && Float64Array.from(gate));
        for (const level of [0, 1, 2]) {
          nativeKernels()?.limitSimd(level);
          const inner = start.slice();
          activateInner(activation, inner, gate, 1);
          let worst = 0;
          for (let i = 0; i < COUNT; i++) {
            const scale = Math.abs(expected[i]) + (gated ? Math.abs(others[i]) : 1) * 1e-3;
            worst = Math.max(worst, Math.abs(inner[i] - expected[i]) / scale);
          }
          expect(worst).toBeLessThan(tolerance);
          const threaded = start.slice();
          activateInner(activation, threaded, gate, 3);
          expect(sameBytes(threaded, inner)).toBe(true);
          // A tail that fills no vector has the bits it has inside of a longer array.
          const short = start.slice(0, 5);
          activateInner(activation, short, gate?.slice(0, 5), 1);
          expect(sameBytes(short, inner.subarray(0, 5))).toBe(true);
        }
      }
    }
  });

  it('knows the values of a table', () => {
    const at = (activation: (typeof INNER_ACTIVATIONS)[number], x: number) => {
      const inner = Float64Array.of(x);
      activateInner(activation, inner);
      return inner[0];
    };
    // torch.nn.functional, float64.
    expect(at('silu', 1)).toBeCloseTo(0.7310585786300049, 15);
    expect(at('gelu', 1)).toBeCloseTo(0.8413447460685429, 14);
    expect(at('gelu', -2)).toBeCloseTo(-0.04550026389635842, 14);
    expect(at('gelu_tanh', 1)).toBeCloseTo(0.8411919906082768, 14);
    expect(at('relu2', 1.5)).toBe(2.25);
    expect(at('relu', -1)).toBe(0);
    expect(at('silu', Number.NaN)).toBeNaN();
    expect(at('relu', Number.NaN)).toBeNaN();
  });

  it('runs without the addon, and refuses arrays that do not go together', () => {
    configureKernels({ native: false });
    const inner = Float32Array.of(2);
    activateInner('silu', inner, Float32Array.of(1));
    expect(inner[0]).toBeCloseTo(1.4621172, 6);
    expect(() => activateInner('silu', inner, Float32Array.of(1, 2))).toThrow('2 gates for 1');
    expect(() => activateInner('silu', inner, Float64Array.of(1))).toThrow('differ in precision');
  });
});
