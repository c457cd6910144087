import type { GgufStore } from '../formats/gguf.js';
import { elementCount } from '../formats/tensor.js';
import { rotateRows } from '../kernels/hadamard.js';
import type { EncodedRows, PyramidCode } from '../kernels/pyramid.js';
import { symmetricSpectrum } from '../kernels/symmetric-spectrum.js';
import type { Rotation } from '../linalg/hadamard.js';
import { type ModelFiles, openModelFiles } from '../models/model-files.js';
import { createWeightReader, type WeightReader } from '../models/weights.js';
import type { ReportHead } from '../report/json.js';
import { type ReportValue, toJsonValue } from '../report/values.js';
import { payloadBits } from './code-choices.js';
import type { DivergenceSensitivity } from './divergence-sensitivity.js';
import { concatenateRows } from './encoded-stack.js';
import { type Hessians, openHessians } from './hessian-file.js';
import { type Importance, openImportance } from './importance.js';
import { type CodePlan, hessianInput, planCodes } from './plan-codes.js';
import { rowSizes } from './pvq-layout.js';
import type { FlatRecord } from './pvq-parts.js';
import { createPvqWriter, type PvqWriter } from './pvq-writer.js';
import { createMatrixQuantizer, levelsFor, type MatrixInputs } from './quantize-matrix.js';
import {
  addMetric,
  addRowFigures,
  createFigureSums,
  type PartRecord,
  type QuantizeBody,
  type SizeRecord,
  type StoredTensorRecord,
  storedRecordFromJson,
  storedRecordToJson,
  summarizeTensors,
  type TensorRecord,
  tensorRecord,
} from './quantize-report.js';
import type { QuantizeSettings } from './settings.js';
import { sourceRecord } from './source-bits.js';
import {
  readTensorRows,
  type SelectedTensor,
  type SelectionOptions,
  selectTensors,
  type TensorSelection,
} from './tensor-selection.js';
import { addRows, createTensorStatistics, hessianBound, tensorFigures } from './tensor-statistics.js';

/** Everything a run needs; plain data, so that it can be posted to a thread. */
export interface QuantizeModelArguments {
  /** Model directory or GGUF file, and what the report calls it. */
  readonly source: string;
  readonly shown: string;
  readonly out: string;
  readonly selection: SelectionOptions;
  readonly settings: QuantizeSettings;
  /** File of Hessians and the hash of the model that they must belong to. */
  readonly hessians?: { readonly path: string; readonly modelSha256: string };
  /** How predictions answer to errors, for allocation `kl`. */
  readonly divergence?: DivergenceSensitivity;
  /** Importance matrix of llama.cpp. */
  readonly imatrix?: string;
  /** Keys of config.json that change, such as those of a fused model. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Head of the manifest. */
  readonly head: Omit<ReportHead, 'name'>;
  readonly force: boolean;
  readonly resume: boolean;
  readonly threads: number;
}

export interface QuantizeModelResult {
  readonly body: QuantizeBody;
  /** Wall time of each tensor; those of an earlier run are missing. */
  readonly seconds: readonly { readonly name: string; readonly weights: number; readonly seconds: number }[];
}

/** What a job reports while it works: weights done, and the tensor at hand. */
export interface QuantizeProgress {
  readonly phase: 'measure' | 'quantise';
  readonly name: string;
  readonly weights: number;
}

/** Widths whose Hessian's spectrum is computed for the bound; beyond, the bound is left out. */
const SPECTRUM_COLUMNS = 4096;

interface Run {
  readonly args: QuantizeModelArguments;
  readonly files: ModelFiles;
  readonly plan: CodePlan;
  readonly reader: WeightReader;
  readonly hessians?: Hessians;
  readonly importance?: Importance;
  readonly warnings: Set<string>;
  /** Spectra of Hessians, by input. */
  readonly spectra: Map<string, Float64Array>;
}

/**
 * Runs in a thread of its own: quantises a model tensor by tensor into the directory `out`. One tensor, one Hessian and
 * what they become are in memory at a time; a run that is stopped can be resumed.
 * @throws InputError for weights that are not finite, a rate that cannot be reached, Hessians of another model
 */
export async function quantizeModel(
  args: QuantizeModelArguments,
  progress: (value: QuantizeProgress) => void,
): Promise<QuantizeModelResult> {
  const { settings, threads } = args;
  const files = openModelFiles(args.source);
  const hessians = args.hessians && openHessians(args.hessians.path, args.hessians.modelSha256);
  let writer: PvqWriter | undefined;
  try {
    const importance =
      args.imatrix === undefined ? undefined : openImportance(args.imatrix, files.description, files.weights);
    const selection = selectTensors(files, args.selection);
    const { selected } = selection;
    const plan = planCodes({
      files,
      selected,
      settings,
      ...(hessians && { hessians }),
      ...(args.divergence && { divergence: args.divergence.tensors }),
      threads,
      progress: (name) => progress({ phase: 'measure', name, weights: 0 }),
    });
    writer = createPvqWriter({
      out: args.out,
      layout: plan.layout,
      store: files.store,
      sourcePath: args.source,
      ...(files.format === 'gguf' && { gguf: files.store as GgufStore }),
      ...(args.config && { config: args.config }),
      head: args.head,
      force: args.force,
      resume: args.resume,
    });
    const run: Run = {
      args,
      files,
      plan,
      reader: createWeightReader(threads),
      ...(hessians && { hessians }),
      ...(importance && { importance }),
      warnings: new Set(unmeasured(plan, args)),
      spectra: new Map(),
    };
    const seconds: { name: string; weights: number; seconds: number }[] = [];
    let done = 0;
    for (const item of selected) {
      progress({ phase: 'quantise', name: item.name, weights: done });
      if (!writer.hasTensor(item.name)) {
        const begun = performance.now();
        const { encoded, record } = quantizeTensor(run, item);
        writer.writeTensor(item.name, encoded, { record: storedRecordToJson(record) });
        seconds.push({
          name: item.name,
          weights: item.rows * item.columns,
          seconds: (performance.now() - begun) / 1000,
        });
      }
      done += item.rows * item.columns;
    }
    progress({ phase: 'quantise', name: '', weights: done });
    const body = bodyOf(run, selection, writer);
    const { tensors: _, ...figures } = body;
    writer.commit(toJsonValue(figures as unknown as ReportValue) as FlatRecord);
    return { body, seconds };
  } catch (error) {
    writer?.abort();
    throw error;
  } finally {
    hessians?.close();
    files.store.close();
  }
}

/** Tensors that allocation `kl` could not measure. */
function unmeasured(plan: CodePlan, { divergence }: QuantizeModelArguments): string[] {
  const names = [...plan.sensitivities.keys()].filter((name) => divergence?.tensors[name] === undefined);
  return names.map(
    (name) => `${name}: its effect on predictions is not measured: it gets bits as the mean of the others`,
  );
}

/** Rows of one matrix of a tensor and what is known of its inputs. */
function inputsOf(run: Run, item: SelectedTensor, m: number, warnings: Set<string>): MatrixInputs | undefined {
  const { hessians, importance } = run;
  const weight = item.matrices > 1 ? `${item.name}#${m}` : item.name;
  if (importance) {
    const found = importance.of(weight);
    if (found && found.count > 0) return { kind: 'importance', meanSquares: found.meanSquares };
    warnings.add(`${weight}: the importance matrix has no entry: all its inputs weigh alike`);
    return undefined;
  }
  const input = hessians && hessianInput(item, m, hessians);
  if (!hessians || input === undefined) return undefined;
  const { H, tokens } = hessians.get(input);
  if (tokens === 0) {
    warnings.add(`${weight}: no token of the calibration text reached it: quantised without a Hessian`);
    return undefined;
  }
  return { kind: 'hessian', H, tokens };
}

interface Quantized {
  readonly encoded: EncodedRows;
  readonly record: StoredTensorRecord;
}

/** Weights that are quantised at a time: memory does not grow with the rows of a tensor, nor do sums depend on it. */
const BAND_WEIGHTS = 1 << 24;

/** Rows of a band of a matrix. */
export function bandRows(rows: number, columns: number): number {
  return Math.min(rows, Math.max(64, Math.floor(BAND_WEIGHTS / columns)));
}

function quantizeTensor(run: Run, item: SelectedTensor): Quantized {
  const { files, plan, reader, args } = run;
  const { settings, threads } = args;
  const code = plan.codes.get(item.name);
  if (!code) throw new RangeError(`no code for ${item.name}`);
  const rotation = plan.rotations.get(item.name);
  const rowsEach = item.rows / item.matrices;
  const most = bandRows(rowsEach, item.columns);
  const buffer = new Float32Array(most * item.columns);
  /** The rows of matrix m in bands; each is valid until the next. */
  const bandsOf = function* (m: number): Generator<Float32Array, void, undefined> {
    for (let first = 0; first < rowsEach; first += most) {
      const count = Math.min(most, rowsEach - first);
      const band = buffer.subarray(0, count * item.columns);
      readTensorRows(files, item, reader, band, m * rowsEach + first, count);
      yield band;
    }
  };
  const turnedBands = function* (): Generator<Float32Array, void, undefined> {
    for (let m = 0; m < item.matrices; m++) {
      for (const band of bandsOf(m)) {
        if (rotation) rotateRows(band, band.length / item.columns, rotation, 'forward', threads);
        yield band;
      }
    }
  };
  const bands = item.matrices * Math.ceil(rowsEach / most);
  const levels = levelsFor(item.columns, bands, code, settings.levels, turnedBands);
  const before = createTensorStatistics(item.columns, code.groupLength);
  const after = createTensorStatistics(item.columns, code.groupLength);
  const sums = createFigureSums();
  const parts: EncodedRows[] = [];
  const warnings = new Set(foreseenWarnings(item, code, rotation, settings));
  for (let m = 0; m < item.matrices; m++) {
    const inputs = inputsOf(run, item, m, warnings);
    const spectrum = inputs?.kind === 'hessian' ? spectrumOf(run, item, m, inputs.H) : undefined;
    const quantizer = createMatrixQuantizer({
      tensor: item.name,
      columns: item.columns,
      code,
      levels,
      ...(rotation && { rotation }),
      settings,
      ...(inputs && { inputs }),
      threads,
    });
    const energyBefore = sums.energy;
    for (const band of bandsOf(m)) {
      addRows(before, band, threads);
      const rows = band.length / item.columns;
      const { encoded, statistics, losses } = quantizer.quantize(band, rows, (turned) =>
        addRows(after, turned, threads),
      );
      parts.push(encoded);
      addRowFigures(sums, statistics, losses);
    }
    const { metric } = quantizer;
    if (!metric) continue;
    for (const warning of metric.warnings) warnings.add(warning);
    const energy = sums.energy - energyBefore;
    addMetric(sums, metric, spectrum && leastLoss(spectrum, metric.ridge, energy, item.columns, code));
  }
  if (sums.zeroGroups > 0 && settings.zeroGroups === 'code') {
    warnings.add(
      `${item.name}: ${sums.zeroGroups} groups of zeros decode to small values; --zero-groups bitmap keeps them zero`,
    );
  }
  const record = tensorRecord(item, code, sums, tensorFigures(before), tensorFigures(after), rotation, warnings);
  return { encoded: concatenateRows(parts), record };
}

/** What sizes alone say: padding, and rotations that mix less than the whole row. */
function foreseenWarnings(
  { name, columns }: SelectedTensor,
  { groupLength }: PyramidCode,
  rotation: Rotation | undefined,
  settings: QuantizeSettings,
): string[] {
  const warnings: string[] = [];
  if (columns % groupLength !== 0) {
    const padded = Math.ceil(columns / groupLength) * groupLength;
    warnings.push(
      `${name}: rows of ${columns} weights are no whole number of groups of ${groupLength}: ${padded - columns} zeros pad each`,
    );
  }
  if (settings.rotation === 'none') return warnings;
  if (!rotation) warnings.push(`${name}: rows of ${columns} weights have no Hadamard matrix: not rotated`);
  else if (rotation.kind === 'blocks') {
    warnings.push(
      `${name}: no Hadamard core for rows of ${columns} weights: rotated in blocks of ${columns / rotation.blocks} only`,
    );
  }
  return warnings;
}

/** Eigenvalues of the Hessian of an input, where they are affordable: the same for all weights that read it. */
function spectrumOf(run: Run, item: SelectedTensor, m: number, H: Float64Array): Float64Array | undefined {
  const n = item.columns;
  const input = run.hessians && hessianInput(item, m, run.hessians);
  if (n > SPECTRUM_COLUMNS || input === undefined) return undefined;
  let spectrum = run.spectra.get(input);
  if (!spectrum) {
    spectrum = symmetricSpectrum(H.slice(), n, { threads: run.args.threads });
    // Tensors of one input follow one another: no more than the last is kept.
    run.spectra.clear();
    run.spectra.set(input, spectrum);
  }
  return spectrum;
}

/** What white Gaussian rows of this energy lose at least at this payload, in the damped metric of the inputs. */
function leastLoss(spectrum: Float64Array, ridge: number, energy: number, columns: number, code: PyramidCode): number {
  const damped = spectrum.map((value) => Math.max(0, value) + ridge);
  const mean = damped.reduce((sum, value) => sum + value, 0) / damped.length;
  return hessianBound(damped, payloadBits(columns, code)) * energy * mean;
}

/** The report's body: sizes from what was written, figures from the records, also those of an earlier run. */
function bodyOf(run: Run, selection: TensorSelection, writer: PvqWriter): QuantizeBody {
  const { files, args, plan } = run;
  const { selected, kept } = selection;
  const stored = selected.map((item) => storedRecordFromJson(writer.recordOf(item.name) ?? {}));
  const tensors = selected.map((item, i): TensorRecord => {
    const { payload, metadata } = writer.bytesOf(item.name);
    const bytes = payload + metadata;
    const sensitivity = plan.sensitivities.get(item.name) ?? null;
    return { ...stored[i].figures, sensitivity, bpw_file: (8 * bytes) / (item.rows * item.columns), bytes };
  });
  const weights = selected.reduce((sum, item) => sum + item.rows * item.columns, 0);
  const bytes = tensors.reduce((sum, tensor) => sum + tensor.bytes, plan.layout.fixedBytes);
  const quantized = sizeOf(tensors.length, weights, bytes);
  const keptSize = kept.reduce(
    (sum, { tensor }) =>
      sizeOf(sum.tensors + 1, sum.weights + elementCount(tensor.shape), sum.bytes + tensor.byteLength),
    sizeOf(0, 0, 0),
  );
  const payload = tensors.reduce((sum, tensor) => sum + tensor.bpw_payload * tensor.rows * tensor.columns, 0);
  const { rate } = args.settings;
  return {
    model: { path: args.shown, format: files.format, type: files.description.modelType },
    source: sourceRecord(files, selected),
    quantized: {
      ...quantized,
      payload_bits_per_weight: payload / weights,
      asked_bits_per_weight: rate.kind === 'bpw' ? rate.bitsPerWeight : null,
    },
    parts: partsOf(selected, plan, writer, weights),
    kept: keptSize,
    whole_model: sizeOf(
      quantized.tensors + keptSize.tensors,
      quantized.weights + keptSize.weights,
      quantized.bytes + keptSize.bytes,
    ),
    ...summarizeTensors(tensors, stored),
    expected_sqnr_db: -10 * Math.log10(plan.expectedError),
    allocation: {
      mode: rate.kind === 'bpw' ? args.settings.allocation : null,
      sensitivity_tokens: args.divergence?.tokens ?? null,
      noise_relative_energy: args.divergence?.relativeEnergy ?? null,
    },
    calibration: null,
    evaluation: null,
    exported: null,
    warnings: [...new Set([...run.warnings, ...stored.flatMap(({ warnings }) => warnings)])],
    tensors,
  };
}

function sizeOf(tensors: number, weights: number, bytes: number): SizeRecord {
  return { tensors, weights, bytes, bits_per_weight: weights > 0 ? (8 * bytes) / weights : 0 };
}

/** Bytes by kind of payload. */
function partsOf(
  selected: readonly SelectedTensor[],
  plan: CodePlan,
  writer: PvqWriter,
  weights: number,
): PartRecord[] {
  const bytes = { index: 0, gain: 0, levels: 0, sign: 0, scale_and_zero: 0, metadata: plan.layout.fixedBytes };
  for (const item of selected) {
    const code = plan.codes.get(item.name);
    if (!code) throw new RangeError(`no code for ${item.name}`);
    const { indexRowBytes, gainRowBytes } = rowSizes(item.columns, code);
    const { payload, metadata } = writer.bytesOf(item.name);
    const own = {
      index: item.rows * indexRowBytes,
      gain: item.rows * gainRowBytes,
      levels: 4 * 2 ** code.gainBits,
      sign: plan.rotations.get(item.name)?.signs.length ?? 0,
    };
    bytes.index += own.index;
    bytes.gain += own.gain;
    bytes.levels += own.levels;
    bytes.sign += own.sign;
    bytes.scale_and_zero += payload - own.index - own.gain - own.levels - own.sign;
    bytes.metadata += metadata;
  }
  return (Object.keys(bytes) as PartRecord['part'][]).map((part) => ({
    part,
    bytes: bytes[part],
    bits_per_weight: (8 * bytes[part]) / weights,
  }));
}
