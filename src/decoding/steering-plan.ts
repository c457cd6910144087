import type { InterventionKind } from '../models/interventions.js';
import type { Floats, Intervention } from '../models/layer-runner.js';

/** One operator on residual `layer` (the output of 0-based block `layer`; -1 the embeddings). Structured-cloneable. */
export interface SteeringTerm {
  readonly layer: number;
  readonly operator: InterventionKind;
  /** [hidden] */
  readonly vector: Floats;
  /** The multiplier beta of add; the value of clamp; ablate ignores it. */
  readonly scale: number;
}

/**
 * Positions that are steered, counted from the start of a sequence. With a prompt of n tokens:
 * - `last`: n - 1 and all that follow (EAST: the last position of every forward call while a reply is generated)
 * - `generated`: n and all that follow
 * - `all`, `prompt` (0 to n - 1)
 * - `from`: `position` and all that follow
 * - `mask`: 1 where a position of the prompt with that index is steered, [positions] a prompt; beyond its end 0
 */
export type SteeringPositions =
  | { readonly kind: 'last' | 'generated' | 'all' | 'prompt' }
  | { readonly kind: 'from'; readonly position: number }
  | { readonly kind: 'mask'; readonly masks: readonly Uint8Array[] };

/**
 * Steers a sequence only where its prompt passes a test (CAST, specification section 6.2): the similarity
 * cos(x, tanh(P x)), P = c c'/(c.c), of residual `layer` at the prompt's last token or averaged over its tokens.
 */
export interface SteeringCondition {
  readonly layer: number;
  /** [hidden] */
  readonly vector: Floats;
  readonly threshold: number;
  readonly comparison: '>' | '<';
  readonly read: 'mean' | 'last';
}

/** What is done to the residual stream while a sequence is read and written. Structured-cloneable. */
export interface SteeringPlan {
  /** Operators of one layer act in this order. */
  readonly terms: readonly SteeringTerm[];
  readonly positions: SteeringPositions;
  readonly condition?: SteeringCondition;
}

/** Whether a position is steered in a sequence whose prompt, the `prompt`-th, has `promptLength` tokens. */
export function isSteered(
  positions: SteeringPositions,
  prompt: number,
  promptLength: number,
  position: number,
): boolean {
  switch (positions.kind) {
    case 'all':
      return true;
    case 'last':
      return position >= promptLength - 1;
    case 'generated':
      return position >= promptLength;
    case 'prompt':
      return position < promptLength;
    case 'from':
      return position >= positions.position;
    case 'mask':
      return positions.masks[prompt]?.[position] === 1;
  }
}

/** The plan for one prompt alone: its own mask comes first. */
export function planOfPrompt(plan: SteeringPlan, prompt: number): SteeringPlan {
  const { positions } = plan;
  if (positions.kind !== 'mask') return plan;
  return { ...plan, positions: { kind: 'mask', masks: [positions.masks[prompt] ?? new Uint8Array(0)] } };
}

/** First position that may be steered: what lies before is as without a plan, whatever the strength. */
export function firstSteered(positions: SteeringPositions, prompt: number, promptLength: number): number {
  switch (positions.kind) {
    case 'last':
      return promptLength - 1;
    case 'generated':
      return promptLength;
    case 'from':
      return positions.position;
    case 'mask': {
      const first = positions.masks[prompt]?.indexOf(1) ?? -1;
      return first < 0 ? Number.POSITIVE_INFINITY : first;
    }
    default:
      return 0;
  }
}

/** A window of a forward pass: which prompt it belongs to and how long that prompt is. */
export interface SteeredWindow {
  readonly prompt: number;
  readonly promptLength: number;
  /** False where the plan's condition did not hold. */
  readonly active?: boolean;
}

/** The plan as the engine takes it; positions are those of whole sequences, cached ones included. */
export function interventionsOf(plan: SteeringPlan, windows: readonly SteeredWindow[]): Intervention[] {
  return plan.terms.map(({ layer, operator, vector, scale }) => ({
    layer,
    kind: operator,
    vector,
    scale,
    positions: (window, position) => {
      const { prompt, promptLength, active } = windows[window];
      return active !== false && isSteered(plan.positions, prompt, promptLength, position);
    },
  }));
}
