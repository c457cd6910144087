/** Above this, exp(-x²/2) has left the range of single precision, and the square no longer matters. */
const LARGEST_SQUARE = 200;

const cappedSquare = (x: number): number => Math.min(x * x, LARGEST_SQUARE);
const bump = (x: number): number => Math.exp(-0.5 * cappedSquare(x));

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
    gradient[i] = g[i] * ((value > 0 ? 1 : 0) + epsilon * weight * (1 - cappedSquare(value)));
    sum += g[i] * value * weight;
  }
  return { x: gradient, epsilon: sum };
}
