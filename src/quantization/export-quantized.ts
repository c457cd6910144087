import { type ModelFiles, openModelFiles } from '../models/model-files.js';
import { isPvqStore } from '../models/pvq-store.js';
import { createPvqDecoder } from '../models/pvq-tensors.js';
import { createWeightReader } from '../models/weights.js';
import { type ReportObject, reportObject } from '../report/values.js';
import type { EncodeStatistics } from './encode-rows.js';
import { type ExportRows, wholeRows } from './exports/carriers.js';
import { constraintsOf, type ExportFormat } from './exports/export-format.js';
import { type EncodedTensors, type ExportReport, exportModel } from './exports/export-model.js';
import { quantizeForExport, stackRows } from './exports/quantize-for-export.js';
import { type Hessians, openHessians } from './hessian-file.js';
import { openImportance } from './importance.js';
import { hessianInput } from './plan-codes.js';
import { errorsOf, type MatrixInputs } from './quantize-matrix.js';
import {
  type QuantizeModelArguments,
  type QuantizeModelResult,
  type QuantizeProgress,
  quantizeModel,
} from './quantize-model.js';
import {
  addRowFigures,
  createFigureSums,
  type ExportRecord,
  type QuantizeBody,
  type StoredTensorRecord,
  summarizeTensors,
  tensorRecord,
} from './quantize-report.js';
import { sourceRecord } from './source-bits.js';
import { readTensorRows, type SelectedTensor, selectTensors } from './tensor-selection.js';
import { addRows, createTensorStatistics, tensorFigures } from './tensor-statistics.js';

/** `out` is where codes lie in the native format on the way, where the format can take them from there. */
export interface ExportArguments extends QuantizeModelArguments {
  /** File (GGUF) or directory (ONNX). */
  readonly target: string;
  readonly format: ExportFormat;
  readonly forceTarget: boolean;
}

/**
 * Runs in a thread of its own: quantises under the limits of a format of another program and writes it there. Codes with
 * a factor of their own for every block go through the native format; those whose factors are whole multiples of a
 * base (policy `step`) are made block by block of the target.
 * @throws InputError for what the format cannot hold, by name
 */
export async function exportQuantized(
  args: ExportArguments,
  progress: (value: QuantizeProgress) => void,
): Promise<QuantizeModelResult> {
  return constraintsOf(args.format).gainPolicy === 'step' ? exportSteps(args, progress) : exportCodes(args, progress);
}

async function exportCodes(
  args: ExportArguments,
  progress: (value: QuantizeProgress) => void,
): Promise<QuantizeModelResult> {
  const { body, seconds } = await quantizeModel(args, progress);
  const coded = openModelFiles(args.out);
  const source = openModelFiles(args.source);
  try {
    const { store } = coded;
    if (!isPvqStore(store)) throw new RangeError(`${args.out} holds no codes`);
    const decoder = createPvqDecoder(store.stored, args.threads);
    const encoded: EncodedTensors = {
      has: (name) => store.quantised.has(name),
      get(name) {
        const stored = store.quantised.get(name);
        if (!stored) throw new RangeError(`no codes of ${name}`);
        return decoder.encoded(stored, 0, stored.matrix.rows);
      },
    };
    return { body: exportedBody(body, await write(args, source, encoded)), seconds };
  } finally {
    coded.store.close();
    source.store.close();
  }
}

function write(args: ExportArguments, source: ModelFiles, encoded: EncodedTensors): Promise<ExportReport> {
  return exportModel(args.format, source, encoded, args.target, { force: args.forceTarget, threads: args.threads });
}

/** The body with the sizes of the exported file in place of those of the native format. */
function exportedBody(body: QuantizeBody, report: ExportReport): QuantizeBody {
  const bytes = new Map<string, number>();
  for (const tensor of report.tensors) bytes.set(tensor.name, (bytes.get(tensor.name) ?? 0) + tensor.bytes);
  const tensors = body.tensors.map((tensor) => {
    const own = bytes.get(tensor.name) ?? 0;
    return { ...tensor, bytes: own, bpw_file: (8 * own) / (tensor.rows * tensor.columns) };
  });
  const coded = tensors.reduce((sum, tensor) => sum + tensor.bytes, 0);
  const { quantized, kept } = body;
  const sizes = (weights: number, all: number) => ({ weights, bytes: all, bits_per_weight: (8 * all) / weights });
  return {
    ...body,
    quantized: { ...quantized, ...sizes(quantized.weights, coded) },
    kept: { ...kept, ...sizes(report.weights - quantized.weights, report.tensorBytes - coded) },
    whole_model: { ...body.whole_model, ...sizes(report.weights, report.tensorBytes) },
    parts: [],
    exported: exportRecord(report),
    tensors,
  };
}

function exportRecord({ format, tensorBytes, weights, notes, tensors }: ExportReport): ExportRecord {
  return {
    format,
    bytes: tensorBytes,
    bits_per_weight: (8 * tensorBytes) / weights,
    notes,
    tensors: tensors.map(
      ({ name, storedName, type, bytes, check }): ReportObject =>
        reportObject({
          name,
          stored_name: storedName,
          type,
          bytes,
          checked_weights: check.weights,
          largest_relative_error: check.largestRelativeError,
          rounding_sqnr_db:
            check.squaredError > 0
              ? 10 * Math.log10(check.squaredWeights / check.squaredError)
              : Number.POSITIVE_INFINITY,
          subnormal_factors: check.subnormalFactors,
        }),
    ),
  };
}

async function exportSteps(
  args: ExportArguments,
  progress: (value: QuantizeProgress) => void,
): Promise<QuantizeModelResult> {
  const source = openModelFiles(args.source);
  const hessians = args.hessians && openHessians(args.hessians.path, args.hessians.modelSha256);
  try {
    const selection = selectTensors(source, args.selection);
    const coder = createStepCoder(args, source, selection.selected, hessians, progress);
    const report = await write(args, source, coder.encoded);
    const body = coder.body(selection.kept.length);
    return { body: exportedBody(body, report), seconds: coder.seconds };
  } finally {
    hessians?.close();
    source.store.close();
  }
}

/** Codes tensors when they are asked for; the last one is kept, since a writer asks for each more than once. */
function createStepCoder(
  args: ExportArguments,
  source: ModelFiles,
  selected: readonly SelectedTensor[],
  hessians: Hessians | undefined,
  progress: (value: QuantizeProgress) => void,
) {
  const { settings, threads, format } = args;
  const { rate } = settings;
  if (rate.kind !== 'code') throw new RangeError('steps need a code');
  const importance =
    args.imatrix === undefined ? undefined : openImportance(args.imatrix, source.description, source.weights);
  const reader = createWeightReader(threads);
  const byName = new Map(selected.map((item) => [item.name, item]));
  const records = new Map<string, StoredTensorRecord>();
  const warnings = new Set<string>();
  const seconds: { name: string; weights: number; seconds: number }[] = [];
  let last: { name: string; rows: ExportRows } | undefined;
  let done = 0;

  const inputsOf = (item: SelectedTensor, m: number): MatrixInputs | undefined => {
    if (importance) {
      const found = importance.of(item.matrices > 1 ? `${item.name}#${m}` : item.name);
      return found && found.count > 0 ? { kind: 'importance', meanSquares: found.meanSquares } : undefined;
    }
    const input = hessians && hessianInput(item, m, hessians);
    const hessian = hessians && input !== undefined ? hessians.get(input) : undefined;
    return hessian && hessian.tokens > 0 ? { kind: 'hessian', H: hessian.H, tokens: hessian.tokens } : undefined;
  };

  const code = (item: SelectedTensor): ExportRows => {
    const begun = performance.now();
    const rowsEach = item.rows / item.matrices;
    const weights = new Float32Array(rowsEach * item.columns);
    const sums = createFigureSums();
    const spread = createTensorStatistics(item.columns, rate.groupLength);
    const parts: ExportRows[] = [];
    for (let m = 0; m < item.matrices; m++) {
      readTensorRows(source, item, reader, weights, m * rowsEach, rowsEach);
      addRows(spread, weights, threads);
      const inputs = inputsOf(item, m);
      const { coded, warnings: found } = quantizeForExport(weights, {
        tensor: item.name,
        rows: rowsEach,
        columns: item.columns,
        format,
        groupLength: rate.groupLength,
        settings,
        ...(inputs && { inputs }),
        threads,
      });
      for (const warning of found) warnings.add(warning);
      parts.push(coded);
      addRowFigures(sums, statisticsOf(weights, coded));
    }
    if (!records.has(item.name)) {
      const figures = tensorFigures(spread);
      const shape = { groupLength: rate.groupLength, pulses: rate.pulses, gainBits: 0, superGroup: 1 };
      records.set(item.name, tensorRecord(item, shape, sums, figures, figures, undefined));
      const count = item.rows * item.columns;
      seconds.push({ name: item.name, weights: count, seconds: (performance.now() - begun) / 1000 });
      done += count;
      progress({ phase: 'quantise', name: item.name, weights: done });
    }
    return stackRows(parts);
  };

  const statisticsOf = (weights: Float32Array, coded: ExportRows): EncodeStatistics => {
    const { rows, columns } = coded;
    const { numbers, factors, unit } = wholeRows(coded, 0, rows, threads);
    const perRow = Math.ceil(columns / unit);
    const decoded = Float32Array.from(numbers, (value, i) => {
      const row = Math.floor(i / columns);
      return value * factors[row * perRow + Math.floor((i % columns) / unit)];
    });
    const groups = rows * Math.ceil(columns / rate.groupLength);
    const errors = errorsOf(weights, decoded, columns, rate.groupLength);
    return { rows, weights: weights.length, groups, zeroGroups: 0, singleScales: 0, ...errors };
  };

  const encoded: EncodedTensors = {
    has: (name) => byName.has(name),
    describe(name) {
      const item = byName.get(name);
      if (!item) throw new RangeError(`no codes of ${name}`);
      const { rows, columns } = item;
      return { rows, columns, groupLength: rate.groupLength, pulses: rate.pulses, gainPolicy: 'step' };
    },
    get(name) {
      const item = byName.get(name);
      if (!item) throw new RangeError(`no codes of ${name}`);
      if (last?.name !== name) last = { name, rows: code(item) };
      return last.rows;
    },
  };
  return {
    encoded,
    seconds,
    body(keptTensors: number): QuantizeBody {
      const stored = selected.flatMap(({ name }) => records.get(name) ?? []);
      const tensors = stored.map(({ figures }) => ({ ...figures, sensitivity: null, bytes: 0, bpw_file: 0 }));
      const weights = tensors.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
      const empty = { weights: 0, bytes: 0, bits_per_weight: 0 };
      const payload = tensors.reduce((sum, tensor) => sum + tensor.bpw_payload * tensor.rows * tensor.columns, 0);
      return {
        model: { path: args.shown, format: source.format, type: source.description.modelType },
        source: sourceRecord(source, selected),
        quantized: {
          ...empty,
          tensors: tensors.length,
          weights,
          payload_bits_per_weight: payload / weights,
          asked_bits_per_weight: null,
        },
        parts: [],
        kept: { ...empty, tensors: keptTensors },
        whole_model: { ...empty, tensors: tensors.length + keptTensors },
        ...summarizeTensors(tensors, stored),
        expected_sqnr_db: null,
        allocation: { mode: null, sensitivity_tokens: null, noise_relative_energy: null },
        calibration: null,
        evaluation: null,
        exported: null,
        warnings: [...warnings],
        tensors,
      };
    },
  };
}
