import { type PyramidCode, rowGroups, wordBits } from '../kernels/pyramid.js';
import type { Rotation } from '../linalg/hadamard.js';
import type { Cell } from '../report/csv.js';
import { numberOfReport, type ReportObject, toJsonValue } from '../report/values.js';
import { payloadBits } from './code-choices.js';
import type { EncodeStatistics } from './encode-rows.js';
import type { MatrixMetric, RowLosses } from './quantize-matrix.js';
import type { AllocationMode } from './settings.js';
import type { SelectedTensor } from './tensor-selection.js';
import { shannonDecibels, type TensorFigures } from './tensor-statistics.js';

/** Name of the report's schema. */
export const QUANTIZE_SCHEMA = 'quantize-pvq';

/** What was done to one tensor. Errors are of the stored rows against the source's; figures of a rotation are null without one. */
export interface TensorRecord {
  readonly name: string;
  readonly role: string;
  /** Layer, or -1 for embedding and head. */
  readonly layer: number;
  readonly rows: number;
  readonly columns: number;
  readonly group_length: number;
  readonly pulses: number;
  readonly super_group: number;
  readonly gain_bits: number;
  /** Bits of the index of one group: those of its word over the groups in it. */
  readonly index_bits: number;
  /** Index and gain alone, bits per weight. */
  readonly bpw_payload: number;
  /** All that is stored for the tensor, bits per weight. */
  readonly bpw_file: number;
  readonly bytes: number;
  /** Allocation `kl`: mean KL to the original, nats, that is expected per unit of relative squared error; else null. */
  readonly sensitivity: number | null;
  /** Zeros that pad the last group of every row, as a part of all that is coded. */
  readonly padding_share: number;
  readonly mse: number;
  readonly sqnr_db: number;
  readonly cosine: number;
  readonly max_abs_error: number;
  /** Mean of 1 - c^2 over groups, c the cosine of a group and its code. */
  readonly shape_error: number;
  /** Squared error of the quantised gains relative to the energy of the tensor. */
  readonly gain_error: number;
  /** tr(E H E^T) of the errors, the part it is of tr(W H W^T), and the same without feedback and refits. */
  readonly hessian_loss: number | null;
  readonly hessian_loss_relative: number | null;
  readonly hessian_loss_relative_plain: number | null;
  readonly damping: number | null;
  readonly calibration_tokens: number | null;
  readonly dead_inputs: number | null;
  /** SQNR that no code of this payload can exceed on Gaussian weights, and how far below it the tensor is. */
  readonly shannon_sqnr_db: number;
  readonly below_shannon_db: number;
  /** What white Gaussian rows of the same energy lose at least at this payload (reverse water-filling over the spectrum of H), as a part of tr(W H W^T). */
  readonly shannon_hessian_loss_relative: number | null;
  readonly rotation: string;
  readonly rotation_core: number | null;
  /** max |W_ij| sqrt(rows columns) / |W|_F before and after the rotation. */
  readonly incoherence_before: number;
  readonly incoherence_after: number;
  readonly kurtosis_before: number;
  readonly kurtosis_after: number;
  /** Largest distance between the distribution of squared group amplitudes and its Beta law. */
  readonly kolmogorov_beta: number | null;
  readonly zero_groups: number;
  /** Row scales that f16 cannot hold, so that the tensor's scales are f32. */
  readonly wide_scales: number;
}

/** Columns of the table of tensors: the fields of a {@link TensorRecord}. */
export const TENSOR_COLUMNS = [
  'name',
  'role',
  'layer',
  'rows',
  'columns',
  'group_length',
  'pulses',
  'super_group',
  'gain_bits',
  'index_bits',
  'bpw_payload',
  'bpw_file',
  'bytes',
  'sensitivity',
  'padding_share',
  'mse',
  'sqnr_db',
  'cosine',
  'max_abs_error',
  'shape_error',
  'gain_error',
  'hessian_loss',
  'hessian_loss_relative',
  'hessian_loss_relative_plain',
  'damping',
  'calibration_tokens',
  'dead_inputs',
  'shannon_sqnr_db',
  'below_shannon_db',
  'shannon_hessian_loss_relative',
  'rotation',
  'rotation_core',
  'incoherence_before',
  'incoherence_after',
  'kurtosis_before',
  'kurtosis_after',
  'kolmogorov_beta',
  'zero_groups',
  'wide_scales',
] as const satisfies readonly (keyof TensorRecord)[];

export function tensorRow(record: TensorRecord): Cell[] {
  return TENSOR_COLUMNS.map((column) => record[column]);
}

/** Bytes of one kind of payload. */
export interface PartRecord {
  readonly part: 'index' | 'gain' | 'levels' | 'sign' | 'scale_and_zero' | 'metadata';
  readonly bytes: number;
  readonly bits_per_weight: number;
}

/** What was quantised and kept, in bytes and bits. */
export interface SizeRecord {
  readonly tensors: number;
  readonly weights: number;
  readonly bytes: number;
  readonly bits_per_weight: number;
}

/** How bits were spread over tensors. */
export interface AllocationRecord {
  /** Null where one code serves all. */
  readonly mode: AllocationMode | null;
  /** Of mode `kl`: tokens whose predictions were compared, and the energy of the noise relative to that of the weights. */
  readonly sensitivity_tokens: number | null;
  readonly noise_relative_energy: number | null;
}

/** What the model was calibrated on. */
export interface CalibrationRecord {
  readonly tokens: number;
  readonly window_tokens: number;
  /** Of the token ids, window after window, as little-endian int32. */
  readonly text_sha256: string;
  /** Inputs (of experts) that no token reached. */
  readonly unreached_inputs: readonly string[];
}

/** Predictions of the quantised model beside those of the original. */
export interface PredictionRecord {
  readonly tokens: number;
  readonly base_perplexity: number;
  readonly base_perplexity_se: number;
  readonly perplexity: number;
  readonly perplexity_se: number;
  readonly perplexity_ratio: number;
  readonly perplexity_ratio_se: number;
  readonly mean_kl_nats: number;
  readonly mean_kl_nats_se: number;
  readonly p99_kl_nats: number;
  readonly top1_agreement: number;
  readonly top1_agreement_se: number;
}

/** Accuracy on questions with choices. */
export interface AccuracyRecord {
  readonly questions: number;
  readonly accuracy: number;
  readonly accuracy_se: number;
}

export interface EvaluationRecord {
  /** Tokens of a window: perplexities of other windows cannot be compared. */
  readonly context_tokens: number;
  readonly convention: ReportObject | null;
  /** How activations were quantised on the way; `none`. */
  readonly activations: string;
  readonly documents: number;
  readonly predictions: PredictionRecord | null;
  readonly choices: { readonly before: AccuracyRecord; readonly after: AccuracyRecord } | null;
}

/** How coded tensors lie in a file of another program. */
export interface ExportRecord {
  readonly format: string;
  /** Bytes of all tensors of the file. */
  readonly bytes: number;
  readonly bits_per_weight: number;
  readonly notes: readonly string[];
  /** Decoded from the file's blocks, beside what was coded. */
  readonly tensors: readonly ReportObject[];
}

/** Body of the report. */
export interface QuantizeBody {
  readonly model: { readonly path: string; readonly format: string; readonly type: string };
  /** How the source stores what is quantised; `quantized` where it has lost bits already. */
  readonly source: { readonly quantized: boolean; readonly types: readonly string[]; readonly bits_per_weight: number };
  readonly quantized: SizeRecord & {
    readonly payload_bits_per_weight: number;
    readonly asked_bits_per_weight: number | null;
  };
  readonly parts: readonly PartRecord[];
  readonly kept: SizeRecord;
  readonly whole_model: SizeRecord;
  /** Of all quantised weights together. */
  readonly sqnr_db: number;
  readonly cosine: number;
  readonly hessian_loss_relative: number | null;
  readonly mean_below_shannon_db: number;
  /** What the plan expected of rows of uniform direction, without a Hessian. */
  readonly expected_sqnr_db: number | null;
  readonly zero_groups: number;
  readonly allocation: AllocationRecord;
  readonly calibration: CalibrationRecord | null;
  readonly evaluation: EvaluationRecord | null;
  readonly exported: ExportRecord | null;
  readonly warnings: readonly string[];
  readonly tensors: readonly TensorRecord[];
}

/** What is kept of a tensor until all are done: its figures, and the energies that totals are weighed with. */
export interface StoredTensorRecord {
  readonly figures: Omit<TensorRecord, 'bytes' | 'bpw_file' | 'sensitivity'>;
  /** Sum of squares of its weights; tr(W H W^T) where there is a Hessian. */
  readonly energy: number;
  readonly outputEnergy: number | null;
  /** What the user should know of this tensor. */
  readonly warnings: readonly string[];
}

/** Sums over the matrices of a tensor. */
export interface FigureSums {
  energy: number;
  decoded: number;
  cross: number;
  error: number;
  gainError: number;
  largest: number;
  /** Sum of 1 - c^2 over groups that are not zero, and their number. */
  shape: number;
  groups: number;
  zeroGroups: number;
  wideScales: number;
  outputEnergy: number;
  loss: number;
  plainLoss: number;
  damping: number;
  tokens: number;
  dead: number;
  matrices: number;
  /** Least loss by the Shannon bound; NaN once a matrix has none. */
  bound: number;
}

export function createFigureSums(): FigureSums {
  return {
    energy: 0,
    decoded: 0,
    cross: 0,
    error: 0,
    gainError: 0,
    largest: 0,
    shape: 0,
    groups: 0,
    zeroGroups: 0,
    wideScales: 0,
    outputEnergy: 0,
    loss: 0,
    plainLoss: 0,
    damping: 0,
    tokens: 0,
    dead: 0,
    matrices: 0,
    bound: 0,
  };
}

/** Adds rows. */
export function addRowFigures(sums: FigureSums, statistics: EncodeStatistics, losses?: RowLosses): void {
  const alive = statistics.groups - statistics.zeroGroups;
  sums.energy += statistics.weightEnergy;
  sums.decoded += statistics.decodedEnergy;
  sums.cross += statistics.crossEnergy;
  sums.error += statistics.squaredError;
  sums.gainError += statistics.gainSquaredError;
  sums.largest = Math.max(sums.largest, statistics.largestError);
  sums.shape += statistics.shapeError * alive;
  sums.groups += alive;
  sums.zeroGroups += statistics.zeroGroups;
  sums.wideScales += statistics.singleScales;
  sums.outputEnergy += losses?.outputEnergy ?? 0;
  sums.loss += losses?.loss ?? 0;
  sums.plainLoss += losses?.plainLoss ?? 0;
}

/** Adds what the rows of one matrix have in common; `bound` is what white Gaussian rows of its energy lose at least. */
export function addMetric(sums: FigureSums, metric: MatrixMetric, bound: number | undefined): void {
  sums.matrices++;
  sums.damping = Math.max(sums.damping, metric.damping);
  sums.tokens = sums.matrices === 1 ? metric.tokens : Math.min(sums.tokens, metric.tokens);
  sums.dead += metric.deadInputs.length;
  sums.bound += bound ?? Number.NaN;
}

/** The figures of a tensor. @param before and after: of its rows as they were, and as they were encoded */
export function tensorRecord(
  item: Pick<SelectedTensor, 'name' | 'role' | 'layer' | 'rows' | 'columns'>,
  code: PyramidCode,
  sums: FigureSums,
  before: TensorFigures,
  after: TensorFigures,
  rotation: Rotation | undefined,
  warnings: Iterable<string> = [],
): StoredTensorRecord {
  const { name, role, layer, rows, columns } = item;
  const { groupLength, pulses, superGroup, gainBits } = code;
  const groups = rowGroups(columns, groupLength);
  const payload = payloadBits(columns, code);
  const sqnr = decibels(sums.energy, sums.error);
  const shannon = shannonDecibels(payload);
  const metric = sums.matrices > 0;
  const relative = (loss: number): number | null => (metric && sums.outputEnergy > 0 ? loss / sums.outputEnergy : null);
  return {
    energy: sums.energy,
    outputEnergy: metric ? sums.outputEnergy : null,
    warnings: [...warnings],
    figures: {
      name,
      role,
      layer,
      rows,
      columns,
      group_length: groupLength,
      pulses,
      super_group: superGroup,
      gain_bits: gainBits,
      index_bits: wordBits(code) / superGroup,
      bpw_payload: payload,
      padding_share: 1 - columns / (groups * groupLength),
      mse: sums.error / (rows * columns),
      sqnr_db: sqnr,
      cosine: sums.decoded > 0 ? sums.cross / Math.sqrt(sums.energy * sums.decoded) : 1,
      max_abs_error: sums.largest,
      shape_error: sums.groups > 0 ? sums.shape / sums.groups : 0,
      gain_error: sums.energy > 0 ? sums.gainError / sums.energy : 0,
      hessian_loss: metric ? sums.loss : null,
      hessian_loss_relative: relative(sums.loss),
      hessian_loss_relative_plain: relative(sums.plainLoss),
      damping: metric ? sums.damping : null,
      calibration_tokens: metric ? sums.tokens : null,
      dead_inputs: metric ? sums.dead : null,
      shannon_sqnr_db: shannon,
      below_shannon_db: shannon - sqnr,
      shannon_hessian_loss_relative: Number.isNaN(sums.bound) ? null : relative(sums.bound),
      rotation: rotation?.kind ?? 'none',
      rotation_core: rotation?.core ?? null,
      incoherence_before: before.incoherence,
      incoherence_after: after.incoherence,
      kurtosis_before: before.kurtosis,
      kurtosis_after: after.kurtosis,
      kolmogorov_beta: after.kolmogorov,
      zero_groups: sums.zeroGroups,
      wide_scales: sums.wideScales,
    },
  };
}

function decibels(energy: number, error: number): number {
  return error > 0 ? 10 * Math.log10(energy / error) : Number.POSITIVE_INFINITY;
}

/** As JSON keeps it: what is not finite by name. */
export function storedRecordToJson({ figures, energy, outputEnergy, warnings }: StoredTensorRecord): ReportObject {
  return toJsonValue({ ...figures, energy, output_energy: outputEnergy, warnings }) as ReportObject;
}

/** What {@link storedRecordToJson} wrote. */
export function storedRecordFromJson(record: ReportObject): StoredTensorRecord {
  const {
    energy,
    output_energy: outputEnergy,
    warnings,
    ...figures
  } = Object.fromEntries(Object.entries(record).map(([key, value]) => [key, numberOfReport(value) ?? value]));
  return {
    figures: figures as StoredTensorRecord['figures'],
    energy: Number(energy),
    outputEnergy: outputEnergy === null ? null : Number(outputEnergy),
    warnings: Array.isArray(warnings) ? warnings.map(String) : [],
  };
}

/** Totals over tensors. */
export function summarizeTensors(
  tensors: readonly TensorRecord[],
  stored: readonly StoredTensorRecord[],
): Pick<QuantizeBody, 'sqnr_db' | 'cosine' | 'hessian_loss_relative' | 'mean_below_shannon_db' | 'zero_groups'> {
  const sum = (value: (tensor: TensorRecord, i: number) => number): number =>
    tensors.reduce((total, tensor, i) => total + value(tensor, i), 0);
  const count = (tensor: TensorRecord): number => tensor.rows * tensor.columns;
  const weights = sum(count);
  const outputEnergy = sum((_, i) => stored[i].outputEnergy ?? 0);
  return {
    sqnr_db: decibels(
      sum((_, i) => stored[i].energy),
      sum((tensor) => tensor.mse * count(tensor)),
    ),
    cosine: sum((tensor) => tensor.cosine * count(tensor)) / weights,
    hessian_loss_relative: outputEnergy > 0 ? sum((tensor) => tensor.hessian_loss ?? 0) / outputEnergy : null,
    mean_below_shannon_db: sum((tensor) => tensor.below_shannon_db * count(tensor)) / weights,
    zero_groups: sum((tensor) => tensor.zero_groups),
  };
}
