import { rotateRows } from '../kernels/hadamard.js';
import { type EncodedRows, type PyramidCode, rowGroups } from '../kernels/pyramid.js';
import { dequantizeRows } from '../kernels/pyramid-index.js';
import type { Rotation } from '../linalg/hadamard.js';
import { type EncodeStatistics, encodeRows } from './encode-rows.js';
import { DATA_SAMPLE, dataLevels, gainLevels, type LevelPolicy } from './gain-levels.js';
import { clearDeadInputs, factorHessian } from './hessian.js';
import { planFeedback, quantizeWithHessian } from './hessian-encoding.js';
import { energyOf } from './sensitivity.js';
import type { QuantizeSettings } from './settings.js';

/** What is known of the inputs of a matrix. */
export type MatrixInputs =
  | { readonly kind: 'hessian'; readonly H: Float64Array; readonly tokens: number }
  /** Mean squares of the inputs: they weigh the search and nothing else. */
  | { readonly kind: 'importance'; readonly meanSquares: Float64Array };

export interface MatrixRequest {
  /** Named in messages. */
  readonly tensor: string;
  readonly columns: number;
  readonly code: PyramidCode;
  /** 2^gainBits ascending levels. */
  readonly levels: Float32Array;
  readonly rotation?: Rotation;
  readonly settings: QuantizeSettings;
  readonly inputs?: MatrixInputs;
  readonly threads?: number;
}

/** What is made once of the inputs of a matrix, and used by all of its rows. */
export interface MatrixMetric {
  readonly tokens: number;
  readonly damping: number;
  /** What was added to the diagonal of H. */
  readonly ridge: number;
  readonly deadInputs: Int32Array;
  readonly warnings: readonly string[];
}

/** Rows as stored, and what it cost. */
export interface QuantizedRows {
  readonly encoded: EncodedRows;
  /** Of the rows that were encoded: turned, dead inputs cleared. */
  readonly statistics: EncodeStatistics;
  readonly losses?: RowLosses;
}

/** Errors in the metric of the inputs, all with the damped Hessian. */
export interface RowLosses {
  /** tr(E H E^T) of what is stored, and of the same code without feedback and refits. */
  readonly loss: number;
  readonly plainLoss: number;
  /** tr(W H W^T). */
  readonly outputEnergy: number;
}

/** Quantises rows of one matrix; rows are independent, so that any bands of them give the same bytes. */
export interface MatrixQuantizer {
  readonly metric?: MatrixMetric;
  /**
   * @param weights rows [rows, columns] as the source stores them; overwritten: dead inputs are cleared and rows turned
   * @param onTurned sees the rows as they are encoded
   * @throws InputError for weights that are not finite
   */
  quantize(weights: Float32Array, rows: number, onTurned?: (rows: Float32Array) => void): QuantizedRows;
}

/**
 * Gain levels of a tensor, 2^gainBits of them, as f32: those of a law depend on sizes alone; `data` levels are fitted to
 * the amplitudes of groups relative to their rows, over all matrices.
 */
export function levelsFor(
  columns: number,
  matrices: number,
  code: PyramidCode,
  policy: LevelPolicy,
  turned: () => Iterable<Float32Array>,
): Float32Array {
  const count = 2 ** code.gainBits;
  if (policy !== 'data') return Float32Array.from(gainLevels(policy, code.groupLength, columns, count));
  const amplitudes: number[] = [];
  const most = Math.max(count, Math.floor(DATA_SAMPLE / matrices));
  for (const weights of turned()) addAmplitudes(weights, columns, code.groupLength, most, amplitudes);
  // Rows of zeros have no amplitudes; ascending levels are needed all the same.
  if (amplitudes.length === 0) return Float32Array.from(gainLevels('lloyd', code.groupLength, columns, count));
  return ascending(Float32Array.from(dataLevels(Float64Array.from(amplitudes), count)));
}

/** ||w_g|| / ||w|| of about `most` groups, evenly spread over the rows. */
function addAmplitudes(
  weights: Float32Array,
  columns: number,
  groupLength: number,
  most: number,
  into: number[],
): void {
  const rows = weights.length / columns;
  const groups = rowGroups(columns, groupLength);
  const step = Math.max(1, Math.floor((rows * groups) / most));
  const rowNorms = new Map<number, number>();
  for (let at = 0; at < rows * groups; at += step) {
    const row = Math.floor(at / groups);
    let norm = rowNorms.get(row);
    if (norm === undefined) {
      norm = Math.sqrt(energyOf(weights.subarray(row * columns, (row + 1) * columns)));
      rowNorms.set(row, norm);
    }
    if (norm === 0) continue;
    const from = row * columns + (at % groups) * groupLength;
    const end = Math.min(from + groupLength, (row + 1) * columns);
    into.push(Math.sqrt(energyOf(weights.subarray(from, end))) / norm);
  }
}

/** Equal levels, which few distinct amplitudes give, are moved apart by the least step. */
function ascending(levels: Float32Array): Float32Array {
  for (let i = 1; i < levels.length; i++) {
    if (levels[i] <= levels[i - 1]) levels[i] = levels[i - 1] + Math.max(levels[i - 1] * 2 ** -22, 2 ** -60);
  }
  return levels;
}

/**
 * Prepares the quantisation of a matrix W [rows, columns]; a Hessian is overwritten by its factor.
 * @throws InputError for a Hessian that is not finite or has no factor
 */
export function createMatrixQuantizer(request: MatrixRequest): MatrixQuantizer {
  const { columns, rotation, inputs, threads, settings } = request;
  if (inputs?.kind === 'hessian') return metricQuantizer(request, inputs);
  const importance = inputs && Float32Array.from(inputs.meanSquares);
  return {
    quantize(weights, rows, onTurned) {
      if (rotation) rotateRows(weights, rows, rotation, 'forward', threads);
      onTurned?.(weights);
      return encodeRows(weights, rows, columns, request.code, request.levels, {
        mode: settings.search,
        gainPolicy: settings.gain,
        zeroGroups: settings.zeroGroups,
        ...(settings.cap && { cap: settings.cap.positive, negativeCap: settings.cap.negative }),
        ...(importance && { importance }),
        ...(threads !== undefined && { threads }),
      });
    },
  };
}

/** The rows that a stored matrix decodes to, turned back, [rows, columns]. */
export function decodeMatrix(
  encoded: EncodedRows,
  rotation: Rotation | undefined,
  target: Float32Array,
  threads?: number,
): void {
  dequantizeRows(encoded, target, threads === undefined ? {} : { threads });
  if (rotation) rotateRows(target, encoded.rows, rotation, 'inverse', threads);
}

function metricQuantizer(
  request: MatrixRequest,
  { H, tokens }: Extract<MatrixInputs, { kind: 'hessian' }>,
): MatrixQuantizer {
  const { columns, code, levels, rotation, settings, threads } = request;
  const { feedback } = settings;
  const factor = factorHessian(H, columns, {
    tensor: request.tensor,
    tokens,
    damping: feedback.damping,
    ...(rotation && { rotation }),
    ...(feedback.actOrder && { orderGroups: code.groupLength }),
    ...(threads !== undefined && { threads }),
  });
  const plan = planFeedback(factor, code.groupLength, threads);
  const { damping, ridge, deadInputs, warnings } = factor;
  return {
    metric: { tokens, damping, ridge, deadInputs, warnings },
    quantize(weights, rows, onTurned) {
      clearDeadInputs(weights, rows, columns, deadInputs);
      if (rotation) rotateRows(weights, rows, rotation, 'forward', threads);
      onTurned?.(weights);
      const { encoded, decoded, statistics } = quantizeWithHessian(weights, rows, columns, plan, code, levels, {
        mode: settings.search,
        feedback: feedback.errorFeedback,
        metricSearch: feedback.metricSearch,
        rowRefit: feedback.rowRefit,
        gainRefit: feedback.gainRefit,
        passes: feedback.passes,
        ...(settings.cap && { cap: settings.cap.positive, negativeCap: settings.cap.negative }),
        ...(threads !== undefined && { threads }),
      });
      const { steps, signal, nearest } = statistics;
      return {
        encoded,
        statistics: { ...nearest, ...errorsOf(weights, decoded, columns, code.groupLength) },
        losses: { loss: steps[steps.length - 1].loss, plainLoss: steps[0].loss, outputEnergy: signal },
      };
    },
  };
}

export type RowErrors = Omit<EncodeStatistics, 'rows' | 'weights' | 'groups' | 'zeroGroups' | 'singleScales'>;

/** Errors of decoded rows; a group's shape error is that of its best gain. */
export function errorsOf(
  weights: Float32Array,
  decoded: Float32Array,
  columns: number,
  groupLength: number,
): RowErrors {
  const sums = { weightEnergy: 0, squaredError: 0, crossEnergy: 0, decodedEnergy: 0, largestError: 0 };
  let shapeErrors = 0;
  let shapeSquaredError = 0;
  let alive = 0;
  for (let row = 0; row < weights.length; row += columns) {
    for (let from = row; from < row + columns; from += groupLength) {
      const end = Math.min(from + groupLength, row + columns);
      let [ww, wd, dd] = [0, 0, 0];
      for (let i = from; i < end; i++) {
        ww += weights[i] * weights[i];
        wd += weights[i] * decoded[i];
        dd += decoded[i] * decoded[i];
        const error = weights[i] - decoded[i];
        sums.squaredError += error * error;
        sums.largestError = Math.max(sums.largestError, Math.abs(error));
      }
      sums.weightEnergy += ww;
      sums.crossEnergy += wd;
      sums.decodedEnergy += dd;
      if (ww === 0) continue;
      const lost = dd > 0 ? Math.max(0, 1 - (wd * wd) / (ww * dd)) : 1;
      shapeErrors += lost;
      shapeSquaredError += lost * ww;
      alive++;
    }
  }
  const gainSquaredError = Math.max(0, sums.squaredError - shapeSquaredError);
  return { ...sums, shapeError: alive > 0 ? shapeErrors / alive : 0, shapeSquaredError, gainSquaredError };
}
