/**
 * One step of a sampling pipeline, applied to x = logits in the order given. Defaults and definitions: specification of
 * steering, sections 2 and 3. Structured-cloneable.
 */
export type SamplerStep =
  | { readonly kind: 'temperature'; readonly temperature: number }
  | {
      readonly kind: 'dynamic-temperature';
      readonly temperature: number;
      readonly range: number;
      readonly exponent: number;
    }
  | { readonly kind: 'top-k'; readonly k: number }
  | { readonly kind: 'top-p'; readonly p: number }
  | { readonly kind: 'min-p'; readonly p: number }
  | { readonly kind: 'typical'; readonly mass: number }
  | { readonly kind: 'epsilon'; readonly epsilon: number }
  | { readonly kind: 'eta'; readonly epsilon: number }
  | { readonly kind: 'top-n-sigma'; readonly n: number }
  | { readonly kind: 'top-h'; readonly alpha: number; readonly rule: TopHRule }
  | { readonly kind: 'xtc'; readonly probability: number; readonly threshold: number }
  | { readonly kind: 'mirostat-v1'; readonly tauBits: number; readonly eta: number; readonly candidates: number }
  | { readonly kind: 'mirostat-v2'; readonly tauBits: number; readonly eta: number };

/** Rules of top-H: the paper's, its released code's, and that of transformers (section 2.3). */
export type TopHRule = 'paper' | 'reference' | 'transformers';

export const TOP_H_RULES: readonly TopHRule[] = ['paper', 'reference', 'transformers'];

/** A pipeline; no steps draw from the model's own distribution. */
export interface SamplingPlan {
  readonly steps: readonly SamplerStep[];
  /** Take the most probable token left instead of drawing. */
  readonly greedy?: boolean;
}

/** What is known of one chosen token. Entropies in nats. */
export interface SampledToken {
  readonly token: number;
  /** Entropy of softmax(logits): temperature 1, nothing cut. */
  readonly entropyNats: number;
  /** Entropy of the distribution that the token was drawn from. */
  readonly entropyAfterNats: number;
  /** Mass of the kept tokens under the tempered distribution, before it was renormalised. */
  readonly keptMass: number;
  readonly keptCount: number;
  /** -ln softmax(logits)[token]. */
  readonly surprisalNats: number;
}

/** Draws the tokens of one sequence, one after the other (Mirostat carries its state from token to token). */
export interface SequenceSampler {
  /** @param logits one row [vocabulary]; left as it is */
  next(logits: Float32Array | Float64Array): SampledToken;
}
