import type { LayerBudget } from '../budget.js';
import type { MergeSettings } from '../merge-settings.js';
import type { SubsetError } from '../pruning.js';
import type { ExpertShape, LayerGrouping, LayerStatistics, RouterRule } from '../types.js';

/**
 * What a method must know of a layer beforehand: nothing; sums over router logits; also sums over what routed tokens did in
 * their experts; also what every expert gives for every token.
 */
export type StatisticsNeed = 'none' | 'routing' | 'outputs' | 'everywhere';

const NEEDS: readonly StatisticsNeed[] = ['none', 'routing', 'outputs', 'everywhere'];

/** The larger of two needs. */
export function greaterNeed(a: StatisticsNeed, b: StatisticsNeed): StatisticsNeed {
  return NEEDS.indexOf(a) >= NEEDS.indexOf(b) ? a : b;
}

/** A layer as methods see it. */
export interface MethodLayer {
  /** 0-based decoder layer. */
  readonly layer: number;
  readonly experts: number;
  readonly shape: ExpertShape;
  readonly rule: RouterRule;
  /** Missing where the method needs none and none were given. */
  readonly statistics?: LayerStatistics;
  /** Share of the token-slots of each expert, [E]; all equal without statistics. */
  readonly usage: Float64Array;
  /** Similarity of the experts in the basis of the settings, [E, E]. */
  similarity(): Promise<Float64Array>;
  /** Error of the layer's output on the text when only some experts stay; needs a model that runs. */
  subsetError(): Promise<SubsetError>;
}

export interface GroupingRequest {
  readonly layers: readonly MethodLayer[];
  /** Layers that are merged, one flag a layer; the others keep every expert. */
  readonly merged: readonly boolean[];
  readonly settings: MergeSettings;
}

export interface MethodGrouping {
  readonly groupings: readonly LayerGrouping[];
  /** Absent where the method has a rule of its own. */
  readonly budget?: LayerBudget;
  readonly warnings: readonly string[];
  /** Of methods that cluster: how well each layer's clusters part, -1 to 1; NaN for one cluster. */
  readonly silhouettes?: readonly number[];
}

/** A way to fewer experts. The pipeline knows methods by this alone. */
export interface ExpertMethod {
  readonly name: string;
  readonly summary: string;
  /** Paper, year, section. */
  readonly reference: string;
  /** Whether experts become one or are dropped. */
  readonly kind: 'merge' | 'prune';
  readonly needs: StatisticsNeed;
  /** The text runs through the model while experts are chosen. */
  readonly needsText?: boolean;
  /** What the method means by itself; an option of the user goes before. */
  readonly defaults: Partial<MergeSettings>;
  /** Readings of the method where paper and released code differ, by name. */
  readonly variants?: Readonly<Record<string, Partial<MergeSettings>>>;
  /** Options that the method does not read; giving them is an error. */
  readonly unused: readonly (keyof MergeSettings)[];
  group(request: GroupingRequest): Promise<MethodGrouping> | MethodGrouping;
}
