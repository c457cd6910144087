import type { SummaryCell } from '../report/summary-table.js';
import { type CaptureRowLayout, decodeCaptureRows, encodeCaptureRows } from '../training/language/capture-rows.js';
import type { TopTeacher } from '../training/types.js';

export const CAPTURE_SCHEMA = 'distill-capture';

/** Sums over captured rows. */
interface Sum {
  sum: number;
  squares: number;
  most: number;
}

/** What is known of the rows of a capture. */
export interface CaptureStatistics {
  rows: number;
  readonly leftover: Sum;
  readonly topProbability: Sum;
  readonly codingError: Sum;
}

const emptySum = (): Sum => ({ sum: 0, squares: 0, most: 0 });

/** Sums of no rows yet; `addCaptureRows` adds to them. */
export function createCaptureStatistics(): CaptureStatistics {
  return { rows: 0, leftover: emptySum(), topProbability: emptySum(), codingError: emptySum() };
}

function add(sum: Sum, value: number): void {
  sum.sum += value;
  sum.squares += value * value;
  sum.most = Math.max(sum.most, value);
}

/**
 * Adds rows. The error of the coding is KL(rows || what they are read back as), nats, with all that is left over as one
 * class; what is left over is stored as it is.
 */
export function addCaptureRows(
  statistics: CaptureStatistics,
  teacher: TopTeacher,
  rows: number,
  layout: CaptureRowLayout,
): void {
  const { k } = teacher;
  const back = {
    ids: new Int32Array(rows * k),
    logProbs: new Float32Array(rows * k),
    leftover: new Float32Array(rows),
  };
  decodeCaptureRows(encodeCaptureRows(teacher, rows, layout), rows, layout, back, 0, 'rows to store');
  for (let r = 0; r < rows; r++) {
    let error = 0;
    for (let i = r * k; i < (r + 1) * k && teacher.ids[i] >= 0; i++) {
      error += Math.exp(teacher.logProbs[i]) * (teacher.logProbs[i] - back.logProbs[i]);
    }
    add(statistics.leftover, teacher.leftover[r]);
    add(statistics.topProbability, Math.exp(teacher.logProbs[r * k]));
    add(statistics.codingError, Math.max(0, error));
  }
  statistics.rows += rows;
}

/** Mean of a figure over rows; rows of one text are not independent, and the standard error takes them to be. */
export interface RowMean {
  readonly mean: number;
  readonly standard_error: number | null;
  readonly largest: number;
}

function meanOf({ sum, squares, most }: Sum, rows: number): RowMean {
  const mean = rows === 0 ? 0 : sum / rows;
  const variance = rows < 2 ? null : Math.max(0, squares - rows * mean * mean) / (rows - 1);
  return { mean, standard_error: variance === null ? null : Math.sqrt(variance / rows), largest: most };
}

/** What a report says of a capture. */
export interface CaptureBody {
  readonly source: 'model' | 'responses';
  readonly vocabulary: number;
  readonly k: number;
  readonly dtype: string;
  readonly temperature: number;
  readonly windows: number;
  readonly positions_of_a_window: number;
  readonly first_window: number;
  readonly stored_windows: number;
  readonly rows: number;
  /** Rows that were there already when an interrupted run went on; figures below are of the others. */
  readonly resumed_rows: number;
  readonly bytes: number;
  readonly bytes_per_row: number;
  readonly leftover_probability: RowMean;
  readonly top_probability: RowMean;
  readonly coding_error_nats: RowMean;
  readonly tokenizer_sha256: string;
  readonly model_sha256: string;
  readonly data_sha256: string;
  /** Entries of responses whose token is not known to the tokenizer. */
  readonly unknown_tokens: number | null;
}

export type CaptureFigures = Pick<CaptureBody, 'leftover_probability' | 'top_probability' | 'coding_error_nats'>;

export function captureFigures({ rows, leftover, topProbability, codingError }: CaptureStatistics): CaptureFigures {
  return {
    leftover_probability: meanOf(leftover, rows),
    top_probability: meanOf(topProbability, rows),
    coding_error_nats: meanOf(codingError, rows),
  };
}

/** Lines of standard output. */
export function captureSummary(body: CaptureBody): SummaryCell[][] {
  return [
    ['tokens captured', body.rows],
    ['bytes a token', body.bytes_per_row],
    ['bytes', body.bytes],
    ['probability left over, mean', body.leftover_probability.mean],
    ['probability left over, largest', body.leftover_probability.largest],
    ['error of the coding, nats', body.coding_error_nats.mean],
    ['error of the coding, largest', body.coding_error_nats.largest],
  ];
}
