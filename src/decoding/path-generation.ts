import { InputError } from '../errors.js';
import type { DecodingState } from '../models/decoding-state.js';
import type { Engine } from '../models/engine.js';
import { gatherRows } from '../models/gather-rows.js';
import type { LanguageModel } from '../models/language-model.js';
import { createRandom, type Random } from '../random.js';
import { activePrompts, checkSteering } from './generation.js';
import { logSoftmax } from './log-softmax.js';
import { continuePaths, spreadPrefix } from './path-caches.js';
import {
  checkPathNucleus,
  EMPTY_PATH,
  type ExtendedPath,
  type PathNucleusSettings,
  type PathStep,
  pathWeights,
  stepPaths,
  type TokenPath,
} from './path-nucleus.js';
import { interventionsOf, type SteeringPlan } from './steering-plan.js';

export interface PathRequest {
  readonly prompts: readonly Int32Array[];
  readonly settings: PathNucleusSettings;
  readonly maxNewTokens: number;
  /** A path is finished after one of these; it is kept. */
  readonly stopIds: readonly number[];
  readonly seed: number;
  readonly steering?: SteeringPlan;
}

/** A path at the end, with what each of its tokens cost. */
export interface GeneratedPath extends TokenPath {
  /** -ln p of its tokens. */
  readonly surprisalNats: Float64Array;
  /** Entropy of the untruncated distribution before each token. */
  readonly entropyNats: Float64Array;
  /** Share among the paths of its prompt: softmax of their scores. */
  readonly weight: number;
}

/** What is kept of a step, besides its paths. */
export type PathStepFigures = Omit<PathStep, 'paths'> & { readonly paths: number; readonly finished: number };

export interface PathsOfPrompt {
  readonly paths: readonly GeneratedPath[];
  readonly steps: readonly PathStepFigures[];
}

interface OpenPath extends ExtendedPath {
  readonly surprisals: readonly number[];
  readonly entropies: readonly number[];
}

/**
 * Path-level nucleus sampling (see `path-nucleus.ts`) after every prompt. The prompt is read once; the paths run as one
 * batch, whose caches are forked where a path is continued twice. Random numbers are keyed by prompt and step.
 * @param progress told the tokens of a prompt's paths when it is done
 * @throws InputError for a model whose layers cannot be reached, an empty prompt, or settings out of range
 */
export async function generatePaths(
  model: LanguageModel,
  request: PathRequest,
  progress?: (tokens: number) => void,
): Promise<PathsOfPrompt[]> {
  const { engine } = model;
  if (!engine) throw new InputError(`${model.info.path}: generation needs a model directory or a .gguf file`);
  checkPathNucleus(request.settings);
  if (request.steering) checkSteering(engine, request.steering);
  const empty = request.prompts.findIndex(({ length }) => length === 0);
  if (empty >= 0) throw new InputError(`prompt ${empty} has no tokens`);
  const active = await activePrompts(engine, request.prompts, request.steering);
  const root = createRandom(request.seed);
  const results: PathsOfPrompt[] = [];
  for (let prompt = 0; prompt < request.prompts.length; prompt++) {
    const made = await pathsOf({ engine, request, prompt, steered: active[prompt], random: root.fork(prompt) });
    progress?.(made.paths.reduce((sum, { tokens }) => sum + tokens.length, 0));
    results.push(made);
  }
  return results;
}

interface PromptContext {
  readonly engine: Engine;
  readonly request: PathRequest;
  readonly prompt: number;
  readonly steered: boolean;
  readonly random: Random;
}

async function pathsOf(context: PromptContext): Promise<PathsOfPrompt> {
  const { request, engine, prompt, random } = context;
  const { settings, maxNewTokens } = request;
  const tokens = request.prompts[prompt];
  const stops = new Set(request.stopIds);
  // Rows of a batch of one have other last bits: a path alone has a companion.
  const places = Math.max(2, settings.width);
  const alone = tokens.length === 1 ? [tokens, tokens] : [tokens];
  const prefix = engine.startDecoding(tokens.length);
  const [first] = await nextDistributions(context, alone, prefix);
  let rows: readonly Float64Array[] = [first];
  let state: DecodingState | undefined;
  let rowOf: readonly number[] = [0];
  let paths: readonly OpenPath[] = [{ ...EMPTY_PATH, parent: 0, surprisals: [], entropies: [] }];
  const steps: PathStepFigures[] = [];
  for (let step = 0; step < maxNewTokens; step++) {
    const draw = random.fork(step);
    const made = stepPaths(
      paths,
      paths.map(({ finished }, p) => (finished ? undefined : rows[rowOf[p]])),
      settings,
      (token) => stops.has(token),
      () => draw.uniform(),
    );
    const before = paths;
    const entropies = rows.map(entropyOf);
    paths = made.paths.map((path) => extended(path, before[path.parent], rows, entropies, rowOf[path.parent]));
    const { paths: kept, ...figures } = made;
    steps.push({ ...figures, paths: kept.length, finished: kept.filter(({ finished }) => finished).length });
    const open = paths.filter(({ finished }) => !finished);
    if (open.length === 0 || step + 1 === maxNewTokens) break;
    state ??= spreadPrefix(prefix, places, tokens.length + maxNewTokens);
    const parents = step === 0 ? open.map(() => 0) : open.map(({ parent }) => rowOf[parent]);
    const batch = open.length === 1 ? [open[0], open[0]] : open;
    continuePaths(state, open.length === 1 ? [parents[0], parents[0]] : parents, tokens.length, places);
    let row = 0;
    rowOf = paths.map(({ finished }) => (finished ? -1 : row++));
    const windows = batch.map((path) => Int32Array.of(path.tokens[path.tokens.length - 1]));
    rows = await nextDistributions(context, windows, state);
  }
  const weights = pathWeights(paths, settings);
  return {
    steps,
    paths: paths.map(({ tokens: written, logProbability, finished, surprisals, entropies }, p) => ({
      tokens: written,
      logProbability,
      finished,
      surprisalNats: Float64Array.from(surprisals),
      entropyNats: Float64Array.from(entropies),
      weight: weights[p],
    })),
  };
}

function extended(
  path: ExtendedPath,
  before: OpenPath,
  rows: readonly Float64Array[],
  entropies: readonly number[],
  row: number,
): OpenPath {
  if (path.tokens.length === before.tokens.length) return { ...before, parent: path.parent };
  const token = path.tokens[path.tokens.length - 1];
  return {
    ...path,
    surprisals: [...before.surprisals, -rows[row][token]],
    entropies: [...before.entropies, entropies[row]],
  };
}

function entropyOf(logProbabilities: Float64Array): number {
  let entropy = 0;
  for (const log of logProbabilities) if (log > Number.NEGATIVE_INFINITY) entropy -= Math.exp(log) * log;
  return entropy;
}

/** Runs one window a row and gives ln p [vocabulary] of what follows each. */
async function nextDistributions(
  { engine, request, prompt, steered }: PromptContext,
  windows: readonly Int32Array[],
  past: DecodingState,
): Promise<Float64Array[]> {
  const promptLength = request.prompts[prompt].length;
  const interventions =
    request.steering && steered
      ? interventionsOf(
          request.steering,
          windows.map(() => ({ prompt, promptLength })),
        )
      : [];
  const groups = await engine.forward({ windows, past, interventions });
  const { hiddenSize, vocabularySize } = engine.model;
  const last = windows[0].length;
  const ends = gatherRows(
    groups,
    hiddenSize,
    windows.map(() => [last - 1, last] as const),
  );
  await engine.normalize(ends);
  const logits = await engine.logits(ends);
  return windows.map((_, row) => logSoftmax(logits.subarray(row * vocabularySize, (row + 1) * vocabularySize)));
}
