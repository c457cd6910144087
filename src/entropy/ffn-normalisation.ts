import { InputError } from '../errors.js';
import { thinSvd } from '../linalg/svd.js';

/** A matrix `[rows, columns]`, row-major. */
export interface WeightMatrix {
  readonly data: Float64Array;
  readonly rows: number;
  readonly columns: number;
}

function productOf(a: WeightMatrix, b: WeightMatrix): WeightMatrix {
  if (a.columns !== b.rows) {
    throw new InputError(`a product of [${a.rows},${a.columns}] and [${b.rows},${b.columns}] does not exist`);
  }
  const data = new Float64Array(a.rows * b.columns);
  for (let i = 0; i < a.rows; i++) {
    for (let k = 0; k < a.columns; k++) {
      const factor = a.data[i * a.columns + k];
      for (let j = 0; j < b.columns; j++) data[i * b.columns + j] += factor * b.data[k * b.columns + j];
    }
  }
  return { data, rows: a.rows, columns: b.columns };
}

/** Which index of a weight counts the output units: `rows` for [out, in], `columns` for [in, out] (GPT-2's layout). */
export type OutputAxis = 'rows' | 'columns';

/** Euclidean norm of the weights of every output unit. */
export function unitNorms(weight: WeightMatrix, axis: OutputAxis): Float64Array {
  const { data, rows, columns } = weight;
  const squares = new Float64Array(axis === 'rows' ? rows : columns);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) squares[axis === 'rows' ? i : j] += data[i * columns + j] ** 2;
  }
  return squares.map(Math.sqrt);
}

/**
 * Weight normalisation W = g V / |V|, one norm and one gain per output unit (Salimans & Kingma 2016; a replacement of
 * LayerNorm in Jha & Reagen 2025). A unit without weights stays 0.
 * @param gain one number per output unit
 */
export function weightNormalised(direction: WeightMatrix, gain: Float64Array, axis: OutputAxis = 'rows'): WeightMatrix {
  const norms = unitNorms(direction, axis);
  if (gain.length !== norms.length) {
    throw new InputError(`weight norm: ${gain.length} gains for ${norms.length} output units`);
  }
  const { rows, columns } = direction;
  const data = direction.data.map((value, at) => {
    const unit = axis === 'rows' ? Math.floor(at / columns) : at % columns;
    return norms[unit] === 0 ? 0 : (gain[unit] * value) / norms[unit];
  });
  return { data, rows, columns };
}

/** Estimate of the largest singular value, and its vectors of unit length. */
export interface PowerIteration {
  readonly sigma: number;
  /** `[rows]` */
  readonly left: Float64Array;
  /** `[columns]` */
  readonly right: Float64Array;
}

function normalised(vector: Float64Array): Float64Array {
  let squares = 0;
  for (const value of vector) squares += value * value;
  const norm = Math.sqrt(squares);
  return norm === 0 ? vector : vector.map((value) => value / norm);
}

/**
 * Power iteration v <- W'u / |.|, u <- W v / |.|, then sigma = u'W v (Miyato et al. 2018). In training one iteration a
 * step, from the `left` of the step before.
 */
export function powerIteration(weight: WeightMatrix, start: Float64Array, iterations: number): PowerIteration {
  const { data, rows, columns } = weight;
  if (start.length !== rows) throw new InputError(`spectral norm: a start of ${start.length} values for ${rows} rows`);
  if (!(iterations >= 1)) throw new InputError(`spectral norm: ${iterations} iterations; one is the least`);
  const forward = (v: Float64Array): Float64Array => {
    const out = new Float64Array(rows);
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) out[i] += data[i * columns + j] * v[j];
    }
    return out;
  };
  const backward = (u: Float64Array): Float64Array => {
    const out = new Float64Array(columns);
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) out[j] += data[i * columns + j] * u[i];
    }
    return out;
  };
  let left = start;
  let right: Float64Array = new Float64Array(columns);
  let product: Float64Array = new Float64Array(rows);
  for (let step = 0; step < iterations; step++) {
    right = normalised(backward(left));
    product = forward(right);
    left = normalised(product);
  }
  let sigma = 0;
  for (let i = 0; i < rows; i++) sigma += left[i] * product[i];
  return { sigma, left, right };
}

/** Spectral normalisation W / sigma. A matrix of zeros stays 0. */
export function spectrallyNormalised(weight: WeightMatrix, sigma: number): WeightMatrix {
  return { ...weight, data: weight.data.map((value) => (sigma === 0 ? 0 : value / sigma)) };
}

/** Learnable scalars of a layer's scaled feed-forward branch: y = beta x + FFN(x) / alpha. */
export interface FfnScales {
  readonly alpha: number;
  readonly beta: number;
}

function addScaled(x: WeightMatrix, branch: WeightMatrix, { alpha, beta }: FfnScales): WeightMatrix {
  if (branch.columns !== x.columns) {
    throw new InputError(`scaled FFN: the branch gives ${branch.columns} columns for an input of ${x.columns}`);
  }
  if (alpha === 0) throw new InputError('scaled FFN: alpha is 0; it divides the branch');
  return { ...x, data: x.data.map((value, at) => beta * value + branch.data[at] / alpha) };
}

/** y = beta x + x W_in W_out / alpha, the scaled FFN without activation, x `[n, d]` (Jha & Reagen 2025). */
export function scaledFfn(
  x: WeightMatrix,
  inward: WeightMatrix,
  outward: WeightMatrix,
  scales: FfnScales,
): WeightMatrix {
  return addScaled(x, productOf(productOf(x, inward), outward), scales);
}

/** The same with the two matrices fused into one of [d, d]: without an activation between them nothing else is needed. */
export function fusedScaledFfn(x: WeightMatrix, fused: WeightMatrix, scales: FfnScales): WeightMatrix {
  return addScaled(x, productOf(x, fused), scales);
}

/** W_in W_out, `[d, d]`. */
export function fuseFfn(inward: WeightMatrix, outward: WeightMatrix): WeightMatrix {
  return productOf(inward, outward);
}

/** The largest singular value itself. */
export function spectralNorm({ data, rows, columns }: WeightMatrix): number {
  return rows === 0 || columns === 0 ? 0 : thinSvd(data, rows, columns).values[0];
}
