import { InputError } from '../../errors.js';
import type { NodeProto } from '../../formats/onnx_pb.js';
import { readBy } from '../../formats/onnx-graph.js';
import type { GraphAnalysis } from './analysis.js';
import type { NodeWriter } from './backward-graph.js';
import { createRuleContext } from './rule-context.js';
import type { RuleTable } from './types.js';

/** Why some operators will never have a rule. */
const WITHOUT_DERIVATIVE: Readonly<Record<string, string>> = {
  Round: 'its derivative is zero wherever it exists',
  Floor: 'its derivative is zero wherever it exists',
  Ceil: 'its derivative is zero wherever it exists',
  QuantizeLinear: 'its derivative is zero wherever it exists',
  DequantizeLinear: 'its input is quantised',
  If: 'the graph branches',
  Loop: 'the graph loops',
  Scan: 'the graph loops',
};

/** Operators whose integer result still carries a value that is meant to be differentiated. */
const CARRIERS = new Set(['QuantizeLinear']);

export const ruleName = ({ domain, opType }: NodeProto): string =>
  domain === '' || domain === 'ai.onnx' ? opType : `${domain}::${opType}`;

/** Tensors that depend on one of `wanted` by floating-point values. */
export function dependentTensors(analysis: GraphAnalysis, wanted: readonly string[]): ReadonlySet<string> {
  const dependent = new Set(wanted);
  for (const node of analysis.graph.node) {
    if (!readBy(node).some((name) => dependent.has(name))) continue;
    for (const output of node.output) {
      if (output === '') continue;
      if (analysis.isFloat(output) || CARRIERS.has(node.opType)) dependent.add(output);
    }
  }
  return dependent;
}

/** Where the cotangent of a tensor came from first: the way back to the loss, for messages. */
type Trail = ReadonlyMap<string, NodeProto>;

/** Nodes between `wanted` and the seeds, and for each tensor the node through which the loss reads it. */
function nodesOnPath(
  analysis: GraphAnalysis,
  seeds: readonly string[],
  dependent: ReadonlySet<string>,
): { nodes: NodeProto[]; trail: Trail } {
  const reached = new Set(seeds.filter((name) => dependent.has(name)));
  const trail = new Map<string, NodeProto>();
  const nodes: NodeProto[] = [];
  for (let at = analysis.graph.node.length - 1; at >= 0; at--) {
    const node = analysis.graph.node[at];
    if (!node.output.some((name) => reached.has(name))) continue;
    const inputs = readBy(node).filter((name) => dependent.has(name));
    if (inputs.length === 0) continue;
    nodes.push(node);
    for (const name of inputs) {
      reached.add(name);
      if (!trail.has(name)) trail.set(name, node);
    }
  }
  return { nodes, trail };
}

const called = (node: NodeProto): string => `${ruleName(node)} "${node.name || node.output[0]}"`;

/** `logits <- Gemm "fc2" <- Relu "act"`: the way from a seed to a node. */
function pathTo(node: NodeProto, trail: Trail): string {
  const steps: string[] = [called(node)];
  let tensor = node.output.find((name) => trail.has(name)) ?? node.output[0];
  for (let next = trail.get(tensor); next; next = trail.get(tensor)) {
    steps.push(called(next));
    tensor = next.output.find((name) => trail.has(name)) ?? next.output[0];
  }
  const shown =
    steps.length > 12 ? [...steps.slice(0, 3), `... ${steps.length - 8} more ...`, ...steps.slice(-5)] : steps;
  return [...shown, tensor].reverse().join(' <- ');
}

/** @throws InputError that lists every node of the path for which there is no rule */
function refuse(failures: readonly { node: NodeProto; reason: string }[], trail: Trail, opset: number): never {
  const lines = failures.map(({ node, reason }) => {
    const because = reason === '' ? '' : ` (${reason})`;
    return `${called(node)} of operator set ${opset}${because}, on the path ${pathTo(node, trail)}`;
  });
  const count = lines.length === 1 ? 'an operator has' : `${lines.length} operators have`;
  throw new InputError(
    `${count} no gradient here: ${lines.join('; ')}; freeze the weights before them, or export the graph without them`,
  );
}

/**
 * Writes the vector-Jacobian products of a graph, from its seeds to `wanted`.
 * @param cotangents names of the cotangents of the seeds
 * @returns the value that is the gradient of each wanted tensor; tensors that no seed depends on have none
 * @throws InputError naming every operator on the path that has no rule
 */
export function walkBackward(
  analysis: GraphAnalysis,
  cotangents: ReadonlyMap<string, string>,
  wanted: readonly string[],
  writer: NodeWriter,
  table: RuleTable,
): ReadonlyMap<string, string> {
  const dependent = dependentTensors(analysis, wanted);
  const { nodes, trail } = nodesOnPath(analysis, [...cotangents.keys()], dependent);
  const failures: { node: NodeProto; reason: string }[] = [];
  for (const node of nodes) {
    if (!table[ruleName(node)]) failures.push({ node, reason: WITHOUT_DERIVATIVE[node.opType] ?? '' });
  }
  if (failures.length > 0) refuse(failures, trail, analysis.opset);

  const collected = new Map<string, string[]>();
  for (const [seed, cotangent] of cotangents) collected.set(seed, [cotangent]);
  /** One variadic sum, not a chain. */
  const total = (tensor: string): string | undefined => {
    const terms = collected.get(tensor);
    if (!terms || terms.length === 0) return undefined;
    if (terms.length > 1) collected.set(tensor, [writer.emitMany('Sum', terms, 1)[0]]);
    return collected.get(tensor)?.[0];
  };
  for (const node of nodes) {
    const given = node.output.map((name) => (name === '' ? undefined : total(name)));
    if (given.every((value) => value === undefined)) continue;
    const needed = node.input.map((name) => dependent.has(name));
    const context = createRuleContext(node, given, needed, analysis, writer);
    try {
      const results = table[ruleName(node)](context);
      node.input.forEach((name, place) => {
        const value = results[place];
        if (value === undefined || !needed[place]) return;
        const terms = collected.get(name);
        if (terms) terms.push(value);
        else collected.set(name, [value]);
      });
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      failures.push({ node, reason: error.message });
    }
  }
  if (failures.length > 0) refuse(failures, trail, analysis.opset);
  const gradients = new Map<string, string>();
  for (const name of wanted) {
    const gradient = total(name);
    if (gradient !== undefined) gradients.set(name, gradient);
  }
  return gradients;
}
