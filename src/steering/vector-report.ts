import type { Cell } from '../report/csv.js';
import type { SteeringVectors } from './types.js';
import { cosineMatrix, type NamedVectors } from './vector-algebra.js';
import { norm } from './vector-measures.js';

export const VECTORS_SCHEMA = 'steer-vectors';

/** A file that was read. */
export interface VectorSourceRecord {
  readonly file: string;
  readonly format: string;
  readonly strength: number;
  readonly blocks: readonly number[];
  readonly method: string | null;
  readonly scale: string | null;
  readonly model_type: string | null;
}

/** Cosines between all vectors that were read; `cosines` [n][n] in the order of `entries`. */
export interface CosineRecord {
  readonly entries: readonly { readonly file: string; readonly block: number; readonly norm: number }[];
  readonly cosines: readonly (readonly number[])[];
}

/** Body of the report of steer export, import and combine. */
export interface VectorsBody {
  /** What was done to the files: `convert` is a weighted sum, of one file its product with the strength. */
  readonly operation: string;
  readonly sources: readonly VectorSourceRecord[];
  readonly hidden_size: number;
  readonly layer_base: 0;
  readonly injection: 'block output';
  readonly blocks: readonly { readonly block: number; readonly norm: number }[];
  readonly origin: Readonly<Record<string, string | number | null>>;
  readonly model: { readonly path: string; readonly model_type: string; readonly blocks: number } | null;
  readonly output: { readonly format: string; readonly bytes: number; readonly sha256: string } | null;
  /** What the files left open, and how it was taken. */
  readonly assumptions: readonly string[];
  /** What the written format does not hold. */
  readonly notes: readonly string[];
  readonly cosines: CosineRecord | null;
}

export function sourceRecord(
  file: string,
  format: string,
  strength: number,
  vectors: SteeringVectors,
): VectorSourceRecord {
  const { method, scale, modelType } = vectors.origin;
  return {
    file,
    format,
    strength,
    blocks: [...vectors.directions.keys()],
    method: method ?? null,
    scale: scale ?? null,
    model_type: modelType ?? null,
  };
}

/** What is known of vectors, under the names that files have. */
export function originRecord({ origin }: SteeringVectors): VectorsBody['origin'] {
  return {
    model_type: origin.modelType ?? null,
    model_blocks: origin.layers ?? null,
    model_sha256: origin.modelSha256 ?? null,
    method: origin.method ?? null,
    scale: origin.scale ?? null,
    positions: origin.positions ?? null,
    operator: origin.operator ?? null,
  };
}

export function blockRecords(vectors: SteeringVectors): VectorsBody['blocks'] {
  return [...vectors.directions].map(([block, vector]) => ({ block, norm: norm(vector) }));
}

/** Above this many vectors the matrix says little and takes much. */
export const MOST_COSINES = 512;

/** @returns null for a single vector, and for more than 512 */
export function cosineRecord(sources: readonly NamedVectors[]): CosineRecord | null {
  const count = sources.reduce((sum, { vectors }) => sum + vectors.directions.size, 0);
  if (count < 2 || count > MOST_COSINES) return null;
  const { entries, cosines } = cosineMatrix(sources);
  return {
    entries: entries.map(({ name, block, norm: length }) => ({ file: name, block, norm: length })),
    cosines: entries.map((_, i) => [...cosines.subarray(i * entries.length, (i + 1) * entries.length)]),
  };
}

/** Columns of the table of pairs. */
export const COSINE_COLUMNS = ['file', 'block', 'norm', 'other_file', 'other_block', 'cosine'] as const;

/** One row a pair of vectors, each pair once. */
export function* cosineRows({ entries, cosines }: CosineRecord): Generator<Cell[]> {
  for (let i = 0; i < entries.length; i++) {
    for (let j = i + 1; j < entries.length; j++) {
      const [a, b] = [entries[i], entries[j]];
      yield [a.file, a.block, a.norm, b.file, b.block, cosines[i][j]];
    }
  }
}
