import type { ComputeReference } from '../../kernels/compute-thread.js';
import type { AlignedBlock, AlignedCorpus } from './align-job.js';
import { moveDistribution, rowOrigins } from './move-distribution.js';
import { tokenPair } from './token-pair.js';
import { type MoveOptions, ROW_KINDS, type SparseRows } from './types.js';

/** Likeliest tokens of a source at the positions of its blocks, one after the other; log-probabilities over all tokens. */
export interface SourceProbabilities {
  readonly k: number;
  /** [positions, k]; -1 where a token has no probability. */
  readonly ids: Int32Array;
  /** [positions, k], nats */
  readonly logProbs: Float32Array;
}

/** What is added up over the blocks of a text. */
export const SUMS = [
  ...ROW_KINDS,
  'positions',
  'source_positions',
  'fallback_one_to_one',
  'fallback_one_to_many',
  'fallback_many_to_one',
  'cost',
  'moved_rows',
  'top_k_mass',
  'moved_mass',
] as const;

export type AlignSum = (typeof SUMS)[number];

export interface MeasureArguments {
  readonly corpus: AlignedCorpus;
  readonly texts: number;
  readonly options: MoveOptions;
  /** Rows of the source model, block after block. */
  readonly probabilities?: SourceProbabilities;
}

const at = (name: AlignSum): number => SUMS.indexOf(name);
const FALLBACK = ROW_KINDS.indexOf('fallback');

/** Rows `first` .. `first + count` as sparse rows; tokens without a probability are left out. */
function sparseRows({ k, ids, logProbs }: SourceProbabilities, first: number, count: number): SparseRows {
  const offsets = new Int32Array(count + 1);
  const kept: number[] = [];
  for (let t = 0; t < count; t++) {
    for (let i = (first + t) * k; i < (first + t + 1) * k; i++) if (ids[i] >= 0) kept.push(i);
    offsets[t + 1] = kept.length;
  }
  return {
    offsets,
    ids: Int32Array.from(kept, (i) => ids[i]),
    logits: Float32Array.from(kept, (i) => logProbs[i]),
  };
}

/** Probability that the entries of a row hold together. */
function massOf(rows: SparseRows, row: number): number {
  let mass = 0;
  for (let i = rows.offsets[row]; i < rows.offsets[row + 1]; i++) mass += Math.exp(rows.logits[i]);
  return mass;
}

/** Why positions of a block have no source row: by how the sequences meet there. */
function countFallbacks({ alignment, source }: AlignedBlock, kinds: Uint8Array, sums: Float64Array): void {
  const uses = new Int32Array(source.length);
  for (const position of alignment.positions) uses[position]++;
  kinds.forEach((kind, j) => {
    if (kind !== FALLBACK) return;
    const begin = alignment.offsets[j];
    if (alignment.offsets[j + 1] - begin > 1) sums[at('fallback_many_to_one')]++;
    else if (uses[alignment.positions[begin]] > 1) sums[at('fallback_one_to_many')]++;
    else sums[at('fallback_one_to_one')]++;
  });
}

/**
 * What comes of every position when the source's distributions are moved to the pivot.
 *
 * @returns [texts, SUMS.length] row-major; zero for texts that were left out
 */
export function measureAlignment({ corpus, texts, options, probabilities }: MeasureArguments): Float64Array {
  const pair = tokenPair(corpus.source, corpus.pivot);
  const sums = new Float64Array(texts * SUMS.length);
  let first = 0;
  for (const block of corpus.blocks) {
    const own = sums.subarray(block.text * SUMS.length, (block.text + 1) * SUMS.length);
    const origins = rowOrigins(pair, block, corpus.map, options);
    let { kinds } = origins;
    if (probabilities) {
      const rows = sparseRows(probabilities, first, block.source.length);
      const moved = moveDistribution(pair, block, rows, corpus.map, options);
      kinds = moved.kinds;
      origins.positions.forEach((position, j) => {
        if (position < 0) return;
        own[at('moved_rows')]++;
        own[at('top_k_mass')] += massOf(rows, position);
        own[at('moved_mass')] += massOf(moved, j);
      });
    }
    for (const kind of kinds) own[kind]++;
    countFallbacks(block, kinds, own);
    own[at('positions')] += block.pivot.length;
    own[at('source_positions')] += block.source.length;
    own[at('cost')] += block.alignment.cost;
    first += block.source.length;
  }
  return sums;
}

export const MEASURE_ALIGNMENT: ComputeReference<MeasureArguments, Float64Array> = {
  module: import.meta.url,
  job: measureAlignment,
};
