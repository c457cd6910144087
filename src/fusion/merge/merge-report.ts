import type { ReportValue } from '../../report/values.js';
import type { TensorRecord } from './tensor-record.js';
import type { MergePlan, PlannedTensor } from './types.js';

/** Names of the JSON reports, without their prefix. */
export const FUSE_MERGE_SCHEMA = 'fuse-merge';
export const FUSE_MERGE_MANIFEST_SCHEMA = 'fuse-merge-manifest';

/** A tensor of the output: how it came about. */
export interface MergedTensor {
  readonly name: string;
  readonly layer: number | null;
  readonly module: string;
  readonly shape: readonly number[];
  readonly dtype: string;
  readonly parameters: Readonly<Record<string, ReportValue>>;
  readonly inputs: readonly MergedInput[];
  /** File of the output that holds it. */
  readonly file: string;
  readonly record: TensorRecord;
}

export interface MergedInput {
  readonly model: string;
  readonly tensor: string;
  readonly base: boolean;
  readonly parameters: Readonly<Record<string, ReportValue>>;
}

/** A token whose row in some model is not its own: averaged, copied or invented. */
export type TokenOriginRecord = {
  readonly token: string;
  readonly id: number;
  readonly model: string;
  readonly origin: string;
  readonly donors: readonly string[];
};

/** What became of one document of a configuration. */
export interface DocumentResult {
  readonly name: string | null;
  readonly method: { readonly name: string; readonly reference: string };
  readonly models: readonly string[];
  readonly base: string | null;
  readonly layers: number;
  readonly tensor_bytes: number;
  readonly bytes_read: number;
  readonly files: readonly { readonly name: string; readonly bytes: number }[];
  readonly tensors: readonly MergedTensor[];
  readonly vocabulary: {
    readonly tokens: number;
    /** Rows that are not a model's own. */
    readonly origins: readonly TokenOriginRecord[];
    readonly notes: readonly string[];
  } | null;
  readonly summary: MergeSummary;
  readonly warnings: readonly string[];
}

/** Means over tensors, weighted by their elements; null where nothing was measured. */
export type MergeSummary = {
  readonly elements: number;
  readonly relative_change: number | null;
  readonly mean_cosine: number | null;
  readonly sign_conflict: number | null;
  readonly nonfinite: number;
};

export const FUSE_MERGE_COLUMNS = [
  'document',
  'tensor',
  'layer',
  'module',
  'shape',
  'dtype',
  'model',
  'is_base',
  'input_tensor',
  'parameters',
  'tensor_parameters',
  'weight',
  'kept_density',
  'norm',
  'delta_norm',
  'mean_cosine',
  'spectral_entropy_nats',
  'effective_rank',
  'nonfinite',
  'sign_conflict',
  'smallest_divisor',
  'figures',
  'merged_norm',
  'change_norm',
  'relative_change',
  'bytes_sha256',
] as const;

/** `a=1 b=0.5`, by name. */
export function parameterText(parameters: Readonly<Record<string, ReportValue>>): string {
  return Object.keys(parameters)
    .sort()
    .filter((name) => parameters[name] !== undefined && parameters[name] !== null)
    .map((name) => `${name}=${String(parameters[name])}`)
    .join(' ');
}

/** Rows of the table: one for each input of each tensor; what belongs to the tensor stands in all of its rows. */
export function mergeRows(document: DocumentResult): (string | number | boolean | null)[][] {
  return document.tensors.flatMap((tensor) => {
    const { record } = tensor;
    const means = meanCosines(tensor);
    return tensor.inputs.map((input, i): (string | number | boolean | null)[] => [
      document.name,
      tensor.name,
      tensor.layer,
      tensor.module,
      tensor.shape.join('x'),
      tensor.dtype,
      input.model,
      input.base,
      input.tensor,
      parameterText(input.parameters),
      parameterText(tensor.parameters),
      record.weights?.[i] ?? null,
      record.kept_density?.[i] ?? null,
      record.measures?.norms[i] ?? null,
      record.measures?.delta_norms?.[i] ?? null,
      means[i],
      record.spectra?.[i]?.spectral_entropy_nats ?? null,
      record.spectra?.[i]?.effective_rank ?? null,
      record.nonfinite_inputs[i],
      record.measures?.sign_conflict ?? null,
      record.smallest_divisor,
      parameterText(record.figures),
      record.measures?.merged_norm ?? null,
      record.measures?.change_norm ?? null,
      record.measures?.relative_change ?? null,
      record.sha256,
    ]);
  });
}

/** Mean cosine of each input to the others that are not the base; null for the base and for a single model. */
export function meanCosines({ inputs, record }: Pick<MergedTensor, 'inputs' | 'record'>): (number | null)[] {
  const others = inputs.flatMap(({ base }, i) => (base ? [] : [i]));
  const sums = new Map<number, number>();
  let pair = 0;
  for (const [a, i] of others.entries())
    for (const j of others.slice(a + 1)) {
      const cosine = record.measures?.cosines[pair++] ?? Number.NaN;
      sums.set(i, (sums.get(i) ?? 0) + cosine);
      sums.set(j, (sums.get(j) ?? 0) + cosine);
    }
  return inputs.map((_, i) => {
    const sum = sums.get(i);
    return sum === undefined || Number.isNaN(sum) ? null : sum / (others.length - 1);
  });
}

/** A planned tensor and its record as the report shows them. */
export function mergedTensor(plan: MergePlan, tensor: PlannedTensor, record: TensorRecord, file: string): MergedTensor {
  return {
    name: tensor.name,
    layer: tensor.layer ?? null,
    module: tensor.module,
    shape: tensor.shape,
    dtype: tensor.dtype,
    parameters: { ...tensor.parameters },
    inputs: tensor.inputs.map(({ model, tensor: name, parameters }, i) => ({
      model: plan.models[model].text,
      tensor: name,
      base: i === tensor.base,
      parameters: { ...parameters },
    })),
    file,
    record,
  };
}

/** Mean of what tensors have, weighted by elements; null when none has it. */
function weightedMean(
  tensors: readonly MergedTensor[],
  of: (tensor: MergedTensor) => number | null | undefined,
): number | null {
  let sum = 0;
  let weight = 0;
  for (const tensor of tensors) {
    const value = of(tensor);
    if (value === null || value === undefined || !Number.isFinite(value)) continue;
    const elements = tensor.shape.reduce((a, b) => a * b, 1);
    sum += value * elements;
    weight += elements;
  }
  return weight > 0 ? sum / weight : null;
}

export function summarize(tensors: readonly MergedTensor[]): MergeSummary {
  const mean = (values: readonly number[]): number | null =>
    values.length > 0 ? values.reduce((a, b) => a + b, 0) / values.length : null;
  return {
    elements: tensors.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0),
    relative_change: weightedMean(tensors, ({ record }) => record.measures?.relative_change),
    mean_cosine: weightedMean(tensors, ({ record }) =>
      mean((record.measures?.cosines ?? []).filter((cosine) => cosine !== null)),
    ),
    sign_conflict: weightedMean(tensors, ({ record }) => record.measures?.sign_conflict),
    nonfinite: tensors.reduce(
      (sum, { record }) => sum + record.nonfinite_output + record.nonfinite_inputs.reduce((a, b) => a + b, 0),
      0,
    ),
  };
}

/** Warnings of all tensors: each sentence once, with how many tensors it is about and the first of them. */
export function gatherWarnings(tensors: readonly MergedTensor[]): string[] {
  const byText = new Map<string, string[]>();
  for (const { name, record } of tensors)
    for (const text of record.warnings) byText.set(text, [...(byText.get(text) ?? []), name]);
  return [...byText].map(([text, [first, ...others]]) =>
    others.length === 0 ? `${first}: ${text}` : `${first} and ${others.length} more tensors: ${text}`,
  );
}
