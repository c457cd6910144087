import type { EncodedRows } from '../../kernels/pyramid.js';
import { feedbackCoupling } from '../block-coupling.js';
import { clearDeadInputs, factorHessian } from '../hessian.js';
import { createMatrixQuantizer, levelsFor, type MatrixInputs } from '../quantize-matrix.js';
import type { QuantizeSettings } from '../settings.js';
import { type ExportRows, isStepRows, wholeRows } from './carriers.js';
import { constraintsOf, type ExportFormat, exportCode, exportGroupLength } from './export-format.js';
import { encodeStepRowsWithFeedback } from './step-quantizer.js';
import { encodeStepRows } from './step-rows.js';

export interface ExportMatrixRequest {
  /** Named in messages. */
  readonly tensor: string;
  readonly rows: number;
  readonly columns: number;
  readonly format: ExportFormat;
  /** D; the format's own when absent. */
  readonly groupLength?: number;
  /** Search and use of the Hessian; rate, rotation and cap follow from the format. */
  readonly settings: QuantizeSettings;
  readonly inputs?: MatrixInputs;
  readonly threads?: number;
}

export interface ExportMatrix {
  readonly coded: ExportRows;
  /** sum (w - what)^2 and sum w^2, dead inputs cleared. */
  readonly squaredError: number;
  readonly weightEnergy: number;
  /** tr(E H E^T) with the damped Hessian, where there is one. */
  readonly hessianLoss?: number;
  readonly warnings: readonly string[];
}

/**
 * Quantises W [rows, columns] under the constraints of a format, so that it goes there exactly; `weights` is
 * overwritten where inputs are dead.
 * @throws InputError for weights or a Hessian that are not finite, or a Hessian without a factor
 */
export function quantizeForExport(weights: Float32Array, request: ExportMatrixRequest): ExportMatrix {
  const { tensor, rows, columns, format, settings, inputs, threads } = request;
  const { gainPolicy, cap, negativeCap } = constraintsOf(format);
  if (gainPolicy === 'step') return quantizeSteps(weights, request);
  const code = exportCode(format, request.groupLength);
  const levels = levelsFor(columns, 1, code, settings.levels, () => [weights]);
  const quantizer = createMatrixQuantizer({
    tensor,
    columns,
    code,
    levels,
    settings: { ...settings, rotation: 'none', cap: { positive: cap, negative: negativeCap } },
    ...(inputs && { inputs }),
    ...(threads !== undefined && { threads }),
  });
  const { encoded, losses } = quantizer.quantize(weights, rows);
  return {
    coded: encoded,
    ...errorOf(weights, encoded, threads),
    warnings: quantizer.metric?.warnings ?? [],
    ...(losses && { hessianLoss: losses.loss }),
  };
}

function quantizeSteps(weights: Float32Array, request: ExportMatrixRequest): ExportMatrix {
  const { tensor, rows, columns, format, settings, inputs, threads } = request;
  const D = request.groupLength ?? exportGroupLength(format);
  const options = {
    groupLength: D,
    pulses: exportCode(format, D).pulses,
    mode: settings.search,
    ...(threads !== undefined && { threads }),
  };
  if (inputs?.kind !== 'hessian') {
    const coded = encodeStepRows(weights, rows, columns, format, {
      ...options,
      ...(inputs && { importance: inputs.meanSquares }),
    });
    return { coded, ...errorOf(weights, coded, threads), warnings: [] };
  }
  const factor = factorHessian(inputs.H, columns, {
    tensor,
    tokens: inputs.tokens,
    damping: settings.feedback.damping,
    ...(threads !== undefined && { threads }),
  });
  clearDeadInputs(weights, rows, columns, factor.deadInputs);
  const coupling = feedbackCoupling(factor, D, new Float32Array(columns * columns), threads);
  const { coded, loss } = encodeStepRowsWithFeedback(weights, rows, columns, format, coupling, options);
  return { coded, ...errorOf(weights, coded, threads), hessianLoss: loss, warnings: factor.warnings };
}

/** Rows whose weights are decoded at a time. */
const BAND_ROWS = 64;

function errorOf(
  weights: Float32Array,
  coded: ExportRows,
  threads: number | undefined,
): Pick<ExportMatrix, 'squaredError' | 'weightEnergy'> {
  const { rows, columns } = coded;
  let squaredError = 0;
  let weightEnergy = 0;
  for (let first = 0; first < rows; first += BAND_ROWS) {
    const count = Math.min(BAND_ROWS, rows - first);
    const { numbers, factors, unit } = wholeRows(coded, first, count, threads);
    const units = Math.ceil(columns / unit);
    for (let r = 0; r < count; r++) {
      for (let c = 0; c < columns; c++) {
        const weight = weights[(first + r) * columns + c];
        const error = weight - factors[r * units + Math.floor(c / unit)] * numbers[r * columns + c];
        squaredError += error * error;
        weightEnergy += weight * weight;
      }
    }
  }
  return { squaredError, weightEnergy };
}

/**
 * One coded matrix of several of one code, rows after rows: a stack of experts that were quantised one by one.
 * @throws RangeError when codes, levels or widths differ
 */
export function stackRows(parts: readonly ExportRows[]): ExportRows {
  const [first] = parts;
  const rows = parts.reduce((sum, part) => sum + part.rows, 0);
  if (isStepRows(first)) {
    const all = parts.map((part) => {
      const fits = isStepRows(part) && part.columns === first.columns && part.groupLength === first.groupLength;
      if (!fits || part.pulses !== first.pulses) throw new RangeError('matrices of a stack have different codes');
      return part;
    });
    return {
      ...first,
      rows,
      points: joined(
        all.map(({ points }) => points),
        Int8Array,
      ),
      codes: joined(
        all.map(({ codes }) => codes),
        Uint8Array,
      ),
      bases: joined(
        all.map(({ bases }) => bases),
        Float32Array,
      ),
    };
  }
  const key = ({ columns, code, levels }: EncodedRows): string => JSON.stringify([columns, code, [...levels]]);
  const all = parts.map((part) => {
    if (isStepRows(part) || key(part) !== key(first)) throw new RangeError('matrices of a stack have different codes');
    return part;
  });
  const bitmaps = all.flatMap(({ zeroGroups }) => (zeroGroups ? [zeroGroups] : []));
  if (bitmaps.length % all.length !== 0) throw new RangeError('some matrices of a stack have a bitmap of zero groups');
  return {
    ...first,
    rows,
    index: joined(
      all.map(({ index }) => index),
      Uint8Array,
    ),
    gain: joined(
      all.map(({ gain }) => gain),
      Uint8Array,
    ),
    scales: joined(
      all.map(({ scales }) => scales),
      Float32Array,
    ),
    ...(bitmaps.length > 0 && { zeroGroups: joined(bitmaps, Uint8Array) }),
  };
}

function joined<T extends Int8Array | Uint8Array | Float32Array>(
  parts: readonly T[],
  make: { new (length: number): T },
): T {
  const all = new make(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
