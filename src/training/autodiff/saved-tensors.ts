import type { NodeProto } from '../../formats/onnx_pb.js';
import { readBy } from '../../formats/onnx-graph.js';
import type { GraphAnalysis } from './analysis.js';
import { groupEqualShapes } from './equal-shapes.js';

/** Operators that cost next to nothing, or that the runtime folds into their readers: written again, not saved. */
const FREE = new Set(
  (
    'Identity Reshape Flatten Squeeze Unsqueeze Cast Expand Shape Size ConstantOfShape Constant Not And Or Equal Less ' +
    'LessOrEqual Greater GreaterOrEqual Transpose Range'
  ).split(' '),
);
/** Integer tensors up to this size are arithmetic on shapes. */
const SHAPE_ARITHMETIC_BYTES = 512;
const RANDOM = /^(Random|Bernoulli|Multinomial)/;

/** What the backward graph takes from the forward pass. */
export interface SavePlan {
  /** Tensors that the forward graph gives. */
  readonly saved: readonly string[];
  /** Tensors of which it gives the shape alone. */
  readonly shapes: readonly string[];
  /** For the other tensors whose shape is read: one of the same shape to read it from. */
  readonly shapeFrom: ReadonlyMap<string, string>;
  /** Nodes of the forward graph that the backward graph repeats, in their order. */
  readonly repeated: readonly NodeProto[];
  /** Inputs of the forward graph that the backward graph reads. */
  readonly inputs: ReadonlySet<string>;
  /** Initializers and folded constants that it holds. */
  readonly constants: ReadonlySet<string>;
}

/** Constants up to this size are stored in the backward graph, larger computed ones are computed again. */
const FOLDED_BYTES = 1 << 20;

/**
 * Decides how each tensor that the backward graph reads gets there.
 * @param values tensors that are read, `shapesOnly` those of which nothing but the shape is
 * @param cotangents inputs that have the shapes of the seeds
 */
export function planSavedTensors(
  analysis: GraphAnalysis,
  values: readonly string[],
  shapesOnly: readonly string[],
  cotangents: ReadonlyMap<string, string>,
  recompute: boolean,
): SavePlan {
  const { index } = analysis;
  const saved = new Set<string>();
  const derivable = new Map<string, boolean>();

  const isSource = (name: string): boolean =>
    name === '' ||
    index.producer(name) === undefined ||
    (analysis.isConstant(name) && analysis.bytes(name) <= FOLDED_BYTES);
  const isFree = (name: string): boolean => {
    const node = index.producer(name);
    if (!node || RANDOM.test(node.opType)) return false;
    if (recompute || analysis.isConstant(name) || FREE.has(node.opType)) return true;
    return !analysis.isFloat(name) && analysis.bytes(name) <= SHAPE_ARITHMETIC_BYTES;
  };
  const canDerive = (name: string): boolean => {
    if (isSource(name) || saved.has(name)) return true;
    const known = derivable.get(name);
    if (known !== undefined) return known;
    const node = index.producer(name);
    const found = isFree(name) && node !== undefined && readBy(node).every(canDerive);
    derivable.set(name, found);
    return found;
  };
  /** The tensor to save so that `name` is there: itself, or a smaller one it is made of for free. */
  const rootOf = (name: string): string => {
    let root = name;
    for (let next = name; isFree(next); ) {
      const node = index.producer(next);
      const missing: string[] = node ? readBy(node).filter((input) => !canDerive(input)) : [];
      if (missing.length !== 1) break;
      next = missing[0];
      if (analysis.bytes(next) <= analysis.bytes(root)) root = next;
    }
    return root;
  };
  const save = (name: string): void => {
    if (canDerive(name)) return;
    saved.add(rootOf(name));
    derivable.clear();
  };
  const inOrder = (names: readonly string[]): string[] =>
    [...names].sort((a, b) => analysis.position(a) - analysis.position(b));
  for (const name of inOrder(values)) if (!isFree(name)) save(name);
  for (const name of inOrder(values)) save(name);
  const equal = groupEqualShapes(analysis);
  const { present } = collectSources(analysis, values, saved, isSource);
  const shapeFrom = new Map<string, string>();
  const shapes: string[] = [];
  for (const name of shapesOnly) {
    // A tensor that is there anyway comes before one that would be computed for its shape alone.
    const alike = equal(name);
    const there = alike.find((other) => saved.has(other) || present.has(other) || isSource(other));
    const seed = alike.find((other) => cotangents.has(other));
    const from = (seed !== undefined ? cotangents.get(seed) : there) ?? (canDerive(name) ? name : undefined);
    if (from === undefined) shapes.push(name);
    else shapeFrom.set(name, from);
  }
  const read = [...values, ...[...shapeFrom.values()].filter((name) => analysis.has(name))];
  const { repeated, inputs, constants } = collectSources(analysis, read, saved, isSource);
  return { saved: inOrder([...saved]), shapes, shapeFrom, repeated, inputs, constants };
}

/** Follows tensors back to what is there, and lists what has to be repeated on the way. */
function collectSources(
  analysis: GraphAnalysis,
  targets: readonly string[],
  saved: ReadonlySet<string>,
  isSource: (name: string) => boolean,
): Pick<SavePlan, 'repeated' | 'inputs' | 'constants'> & { present: ReadonlySet<string> } {
  const repeated = new Set<NodeProto>();
  const inputs = new Set<string>();
  const constants = new Set<string>();
  const visited = new Set<string>();
  const waiting = [...targets];
  for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
    if (name === '' || visited.has(name) || saved.has(name)) continue;
    visited.add(name);
    const node = analysis.index.producer(name);
    if (isSource(name)) {
      if (analysis.isConstant(name)) constants.add(name);
      else inputs.add(name);
    } else if (node) {
      repeated.add(node);
      waiting.push(...readBy(node));
    }
  }
  const order = analysis.graph.node.filter((node) => repeated.has(node));
  return { repeated: order, inputs, constants, present: visited };
}
