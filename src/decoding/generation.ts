import { InputError } from '../errors.js';
import { type DecodingState, joinStates, keepRows, stateBytes, takesUnequalLengths } from '../models/decoding-state.js';
import type { Engine } from '../models/engine.js';
import { gatherRows } from '../models/gather-rows.js';
import type { LanguageModel } from '../models/language-model.js';
import type { Floats, Intervention } from '../models/layer-runner.js';
import { checkSamplingPlan, createSequenceSampler, type KeyedSampler, sampleRows } from './sampler.js';
import { conditionHolds, conditionSimilarities } from './steering-condition.js';
import { interventionsOf, type SteeringPlan } from './steering-plan.js';
import type { SampledToken, SamplingPlan } from './types.js';

/** What is generated: `samples` continuations of every prompt. */
export interface GenerationRequest {
  readonly prompts: readonly Int32Array[];
  /** Continuations of each prompt; they share one pass over it. 1 when absent. */
  readonly samples?: number;
  readonly maxNewTokens: number;
  /** A sequence ends after one of these; it is kept in the output. */
  readonly stopIds: readonly number[];
  /** Called in the engine's thread after every token; true ends the sequence. */
  readonly finished?: (tokens: readonly number[], prompt: number, sample: number) => boolean;
  readonly plan: SamplingPlan;
  readonly seed: number;
  readonly steering?: SteeringPlan;
  /** Number of the stream of random numbers of a sequence; equal numbers draw equal uniforms. */
  readonly keys?: (prompt: number, sample: number) => number;
}

/** One continuation. Row i of every array belongs to token i; see `SampledToken`. */
export interface Generated {
  readonly tokens: Int32Array;
  readonly entropyNats: Float64Array;
  readonly entropyAfterNats: Float64Array;
  readonly keptMass: Float64Array;
  readonly keptCount: Int32Array;
  readonly surprisalNats: Float64Array;
  /** Why it ended: one of the stop ids, the caller's function, or the number of tokens. */
  readonly ended: 'stop' | 'finished' | 'length';
  /** Whether the plan of steering was active: false without one, and where its condition did not hold. */
  readonly steered: boolean;
}

/** Samples of one prompt have numbers of their own: more of them change none. */
const STREAMS_PER_PROMPT = 2 ** 20;
/** Keys and values of the sequences that are written at once. */
const CACHE_BYTES = 2 ** 29;
const MOST_ROWS = 64;
/** The batch is made smaller when this share of its rows has finished. */
const IDLE_SHARE = 0.25;

interface Sequence {
  readonly prompt: number;
  readonly sample: number;
  readonly sampler: KeyedSampler;
  readonly tokens: number[];
  readonly steps: SampledToken[];
  ended?: Generated['ended'];
}

/** A sequence whose prompt, and no more, is in row `row` of `state`. */
interface Going {
  readonly sequence: Sequence;
  readonly state: DecodingState;
  readonly row: number;
}

interface Context {
  readonly engine: Engine;
  readonly request: GenerationRequest;
  /** By prompt: whether steering acts. */
  readonly active: readonly boolean[];
}

/**
 * Generates `samples` continuations of every prompt with a key/value cache; result [prompt][sample]. What is generated
 * depends neither on the other prompts and samples nor on batches and threads: random numbers are keyed by sequence and
 * step, and no row of a product changes with its neighbours. A condition of the steering plan is read from an unsteered
 * pass over each prompt.
 * @throws InputError for a model whose layers cannot be reached, an empty prompt, options out of range, or steering that
 * does not fit the model.
 */
export async function generate(model: LanguageModel, request: GenerationRequest): Promise<Generated[][]> {
  const { engine } = model;
  if (!engine) throw new InputError(`${model.info.path}: generation needs a model directory or a .gguf file`);
  checkRequest(request);
  if (request.steering) checkSteering(engine, request.steering);
  const active = await activePrompts(engine, request.prompts, request.steering);
  const context: Context = { engine, request, active };
  const all: Sequence[] = [];
  let waiting: Going[] = [];
  const unequal = takesUnequalLengths(engine.model, engine.precision);
  const writeWaiting = async (): Promise<void> => {
    const most = rowsThatFit(context, waiting);
    for (let from = 0; from < waiting.length; from += most) {
      await continueTogether(context, waiting.slice(from, from + most));
    }
    waiting = [];
  };
  for (const members of batchesOfEqualLength(engine, request.prompts)) {
    const begun = await beginSequences(context, members);
    all.push(...begun.map(({ sequence }) => sequence));
    waiting.push(...begun.filter(({ sequence }) => sequence.ended === undefined));
    if (!unequal || waiting.length >= rowsThatFit(context, waiting)) await writeWaiting();
  }
  await writeWaiting();
  const results: Generated[][] = request.prompts.map(() => []);
  for (const sequence of all) results[sequence.prompt][sequence.sample] = finish(sequence, active[sequence.prompt]);
  return results;
}

/** Rows that are written at once: their caches fit. */
function rowsThatFit({ engine, request }: Context, going: readonly Going[]): number {
  const longest = going.reduce((most, { state }) => Math.max(most, state.length), 1);
  const bytes = stateBytes(engine.model, engine.precision, longest + request.maxNewTokens);
  return Math.max(1, Math.min(MOST_ROWS, Math.floor(CACHE_BYTES / bytes)));
}

/** Indices of prompts that are read together, the shorter prompts first. */
function batchesOfEqualLength(engine: Engine, prompts: readonly Int32Array[]): number[][] {
  const order = prompts.map((_, index) => index).sort((a, b) => prompts[a].length - prompts[b].length || a - b);
  const batches: number[][] = [];
  for (const index of order) {
    const { length } = prompts[index];
    const last = batches.at(-1);
    const joins = last && prompts[last[0]].length === length && (last.length + 1) * length <= engine.plan.rowsPerBatch;
    if (joins) last.push(index);
    else batches.push([index]);
  }
  return batches;
}

/** Whether steering acts on each prompt. */
export async function activePrompts(
  engine: Engine,
  prompts: readonly Int32Array[],
  steering: SteeringPlan | undefined,
): Promise<boolean[]> {
  const condition = steering?.condition;
  if (!condition) return prompts.map(() => steering !== undefined);
  const similarities = await conditionSimilarities(engine, prompts, condition);
  return prompts.map((_, p) => conditionHolds(similarities[p], condition));
}

/** Reads prompts of one length in one pass and draws the first token of all their samples. */
async function beginSequences(context: Context, members: readonly number[]): Promise<Going[]> {
  const { engine, request } = context;
  const { length } = request.prompts[members[0]];
  // A product with a single row has other last bits: a single token keeps itself company.
  const rows = members.length === 1 && length === 1 ? [members[0], members[0]] : members;
  const state = engine.startDecoding(length);
  const first = await nextLogits(context, rows, rows, state, (prompt) => request.prompts[prompt]);
  const begun = members.flatMap((prompt, row) =>
    Array.from({ length: request.samples ?? 1 }, (_, sample): Going => {
      const key = request.keys?.(prompt, sample) ?? prompt * STREAMS_PER_PROMPT + sample;
      const sampler = createSequenceSampler(request.plan, { seed: request.seed, sequence: key });
      return { sequence: { prompt, sample, sampler, tokens: [], steps: [] }, state, row };
    }),
  );
  takeTokens(context, begun, first);
  return begun;
}

/** Writes sequences to their ends. */
async function continueTogether(context: Context, members: readonly Going[]): Promise<void> {
  const paired = members.length === 1 ? [members[0], members[0]] : members;
  let live = paired.map(({ sequence }) => sequence);
  const longest = paired.reduce((most, { state }) => Math.max(most, state.length), 0);
  const state = joinStates(paired, longest + context.request.maxNewTokens);
  for (;;) {
    const prompts = live.map(({ prompt }) => prompt);
    const logits = await nextLogits(context, prompts, live, state, ({ tokens }) =>
      Int32Array.of(tokens[tokens.length - 1]),
    );
    const writing = [...new Set(live)].filter(({ ended }) => ended === undefined);
    takeTokens(
      context,
      writing.map((sequence) => ({ sequence, row: live.indexOf(sequence) })),
      logits,
    );
    const open = live.flatMap(({ ended }, b) => (ended === undefined ? [b] : []));
    if (open.length === 0) return;
    if (open.length <= (1 - IDLE_SHARE) * live.length && live.length > 2) {
      const kept = open.length === 1 ? [...open, open[0] === 0 ? 1 : open[0]].sort((a, b) => a - b) : open;
      keepRows(state, kept);
      live = kept.map((b) => live[b]);
    }
  }
}

/** Runs windows, one a row, and gives the logits [rows, vocabulary] after the last token of each. */
async function nextLogits<T>(
  { engine, request, active }: Context,
  prompts: readonly number[],
  rows: readonly T[],
  past: DecodingState,
  windowOf: (row: T) => Int32Array,
): Promise<Floats> {
  const windows = rows.map(windowOf);
  const last = windows[0].length;
  const groups = await engine.forward({
    windows,
    past,
    interventions: steeringOf(request, prompts, active),
  });
  const hidden = engine.model.hiddenSize;
  const ends = gatherRows(
    groups,
    hidden,
    windows.map(() => [last - 1, last] as const),
  );
  await engine.normalize(ends);
  return engine.logits(ends);
}

function steeringOf(
  { steering, prompts: all }: GenerationRequest,
  prompts: readonly number[],
  active: readonly boolean[],
): Intervention[] {
  if (!steering || !prompts.some((prompt) => active[prompt])) return [];
  return interventionsOf(
    steering,
    prompts.map((prompt) => ({ prompt, promptLength: all[prompt].length, active: active[prompt] })),
  );
}

/** Draws the next token of sequences from their rows of the logits and sees which end. */
function takeTokens(
  { engine, request }: Context,
  places: readonly { readonly sequence: Sequence; readonly row: number }[],
  logits: Floats,
): void {
  const vocabulary = engine.model.vocabularySize;
  const inPlace = places.every(({ row }, r) => row === r);
  const rows = inPlace ? logits.subarray(0, places.length * vocabulary) : rowsOf(logits, vocabulary, places);
  const samplers = places.map(({ sequence }) => sequence.sampler);
  const steps = sampleRows(samplers, rows, vocabulary, engine.threads);
  places.forEach(({ sequence }, r) => {
    const { token } = steps[r];
    sequence.tokens.push(token);
    sequence.steps.push(steps[r]);
    if (request.stopIds.includes(token)) sequence.ended = 'stop';
    else if (request.finished?.(sequence.tokens, sequence.prompt, sequence.sample)) sequence.ended = 'finished';
    else if (sequence.tokens.length >= request.maxNewTokens) sequence.ended = 'length';
  });
}

function rowsOf(logits: Floats, vocabulary: number, places: readonly { readonly row: number }[]): Floats {
  const size = places.length * vocabulary;
  const out = logits instanceof Float64Array ? new Float64Array(size) : new Float32Array(size);
  places.forEach(({ row }, r) => {
    out.set(logits.subarray(row * vocabulary, (row + 1) * vocabulary), r * vocabulary);
  });
  return out;
}

function finish({ tokens, steps, ended = 'length' }: Sequence, steered: boolean): Generated {
  return {
    tokens: Int32Array.from(tokens),
    entropyNats: Float64Array.from(steps, (step) => step.entropyNats),
    entropyAfterNats: Float64Array.from(steps, (step) => step.entropyAfterNats),
    keptMass: Float64Array.from(steps, (step) => step.keptMass),
    keptCount: Int32Array.from(steps, (step) => step.keptCount),
    surprisalNats: Float64Array.from(steps, (step) => step.surprisalNats),
    ended,
    steered,
  };
}

function checkRequest(request: GenerationRequest): void {
  const whole = (name: string, value: number): void => {
    if (!Number.isInteger(value) || value < 1) {
      throw new InputError(`${name} is ${value}; expected a positive whole number`);
    }
  };
  whole('max-new-tokens', request.maxNewTokens);
  whole('samples', request.samples ?? 1);
  checkSamplingPlan(request.plan);
  request.prompts.forEach((prompt, index) => {
    if (prompt.length === 0) throw new InputError(`prompt ${index} has no tokens`);
  });
}

/**
 * Holds a plan against a model.
 * @throws InputError naming the layer that the model lacks, the vector of another size, or numbers that are not finite.
 */
export function checkSteering(engine: Engine, { terms, condition }: SteeringPlan): void {
  const { hiddenSize, layers } = engine.model;
  const check = (layer: number, vector: Floats, least: number): void => {
    if (!Number.isInteger(layer) || layer < least || layer >= layers.length) {
      throw new InputError(`layer ${layer} does not exist; the model's blocks are 0 to ${layers.length - 1}`);
    }
    if (vector.length !== hiddenSize) {
      throw new InputError(
        `a vector for layer ${layer} has ${vector.length} numbers; the model's hidden size is ${hiddenSize}`,
      );
    }
    if (!vector.every(Number.isFinite)) {
      throw new InputError(`a vector for layer ${layer} has numbers that are not finite`);
    }
  };
  for (const { layer, operator, vector, scale } of terms) {
    check(layer, vector, -1);
    if (operator !== 'add' && vector.every((x: number) => x === 0)) {
      throw new InputError(`the vector for layer ${layer} is zero: ${operator} needs a direction`);
    }
    if (!Number.isFinite(scale))
      throw new InputError(`the strength at layer ${layer} is ${scale}; expected a finite number`);
  }
  if (condition) check(condition.layer, condition.vector, 0);
}
