import { create, toBinary } from '@bufbuild/protobuf';
import {
  GraphProtoSchema,
  ModelProtoSchema,
  type NodeProto,
  NodeProtoSchema,
  OperatorSetIdProtoSchema,
  type TensorProto,
  TensorProto_DataType,
  TensorProtoSchema,
  type ValueInfoProto,
  ValueInfoProtoSchema,
} from '../formats/onnx_pb.js';
import { type AttributeValue, attributeOf } from '../formats/onnx-attributes.js';

/** Element types that graphs of this project use. */
export type GraphType = 'f32' | 'f64' | 'i32' | 'i64' | 'u8' | 'bool';

/** A dimension: an extent, a symbolic name, or unknown. */
export type Dimension = number | string | null;

export type { AttributeValue };

const DATA_TYPE: Readonly<Record<GraphType, TensorProto_DataType>> = {
  f32: TensorProto_DataType.FLOAT,
  f64: TensorProto_DataType.DOUBLE,
  i32: TensorProto_DataType.INT32,
  i64: TensorProto_DataType.INT64,
  u8: TensorProto_DataType.UINT8,
  bool: TensorProto_DataType.BOOL,
};

const OPSET = 23n;
const IR_VERSION = 10n;

function valueInfo(name: string, type: GraphType, dims: readonly Dimension[] | undefined): ValueInfoProto {
  const shape = dims && {
    dim: dims.map((extent) => ({
      value:
        typeof extent === 'number'
          ? ({ case: 'dimValue', value: BigInt(extent) } as const)
          : typeof extent === 'string'
            ? ({ case: 'dimParam', value: extent } as const)
            : ({ case: undefined } as const),
    })),
  };
  return create(ValueInfoProtoSchema, {
    name,
    type: { value: { case: 'tensorType', value: { elemType: DATA_TYPE[type], ...(shape && { shape }) } } },
  });
}

/** Options of one node. */
export interface NodeOptions {
  readonly domain?: 'com.microsoft';
  readonly attributes?: Readonly<Record<string, AttributeValue>>;
  /** Names of the outputs; an empty string leaves one out. A fresh name when absent. */
  readonly outputs?: readonly string[];
}

/** Composes one ONNX graph. Functions that build parts of a model take and return value names. */
export interface GraphComposer {
  /** Floating-point type of weights and activations. */
  readonly float: 'f32' | 'f64';
  input(name: string, type: GraphType, dims: readonly Dimension[]): string;
  output(name: string, type: GraphType, dims?: readonly Dimension[]): void;
  /** Adds a node and returns the name of its first output. */
  node(operator: string, inputs: readonly string[], options?: NodeOptions): string;
  /** An int64 vector known when the graph is built. */
  integers(values: readonly number[], scalar?: boolean): string;
  /** A floating-point scalar of the graph's type. */
  scalar(value: number): string;
  /** A constant tensor of the graph's type under a name of its own; the same name gives the same constant. */
  floats(name: string, values: ArrayLike<number>, dims: readonly number[]): string;
  /** Gives the value a public name and makes it an output. */
  publish(value: string, name: string, dims?: readonly Dimension[]): void;
  /** Serialised ModelProto, opset 23. */
  encode(): Uint8Array;
}

/** Starts an empty graph. */
export function composeGraph(name: string, float: 'f32' | 'f64'): GraphComposer {
  const nodes: NodeProto[] = [];
  const inputs: ValueInfoProto[] = [];
  const outputs: ValueInfoProto[] = [];
  const constants: TensorProto[] = [];
  const known = new Map<string, string>();
  let fresh = 0;

  const composer: GraphComposer = {
    float,
    input(inputName, type, dims) {
      if (!known.has(inputName)) {
        known.set(inputName, inputName);
        inputs.push(valueInfo(inputName, type, dims));
      }
      return inputName;
    },
    output(outputName, type, dims) {
      outputs.push(valueInfo(outputName, type, dims));
    },
    node(operator, nodeInputs, options = {}) {
      const made = options.outputs ?? [`t${fresh++}`];
      nodes.push(
        create(NodeProtoSchema, {
          opType: operator,
          domain: options.domain ?? '',
          name: `n${nodes.length}_${operator}`,
          input: [...nodeInputs],
          output: [...made],
          attribute: Object.entries(options.attributes ?? {}).map(([key, value]) => attributeOf(key, value)),
        }),
      );
      return made[0];
    },
    integers(values, scalar = false) {
      const key = `i64${scalar ? 's' : ''}:${values.join(',')}`;
      const existing = known.get(key);
      if (existing !== undefined) return existing;
      const constant = `c${constants.length}`;
      constants.push(
        create(TensorProtoSchema, {
          name: constant,
          dataType: TensorProto_DataType.INT64,
          dims: scalar ? [] : [BigInt(values.length)],
          int64Data: values.map(BigInt),
        }),
      );
      known.set(key, constant);
      return constant;
    },
    scalar(value) {
      const key = `float:${value}`;
      const existing = known.get(key);
      if (existing !== undefined) return existing;
      const constant = `c${constants.length}`;
      constants.push(
        create(TensorProtoSchema, {
          name: constant,
          dataType: DATA_TYPE[float],
          dims: [],
          ...(float === 'f32' ? { floatData: [value] } : { doubleData: [value] }),
        }),
      );
      known.set(key, constant);
      return constant;
    },
    floats(name, values, dims) {
      const key = `floats:${name}`;
      const existing = known.get(key);
      if (existing !== undefined) return existing;
      const constant = `c${constants.length}`;
      const data = float === 'f32' ? Float32Array.from(values) : Float64Array.from(values);
      constants.push(
        create(TensorProtoSchema, {
          name: constant,
          dataType: DATA_TYPE[float],
          dims: dims.map(BigInt),
          rawData: new Uint8Array(data.buffer),
        }),
      );
      known.set(key, constant);
      return constant;
    },
    publish(value, publicName, dims) {
      composer.node('Identity', [value], { outputs: [publicName] });
      composer.output(publicName, float, dims);
    },
    encode() {
      const model = create(ModelProtoSchema, {
        irVersion: IR_VERSION,
        producerName: 'surprisal',
        opsetImport: [
          create(OperatorSetIdProtoSchema, { domain: '', version: OPSET }),
          create(OperatorSetIdProtoSchema, { domain: 'com.microsoft', version: 1n }),
        ],
        graph: create(GraphProtoSchema, { name, node: nodes, input: inputs, output: outputs, initializer: constants }),
      });
      return toBinary(ModelProtoSchema, model);
    },
  };
  return composer;
}

/**
 * A composer of the same graph in which some inputs are values that are already there.
 * @param prefix of the names of its constants, which another part of the graph may call the same
 * @param bound value of an input by its name; undefined makes it an input of the graph
 */
export function bindInputs(
  g: GraphComposer,
  prefix: string,
  bound: (name: string) => string | undefined,
): GraphComposer {
  return {
    ...g,
    input: (name, type, dims) => bound(name) ?? g.input(name, type, dims),
    floats: (name, values, dims) => g.floats(`${prefix}${name}`, values, dims),
  };
}
