import { createRandom } from '../random.js';

/** Minus Rosenbrock's function sum 100 (x_{i+1} - x_i^2)^2 + (1 - x_i)^2: a curved ridge, 0 at (1, ..., 1). */
export function rosenbrockScore(x: Float64Array): number {
  let sum = 0;
  for (let i = 0; i + 1 < x.length; i++) sum += 100 * (x[i + 1] - x[i] * x[i]) ** 2 + (1 - x[i]) ** 2;
  return -sum;
}

/** Couplings of a square lattice with periodic edges: to the right of and below each site, [side * side] each. */
export interface IsingLattice {
  readonly side: number;
  readonly right: Float64Array;
  readonly down: Float64Array;
}

/** A ferromagnet (all couplings 1), or with a seed a glass of couplings +1 and -1. Throws RangeError for side < 3. */
export function isingLattice(side: number, glassSeed?: number): IsingLattice {
  if (!(Number.isInteger(side) && side >= 3)) throw new RangeError(`Ising lattice of side ${side}: at least 3`);
  const random = glassSeed === undefined ? undefined : createRandom(glassSeed);
  const couplings = (): Float64Array =>
    Float64Array.from({ length: side * side }, () => (random && random.uniform() < 0.5 ? -1 : 1));
  return { side, right: couplings(), down: couplings() };
}

/** Minus the Ising energy: sum J_ij s_i s_j over neighbours, spins s = 2 x - 1 of bits x [side * side]. */
export function isingScore({ side, right, down }: IsingLattice, x: Float64Array): number {
  let sum = 0;
  for (let row = 0; row < side; row++) {
    for (let column = 0; column < side; column++) {
      const at = row * side + column;
      const spin = 2 * x[at] - 1;
      const beside = row * side + ((column + 1) % side);
      const below = ((row + 1) % side) * side + column;
      sum += spin * (right[at] * (2 * x[beside] - 1) + down[at] * (2 * x[below] - 1));
    }
  }
  return sum;
}
