import type { HashedFile } from '../formats/hash.js';
import { type ReportValue, reportObject } from '../report/values.js';
import { type CompressSettings, denseBytes, factorisedBytes, type StoredMatrix } from './compress-plan.js';
import type { ExpertModel } from './expert-model.js';
import type { MatrixFigures } from './factor-journal.js';
import { stableRank } from './losparse.js';

export const COMPRESS_SCHEMA = 'merge-moe-compress';

/** What became of one matrix. */
export interface CompressedMatrix {
  readonly layer: number;
  readonly expert: number;
  readonly matrix: 'gate' | 'up' | 'down';
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  /** False where it was left as it was, because its parts would take as many bytes. */
  readonly compressed: boolean;
  readonly rank: number;
  readonly sparse_rows: number;
  /** How the singular values were found. */
  readonly path: 'exact' | 'randomised';
  readonly stable_rank: number;
  readonly effective_rank: number | null;
  /** Share of ||W||^2 in the kept singular values. */
  readonly energy_kept: number;
  /** ||W - L R|| / ||W|| and ||W - L R - S|| / ||W||, of the parts as they are stored. */
  readonly low_rank_error: number;
  readonly relative_error: number;
  readonly bytes_before: number;
  readonly bytes_after: number;
  readonly unused_expert: boolean;
}

export const MATRIX_COLUMNS: readonly (keyof CompressedMatrix)[] = [
  'layer',
  'expert',
  'matrix',
  'name',
  'rows',
  'columns',
  'compressed',
  'rank',
  'sparse_rows',
  'path',
  'stable_rank',
  'effective_rank',
  'energy_kept',
  'low_rank_error',
  'relative_error',
  'bytes_before',
  'bytes_after',
  'unused_expert',
];

export const matrixRow = (matrix: CompressedMatrix): (string | number | null)[] =>
  MATRIX_COLUMNS.map((column) => {
    const value = matrix[column];
    return typeof value === 'boolean' ? String(value) : value;
  });

const ratio = (squares: number, norm: number): number => (norm > 0 ? Math.sqrt(squares) / norm : 0);

/** @param errorSquares ||W - W'||^2 of what was written; @param residualSquares ||W - L R||^2 */
export function compressedMatrix(
  { plan, sparseRows }: StoredMatrix,
  figures: MatrixFigures,
  form: CompressSettings['form'],
  errorSquares: number,
  residualSquares: number,
): CompressedMatrix {
  const { layer, expert, role, name, rows, columns, rank } = plan;
  const before = denseBytes(plan);
  const kept = sparseRows?.length ?? 0;
  const { norm, largest, keptSquares, effectiveRank } = figures;
  return {
    layer,
    expert,
    matrix: role,
    name,
    rows,
    columns,
    compressed: sparseRows !== undefined,
    rank,
    sparse_rows: kept,
    path: figures.exact === 1 ? 'exact' : 'randomised',
    stable_rank: stableRank(norm, largest),
    effective_rank: Number.isNaN(effectiveRank) ? null : effectiveRank,
    energy_kept: norm > 0 ? Math.min(1, keptSquares / norm ** 2) : 1,
    low_rank_error: ratio(residualSquares, norm),
    relative_error: ratio(errorSquares, norm),
    bytes_before: before,
    bytes_after: form === 'dense' || sparseRows === undefined ? before : factorisedBytes(plan, kept),
    unused_expert: figures.unused === 1,
  };
}

interface Totals {
  readonly matrices: number;
  readonly compressed_matrices: number;
  readonly sparse_rows: number;
  readonly rows: number;
  readonly stable_rank_mean: number;
  readonly energy_kept_mean: number;
  /** Root of the summed squared errors over the summed squared norms. */
  readonly low_rank_error: number;
  readonly relative_error: number;
  readonly bytes_before: number;
  readonly bytes_after: number;
}

/** A matrix with the weight of its errors. */
export interface WeighedMatrix {
  readonly matrix: CompressedMatrix;
  /** ||W||^2. */
  readonly squares: number;
}

function totalsOf(list: readonly WeighedMatrix[]): Totals {
  const sum = (value: (each: WeighedMatrix) => number): number => list.reduce((total, each) => total + value(each), 0);
  const squares = sum((each) => each.squares);
  const pooled = (error: (matrix: CompressedMatrix) => number): number =>
    ratio(
      sum((each) => error(each.matrix) ** 2 * each.squares),
      Math.sqrt(squares),
    );
  return {
    matrices: list.length,
    compressed_matrices: sum(({ matrix }) => (matrix.compressed ? 1 : 0)),
    sparse_rows: sum(({ matrix }) => matrix.sparse_rows),
    rows: sum(({ matrix }) => matrix.rows),
    stable_rank_mean: sum(({ matrix }) => matrix.stable_rank) / list.length,
    energy_kept_mean: sum(({ matrix }) => matrix.energy_kept) / list.length,
    low_rank_error: pooled(({ low_rank_error }) => low_rank_error),
    relative_error: pooled(({ relative_error }) => relative_error),
    bytes_before: sum(({ matrix }) => matrix.bytes_before),
    bytes_after: sum(({ matrix }) => matrix.bytes_after),
  };
}

export interface CompressOutcome {
  readonly matrices: readonly WeighedMatrix[];
  /** Bytes of all tensors of the model. */
  readonly bytesBefore: number;
  readonly bytesAfter: number;
  readonly files: readonly HashedFile[];
}

function notesOf(model: ExpertModel, settings: CompressSettings, list: readonly CompressedMatrix[]): string[] {
  const notes = [...model.notes];
  const kept = list.filter(({ compressed }) => !compressed).length;
  if (kept > 0) {
    notes.push(
      `${kept} of ${list.length} matrices stay as they were: rank and rows would take as many bytes; choose a lower rank or fewer rows`,
    );
  }
  const unused = new Set(
    list.filter(({ unused_expert }) => unused_expert).map(({ layer, expert }) => `${layer}.${expert}`),
  );
  if (unused.size > 0) {
    const instead =
      settings.scope === 'matrix' ? 'their rows are scored by magnitude' : 'none of their rows is worth anything';
    notes.push(`${unused.size} experts saw no calibration token: ${instead}`);
  }
  if (settings.form === 'dense') notes.push('the output is as large as the model: the parts are multiplied out');
  return notes;
}

/** The body of the report, which is the manifest of the directory too. */
export function compressBody(
  model: ExpertModel,
  settings: CompressSettings,
  { matrices, bytesBefore, bytesAfter, files }: CompressOutcome,
): { readonly [key: string]: ReportValue } {
  const { form, rank, keepRows, scope, score } = settings;
  const list = matrices.map(({ matrix }) => matrix);
  const layers = [...new Set(list.map(({ layer }) => layer))].map((layer) => ({
    layer,
    ...totalsOf(matrices.filter(({ matrix }) => matrix.layer === layer)),
  }));
  const totals = totalsOf(matrices);
  return reportObject({
    family: model.family,
    form,
    rank,
    keep_rows: keepRows,
    rows_scope: scope,
    row_score: score,
    ...totals,
    experts_saved_share: 1 - totals.bytes_after / totals.bytes_before,
    model_bytes_before: bytesBefore,
    model_bytes_after: bytesAfter,
    model_saved_share: 1 - bytesAfter / bytesBefore,
    layers,
    notes: notesOf(model, settings, list),
    files: files.map(({ name, bytes, sha256 }) => ({ name, bytes, sha256 })),
  });
}
