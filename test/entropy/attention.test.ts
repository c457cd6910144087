import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  attentionEntropiesFromQueryKeys,
  attentionEntropiesFromScores,
  attentionRowEntropies,
  CODE_EPSILON,
  ROW_FULLY_MASKED,
  ROW_NAN,
  visibleKeys,
} from '../../src/entropy/attention.js';
import { diagnoseAttention } from '../../src/entropy/attention-diagnosis.js';
import { attentionGradient, attentionRegulariser } from '../../src/entropy/attention-regulariser.js';
import {
  addAttentionRows,
  attentionFromJson,
  attentionToJson,
  createAttentionStatistics,
  headByPosition,
  headFigures,
  mergeAttention,
} from '../../src/entropy/attention-statistics.js';
import { quartileBins } from '../../src/linalg/quartile-bins.js';
import { createRandom } from '../../src/random.js';

const NO = Number.NEGATIVE_INFINITY;

/** Causal scores and their softmax for one batch entry, `[heads, length, length]`. */
function causal(heads: number, length: number, seed: number, scale = 2) {
  const random = createRandom(seed);
  const scores = new Float64Array(heads * length * length).fill(NO);
  const probabilities = new Float64Array(scores.length);
  for (let row = 0; row < heads * length; row++) {
    const last = row % length;
    let sum = 0;
    for (let j = 0; j <= last; j++) {
      scores[row * length + j] = scale * random.normal();
      sum += Math.exp(scores[row * length + j]);
    }
    for (let j = 0; j <= last; j++) probabilities[row * length + j] = Math.exp(scores[row * length + j]) / sum;
  }
  return { scores, probabilities, shape: { batch: 1, heads, queries: length, keys: length } };
}

describe('attention row entropies', () => {
  it('are log n for uniform rows, 0 for one-hot rows, and the epsilon stays a named option', () => {
    const shape = { batch: 1, heads: 1, queries: 2, keys: 4 };
    const rows = Float64Array.of(0.25, 0.25, 0.25, 0.25, 0, 1, 0, 0);
    expect([...attentionRowEntropies(rows, shape).entropyNats]).toEqual([Math.log(4), 0]);
    const coded = attentionRowEntropies(rows, shape, { epsilon: CODE_EPSILON }).entropyNats;
    expect(coded[0]).toBeCloseTo(Math.log(4) - 4e-9, 14);
    expect(coded[1]).toBeCloseTo(-1e-9, 14);
  });

  it('leave out the first key on request', () => {
    const shape = { batch: 1, heads: 1, queries: 2, keys: 4 };
    const rows = attentionRowEntropies(Float64Array.of(0.97, 0.01, 0.01, 0.01, 1, 0, 0, 0), shape);
    expect(rows.firstKeyMass[0]).toBe(0.97);
    expect(rows.withoutFirstKeyNats[0]).toBeCloseTo(Math.log(3), 12);
    expect(rows.withoutFirstKeyNats[1]).toBeNaN();
  });

  it('flag masked and NaN rows and name rows that are no distribution', () => {
    const shape = { batch: 1, heads: 2, queries: 1, keys: 2 };
    const flagged = attentionRowEntropies(Float64Array.of(0, 0, Number.NaN, 1), shape);
    expect([...flagged.state]).toEqual([ROW_FULLY_MASKED, ROW_NAN]);
    expect(() => attentionRowEntropies(Float64Array.of(1, 0, 0.5, 0.412), shape, { layer: 3, queryStart: 17 })).toThrow(
      'attention layer 3 head 1 query 17 sums to 0.912 (tolerance 0.001); are these logits? use --from-scores',
    );
    expect(() => attentionRowEntropies(Float64Array.of(1.5, -0.5, 1, 0), shape)).toThrow(/negative entry -0.5/);
    const half = Float64Array.of(0.998, 0, 0.999, 0);
    expect(() => attentionRowEntropies(half, shape)).toThrow(/0.998/);
    expect(attentionRowEntropies(half, shape, { tolerance: 3e-3 }).state[0]).toBe(0);
    expect(() => attentionRowEntropies(half, { ...shape, keys: 3 })).toThrow(/expected \[1,2,1,3\]/);
  });

  it('agree from scores, probabilities, and queries with keys', () => {
    fc.assert(
      fc.property(fc.integer(), fc.double({ min: 0.1, max: 20, noNaN: true }), (seed, scale) => {
        const { scores, probabilities, shape } = causal(2, 9, seed, scale);
        const a = attentionRowEntropies(probabilities, shape);
        const b = attentionEntropiesFromScores(scores, shape);
        for (let row = 0; row < 18; row++) {
          expect(b.entropyNats[row]).toBeCloseTo(a.entropyNats[row], 9);
          expect(b.firstKeyMass[row]).toBeCloseTo(a.firstKeyMass[row], 12);
          if (row % 9 !== 0) expect(b.withoutFirstKeyNats[row]).toBeCloseTo(a.withoutFirstKeyNats[row], 8);
        }
      }),
      { numRuns: 50 },
    );
  });

  it('stream over keys with shared heads, windows and soft caps', () => {
    const [heads, keyHeads, length, dim] = [4, 2, 12, 5];
    const random = createRandom(3);
    const draw = (count: number): Float64Array => Float64Array.from({ length: count }, () => 2 * random.normal());
    const queries = draw(heads * length * dim);
    const keys = draw(keyHeads * length * dim);
    const variants: { slidingWindow?: number; softcap?: number }[] = [{}, { slidingWindow: 4 }, { softcap: 3 }];
    for (const extra of variants) {
      const { slidingWindow = length, softcap } = extra;
      const scores = new Float64Array(heads * length * length).fill(NO);
      for (let h = 0; h < heads; h++) {
        for (let q = 0; q < length; q++) {
          for (let k = 0; k <= q; k++) {
            if (q - k >= slidingWindow) continue;
            let dot = 0;
            for (let d = 0; d < dim; d++) {
              dot += queries[(q * heads + h) * dim + d] * keys[(k * keyHeads + (h >> 1)) * dim + d];
            }
            const z = dot * 0.4;
            scores[(h * length + q) * length + k] = softcap === undefined ? z : softcap * Math.tanh(z / softcap);
          }
        }
      }
      const wanted = attentionEntropiesFromScores(scores, { batch: 1, heads, queries: length, keys: length });
      // The last five queries alone, as a chunk of a longer context.
      const start = length - 5;
      const chunk = queries.slice(start * heads * dim);
      const got = attentionEntropiesFromQueryKeys({
        queries: chunk,
        keys,
        heads,
        keyHeads,
        queryCount: 5,
        keyCount: length,
        headDim: dim,
        scale: 0.4,
        queryStart: start,
        ...extra,
      });
      for (let h = 0; h < heads; h++) {
        for (let q = 0; q < 5; q++) {
          expect(got.entropyNats[h * 5 + q]).toBeCloseTo(wanted.entropyNats[h * length + start + q], 10);
        }
      }
    }
  });

  it('flag scores that are NaN, plus infinity or all masked', () => {
    const shape = { batch: 1, heads: 1, queries: 3, keys: 2 };
    const { state, entropyNats } = attentionEntropiesFromScores(
      Float64Array.of(NO, NO, 0, Number.POSITIVE_INFINITY, Number.NaN, 0),
      shape,
    );
    expect([...state]).toEqual([ROW_FULLY_MASKED, ROW_NAN, ROW_NAN]);
    for (const entropy of entropyNats) expect(entropy).toBeNaN();
  });
});

describe('attention statistics', () => {
  const blocks = [1, 2, 3, 4].map((seed) => causal(3, 20, seed));

  it('of united shards are those of one pass, byte for byte', () => {
    const collect = (which: number[]) => {
      const statistics = createAttentionStatistics(2, 3);
      for (const i of which) {
        for (let layer = 0; layer < 2; layer++) {
          const { probabilities, shape } = blocks[i];
          addAttentionRows(statistics, attentionRowEntropies(probabilities, shape), shape, {
            layer,
            queryStart: 7 * layer,
          });
        }
      }
      return statistics;
    };
    const whole = collect([0, 1, 2, 3]);
    const united = attentionFromJson(JSON.parse(JSON.stringify(attentionToJson(collect([3, 1])))));
    mergeAttention(united, collect([2, 0]));
    expect(headFigures(united, 64)).toEqual(headFigures(whole, 64));
    expect(headByPosition(united, 1, 2)).toEqual(headByPosition(whole, 1, 2));
  });

  it('normalise by the keys that a query sees', () => {
    // Uniform causal rows: entropy log(i+1), so every normalised entropy is 1; with a window of 3, log(min(i+1, 3)).
    for (const slidingWindow of [undefined, 3]) {
      const n = 10;
      const uniform = new Float64Array(n * n);
      for (let q = 0; q < n; q++) {
        const seen = visibleKeys(q, slidingWindow);
        for (let k = q - seen + 1; k <= q; k++) uniform[q * n + k] = 1 / seen;
      }
      const shape = { batch: 1, heads: 1, queries: n, keys: n };
      const statistics = createAttentionStatistics(1, 1);
      addAttentionRows(statistics, attentionRowEntropies(uniform, shape), shape, {
        layer: 0,
        queryStart: 0,
        slidingWindow,
      });
      const [head] = headFigures(statistics, n);
      expect(head.normalized_entropy).toBeCloseTo(1, 12);
      expect(head.rows).toBe(n);
      const logs = Array.from({ length: n }, (_, q) => Math.log(visibleKeys(q, slidingWindow)));
      expect(head.entropy_nats).toBeCloseTo(logs.reduce((a, b) => a + b) / n, 12);
    }
  });

  it('count rows that are no rows', () => {
    const shape = { batch: 1, heads: 1, queries: 3, keys: 2 };
    const statistics = createAttentionStatistics(1, 1);
    const rows = attentionRowEntropies(Float64Array.of(0, 0, Number.NaN, 0, 0.5, 0.5), shape);
    addAttentionRows(statistics, rows, shape, { layer: 0, queryStart: 0 });
    expect(headFigures(statistics, 2)[0]).toMatchObject({
      rows: 1,
      masked_rows: 1,
      nan_rows: 1,
      entropy_nats: Math.LN2,
    });
  });
});

describe('diagnosis', () => {
  it('bins by quarters of the largest, the last closed', () => {
    const { bins, fractions } = quartileBins([0, 0.99, 1, 2, 3, 4, Number.NaN]);
    expect([...bins]).toEqual([0, 0, 1, 2, 3, 3, -1]);
    expect([...fractions]).toEqual([2 / 6, 1 / 6, 1 / 6, 2 / 6]);
    expect([...quartileBins([0, 0]).bins]).toEqual([0, 0]);
  });

  it('finds overload and collapse, each by its own rule', () => {
    const logContext = Math.log(128);
    const high = Float64Array.from({ length: 12 }, (_, i) => (i < 6 ? 0.95 : 0.5) * logContext);
    expect(diagnoseAttention(high, 3, 128)).toMatchObject({ overload: true, collapse: false });
    const dead = Float64Array.from({ length: 12 }, (_, i) => (i < 8 ? 0.5 + 0.03 * i : 0.01) * logContext);
    const collapsed = diagnoseAttention(dead, 3, 128);
    expect(collapsed.collapse).toBe(true);
    expect(collapsed.flags.slice(8)).toEqual(['collapse', 'collapse', 'collapse', 'collapse']);
    // As many low heads, but in the first layer: no collapse of the deep ones.
    expect(diagnoseAttention(dead.slice().reverse(), 3, 128).collapse).toBe(false);
    const even = Float64Array.from({ length: 12 }, (_, i) => (0.3 + 0.04 * i) * logContext);
    expect(diagnoseAttention(even, 3, 128)).toMatchObject({ collapse: false });
  });
});

describe('entropy regulariser', () => {
  it('has the gradients of its loss', () => {
    const random = createRandom(8);
    const [layers, batch, heads, n] = [2, 2, 2, 4];
    const probabilities = new Float64Array(layers * batch * heads * n * n).map(() => 0.05 + random.uniform());
    const thresholds = Float64Array.from({ length: layers * heads }, () => random.uniform());
    const stack = { probabilities, layers, batch, heads, queries: n, keys: n };
    for (const reduction of ['code', 'algorithm1'] as const) {
      const options = { reduction, gamma: 0.01, coefficient: 3 };
      const loss = (): number => attentionRegulariser(stack, thresholds, options).loss;
      const result = attentionRegulariser(stack, thresholds, options);
      const numeric = (array: Float64Array, i: number): number => {
        const held = array[i];
        array[i] = held + 1e-6;
        const up = loss();
        array[i] = held - 1e-6;
        const down = loss();
        array[i] = held;
        return (up - down) / 2e-6;
      };
      for (let i = 0; i < thresholds.length; i++) {
        expect(result.thresholdGradient[i]).toBeCloseTo(numeric(thresholds, i), 5);
      }
      const gradient = attentionGradient(stack, result, { layer: 1, batch: 1, head: 0 });
      const start = ((1 * batch + 1) * heads + 0) * n * n;
      for (let i = 0; i < n * n; i++) expect(gradient[i]).toBeCloseTo(numeric(probabilities, start + i), 5);
    }
  });

  it('is free inside the tolerance and counts NaN rows', () => {
    const stack = {
      probabilities: Float64Array.of(0.5, 0.5, Number.NaN, 0),
      layers: 1,
      batch: 1,
      heads: 1,
      queries: 2,
      keys: 2,
    };
    const free = attentionRegulariser(stack, Float64Array.of(0.9), { reduction: 'code', gamma: 0.2 });
    expect([free.loss, free.nanRows]).toEqual([0, 1]);
    const paid = attentionRegulariser(stack, Float64Array.of(0.5), { reduction: 'code', gamma: 0.2 });
    expect(paid.loss).toBeCloseTo((0.5 * Math.LN2) ** 2, 8);
    expect(() => attentionRegulariser(stack, new Float64Array(3), { reduction: 'code', gamma: 0 })).toThrow(
      /thresholds/,
    );
  });
});
