import type { AssignmentMode } from '../kernels/linear-assignment.js';
import type { Linkage } from '../linalg/agglomerative.js';
import type { BudgetRule } from './budget.js';
import type { WeightPolicy } from './combine.js';
import type { MergedForm } from './merged-writer.js';
import type { SimilarityBasis } from './similarity.js';

/** How neurons of members go to the places of their dominant: not at all, by weights, by inner activations on the text. */
export const ALIGNMENTS = ['none', 'weights', 'activations'] as const;
export type AlignmentBasis = (typeof ALIGNMENTS)[number];

/** What becomes of the members of a group. */
export const COMBINATIONS = ['mean', 'zip', 'joint-svd', 'fixed-dominant', 'fisher'] as const;
export type CombinationRule = (typeof COMBINATIONS)[number];

/**
 * What down projections are fitted to: nothing; each group's to what its members gave under the original routing; all of a
 * layer together to the layer's output under the routing that is stored.
 */
export const REFIT_TARGETS = ['none', 'group', 'layer'] as const;
export type RefitTarget = (typeof REFIT_TARGETS)[number];

/** Where the router row of a group comes from. */
export const ROUTER_ROWS = ['dominant', 'mean', 'fit'] as const;
export type RouterRows = (typeof ROUTER_ROWS)[number];

/** Whether REAP's scores take weights of the router before or after division by the sum of the chosen. */
export const GATE_WEIGHTS = ['plain', 'renormalized'] as const;
export type GateWeights = (typeof GATE_WEIGHTS)[number];

/** Everything that decides what a merged model is, besides the model, its statistics and the text. */
export interface MergeSettings {
  readonly method: string;
  /** Experts kept in a layer, on average over the merged layers. */
  readonly experts: number;
  /** 0-based layers that keep all their experts. */
  readonly excluded: readonly number[];
  readonly budget: BudgetRule;
  readonly similarity: SimilarityBasis;
  /** Most members of a group. */
  readonly capacity?: number;
  readonly linkage: Linkage;
  readonly align: AlignmentBasis;
  readonly assignment: AssignmentMode;
  /** Columns of the down projection count in the alignment; matrices are balanced by their norms. */
  readonly alignDown: boolean;
  readonly balance: boolean;
  readonly weights: WeightPolicy;
  readonly combine: CombinationRule;
  /** Added to the sum of weights, as the released code does. */
  readonly referenceEpsilon: number;
  readonly router: MergedForm;
  readonly routerRows: RouterRows;
  /** Damping of fitted router rows. */
  readonly routerLambda?: number;
  /** What down projections are fitted to on the text, and the damping of it. */
  readonly refit: RefitTarget;
  readonly refitLambda?: number;
  /** Directions kept of the joint SVD; all that one expert can have without. */
  readonly rank?: number;
  readonly gateWeights: GateWeights;
  /** Experts with activations far above all others are never pruned. */
  readonly keepSuperExperts: boolean;
  /** A new number of experts a token. */
  readonly topK?: number;
  readonly seed: number;
}
