import { searchPulses } from '../kernels/pulse-search.js';
import {
  largestPulses,
  type PyramidCode,
  pyramidLog2,
  rowCodeBytes,
  rowGroups,
  rowIndexBytes,
  wordBits,
} from '../kernels/pyramid.js';
import { createRandom } from '../random.js';
import { type CodeChoice, paretoChoices } from './allocation.js';
import { gainError, gainLevels, type LevelPolicy } from './gain-levels.js';

/** What codes the allocator may choose from. */
export interface ChoiceLimits {
  readonly groupLengths: readonly number[];
  readonly gainBits: readonly number[];
  /** Groups of a mixed-radix word: the number that takes the fewest bytes is used. */
  readonly superGroups: readonly number[];
  /** Largest bits of a word: those up to 128 decode in registers. */
  readonly maxWordBits: number;
  /** Bits of payload per weight, at most. */
  readonly maxBitsPerWeight: number;
  /** Largest pulse an export can hold: codes that would exceed it often are left out. */
  readonly maxPulses?: number;
}

export const DEFAULT_LIMITS: ChoiceLimits = {
  groupLengths: [16, 32],
  gainBits: [0, 1, 2, 3, 4, 5, 6],
  superGroups: [1, 2, 4],
  maxWordBits: 128,
  maxBitsPerWeight: 8,
};

/** Gaussian groups that a mean shape error is taken over. */
const GROUPS = 1024;
const SEED = 0x5ca1ab1e;

const shapeErrors = new Map<string, number>();
const samples = new Map<number, Float32Array>();

function gaussianGroups(groupLength: number): Float32Array {
  let sample = samples.get(groupLength);
  if (!sample) {
    const random = createRandom(SEED).fork(groupLength);
    sample = Float32Array.from({ length: GROUPS * groupLength }, () => random.normal());
    samples.set(groupLength, sample);
  }
  return sample;
}

/** Number of pulses on the grid that errors are measured on: every one up to 24, then 12 a doubling. */
function gridPulses(pulses: number): readonly [below: number, above: number] {
  if (pulses <= 24) return [pulses, pulses];
  const at = (k: number): number => Math.round(24 * 2 ** (k / 12));
  let k = Math.floor(12 * Math.log2(pulses / 24));
  while (at(k) > pulses) k--;
  while (at(k + 1) <= pulses) k++;
  return at(k) === pulses ? [pulses, pulses] : [at(k), at(k + 1)];
}

function measuredShapeError(groupLength: number, pulses: number): number {
  const key = `${groupLength},${pulses}`;
  let error = shapeErrors.get(key);
  if (error === undefined) {
    const x = gaussianGroups(groupLength);
    const y = new Int16Array(x.length);
    searchPulses(x, GROUPS, groupLength, { D: groupLength, K: pulses, mode: 'greedy' }, y);
    let sum = 0;
    for (let g = 0; g < GROUPS; g++) {
      let xx = 0;
      let xy = 0;
      let yy = 0;
      for (let i = g * groupLength; i < (g + 1) * groupLength; i++) {
        xx += x[i] * x[i];
        xy += x[i] * y[i];
        yy += y[i] * y[i];
      }
      sum += 1 - (xy * xy) / (xx * yy);
    }
    error = sum / GROUPS;
    shapeErrors.set(key, error);
  }
  return error;
}

/**
 * Mean of 1 - c^2 over Gaussian groups, c the cosine between a group and its code: the part of the energy that the
 * shape loses. From {@link GROUPS} groups of a fixed seed, the same for all K; between points of the grid it
 * is interpolated in the logarithms. (Specification of quantisation, section 3: "shape(D,K) tabulated once by
 * Monte-Carlo on Gaussians".)
 */
export function shapeError(groupLength: number, pulses: number): number {
  const [below, above] = gridPulses(pulses);
  const low = measuredShapeError(groupLength, below);
  if (below === above || low === 0) return low;
  const high = measuredShapeError(groupLength, above);
  const t = Math.log(pulses / below) / Math.log(above / below);
  return Math.exp((1 - t) * Math.log(low) + t * Math.log(high));
}

const gainErrors = new Map<string, number>();

/** Expected squared error of the gain relative to the energy of a group, for rows of uniform direction. */
export function relativeGainError(policy: LevelPolicy, groupLength: number, columns: number, gainBits: number): number {
  if (groupLength >= columns) return 0;
  const law = policy === 'data' ? 'lloyd' : policy;
  const key = `${law},${groupLength},${columns},${gainBits}`;
  let error = gainErrors.get(key);
  if (error === undefined) {
    const levels = gainLevels(law, groupLength, columns, 1 << gainBits);
    error = gainError(levels, groupLength, columns) / (groupLength / columns);
    gainErrors.set(key, error);
  }
  return error;
}

/** Expected squared error of a code relative to the energy, for rows of uniform direction. */
export function expectedError(code: PyramidCode, columns: number, policy: LevelPolicy): number {
  const shape = shapeError(code.groupLength, code.pulses);
  return shape + (1 - shape) * relativeGainError(policy, code.groupLength, columns, code.gainBits);
}

/** The number of groups in a word that makes a row shortest, within the bits that a word may have. */
export function bestSuperGroup(
  groupLength: number,
  pulses: number,
  groups: number,
  limits: Pick<ChoiceLimits, 'superGroups' | 'maxWordBits'>,
): number {
  let best = 1;
  let fewest = Number.POSITIVE_INFINITY;
  for (const superGroup of limits.superGroups) {
    if (superGroup > groups) continue;
    const shape = { groupLength, pulses, superGroup };
    const word = wordBits(shape);
    if (superGroup > 1 && word > limits.maxWordBits) continue;
    const rest = groups % superGroup;
    const bits = Math.floor(groups / superGroup) * word + (rest > 0 ? wordBits(shape, rest) : 0);
    if (Math.ceil(bits / 8) < fewest) {
      fewest = Math.ceil(bits / 8);
      best = superGroup;
    }
  }
  return best;
}

/** Bytes of indices, gains, scales (f16) and levels of rows [rows, columns] under a code. */
export function payloadBytes(rows: number, columns: number, code: PyramidCode): number {
  const groups = rowGroups(columns, code.groupLength);
  const perRow = rowIndexBytes(code, groups) + rowCodeBytes(code.gainBits, groups) + 2;
  return rows * perRow + 4 * 2 ** code.gainBits;
}

/** Bits of index and gain per weight of a row. */
export function payloadBits(columns: number, code: PyramidCode): number {
  const groups = rowGroups(columns, code.groupLength);
  return (8 * (rowIndexBytes(code, groups) + rowCodeBytes(code.gainBits, groups))) / columns;
}

/**
 * The codes for rows of `columns` weights that no other one beats, by rising bytes, from one for every K whose index
 * takes at most `maxBitsPerWeight` and every number of gain bits.
 * @throws RangeError when no group length fits
 */
export function codeChoices(
  rows: number,
  columns: number,
  policy: LevelPolicy,
  limits: ChoiceLimits = DEFAULT_LIMITS,
): CodeChoice[] {
  const choices: CodeChoice[] = [];
  for (const groupLength of limits.groupLengths) {
    const groups = rowGroups(columns, groupLength);
    const most = Math.min(
      largestPulses(groupLength, Math.floor(groupLength * limits.maxBitsPerWeight)),
      limits.maxPulses ?? Number.POSITIVE_INFINITY,
    );
    for (let pulses = 1; pulses <= most; pulses++) {
      const bits = pyramidLog2(groupLength, pulses);
      const superGroup = bestSuperGroup(groupLength, pulses, groups, limits);
      for (const gainBits of limits.gainBits) {
        if (bits + gainBits > limits.maxBitsPerWeight * groupLength) continue;
        // More than a third of the bits in the gain is never near the hull; a single group has its length in the scale.
        if (gainBits > 1 && gainBits > bits / 3) continue;
        if (groupLength >= columns && gainBits > 0) continue;
        const code = { groupLength, pulses, gainBits, superGroup };
        const relativeError = expectedError(code, columns, policy);
        choices.push({ code, bytes: payloadBytes(rows, columns, code), relativeError });
      }
    }
  }
  if (choices.length === 0) throw new RangeError(`no code for rows of ${columns} weights`);
  return paretoChoices(choices);
}
