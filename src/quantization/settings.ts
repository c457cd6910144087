import type { SearchMode } from '../kernels/pulse-search.js';
import type { LevelPolicy } from './gain-levels.js';

/** What decides the bytes of a quantised model, beside the model and its calibration. */
export interface QuantizeSettings {
  /** Bits of the files per quantised weight, or a code for all tensors. */
  readonly rate: RateSetting;
  /** D that the allocator may choose from. */
  readonly groupLengths: readonly number[];
  /** Groups of a mixed-radix word; 'auto' takes what makes rows shortest. */
  readonly superGroup: number | 'auto';
  readonly rotation: 'stored' | 'none';
  readonly levels: LevelPolicy;
  readonly gain: 'projection' | 'norm';
  readonly search: SearchMode;
  /** Most pulses of a coordinate, for exports; absent: no limit. */
  readonly cap?: { readonly positive: number; readonly negative: number };
  readonly zeroGroups: 'code' | 'bitmap';
  readonly allocation: AllocationMode;
  readonly feedback: FeedbackSettings;
  /** Decimal; rotations follow from it and the names of tensors. */
  readonly seed: string;
}

export type RateSetting =
  | { readonly kind: 'bpw'; readonly bitsPerWeight: number }
  | { readonly kind: 'code'; readonly groupLength: number; readonly pulses: number; readonly gainBits: number };

/**
 * What the allocator minimises under the budget of bytes, e_t being the relative squared error of tensor t:
 * - `uniform`: the error over all weights of the model as if each tensor had unit variance, sum n_t e_t;
 * - `energy`: the squared error of the weights, sum |W_t|^2 e_t;
 * - `hessian`: the squared error of the outputs, sum of tr(E H E^T) as feedback leaves it;
 * - `relative`: the same, each tensor's relative to tr(W H W^T) and weighed by its number of weights;
 * - `kl`: the divergence of the predictions from those of the original, sum n_t (c_t / n_t)^0.75 e_t / (1 - e_t) with c_t
 *   measured by noise on the weights (`divergence-sensitivity.ts`). An extension of this tool: the others look at one tensor
 *   at a time.
 */
export type AllocationMode = 'uniform' | 'energy' | 'hessian' | 'relative' | 'kl';

export const ALLOCATION_MODES: readonly AllocationMode[] = ['uniform', 'energy', 'hessian', 'relative', 'kl'];

/** How a Hessian is used where there is one. */
export interface FeedbackSettings {
  /** Feeds rounding errors forward (GPTQ's order). */
  readonly errorFeedback: boolean;
  /** Searches in the metric of each block. */
  readonly metricSearch: boolean;
  readonly rowRefit: boolean;
  readonly gainRefit: boolean;
  /** Passes of coordinate descent after the first. */
  readonly passes: number;
  readonly damping: number;
  /** Groups by falling mean of the Hessian's diagonal; only without rotation. */
  readonly actOrder: boolean;
}

/** What a run does where nothing else is asked for. Figures behind it are in docs/quantize-pvq.md. */
export const DEFAULT_FEEDBACK: FeedbackSettings = {
  errorFeedback: true,
  metricSearch: true,
  rowRefit: true,
  gainRefit: false,
  passes: 2,
  damping: 0.01,
  actOrder: false,
};

/** D that the allocator chooses from. */
export const DEFAULT_GROUP_LENGTHS: readonly number[] = [16, 32];
