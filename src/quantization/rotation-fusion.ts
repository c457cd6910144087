import { InputError } from '../errors.js';
import { elementCount, type TensorInfo } from '../formats/tensor.js';
import { rotateRows } from '../kernels/hadamard.js';
import { planRotation, type Rotation, tensorSeed } from '../linalg/hadamard.js';
import type { AttentionDescription, LayerDescription } from '../models/description.js';
import type { ModelFiles } from '../models/model-files.js';
import { GGUF_NAMES, huggingFaceNames } from '../models/weight-names.js';
import { createWeightReader, HUGGING_FACE_RENAMINGS, type StoredWeight, type WeightReader } from '../models/weights.js';

/**
 * Rotations fused into the weights of a model (QuaRot, Ashkboos et al. 2024; SpinQuant, Liu et al. 2024): R1 turns the
 * residual stream, R2 the values of every head. What a norm multiplies is folded into the linear layers that read it,
 * because R1 passes a norm only when its weights are one. The model computes the same function; nothing happens at run
 * time. This module decides what happens to every tensor, as data; `fused-store.ts` carries it out.
 */

/** An orthogonal map x -> P Q x of vectors of one width: a randomised Hadamard rotation Q, then a reflection P. */
export interface FusedRotation {
  readonly rotation: Rotation;
  readonly width: number;
  /**
   * Unit normal of the reflection, where there is one. LayerNorm subtracts the mean, so the rotation must map the
   * constant vector to itself: P takes Q 1 back to 1.
   */
  readonly reflection?: Float64Array;
}

/** Key of a rotation in {@link FusionPlan.rotations}: the residual stream or the values of one layer. */
export type RotationKey = 'residual' | `layer.${number}.values`;

/** One operation on W [rows = out, columns = in]; a bias is a W of one column. Steps run in order. */
export type FusionStep =
  /** W <- W diag(g): the weights of the norm before this layer. */
  | { readonly kind: 'scale-columns'; readonly factors: Float64Array }
  /** Every row loses its mean over the columns: embeddings before LayerNorm. */
  | { readonly kind: 'center-columns' }
  /** Every row x becomes R x: W <- W R^T. */
  | { readonly kind: 'rotate-columns'; readonly rotation: RotationKey }
  /** As `rotate-columns`, in every block of the rotation's width. */
  | { readonly kind: 'rotate-column-blocks'; readonly rotation: RotationKey }
  /** b <- b + V s: the bias s of the norm before the layer of V, `matrix`, which may be stored [in, out]. */
  | {
      readonly kind: 'add-product';
      readonly matrix: StoredWeight;
      readonly transposed: boolean;
      readonly factors: Float64Array;
    }
  /** Blocks of rows of the rotation's width, by their first rows: each becomes R times the block. */
  | { readonly kind: 'rotate-row-blocks'; readonly rotation: RotationKey; readonly firstRows: readonly number[] }
  /** Every column loses its mean over the rows: outputs before LayerNorm. */
  | { readonly kind: 'center-rows' }
  /** W <- R W. */
  | { readonly kind: 'rotate-rows'; readonly rotation: RotationKey }
  /** The values are replaced. */
  | { readonly kind: 'set'; readonly values: Float64Array };

/** One matrix (an expert of a stack is one) or vector that changes. */
export interface FusedPart {
  readonly weight: StoredWeight;
  /** Of W [out, in], whatever the stored layout. */
  readonly rows: number;
  readonly columns: number;
  /** Stored [in, out]. */
  readonly transposed: boolean;
  readonly steps: readonly FusionStep[];
}

/** A tensor of the fused model. Parts lie one after the other in it. */
export interface FusedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** The tensor that it is made from. */
  readonly source: TensorInfo;
  readonly parts: readonly FusedPart[];
}

export interface FusionOptions {
  /** Global seed of the rotations. */
  readonly seed: bigint;
  /** Rotate the residual stream (R1). Default true. */
  readonly residual?: boolean;
  /** Rotate the values of every head (R2). Default true. */
  readonly values?: boolean;
  /** Fold norms without rotating where `residual` is false. Default: true. */
  readonly foldNorms?: boolean;
  /** The head must go on sharing the embedding: refused, because a folded final norm is in one of the two only. */
  readonly keepTied?: boolean;
}

/** What happens to every tensor that changes. All others stay byte for byte. */
export interface FusionPlan {
  readonly modelType: string;
  readonly seed: bigint;
  readonly rotations: ReadonlyMap<RotationKey, FusedRotation>;
  /** By the name in the fused model. */
  readonly tensors: ReadonlyMap<string, FusedTensor>;
  /** Name of the head's own tensor where the model shared it with the embedding. */
  readonly untiedHead?: string;
  /** What could not be fused, for the report. */
  readonly notes: readonly string[];
}

/** Model types whose forward pass was compared before and after fusion. A new one needs a look at its residual paths. */
const RECOGNISED = new Set([
  'llama',
  'mistral',
  'smollm3',
  'qwen2',
  'qwen3',
  'gemma2',
  'gemma3_text',
  'phi3',
  'gpt2',
  'gpt_neox',
  'mixtral',
  'qwen2_moe',
  'qwen3_moe',
  'olmoe',
  'surprisal_moe',
]);

/** Roles that read what a norm gives, and roles that write to the residual stream; experts without their index. */
const ATTENTION_READERS = ['q', 'k', 'v', 'qkv'];
const MLP_READERS = [
  'gate',
  'up',
  'gate_up',
  'router',
  'shared.gate',
  'shared.up',
  'shared.router',
  'expert.gate',
  'expert.up',
];
const WRITERS = ['o', 'down', 'shared.down', 'expert.down'];

const plainRole = (role: string): string => role.replace(/^expert\.\d+\./, 'expert.');

/**
 * Plans the fusion of a model; reads norms and nothing else.
 * @throws InputError naming the architecture and why no exact plan exists ("rotation plan unknown for architecture X;
 * use --rotation stored"), and when the head must stay tied
 */
export function planFusion(files: ModelFiles, options: FusionOptions): FusionPlan {
  const { description: model, weights } = files;
  const settings = {
    residual: options.residual ?? true,
    values: options.values ?? true,
    foldNorms: (options.residual ?? true) || (options.foldNorms ?? true),
  };
  checkArchitecture(files, settings.residual);
  if (model.tiedHead && settings.foldNorms && options.keepTied) {
    throw new InputError(
      `${files.path}: the head shares the embedding matrix, and folding the final norm makes the two different: ` +
        'drop the wish to keep them tied, or use --rotation stored',
    );
  }
  const reader = createWeightReader(1);
  const rotations = new Map<RotationKey, FusedRotation>();
  if (settings.residual) rotations.set('residual', residualRotation(files, options.seed));
  const notes = new Set<string>();
  const parts = new Map<string, FusedPart[]>();
  const builder: Builder = { files, reader, settings, rotations, parts, seed: options.seed, notes };
  const untiedHead = model.tiedHead && settings.foldNorms ? untiedHeadName(files) : undefined;
  planEnds(builder, untiedHead);
  weights.layers.forEach((layer, index) => {
    planLayer(builder, model.layers[index], layer, index);
  });
  return {
    modelType: model.modelType,
    seed: options.seed,
    rotations,
    tensors: gatherTensors(parts),
    ...(untiedHead !== undefined && { untiedHead }),
    notes: [...notes],
  };
}

interface Settings {
  readonly residual: boolean;
  readonly values: boolean;
  readonly foldNorms: boolean;
}

interface Builder {
  readonly files: ModelFiles;
  readonly reader: WeightReader;
  readonly settings: Settings;
  readonly rotations: Map<RotationKey, FusedRotation>;
  /** By the name of the tensor that they will be in. */
  readonly parts: Map<string, FusedPart[]>;
  readonly seed: bigint;
  readonly notes: Set<string>;
}

function unknownPlan(files: ModelFiles, why: string): InputError {
  return new InputError(
    `${files.path}: rotation plan unknown for architecture ${files.description.modelType}: ${why}; use --rotation stored`,
  );
}

function checkArchitecture(files: ModelFiles, residual: boolean): void {
  const { description: model, store } = files;
  if (!RECOGNISED.has(model.modelType)) {
    throw unknownPlan(files, 'its paths to the residual stream have not been compared');
  }
  if (!residual) return;
  const tower = [...store.tensors.keys()].find((name) =>
    /(vision_tower|vision_model|multi_modal_projector)\./.test(name),
  );
  if (tower !== undefined) {
    throw unknownPlan(files, `tensor "${tower}" belongs to a part that writes to the residual stream unrotated`);
  }
  if (!model.layers.some((layer) => layer.branchNorms)) return;
  const reader = createWeightReader(1);
  files.weights.layers.forEach((layer, index) => {
    for (const role of ['attn_post_norm', 'mlp_post_norm']) {
      const weight = layer.get(role);
      if (weight === undefined || isConstant(readVector(reader, weight))) continue;
      throw unknownPlan(
        files,
        `the norm after the branch ("${weight.tensor.name}", layer ${index}) has weights that differ between ` +
          'coordinates of the residual stream, and nothing linear follows into which they could be folded',
      );
    }
  });
}

function isConstant(values: Float64Array): boolean {
  return values.every((value) => value === values[0]);
}

function readVector(reader: WeightReader, weight: StoredWeight): Float64Array {
  const values = new Float64Array(elementCount(weight.shape));
  reader.read(rawWeight(weight), values);
  return values;
}

/** The weight as it is stored: rows that GGUF permutes stay permuted. */
function rawWeight(weight: StoredWeight): StoredWeight {
  const { store, tensor, start, byteLength, shape } = weight;
  return { store, tensor, start, byteLength, shape };
}

function residualRotation(files: ModelFiles, seed: bigint): FusedRotation {
  const { hiddenSize, norm } = files.description;
  const rotation = planRotation(hiddenSize, tensorSeed(seed, 'residual'));
  if (rotation.kind === 'none') throw unknownPlan(files, `its width ${hiddenSize} is odd and has no rotation`);
  if (norm.kind === 'rms') return { rotation, width: hiddenSize };
  return { rotation, width: hiddenSize, reflection: reflectionToConstant(rotation, hiddenSize) };
}

/** Unit normal v of the Householder reflection that takes Q e to e, with e = (1, ..., 1) / sqrt(n). */
function reflectionToConstant(rotation: Rotation, width: number): Float64Array {
  const normal = new Float64Array(width).fill(1 / Math.sqrt(width));
  rotateRows(normal, 1, rotation, 'forward');
  let square = 0;
  for (let i = 0; i < width; i++) {
    normal[i] -= 1 / Math.sqrt(width);
    square += normal[i] ** 2;
  }
  return square === 0 ? normal : normal.map((value) => value / Math.sqrt(square));
}

function valueRotation(builder: Builder, attention: AttentionDescription, index: number): RotationKey | undefined {
  const { settings, rotations, notes } = builder;
  if (!settings.values) return undefined;
  if (attention.clip !== undefined) {
    notes.add('values are clamped before they are mixed: no rotation of the heads');
    return undefined;
  }
  const key: RotationKey = `layer.${index}.values`;
  const rotation = planRotation(attention.headDim, tensorSeed(builder.seed, key));
  if (rotation.kind === 'none') {
    notes.add(`a head of ${attention.headDim} values has no rotation`);
    return undefined;
  }
  rotations.set(key, { rotation, width: attention.headDim });
  return key;
}

/** The norm of a layer (or the last one): what it multiplies by, and what LayerNorm adds. */
interface Fold {
  readonly factors: Float64Array;
  readonly bias?: Float64Array;
}

function readFold(builder: Builder, weight: StoredWeight, bias: StoredWeight | undefined): Fold {
  const { norm } = builder.files.description;
  const stored = readVector(builder.reader, weight);
  const factors = norm.plusOne ? stored.map((value) => 1 + value) : stored;
  return { factors, ...(bias && { bias: readVector(builder.reader, bias) }) };
}

function planEnds(builder: Builder, untiedHead: string | undefined): void {
  const { files, settings } = builder;
  const { description: model, weights } = files;
  const steps: FusionStep[] = [];
  if (model.norm.kind === 'layer' && settings.residual) steps.push({ kind: 'center-columns' });
  if (settings.residual) steps.push({ kind: 'rotate-columns', rotation: 'residual' });
  // Embeddings are rows of the residual stream in every layout.
  const lookup = (weight: StoredWeight): void => addMatrix(builder, weight, steps, { turned: false });
  if (steps.length > 0) {
    lookup(weights.embedding);
    if (weights.positions) lookup(weights.positions);
  }
  if (!settings.foldNorms) return;
  const fold = readFold(builder, weights.finalNorm, weights.finalNormBias);
  addNorm(builder, weights.finalNorm, weights.finalNormBias, fold, false);
  addMatrix(builder, weights.head, readerSteps(builder, fold), { turned: false, name: untiedHead });
}

/** W <- W diag(g) R^T. */
function readerSteps(builder: Builder, fold: Fold | undefined): FusionStep[] {
  const steps: FusionStep[] = [];
  if (fold) steps.push({ kind: 'scale-columns', factors: fold.factors });
  if (builder.settings.residual) steps.push({ kind: 'rotate-columns', rotation: 'residual' });
  return steps;
}

/** W <- R W, before it the mean of the outputs removed where LayerNorm would remove it. */
function writerSteps(builder: Builder): FusionStep[] {
  if (!builder.settings.residual) return [];
  const steps: FusionStep[] = [{ kind: 'rotate-rows', rotation: 'residual' }];
  return builder.files.description.norm.kind === 'layer' ? [{ kind: 'center-rows' }, ...steps] : steps;
}

function planLayer(
  builder: Builder,
  layer: LayerDescription,
  weights: ReadonlyMap<string, StoredWeight>,
  index: number,
): void {
  const values = valueRotation(builder, layer.attention, index);
  const matrices = [...weights].filter(([role]) => !/(_bias|_norm)$/.test(role));
  for (const [norm, readers] of [
    ['attn_norm', ATTENTION_READERS],
    ['mlp_norm', MLP_READERS],
  ] as const) {
    const read = matrices.filter(([role]) => readers.includes(plainRole(role)));
    planReaders(builder, weights, norm, read, layer.attention, values);
  }
  const turned = writerSteps(builder);
  for (const [role, weight] of matrices) {
    if (!WRITERS.includes(plainRole(role))) continue;
    const mixed: FusionStep[] =
      role === 'o' && values !== undefined ? [{ kind: 'rotate-column-blocks', rotation: values }] : [];
    addMatrix(builder, weight, [...mixed, ...turned]);
    const bias = weights.get(`${role}_bias`);
    if (bias) addVector(builder, bias, turned);
  }
}

function planReaders(
  builder: Builder,
  weights: ReadonlyMap<string, StoredWeight>,
  norm: string,
  readers: readonly (readonly [string, StoredWeight])[],
  attention: AttentionDescription,
  values: RotationKey | undefined,
): void {
  const normWeight = weights.get(norm);
  const normBias = weights.get(`${norm}_bias`);
  if (!normWeight) throw unknownPlan(builder.files, `a layer has no "${norm}"`);
  const fold = builder.settings.foldNorms ? readFold(builder, normWeight, normBias) : undefined;
  // What LayerNorm adds goes into the biases of the readers where all have one, else it stays in the norm.
  const transposed = builder.files.description.linearLayout === 'in-out';
  const movesBias = readers.every(([role]) => weights.has(`${role}_bias`));
  if (fold) addNorm(builder, normWeight, normBias, fold, movesBias);
  for (const [role, weight] of readers) {
    const byHead = valueSteps(role, attention, values);
    addMatrix(builder, weight, [...readerSteps(builder, fold), ...byHead]);
    const bias = weights.get(`${role}_bias`);
    if (!bias) continue;
    const added: FusionStep[] =
      fold?.bias && movesBias
        ? [{ kind: 'add-product', matrix: rawWeight(weight), transposed, factors: fold.bias }]
        : [];
    addVector(builder, bias, [...added, ...byHead]);
  }
}

/** Rows of the values in the matrix of a role: one block a head. */
function valueSteps(role: string, attention: AttentionDescription, rotation: RotationKey | undefined): FusionStep[] {
  if (rotation === undefined || (role !== 'v' && role !== 'qkv')) return [];
  const { heads, kvHeads, headDim } = attention;
  const byHead = attention.projection === 'fused-by-head';
  const first = role === 'v' ? 0 : byHead ? 2 * headDim : (heads + kvHeads) * headDim;
  const step = role === 'qkv' && byHead ? 3 * headDim : headDim;
  const firstRows = Array.from({ length: kvHeads }, (_, head) => first + head * step);
  return [{ kind: 'rotate-row-blocks', rotation, firstRows }];
}

/** The norm's weight becomes one (zero where it stands for 1 + w), its bias zero or, rotated, what the readers lack. */
function addNorm(
  builder: Builder,
  weight: StoredWeight,
  bias: StoredWeight | undefined,
  fold: Fold,
  movesBias: boolean,
): void {
  const { files, rotations } = builder;
  const neutral = files.description.norm.plusOne ? 0 : 1;
  const width = fold.factors.length;
  addVector(builder, weight, [{ kind: 'set', values: new Float64Array(width).fill(neutral) }]);
  if (!bias || !fold.bias) return;
  const kept = new Float64Array(width);
  if (!movesBias) {
    const { factors, bias: added } = fold;
    for (let i = 0; i < width; i++) {
      if (added[i] === 0) continue;
      if (factors[i] === 0) {
        throw unknownPlan(
          files,
          `"${weight.tensor.name}" is zero at coordinate ${i} where "${bias.tensor.name}" is not, and what follows has ` +
            'no bias to take it',
        );
      }
      kept[i] = added[i] / factors[i];
    }
    const rotation = rotations.get('residual');
    if (rotation) applyRotation(rotation, kept, 1);
  }
  addVector(builder, bias, [{ kind: 'set', values: kept }]);
}

/** Every row x of [count, width] becomes R x, in place. */
export function applyRotation(
  { rotation, reflection, width }: FusedRotation,
  rows: Float64Array,
  count: number,
  threads = 1,
): void {
  rotateRows(rows, count, rotation, 'forward', threads);
  if (!reflection) return;
  for (let r = 0; r < count; r++) {
    const row = rows.subarray(r * width, (r + 1) * width);
    let along = 0;
    for (let i = 0; i < width; i++) along += reflection[i] * row[i];
    for (let i = 0; i < width; i++) row[i] -= 2 * along * reflection[i];
  }
}

function addMatrix(
  builder: Builder,
  weight: StoredWeight,
  steps: readonly FusionStep[],
  { turned = true, name }: { readonly turned?: boolean; readonly name?: string | undefined } = {},
): void {
  const transposed = turned && builder.files.description.linearLayout === 'in-out';
  const [first, second] = weight.shape;
  const [rows, columns] = transposed ? [second, first] : [first, second];
  addPart(builder, { weight: rawWeight(weight), rows, columns, transposed, steps }, name);
}

function addVector(builder: Builder, weight: StoredWeight, steps: readonly FusionStep[]): void {
  const rows = elementCount(weight.shape);
  addPart(builder, { weight: rawWeight(weight), rows, columns: 1, transposed: false, steps });
}

function addPart({ parts }: Builder, part: FusedPart, name = part.weight.tensor.name): void {
  if (part.steps.length === 0) return;
  const together = parts.get(name);
  if (together) together.push(part);
  else parts.set(name, [part]);
}

function gatherTensors(parts: ReadonlyMap<string, readonly FusedPart[]>): Map<string, FusedTensor> {
  const tensors = new Map<string, FusedTensor>();
  for (const [name, members] of parts) {
    const ordered = [...members].sort((a, b) => a.weight.start - b.weight.start);
    const source = ordered[0].weight.tensor;
    const covered = ordered.reduce((sum, { weight }) => sum + weight.byteLength, 0);
    if (covered !== source.byteLength) throw new RangeError(`parts of "${name}" do not cover it`);
    tensors.set(name, { name, shape: source.shape, source, parts: ordered });
  }
  return tensors;
}

function untiedHeadName(files: ModelFiles): string {
  const stored = files.weights.embedding.tensor.name;
  if (files.format === 'gguf') return GGUF_NAMES.head[0];
  const names = huggingFaceNames(files.description.modelType);
  const rename = HUGGING_FACE_RENAMINGS.find((candidate) => names.embedding.some((name) => candidate(name) === stored));
  return rename ? rename(names.head[0]) : names.head[0];
}
