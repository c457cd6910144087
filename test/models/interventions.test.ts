import { describe, expect, it } from 'vitest';
import { createEngine } from '../../src/models/engine.js';
import { INTERVENTION_KINDS, type InterventionKind } from '../../src/models/interventions.js';
import { openModelFiles } from '../../src/models/model-files.js';
import { createRandom } from '../../src/random.js';

const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
};
const combine = (a: number, x: readonly number[], b: number, y: readonly number[]): number[] =>
  x.map((value, i) => a * value + b * y[i]);

/** The operators as they are defined, one position at a time. */
const REFERENCE: Readonly<Record<InterventionKind, (x: number[], v: number[], c: number) => number[]>> = {
  add: (x, v, c) => combine(1, x, c, v),
  ablate: (x, v) => combine(1, x, -dot(x, v) / dot(v, v), v),
  ablate_then_add: (x, v, c) => combine(1, x, c - dot(x, v) / dot(v, v), v),
  add_keep_norm: (x, v, c) => {
    const moved = combine(1, x, c, v);
    return moved.map((value) => value * Math.sqrt(dot(x, x) / dot(moved, moved)));
  },
  add_keep_norm_if_grew: (x, v, c) => {
    const moved = combine(1, x, c, v);
    return moved.map((value) => value * Math.min(1, Math.sqrt(dot(x, x) / dot(moved, moved))));
  },
  clamp: (x, v, c) => {
    const n = v.map((value) => value / Math.sqrt(dot(v, v)));
    return combine(1, x, c - dot(x, n), n);
  },
  rotate: (x, v, c) => {
    const length = Math.sqrt(dot(x, x));
    const e = x.map((value) => value / length);
    const side = combine(1, v, -dot(v, e), e);
    const width = Math.sqrt(dot(side, side));
    if (width < 1e-9 * Math.sqrt(dot(v, v))) return x;
    return combine(length * Math.cos(c), e, (length * Math.sin(c)) / width, side);
  },
};

describe.each(['f32', 'f64'] as const)('operators on the residual stream in %s', (precision) => {
  it.each(INTERVENTION_KINDS)('%s acts as defined at its positions, and two act in order', async (kind) => {
    const files = openModelFiles('fixtures/models/llama-sotu', 1);
    const engine = await createEngine(files, {
      threads: 1,
      maxMemoryBytes: 2 ** 32,
      device: 'cpu',
      precision,
      context: 16,
    });
    const hidden = engine.model.hiddenSize;
    const random = createRandom(4);
    const windows = [Int32Array.of(5, 9, 2, 40), Int32Array.of(8, 1, 33, 7)];
    const [plain] = await engine.forward({ windows, layers: [0, 2] });
    const vector = Float64Array.from({ length: hidden }, () => random.normal());
    const second = Float64Array.from({ length: hidden }, () => random.normal());
    // Along the stream of one position, where a rotation has no plane.
    const parallel = Float64Array.from(plain.stream.subarray(0, hidden), (x) => 2 * x);
    for (const [v, scale] of [
      [vector, 0.7],
      [vector, -0.2],
      [parallel, 0.4],
    ] as const) {
      const [steered] = await engine.forward({
        windows,
        layers: [0, 2],
        interventions: [
          { layer: 1, kind, vector: v, scale, positions: (window, position) => (window + position) % 2 === 0 },
          { layer: 1, kind: 'add', vector: second, scale: 0.5, positions: (_, position) => position === 0 },
        ],
      });
      for (let row = 0; row < 8; row++) {
        const before = Array.from(plain.stream.subarray(row * hidden, (row + 1) * hidden));
        const position = row % 4;
        const acts = (Math.floor(row / 4) + position) % 2 === 0;
        let wanted = acts ? REFERENCE[kind](before, [...v], scale) : before;
        if (position === 0) wanted = combine(1, wanted, 0.5, [...second]);
        const tolerance = precision === 'f32' ? 2e-5 : 1e-12;
        for (let i = 0; i < hidden; i++) {
          const found = steered.stream[row * hidden + i];
          expect(Math.abs(found - wanted[i]), `row ${row}`).toBeLessThan(tolerance * (1 + Math.abs(wanted[i])));
        }
      }
    }
    await engine.close();
    files.store.close();
  });
});
