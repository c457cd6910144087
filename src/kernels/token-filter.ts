/**
 * Next-token distributions cut by a pipeline of filters and drawn from, many rows at once and in one native call:
 * definitions in `token-cuts.ts`, meaning in `token-filter-reference.ts`.
 */
import { InputError } from '../errors.js';
import { kernelThreads, nativeKernels } from './native.js';
import type { NativeKernels } from './native-signatures.js';
import { FILTER_METHODS } from './token-cuts.js';
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
  const kinds = (steps: readonly FilterStep[]): string => steps.map(({ method }) => method).join();
  if (pipelines.some((steps) => kinds(steps) !== kinds(pipelines[0]))) {
    throw new RangeError('pipelines of other methods must be served apart');
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

/** Kept ids are written by the addon into rows of the whole vocabulary: so many places at a time. */
const MOST_KEPT_PLACES = 8_388_608;
const VALUES_A_STEP = 3;

/**
 * Filters every row and draws from what is left. f64 sums; the same bits whatever the number of threads.
 * @throws InputError naming the first row that holds NaN or +Infinity, or nothing finite
 */
export function filterTokens(request: FilterRequest): FilteredRows {
  checkRequest(request);
  const { rows } = request;
  const result: FilteredRows & { kept: Int32Array[] } = {
    rows,
    tokens: new Int32Array(rows).fill(-1),
    figures: Object.fromEntries(FILTER_FIGURES.map((name) => [name, new Float64Array(rows)])) as Record<
      FilterFigure,
      Float64Array
    >,
    kept: [],
  };
  const native = nativeKernels();
  if (native === undefined) filterByReference(request, result);
  else filterNatively(native, request, result);
  return result;
}

function filterByReference(request: FilterRequest, into: FilteredRows & { kept: Int32Array[] }): void {
  const { logits, rows, vocabulary, pipelines, uniforms, greedy = false, keep = false } = request;
  for (let r = 0; r < rows; r++) {
    const row = filterRowReference(
      logits.subarray(r * vocabulary, (r + 1) * vocabulary),
      pipelines[pipelines.length === 1 ? 0 : r],
      { greedy, ...(uniforms && { uniform: uniforms[r] }) },
    );
    if (row === undefined) throw hostileRow(request, r);
    into.tokens[r] = row.token;
    for (const name of FILTER_FIGURES) into.figures[name][r] = row.figures[name];
    if (keep) into.kept.push(row.kept);
  }
}

function filterNatively(
  native: NativeKernels,
  request: FilterRequest,
  into: FilteredRows & { kept: Int32Array[] },
): void {
  const { logits, rows, vocabulary, pipelines, uniforms, greedy = false, keep = false } = request;
  const methods = Int32Array.from(pipelines[0] ?? [], ({ method }) => FILTER_METHODS.indexOf(method));
  const own = pipelines.length > 1;
  const values = new Float64Array(pipelines.length * methods.length * VALUES_A_STEP);
  pipelines.forEach((steps, p) => {
    steps.forEach((step, s) => {
      values.set(step.values, (p * methods.length + s) * VALUES_A_STEP);
    });
  });
  const together = keep ? Math.max(1, Math.floor(MOST_KEPT_PLACES / Math.max(1, vocabulary))) : Math.max(1, rows);
  const places = keep ? new Int32Array(Math.min(rows, together) * vocabulary) : null;
  for (let first = 0; first < rows; first += together) {
    const count = Math.min(together, rows - first);
    const figures = new Float64Array(count * FILTER_FIGURES.length);
    const stride = methods.length * VALUES_A_STEP;
    const bad = native.filterTokens(
      logits instanceof Float64Array ? 1 : 0,
      logits.subarray(first * vocabulary, (first + count) * vocabulary),
      count,
      vocabulary,
      methods,
      own ? values.subarray(first * stride, (first + count) * stride) : values,
      uniforms?.subarray(first, first + count) ?? null,
      greedy ? 1 : 0,
      into.tokens.subarray(first, first + count),
      figures,
      places?.subarray(0, count * vocabulary) ?? null,
      kernelThreads(request.threads),
    );
    if (bad >= 0) throw hostileRow(request, first + bad);
    FILTER_FIGURES.forEach((name, f) => {
      into.figures[name].set(figures.subarray(f * count, (f + 1) * count), first);
    });
    for (let r = 0; places !== null && r < count; r++) {
      into.kept.push(places.slice(r * vocabulary, r * vocabulary + into.figures.keptCount[first + r]));
    }
  }
}
