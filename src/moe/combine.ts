import { addWeighted, divideSum } from '../kernels/permuted-sums.js';
import type { Floats } from '../models/layer-runner.js';
import type { Random } from '../random.js';
import { permuteNeurons } from './alignment.js';
import { checkExpert, checkPermutation } from './neurons.js';
import type { ExpertMatrices, ExpertShape } from './types.js';

/** The weighted mean of experts, member after member; one sum in double is all that is held. */
export interface Combination {
  /**
   * Adds a member.
   * @param permutation neuron of the member for every place of the merged expert (default: as they lie)
   * @throws RangeError when the expert does not have the shape, or the weight is negative or not finite
   */
  add(expert: ExpertMatrices, weight: number, permutation?: Int32Array): void;
  /**
   * sum_e w_e W_e / (sum_e w_e + epsilon). Default epsilon 0. The released code divides by the sum plus 1e-7 (1e-3 in one
   * of its paths), which also shrinks members of no other. The width of the members' elements, or the one asked for.
   * @param into receives the result in place of new memory, and may be the matrices of a member; its width decides
   * @throws RangeError when nothing was added, no weight is positive, or `into` has another shape
   */
  finish(epsilon?: number, into?: ExpertMatrices): ExpertMatrices;
}

/**
 * How members weigh. `usage`: f_e (M-SMoE, section 3). `mean`: alike. `reversed`: 1 - f_e. `random`: uniform on (0, 1].
 * `dominant`: the dominant alone, the others are replaced by it.
 */
export type WeightPolicy = 'usage' | 'mean' | 'reversed' | 'random' | 'dominant';

export const WEIGHT_POLICIES: readonly WeightPolicy[] = ['usage', 'mean', 'reversed', 'random', 'dominant'];

export interface MemberWeights {
  /** One a member, not normalised. */
  readonly weights: Float64Array;
  /** What was done in place of what was asked. */
  readonly warning?: string;
}

/**
 * A weighted mean of experts of this shape, empty. Products and sums are doubles; the result is rounded once. After `finish` it
 * is empty again and takes the next group in the same memory.
 */
export function createCombination(shape: ExpertShape, options: { readonly threads?: number } = {}): Combination {
  const { hidden: H, width: I } = shape;
  const { threads } = options;
  const make = (): Float64Array => new Float64Array(I * H);
  let sums: { readonly gate?: Float64Array; readonly up: Float64Array; readonly down: Float64Array } | undefined;
  let single = true;
  let members = 0;
  // Weights relative to the first positive one: a member on its own, or equal members, come back unchanged.
  let unit = 0;
  let total = 0;
  return {
    add(expert, weight, permutation) {
      checkExpert('a member', expert, shape);
      if (!(weight >= 0 && weight < Number.POSITIVE_INFINITY)) throw new RangeError(`a member's weight is ${weight}`);
      if (permutation !== undefined) checkPermutation(permutation, I);
      members++;
      single &&= expert.up instanceof Float32Array;
      // A member of no weight says nothing, whatever it holds.
      if (weight === 0) return;
      const overwrite = unit === 0;
      if (overwrite) unit = weight;
      const share = weight / unit;
      total += share;
      sums ??= { ...(shape.gated && { gate: make() }), up: make(), down: make() };
      const byRows = { rows: I, columns: H, rowOrder: permutation };
      if (sums.gate && expert.gate) addWeighted(sums.gate, expert.gate, byRows, share, { overwrite, threads });
      addWeighted(sums.up, expert.up, byRows, share, { overwrite, threads });
      const byColumns = { rows: H, columns: I, columnOrder: permutation };
      addWeighted(sums.down, expert.down, byColumns, share, { overwrite, threads });
    },
    finish(epsilon = 0, into) {
      if (sums === undefined || unit === 0) {
        throw new RangeError(`a mean of ${members === 0 ? 'no experts' : 'experts whose weights are all zero'}`);
      }
      const divisor = total + epsilon / unit;
      if (into !== undefined) checkExpert('the memory of the mean', into, shape);
      const place = (target: Floats | undefined): Floats =>
        target ?? (single ? new Float32Array(I * H) : new Float64Array(I * H));
      const divide = (sum: Float64Array, target?: Floats): Floats => divideSum(sum, divisor, place(target), threads);
      const { gate, up, down } = sums;
      const merged = {
        ...(gate !== undefined && { gate: divide(gate, into?.gate) }),
        up: divide(up, into?.up),
        down: divide(down, into?.down),
      };
      single = true;
      members = 0;
      unit = 0;
      total = 0;
      return merged;
    },
  };
}

/**
 * Weights of the members of a group.
 * @param usage usage frequency of every expert of the layer, [E]
 * @param members the experts of the group
 * @param choice the dominant, for `dominant`; a stream of numbers, for `random`
 * @returns when every weight is zero (no member was ever used), equal weights and a warning
 * @throws RangeError for `random` without a stream, or a dominant that is no member
 */
export function memberWeights(
  policy: WeightPolicy,
  usage: ArrayLike<number>,
  members: ArrayLike<number>,
  choice: { readonly dominant?: number; readonly random?: Random } = {},
): MemberWeights {
  const list = Array.from(members);
  const { dominant, random } = choice;
  if (policy === 'dominant' && (dominant === undefined || !list.includes(dominant))) {
    throw new RangeError(`the dominant ${dominant} is no member of its group`);
  }
  if (policy === 'random' && random === undefined) throw new RangeError('random weights need a stream of numbers');
  const weightOf: Record<WeightPolicy, (expert: number) => number> = {
    usage: (expert) => usage[expert],
    mean: () => 1,
    reversed: (expert) => 1 - usage[expert],
    random: () => 1 - (random?.uniform() ?? 0),
    dominant: (expert) => (expert === dominant ? 1 : 0),
  };
  const weights = Float64Array.from(list, weightOf[policy]);
  if (weights.some((weight) => weight > 0)) return { weights };
  const warning = `experts ${list.join(', ')} all have weight 0 (${policy}); their plain mean is taken`;
  return { weights: weights.fill(1), warning };
}

/** A mean of experts in which every entry has weights of its own; see {@link createFisherCombination}. */
export interface FisherCombination {
  /**
   * @param fisher estimates of E[(dL/dW)^2] in the layout of the expert, nothing negative
   * @throws RangeError when a matrix does not fit the shape, or an entry of `fisher` is negative or not finite
   */
  add(expert: ExpertMatrices, fisher: ExpertMatrices, permutation?: Int32Array): void;
  finish(epsilon?: number): ExpertMatrices;
}

const matricesOf = ({ gate, up, down }: ExpertMatrices): Floats[] => (gate ? [gate, up, down] : [up, down]);

/**
 * Fisher-weighted mean sum_e F_e W_e / (sum_e F_e + epsilon), entry by entry (Matena & Raffel, 2022; a baseline of
 * M-SMoE, whose code has epsilon 1e-6). Default epsilon 0; entries without any Fisher information get the plain mean.
 */
export function createFisherCombination(shape: ExpertShape): FisherCombination {
  const size = shape.hidden * shape.width;
  const parts = shape.gated ? 3 : 2;
  const make = (): Float64Array[] => Array.from({ length: parts }, () => new Float64Array(size));
  const [weighted, information, plain] = [make(), make(), make()];
  let members = 0;
  let single = true;
  return {
    add(expert, fisher, permutation) {
      checkExpert('the Fisher information', fisher, shape);
      const [values, weights] = [expert, fisher].map((matrices) =>
        matricesOf(permutation === undefined ? matrices : permuteNeurons(matrices, shape, permutation)),
      );
      checkExpert('a member', expert, shape);
      values.forEach((matrix, part) => {
        for (let i = 0; i < size; i++) {
          const weight = weights[part][i];
          if (!(weight >= 0 && weight < Number.POSITIVE_INFINITY)) throw new RangeError(`Fisher information ${weight}`);
          weighted[part][i] += weight * matrix[i];
          information[part][i] += weight;
          plain[part][i] += matrix[i];
        }
      });
      members++;
      single &&= expert.up instanceof Float32Array;
    },
    finish(epsilon = 0) {
      if (members === 0) throw new RangeError('a mean of no experts');
      const merged = weighted.map((sum, part): Floats => {
        const result: Floats = single ? new Float32Array(size) : new Float64Array(size);
        for (let i = 0; i < size; i++) {
          const divisor = information[part][i] + epsilon;
          result[i] = divisor > 0 ? sum[i] / divisor : plain[part][i] / members;
        }
        return result;
      });
      const [up, down] = merged.slice(-2);
      return shape.gated ? { gate: merged[0], up, down } : { up, down };
    },
  };
}
