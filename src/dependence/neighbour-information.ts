import { countWithin, nearestNeighbours, type Points } from '../kernels/neighbours.js';
import { digamma } from '../linalg/special-functions.js';

/** Estimators from nearest neighbours in the maximum norm, for continuous variables of one or more columns. Nats. */

export interface NeighbourSettings {
  /** Which neighbour (3 where none is named). */
  readonly k: number;
  readonly threads?: number;
}

export interface NeighbourEstimate {
  readonly valueNats: number;
  /** Points whose k-th neighbour in the joint space is at distance 0: ties, which these estimators do not expect. */
  readonly zeroDistances: number;
}

/** One variable: `[rows, columns]` row-major. */
export function continuousVariable(data: Float64Array, columns = 1): Points {
  return { data, rows: data.length / columns, columns };
}

/** The columns of several variables side by side. */
export function joinPoints(variables: readonly Points[]): Points {
  if (variables.length === 1) return variables[0];
  const [{ rows }] = variables;
  const columns = variables.reduce((sum, variable) => sum + variable.columns, 0);
  const data = new Float64Array(rows * columns);
  let offset = 0;
  for (const variable of variables) {
    const width = variable.columns;
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < width; j++) data[i * columns + offset + j] = variable.data[i * width + j];
    }
    offset += width;
  }
  return { data, rows, columns };
}

/** ψ of whole numbers, each taken once. */
export function wholeDigamma(): (n: number) => number {
  const known: number[] = [];
  return (n) => {
    known[n] ??= digamma(n);
    return known[n];
  };
}

function zerosOf(distances: Float64Array): number {
  let zeros = 0;
  for (let i = 0; i < distances.length; i++) if (distances[i] === 0) zeros++;
  return zeros;
}

/**
 * Kraskov, Stögbauer & Grassberger (2004), first estimator: ψ(k) + ψ(N) - <ψ(n_x + 1) + ψ(n_y + 1)>, n_x the points
 * nearer in x than the k-th neighbour in the joint space. Strong dependence is underestimated unless N ~ e^I.
 */
export function ksg1(x: Points, y: Points, settings: NeighbourSettings): NeighbourEstimate {
  const { k, threads } = settings;
  const { distances } = nearestNeighbours(joinPoints([x, y]), k, { threads });
  const nx = countWithin(x, distances, { strict: true, threads });
  const ny = countWithin(y, distances, { strict: true, threads });
  const psi = wholeDigamma();
  let sum = 0;
  for (let i = 0; i < x.rows; i++) sum += psi(nx[i] + 1) + psi(ny[i] + 1);
  return { valueNats: digamma(k) + digamma(x.rows) - sum / x.rows, zeroDistances: zerosOf(distances) };
}

/** Largest distance along the columns of one variable from each point to its k neighbours, [rows]. */
function extents(variable: Points, neighbours: Int32Array, k: number): Float64Array {
  const { data, rows, columns } = variable;
  const result = new Float64Array(rows);
  for (let i = 0; i < rows; i++) {
    let largest = 0;
    for (let a = i * k; a < (i + 1) * k; a++) {
      const other = neighbours[a] * columns;
      for (let j = 0; j < columns; j++) {
        largest = Math.max(largest, Math.abs(data[i * columns + j] - data[other + j]));
      }
    }
    result[i] = largest;
  }
  return result;
}

/**
 * Their second estimator: ψ(k) - 1/k + ψ(N) - <ψ(n_x) + ψ(n_y)>, with n_x the points within the largest |dx| among the
 * k neighbours, so that the rectangle has a side of its own for each variable.
 */
export function ksg2(x: Points, y: Points, settings: NeighbourSettings): NeighbourEstimate {
  const { k, threads } = settings;
  const { distances, neighbours } = nearestNeighbours(joinPoints([x, y]), k, { threads, withNeighbours: true });
  if (neighbours === undefined) throw new RangeError('neighbours were asked for');
  const nx = countWithin(x, extents(x, neighbours, k), { strict: false, threads });
  const ny = countWithin(y, extents(y, neighbours, k), { strict: false, threads });
  const psi = wholeDigamma();
  let sum = 0;
  for (let i = 0; i < x.rows; i++) sum += psi(nx[i]) + psi(ny[i]);
  return { valueNats: digamma(k) - 1 / k + digamma(x.rows) - sum / x.rows, zeroDistances: zerosOf(distances) };
}

/** Frenzel & Pompe (2007): I(X;Y|Z) = ψ(k) + <ψ(n_z + 1) - ψ(n_xz + 1) - ψ(n_yz + 1)>. */
export function frenzelPompe(x: Points, y: Points, z: Points, settings: NeighbourSettings): NeighbourEstimate {
  const { k, threads } = settings;
  const { distances } = nearestNeighbours(joinPoints([x, y, z]), k, { threads });
  const nxz = countWithin(joinPoints([x, z]), distances, { strict: true, threads });
  const nyz = countWithin(joinPoints([y, z]), distances, { strict: true, threads });
  const nz = countWithin(z, distances, { strict: true, threads });
  const psi = wholeDigamma();
  let sum = 0;
  for (let i = 0; i < x.rows; i++) sum += psi(nz[i] + 1) - psi(nxz[i] + 1) - psi(nyz[i] + 1);
  return { valueNats: digamma(k) + sum / x.rows, zeroDistances: zerosOf(distances) };
}

/**
 * Kozachenko & Leonenko (1987): differential entropy ψ(N) - ψ(k) + d ln 2 + d <ln ε>, ε the distance to the k-th
 * neighbour. The few points with ε = 0 that pass as rounding have no logarithm and are left out of its mean.
 */
export function kozachenkoLeonenko(variables: readonly Points[], settings: NeighbourSettings): NeighbourEstimate {
  const { k, threads } = settings;
  const joint = joinPoints(variables);
  const { distances } = nearestNeighbours(joint, k, { threads });
  const zeroDistances = zerosOf(distances);
  let sum = 0;
  for (let i = 0; i < joint.rows; i++) if (distances[i] > 0) sum += Math.log(distances[i]);
  const mean = sum / (joint.rows - zeroDistances);
  return {
    valueNats: digamma(joint.rows) - digamma(k) + joint.columns * (Math.LN2 + mean),
    zeroDistances,
  };
}

/**
 * Gao, Kannan, Oh & Viswanath (2017), for variables that are discrete, continuous or a mixture of both:
 * <ψ(k_i) + ln N - ψ(n_x) - ψ(n_y)>, with all points at distance 0 as neighbours where there are k of them. Points are
 * counted with themselves, as in the authors' code.
 */
export function mixedInformation(x: Points, y: Points, settings: NeighbourSettings): NeighbourEstimate {
  const { k, threads } = settings;
  const joint = joinPoints([x, y]);
  const { distances } = nearestNeighbours(joint, k, { threads });
  const zero = new Float64Array(joint.rows);
  const tied = countWithin(joint, zero, { strict: false, threads });
  const strict = (variable: Points): Int32Array => countWithin(variable, distances, { strict: true, threads });
  const atZero = (variable: Points): Int32Array => countWithin(variable, zero, { strict: false, threads });
  const [nx, ny, equalX, equalY] = [strict(x), strict(y), atZero(x), atZero(y)];
  const psi = wholeDigamma();
  let sum = 0;
  for (let i = 0; i < joint.rows; i++) {
    sum +=
      distances[i] === 0
        ? psi(tied[i] + 1) - psi(equalX[i] + 1) - psi(equalY[i] + 1)
        : psi(k) - psi(nx[i] + 1) - psi(ny[i] + 1);
  }
  return { valueNats: Math.log(joint.rows) + sum / joint.rows, zeroDistances: zerosOf(distances) };
}
