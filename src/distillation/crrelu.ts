const bump = (x: number): number => Math.exp(-0.5 * x * x);

/** CRReLU(x) = max(0, x) + ε x exp(-x²/2) with one learnable ε a layer (Sun et al. 2024, arXiv 2405.12954). */
export function crrelu(x: ArrayLike<number>, epsilon: number): Float64Array {
  return Float64Array.from(x, (value) => Math.max(0, value) + epsilon * value * bump(value));
}

export interface CrreluGradients {
  readonly x: Float64Array;
  readonly epsilon: number;
}

/** Gradients for the cotangent `g`: the derivative at 0 is ε, and ε's gradient is the sum over all elements. */
export function crreluGradients(x: ArrayLike<number>, epsilon: number, g: ArrayLike<number>): CrreluGradients {
  const gradient = new Float64Array(x.length);
  let sum = 0;
  for (let i = 0; i < x.length; i++) {
    const value = x[i];
    const weight = bump(value);
    // Where the weight is 0 the square may be infinite.
    const slope = weight === 0 ? 0 : epsilon * weight * (1 - value * value);
    gradient[i] = g[i] * ((value > 0 ? 1 : 0) + slope);
    sum += g[i] * value * weight;
  }
  return { x: gradient, epsilon: sum };
}
