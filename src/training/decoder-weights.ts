import { InputError } from '../errors.js';
import { elementCount } from '../formats/tensor.js';
import { EXPERT_MAP } from '../models/description.js';
import { adapterInputs, type LinearAdapter } from '../models/layer-parts.js';
import type { MemoryTensor } from '../models/memory-model.js';
import type { ModelFiles } from '../models/model-files.js';
import { huggingFaceNames, weightName } from '../models/weight-names.js';
import { createWeightReader, type StoredWeight } from '../models/weights.js';
import { type NameSelection, selectNames } from './name-patterns.js';
import type { Floats, Parameter, ParameterSet, Precision } from './types.js';

/** A low-rank term beside one linear: x W^T + scale (x A^T) B^T. */
export interface LowRankAdapter {
  /** Name of the stored matrix W. */
  readonly tensor: string;
  readonly rank: number;
  /** alpha / rank. */
  readonly scale: number;
  /** [rank, in] with the name under which it is trained. */
  readonly a: { readonly name: string; readonly values: Floats };
  /** [out, rank]. */
  readonly b: { readonly name: string; readonly values: Floats };
}

/** One weight of a graph: a stretch of a tensor. */
export interface WeightView {
  /** Stored tensor that it is, or is part of. */
  readonly tensor: string;
  readonly dims: readonly number[];
  readonly values: Floats;
  /** Where its gradient is summed; absent for what is frozen. */
  readonly gradient?: Floats;
}

/** Weights of a decoder, trained and frozen. Views by role, as the layers' graphs name them. */
export interface DecoderWeights {
  readonly parameters: ParameterSet;
  readonly embedding: WeightView;
  /** The embedding itself where the head is tied. */
  readonly head: WeightView;
  readonly positions?: WeightView;
  readonly finalNorm: WeightView;
  readonly finalNormBias?: WeightView;
  readonly layers: readonly ReadonlyMap<string, WeightView>[];
  /** Adapters of each layer by role. */
  readonly adapters: readonly ReadonlyMap<string, LinearAdapter>[];
  /** Extra inputs of each layer's attention by role. */
  readonly extras: readonly ReadonlyMap<string, WeightView>[];
  /** Every stored tensor by name, where it lies; adapters are not added to them. */
  readonly tensors: ReadonlyMap<string, MemoryTensor>;
}

/** A tensor that the model itself does not have. It is never decayed. */
export interface ExtraParameter {
  /** Its name in the graph, the same in all layers. */
  readonly role: string;
  /** Its name among the parameters. */
  readonly name: string;
  readonly dims: readonly number[];
  readonly initial: Floats;
  /** Stays as it is: no parameter. */
  readonly frozen?: true;
  /** Values stay within these: see `confine`. */
  readonly range?: { readonly least: number; readonly greatest: number };
}

/** A parameter beside the model, such as one of a gate that weighs its teachers. */
export interface CompanionParameter extends Pick<Parameter, 'name' | 'dims' | 'undecayed' | 'rate'> {
  readonly initial: Floats;
}

export interface DecoderWeightsRequest extends NameSelection {
  readonly precision: Precision;
  readonly threads: number;
  readonly adapters?: readonly LowRankAdapter[];
  /** Of each layer. */
  readonly extras?: readonly (readonly ExtraParameter[])[];
  readonly companions?: readonly CompanionParameter[];
}

/** What is stored under one name, and the weights that are parts of it. */
interface StoredTensor {
  readonly name: string;
  readonly dims: readonly number[];
  readonly parts: { readonly weight: StoredWeight; readonly offset: number }[];
  /** The map from routers to merged experts is no number to learn. */
  trainable: boolean;
}

/** Name in a Hugging Face checkpoint of a weight that GGUF files name otherwise. */
function standardName(files: ModelFiles, role: string, layer: number): string {
  const expert = /^expert\.(\d+)\./.exec(role)?.[1];
  const template = expert === undefined ? role : role.replace(/^expert\.\d+/, 'expert.{e}');
  const [first] = huggingFaceNames(files.description.modelType).layer[template] ?? [];
  if (first === undefined) throw new InputError(`${files.path}: the weight "${role}" of layer ${layer} has no name`);
  return weightName(first, layer, expert).tensor;
}

/** All stored tensors in the order of the model, and which of them each weight is part of. */
function collectTensors(files: ModelFiles): { tensors: Map<string, StoredTensor>; names: Map<StoredWeight, string> } {
  const tensors = new Map<string, StoredTensor>();
  const names = new Map<StoredWeight, string>();
  const { weights, description } = files;
  const standard = huggingFaceNames(description.modelType);
  const add = (weight: StoredWeight, gguf: string, trainable = true): void => {
    const whole = files.format === 'gguf';
    const name = whole ? gguf : weight.tensor.name;
    const dims = whole ? weight.shape : weight.tensor.shape;
    const share = whole ? 0 : weight.start / weight.tensor.byteLength;
    names.set(weight, name);
    const tensor = tensors.get(name) ?? { name, dims, parts: [], trainable };
    tensor.parts.push({ weight, offset: Math.round(share * elementCount(dims)) });
    tensors.set(name, tensor);
  };
  add(weights.embedding, standard.embedding[0]);
  if (weights.positions) add(weights.positions, standard.positions?.[0] ?? 'positions');
  weights.layers.forEach((layer, l) => {
    for (const [role, weight] of layer) {
      add(weight, files.format === 'gguf' ? standardName(files, role, l) : '', role !== EXPERT_MAP);
    }
  });
  const [norm] = standard.finalNorm;
  add(weights.finalNorm, norm);
  if (weights.finalNormBias) add(weights.finalNormBias, norm.replace(/\.weight$/, '.bias'));
  if (weights.head !== weights.embedding) add(weights.head, standard.head[0]);
  return { tensors, names };
}

interface TrainedTensor {
  readonly name: string;
  readonly dims: readonly number[];
  readonly undecayed?: true;
  readonly rate?: number;
}

/** Lays trained tensors side by side. */
function layOut(trained: readonly TrainedTensor[], precision: Precision): ParameterSet {
  const parameters: Parameter[] = [];
  let offset = 0;
  for (const { name, dims, undecayed, rate } of trained) {
    const length = elementCount(dims);
    const beside = { ...(undecayed && { undecayed }), ...(rate !== undefined && { rate }) };
    parameters.push({ name, dims, offset, length, ...beside });
    offset += length;
  }
  const make = (): Floats => (precision === 'f32' ? new Float32Array(offset) : new Float64Array(offset));
  return { precision, parameters, values: make(), gradients: make() };
}

/** Fills an adapter's name with its layer and role, and checks its shapes. */
function placeAdapters(
  files: ModelFiles,
  names: ReadonlyMap<StoredWeight, string>,
  adapters: readonly LowRankAdapter[],
): Map<LowRankAdapter, { layer: number; role: string }> {
  const places = new Map<string, { layer: number; role: string; weight: StoredWeight }>();
  files.weights.layers.forEach((layer, l) => {
    for (const [role, weight] of layer) places.set(names.get(weight) ?? '', { layer: l, role, weight });
  });
  const found = new Map<LowRankAdapter, { layer: number; role: string }>();
  for (const adapter of adapters) {
    const place = places.get(adapter.tensor);
    const linear = place && place.weight.shape.length === 2 && place.weight.start === 0;
    if (!linear || elementCount(place.weight.shape) !== elementCount(place.weight.tensor.shape)) {
      throw new InputError(`an adapter needs a linear of a layer, which "${adapter.tensor}" is not`);
    }
    const stored = place.weight.shape;
    const [out, input] = files.description.linearLayout === 'out-in' ? stored : [...stored].reverse();
    if (adapter.a.values.length !== adapter.rank * input || adapter.b.values.length !== out * adapter.rank) {
      throw new InputError(
        `adapter of "${adapter.tensor}": A has ${adapter.a.values.length} numbers and B ${adapter.b.values.length}; ` +
          `rank ${adapter.rank} beside [${out}, ${input}] asks for ${adapter.rank * input} and ${out * adapter.rank}`,
      );
    }
    found.set(adapter, place);
  }
  return found;
}

/**
 * Reads all weights of a model: trained ones into flat buffers, frozen ones beside them. Names are those of the
 * checkpoint; of a GGUF file those that Hugging Face gives the same model. With adapters the model's own weights are
 * frozen, but for those that `train` names.
 *
 * @throws InputError for a glob without a match, or an adapter that fits no linear
 */
export function readDecoderWeights(files: ModelFiles, request: DecoderWeightsRequest): DecoderWeights {
  const { precision, threads, adapters = [], extras = [], companions = [] } = request;
  const make = (length: number): Floats => (precision === 'f32' ? new Float32Array(length) : new Float64Array(length));
  const { tensors, names } = collectTensors(files);
  const candidates = [...tensors.values()].filter((tensor) => tensor.trainable).map((tensor) => tensor.name);
  const selected = adapters.length > 0 && !request.train ? [] : selectNames(candidates, request);
  const places = placeAdapters(files, names, adapters);

  const own = selected.map((name) => ({ name, dims: tensors.get(name)?.dims ?? [] }));
  const ofAdapters = adapters.flatMap(({ a, b, rank }) => [
    { name: a.name, dims: [rank, a.values.length / rank] },
    { name: b.name, dims: [b.values.length / rank, rank] },
  ]);
  const ofExtras = extras
    .flat()
    .flatMap(({ name, dims, frozen }) => (frozen ? [] : [{ name, dims, undecayed: true as const }]));
  const parameters = layOut([...own, ...ofAdapters, ...ofExtras, ...companions], precision);
  const byName = new Map(parameters.parameters.map((parameter) => [parameter.name, parameter]));

  const reader = createWeightReader(threads);
  const whole = new Map<string, MemoryTensor>();
  for (const { name, dims, parts } of tensors.values()) {
    const parameter = byName.get(name);
    const length = elementCount(dims);
    const data = parameter ? parameters.values.subarray(parameter.offset, parameter.offset + length) : make(length);
    for (const { weight, offset } of parts) {
      reader.read(weight, data.subarray(offset, offset + elementCount(weight.shape)));
    }
    whole.set(name, { shape: dims, data });
  }

  const stretch = (name: string, dims: readonly number[], initial: Floats): WeightView => {
    const { offset, length } = byName.get(name) ?? { offset: 0, length: 0 };
    const values = parameters.values.subarray(offset, offset + length);
    values.set(initial);
    return { tensor: name, dims, values, gradient: parameters.gradients.subarray(offset, offset + length) };
  };
  for (const { name, dims, initial } of companions) stretch(name, dims, initial);
  const viewOfExtra = ({ name, dims, initial, frozen }: ExtraParameter): WeightView => {
    if (!frozen) return stretch(name, dims, initial);
    const values = make(elementCount(dims));
    values.set(initial);
    return { tensor: name, dims, values };
  };
  const view = (weight: StoredWeight): WeightView => {
    const name = names.get(weight) ?? '';
    const offset = tensors.get(name)?.parts.find((part) => part.weight === weight)?.offset ?? 0;
    const length = elementCount(weight.shape);
    const values = whole.get(name)?.data.subarray(offset, offset + length) ?? make(length);
    const parameter = byName.get(name);
    const first = (parameter?.offset ?? 0) + offset;
    return {
      tensor: name,
      dims: weight.shape,
      values,
      ...(parameter && { gradient: parameters.gradients.subarray(first, first + length) }),
    };
  };

  const layers = files.weights.layers.map(
    (layer) => new Map([...layer].map(([role, weight]): [string, WeightView] => [role, view(weight)])),
  );
  const kinds = layers.map(() => new Map<string, LinearAdapter>());
  for (const adapter of adapters) {
    const { layer, role } = places.get(adapter) ?? { layer: 0, role: '' };
    const { rank, scale, a, b } = adapter;
    const [aName, bName] = adapterInputs(role);
    layers[layer].set(aName, stretch(a.name, [rank, a.values.length / rank], a.values));
    layers[layer].set(bName, stretch(b.name, [b.values.length / rank, rank], b.values));
    kinds[layer].set(role, { rank, scale });
  }
  const { embedding, head, positions, finalNorm, finalNormBias } = files.weights;
  const embedded = view(embedding);
  return {
    parameters,
    embedding: embedded,
    head: head === embedding ? embedded : view(head),
    finalNorm: view(finalNorm),
    layers,
    adapters: kinds,
    extras: layers.map((_, l) => new Map((extras[l] ?? []).map((extra) => [extra.role, viewOfExtra(extra)]))),
    tensors: whole,
    ...(positions && { positions: view(positions) }),
    ...(finalNormBias && { finalNormBias: view(finalNormBias) }),
  };
}
