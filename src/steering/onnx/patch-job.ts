import { InputError } from '../../errors.js';
import { encodeOnnxModel, readOnnxModel } from '../../formats/onnx.js';
import type { ModelProto } from '../../formats/onnx_pb.js';
import { graphOf } from '../../formats/onnx-edit.js';
import { externalLocations } from '../../formats/onnx-external.js';
import { indexOnnxGraph } from '../../formats/onnx-graph.js';
import type { ComputeReference } from '../../kernels/compute-thread.js';
import { readConfigBeside } from '../../models/onnx-feeds.js';
import { createRandom } from '../../random.js';
import type { SteeringVectors } from '../types.js';
import { checkVectorsFit } from '../vector-files/fit.js';
import { type GraphPatch, type PatchedLayer, type PatchRequest, patchGraph } from './patch-graph.js';
import type { ExposedPositions, PatchMode, SteeringRecipe } from './patch-options.js';
import { type PatchProof, type ProofLayer, type ProofRequest, provePatch } from './patch-proof.js';
import { findResidualChain } from './residual-chain.js';

/** One file of vectors and its strength. */
export interface WeightedVectors {
  readonly vectors: SteeringVectors;
  readonly strength: number;
}

export interface PatchArguments {
  readonly onnx: string;
  readonly mode: PatchMode;
  readonly recipe: SteeringRecipe;
  readonly expose: ExposedPositions | null;
  /** 'default': those of the vectors, or every block. */
  readonly layers: readonly number[] | 'all' | 'default';
  readonly tensors: readonly string[];
  readonly vectors: readonly WeightedVectors[];
  /** Steering inputs have no default and must be fed. */
  readonly required: boolean;
  /** Makes a copy for the proof whose inputs must be fed and that gives all residuals. */
  readonly witness: boolean;
}

/** A patched graph before it is written. */
export interface PatchedModel {
  readonly patched: Uint8Array;
  readonly witness: Uint8Array | null;
  readonly summary: PatchSummary;
  readonly proofLayers: readonly ProofLayer[];
  /** Files of weights, relative to the graph. */
  readonly external: readonly string[];
  readonly vocabularySize: number | null;
}

/** What was found and what was added, in the words of the report. */
export interface PatchSummary {
  readonly blocks: number | null;
  readonly layout: string | null;
  readonly counted_by: string | null;
  readonly embedding: string | null;
  readonly nodes_before: number;
  readonly nodes_after: number;
  readonly opset: number;
  readonly ir_version: number;
  readonly layers: readonly {
    readonly layer: number;
    readonly tensor: string | null;
    readonly sum_node: string | null;
    readonly sum_operator: string | null;
    readonly branch: string | null;
    readonly type: string;
    readonly hidden_size: number | null;
    readonly steering: string | null;
    readonly output: string | null;
    readonly vector_norm: number | null;
  }[];
}

/** Reads a graph, patches it, and patches a witness for the proof beside it. */
export function patchOnnxFile(args: PatchArguments): PatchedModel {
  const { onnx } = args;
  const model = readOnnxModel(onnx);
  const nodesBefore = graphOf(model).node.length;
  const external = externalLocations(model, onnx);
  const vocabularySize = vocabularyOf(model, onnx);
  const vectors = weightedVectors(args, model);
  const layers = chosenLayers(args, vectors);
  const patch = within(onnx, () => patchGraph(model, requestOf(args, layers, vectors)));
  const patched = encodeOnnxModel(model);
  const made = args.witness ? makeWitness(args, layers, vectors) : undefined;
  return {
    patched,
    witness: made?.bytes ?? null,
    summary: summaryOf(model, nodesBefore, patch, vectors),
    proofLayers: made?.layers ?? [],
    external,
    vocabularySize,
  };
}

export const PATCH_ONNX_FILE: ComputeReference<PatchArguments, PatchedModel> = {
  module: import.meta.url,
  job: patchOnnxFile,
};

/** Arguments of the proof; tokens are drawn from the vocabulary. */
export interface ProofArguments extends Omit<ProofRequest, 'tokens'> {
  readonly length: number;
  readonly vocabularySize: number | null;
}

/** Runs the proof of a patch. */
export function provePatchedFile(args: ProofArguments): Promise<PatchProof> {
  const { length, vocabularySize, ...rest } = args;
  const random = createRandom(args.seed);
  // The vocabulary of a graph that does not say it is at least this large in any model.
  const tokens = Int32Array.from({ length }, () => Math.floor(random.uniform() * (vocabularySize ?? 32)));
  return provePatch({ ...rest, tokens });
}

export const PROVE_PATCHED_FILE: ComputeReference<ProofArguments, PatchProof> = {
  module: import.meta.url,
  job: provePatchedFile,
};

function within<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof InputError && !error.message.startsWith(path))
      throw new InputError(`${path}: ${error.message}`);
    throw error;
  }
}

function requestOf(
  args: PatchArguments,
  layers: readonly number[] | 'all',
  vectors: ReadonlyMap<number, Float32Array>,
): PatchRequest {
  const { mode, recipe, expose, tensors, onnx } = args;
  const configLayers = layersBeside(onnx);
  return {
    layers,
    ...(tensors.length > 0 && { tensors }),
    ...(expose && { expose }),
    ...(configLayers !== undefined && { configLayers }),
    ...(mode !== 'none' && {
      steer: {
        recipe,
        operand: (layer) =>
          mode === 'input'
            ? { kind: 'input', default: args.required ? 'none' : 'zero' }
            : { kind: 'constant', values: vectorAt(vectors, layer) },
      },
    }),
  };
}

function vectorAt(vectors: ReadonlyMap<number, Float32Array>, layer: number): Float32Array {
  const vector = vectors.get(layer);
  if (vector) return vector;
  throw new InputError(`--layer ${layer}: the vectors are for the layers ${[...vectors.keys()].join(', ')}`);
}

function chosenLayers(
  { layers, tensors, mode }: PatchArguments,
  vectors: ReadonlyMap<number, Float32Array>,
): readonly number[] | 'all' {
  if (layers !== 'default') return layers === 'all' && mode === 'constant' ? [...vectors.keys()] : layers;
  if (vectors.size > 0) return [...vectors.keys()];
  return tensors.length > 0 ? tensors.map((_, index) => index) : 'all';
}

/** Sums of strength times vector by layer, after the vectors were held against the model. */
function weightedVectors(args: PatchArguments, model: ModelProto): Map<number, Float32Array> {
  const sums = new Map<number, Float32Array>();
  if (args.vectors.length === 0) return sums;
  const beside = readConfigBeside(args.onnx);
  const chain = args.tensors.length > 0 ? undefined : within(args.onnx, () => chainOf(args, model));
  for (const { vectors, strength } of args.vectors) {
    checkVectorsFit(vectors, {
      path: args.onnx,
      modelType: typeof beside?.model_type === 'string' ? beside.model_type : null,
      layers: chain?.blocks ?? null,
      hiddenSize: chain?.hiddenSize ?? null,
    });
    for (const [layer, direction] of vectors.directions) {
      const sum = sums.get(layer) ?? new Float32Array(direction.length);
      for (let i = 0; i < sum.length; i++) sum[i] += strength * direction[i];
      sums.set(layer, sum);
    }
  }
  return sums;
}

function chainOf({ onnx }: PatchArguments, model: ModelProto) {
  const layers = layersBeside(onnx);
  return findResidualChain(indexOnnxGraph(graphOf(model)), layers === undefined ? {} : { layers });
}

function layersBeside(onnx: string): number | undefined {
  const beside = readConfigBeside(onnx);
  const text = (beside?.text_config ?? beside) as Readonly<Record<string, unknown>> | undefined;
  const found = text?.num_hidden_layers ?? text?.n_layer ?? text?.num_layers;
  return typeof found === 'number' && Number.isInteger(found) && found > 0 ? found : undefined;
}

function makeWitness(
  args: PatchArguments,
  layers: readonly number[] | 'all',
  vectors: ReadonlyMap<number, Float32Array>,
): { bytes: Uint8Array; layers: ProofLayer[] } {
  const model = readOnnxModel(args.onnx);
  const recipe = args.recipe === 'bias' ? 'branch' : args.recipe;
  const witnessed: PatchArguments = { ...args, mode: 'input', required: true, expose: 'all', recipe };
  const patch = patchGraph(model, requestOf(witnessed, layers, vectors));
  return { bytes: encodeOnnxModel(model), layers: patch.layers.map((layer) => proofLayer(layer, vectors)) };
}

function proofLayer(patched: PatchedLayer, vectors: ReadonlyMap<number, Float32Array>): ProofLayer {
  const { layer, output, elementType } = patched;
  // A vector of zeros would prove nothing.
  const vector = vectors.get(layer)?.some((value) => value !== 0) ? vectors.get(layer) : undefined;
  return { layer, output: output ?? '', elementType, ...(vector && { vector }) };
}

/** Rows of the table that `input_ids` are looked up in, else config.json's vocab_size. */
function vocabularyOf(model: ModelProto, onnx: string): number | null {
  const logits = graphOf(model).output.find(({ name }) => name === 'logits')?.type?.value;
  const last = logits?.case === 'tensorType' ? logits.value.shape?.dim.at(-1)?.value : undefined;
  if (last?.case === 'dimValue' && last.value > 0n) return Number(last.value);
  const said = readConfigBeside(onnx)?.vocab_size;
  return typeof said === 'number' && said > 0 ? said : null;
}

function summaryOf(
  model: ModelProto,
  nodesBefore: number,
  { chain, layers }: GraphPatch,
  vectors: ReadonlyMap<number, Float32Array>,
): PatchSummary {
  return {
    blocks: chain?.blocks ?? null,
    layout: chain?.layout ?? null,
    counted_by: chain?.countedBy ?? null,
    embedding: chain?.embedding ?? null,
    nodes_before: nodesBefore,
    nodes_after: graphOf(model).node.length,
    opset: Number(model.opsetImport.find(({ domain }) => domain === '' || domain === 'ai.onnx')?.version ?? 0n),
    ir_version: Number(model.irVersion),
    layers: layers.map((patched) => ({
      layer: patched.layer,
      tensor: patched.tensor,
      sum_node: patched.sumNode,
      sum_operator: patched.sumOperator,
      branch: patched.branch,
      type: patched.type,
      hidden_size: patched.hiddenSize,
      steering: patched.steering,
      output: patched.output,
      vector_norm: normOf(vectors.get(patched.layer)),
    })),
  };
}

function normOf(vector: Float32Array | undefined): number | null {
  return vector ? Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0)) : null;
}
