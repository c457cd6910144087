import type { AttributeProto, ModelProto, NodeProto } from '../../formats/onnx_pb.js';
import type { AttributeValue } from '../../formats/onnx-attributes.js';
import type { Precision } from '../types.js';

export type { AttributeValue };

/** What a rule may ask and write while it differentiates one node. Tensors are value names. */
export interface RuleContext {
  readonly node: NodeProto;
  /** Version of the node's operator set. */
  readonly opset: number;
  readonly precision: Precision;
  /** Inputs and outputs by position; '' where left out. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** Cotangent of each output; undefined stands for zero. */
  readonly cotangents: readonly (string | undefined)[];
  /** Whether the gradient of this input is wanted. */
  needs(input: number): boolean;
  /** Extents on the example batch. Only the rank, and which extents are 1, may decide what is written. */
  dims(tensor: string): readonly number[];
  /** Integers of a tensor that does not depend on the data (initializer, Constant, folded); undefined otherwise. */
  constantIntegers(tensor: string): readonly number[] | undefined;
  /** Floats of such a tensor. */
  constantFloats(tensor: string): readonly number[] | undefined;
  /** `TensorProto.DataType` of a tensor of the graph; 0 where it is not known. */
  elementType(tensor: string): number;
  attribute(name: string): AttributeProto | undefined;
  intAttribute(name: string, fallback: number): number;
  intsAttribute(name: string): readonly number[] | undefined;
  floatAttribute(name: string, fallback: number): number;
  stringAttribute(name: string, fallback: string): string;
  /** Adds a standard operator to the backward graph and returns the name of its first output. */
  emit(operator: string, inputs: readonly string[], attributes?: Readonly<Record<string, AttributeValue>>): string;
  /** As `emit` with several outputs. */
  emitMany(
    operator: string,
    inputs: readonly string[],
    outputs: number,
    attributes?: Readonly<Record<string, AttributeValue>>,
  ): readonly string[];
  /** An int64 vector (or scalar) constant. */
  integers(values: readonly number[], scalar?: boolean): string;
  /** A floating-point scalar of the graph's precision. */
  scalar(value: number): string;
  /** Int64 vector with the shape of a tensor, at run time. */
  shapeOf(tensor: string): string;
  /** Zeros with the shape of a tensor. */
  zerosLike(tensor: string): string;
  /** The cotangent of an operand that was broadcast to the cotangent's shape: sums the axes away and reshapes. */
  unbroadcast(gradient: string, operand: string): string;
}

/** Cotangents of the inputs by position; undefined where none is needed or it is zero. */
export type VjpRule = (context: RuleContext) => readonly (string | undefined)[];

/** Rules by operator; names of other domains are written `com.microsoft::Name`. */
export type RuleTable = Readonly<Record<string, VjpRule>>;

/** Writes a compound operator in elementary ones, or returns undefined to leave the node as it is. */
export type Decomposition = (context: DecompositionContext) => boolean;

/** As `RuleContext`, for nodes of the forward graph: the last emitted values must take the node's output names. */
export interface DecompositionContext
  extends Omit<RuleContext, 'cotangents' | 'needs' | 'unbroadcast' | 'dims' | 'zerosLike'> {
  /** Rank of a tensor, where it is known before the graph has run. */
  rank(tensor: string): number | undefined;
  /** Gives a value the name of output `index`. */
  define(index: number, value: string): void;
}

export interface DifferentiateRequest {
  readonly model: ModelProto;
  /** Inputs or initializers whose gradients are wanted. */
  readonly wanted: readonly string[];
  /** Outputs that get a cotangent, an input `grad.<output>` of the backward graph. */
  readonly seeds: readonly string[];
  readonly precision: Precision;
  /** Saved tensors of the forward pass, or none: the backward graph then computes the forward pass again. */
  readonly recompute?: boolean;
  /** Rounding and quantisation pass the cotangent on as if they were the identity; an error otherwise. */
  readonly straightThrough?: boolean;
}

/** A tensor that the forward graph gives and the backward graph takes. */
export interface SavedTensor {
  readonly name: string;
  /** `TensorProto.DataType`. */
  readonly elementType: number;
}

export interface Differentiated {
  /** Inputs of the model and `wanted`; outputs of the model and the saved tensors. */
  readonly forward: ModelProto;
  /** Inputs `grad.<seed>`, saved tensors, and what it needs of inputs and weights; outputs `grad.<wanted>`. */
  readonly backward: ModelProto;
  readonly saved: readonly SavedTensor[];
  /** Wanted tensors that no seed depends on: their gradient is zero and no output. */
  readonly unreached: readonly string[];
}
