import { InputError } from '../../errors.js';
import type { AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto } from '../../formats/onnx_pb.js';
import { attribute, renamedAttribute } from '../../formats/onnx-attributes.js';
import { changedNode, graphOf, onnxNode, withGraph } from '../../formats/onnx-edit.js';
import { capturedBy, indexOnnxGraph } from '../../formats/onnx-graph.js';

/** Functions may call functions; one that calls itself would never end. */
const DEEPEST = 32;

type FreshName = (wanted: string) => string;
const functionKey = (domain: string, name: string, overload: string): string => `${domain}:${name}:${overload}`;

/** Nodes with new names for everything but the tensors that `names` knows. */
function renamedNodes(nodes: readonly NodeProto[], names: Map<string, string>, freshName: FreshName): NodeProto[] {
  for (const node of nodes) {
    for (const output of node.output) if (output !== '' && !names.has(output)) names.set(output, freshName(output));
  }
  const rename = (name: string): string => names.get(name) ?? name;
  return nodes.map((node) => {
    if (node.attribute.some(({ g }) => g !== undefined) && capturedBy(node).some((name) => names.has(name))) {
      throw new InputError(`node "${node.name}": a branch or loop within a function cannot be written out`);
    }
    return changedNode(node, { input: node.input.map(rename), output: node.output.map(rename) });
  });
}

/** Attributes of a function's node with those of the call in the place of references. */
function boundAttributes(node: NodeProto, call: NodeProto, definition: FunctionProto): AttributeProto[] {
  return node.attribute.flatMap((entry) => {
    if (entry.refAttrName === '') return [entry];
    const given =
      attribute(call, entry.refAttrName) ?? definition.attributeProto.find(({ name }) => name === entry.refAttrName);
    return given ? [renamedAttribute(given, entry.name)] : [];
  });
}

function callBody(call: NodeProto, definition: FunctionProto, freshName: FreshName): NodeProto[] {
  const names = new Map<string, string>();
  definition.input.forEach((name, place) => {
    names.set(name, call.input[place] ?? '');
  });
  const copies: NodeProto[] = [];
  const inputs = new Set(definition.input);
  definition.output.forEach((name, place) => {
    const output = call.output[place];
    if (!output) return;
    // An output that is an input, or two outputs that are one tensor, need a node of their own.
    if (inputs.has(name) || names.has(name)) {
      copies.push(onnxNode('Identity', freshName(output), [names.get(name) ?? name], [output]));
    } else {
      names.set(name, output);
    }
  });
  const body = definition.node.map((node) =>
    changedNode(node, { name: `${call.name}/${node.name}`, attribute: boundAttributes(node, call, definition) }),
  );
  return [...renamedNodes(body, names, freshName), ...copies];
}

/** Replaces calls of the model's own functions by their bodies. @throws InputError for functions without an end */
export function inlineFunctions(model: ModelProto): ModelProto {
  if (model.functions.length === 0) return model;
  const known = new Map(model.functions.map((entry) => [functionKey(entry.domain, entry.name, entry.overload), entry]));
  const { freshName } = indexOnnxGraph(graphOf(model));
  const expand = (nodes: readonly NodeProto[], depth: number): NodeProto[] =>
    nodes.flatMap((node) => {
      const definition = known.get(functionKey(node.domain, node.opType, node.overload));
      if (!definition) return [node];
      if (depth > DEEPEST) throw new InputError(`the function ${node.opType} of the model calls itself`);
      return expand(callBody(node, definition, freshName), depth + 1);
    });
  const inlined = withGraph(model, { node: expand(graphOf(model).node, 0) });
  inlined.functions = [];
  inlined.opsetImport = mergedImports(model);
  return inlined;
}

/** Operator sets of the model and of its functions; where they differ, the model's. */
function mergedImports(model: ModelProto): ModelProto['opsetImport'] {
  const imports = [...model.opsetImport];
  for (const { opsetImport } of model.functions) {
    for (const entry of opsetImport) {
      if (!imports.some(({ domain }) => domain === entry.domain)) imports.push(entry);
    }
  }
  return imports;
}

/**
 * The nodes of the branch that an If takes, where its condition never changes.
 * @param branch `then_branch` or `else_branch` of the node
 */
export function branchNodes(node: NodeProto, branch: GraphProto, freshName: FreshName): NodeProto[] {
  const names = new Map<string, string>();
  const copies: NodeProto[] = [];
  const own = new Set(branch.node.flatMap(({ output }) => output));
  branch.output.forEach(({ name }, place) => {
    const output = node.output[place];
    if (!output) return;
    if (own.has(name) && !names.has(name)) names.set(name, output);
    else copies.push(onnxNode('Identity', freshName(output), [names.get(name) ?? name], [output]));
  });
  return [...renamedNodes(branch.node, names, freshName), ...copies];
}
