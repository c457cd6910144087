import type { DType } from '../../formats/tensor.js';

/** Element types that merge methods read and write; a source widens all others (F8, integers, GGUF blocks) to F32. */
export type MergeDType = Extract<DType, 'F64' | 'F32' | 'F16' | 'BF16'>;

/** Stored bytes of a tensor, or of whole rows of one: little-endian, row-major, `elementCount(shape)` elements. */
export interface TensorBytes {
  readonly dtype: MergeDType;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** What a parameter of a method may be once it is resolved for a tensor. */
export type ParameterValue = number | boolean | string;

export interface ParameterDeclaration {
  /** As mergekit's YAML writes it, or ours where mergekit has none. */
  readonly name: string;
  readonly kind: 'number' | 'integer' | 'boolean' | 'string';
  /** Absent: without a value the parameter is undefined. */
  readonly default?: ParameterValue;
  /** An error without a value; never required of the base model. */
  readonly required?: boolean;
  /** Values of a `string`. */
  readonly choices?: readonly string[];
  /** Inclusive bounds of a number. */
  readonly minimum?: number;
  readonly maximum?: number;
  readonly summary: string;
}

/** One model's part in a tensor of the output. */
export interface MergeInput {
  /** The model's reference as the configuration writes it: names it in messages and keys its random masks. */
  readonly model: string;
  readonly isBase: boolean;
  readonly tensor: TensorBytes;
  /** Resolved parameters of this model. */
  readonly parameters: Readonly<Record<string, ParameterValue | undefined>>;
}

/** `surprisal`: the specification's defaults. `mergekit`: its habits where they differ. */
export type MergeVariant = 'surprisal' | 'mergekit';

/** A tensor (or rows of it, see {@link MergeSpan}) to be merged. */
export interface MergeTask {
  /** Name in the output. */
  readonly name: string;
  /** Inputs in the order of the configuration, base included where there is one; all of one shape. */
  readonly inputs: readonly MergeInput[];
  /** Resolved parameters that belong to no model. */
  readonly parameters: Readonly<Record<string, ParameterValue | undefined>>;
  /** Filled by the method. Its bytes are the result; rounding happens once, here. */
  readonly output: TensorBytes;
  /** Index of the first element of these rows in the whole tensor: random masks are functions of the whole's index. */
  readonly firstElement: number;
  readonly seed: number;
  readonly threads: number;
  readonly variant: MergeVariant;
  /** Of a method with a survey: the sum of what the tensors of this tensor's group measured. */
  readonly surveyed?: Float64Array;
}

/** What a method found; the machinery reports it per tensor. */
export interface MergeOutcome {
  /** Weight with which each input went in, in the order of the inputs; absent where a method has none. */
  readonly weights?: readonly number[];
  /** Share of each input's elements that were kept, in the order of the inputs. */
  readonly keptDensity?: readonly number[];
  /** Smallest |divisor| met, and the sum of |weights| beside it. */
  readonly smallestDivisor?: number;
  /** Other figures worth a column: angle in radians, interpolation factor, iterations ... */
  readonly figures?: Readonly<Record<string, number>>;
  /** Sentences without the tensor's name; the machinery adds it and counts repetitions. */
  readonly warnings?: readonly string[];
}

/**
 * How much of a tensor a method must see at a time: an `element` method may be given any rows, a `row` method whole rows
 * (all but the last axis flattened), a `tensor` method everything.
 */
export type MergeSpan = 'element' | 'row' | 'tensor';

/** What a method must know of other tensors before it merges one: sums over groups of tensors, from a pass of their own. */
export interface MergeSurvey {
  /** The group that a tensor belongs to; undefined: it needs no sums and is not measured. */
  readonly group: (
    tensor: { readonly name: string; readonly layer?: number },
    parameters: Readonly<Record<string, ParameterValue | undefined>>,
  ) => string | undefined;
  /** What a whole tensor adds to its group, a vector of one length throughout; `task.output` is not written. */
  readonly measure: (task: MergeTask) => Float64Array;
}

/** A way to merge tensors. The machinery knows methods by this alone. */
export interface MergeMethod {
  /** As `merge_method` in a YAML. */
  readonly name: string;
  readonly summary: string;
  /** Paper, year, section. */
  readonly reference: string;
  /** Whether a base model must, may or must not be named; an `optional` base is given as an input with `isBase`. */
  readonly base: 'required' | 'optional' | 'none';
  /** How many models besides the base (for `slerp` besides none: the base is one of its two). */
  readonly models: { readonly least: number; readonly most?: number };
  /** Parameters that every model may have its own value of. */
  readonly perModel: readonly ParameterDeclaration[];
  /** Parameters of the tensor. */
  readonly global: readonly ParameterDeclaration[];
  /** A task-vector method: an input whose shape differs from the base's is left out (tensors) or cut (embeddings). */
  readonly taskVectors: boolean;
  /** Whether random numbers decide the result. */
  readonly random?: boolean;
  readonly span: (parameters: Readonly<Record<string, ParameterValue | undefined>>) => MergeSpan;
  /** Bytes beside inputs and output for `elements` elements and `inputs` inputs; for the plan of memory. */
  readonly workBytes: (elements: number, inputs: number) => number;
  readonly survey?: MergeSurvey;
  /** Fills `task.output`. @throws InputError for parameters that have no result (density 0, weights that sum to 0) */
  readonly merge: (task: MergeTask) => MergeOutcome;
}

/** A model reference: `path[@revision][+lora[@revision]]`, or the mapping of mergekit. */
export interface ModelReference {
  /** As the configuration writes it, one text for one model. */
  readonly text: string;
  readonly model: string;
  readonly revision?: string;
  readonly lora?: string;
  readonly loraRevision?: string;
  /** `override_architecture`: the name that takes the place of the config's when architectures are compared. */
  readonly architecture?: string;
}

/** Where an input tensor of an output tensor is found. */
export interface PlannedInput {
  /** Index into {@link MergePlan.models}. */
  readonly model: number;
  /** Name in that model. */
  readonly tensor: string;
  readonly parameters: Readonly<Record<string, ParameterValue | undefined>>;
}

/** A tensor of the output with every parameter resolved. */
export interface PlannedTensor {
  readonly name: string;
  /** 0-based layer of the output; absent outside layers. */
  readonly layer?: number;
  /** `self_attn.q_proj.weight`: the name within its layer, or the whole name outside layers. */
  readonly module: string;
  /** Rows are tokens: input embeddings and heads. */
  readonly vocabulary: boolean;
  readonly inputs: readonly PlannedInput[];
  /** Index into `inputs` of the base model (a slice may have its own); absent where the method is given none. */
  readonly base?: number;
  /** The one input is taken as it is, rounded to `dtype`, and the method is not asked: a tensor that only one model has. */
  readonly copied?: boolean;
  readonly parameters: Readonly<Record<string, ParameterValue | undefined>>;
  /** Of the output; where an input has more rows, its first ones are meant. */
  readonly shape: readonly number[];
  readonly dtype: MergeDType;
}

/** A model that gives tensors to a merge: a directory, with an adapter added, on another vocabulary ... */
export interface MergeSource {
  readonly reference: ModelReference;
  /** The directory or file it was found in. */
  readonly path: string;
  readonly tensors: ReadonlyMap<string, SourceTensor>;
  /**
   * Reads rows [from, to) of a tensor (all but the first axis are a row; a scalar has one) into `target`, in the dtype of
   * `tensors`. Reads go on beside kernels: many may be under way.
   * @throws RunError naming file and tensor when bytes are missing
   */
  read(name: string, from: number, to: number, target: Uint8Array): Promise<void>;
  /** Remainder of the place of rows in their file by the blocks of direct transfers, where they are a range of one. */
  phase?(name: string, from: number): number;
  close(): void;
}

export interface SourceTensor {
  readonly dtype: MergeDType;
  readonly shape: readonly number[];
}

/** Where the vocabulary of the output comes from, and what becomes of single tokens. */
export interface TokenizerSettings {
  readonly source: 'union' | 'base' | ModelReference;
  readonly padToMultipleOf?: number;
  /** By token: where its row comes from, and whether models that have the token give up their own row. */
  readonly tokens: ReadonlyMap<string, TokenSettings>;
}

export interface TokenSettings {
  /** `zero`, a model's row of this token, or a model's row of another one. Absent: the default order of sources. */
  readonly source?:
    | { readonly kind: 'zero' }
    | { readonly kind: 'model'; readonly model: ModelReference }
    | {
        readonly kind: 'model_token';
        readonly model: ModelReference;
        readonly token?: string;
        readonly tokenId?: number;
      };
  readonly force: boolean;
}

/** Keys of a config.json with new values; undefined leaves a key out. */
export interface ConfigChanges {
  readonly top: Readonly<Record<string, unknown>>;
  readonly nested: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
}

/** One model to be written, every tensor resolved: what `--dry-run` prints and the executor runs. */
export interface MergePlan {
  /** Of a document in a file of several: other documents name it as a model. */
  readonly name?: string;
  readonly method: MergeMethod;
  readonly models: readonly ModelReference[];
  /** Index into `models`. */
  readonly base?: number;
  /** In the order in which they are written: before the layers, layers, after them. */
  readonly tensors: readonly PlannedTensor[];
  /** Layers of the output. */
  readonly layers: number;
  /** What is new in the output's config.json: keys of the top, and keys of the objects in it. */
  readonly configChanges: ConfigChanges;
  /** Index into `models` of the one whose config.json and small files the output takes over. */
  readonly configFrom: number;
  /** `torch_dtype` of the output's config; absent: as the source says. */
  readonly outDtype?: MergeDType;
  readonly chatTemplate?: string;
  /** Sentences a user should read: tensors left out, shapes cut, layers that repeat. */
  readonly warnings: readonly string[];
}
