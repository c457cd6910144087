import { GRAM_BLOCK, pairCount, type StoredElements } from './merge-dense-reference.js';
import { computeRounding, loadElements } from './merge-elements-reference.js';

const LANES = 8;
const CHUNK = 1024;

/** What {@link measureBlocksReference} measures: tensors of one length, in the order base, models, merged. */
export interface MeasuredTensors {
  readonly tensors: readonly StoredElements[];
  readonly hasBase: boolean;
  readonly hasMerged: boolean;
  /** Of the models. */
  readonly weights: Float64Array;
  readonly elements: number;
}

/** Fields of a block: squares, pairs, change, conflicts, compared, and of each tensor NaNs, infinities, first bad one. */
export function measureFields(tensors: number, models: number): number {
  return tensors + pairCount(models) + 3 + 3 * tensors;
}

interface Chunk {
  readonly raw: readonly Float64Array[];
  readonly deltas: readonly Float64Array[];
  readonly change: Float64Array;
}

/** Counts NaNs and infinities of a chunk into [NaNs, infinities, first], the first one's index from `offset` on. */
function countBad(x: Float64Array, count: number, offset: number, target: Float64Array): void {
  for (let k = 0; k < count; k++) {
    if (Number.isFinite(x[k])) continue;
    target[Number.isNaN(x[k]) ? 0 : 1]++;
    if (target[2] < 0) target[2] = offset + k;
  }
}

/** Counts elements with opposite signs among the weighted deltas, and those where two are not zero: [conflicts, compared]. */
function countConflicts(
  deltas: readonly Float64Array[],
  weights: Float64Array,
  count: number,
  target: Float64Array,
): void {
  for (let k = 0; k < count; k++) {
    let [positive, negative] = [0, 0];
    for (let i = 0; i < deltas.length; i++) {
      const value = weights[i] * deltas[i][k];
      if (value > 0) positive++;
      else if (value < 0) negative++;
    }
    if (positive > 0 && negative > 0) target[0]++;
    if (positive + negative > 1) target[1]++;
  }
}

function addProducts(x: Float64Array, y: Float64Array, count: number, lanes: Float64Array, at: number): void {
  for (let k = 0; k < count; k++) lanes[LANES * at + (k % LANES)] += x[k] * y[k];
}

/** Sums of blocks [blocks, fields] in plain TypeScript: the same bits as the native kernel. */
export function measureBlocksReference(measured: MeasuredTensors, target: Float64Array): void {
  const { tensors, hasBase, hasMerged, weights, elements } = measured;
  const round = computeRounding(tensors.map((tensor) => tensor.dtype));
  const models = weights.length;
  const fields = measureFields(tensors.length, models);
  const sums = tensors.length + pairCount(models) + 1;
  const raw = tensors.map(() => new Float64Array(CHUNK));
  const first = hasBase ? 1 : 0;
  const deltas = Array.from({ length: models }, (_, i) => (hasBase ? new Float64Array(CHUNK) : raw[first + i]));
  const change = new Float64Array(CHUNK);
  const chunk: Chunk = { raw, deltas, change };
  for (let block = 0; block * GRAM_BLOCK < elements; block++) {
    const of = target.subarray(block * fields, (block + 1) * fields);
    const bad = of.subarray(sums + 2);
    for (let i = 0; i < tensors.length; i++) bad.set([0, 0, -1], 3 * i);
    const lanes = new Float64Array(LANES * sums);
    const end = Math.min(elements, (block + 1) * GRAM_BLOCK);
    for (let from = block * GRAM_BLOCK; from < end; from += CHUNK) {
      const count = Math.min(CHUNK, end - from);
      tensors.forEach((tensor, i) => {
        loadElements(tensor.bytes, tensor.dtype, from, count, raw[i]);
        countBad(raw[i], count, from, bad.subarray(3 * i, 3 * i + 3));
      });
      if (hasBase) {
        deltas.forEach((delta, i) => {
          subtract(raw[1 + i], raw[0], count, round, delta);
        });
        if (hasMerged) subtract(raw[raw.length - 1], raw[0], count, round, change);
      }
      addChunk(chunk, count, lanes);
      countConflicts(deltas, weights, count, of.subarray(sums, sums + 2));
    }
    for (let sum = 0; sum < sums; sum++) of[sum] = sumOfLanes(lanes.subarray(LANES * sum, LANES * (sum + 1)));
  }
}

function subtract(
  x: Float64Array,
  base: Float64Array,
  count: number,
  round: (value: number) => number,
  target: Float64Array,
): void {
  for (let k = 0; k < count; k++) target[k] = round(x[k] - base[k]);
}

function addChunk({ raw, deltas, change }: Chunk, count: number, lanes: Float64Array): void {
  let sum = 0;
  for (const x of raw) addProducts(x, x, count, lanes, sum++);
  for (let i = 0; i < deltas.length; i++) {
    for (let j = i; j < deltas.length; j++) addProducts(deltas[i], deltas[j], count, lanes, sum++);
  }
  addProducts(change, change, count, lanes, sum);
}

function sumOfLanes(lanes: Float64Array): number {
  for (let width = LANES / 2; width >= 1; width /= 2) {
    for (let lane = 0; lane < width; lane++) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

/** NaNs, infinities and the index of the first of them (-1: none) of each block [blocks, 3]. */
export function badBlocksReference(tensor: StoredElements, elements: number, target: Float64Array): void {
  const x = new Float64Array(GRAM_BLOCK);
  for (let block = 0; block * GRAM_BLOCK < elements; block++) {
    const from = block * GRAM_BLOCK;
    const count = Math.min(GRAM_BLOCK, elements - from);
    loadElements(tensor.bytes, tensor.dtype, from, count, x);
    const of = target.subarray(3 * block, 3 * block + 3);
    of.set([0, 0, -1]);
    countBad(x, count, from, of);
  }
}
