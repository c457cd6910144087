import {
  type GraphProto,
  type NodeProto,
  type TensorProto,
  TensorProto_DataType,
  type ValueInfoProto,
} from './onnx_pb.js';
import { attribute } from './onnx-attributes.js';

/** One place where a tensor is read; `input` is -1 where a subgraph of the node captures it. */
export interface TensorUse {
  readonly node: NodeProto;
  readonly input: number;
}

/** A graph with the edges of its tensors. It shows the graph as it was when it was indexed. */
export interface OnnxGraph {
  readonly proto: GraphProto;
  /** The node that writes a tensor; undefined for graph inputs, initializers and unknown names. */
  producer(tensor: string): NodeProto | undefined;
  uses(tensor: string): readonly TensorUse[];
  initializer(name: string): TensorProto | undefined;
  /** Tensors whose values depend on those of `tensors`, themselves included; shapes taken from them do not count. */
  dependents(...tensors: readonly string[]): ReadonlySet<string>;
  /** Tensors whose values decide those of `tensor`, itself included. */
  ancestors(tensor: string): ReadonlySet<string>;
  /** `TensorProto.DataType` of a tensor: declared, or followed back through its producers; 0 when unknown. */
  elementType(tensor: string): number;
  /** Declared dimensions: numbers, names, or undefined for an unnamed dynamic one; undefined without a declaration. */
  declaredShape(tensor: string): readonly (number | string | undefined)[] | undefined;
  /** A name that no tensor and no node has, made from `wanted`. It counts as taken from then on. */
  freshName(wanted: string): string;
}

/** Outputs that carry a shape or a count, not values. */
const SHAPE_ONLY = new Set(['Shape', 'Size']);

const INTEGER_RESULTS = new Set(['Shape', 'Size', 'NonZero', 'ArgMax', 'ArgMin']);
const BOOLEAN_RESULTS = new Set(['Equal', 'Less', 'LessOrEqual', 'Greater', 'GreaterOrEqual', 'And', 'Or', 'Not']);
/** Operators whose result has the type of another input than the first. */
const TYPED_BY: Readonly<Record<string, number>> = {
  Where: 1,
  CastLike: 1,
  DequantizeLinear: 1,
  GatherBlockQuantized: 2,
  DequantizeBFP: 1,
};

/** Indexes a graph. Subgraphs of its nodes count as readers of what they capture; their insides are not indexed. */
export function indexOnnxGraph(proto: GraphProto): OnnxGraph {
  const producers = new Map<string, NodeProto>();
  const uses = new Map<string, TensorUse[]>();
  const names = new Set<string>(proto.input.map(({ name }) => name));
  const addUse = (tensor: string, use: TensorUse): void => {
    const known = uses.get(tensor);
    if (known) known.push(use);
    else uses.set(tensor, [use]);
  };
  for (const node of proto.node) {
    names.add(node.name);
    for (const output of node.output) {
      if (output === '') continue;
      producers.set(output, node);
      names.add(output);
    }
    node.input.forEach((tensor, input) => {
      if (tensor === '') return;
      addUse(tensor, { node, input });
      names.add(tensor);
    });
    for (const tensor of capturedBy(node)) addUse(tensor, { node, input: -1 });
  }
  const initializers = new Map(proto.initializer.map((tensor) => [tensor.name, tensor]));
  for (const name of initializers.keys()) names.add(name);
  const declared = new Map<string, ValueInfoProto>();
  for (const info of [...proto.valueInfo, ...proto.output, ...proto.input]) declared.set(info.name, info);
  const types = new Map<string, number>();

  const elementType = (tensor: string): number => {
    const known = types.get(tensor);
    if (known !== undefined) return known;
    types.set(tensor, TensorProto_DataType.UNDEFINED); // Ends a walk round a malformed graph's cycle.
    const type = ownType(declared.get(tensor)) || initializers.get(tensor)?.dataType || producedType(tensor);
    types.set(tensor, type);
    return type;
  };

  const producedType = (tensor: string): number => {
    const node = producers.get(tensor);
    if (!node) return TensorProto_DataType.UNDEFINED;
    const { opType } = node;
    if (opType === 'Cast') return Number(attribute(node, 'to')?.i ?? 0n);
    if (INTEGER_RESULTS.has(opType)) return TensorProto_DataType.INT64;
    if (BOOLEAN_RESULTS.has(opType)) return TensorProto_DataType.BOOL;
    if (opType === 'Constant' || opType === 'ConstantOfShape') return constantType(node);
    const from = node.input[TYPED_BY[opType] ?? 0] || node.input.find((name) => name !== '');
    return from === undefined ? TensorProto_DataType.UNDEFINED : elementType(from);
  };

  return {
    proto,
    producer: (tensor) => producers.get(tensor),
    uses: (tensor) => uses.get(tensor) ?? [],
    initializer: (name) => initializers.get(name),
    elementType,
    dependents(...tensors) {
      const reached = new Set(tensors);
      const waiting = [...tensors];
      for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
        for (const { node } of uses.get(next) ?? []) {
          if (SHAPE_ONLY.has(node.opType)) continue;
          for (const output of node.output) {
            if (output === '' || reached.has(output)) continue;
            reached.add(output);
            waiting.push(output);
          }
        }
      }
      return reached;
    },
    ancestors(tensor) {
      const reached = new Set([tensor]);
      const waiting = [tensor];
      for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
        const node = producers.get(next);
        if (!node || SHAPE_ONLY.has(node.opType)) continue;
        for (const input of readBy(node)) {
          if (input === '' || reached.has(input)) continue;
          reached.add(input);
          waiting.push(input);
        }
      }
      return reached;
    },
    declaredShape(tensor) {
      const type = declared.get(tensor)?.type?.value;
      if (type?.case !== 'tensorType') return undefined;
      return type.value.shape?.dim.map(({ value }) => {
        if (value.case === 'dimValue') return Number(value.value);
        return value.case === 'dimParam' && value.value !== '' ? value.value : undefined;
      });
    },
    freshName(wanted) {
      let name = wanted;
      for (let n = 1; names.has(name); n++) name = `${wanted}_${n}`;
      names.add(name);
      return name;
    },
  };
}

function ownType(info: ValueInfoProto | undefined): number {
  const type = info?.type?.value;
  return type?.case === 'tensorType' ? type.value.elemType : TensorProto_DataType.UNDEFINED;
}

function constantType(node: NodeProto): number {
  const value = attribute(node, 'value')?.t;
  if (value) return value.dataType;
  if (node.opType === 'ConstantOfShape' || attribute(node, 'value_float') || attribute(node, 'value_floats')) {
    return TensorProto_DataType.FLOAT;
  }
  return TensorProto_DataType.INT64;
}

/** Tensors that a node reads, those that its subgraphs capture included. */
export const readBy = (node: NodeProto): string[] => [...node.input, ...capturedBy(node)];

/** Tensors of the outer graph that the subgraphs of a node read. */
export function capturedBy(node: NodeProto): string[] {
  const captured: string[] = [];
  for (const { g, graphs } of node.attribute) {
    for (const graph of g ? [g, ...graphs] : graphs) captured.push(...freeNames(graph));
  }
  return captured;
}

function freeNames(graph: GraphProto): string[] {
  const own = new Set([...graph.input, ...graph.initializer].map(({ name }) => name));
  for (const node of graph.node) for (const output of node.output) own.add(output);
  const read = graph.node.flatMap((node) => [...node.input, ...capturedBy(node)]);
  read.push(...graph.output.map(({ name }) => name));
  return [...new Set(read)].filter((name) => name !== '' && !own.has(name));
}
