import { InputError } from '../../errors.js';
import { type NodeProto, TensorProto_DataType } from '../../formats/onnx_pb.js';
import { attribute } from '../../formats/onnx-attributes.js';
import type { OnnxGraph } from '../../formats/onnx-graph.js';

/** One sum of the residual stream: an Add, or the sum inside a fused skip norm. */
export interface ResidualSum {
  readonly node: NodeProto;
  /** Input of the node that carries the branch (attention, MLP or experts); the stream enters by the other one. */
  readonly operandIndex: number;
  readonly branch: string;
  /** The residual after the sum; null where it exists only inside the fused norm, so that output 3 has to be appended. */
  readonly output: string | null;
  readonly mixesPositions: boolean;
}

/** Where the residual stream of a decoder runs. */
export interface ResidualChain {
  /** Residual -1: what enters the first block. */
  readonly embedding: string;
  readonly sums: readonly ResidualSum[];
  readonly blocks: number;
  /** Two sums a block (attention, then MLP), or one that takes both branches. */
  readonly layout: 'sequential' | 'parallel';
  /** By block, the sum that ends it: residual l. */
  readonly blockSums: readonly ResidualSum[];
  readonly hiddenSize: number | null;
  /** `TensorProto.DataType` of the stream at the embedding. */
  readonly elementType: number;
  /** How the number of blocks was known. */
  readonly countedBy: 'layers' | 'caches' | 'attention';
}

export interface ChainOptions {
  /** Blocks, where a `config.json` says it. */
  readonly layers?: number;
}

const SKIP_NORMS = new Set(['SkipLayerNormalization', 'SkipSimplifiedLayerNormalization']);
const LOOKUPS: Readonly<Record<string, { readonly ids: number; readonly table: number }>> = {
  Gather: { ids: 1, table: 0 },
  GatherBlockQuantized: { ids: 1, table: 0 },
  EmbedLayerNormalization: { ids: 0, table: 2 },
};
/** What leaves values, or their meaning, as they are. */
const TRANSPARENT = new Set(['Cast', 'Identity', 'Dropout', 'QuantizeLinear', 'DequantizeLinear']);
const RESHAPING = new Set(['Cast', 'Identity', 'Reshape', 'Unsqueeze', 'Squeeze', 'Flatten']);
/** What attention weights pass on their way from the softmax to the values. */
const KEEPS_WEIGHTS = new Set([...TRANSPARENT, ...RESHAPING, 'Mul', 'Transpose', 'Where']);
const ATTENTION = new Set([
  'Attention',
  'DecoderMaskedMultiHeadAttention',
  'DecoderMaskedSelfAttention',
  'GroupQueryAttention',
  'LinearAttention',
  'MultiHeadAttention',
  'PackedAttention',
  'PackedMultiHeadAttention',
  'PagedAttention',
  'QAttention',
  'SparseAttention',
]);
const FLOATING = new Set([
  TensorProto_DataType.FLOAT,
  TensorProto_DataType.FLOAT16,
  TensorProto_DataType.BFLOAT16,
  TensorProto_DataType.DOUBLE,
]);

export const isSkipNorm = (node: NodeProto): boolean => SKIP_NORMS.has(node.opType);

/** A walk from one embedding lookup as far as it goes. */
interface Walk {
  readonly embedding: string;
  readonly sums: readonly ResidualSum[];
  /** The tensor at which no further sum was found. */
  readonly end: string;
  /** Sums among which none is clearly the next. */
  readonly rivals: readonly NodeProto[];
}

/**
 * Finds the residual stream of a decoder by the structure of its graph, not by names: from the embedding lookup, the next
 * residual is the Add (or the sum in a skip norm) that joins the stream with a branch computed from it. Adds with a
 * constant (epsilon, bias), of rotary embeddings and of masks are no such sums.
 * Parallel branches that are added one after the other count as one sum.
 * @throws InputError when no stream is found, or its sums do not fit the number of blocks; the message lists candidates
 */
export function findResidualChain(graph: OnnxGraph, options: ChainOptions = {}): ResidualChain {
  const walks = streamStarts(graph).map((start) => walkFrom(graph, start));
  const best = walks.reduce<Walk | undefined>(
    (longest, walk) => (longest && longest.sums.length >= walk.sums.length ? longest : walk),
    undefined,
  );
  if (!best) throw new InputError(`no embedding lookup of token ids was found; ${describeOperators(graph)}`);
  if (best.sums.length === 0) throw new InputError(`no residual stream was found: ${whyEnded(graph, best)}`);
  const broken = attentionBeyond(graph, best.end);
  if (broken) {
    throw new InputError(
      `the residual stream was lost after ${best.sums.length} sums, at ${JSON.stringify(best.end)}, with ` +
        `${broken.opType} ${JSON.stringify(broken.name)} still ahead: ${whyEnded(graph, best)}`,
    );
  }
  const { layout, blocks, countedBy } = countBlocks(graph, best.sums, options.layers);
  const blockSums = layout === 'parallel' ? best.sums : best.sums.filter((_, index) => index % 2 === 1);
  return {
    embedding: best.embedding,
    sums: best.sums,
    blocks,
    layout,
    blockSums,
    hiddenSize: hiddenSizeOf(graph, best),
    elementType: graph.elementType(best.embedding),
    countedBy,
  };
}

/** Lookups of token ids in a constant table, those of `input_ids` first, and an input of embeddings. */
function streamStarts(graph: OnnxGraph): string[] {
  const inputs = graph.proto.input.filter(({ name }) => graph.initializer(name) === undefined);
  const named = inputs.filter(({ name }) => name === 'input_ids');
  const starts: string[] = [];
  for (const { name } of named.length > 0 ? named : inputs) {
    const type = graph.elementType(name);
    if (type !== TensorProto_DataType.INT64 && type !== TensorProto_DataType.INT32) continue;
    starts.push(...lookupsOf(graph, name));
  }
  const embedded = inputs.find(
    ({ name }) => FLOATING.has(graph.elementType(name)) && /embeds?$/.test(name) && !/past|cache/.test(name),
  );
  if (embedded) starts.push(embedded.name);
  return starts;
}

function lookupsOf(graph: OnnxGraph, ids: string): string[] {
  const found: string[] = [];
  const seen = new Set<string>();
  const waiting = [ids];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    if (seen.has(next)) continue;
    seen.add(next);
    for (const { node, input } of graph.uses(next)) {
      const lookup = LOOKUPS[node.opType];
      if (lookup && lookup.ids === input && FLOATING.has(graph.elementType(node.output[0]))) found.push(node.output[0]);
      else if (RESHAPING.has(node.opType) && input === 0) waiting.push(node.output[0]);
    }
  }
  return found;
}

function walkFrom(graph: OnnxGraph, lookup: string): Walk {
  // What stands between the lookup and the first block is passed tensor by tensor, each one that all paths go through.
  let embedding = lookup;
  let step = nextSum(graph, embedding, graph.dependents(embedding));
  while (!step.sum && step.rivals.length === 0) {
    const next = nextCut(graph, embedding);
    if (next === undefined) return { embedding: lookup, sums: [], end: lookup, rivals: [] };
    embedding = next;
    step = nextSum(graph, embedding, graph.dependents(embedding));
  }
  embedding = afterTypeCast(graph, embedding);
  const sums: ResidualSum[] = [];
  // What computes from the stream before the last sum, and what from the stream after it.
  let before: ReadonlySet<string> | undefined;
  let after = graph.dependents(embedding);
  let end = embedding;
  while (step.sum) {
    const joined = step.joinsLast ? sums.pop() : undefined;
    if (!joined) before = after;
    sums.push({ ...step.sum, mixesPositions: step.sum.mixesPositions || joined?.mixesPositions === true });
    if (step.sum.output === null) break;
    end = step.sum.output;
    after = graph.dependents(...sumResults(step.sum.node));
    step = nextSum(graph, end, after, before);
  }
  return { embedding, sums, end, rivals: step.rivals };
}

/** A cast to another type that is the only reader of the embeddings belongs to them: the stream has its type. */
function afterTypeCast(graph: OnnxGraph, tensor: string): string {
  const cast = soleReader(graph, tensor);
  if (cast?.opType !== 'Cast') return tensor;
  return graph.elementType(cast.output[0]) === graph.elementType(tensor) ? tensor : cast.output[0];
}

/** Sums of flattened rows [batch * sequence, hidden] are given their shape back: that tensor is the residual. */
function afterReshape(graph: OnnxGraph, sum: string): string {
  const reader = soleReader(graph, sum);
  return reader?.opType === 'Reshape' && reader.input[0] === sum ? reader.output[0] : sum;
}

/** The one node that reads the values of a tensor, if it is one. */
function soleReader(graph: OnnxGraph, tensor: string): NodeProto | undefined {
  const readers = graph.uses(tensor).filter(({ node }) => node.opType !== 'Shape');
  return readers.length === 1 ? readers[0].node : undefined;
}

interface Step {
  readonly sum?: ResidualSum;
  /** The sum adds a further branch of the same point of the stream: with the last one it is a single residual. */
  readonly joinsLast: boolean;
  readonly rivals: readonly NodeProto[];
}

/** The sum that follows `current`: its branch computes from the stream `after` it, or from that `before` the last sum. */
function nextSum(graph: OnnxGraph, current: string, after: ReadonlySet<string>, before?: ReadonlySet<string>): Step {
  const views = transparentViews(graph, current);
  const found: (ResidualSum & { readonly joinsLast: boolean })[] = [];
  for (const view of views) {
    for (const { node, input } of graph.uses(view)) {
      const branchIndex = isSum(node) && (input === 0 || input === 1) ? 1 - input : -1;
      const branch = node.input[branchIndex];
      if (!branch || views.has(branch)) continue;
      const source = after.has(branch) ? after : before;
      if (!source?.has(branch)) continue;
      found.push({
        node,
        operandIndex: branchIndex,
        branch,
        output: residualOf(graph, node),
        mixesPositions: branchMixesPositions(graph, branch, source, views),
        joinsLast: source !== after,
      });
    }
  }
  const reading = found.filter(({ joinsLast }) => !joinsLast);
  // A later sum may take the same tensor up again (long skips): the next one is the one that the others depend on.
  const first = earliest(graph, found);
  if (!first) return { joinsLast: false, rivals: (reading.length > 0 ? reading : found).map(({ node }) => node) };
  const { joinsLast, ...sum } = first;
  return { sum, joinsLast, rivals: [] };
}

function earliest<T extends ResidualSum>(graph: OnnxGraph, sums: readonly T[]): T | undefined {
  if (sums.length < 2) return sums[0];
  return sums.find((sum) => {
    const later = graph.dependents(...sumResults(sum.node));
    return sums.every((other) => other === sum || other.node.input.some((input) => later.has(input)));
  });
}

const isSum = (node: NodeProto): boolean =>
  (node.opType === 'Add' && node.domain === '') ||
  (node.opType === 'Sum' && node.input.length === 2) ||
  isSkipNorm(node);

/** What carries the sum on: for a skip norm the norm of it too. */
const sumResults = (node: NodeProto): string[] =>
  (isSkipNorm(node) ? [node.output[0], node.output[3]] : [node.output[0]]).filter(Boolean);

const sumOutput = (node: NodeProto): string | null => (isSkipNorm(node) ? node.output[3] || null : node.output[0]);

function residualOf(graph: OnnxGraph, node: NodeProto): string | null {
  const output = sumOutput(node);
  return output === null ? null : afterReshape(graph, output);
}

/** A tensor under the names that casts and identities give it. */
function transparentViews(graph: OnnxGraph, tensor: string): Set<string> {
  const views = new Set([tensor]);
  const waiting = [tensor];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    for (const { node, input } of graph.uses(next)) {
      const output = node.output[0];
      if (input !== 0 || !TRANSPARENT.has(node.opType) || !output || views.has(output)) continue;
      views.add(output);
      waiting.push(output);
    }
  }
  return views;
}

/**
 * The next tensor that every path from `tensor` to the graph's first output goes through; undefined when there is none.
 */
function nextCut(graph: OnnxGraph, tensor: string): string | undefined {
  const target = mainOutput(graph);
  const forward = graph.dependents(tensor);
  if (!forward.has(target) || tensor === target) return undefined;
  const onPaths = graph.ancestors(target);
  // Nodes are in topological order: sweep them, and hold the tensors that are alive between producer and last reader.
  const pendingReads = new Map<string, number>();
  const readsOf = (name: string): number =>
    graph.uses(name).filter(({ node }) => leadsOn(node, forward, onPaths)).length + (name === target ? 1 : 0);
  pendingReads.set(tensor, readsOf(tensor));
  for (const node of graph.proto.node) {
    if (!leadsOn(node, forward, onPaths) || node.output.includes(tensor)) continue;
    for (const input of node.input) {
      const left = pendingReads.get(input);
      if (left === undefined) continue;
      if (left > 1) pendingReads.set(input, left - 1);
      else pendingReads.delete(input);
    }
    for (const output of node.output) {
      if (output !== '' && forward.has(output) && onPaths.has(output)) pendingReads.set(output, readsOf(output));
    }
    if (pendingReads.size === 1) {
      const [alone] = pendingReads.keys();
      if (alone !== tensor) return alone;
    }
  }
  return undefined;
}

const leadsOn = (node: NodeProto, forward: ReadonlySet<string>, onPaths: ReadonlySet<string>): boolean =>
  node.opType !== 'Shape' &&
  node.opType !== 'Size' &&
  node.output.some((output) => output !== '' && forward.has(output) && onPaths.has(output));

/** `logits` where it is there, else the first floating-point output that is no cache. */
export function mainOutput(graph: OnnxGraph): string {
  const outputs = graph.proto.output.map(({ name }) => name);
  return (
    outputs.find((name) => name === 'logits') ??
    outputs.find((name) => !isCacheName(name) && FLOATING.has(graph.elementType(name))) ??
    outputs[0] ??
    ''
  );
}

const isCacheName = (name: string): boolean => /present|past|cache|key_values/i.test(name);

/** Whether attention lies between the stream and a branch. */
function branchMixesPositions(
  graph: OnnxGraph,
  branch: string,
  fromStream: ReadonlySet<string>,
  stream: ReadonlySet<string>,
): boolean {
  const seen = new Set<string>();
  const waiting = [branch];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    if (seen.has(next) || stream.has(next) || !fromStream.has(next)) continue;
    seen.add(next);
    const node = graph.producer(next);
    if (!node) continue;
    if (isAttention(graph, node)) return true;
    waiting.push(...node.input);
  }
  return false;
}

/** A fused attention, or a softmax that is multiplied with something by a matrix product (routers are not). */
function isAttention(graph: OnnxGraph, node: NodeProto): boolean {
  if (ATTENTION.has(node.opType)) return true;
  if (node.opType !== 'Softmax') return false;
  const waiting = [node.output[0]];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    for (const { node: reader, input } of graph.uses(next)) {
      if (reader.opType === 'MatMul' || reader.opType === 'Einsum') {
        if (graph.initializer(reader.input[1 - input]) === undefined) return true;
      } else if (KEEPS_WEIGHTS.has(reader.opType)) waiting.push(reader.output[0]);
    }
  }
  return false;
}

function attentionBeyond(graph: OnnxGraph, tensor: string): NodeProto | undefined {
  const beyond = graph.dependents(tensor);
  const main = graph.ancestors(mainOutput(graph));
  return graph.proto.node.find(
    (node) =>
      node.input.some((input) => beyond.has(input)) &&
      node.output.some((output) => main.has(output)) &&
      !isSkipNorm(node) &&
      isAttention(graph, node),
  );
}

function countBlocks(
  graph: OnnxGraph,
  sums: readonly ResidualSum[],
  layers: number | undefined,
): Pick<ResidualChain, 'layout' | 'blocks' | 'countedBy'> {
  const caches = cachedLayers(graph);
  const known: (readonly [number, ResidualChain['countedBy']])[] = [];
  if (layers !== undefined) known.push([layers, 'layers']);
  if (caches > 0) known.push([caches, 'caches']);
  for (const [blocks, countedBy] of known) {
    if (sums.length === 2 * blocks) return { layout: 'sequential', blocks, countedBy };
    if (sums.length === blocks) return { layout: 'parallel', blocks, countedBy };
  }
  if (known.length > 0) {
    const said = known.map(([n, by]) => `${n} by its ${by === 'layers' ? 'config.json' : 'caches'}`).join(' and ');
    throw new InputError(
      `the residual stream has ${sums.length} sums, which is neither one nor two a block: the model has ${said} blocks; ` +
        `the sums are ${listTensors(sums.map(({ output, node }) => output ?? `output 3 of ${node.name}`))}`,
    );
  }
  const mixing = sums.filter(({ mixesPositions }) => mixesPositions).length;
  if (mixing === sums.length) return { layout: 'parallel', blocks: mixing, countedBy: 'attention' };
  const alternates = sums.every(({ mixesPositions }, index) => mixesPositions === (index % 2 === 0));
  if (alternates && sums.length % 2 === 0) return { layout: 'sequential', blocks: mixing, countedBy: 'attention' };
  throw new InputError(
    `the residual stream has ${sums.length} sums of which ${mixing} add attention: the blocks cannot be told apart; ` +
      `put a config.json with num_hidden_layers beside the graph`,
  );
}

/** Blocks that give keys and values: distinct numbers in the names of cache outputs; 0 without caches. */
function cachedLayers(graph: OnnxGraph): number {
  const numbers = new Set<string>();
  for (const { name } of graph.proto.output) {
    const number = isCacheName(name) && !/encoder/i.test(name) ? /\d+/.exec(name)?.[0] : undefined;
    if (number !== undefined) numbers.add(number);
  }
  return numbers.size;
}

function hiddenSizeOf(graph: OnnxGraph, walk: Walk): number | null {
  for (const { node, branch } of walk.sums) {
    if (isSkipNorm(node)) {
      const gamma = graph.initializer(node.input[2]);
      if (gamma?.dims.length === 1) return Number(gamma.dims[0]);
    }
    for (const tensor of [branch, node.output[0]]) {
      const last = graph.declaredShape(tensor)?.at(-1);
      if (typeof last === 'number' && last > 0) return last;
    }
  }
  const lookup = graph.producer(walk.embedding);
  for (const tensor of [walk.embedding, ...(lookup?.input ?? [])]) {
    const size = widthOf(graph, tensor);
    if (size !== undefined) return size;
  }
  return walk.sums.map(({ branch }) => widthOf(graph, branch)).find((size) => size !== undefined) ?? null;
}

/** Last dimension of a tensor, from its declaration, the table that it was looked up in, or the product that made it. */
function widthOf(graph: OnnxGraph, tensor: string): number | undefined {
  const declared = graph.declaredShape(tensor)?.at(-1);
  if (typeof declared === 'number' && declared > 0) return declared;
  const node = graph.producer(tensor);
  if (!node) return undefined;
  if (node.opType === 'MatMulNBits') return Number(attribute(node, 'N')?.i ?? 0n) || undefined;
  const table = node.opType === 'Gather' ? 0 : node.opType === 'MatMul' ? 1 : -1;
  const dims = table < 0 ? undefined : graph.initializer(node.input[table])?.dims;
  if (dims?.length === 2) return Number(dims[1]);
  const passes = TRANSPARENT.has(node.opType) || node.opType === 'Mul' || node.opType === 'Add';
  if (!passes) return undefined;
  return node.input.map((input) => widthOf(graph, input)).find((size) => size !== undefined);
}

function whyEnded(graph: OnnxGraph, walk: Walk): string {
  if (walk.rivals.length > 0) {
    const nodes = walk.rivals.map((node) => `${node.opType} ${JSON.stringify(node.name)}`).join(', ');
    return `${JSON.stringify(walk.end)} goes into several sums (${nodes}); ${candidateList(graph)}`;
  }
  const readers = [...new Set(graph.uses(walk.end).map(({ node }) => node.opType))].join(', ');
  const normed = /LayerNorm|RMSNorm/.test(readers) && walk.sums.length > 0;
  const hint = normed
    ? ' (the sum is normalised before it is used: a post-norm model has no stream that is only added to)'
    : '';
  const functions = graph.proto.node.some(({ domain }) => domain.startsWith('pkg.'))
    ? '; the graph calls local functions: inline them first (onnx.inliner)'
    : '';
  return `${JSON.stringify(walk.end)} is read by ${readers || 'nothing'}${hint}${functions}; ${candidateList(graph)}`;
}

/** Tensors that --tensor may name: floating-point sums of two values that the inputs decide. */
export function candidateSums(graph: OnnxGraph): string[] {
  const fed = new Set<string>();
  for (const { name } of graph.proto.input) {
    if (graph.initializer(name) === undefined) for (const tensor of graph.dependents(name)) fed.add(tensor);
  }
  const found: string[] = [];
  for (const node of graph.proto.node) {
    if (!isSum(node) || !fed.has(node.input[0]) || !fed.has(node.input[1])) continue;
    const output = sumOutput(node) ?? node.output[0];
    if (FLOATING.has(graph.elementType(node.input[0]))) found.push(output);
  }
  return found;
}

function candidateList(graph: OnnxGraph): string {
  const sums = candidateSums(graph);
  if (sums.length === 0) return describeOperators(graph);
  return `candidates for --tensor are the sums ${listTensors(sums)}`;
}

function listTensors(names: readonly string[]): string {
  const shown = names.slice(0, 24).map((name) => JSON.stringify(name));
  return shown.join(', ') + (names.length > shown.length ? ` and ${names.length - shown.length} more` : '');
}

function describeOperators(graph: OnnxGraph): string {
  const counts = new Map<string, number>();
  for (const { opType } of graph.proto.node) counts.set(opType, (counts.get(opType) ?? 0) + 1);
  const list = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 12);
  const fed = graph.proto.input.filter(({ name }) => graph.initializer(name) === undefined);
  const inputs = fed.slice(0, 8).map(({ name }) => name);
  return `the graph has inputs ${inputs.join(', ')} and operators ${list.map(([op, n]) => `${op} (${n})`).join(', ')}`;
}
