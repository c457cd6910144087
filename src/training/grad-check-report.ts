import type { GradCheck } from './grad-check.js';
import type { GradientGraph } from './gradient-graph.js';

/** Gradients beside finite differences, as reports tell it. */
export interface GradCheckBody {
  readonly precision: 'f32' | 'f64';
  /** Operator that the runtime cannot compute in double precision, where one made the check single. */
  readonly missing_double_kernel: string | null;
  readonly tensors: number;
  readonly entries: number;
  /** Over tensors, of the entries and of a random direction. */
  readonly worst_relative_error: number;
  readonly worst_parameter: string;
  readonly tolerance: number;
  readonly agrees: boolean;
}

/** What a saved graph of gradients computes, as reports tell it. */
export interface GradientGraphBody {
  /** `inside`: the graph computes the loss; `outside`: the loss's gradient by the logits is an input. */
  readonly loss: 'inside' | 'outside';
  /** Beside weights. */
  readonly inputs: readonly string[];
  /** Beside gradients of weights. */
  readonly outputs: readonly string[];
  /** Tensors that have a gradient. */
  readonly gradients: number;
}

/** What the report says of a saved graph. */
export function gradientGraphBody({ loss, inputs, outputs, gradients }: GradientGraph): GradientGraphBody {
  return { loss, inputs, outputs, gradients };
}

/**
 * What the report says of a check.
 * @param missing operator that has no kernel in double precision
 */
export function gradCheckBody(check: GradCheck, missing?: string): GradCheckBody {
  const errors = check.parameters.map(({ relativeError, directionError }) => Math.max(relativeError, directionError));
  return {
    precision: check.precision,
    missing_double_kernel: missing ?? null,
    tensors: check.parameters.length,
    entries: check.parameters.reduce((sum, { entries }) => sum + entries, 0),
    worst_relative_error: errors.reduce((most, error) => Math.max(most, error), 0),
    worst_parameter: check.worst,
    tolerance: check.tolerance,
    agrees: check.passed,
  };
}
