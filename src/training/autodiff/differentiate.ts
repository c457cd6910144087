import { didYouMean, InputError } from '../../errors.js';
import type { GraphProto, ModelProto, NodeProto } from '../../formats/onnx_pb.js';
import { attribute } from '../../formats/onnx-attributes.js';
import { changedNode, graphOf, onnxNode, withGraph } from '../../formats/onnx-edit.js';
import type { Precision } from '../types.js';
import { analyseGraph, analyseUnrun, type GraphAnalysis } from './analysis.js';
import { createNodeWriter, type NodeWriter } from './backward-graph.js';
import { branchNodes } from './inlining.js';
import { prepareModel } from './prepare.js';
import type { Feeds } from './probe.js';
import { DECOMPOSITIONS, RULES, STRAIGHT_THROUGH } from './registry.js';
import { createDecompositionContext } from './rule-context.js';
import { gradientName, OPTIONAL_OUTPUTS, splitGraph } from './split-graph.js';
import type { Differentiated, DifferentiateRequest } from './types.js';
import { ruleName, walkBackward } from './walk.js';

/** Rounds of decompositions that may open into one another. */
const DECOMPOSITION_ROUNDS = 8;

/**
 * Reverse-mode differentiation of an ONNX graph in standard operators, as a forward graph that gives saved tensors and a
 * backward graph that takes them.
 *
 * The graph is run once on `example` to learn ranks and element types; give every dynamic axis an extent of its own, 2 or
 * more. The graphs that come out take other extents too.
 * @param example a tensor for each input of the model
 * @throws InputError when a wanted tensor or seed is not there, when the runtime refuses the graph, or when operators on
 *   the path have no gradient: all of them, each with its node, operator set and path from the seed
 */
export async function differentiate(request: DifferentiateRequest, example: Feeds): Promise<Differentiated> {
  const { wanted, seeds } = request;
  const { analysis, writer, cotangents, gradients } = await differentiateGraph(request, example);
  return splitGraph(
    analysis,
    writer,
    new Map(seeds.map((seed) => [seed, cotangents(seed)])),
    gradients,
    wanted,
    request.recompute ?? false,
  );
}

/**
 * A model in the given precision with its compound operators written out, among them those that the runtime computes in
 * single precision only. @throws InputError as `differentiate`
 */
export async function openedModel(
  model: ModelProto,
  precision: Precision,
  wanted: readonly string[],
  example: Feeds,
): Promise<ModelProto> {
  return (await decompose(prepareModel(model, precision, wanted), wanted, precision, example)).model;
}

/** A graph and, beside it, the nodes of its gradients. */
export interface GraphGradients {
  readonly analysis: GraphAnalysis;
  readonly writer: NodeWriter;
  /** Name of the tensor that carries the cotangent of a seed. */
  cotangents(seed: string): string;
  /** Value that is the gradient of each wanted tensor that a seed depends on. */
  readonly gradients: ReadonlyMap<string, string>;
}

/** Prepares a graph and writes its gradients beside it. @throws as `differentiate` */
export async function differentiateGraph(
  request: Omit<DifferentiateRequest, 'recompute'>,
  example: Feeds,
): Promise<GraphGradients> {
  const { wanted, seeds, precision } = request;
  requireNames(request);
  const model = nameOptionalOutputs(prepareModel(request.model, precision, wanted));
  const analysis = await decompose(model, wanted, precision, example);
  for (const seed of seeds) {
    if (!analysis.isFloat(seed)) throw new InputError(`the output "${seed}" holds no floating-point numbers`);
  }
  const writer = createNodeWriter(analysis, 'd.');
  const cotangents = new Map(seeds.map((seed) => [seed, gradientName(seed)]));
  const gradients = walkBackward(
    analysis,
    cotangents,
    wanted,
    writer,
    request.straightThrough ? STRAIGHT_THROUGH : RULES,
  );
  return { analysis, writer, cotangents: gradientName, gradients };
}

function requireNames({ model, wanted, seeds }: Omit<DifferentiateRequest, 'recompute'>): void {
  const graph = graphOf(model);
  const outputs = graph.output.map(({ name }) => name);
  for (const seed of seeds) {
    if (!outputs.includes(seed)) {
      throw new InputError(
        `the graph has no output "${seed}"${didYouMean(seed, outputs)} It has ${outputs.join(', ')}`,
      );
    }
  }
  const sources = [...graph.input, ...graph.initializer].map(({ name }) => name);
  const known = new Set(sources);
  for (const name of wanted) {
    if (!known.has(name)) {
      throw new InputError(`the graph has no input or initializer "${name}"${didYouMean(name, sources)}`);
    }
  }
}

/** Names optional outputs that a rule may read; those that nobody reads are dropped again. */
function nameOptionalOutputs(model: ModelProto): ModelProto {
  const graph = graphOf(model);
  graph.node = graph.node.map((node) => {
    const all = OPTIONAL_OUTPUTS[node.opType];
    if (all === undefined || node.domain !== '' || node.output.length >= all) return node;
    const output = Array.from({ length: all }, (_, at) => node.output[at] || `${node.output[0]}.output${at}`);
    return changedNode(node, { output });
  });
  return model;
}

/** Analyses a model with its compound operators opened. */
async function decompose(
  model: ModelProto,
  wanted: readonly string[],
  precision: Precision,
  example: Feeds,
): Promise<GraphAnalysis> {
  // What opens without ranks does so before the graph runs: the runtime may have no kernel for it in double precision.
  let opened = model;
  let round = 0;
  for (; round < DECOMPOSITION_ROUNDS; round++) {
    const next = openCompounds(analyseUnrun(opened, wanted, precision), `o${round}.`);
    if (!next) break;
    opened = nameOptionalOutputs(next);
  }
  let analysis = await analyseGraph(opened, wanted, precision, example);
  for (; round < DECOMPOSITION_ROUNDS; round++) {
    const next = openCompounds(analysis, `o${round}.`);
    if (!next) break;
    analysis = await analyseGraph(nameOptionalOutputs(next), wanted, precision, example);
  }
  return analysis;
}

/** The branch of an If whose condition never changes. */
function branchTaken(node: NodeProto, analysis: GraphAnalysis): GraphProto | undefined {
  if (node.opType !== 'If') return undefined;
  const condition = analysis.constantValues(node.input[0]);
  return condition && attribute(node, condition[0] ? 'then_branch' : 'else_branch')?.g;
}

/** The model with every compound operator written out; undefined when there is none. */
function openCompounds(analysis: GraphAnalysis, prefix: string): ModelProto | undefined {
  const { graph } = analysis;
  let changed = false;
  const initializer = [...graph.initializer];
  const node: NodeProto[] = graph.node.flatMap((compound) => {
    const branch = branchTaken(compound, analysis);
    if (branch) {
      changed = true;
      initializer.push(...branch.initializer);
      return branchNodes(compound, branch, analysis.index.freshName);
    }
    const rule = DECOMPOSITIONS[ruleName(compound)];
    if (!rule) return [compound];
    const writer = createNodeWriter(analysis, prefix);
    const defined: NodeProto[] = [];
    const define = (index: number, value: string): void => {
      const name = compound.output[index];
      if (name) defined.push(onnxNode('Identity', writer.freshName(`${prefix}${name}`), [value], [name]));
    };
    if (!rule(createDecompositionContext(compound, analysis, writer, define))) return [compound];
    changed = true;
    initializer.push(...writer.initializers);
    return [...writer.nodes, ...defined];
  });
  return changed ? withGraph(analysis.model, { node, initializer }) : undefined;
}
