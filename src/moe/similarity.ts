import { didYouMean, InputError } from '../errors.js';
import { multiply } from '../kernels/gemm.js';
import type { Floats } from '../models/layer-runner.js';
import { createRandom } from '../random.js';
import type { ExpertMatrices, ExpertStatistics, RoutingStatistics } from './types.js';

/** Norms of a cosine are at least this (M-SMoE's code). */
const NORM_FLOOR = 1e-7;

/** What a basis is computed from. */
export type SimilaritySource = 'routing' | 'router' | 'weights' | 'outputs' | 'everywhere' | 'pairs';

/** What a layer offers; a basis asks for what it needs and says what is missing. E experts, H hidden size. */
export interface SimilaritySources {
  readonly layer: number;
  readonly experts: number;
  readonly routing?: RoutingStatistics;
  /** Rows of the router, [E, H]. */
  readonly router?: Floats;
  readonly weights?: ExpertWeights;
  readonly outputs?: ExpertStatistics;
  /** [E, E] of a basis that takes a second pass over the text (`pair-similarity.ts`). */
  readonly pairs?: Float64Array;
  /** Of the basis `random`. */
  readonly seed?: number;
  readonly threads?: number;
}

/** Experts are read when they are needed, at most `held` of them are in memory (default: all). */
export interface ExpertWeights {
  readonly read: (expert: number) => ExpertMatrices;
  readonly held?: number;
}

interface Basis {
  readonly needs: readonly SimilaritySource[];
  readonly compute: (sources: SimilaritySources) => Float64Array;
}

const MISSING: Readonly<Record<SimilaritySource, string>> = {
  routing: 'routing statistics; run merge-moe calibrate',
  router: 'the weights of the router',
  weights: 'the weights of the experts',
  outputs: 'statistics of what the experts saw; run merge-moe calibrate with --outputs routed or all',
  everywhere: 'outputs of every expert on every token; run merge-moe calibrate with --outputs all',
  pairs: 'a second pass over the calibration text; give --data',
};

function need<T>(value: T | undefined, basis: string, source: SimilaritySource): T {
  if (value === undefined) throw new InputError(`similarity "${basis}" needs ${MISSING[source]}`);
  return value;
}

/** (cos + 1) / 2 of vectors with these inner products [n, n] (the lower triangle is read); the diagonal is 1. */
export function similarityOfGram(gram: Float64Array, n: number): Float64Array {
  const norms = Float64Array.from({ length: n }, (_, i) => Math.max(NORM_FLOOR, Math.sqrt(gram[i * n + i])));
  const similarity = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    similarity[i * n + i] = 1;
    for (let j = 0; j < i; j++) {
      const value = (gram[i * n + j] / (norms[i] * norms[j]) + 1) / 2;
      similarity[i * n + j] = value;
      similarity[j * n + i] = value;
    }
  }
  return similarity;
}

/** Similarity of the rows of `rows` [n, columns], each a vector of an expert. */
export function similarityOfRows(rows: Floats, n: number, columns: number, threads?: number): Float64Array {
  const gram = multiply(rows, rows, new Float64Array(n * n), { m: n, n, k: columns }, { transposeB: true, threads });
  return similarityOfGram(gram, n);
}

/** Entries of each vector that are multiplied at a time. */
const CHUNK = 1 << 15;

function concatenatedChunk(
  vectors: readonly (readonly Floats[])[],
  part: number,
  start: number,
  length: number,
): Floats {
  const double = vectors[0][part] instanceof Float64Array;
  const chunk = double ? new Float64Array(vectors.length * length) : new Float32Array(vectors.length * length);
  vectors.forEach((parts, row) => {
    chunk.set(parts[part].subarray(start, start + length), row * length);
  });
  return chunk;
}

/** Inner products of two blocks of vectors, each a list of parts: [a, b], f64, chunk by chunk in order. */
function blockProducts(
  a: readonly (readonly Floats[])[],
  b: readonly (readonly Floats[])[],
  threads: number | undefined,
): Float64Array {
  const products = new Float64Array(a.length * b.length);
  for (let part = 0; part < a[0].length; part++) {
    for (let start = 0; start < a[0][part].length; start += CHUNK) {
      const length = Math.min(CHUNK, a[0][part].length - start);
      const left = concatenatedChunk(a, part, start, length);
      const right = a === b ? left : concatenatedChunk(b, part, start, length);
      const sizes = { m: a.length, n: b.length, k: length };
      multiply(left, right, products, sizes, { transposeB: true, beta: 1, threads });
    }
  }
  return products;
}

/**
 * Inner products [E, E] of the experts' weights, `parts` laid end to end. With fewer experts in memory than there are, every
 * block of them is read again for each block before it.
 */
export function weightGram(
  experts: number,
  weights: ExpertWeights,
  parts: (matrices: ExpertMatrices, expert: number) => readonly Floats[],
  threads?: number,
): Float64Array {
  const held = weights.held ?? experts;
  const size = held >= experts ? experts : Math.max(1, Math.floor(held / 2));
  const readBlock = (start: number): (readonly Floats[])[] => {
    const count = Math.min(size, experts - start);
    return Array.from({ length: count }, (_, i) => parts(weights.read(start + i), start + i));
  };
  const gram = new Float64Array(experts * experts);
  const place = (products: Float64Array, row: number, rows: number, column: number, columns: number): void => {
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) {
        const value = products[i * columns + j];
        gram[(row + i) * experts + column + j] = value;
        gram[(column + j) * experts + row + i] = value;
      }
    }
  };
  for (let start = 0; start < experts; start += size) {
    const block = readBlock(start);
    place(blockProducts(block, block, threads), start, block.length, start, block.length);
    for (let next = start + size; next < experts; next += size) {
      const other = readBlock(next);
      place(blockProducts(block, other, threads), start, block.length, next, other.length);
    }
  }
  return gram;
}

const allParts = ({ gate, up, down }: ExpertMatrices): readonly Floats[] =>
  gate === undefined ? [up, down] : [gate, down, up];

/** Matrix [rows, columns] with each column times a factor. */
function scaledColumns(matrix: Floats, factors: Float64Array): Float64Array {
  const columns = factors.length;
  const scaled = new Float64Array(matrix.length);
  for (let at = 0; at < matrix.length; at += columns) {
    for (let c = 0; c < columns; c++) scaled[at + c] = matrix[at + c] * factors[c];
  }
  return scaled;
}

/** Mean of a sum over each expert's own tokens, [E, H]: zeros for an expert without tokens. */
function routedMeans(sum: Float64Array, counts: Float64Array): Float64Array {
  const columns = sum.length / counts.length;
  return sum.map((value, at) => {
    const count = counts[Math.floor(at / columns)];
    return count === 0 ? 0 : value / count;
  });
}

const logits = (basis: string, gram: (routing: RoutingStatistics) => Float64Array) => (sources: SimilaritySources) =>
  similarityOfGram(gram(need(sources.routing, basis, 'routing')), sources.experts);

const features =
  (basis: string, sum: (outputs: ExpertStatistics) => Float64Array) =>
  ({ experts, routing, outputs, threads }: SimilaritySources): Float64Array => {
    const means = routedMeans(sum(need(outputs, basis, 'outputs')), need(routing, basis, 'routing').counts);
    return similarityOfRows(means, experts, means.length / experts, threads);
  };

function weightFeature({ experts, weights, outputs, threads }: SimilaritySources): Float64Array {
  const squares = need(outputs, 'weight-feature', 'outputs').inputSquareSum;
  const hidden = squares.length / experts;
  const parts = ({ gate, up }: ExpertMatrices, expert: number): readonly Floats[] => {
    const norms = squares.slice(expert * hidden, (expert + 1) * hidden).map(Math.sqrt);
    return (gate === undefined ? [up] : [gate, up]).map((matrix) => scaledColumns(matrix, norms));
  };
  return similarityOfGram(weightGram(experts, need(weights, 'weight-feature', 'weights'), parts, threads), experts);
}

function routerWeightFeature({ experts, router, outputs, threads }: SimilaritySources): Float64Array {
  const norms = need(outputs, 'router-weight-feature', 'outputs').allInputSquareSum.map(Math.sqrt);
  const rows = scaledColumns(need(router, 'router-weight-feature', 'router'), norms);
  return similarityOfRows(rows, experts, norms.length, threads);
}

function meanOutputs({ experts, outputs, threads }: SimilaritySources): Float64Array {
  const { outputSum } = need(outputs?.everywhere, 'expert-output', 'everywhere');
  // The cosine of sums is the cosine of means, but for the floor of the norms.
  const { tokens } = need(outputs?.everywhere, 'expert-output', 'everywhere');
  const means = tokens === 0 ? outputSum : outputSum.map((sum) => sum / tokens);
  return similarityOfRows(means, experts, outputSum.length / experts, threads);
}

function drawn({ experts, layer, seed = 0 }: SimilaritySources): Float64Array {
  const random = createRandom(seed).fork(layer);
  const similarity = new Float64Array(experts * experts);
  for (let i = 0; i < experts; i++) {
    similarity[i * experts + i] = 1;
    for (let j = 0; j < i; j++) {
      const value = random.uniform();
      similarity[i * experts + j] = value;
      similarity[j * experts + i] = value;
    }
  }
  return similarity;
}

const ofPairs = (basis: string) => (sources: SimilaritySources) => need(sources.pairs, basis, 'pairs');

const BASES = {
  /** Logits of all tokens, as they are. */
  'router-logits': {
    needs: ['routing'],
    compute: logits('router-logits', ({ logitGram }) => logitGram),
  },
  /** Logits of all tokens less each token's mean. */
  'router-logits.centred': {
    needs: ['routing'],
    compute: logits('router-logits.centred', ({ centredLogitGram }) => centredLogitGram),
  },
  /** Which tokens chose the expert, one or zero for each. */
  usage: {
    needs: ['routing'],
    compute: logits('usage', ({ coActivation }) => coActivation),
  },
  /** All matrices of the expert, laid end to end. */
  weight: {
    needs: ['weights'],
    compute: ({ experts, weights, threads }) =>
      similarityOfGram(weightGram(experts, need(weights, 'weight', 'weights'), allParts, threads), experts),
  },
  /** Rows of the router. */
  'router-weight': {
    needs: ['router'],
    compute: ({ experts, router, threads }) => {
      const rows = need(router, 'router-weight', 'router');
      return similarityOfRows(rows, experts, rows.length / experts, threads);
    },
  },
  /** Mean input of the tokens routed to the expert. */
  feature: {
    needs: ['routing', 'outputs'],
    compute: features('feature', ({ inputSum }) => inputSum),
  },
  /** Mean magnitude of the inputs of the tokens routed to the expert. */
  'feature.abs': {
    needs: ['routing', 'outputs'],
    compute: features('feature.abs', ({ inputAbsoluteSum }) => inputAbsoluteSum),
  },
  /** First matrices, each column times the norm of its input over the tokens routed to the expert. */
  'weight-feature': {
    needs: ['weights', 'outputs'],
    compute: weightFeature,
  },
  /** Rows of the router, each column times the norm of its input over all tokens. */
  'router-weight-feature': {
    needs: ['router', 'outputs'],
    compute: routerWeightFeature,
  },
  /** Mean output over all tokens. */
  'expert-output': {
    needs: ['everywhere'],
    compute: meanOutputs,
  },
  /** Outputs of all tokens, laid end to end. */
  'expert-output.all': {
    needs: ['everywhere'],
    compute: ({ experts, outputs }) =>
      similarityOfGram(need(outputs?.everywhere, 'expert-output.all', 'everywhere').outputGram, experts),
  },
  /** Mean correlation of inner activations over the best assignment of neurons. */
  'activation-correlation.lsa': {
    needs: ['pairs'],
    compute: ofPairs('activation-correlation.lsa'),
  },
  /** Mean over neurons of the largest correlation of inner activations. */
  'activation-correlation.max': {
    needs: ['pairs'],
    compute: ofPairs('activation-correlation.max'),
  },
  /** Output error of the plain average of both on their own tokens. */
  mse: {
    needs: ['pairs'],
    compute: ofPairs('mse'),
  },
  /** Drawn uniformly. */
  random: { needs: [], compute: drawn },
} as const satisfies Record<string, Basis>;

export type SimilarityBasis = keyof typeof BASES;

export const SIMILARITY_BASES = Object.keys(BASES) as readonly SimilarityBasis[];

/** @throws InputError for an unknown name */
export function parseSimilarityBasis(name: string): SimilarityBasis {
  const basis = SIMILARITY_BASES.find((known) => known === name);
  if (basis === undefined) {
    const known = SIMILARITY_BASES.join(', ');
    throw new InputError(`unknown similarity "${name}"${didYouMean(name, SIMILARITY_BASES)}; known: ${known}`);
  }
  return basis;
}

/** What {@link SimilaritySources} must hold for a basis. */
export const similarityNeeds = (basis: SimilarityBasis): readonly SimilaritySource[] => BASES[basis].needs;

/**
 * Similarity of the experts of a layer, [E, E] symmetric: (cos + 1) / 2 of what the basis compares, the diagonal 1 (M-SMoE
 * 2023, its code). Raw router logits share an offset of each token, which dominates their cosine;
 * `router-logits.centred` takes it away.
 * @throws InputError naming what is missing
 */
export function expertSimilarity(basis: SimilarityBasis, sources: SimilaritySources): Float64Array {
  const rule: Basis = BASES[basis];
  return rule.compute(sources);
}
