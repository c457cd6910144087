import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { encodeValues, stageF32 } from '../../src/moe/expert-encoding.js';

describe('encodeValues', () => {
  const halves = { BF16: { mantissa: 7, least: -133 }, F16: { mantissa: 10, least: -24 } } as const;
  /** The nearest value of a type, ties to even, by arithmetic on the exact f64. */
  const nearest = (x: number, { mantissa, least }: (typeof halves)['BF16' | 'F16']): number => {
    if (x === 0) return x;
    const unit = 2 ** Math.max(Math.floor(Math.log2(Math.abs(x))) - mantissa, least);
    const scaled = Math.abs(x) / unit;
    const below = Math.floor(scaled);
    const rest = scaled - below;
    const up = rest > 0.5 || (rest === 0.5 && below % 2 === 1);
    return Math.sign(x) * (below + (up ? 1 : 0)) * unit;
  };
  const decoded = (bytes: Uint8Array, dtype: 'BF16' | 'F16'): number => {
    const word = bytes[0] | (bytes[1] << 8);
    if (dtype === 'BF16') return new Float32Array(Uint32Array.of(word << 16).buffer)[0];
    const [exponent, digits] = [(word >> 10) & 31, word & 1023];
    const magnitude = exponent === 0 ? digits * 2 ** -24 : (1024 + digits) * 2 ** (exponent - 25);
    return word >> 15 ? -magnitude : magnitude;
  };

  it('rounds f64 once, also where f32 lies on the edge between two values', () => {
    for (const dtype of ['BF16', 'F16'] as const) {
      const { mantissa } = halves[dtype];
      const near = fc
        .tuple(
          fc.integer({ min: 2 ** mantissa, max: 2 ** (mantissa + 1) - 1 }),
          fc.integer({ min: -8, max: 8 }),
          fc.integer({ min: -12, max: 0 }),
          fc.boolean(),
        )
        .map(([digits, nudge, exponent, negative]) => {
          const edge = (digits + 0.5) * 2 ** (exponent - mantissa);
          return (negative ? -1 : 1) * edge * (1 + nudge * 2 ** -40);
        });
      fc.assert(
        fc.property(near, (x) => {
          const staged = stageF32(Float64Array.of(x), 0, 1, dtype);
          expect(decoded(encodeValues(staged, dtype, 'x'), dtype)).toBe(nearest(x, halves[dtype]));
        }),
      );
    }
  });
});
