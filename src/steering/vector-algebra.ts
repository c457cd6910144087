import { InputError } from '../errors.js';
import type { SteeringVectors, VectorOrigin } from './types.js';
import { sameArchitecture } from './vector-files/fit.js';
import { cosine, dot, norm } from './vector-measures.js';

/** Vectors with what they are called in messages and matrices. */
export interface NamedVectors {
  readonly name: string;
  readonly vectors: SteeringVectors;
}

export interface WeightedVectors extends NamedVectors {
  readonly weight: number;
}

/** What is left of a vector by orthogonalisation, relative to its length, below which it counts as none. */
const PARALLEL = 1e-6;

/** What is known of all; fields that differ are left out. @throws InputError for vectors of different models */
function commonOrigin(all: readonly NamedVectors[]): VectorOrigin {
  const [first, ...others] = all;
  const about: Record<string, unknown> = { ...first.vectors.origin };
  for (const { name, vectors } of others) {
    if (vectors.hiddenSize !== first.vectors.hiddenSize) {
      throw new InputError(
        `${name}: ${vectors.hiddenSize} numbers, ${first.name} has ${first.vectors.hiddenSize}: vectors of different models`,
      );
    }
    refuseOtherModel(first, name, vectors.origin);
    for (const key of Object.keys(about)) {
      if (vectors.origin[key as keyof VectorOrigin] !== about[key]) delete about[key];
    }
  }
  return about;
}

function refuseOtherModel(first: NamedVectors, name: string, origin: VectorOrigin): void {
  const a = first.vectors.origin;
  const differ = (x: unknown, y: unknown): boolean => x !== undefined && y !== undefined && x !== y;
  const architectures =
    a.modelType !== undefined && origin.modelType !== undefined && !sameArchitecture(a.modelType, origin.modelType);
  if (architectures || differ(a.layers, origin.layers) || differ(a.modelSha256, origin.modelSha256)) {
    throw new InputError(
      `${name}: made for another model than ${first.name}: their coordinates have nothing in common`,
    );
  }
}

function result(
  all: readonly NamedVectors[],
  directions: Iterable<readonly [number, Float32Array]>,
  changes: VectorOrigin = {},
): SteeringVectors {
  const { scale: _, ...origin } = commonOrigin(all);
  const sorted = new Map([...directions].sort(([a], [b]) => a - b));
  const assumptions = all.flatMap(({ name, vectors }) => vectors.assumptions.map((line) => `${name}: ${line}`));
  return { hiddenSize: all[0].vectors.hiddenSize, directions: sorted, origin: { ...origin, ...changes }, assumptions };
}

/** f64 to f32. @throws InputError for what f32 cannot hold */
function rounded(values: Float64Array, block: number): Float32Array {
  const floats = Float32Array.from(values);
  if (!floats.every(Number.isFinite)) throw new InputError(`block ${block}: the result is too large for f32`);
  return floats;
}

/** Blocks that any of the vectors has, ascending. */
function blocksOf(all: readonly NamedVectors[]): number[] {
  return [...new Set(all.flatMap(({ vectors }) => [...vectors.directions.keys()]))].sort((a, b) => a - b);
}

/**
 * sum_i w_i v_i block by block, summed in f64; a file without a vector of a block adds nothing there. One file and one
 * weight is scaling, weights of 1 and -1 are addition and subtraction.
 */
export function combineVectors(terms: readonly WeightedVectors[]): SteeringVectors {
  const sums = blocksOf(terms).map((block): [number, Float32Array] => {
    const sum = new Float64Array(terms[0].vectors.hiddenSize);
    for (const { vectors, weight } of terms) {
      const vector = vectors.directions.get(block);
      for (let i = 0; vector && i < sum.length; i++) sum[i] += weight * vector[i];
    }
    return [block, rounded(sum, block)];
  });
  return result(terms, sums, { scale: 'combined' });
}

/**
 * The part of each vector orthogonal to those of `against` in the same block: v - sum_j <v, q_j> q_j, with q_j an orthonormal
 * basis of what is taken out (modified Gram-Schmidt, twice).
 * @throws InputError where `against` lacks a block, or nothing is left
 */
export function orthogonalise(of: NamedVectors, against: readonly NamedVectors[]): SteeringVectors {
  const left = [...of.vectors.directions].map(([block, vector]): [number, Float32Array] => {
    const basis: Float64Array[] = [];
    for (const { name, vectors } of against) {
      const other = vectors.directions.get(block);
      if (!other) throw new InputError(`${name}: has no vector for block ${block}, which ${of.name} has`);
      const rest = removed(other, basis);
      const length = norm(rest);
      if (length > PARALLEL * norm(other)) basis.push(rest.map((value) => value / length));
    }
    const rest = removed(vector, basis);
    if (!(norm(rest) > PARALLEL * norm(vector))) {
      throw new InputError(`${of.name}: block ${block} lies in the span of what is taken out of it: nothing is left`);
    }
    return [block, rounded(rest, block)];
  });
  return result([of, ...against], left, { scale: 'combined' });
}

/** A vector without its components along an orthonormal basis; the second pass removes what rounding left. */
function removed(vector: ArrayLike<number>, basis: readonly Float64Array[]): Float64Array {
  const rest = Float64Array.from(vector);
  for (let pass = 0; pass < 2; pass++) {
    for (const direction of basis) {
      const along = dot(rest, direction);
      for (let i = 0; i < rest.length; i++) rest[i] -= along * direction[i];
    }
  }
  return rest;
}

/** One set of the blocks of several. @throws InputError when two have a vector for one block */
export function mergeBlocks(all: readonly NamedVectors[]): SteeringVectors {
  const owners = new Map<number, string>();
  const directions: [number, Float32Array][] = [];
  for (const { name, vectors } of all) {
    for (const [block, vector] of vectors.directions) {
      const owner = owners.get(block);
      if (owner !== undefined) {
        throw new InputError(`${owner} and ${name} both have a vector for block ${block}: add them, or choose blocks`);
      }
      owners.set(block, name);
      directions.push([block, vector]);
    }
  }
  return result(all, directions);
}

/** The mean of the vectors of all blocks of all sets, as the vector of one block. */
export function averageBlocks(all: readonly NamedVectors[], block: number): SteeringVectors {
  const vectors = all.flatMap((set) => [...set.vectors.directions.values()]);
  const mean = new Float64Array(all[0].vectors.hiddenSize);
  const common = commonOrigin(all);
  for (const vector of vectors) for (let i = 0; i < mean.length; i++) mean[i] += vector[i] / vectors.length;
  const { layers } = common;
  if (layers !== undefined && block >= layers) throw new InputError(`block ${block}: the model has 0 to ${layers - 1}`);
  return result(all, [[block, rounded(mean, block)]], { scale: 'combined' });
}

/** Every vector of a set at length 1. @throws InputError for a zero vector */
export function unitVectors(of: NamedVectors): SteeringVectors {
  const units = [...of.vectors.directions].map(([block, vector]): [number, Float32Array] => {
    const length = norm(vector);
    if (length === 0) throw new InputError(`${of.name}: the vector of block ${block} is zero: it has no direction`);
    return [block, Float32Array.from(vector, (value) => value / length)];
  });
  return result([of], units, { scale: 'unit' });
}

/** Vectors of the blocks that are wanted. @throws InputError naming those that are there */
export function chooseBlocks({ name, vectors }: NamedVectors, blocks: readonly number[]): SteeringVectors {
  const chosen = blocks.map((block): [number, Float32Array] => {
    const vector = vectors.directions.get(block);
    if (vector) return [block, vector];
    throw new InputError(
      `${name}: no vector for block ${block}; it holds ${[...vectors.directions.keys()].join(', ')}`,
    );
  });
  return { ...vectors, directions: new Map(chosen.sort(([a], [b]) => a - b)) };
}

/** One row and column of a {@link cosineMatrix}. */
export interface MatrixEntry {
  readonly name: string;
  readonly block: number;
  readonly norm: number;
}

/**
 * Cosines between all vectors of all sets, [n, n] row-major, in the order of `entries`: sets as given, blocks ascending. NaN
 * where a vector is zero.
 * @throws InputError for sets of different models
 */
export function cosineMatrix(all: readonly NamedVectors[]): { entries: MatrixEntry[]; cosines: Float64Array } {
  commonOrigin(all);
  const rows = all.flatMap(({ name, vectors }) =>
    [...vectors.directions].sort(([a], [b]) => a - b).map(([block, vector]) => ({ name, block, vector })),
  );
  const cosines = new Float64Array(rows.length ** 2);
  rows.forEach((row, i) => {
    for (let j = 0; j < rows.length; j++) cosines[i * rows.length + j] = cosine(row.vector, rows[j].vector);
  });
  const entries = rows.map(({ name, block, vector }) => ({ name, block, norm: norm(vector) }));
  return { entries, cosines };
}
