import type { ComputeReference } from '../../kernels/compute-thread.js';
import type { AlignedBlock, AlignedCorpus } from './align-job.js';
import { moveDistribution, rowOrigins } from './move-distribution.js';
import { tokenPair } from './token-pair.js';
import { type AlignedRows, type MoveOptions, ROW_KINDS, type SparseRows } from './types.js';

/** Likeliest tokens of a source at the positions of its blocks. */
export interface BlockRows {
  /** One a block; a row a source position. */
  readonly rows: readonly SparseRows[];
  /** Whether logits are log-probabilities over the whole vocabulary; else lists are their own whole. */
  readonly normalised: boolean;
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
  readonly blockRows?: BlockRows;
  /** Whether the moved rows are wanted. */
  readonly keepMoved?: boolean;
}

export interface Measurement {
  /** [texts, SUMS.length] row-major; zero for texts that were left out. */
  readonly sums: Float64Array;
  /** One a block, where they were wanted. */
  readonly moved: readonly AlignedRows[];
}

const at = (name: AlignSum): number => SUMS.indexOf(name);
const FALLBACK = ROW_KINDS.indexOf('fallback');

/** log of what the entries of a row sum to; of a list that is its own whole. */
function logSum(rows: SparseRows, row: number): number {
  let sum = 0;
  const most = rows.logits[rows.offsets[row]];
  for (let i = rows.offsets[row]; i < rows.offsets[row + 1]; i++) sum += Math.exp(rows.logits[i] - most);
  return most + Math.log(sum);
}

/** Probability that the entries of a row hold together, `shift` being the log of the whole. */
function massOf(rows: SparseRows, row: number, shift: number): number {
  let mass = 0;
  for (let i = rows.offsets[row]; i < rows.offsets[row + 1]; i++) mass += Math.exp(rows.logits[i] - shift);
  return mass;
}

/** Adds up what of the probability of the source's lists reaches the pivot. */
function addMass(
  rows: SparseRows,
  moved: SparseRows,
  positions: Int32Array,
  normalised: boolean,
  sums: Float64Array,
): void {
  positions.forEach((position, j) => {
    if (position < 0 || rows.offsets[position] === rows.offsets[position + 1]) return;
    const shift = normalised ? 0 : logSum(rows, position);
    sums[at('moved_rows')]++;
    sums[at('top_k_mass')] += massOf(rows, position, shift);
    sums[at('moved_mass')] += massOf(moved, j, shift);
  });
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

/** What comes of every position when the source's distributions are moved to the pivot. */
export function measureAlignment({ corpus, texts, options, blockRows, keepMoved }: MeasureArguments): Measurement {
  const pair = tokenPair(corpus.source, corpus.pivot);
  const sums = new Float64Array(texts * SUMS.length);
  const kept: AlignedRows[] = [];
  for (const [b, block] of corpus.blocks.entries()) {
    const own = sums.subarray(block.text * SUMS.length, (block.text + 1) * SUMS.length);
    const origins = rowOrigins(pair, block, corpus.map, options);
    let { kinds } = origins;
    const rows = blockRows?.rows[b];
    if (blockRows && rows) {
      const moved = moveDistribution(pair, block, rows, corpus.map, options);
      kinds = moved.kinds;
      addMass(rows, moved, origins.positions, blockRows.normalised, own);
      if (keepMoved) kept.push(moved);
    }
    for (const kind of kinds) own[kind]++;
    countFallbacks(block, kinds, own);
    own[at('positions')] += block.pivot.length;
    own[at('source_positions')] += block.source.length;
    own[at('cost')] += block.alignment.cost;
  }
  return { sums, moved: kept };
}

export const MEASURE_ALIGNMENT: ComputeReference<MeasureArguments, Measurement> = {
  module: import.meta.url,
  job: measureAlignment,
};
