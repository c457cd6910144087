import { InputError } from '../errors.js';

export type PenaltyKind = 'lasso' | 'scad' | 'mcp';

export const PENALTIES: readonly PenaltyKind[] = ['lasso', 'scad', 'mcp'];

/**
 * A folded concave penalty `w(x) = lambda |x| + concave(x)`: SCAD (Fan & Li 2001) with `a`, MCP (Zhang 2010) with
 * `gamma`, or none of the concave part (lasso).
 */
export interface Penalty {
  readonly kind: PenaltyKind;
  readonly lambda: number;
  /** Where SCAD becomes flat: at `a lambda`. */
  readonly a: number;
  /** Where MCP becomes flat: at `gamma lambda`. */
  readonly gamma: number;
}

export const DEFAULT_A = 3.7;
export const DEFAULT_GAMMA = 2;

/**
 * A checked penalty.
 * @throws InputError for lambda <= 0, a <= 2, gamma <= 1
 */
export function createPenalty(kind: PenaltyKind, lambda: number, a = DEFAULT_A, gamma = DEFAULT_GAMMA): Penalty {
  if (!(lambda > 0)) throw new InputError(`lambda=${lambda}: the penalty needs lambda > 0`);
  if (kind === 'scad' && !(a > 2)) {
    throw new InputError(
      `a=${a}: SCAD needs a > 2, else its concave part outweighs columns of unit norm; 3.7 is usual`,
    );
  }
  if (kind === 'mcp' && !(gamma > 1)) {
    throw new InputError(`gamma=${gamma}: MCP needs gamma > 1, else its concave part outweighs columns of unit norm`);
  }
  return { kind, lambda, a, gamma };
}

/** The same penalty with another lambda. */
export function withLambda(penalty: Penalty, lambda: number): Penalty {
  return { ...penalty, lambda };
}

/** w(x). */
export function penaltyValue({ kind, lambda, a, gamma }: Penalty, x: number): number {
  const size = Math.abs(x);
  if (kind === 'scad') {
    if (size <= lambda) return lambda * size;
    if (size <= a * lambda) return (2 * a * lambda * size - size * size - lambda * lambda) / (2 * (a - 1));
    return 0.5 * lambda * lambda * (a + 1);
  }
  if (kind === 'mcp') {
    if (size <= gamma * lambda) return lambda * size - (size * size) / (2 * gamma);
    return 0.5 * gamma * lambda * lambda;
  }
  return lambda * size;
}

/** Derivative of the concave part `w(x) - lambda |x|`; it is 0 at 0. */
export function concaveDerivative({ kind, lambda, a, gamma }: Penalty, x: number): number {
  const size = Math.abs(x);
  if (kind === 'scad') {
    if (size <= lambda) return 0;
    return size <= a * lambda ? ((lambda - size) * Math.sign(x)) / (a - 1) : -lambda * Math.sign(x);
  }
  if (kind === 'mcp') return size <= gamma * lambda ? -x / gamma : -lambda * Math.sign(x);
  return 0;
}

/** Lipschitz constant of `concaveDerivative`. */
export function concavity({ kind, a, gamma }: Penalty): number {
  return kind === 'scad' ? 1 / (a - 1) : kind === 'mcp' ? 1 / gamma : 0;
}
