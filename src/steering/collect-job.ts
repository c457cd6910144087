import { openPromptCache, type PromptCache } from '../decoding/prompt-cache.js';
import { InputError } from '../errors.js';
import { truncateState } from '../models/decoding-state.js';
import type { DecodingState, Engine } from '../models/engine.js';
import type { JobReference } from '../models/engine-host.js';
import type { LanguageModel } from '../models/language-model.js';
import type { WindowGroup } from '../models/layer-runner.js';
import { openModelTokenizer } from '../models/model-tokenizer.js';
import { exactActionEntropy, type ForcedChoice } from './forced-choice.js';
import { type ActionSampling, sampleActions } from './sampled-choice.js';

/** Token whose activation is read: an index, from the end where it is negative; or the mean over all tokens. */
export type ReadToken = number | 'mean';

/** Prompts whose activations are wanted. Structured-cloneable. */
export interface CollectArguments {
  readonly prompts: readonly Int32Array[];
  /** Names of the prompts, for errors. */
  readonly names: readonly string[];
  /** 0-based blocks, ascending; -1 the embeddings. */
  readonly layers: readonly number[];
  readonly read: ReadToken;
  /** The prompts are the steps of a run: what a prompt begins with as the one before it is not read again. */
  readonly run: boolean;
}

export interface CollectedActivations {
  /** `[prompts, layers, width]` */
  readonly rows: Float32Array;
  /** Tokens that went through the layers. */
  readonly tokensRead: number;
}

/** A single row has other last bits in a product than the same row among others. */
const LEAST_ROWS = 2;

function place(read: ReadToken, length: number, name: string): number {
  if (read === 'mean') return 0;
  const at = read < 0 ? length + read : read;
  if (at >= 0 && at < length) return at;
  throw new InputError(`--read-token ${read}: ${name} has ${length} tokens`);
}

/**
 * Residuals of blocks at one token of each prompt, in the engine's thread. Layers above the last that is asked for do not
 * run; a run of an agent, whose prompts extend each other, costs one long pass.
 * @throws InputError when layers cannot be reached, and naming a prompt that is empty, too long, or lacks the token
 */
export async function collectActivations(
  { engine, info }: LanguageModel,
  args: CollectArguments,
): Promise<CollectedActivations> {
  if (!engine) throw new InputError(`${info.path}: layers are not reachable in an ONNX export; pass the model itself`);
  const { prompts, names, layers, read } = args;
  prompts.forEach((prompt, i) => {
    if (prompt.length === 0) throw new InputError(`${names[i]}: the prompt has no tokens`);
    if (prompt.length > engine.model.maxPositions) {
      throw new InputError(
        `${names[i]}: the prompt has ${prompt.length} tokens, the model ${engine.model.maxPositions} positions; shorten the history`,
      );
    }
    place(read, prompt.length, names[i]);
  });
  const rows = new Float32Array(prompts.length * layers.length * engine.model.hiddenSize);
  // Means need every position, and positions before the end may lie in what is not read again.
  const tokensRead = args.run && read === -1 ? await readRun(engine, args, rows) : await readApart(engine, args, rows);
  return { rows, tokensRead };
}

/** Blocks that must run for the deepest layer that is wanted. */
function depthOf(engine: Engine, layers: readonly number[]): readonly [number, number] {
  const deepest = Math.max(...layers) + 1;
  if (deepest > engine.model.layers.length || Math.min(...layers) < -1) {
    throw new InputError(`layer ${deepest - 1}: the model has blocks 0 to ${engine.model.layers.length - 1}`);
  }
  return [0, deepest];
}

type Take = (layer: number, groups: readonly WindowGroup[]) => void;

function forwardThrough(
  engine: Engine,
  windows: readonly Int32Array[],
  layers: readonly number[],
  take: Take,
  past?: DecodingState,
): Promise<WindowGroup[]> {
  return engine.forward({
    windows,
    layers: depthOf(engine, layers),
    ...(past && { past }),
    onResidual(index, groups) {
      if (layers.includes(index - 1)) take(layers.indexOf(index - 1), groups);
    },
  });
}

async function readRun(engine: Engine, { prompts, layers }: CollectArguments, rows: Float32Array): Promise<number> {
  const width = engine.model.hiddenSize;
  const state = engine.startDecoding(Math.max(LEAST_ROWS, ...prompts.map((prompt) => prompt.length)));
  let before: Int32Array = new Int32Array(0);
  let tokensRead = 0;
  for (const [p, prompt] of prompts.entries()) {
    const alone = prompt.length < LEAST_ROWS;
    let shared = 0;
    const most = Math.max(0, Math.min(state.length, prompt.length - LEAST_ROWS));
    while (shared < most && before[shared] === prompt[shared]) shared++;
    truncateState(state, shared);
    const window = prompt.subarray(shared);
    const take: Take = (layer, [group]) => {
      const last = group.stream.subarray((window.length - 1) * width, window.length * width);
      rows.set(last, (p * layers.length + layer) * width);
    };
    await forwardThrough(engine, alone ? [window, window] : [window], layers, take, alone ? undefined : state);
    tokensRead += window.length;
    before = alone ? new Int32Array(0) : prompt;
  }
  return tokensRead;
}

async function readApart(engine: Engine, args: CollectArguments, rows: Float32Array): Promise<number> {
  const { prompts, layers, read, names } = args;
  const width = engine.model.hiddenSize;
  const single = prompts.length === 1 && prompts[0].length < LEAST_ROWS;
  const take: Take = (layer, groups) => {
    for (const { windows, length, stream } of groups) {
      windows.forEach((p, b) => {
        if (p >= prompts.length) return;
        const target = rows.subarray((p * layers.length + layer) * width, (p * layers.length + layer + 1) * width);
        const window = stream.subarray(b * length * width, (b + 1) * length * width);
        if (read === 'mean') target.set(meanOf(window, length, width));
        else target.set(window.subarray(place(read, length, names[p]) * width).subarray(0, width));
      });
    }
  };
  await forwardThrough(engine, single ? [prompts[0], prompts[0]] : prompts, layers, take);
  return prompts.reduce((sum, prompt) => sum + prompt.length, 0);
}

function meanOf(window: ArrayLike<number>, length: number, width: number): Float64Array {
  const mean = new Float64Array(width);
  for (let at = 0; at < length * width; at++) mean[at % width] += window[at] / length;
  return mean;
}

export const COLLECT_ACTIVATIONS: JobReference<CollectArguments, CollectedActivations> = {
  module: import.meta.url,
  job: collectActivations,
};

/** How the action entropy of prompts is found. Structured-cloneable. */
export interface ChoiceArguments {
  readonly prompts: readonly Int32Array[];
  /** Place of each prompt among all of the data: it fixes the random numbers of its completions. */
  readonly places: readonly number[];
  /** Measures the exact entropy; without it completions are sampled. */
  readonly choice?: ForcedChoice;
  readonly sampling?: Omit<ActionSampling, 'steering' | 'firstStream'>;
}

/** What is known of one prompt's action. */
export interface MeasuredChoice {
  readonly entropyNats: number;
  /** Of sampled completions. */
  readonly counts?: readonly number[];
}

/** Action entropies of prompts by the model itself, in the engine's thread. NaN where no completion parsed. */
export async function measureChoices(
  model: LanguageModel,
  { prompts, places, choice, sampling }: ChoiceArguments,
  progress: (value: unknown) => void,
): Promise<MeasuredChoice[]> {
  const measured: MeasuredChoice[] = [];
  const tokenizer = openModelTokenizer(model.info.path);
  let cache: PromptCache | undefined;
  for (const [p, prompt] of prompts.entries()) {
    if (choice) {
      if (cache) await cache.extend(prompt);
      else cache = await openPromptCache(model, prompt, prompt.length);
      const { entropyNats } = await exactActionEntropy(cache, choice.thought, choice.actions);
      measured.push({ entropyNats });
    } else if (sampling) {
      const firstStream = places[p] * sampling.samples;
      const { pluginNats, counts } = await sampleActions(model, tokenizer, prompt, { ...sampling, firstStream });
      measured.push({ entropyNats: pluginNats, counts });
    } else throw new RangeError('neither a choice nor sampling');
    progress(p + 1);
  }
  return measured;
}

export const MEASURE_CHOICES: JobReference<ChoiceArguments, MeasuredChoice[]> = {
  module: import.meta.url,
  job: measureChoices,
};
