import type { InterventionKind } from '../models/interventions.js';

/** What is known of where vectors come from and how they are meant; unknown fields are absent. */
export interface VectorOrigin {
  /** Architecture name (`model_type`), for `controlvector.model_hint`. */
  readonly modelType?: string;
  readonly layers?: number;
  /** SHA-256 over the model's files (`src/models/model-hash.ts`); a model with another hash is refused. */
  readonly modelSha256?: string;
  /** `east`, `mean-difference`, `pca-pairwise`, ... */
  readonly method?: string;
  /** How lengths were set: `raw`, `unit`, `mean-projection`, `residual-fraction:f`. */
  readonly scale?: string;
  /** Positions that the vectors are meant for, as `--positions` writes them. */
  readonly positions?: string;
  readonly operator?: InterventionKind;
}

/**
 * Directions by 0-based decoder block l; the vector of l acts on residual l, the output of that block. Every file format
 * is turned into this convention when it is read, and says in `assumptions` what had to be assumed.
 */
export interface SteeringVectors {
  readonly hiddenSize: number;
  readonly directions: ReadonlyMap<number, Float32Array>;
  readonly origin: VectorOrigin;
  readonly assumptions: readonly string[];
}
