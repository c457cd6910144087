import { describe, expect, it } from 'vitest';
import type { TapEvent } from '../../src/models/layer-runner.js';
import { runExpert, runInner } from '../../src/moe/expert-function.js';
import { dispatch, route, runDispatched } from '../../src/moe/layer-function.js';
import { type LayerRefit, refitLayer } from '../../src/moe/layer-refit.js';
import type { StreamCursor } from '../../src/moe/stream-cursor.js';
import type { ExpertMatrices, ExpertShape } from '../../src/moe/types.js';
import { normals, randomExpert } from './random-experts.js';

const shape: ExpertShape = { hidden: 6, width: 4, gated: true, activation: 'silu' };
const rule = { score: 'softmax', topK: 2, normalizeTopK: true } as const;
const [E, rows] = [5, 160];
const H = shape.hidden;
const I = shape.width;
const x = normals(rows * H, 1);
const logits = normals(rows * E, 2).map((value) => 2 * value);
const original = Array.from({ length: E }, (_, e) => randomExpert(shape, e));
const plan = dispatch(route(logits, rows, E, rule));
const y = runDispatched(plan, (e) => original[e], shape, x, rows);

/** The original layer as the engine shows it, in two batches. */
const cursor: StreamCursor = {
  tokens: rows,
  async visit(_layer, _taps, onTap) {
    const half = rows / 2;
    for (const from of [0, half]) {
      const z = logits.subarray(from * E, (from + half) * E);
      const part = x.subarray(from * H, (from + half) * H);
      const own = dispatch(route(z, half, E, rule));
      const outputs = new Float64Array(own.rows.length * H);
      original.forEach((expert, e) => {
        const seen = own.rows.subarray(own.starts[e], own.starts[e + 1]);
        const inputs = Float64Array.from(seen).length === 0 ? new Float64Array(0) : gather(part, seen);
        if (seen.length > 0) outputs.set(runExpert(expert, shape, inputs, seen.length), own.starts[e] * H);
      });
      const counts = Int32Array.from({ length: E }, (_, e) => own.starts[e + 1] - own.starts[e]);
      const taps = new Map([
        ['mlp_input', part],
        ['router_logits', z],
        ['expert_output', outputs],
      ]);
      onTap({ taps, experts: { counts, rows: own.rows, weights: own.weights } } as unknown as TapEvent);
    }
  },
  close: () => undefined,
};

function gather(values: Float64Array, seen: Int32Array): Float64Array {
  return Float64Array.from({ length: seen.length * H }, (_, i) => values[seen[Math.floor(i / H)] * H + (i % H)]);
}

/** Three experts in place of five: two were merged, one dropped. */
const labels = Int32Array.of(0, 1, 0, -1, 2);
const merged = [randomExpert(shape, 10), original[1], original[4]];
const task = (experts: readonly ExpertMatrices[], map?: Int32Array) => ({
  ...{ layer: 3, shape, experts, routerRows: E },
  dispatch: (_x: unknown, z: Parameters<typeof route>[0], count: number) =>
    dispatch(route(z, count, E, rule), map, experts.length),
});

/** Sum of squared errors of the layer with these down projections, and lambda times their distance. */
function loss(
  experts: readonly ExpertMatrices[],
  downs: readonly ArrayLike<number>[],
  map: Int32Array,
  lambda = 0,
): number {
  const fitted = experts.map((expert, g) => ({ ...expert, down: Float64Array.from(downs[g]) }));
  const own = dispatch(route(logits, rows, E, rule), map, experts.length);
  const output = runDispatched(own, (g) => fitted[g], shape, x, rows);
  const error = output.reduce((sum, value, i) => sum + (value - y[i]) ** 2, 0);
  const moved = experts.reduce((sum, { down }, g) => {
    return sum + Float64Array.from(down).reduce((all, value, i) => all + (value - fitted[g].down[i]) ** 2, 0);
  }, 0);
  return error + lambda * moved;
}

/** Derivative of the loss in every entry of every down projection, from features and residuals. */
function largestSlope(fit: LayerRefit, lambda: number): number {
  const own = dispatch(route(logits, rows, E, rule), labels, merged.length);
  const fitted = merged.map((expert, g) => ({ ...expert, down: fit.downs[g] }));
  const output = runDispatched(own, (g) => fitted[g], shape, x, rows);
  let largest = 0;
  merged.forEach((expert, g) => {
    const seen = own.rows.subarray(own.starts[g], own.starts[g + 1]);
    const inner = new Float64Array(seen.length * I);
    runInner(expert, shape, gather(x, seen), seen.length, inner);
    for (let h = 0; h < H; h++) {
      for (let n = 0; n < I; n++) {
        let slope = lambda * (fit.downs[g][h * I + n] - expert.down[h * I + n]);
        seen.forEach((row, i) => {
          const weight = own.weights[own.starts[g] + i];
          slope += (output[row * H + h] - y[row * H + h]) * weight * inner[i * I + n];
        });
        largest = Math.max(largest, Math.abs(slope));
      }
    }
  });
  return largest;
}

describe('refitLayer', () => {
  it.each([0, 0.5])('is where the loss has no slope, lambda %d', async (lambda) => {
    const fit = await refitLayer(cursor, task(merged, labels), { lambda, maxBytes: 2 ** 24 });
    expect(fit).toMatchObject({ blocks: 1, lambda });
    expect(largestSlope(fit, lambda)).toBeLessThan(1e-9);
    const before = merged.map(({ down }) => down);
    expect(loss(merged, fit.downs, labels, lambda)).toBeLessThan(loss(merged, before, labels, lambda));
  });

  it('solves block after block where memory is short, and nears the same loss', async () => {
    const whole = await refitLayer(cursor, task(merged, labels), { lambda: 0, maxBytes: 2 ** 24 });
    const parts = await refitLayer(cursor, task(merged, labels), { lambda: 0, maxBytes: 8 * I * I });
    expect(parts.blocks).toBe(3);
    const [least, found] = [whole, parts].map(({ downs }) => loss(merged, downs, labels));
    expect(found).toBeGreaterThanOrEqual(least);
    expect(found).toBeLessThan(1.02 * least);
  });

  it('gives back the down projections of a layer that did not change', async () => {
    const identity = Int32Array.from({ length: E }, (_, e) => e);
    const fit = await refitLayer(cursor, task(original, identity), { maxBytes: 2 ** 24 });
    expect(loss(original, fit.downs, identity)).toBeLessThan(1e-18 * rows);
    original.forEach(({ down }, e) => {
      down.forEach((value, i) => {
        expect(fit.downs[e][i]).toBeCloseTo(value, 8);
      });
    });
  });

  it('refuses what the text does not determine, and what does not fit', async () => {
    const few: StreamCursor = {
      ...cursor,
      async visit(layer, taps, onTap) {
        let first = true;
        await cursor.visit(layer, taps, (event) => {
          if (first) onTap(cut(event));
          first = false;
        });
      },
    };
    await expect(refitLayer(few, task(merged, labels), { maxBytes: 2 ** 24 })).rejects.toThrow(
      /layer 3: \d+ calibration tokens for 3 experts of 4 neurons; give more text, or --refit-lambda/,
    );
    const fit = await refitLayer(few, task(merged, labels), { lambda: 1, maxBytes: 2 ** 24 });
    expect(fit.downs.every((down) => down.every(Number.isFinite))).toBe(true);
    await expect(refitLayer(cursor, task(merged, labels), { maxBytes: 8 * I * I - 1 })).rejects.toThrow(
      /--refit group/,
    );
  });
});

/** The first four rows of an event. */
function cut({ taps, experts, ...event }: TapEvent): TapEvent {
  const count = 4;
  const kept = experts ? [...experts.rows.keys()].filter((i) => experts.rows[i] < count) : [];
  const outputs = taps.get('expert_output') as Float64Array;
  const seen = Int32Array.from(kept, (i) => experts?.rows[i] ?? 0);
  return {
    ...event,
    taps: new Map([
      ['mlp_input', (taps.get('mlp_input') as Float64Array).subarray(0, count * H)],
      ['router_logits', (taps.get('router_logits') as Float64Array).subarray(0, count * E)],
      ['expert_output', Float64Array.from(kept.flatMap((i) => [...outputs.subarray(i * H, (i + 1) * H)]))],
    ]),
    experts: {
      counts: new Int32Array(E),
      rows: seen,
      weights: Float64Array.from(kept, (i) => experts?.weights[i] ?? 0),
    },
  };
}
