import { symmetricEigen } from '../linalg/symmetric-eigen.js';
import type { CompositeProblem } from './composite.js';
import { concaveDerivative, concavity, type Penalty, penaltyValue } from './penalty.js';

/** `x' H x / 2 - c' x` with H symmetric positive semidefinite `[size, size]`, row-major. */
export interface Quadratic {
  readonly size: number;
  readonly h: Float64Array;
  readonly c: Float64Array;
}

/** Largest eigenvalue of H. */
export function quadraticLipschitz({ h, size }: Quadratic): number {
  return symmetricEigen(h, size).values[size - 1];
}

/** A quadratic with a penalty on the coefficients whose `penalised` is not 0. */
export function penalisedQuadratic(quadratic: Quadratic, penalty: Penalty, penalised: Uint8Array): CompositeProblem {
  const { size, h, c } = quadratic;
  return {
    size,
    lipschitz: Math.max(quadraticLipschitz(quadratic), concavity(penalty)),
    levels: Float64Array.from(penalised, (flag) => (flag === 0 ? 0 : penalty.lambda)),
    gradient(x, out) {
      let value = 0;
      for (let i = 0; i < size; i++) {
        let sum = 0;
        for (let j = 0; j < size; j++) sum += h[i * size + j] * x[j];
        value += x[i] * (0.5 * sum - c[i]);
        out[i] = sum - c[i];
        if (penalised[i] === 0) continue;
        value += penaltyValue(penalty, x[i]);
        out[i] += concaveDerivative(penalty, x[i]);
      }
      return value;
    },
  };
}
