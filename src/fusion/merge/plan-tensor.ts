import { InputError } from '../../errors.js';
import { elementCount } from '../../formats/tensor.js';
import { aliasIn, isHead, isVocabularyTensor } from './architecture.js';
import type { MergeDocument, ParameterSettings } from './document.js';
import type { ModulePlan, PlanModel, Slice, SliceSource } from './plan-slices.js';
import { resolveParameter } from './setting.js';
import type { MergeDType, ParameterDeclaration, ParameterValue, PlannedInput, PlannedTensor } from './types.js';

/** What goes for all tensors of a plan. */
export interface TensorPlanning {
  readonly document: MergeDocument;
  readonly allowCrimes: boolean;
  /** Counts what happens to tensors by kind; the first of a kind is shown. */
  readonly notes: TensorNotes;
}

/** Sentences about tensors, one for all tensors of a kind. */
export interface TensorNotes {
  add(kind: string, tensor: string, detail: string): void;
  sentences(): string[];
}

export function createTensorNotes(): TensorNotes {
  const kinds = new Map<string, { count: number; readonly first: string }>();
  return {
    add(kind, tensor, detail): void {
      const known = kinds.get(kind);
      if (known === undefined) kinds.set(kind, { count: 1, first: `${tensor}${detail === '' ? '' : ` (${detail})`}` });
      else known.count++;
    },
    sentences: () =>
      [...kinds].map(([kind, { count, first }]) =>
        count === 1 ? `${kind}: ${first}` : `${kind}: ${first} and ${count - 1} more`,
      ),
  };
}

/** A tensor of the output before its inputs are weighed. */
export interface TensorRequest {
  readonly name: string;
  readonly layer?: number;
  readonly module: string;
  readonly slice: Slice;
  readonly of: ModulePlan;
  /** Position in the slice, for gradients. */
  readonly t: number;
  /** Name in each source of the slice; undefined: the source does not have it. */
  readonly names: readonly (string | undefined)[];
}

interface Candidate {
  readonly source: SliceSource;
  /** Stored name. */
  readonly tensor: string;
  /** Name that filters are tested on. */
  readonly role: string;
  readonly shape: readonly number[];
  readonly dtype: MergeDType;
}

const text = (shape: readonly number[]): string => `[${shape.join(', ')}]`;
const labelOf = ({ source }: Candidate): string => source.model.reference.text;

/** The stored tensor that plays a role in a source; a model without a head makes its logits with its embeddings. */
function candidateOf(source: SliceSource, stored: string | undefined, name: string): Candidate | undefined {
  const { model } = source;
  const tensor = stored ?? (isHead(name) ? model.architecture.embedding : undefined);
  const info = tensor === undefined ? undefined : model.source.tensors.get(tensor);
  if (tensor === undefined || info === undefined) return undefined;
  return { source, tensor, role: stored ?? name, shape: info.shape, dtype: info.dtype };
}

function candidatesOf(request: TensorRequest, planning: TensorPlanning): Candidate[] {
  const { slice, name, names } = request;
  const { method } = planning.document;
  const found = slice.sources.map((source, i) => candidateOf(source, names[i], name));
  const present = found.filter((candidate) => candidate !== undefined);
  for (const [i, candidate] of found.entries()) {
    if (candidate !== undefined) continue;
    const { model } = slice.sources[i];
    const missing = `${model.reference.text} has no tensor ${name}, which ${labelOf(present[0])} has`;
    if (model === slice.base && !planning.allowCrimes)
      throw new InputError(
        `${slice.place}: the base ${missing}; --allow-crimes takes such tensors from the others as they are`,
      );
    if (method.taskVectors)
      planning.notes.add(`${model.reference.text} has no such tensor and is left out there`, name, '');
    else if (planning.allowCrimes)
      planning.notes.add(`only some models have the tensor`, name, `not ${model.reference.text}`);
    else throw new InputError(`${slice.place}: ${missing}; --allow-crimes merges the models that have it`);
  }
  return present;
}

const equalShapes = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((extent, i) => extent === b[i]);

/** Shape of the output and the inputs that go in. */
interface Fitted {
  readonly shape: readonly number[];
  readonly inputs: readonly Candidate[];
}

function mismatch({ slice, name }: TensorRequest, a: Candidate, b: Candidate): string {
  const own = (candidate: Candidate): string => (candidate.tensor === name ? '' : ` (${candidate.tensor})`);
  return `${slice.place}: tensor ${name} is ${text(a.shape)} in ${labelOf(a)}${own(a)} and ${text(b.shape)} in ${labelOf(b)}${own(b)}`;
}

/** Largest submatrix that all have. */
function commonShape(request: TensorRequest, candidates: readonly Candidate[], { notes }: TensorPlanning): Fitted {
  const [first, ...others] = candidates;
  const shape = [...first.shape];
  for (const other of others) {
    if (other.shape.length !== shape.length || (shape.length > 2 && !equalShapes(other.shape.slice(1), shape.slice(1))))
      throw new InputError(mismatch(request, first, other));
    for (const [i, extent] of other.shape.entries()) shape[i] = Math.min(shape[i], extent);
  }
  const largest = candidates.reduce((best, candidate) =>
    elementCount(candidate.shape) > elementCount(best.shape) ? candidate : best,
  );
  notes.add(
    `vocabularies differ in size and are cut to ${text(shape)}, rows beyond are lost; "tokenizer: {source: union}" keeps all tokens`,
    request.name,
    `${text(largest.shape)} in ${labelOf(largest)}`,
  );
  return { shape, inputs: candidates };
}

/** Task vectors need the base's shape. */
function baseShape(
  request: TensorRequest,
  candidates: readonly Candidate[],
  base: Candidate,
  { notes }: TensorPlanning,
): Fitted {
  const { shape } = base;
  const vocabulary = isVocabularyTensor(request.name);
  const inputs = candidates.filter((candidate) => {
    if (equalShapes(candidate.shape, shape)) return true;
    const detail = `${text(candidate.shape)} against ${text(shape)}`;
    if (!vocabulary || candidate.shape.length !== shape.length) {
      notes.add(`${labelOf(candidate)} has another shape than the base and is left out there`, request.name, detail);
      return false;
    }
    const short = shape.findIndex((extent, axis) => candidate.shape[axis] < extent);
    if (short === 0)
      throw new InputError(
        `${mismatch(request, candidate, base)}; a vocabulary cannot be widened to the base's: give "tokenizer: {source: union}" or {source: base}`,
      );
    if (short > 0) throw new InputError(mismatch(request, candidate, base));
    notes.add(`${labelOf(candidate)} is cut to the vocabulary of the base`, request.name, detail);
    return true;
  });
  return { shape, inputs };
}

function fitShapes(request: TensorRequest, candidates: readonly Candidate[], planning: TensorPlanning): Fitted {
  const [first] = candidates;
  const other = candidates.find(({ shape }) => !equalShapes(shape, first.shape));
  if (other === undefined) return { shape: first.shape, inputs: candidates };
  const base = candidates.find(({ source }) => source.model === request.slice.base);
  if (planning.document.method.taskVectors && base !== undefined) return baseShape(request, candidates, base, planning);
  if (!isVocabularyTensor(request.name)) throw new InputError(mismatch(request, first, other));
  return commonShape(request, candidates, planning);
}

const WIDTH: Readonly<Record<MergeDType, number>> = { F64: 3, F32: 2, F16: 1, BF16: 1 };

/** The narrowest type that holds all: half types of two kinds need a single. */
export function promoteTypes(dtypes: readonly MergeDType[]): MergeDType {
  return dtypes.reduce((a, b) => {
    if (a === b) return a;
    return WIDTH[a] === WIDTH[b] ? 'F32' : WIDTH[a] > WIDTH[b] ? a : b;
  });
}

function resolveAll(
  declarations: readonly ParameterDeclaration[],
  levels: readonly ParameterSettings[],
  tensor: string,
  request: TensorRequest,
  model: PlanModel | undefined,
): Record<string, ParameterValue | undefined> {
  const values: Record<string, ParameterValue | undefined> = {};
  for (const declaration of declarations) {
    const value = resolveParameter(declaration, levels, tensor, request.t);
    const of = model === undefined ? `tensor ${tensor}` : `model ${model.reference.text}, tensor ${tensor}`;
    if (value === undefined && declaration.required)
      throw new InputError(`${request.slice.place}: parameter "${declaration.name}" has no value for ${of}`);
    if (declaration.kind === 'integer' && typeof value === 'number' && !Number.isInteger(value))
      throw new InputError(
        `${request.slice.place}: parameter "${declaration.name}" is ${value} for ${of}; an integer is needed`,
      );
    values[declaration.name] = value;
  }
  return values;
}

function inputOf(candidate: Candidate, request: TensorRequest, { document }: TensorPlanning): PlannedInput {
  const { slice, of } = request;
  const { source, tensor, role } = candidate;
  const levels = [source.parameters, slice.parameters, of.parameters, document.parameters];
  const declarations = source.model === slice.base ? [] : document.method.perModel;
  return {
    model: source.model.index,
    tensor,
    parameters: resolveAll(declarations, levels, role, request, source.model),
  };
}

/** The one input that stands for the output where too few models are left to merge. */
function soleInput(
  request: TensorRequest,
  inputs: readonly Candidate[],
  { document, notes }: TensorPlanning,
): Candidate | undefined {
  const { method } = document;
  const { slice, name } = request;
  const base = inputs.find(({ source }) => source.model === slice.base);
  const others = inputs.length - (base === undefined ? 0 : 1);
  if (slice.base !== undefined && base === undefined) {
    notes.add('the base has no such tensor, and it is taken as it is', name, `from ${labelOf(inputs[0])}`);
    return inputs[0];
  }
  if (others >= method.models.least) return undefined;
  if (inputs.length < slice.sources.length)
    notes.add(
      `too few models are left for ${method.name}, and the tensor is taken as it is`,
      name,
      `from ${labelOf(base ?? inputs[0])}`,
    );
  return base ?? inputs[0];
}

/**
 * Plans a tensor of the output: its inputs, their parameters, its shape and type.
 * @returns undefined when no source of the slice has it
 * @throws InputError for a tensor that some models lack, shapes that cannot be merged, and required parameters without a value
 */
export function planTensor(request: TensorRequest, planning: TensorPlanning): PlannedTensor | undefined {
  if (request.names.every((name) => name === undefined)) return undefined;
  const { document } = planning;
  const { name, layer, module, slice, of } = request;
  const { shape, inputs } = fitShapes(request, candidatesOf(request, planning), planning);
  const dtype = document.outDtype ?? document.dtype ?? promoteTypes(inputs.map((input) => input.dtype));
  const about = {
    name,
    module,
    vocabulary: isVocabularyTensor(name),
    dtype,
    ...(layer === undefined ? {} : { layer }),
  };
  const sole = soleInput(request, inputs, planning);
  if (sole !== undefined) {
    const input = { model: sole.source.model.index, tensor: sole.tensor, parameters: {} };
    return { ...about, shape: sole.shape, inputs: [input], copied: true, parameters: {} };
  }
  const levels = [slice.parameters, of.parameters, document.parameters];
  const base = inputs.findIndex(({ source }) => source.model === slice.base);
  return {
    ...about,
    shape,
    inputs: inputs.map((input) => inputOf(input, request, planning)),
    ...(base === -1 ? {} : { base }),
    parameters: resolveAll(document.method.global, levels, name, request, undefined),
  };
}

/** Name of a tensor outside layers in each source of a slice. */
export function namesOutside(slice: Slice, name: string): (string | undefined)[] {
  return slice.sources.map(({ model: { source } }) => aliasIn(name, (candidate) => source.tensors.has(candidate)));
}
