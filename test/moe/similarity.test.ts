import { describe, expect, it } from 'vitest';
import {
  expertSimilarity,
  parseSimilarityBasis,
  SIMILARITY_BASES,
  type SimilarityBasis,
  similarityNeeds,
  weightGram,
} from '../../src/moe/similarity.js';
import type { ExpertMatrices, ExpertStatistics, RoutingStatistics } from '../../src/moe/types.js';
import { createRandom } from '../../src/random.js';

const [E, H, I] = [5, 3, 4];
const random = createRandom(11);
const normal = (length: number): Float64Array => Float64Array.from({ length }, () => random.normal());
const rowsGram = (rows: Float64Array): Float64Array => {
  const d = rows.length / E;
  return Float64Array.from({ length: E * E }, (_, at) => {
    const [i, j] = [Math.floor(at / E), at % E];
    let sum = 0;
    for (let c = 0; c < d; c++) sum += rows[i * d + c] * rows[j * d + c];
    return sum;
  });
};

/** (cos + 1) / 2 of two vectors by the definition. */
function cosine(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [ab, aa, bb] = [0, 0, 0];
  for (let c = 0; c < a.length; c++) {
    ab += a[c] * b[c];
    aa += a[c] ** 2;
    bb += b[c] ** 2;
  }
  return (ab / (Math.max(Math.sqrt(aa), 1e-7) * Math.max(Math.sqrt(bb), 1e-7)) + 1) / 2;
}

const logits = normal(E * 20);
const centred = Float64Array.from(logits, (z, at) => {
  let mean = 0;
  for (let e = 0; e < E; e++) mean += logits[e * 20 + (at % 20)] / E;
  return z - mean;
});
const counts = Float64Array.of(3, 0, 5, 1, 7);
const chosen = logits.map((z) => (z > 0 ? 1 : 0));
const routing = {
  counts,
  logitGram: rowsGram(logits),
  centredLogitGram: rowsGram(centred),
  coActivation: rowsGram(chosen),
} as RoutingStatistics;
const experts: ExpertMatrices[] = Array.from({ length: E }, () => ({
  gate: normal(I * H),
  up: normal(I * H),
  down: normal(H * I),
}));
const outputs = {
  inputSum: normal(E * H).map((value, at) => (Math.floor(at / H) === 1 ? 0 : value)),
  inputAbsoluteSum: normal(E * H).map(Math.abs),
  inputSquareSum: normal(E * H).map((value) => value * value),
  allInputSquareSum: normal(H).map((value) => value * value),
  everywhere: { tokens: 9, outputSum: normal(E * H), outputGram: rowsGram(normal(E * 40)) },
} as Partial<ExpertStatistics> as ExpertStatistics;
const router = normal(E * H);
const sources = {
  layer: 2,
  experts: E,
  routing,
  router,
  outputs,
  weights: { read: (expert: number) => experts[expert] },
  pairs: new Float64Array(E * E).fill(0.5),
};

const rowOf = (rows: Float64Array, e: number): Float64Array => rows.slice(e * H, (e + 1) * H);
const scaled = (row: ArrayLike<number>, factors: Float64Array): number[] =>
  Array.from(row, (value, at) => value * Math.sqrt(factors[at % H]));
const { everywhere } = outputs;
const vectors: Partial<Record<SimilarityBasis, (e: number) => ArrayLike<number>>> = {
  'router-logits': (e) => logits.slice(e * 20, e * 20 + 20),
  usage: (e) => chosen.slice(e * 20, e * 20 + 20),
  'router-logits.centred': (e) => centred.slice(e * 20, e * 20 + 20),
  weight: (e) => [...(experts[e].gate ?? []), ...experts[e].down, ...experts[e].up],
  'router-weight': (e) => rowOf(router, e),
  feature: (e) => rowOf(outputs.inputSum, e).map((value) => (counts[e] > 0 ? value / counts[e] : 0)),
  'feature.abs': (e) => rowOf(outputs.inputAbsoluteSum, e).map((value) => (counts[e] > 0 ? value / counts[e] : 0)),
  'weight-feature': (e) =>
    [experts[e].gate ?? [], experts[e].up].flatMap((matrix) => scaled(matrix, rowOf(outputs.inputSquareSum, e))),
  'router-weight-feature': (e) => scaled(rowOf(router, e), outputs.allInputSquareSum),
  'expert-output': (e) => rowOf(everywhere?.outputSum ?? router, e).map((sum) => sum / 9),
};

describe('similarity', () => {
  it.each(Object.entries(vectors))('%s is the cosine of what it compares', (basis, vector) => {
    const similarity = expertSimilarity(parseSimilarityBasis(basis), sources);
    for (let i = 0; i < E; i++) {
      for (let j = 0; j < E; j++) {
        const value = i === j ? 1 : cosine(vector(i), vector(j));
        expect(similarity[i * E + j]).toBeCloseTo(value, 13);
        expect(similarity[i * E + j]).toBe(similarity[j * E + i]);
      }
    }
  });

  it('compares all outputs by their inner products', () => {
    const similarity = expertSimilarity('expert-output.all', sources);
    const gram = everywhere?.outputGram ?? router;
    expect(similarity[1]).toBeCloseTo((gram[1] / Math.sqrt(gram[0] * gram[E + 1]) + 1) / 2, 14);
  });

  it('gives 1/2 beside an expert of zeros', () => {
    expect(expertSimilarity('feature', sources)[1]).toBe(0.5);
    const zero = {
      ...experts[0],
      gate: new Float64Array(I * H),
      up: new Float64Array(I * H),
      down: new Float64Array(H * I),
    };
    const read = (e: number): ExpertMatrices => (e === 3 ? zero : experts[e]);
    expect(expertSimilarity('weight', { ...sources, weights: { read } })[3]).toBe(0.5);
  });

  it('draws the same numbers for a seed and a layer', () => {
    const drawn = expertSimilarity('random', { layer: 1, experts: E, seed: 4 });
    expect(drawn).toEqual(expertSimilarity('random', { layer: 1, experts: E, seed: 4 }));
    expect(drawn).not.toEqual(expertSimilarity('random', { layer: 2, experts: E, seed: 4 }));
    expect(drawn[E]).toBe(drawn[1]);
    expect(drawn[0]).toBe(1);
  });

  it('says what a basis lacks', () => {
    for (const basis of SIMILARITY_BASES) {
      if (basis === 'random') continue;
      expect(similarityNeeds(basis).length).toBeGreaterThan(0);
      expect(() => expertSimilarity(basis, { layer: 0, experts: E })).toThrow(`similarity "${basis}" needs`);
    }
    expect(() => parseSimilarityBasis('wieght')).toThrow(/did you mean "weight"/);
  });
});

describe('products of weights', () => {
  const single = experts.map(({ gate, up, down }) => ({
    gate: Float32Array.from(gate ?? []),
    up: Float32Array.from(up),
    down: Float32Array.from(down),
  }));
  const parts = ({ up, down }: ExpertMatrices) => [up, down];

  it.each([1, 2, 3, 4])('are the same bits with %i experts in memory', (held) => {
    const all = weightGram(E, { read: (e) => single[e] }, parts);
    let reads = 0;
    const read = (e: number): ExpertMatrices => {
      reads++;
      return single[e];
    };
    expect(weightGram(E, { read, held }, parts)).toEqual(all);
    expect(reads).toBeGreaterThan(E);
  });
});
