import { InputError } from '../errors.js';
import type { Floats } from '../models/layer-runner.js';
import { usageFrequencies } from './budget.js';
import { runExpert } from './expert-function.js';
import type { ExpertModel } from './expert-model.js';
import { inPrecision } from './expert-precision.js';
import { readExpert, readRouter } from './expert-reader.js';
import { route } from './layer-function.js';
import type { MergeSettings } from './merge-settings.js';
import type { MethodLayer } from './methods/method.js';
import { createPairSums, isPairBasis, type PairBasis, pairPasses, similarityOfPairs } from './pair-similarity.js';
import type { SubsetError } from './pruning.js';
import { expertSimilarity, similarityNeeds } from './similarity.js';
import type { StreamCursor } from './stream-cursor.js';
import { createSubsetErrors, subsetErrorBytes } from './subset-error.js';
import type { ExpertMatrices, LayerStatistics } from './types.js';

export interface MethodSources {
  readonly model: ExpertModel;
  readonly settings: MergeSettings;
  /** Of every layer with experts, in order. */
  readonly statistics?: readonly LayerStatistics[];
  readonly cursor?: StreamCursor;
  readonly threads: number;
  readonly memoryBytes: number;
  /** Arithmetic of the engine. */
  readonly precision: 'f32' | 'f64';
}

/** Layers as methods see them. Similarities are computed once, those that take the text in a pass of its own. */
export function methodLayers(sources: MethodSources): MethodLayer[] {
  const { model, statistics } = sources;
  return model.layers.map(({ layer, experts, shape, rule }, index): MethodLayer => {
    const own = statistics?.[index];
    let similarity: Promise<Float64Array> | undefined;
    return {
      layer,
      experts,
      shape,
      rule,
      ...(own && { statistics: own }),
      usage: own ? usageFrequencies(own.routing) : new Float64Array(experts).fill(1 / experts),
      similarity() {
        similarity ??= similarityOf(sources, index);
        return similarity;
      },
      subsetError: () => subsetErrorOf(sources, index),
    };
  });
}

const expertBytes = ({ gated, hidden, width }: MethodLayer['shape']): number => 4 * (gated ? 3 : 2) * hidden * width;

async function similarityOf(sources: MethodSources, index: number): Promise<Float64Array> {
  const { model, settings, statistics, threads, memoryBytes } = sources;
  const { layer, experts, shape } = model.layers[index];
  const needs = similarityNeeds(settings.similarity);
  const own = statistics?.[index];
  const pairs = isPairBasis(settings.similarity) ? await comparePairs(sources, index, settings.similarity) : undefined;
  return expertSimilarity(settings.similarity, {
    layer,
    experts,
    ...(own && { routing: own.routing }),
    ...(own?.outputs && { outputs: own.outputs }),
    ...(needs.includes('router') && { router: readRouter(model, index, threads).rows }),
    weights: {
      read: (expert) => readExpert(model, index, expert, threads),
      held: Math.max(2, Math.floor(memoryBytes / expertBytes(shape))),
    },
    ...(pairs && { pairs }),
    seed: settings.seed,
    threads,
  });
}

/** Similarities that are measured on the text, as many pairs in a pass as memory holds. */
async function comparePairs(
  { model, settings, cursor, threads, memoryBytes, precision }: MethodSources,
  index: number,
  basis: PairBasis,
): Promise<Float64Array> {
  const { layer, experts, shape, rule } = model.layers[index];
  if (!cursor) throw new RangeError('pairs of experts are compared on text, and there is none');
  const values: number[] = [];
  const passes = pairPasses(basis, experts, shape, memoryBytes, settings.assignment);
  const read = expertCache({ model, threads, memoryBytes }, index, precision);
  for (const pairs of passes) {
    const options = { threads, assignment: settings.assignment, maxBytes: memoryBytes };
    const sums = createPairSums(basis, pairs, read, shape, options);
    await cursor.visit(layer, ['mlp_input', 'router_logits'], ({ taps }) => {
      const logits = taps.get('router_logits') as Floats;
      const rows = logits.length / experts;
      sums.add(taps.get('mlp_input') as Floats, rows, route(logits, rows, experts, rule));
    });
    values.push(...sums.finish());
  }
  return similarityOfPairs(experts, passes.flat(), values);
}

/** Experts of a layer, kept where all of them fit in memory, in the arithmetic of the engine. */
function expertCache(
  { model, threads, memoryBytes }: Pick<MethodSources, 'model' | 'threads' | 'memoryBytes'>,
  index: number,
  precision: 'f32' | 'f64',
): (expert: number) => ExpertMatrices {
  const { experts, shape } = model.layers[index];
  const resident = experts * expertBytes(shape) * (precision === 'f64' ? 2 : 1) <= memoryBytes;
  const kept = new Map<number, ExpertMatrices>();
  return (expert) => {
    const found = kept.get(expert) ?? inPrecision(readExpert(model, index, expert, threads), precision);
    if (resident) kept.set(expert, found);
    return found;
  };
}

/** Rows whose outputs of all experts are held together. */
const BLOCK_ROWS = 512;

async function subsetErrorOf(
  { model, cursor, threads, memoryBytes, precision }: MethodSources,
  index: number,
): Promise<SubsetError> {
  const { layer, experts, shape, rule } = model.layers[index];
  if (!cursor) throw new RangeError('subsets of experts are compared on text, and there is none');
  const held = subsetErrorBytes(experts) * cursor.tokens;
  if (held > memoryBytes) {
    throw new InputError(
      `naee keeps ${experts} x ${experts} products of each of ${cursor.tokens} tokens, ${Math.ceil(held / 2 ** 20)} MiB: ` +
        'lower --calib-tokens or raise --max-memory',
    );
  }
  const sums = createSubsetErrors(experts, shape.hidden, rule);
  const expertAt = expertCache({ model, threads, memoryBytes }, index, precision);
  await cursor.visit(layer, ['mlp_input', 'router_logits'], ({ taps }) => {
    const x = taps.get('mlp_input') as Floats;
    const logits = taps.get('router_logits') as Floats;
    const rows = logits.length / experts;
    for (let from = 0; from < rows; from += BLOCK_ROWS) {
      const count = Math.min(BLOCK_ROWS, rows - from);
      const part = x.subarray(from * shape.hidden, (from + count) * shape.hidden);
      const outputs = Array.from({ length: experts }, (_, e) =>
        runExpert(expertAt(e), shape, part, count, { threads }),
      );
      sums.add(outputs, logits.subarray(from * experts, (from + count) * experts), count);
    }
  });
  return sums.finish();
}
