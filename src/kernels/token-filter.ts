/**
 * Next-token distributions cut by a pipeline of filters and drawn from, many rows at once and in one native call:
 * definitions in `token-cuts.ts`, meaning in `token-filter-reference.ts`.
 */
import { InputError } from '../errors.js';
import {
  FILTER_FIGURES,
  type FilterFigure,
  type FilterStep,
  filterRowReference,
  type LogitRow,
} from './token-filter-reference.js';

export type { FilterFigure, FilterStep, LogitRow } from './token-filter-reference.js';

export interface FilterRequest {
  /** [rows, vocabulary]; left as it is. -Infinity masks a token. */
  readonly logits: LogitRow;
  readonly rows: number;
  readonly vocabulary: number;
  /** The filters of every row: one pipeline for all, or as many pipelines as rows, of the same methods. */
  readonly pipelines: readonly (readonly FilterStep[])[];
  /** [rows] in [0, 1): draws a token a row. Without it none is drawn. */
  readonly uniforms?: Float64Array;
  /** After all filters the most probable token alone is kept. */
  readonly greedy?: boolean;
  /** Also give the ids that were kept. */
  readonly keep?: boolean;
  /** What error messages call the logits, and the number of the first row there. */
  readonly name?: string;
  readonly firstRow?: number;
  readonly threads?: number;
}

export interface FilteredRows {
  readonly rows: number;
  /** [rows]; -1 where nothing was drawn. */
  readonly tokens: Int32Array;
  /** [rows] a figure. */
  readonly figures: Readonly<Record<FilterFigure, Float64Array>>;
  /** Ids kept in each row, ascending; empty unless asked for. */
  readonly kept: readonly Int32Array[];
}

function checkRequest({ logits, rows, vocabulary, pipelines, uniforms }: FilterRequest): void {
  if (logits.length < rows * vocabulary)
    throw new RangeError(`${logits.length} logits are no [${rows}, ${vocabulary}]`);
  if (pipelines.length !== 1 && pipelines.length !== rows) {
    throw new RangeError(`${pipelines.length} pipelines for ${rows} rows`);
  }
  if (uniforms !== undefined && uniforms.length !== rows) {
    throw new RangeError(`${uniforms.length} uniform numbers for ${rows} rows`);
  }
}

function hostileRow(request: FilterRequest, row: number): InputError {
  const { logits, vocabulary, name = 'logits', firstRow = 0 } = request;
  const values = logits.subarray(row * vocabulary, (row + 1) * vocabulary);
  const column = values.findIndex((x) => !(x < Number.POSITIVE_INFINITY));
  const what =
    column < 0
      ? 'has no finite logit: every token is masked'
      : `column ${column} is ${values[column]}; logits must be finite or -Infinity`;
  return new InputError(`${name}: row ${firstRow + row}${column < 0 ? ' ' : ', '}${what}`);
}

/**
 * Filters every row and draws from what is left. f64 sums; the same bits whatever the number of threads.
 * @throws InputError naming the first row that holds NaN or +Infinity, or nothing finite
 */
export function filterTokens(request: FilterRequest): FilteredRows {
  checkRequest(request);
  const { logits, rows, vocabulary, pipelines, uniforms, greedy = false, keep = false } = request;
  const tokens = new Int32Array(rows).fill(-1);
  const figures = Object.fromEntries(FILTER_FIGURES.map((name) => [name, new Float64Array(rows)])) as Record<
    FilterFigure,
    Float64Array
  >;
  const kept: Int32Array[] = [];
  for (let r = 0; r < rows; r++) {
    const steps = pipelines[pipelines.length === 1 ? 0 : r];
    const row = filterRowReference(logits.subarray(r * vocabulary, (r + 1) * vocabulary), steps, {
      greedy,
      ...(uniforms && { uniform: uniforms[r] }),
    });
    if (row === undefined) throw hostileRow(request, r);
    tokens[r] = row.token;
    for (const name of FILTER_FIGURES) figures[name][r] = row.figures[name];
    if (keep) kept.push(row.kept);
  }
  return { rows, tokens, figures, kept };
}
