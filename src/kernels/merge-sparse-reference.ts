import type { StoredElements } from './merge-dense-reference.js';
import { loadElements, storeElements } from './merge-elements-reference.js';
import { elementWordsReference, type MaskKey, type RankedRows, rankedRowReference } from './merge-masks-reference.js';
import { cutReference, isInside, type MagnitudeCut } from './merge-selection-reference.js';

/** Elements of a block: sums are formed block by block, in eight lanes within a block. */
export const BLOCK = 1024;
const LANES = 8;

/** A task vector theta - theta_0; without a base the tensor itself. */
export interface TaskVector {
  readonly base: StoredElements | undefined;
  readonly model: StoredElements;
  /** Differences are doubles, not floats. */
  readonly wide: boolean;
}

/** Which elements of a task vector stay; without anything all of them. */
export interface Sparsity {
  /** Elements outside are dropped. */
  readonly keep?: MagnitudeCut;
  /** Elements inside are dropped. */
  readonly drop?: MagnitudeCut;
  /** Bit i (of byte i >> 3, lowest first): element i stays. */
  readonly mask?: Uint8Array;
  /** What elements are divided by, in the compute type. */
  readonly probabilities?: Float32Array | Float64Array;
}

export interface TaskVectorFigures {
  /** Elements that stay, zeros among them. */
  readonly kept: number;
  /** Entries that are NaN; they count as 0. */
  readonly nans: number;
  /** Sum of |delta| over all elements. */
  readonly wholeAbsolute: number;
  /** Sums over the elements that stay, of delta, |delta| and delta^2. */
  readonly sum: number;
  readonly absolute: number;
  readonly squares: number;
}

/** One model of a sum of task vectors. */
export interface MixedVector {
  readonly tensor: StoredElements;
  readonly sparsity: Sparsity;
  /** Part of the divisor. */
  readonly weight: number;
  /** Factor of the task vector. */
  readonly coefficient: number;
  /** Factor of the task vector in the election of signs. */
  readonly election: number;
}

export interface MixSettings {
  readonly wide: boolean;
  /** How signs are elected: not at all, by the sum of the values or by the sum of their signs. */
  readonly consensus: 'none' | 'sum' | 'count';
  /** Divides by the weights that agree; an exact 0 counts as 1. */
  readonly divideByAgreeing: boolean;
  /** What the divisor is raised to. */
  readonly leastDivisor?: number;
  /** Divisors below it are counted. */
  readonly smallDivisor: number;
  /** Divisor of every element, beside that of the agreeing weights. */
  readonly divisor: number;
  readonly factor: number;
  /** Adds the sum to the base; otherwise the output is the sum. */
  readonly ontoBase: boolean;
}

export interface MixFigures {
  readonly kept: Float64Array;
  readonly nans: Float64Array;
  /** Smallest |divisor| of an element with agreeing weights; Infinity where there is none. */
  readonly smallestDivisor: number;
  /** Elements with agreeing weights whose |divisor| is below `smallDivisor`. */
  readonly smallDivisors: number;
}

/** (0 + 1) + (2 + 3) + ((4 + 5) + (6 + 7)): the order in which eight lanes are added up. */
function laneTotal(lanes: Float64Array): number {
  return lanes[0] + lanes[1] + (lanes[2] + lanes[3]) + (lanes[4] + lanes[5] + (lanes[6] + lanes[7]));
}

const held = new Float64Array(BLOCK);

/** Elements [from, from + count) of a task vector into `target`; NaN become 0 and are counted. */
function differences(vector: TaskVector, from: number, count: number, target: Float64Array): number {
  loadElements(vector.model.bytes, vector.model.dtype, from, count, target);
  if (vector.base !== undefined) {
    loadElements(vector.base.bytes, vector.base.dtype, from, count, held);
    for (let i = 0; i < count; i++) target[i] -= held[i];
  }
  let nans = 0;
  for (let i = 0; i < count; i++) {
    if (!vector.wide) target[i] = Math.fround(target[i]);
    if (!Number.isNaN(target[i])) continue;
    target[i] = 0;
    nans++;
  }
  return nans;
}

/** Zeros what does not stay of a block; gives the number that stay. */
function sparsify(sparsity: Sparsity, wide: boolean, from: number, count: number, block: Float64Array): number {
  const { keep, drop, mask, probabilities } = sparsity;
  let kept = 0;
  for (let i = 0; i < count; i++) {
    const index = from + i;
    const magnitude = Math.abs(block[i]);
    const stays =
      (keep === undefined || isInside(keep, magnitude, index)) &&
      (drop === undefined || !isInside(drop, magnitude, index)) &&
      (mask === undefined || ((mask[index >> 3] >> (index & 7)) & 1) === 1);
    if (!stays) block[i] = 0;
    else {
      kept++;
      if (probabilities === undefined) continue;
      const quotient = block[i] / probabilities[index];
      block[i] = wide ? quotient : Math.fround(quotient);
    }
  }
  return kept;
}

/** All magnitudes of a task vector, and the number of NaN among them. */
function magnitudes(vector: TaskVector, from: number, count: number): { values: Float64Array; nans: number } {
  const values = new Float64Array(count);
  let nans = 0;
  for (let begin = 0; begin < count; begin += BLOCK) {
    const block = values.subarray(begin, Math.min(begin + BLOCK, count));
    nans += differences(vector, from + begin, block.length, block);
    for (let i = 0; i < block.length; i++) block[i] = Math.abs(block[i]);
  }
  return { values, nans };
}

export function taskVectorCutsReference(
  vector: TaskVector,
  count: number,
  ranks: readonly number[],
): { cuts: MagnitudeCut[]; nans: number } {
  const { values, nans } = magnitudes(vector, 0, count);
  return { cuts: ranks.map((rank) => cutReference(values, rank)), nans };
}

export function measureTaskVectorReference(vector: TaskVector, count: number, sparsity: Sparsity): TaskVectorFigures {
  const block = new Float64Array(BLOCK);
  const lanes = Array.from({ length: 4 }, () => new Float64Array(LANES));
  const sums = new Float64Array(4);
  let kept = 0;
  let nans = 0;
  for (let begin = 0; begin < count; begin += BLOCK) {
    const length = Math.min(BLOCK, count - begin);
    nans += differences(vector, begin, length, block);
    for (const lane of lanes) lane.fill(0);
    for (let i = 0; i < length; i++) lanes[0][i % LANES] += Math.abs(block[i]);
    kept += sparsify(sparsity, vector.wide, begin, length, block);
    for (let i = 0; i < length; i++) {
      const value = block[i];
      lanes[1][i % LANES] += value;
      lanes[2][i % LANES] += Math.abs(value);
      lanes[3][i % LANES] += value * value;
    }
    for (let k = 0; k < 4; k++) sums[k] += laneTotal(lanes[k]);
  }
  const [wholeAbsolute, sum, absolute, squares] = sums;
  return { kept, nans, wholeAbsolute, sum, absolute, squares };
}

export interface RankedMask {
  /** Numbers in [0, 1) of the elements, or the key that gives them. */
  readonly uniforms: Float64Array | { readonly key: MaskKey; readonly firstElement: number };
  readonly rows: RankedRows;
}

export function rankedMaskReference(
  vector: TaskVector,
  count: number,
  settings: RankedMask,
  mask: Uint8Array,
  probabilities: Float32Array | Float64Array | undefined,
): number {
  const { uniforms, rows } = settings;
  const words = new Uint32Array(rows.columns);
  const drawn = new Float64Array(rows.columns);
  let nans = 0;
  mask.fill(0);
  for (let begin = 0; begin < count; begin += rows.columns) {
    const end = begin + rows.columns;
    const row = magnitudes(vector, begin, rows.columns);
    nans += row.nans;
    if (uniforms instanceof Float64Array) drawn.set(uniforms.subarray(begin, end));
    else {
      elementWordsReference(uniforms.key, uniforms.firstElement + begin, rows.columns, words);
      for (let i = 0; i < rows.columns; i++) drawn[i] = words[i] / 4294967296;
    }
    rankedRowReference(row.values, rows, drawn, mask, begin, probabilities?.subarray(begin, end));
  }
  return nans;
}

/** +1 or -1, the sign that the values of one element are for; sums in f32 unless `wide`. */
export function electedSign(values: ArrayLike<number>, consensus: 'sum' | 'count', wide = true): number {
  let total = 0;
  for (let j = 0; j < values.length; j++) {
    total += consensus === 'sum' ? values[j] : Math.sign(values[j]);
    if (!wide) total = Math.fround(total);
  }
  return total >= 0 ? 1 : -1;
}

export function mixTaskVectorsReference(
  base: StoredElements | undefined,
  models: readonly MixedVector[],
  settings: MixSettings,
  output: StoredElements,
  count: number,
): MixFigures {
  const { wide, consensus } = settings;
  const blocks = models.map(() => new Float64Array(BLOCK));
  const origin = new Float64Array(BLOCK);
  const result = new Float64Array(BLOCK);
  const votes = new Float64Array(models.length);
  const kept = new Float64Array(models.length);
  const nans = new Float64Array(models.length);
  let smallestDivisor = Number.POSITIVE_INFINITY;
  let smallDivisors = 0;
  for (let begin = 0; begin < count; begin += BLOCK) {
    const length = Math.min(BLOCK, count - begin);
    models.forEach(({ tensor, sparsity }, j) => {
      nans[j] += differences({ base, model: tensor, wide }, begin, length, blocks[j]);
      kept[j] += sparsify(sparsity, wide, begin, length, blocks[j]);
    });
    if (base !== undefined && settings.ontoBase) loadElements(base.bytes, base.dtype, begin, length, origin);
    for (let i = 0; i < length; i++) {
      models.forEach((model, j) => {
        // In the precision of the task vectors: where weighted changes of short mantissas cancel exactly, weights that are
        // no binary fractions must not tip the scales.
        votes[j] = wide ? blocks[j][i] * model.election : Math.fround(blocks[j][i] * Math.fround(model.election));
      });
      const sign = consensus === 'none' ? 0 : electedSign(votes, consensus, wide);
      let sum = 0;
      let agreeing = 0;
      let any = false;
      for (let j = 0; j < models.length; j++) {
        if (sign !== 0 && Math.sign(votes[j]) !== sign) continue;
        any = true;
        sum += blocks[j][i] * models[j].coefficient;
        agreeing += models[j].weight;
      }
      if (settings.divideByAgreeing) {
        if (any && sign !== 0) {
          smallestDivisor = Math.min(smallestDivisor, Math.abs(agreeing));
          if (Math.abs(agreeing) < settings.smallDivisor) smallDivisors++;
        }
        if (settings.leastDivisor !== undefined) agreeing = Math.max(agreeing, settings.leastDivisor);
        sum /= agreeing === 0 ? 1 : agreeing;
      }
      result[i] = (sum / settings.divisor) * settings.factor + origin[i];
    }
    storeElements(result, output.dtype, begin, length, output.bytes);
  }
  return { kept, nans, smallestDivisor, smallDivisors };
}

/** Population variance of a few numbers. */
function variance(blocks: readonly Float64Array[], i: number): number {
  let sum = 0;
  for (const block of blocks) sum += block[i];
  const mean = sum / blocks.length;
  let squares = 0;
  for (const block of blocks) squares += (block[i] - mean) * (block[i] - mean);
  return squares / blocks.length;
}

interface Gathered {
  readonly begin: number;
  readonly length: number;
  readonly blocks: readonly Float64Array[];
}

/** The blocks of several task vectors on one base, in order; gives the number of NaN of each. */
function overBlocks(
  base: StoredElements | undefined,
  models: readonly StoredElements[],
  wide: boolean,
  count: number,
  visit: (gathered: Gathered) => void,
): Float64Array {
  const blocks = models.map(() => new Float64Array(BLOCK));
  const nans = new Float64Array(models.length);
  for (let begin = 0; begin < count; begin += BLOCK) {
    const length = Math.min(BLOCK, count - begin);
    models.forEach((model, j) => {
      nans[j] += differences({ base, model, wide }, begin, length, blocks[j]);
    });
    visit({ begin, length, blocks });
  }
  return nans;
}

export function varianceCutReference(
  base: StoredElements,
  models: readonly StoredElements[],
  wide: boolean,
  count: number,
  share: number,
): { cut: MagnitudeCut; selected: number; nans: Float64Array } {
  const values = new Float64Array(count);
  const nans = overBlocks(base, models, wide, count, ({ begin, length, blocks }) => {
    for (let i = 0; i < length; i++) values[begin + i] = variance(blocks, i);
  });
  let nonzero = 0;
  for (const value of values) if (value !== 0) nonzero++;
  const selected = Math.floor(share * nonzero);
  return { cut: cutReference(values, selected), selected, nans };
}

/** Sets the mask's bits of the elements whose variance is inside the cut; gives each model's sum of squares there. */
export function varianceMaskReference(
  base: StoredElements,
  models: readonly StoredElements[],
  wide: boolean,
  count: number,
  cut: MagnitudeCut,
  mask: Uint8Array,
): Float64Array {
  const squares = new Float64Array(models.length);
  const lanes = new Float64Array(LANES);
  mask.fill(0);
  overBlocks(base, models, wide, count, ({ begin, length, blocks }) => {
    for (let i = 0; i < length; i++) {
      if (isInside(cut, variance(blocks, i), begin + i)) mask[(begin + i) >> 3] |= 1 << (i & 7);
    }
    blocks.forEach((block, j) => {
      lanes.fill(0);
      for (let i = 0; i < length; i++) {
        const value = ((mask[(begin + i) >> 3] >> (i & 7)) & 1) === 1 ? block[i] : 0;
        lanes[i % LANES] += value * value;
      }
      squares[j] += laneTotal(lanes);
    });
  });
  return squares;
}

export interface ActiveCounts {
  /** Of each model: its elements above epsilon that others share, and those that it alone has. */
  readonly shared: Float64Array;
  readonly unique: Float64Array;
  readonly nans: Float64Array;
}

export function activeCountsReference(
  base: StoredElements,
  models: readonly StoredElements[],
  wide: boolean,
  count: number,
  epsilon: number,
): ActiveCounts {
  const shared = new Float64Array(models.length);
  const unique = new Float64Array(models.length);
  const nans = overBlocks(base, models, wide, count, ({ length, blocks }) => {
    for (let i = 0; i < length; i++) {
      const active = blocks.map((block) => Math.abs(block[i]) > epsilon);
      const owners = active.filter(Boolean).length;
      active.forEach((is, j) => {
        if (is) (owners > 1 ? shared : unique)[j]++;
      });
    }
  });
  return { shared, unique, nans };
}

export function mixActiveReference(
  base: StoredElements,
  models: readonly StoredElements[],
  wide: boolean,
  count: number,
  epsilon: number,
  factors: Float64Array,
  output: StoredElements,
): void {
  const result = new Float64Array(BLOCK);
  const origin = new Float64Array(BLOCK);
  overBlocks(base, models, wide, count, ({ begin, length, blocks }) => {
    loadElements(base.bytes, base.dtype, begin, length, origin);
    for (let i = 0; i < length; i++) {
      let owners = 0;
      let sum = 0;
      let alone = 0;
      for (let j = 0; j < blocks.length; j++) {
        const value = blocks[j][i];
        if (!(Math.abs(value) > epsilon)) continue;
        owners++;
        sum += value;
        alone += value * factors[j];
      }
      result[i] = origin[i] + (owners === 1 ? alone : sum / Math.max(owners, 1));
    }
    storeElements(result, output.dtype, begin, length, output.bytes);
  });
}

/** How much one element of one target counts: delta^2 or |delta|. */
export type VariationMeasure = 'square' | 'absolute';

export function mixByVariationReference(
  base: StoredElements,
  models: readonly StoredElements[],
  wide: boolean,
  count: number,
  measure: VariationMeasure,
  /** Sum of variations below which the weights sum to less than 1 and nothing takes their place; absent: the pivot does. */
  floor: number | undefined,
  output: StoredElements,
): Float64Array {
  const result = new Float64Array(BLOCK);
  const origin = new Float64Array(BLOCK);
  return overBlocks(base, models, wide, count, ({ begin, length, blocks }) => {
    loadElements(base.bytes, base.dtype, begin, length, origin);
    for (let i = 0; i < length; i++) {
      let total = 0;
      let mixed = 0;
      for (const block of blocks) {
        const value = block[i];
        const variation = measure === 'square' ? value * value : Math.abs(value);
        total += variation;
        mixed += variation * (floor === undefined ? value : value + origin[i]);
      }
      if (floor === undefined) result[i] = origin[i] + mixed / (total === 0 ? 1 : total);
      else result[i] = mixed / Math.max(total, floor);
    }
    storeElements(result, output.dtype, begin, length, output.bytes);
  });
}
