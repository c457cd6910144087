import { DTYPE_BYTES, elementCount } from '../../formats/tensor.js';
import { createBufferPool } from './buffer-pool.js';
import { parseMergeDocuments } from './config-document.js';
import { type MergeDocument, orderDocuments, referencedModels, tokenizerModels } from './document.js';
import { loadItem, shapeOfRows } from './load-item.js';
import { type MergeArguments, PROGRAM_BYTES, subjectWork } from './merge-arguments.js';
import { targetOf } from './merge-places.js';
import { parameterText } from './merge-report.js';
import { openMergeSubject } from './merge-subject.js';
import { rowCount, rowElements } from './source.js';
import type { MergePlan, MergeSource, ModelReference, PlannedTensor } from './types.js';

/** What a merge would do: for `--dry-run`. */
export interface PlannedDocument {
  readonly name: string | null;
  readonly method: string;
  readonly models: readonly string[];
  readonly out: string;
  readonly tensors: readonly {
    readonly name: string;
    readonly shape: string;
    readonly dtype: string;
    readonly parameters: string;
  }[];
  readonly bytesRead: number;
  readonly bytesWritten: number;
  readonly peakBytes: number;
  readonly elements: number;
  /** How many of them were read and merged between {@link SAMPLE_STARTS} and {@link SAMPLE_ENDS}. */
  readonly sampleElements: number;
  readonly warnings: readonly string[];
}

/** Plans the documents whose models exist; those that take the result of another one are left to the merge. */
export async function planModels(args: MergeArguments, progress: (value: unknown) => void): Promise<PlannedDocument[]> {
  const documents = orderDocuments(parseMergeDocuments(args.configuration, args.configurationName));
  const made = new Set(documents.map(({ name }) => name));
  const plans: PlannedDocument[] = [];
  for (const document of documents) {
    const models = referencedModels(document);
    const needed = [...models, ...tokenizerModels(document)];
    const waits = needed.filter(({ model }) => made.has(model)).map(({ text }) => text);
    const out = targetOf(document, documents, args);
    if (waits.length > 0) plans.push(waitingPlan(document, models, out, waits));
    else plans.push(await planDocument(args, document, out, progress));
  }
  return plans;
}

function waitingPlan(
  document: MergeDocument,
  models: readonly ModelReference[],
  out: string,
  waits: readonly string[],
): PlannedDocument {
  return {
    ...{ name: document.name ?? null, method: document.method.name, models: models.map(({ text }) => text), out },
    ...{ tensors: [], bytesRead: 0, bytesWritten: 0, peakBytes: 0, elements: 0, sampleElements: 0 },
    warnings: [`is planned when ${waits.join(', ')} of this configuration is there`],
  };
}

async function planDocument(
  args: MergeArguments,
  document: MergeDocument,
  out: string,
  progress: (value: unknown) => void,
): Promise<PlannedDocument> {
  const subject = openMergeSubject(document, { ...args.settings, directories: args.directories, hashed: false });
  try {
    const { plan, sources, vocabulary } = subject;
    const work = subjectWork(args, subject);
    return {
      name: document.name ?? null,
      method: plan.method.name,
      models: plan.models.map(({ text }) => text),
      out,
      tensors: plan.tensors.map((tensor) => ({
        name: tensor.name,
        shape: tensor.shape.join('x'),
        dtype: tensor.dtype,
        parameters: plannedParameters(plan, tensor),
      })),
      bytesRead: work.bytesRead,
      bytesWritten: work.bytesWritten,
      peakBytes: work.peakBytes + PROGRAM_BYTES,
      elements: work.elements,
      sampleElements: await mergeSample(args, plan, sources, progress),
      warnings: [...document.notes, ...subject.warnings, ...plan.warnings, ...(vocabulary?.notes ?? [])],
    };
  } finally {
    subject.close();
  }
}

/** `t=0.5` of the tensor, then `model: weight=1` of each model. */
function plannedParameters({ models }: MergePlan, { parameters, inputs }: PlannedTensor): string {
  const own = inputs.map(({ model, parameters: values }): string => {
    const text = parameterText({ ...values });
    return text === '' ? '' : `${models[model].text}: ${text}`;
  });
  return [parameterText({ ...parameters }), ...own].filter((text) => text !== '').join('; ');
}

/** Elements of the sample by which `--dry-run` estimates a time. */
const SAMPLE_ELEMENTS = 1 << 22;

/** Messages of a plan around the work that a clock may measure. */
export const SAMPLE_STARTS = 'sample starts';
export const SAMPLE_ENDS = 'sample ends';

/** Reads and merges some rows of the largest tensor between two messages. @returns their elements */
async function mergeSample(
  args: MergeArguments,
  plan: MergePlan,
  sources: readonly MergeSource[],
  progress: (value: unknown) => void,
): Promise<number> {
  const sizes = plan.tensors.map(({ shape, copied }) => (copied ? 0 : elementCount(shape)));
  const index = sizes.indexOf(Math.max(...sizes));
  const tensor = plan.tensors[index];
  if (tensor === undefined || sizes[index] === 0) return 0;
  const rows = Math.max(1, Math.min(rowCount(tensor.shape), Math.floor(SAMPLE_ELEMENTS / rowElements(tensor.shape))));
  progress(SAMPLE_STARTS);
  const { inputs } = await loadItem({ plan, sources }, createBufferPool(), { tensor: index, from: 0, to: rows });
  const shape = shapeOfRows(tensor.shape, { from: 0, to: rows });
  const bytes = new Uint8Array(elementCount(shape) * DTYPE_BYTES[tensor.dtype]);
  const { seed, variant } = args.settings;
  plan.method.merge({
    ...{
      name: tensor.name,
      inputs,
      parameters: tensor.parameters,
      firstElement: 0,
      seed,
      variant,
      threads: args.threads,
    },
    output: { dtype: tensor.dtype, shape, bytes },
  });
  progress(SAMPLE_ENDS);
  return elementCount(shape);
}
