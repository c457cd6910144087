import { InputError } from '../errors.js';
import { type DecodingState, forkState, truncateState } from '../models/decoding-state.js';
import type { Engine } from '../models/engine.js';
import type { LanguageModel } from '../models/language-model.js';
import type { Floats, Intervention } from '../models/layer-runner.js';
import { checkSteering } from './generation.js';
import { conditionHolds, conditionSimilarities } from './steering-condition.js';
import {
  firstSteered,
  interventionsOf,
  type SteeringCondition,
  type SteeringPlan,
  type SteeringPositions,
} from './steering-plan.js';

/**
 * A prompt whose unsteered part was read once. Calls read what follows, with the plan of steering that they bring, and
 * leave the cache as they found it, so that many strengths cost one pass over the prompt.
 */
export interface PromptCache {
  readonly prompt: Int32Array;
  /**
   * ln p of the tokens of continuations, each given the prompt and the tokens before it, in nats. What continuations have
   * in common at their beginnings runs once.
   * @param from first token of the continuations that is scored; arrays are [length - from]. 0 when absent
   * @throws InputError for a continuation without tokens, and for steering that does not fit the model
   */
  logProbabilities(
    continuations: readonly Int32Array[],
    steering?: SteeringPlan,
    from?: number,
  ): Promise<Float64Array[]>;
  /** Logits [n, vocabulary] of the token after the prompt and each of n continuations, which may be empty. */
  logits(continuations: readonly Int32Array[], steering?: SteeringPlan): Promise<Floats>;
  /** Goes on with another prompt; the tokens that it begins with as the present one does are not read again. */
  extend(prompt: Int32Array): Promise<void>;
}

/** Streams of a call: the residual after the last block, behind the prompt and the first `count` tokens of context i. */
type StreamAt = (context: number, count: number) => Floats;

/** A single row has other last bits in a product than the same row among others. */
const LEAST_ROWS = 2;

/**
 * Reads a prompt up to its first steered position.
 * @param capacity positions that calls will need, continuations included; grows where it does not do
 * @param steering positions that calls will steer at: what lies before them is read once. Without it all but the last token
 * @param index place of the prompt in the masks of a plan
 * @throws InputError for a model whose layers cannot be reached and for an empty prompt
 */
export async function openPromptCache(
  model: LanguageModel,
  prompt: Int32Array,
  capacity: number,
  steering?: SteeringPlan | SteeringPositions,
  index = 0,
): Promise<PromptCache> {
  const { engine } = model;
  if (!engine) throw new InputError(`${model.info.path}: steering needs a model directory or a .gguf file`);
  const positions = steering && 'terms' in steering ? steering.positions : steering;
  const { hiddenSize: hidden, vocabularySize: vocabulary } = engine.model;
  const similarities = new Map<SteeringCondition['vector'], Map<string, number>>();
  let current = new Int32Array(0);
  let state = engine.startDecoding(Math.max(capacity, prompt.length));

  /** Positions that no call steers; the last token always runs with what follows it. */
  const unsteered = (): number => {
    const first = positions ? firstSteered(positions, index, current.length) : Number.POSITIVE_INFINITY;
    return Math.min(first, current.length - 1);
  };

  const reserve = (positionsNeeded: number): void => {
    if (positionsNeeded <= state.capacity) return;
    state = forkState(state, [0], Math.max(positionsNeeded, Math.ceil(1.5 * state.capacity)));
  };

  /** Reads the prompt up to `end` without steering; nothing happens where a single token would run alone. */
  const readTo = async (end: number): Promise<void> => {
    if (state.length >= end || end < LEAST_ROWS) return;
    truncateState(state, Math.min(state.length, end - LEAST_ROWS));
    await engine.forward({ windows: [current.subarray(state.length, end)], past: state });
  };

  const extend = async (next: Int32Array): Promise<void> => {
    if (next.length === 0) throw new InputError('the prompt has no tokens');
    truncateState(state, Math.min(state.length, commonLength(current, next), next.length - 1));
    current = Int32Array.from(next);
    similarities.clear();
    reserve(current.length);
    await readTo(unsteered());
  };

  const similarity = async (condition: SteeringCondition): Promise<number> => {
    const known = similarities.get(condition.vector) ?? new Map<string, number>();
    similarities.set(condition.vector, known);
    const key = `${condition.layer} ${condition.read}`;
    const found = known.get(key);
    if (found !== undefined) return found;
    const [made] = await conditionSimilarities(engine, [current], condition);
    known.set(key, made);
    return made;
  };

  const interventionsFor = async (steering: SteeringPlan | undefined, rows: number): Promise<Intervention[]> => {
    if (!steering) return [];
    checkSteering(engine, steering);
    if (steering.condition && !conditionHolds(await similarity(steering.condition), steering.condition)) return [];
    const window = { prompt: index, promptLength: current.length };
    return interventionsOf(steering, new Array(rows).fill(window));
  };

  /** Runs the rest of the prompt with the contexts after it. */
  const read = async (contexts: readonly Int32Array[], steering: SteeringPlan | undefined): Promise<StreamAt> => {
    const { branches, shared } = branchesOf(contexts);
    const n = current.length;
    reserve(n + Math.max(...branches.map((branch) => branch.length)));
    const interventions = await interventionsFor(steering, Math.max(LEAST_ROWS, branches.length));
    const first = interventions.length > 0 && steering ? firstSteered(steering.positions, index, n) : n;
    const trunk = Int32Array.of(...current, ...branches[0].subarray(0, shared));
    const start = Math.max(0, Math.min(state.length, first, n - 1, trunk.length - LEAST_ROWS));
    truncateState(state, start);
    const trunkState = trunk.length < LEAST_ROWS ? engine.startDecoding(state.capacity) : state;
    const window = trunk.subarray(start);
    const together = await engine.forward({
      windows: trunk.length < LEAST_ROWS ? [window, window] : [window],
      past: trunkState,
      interventions,
    });
    const base = together[0].stream;
    const tails = branches.map((branch) => branch.subarray(shared));
    const longest = Math.max(...tails.map((tail) => tail.length));
    const apart = longest > 0 ? await readTails(engine, trunkState, tails, longest, interventions) : undefined;
    // What was steered, and what does not belong to the prompt, is forgotten.
    truncateState(state, Math.min(state.length, first, n));
    return (context, count) => {
      if (count <= shared || !apart) {
        const at = n - 1 + count - start;
        return base.subarray(at * hidden, (at + 1) * hidden);
      }
      const row = branches.findIndex((branch) => commonLength(branch, contexts[context].subarray(0, count)) === count);
      const at = row * longest + count - shared - 1;
      return apart.subarray(at * hidden, (at + 1) * hidden);
    };
  };

  const normedRows = async (rows: readonly Floats[]): Promise<Floats> => {
    const make =
      engine.precision === 'f32' ? new Float32Array(rows.length * hidden) : new Float64Array(rows.length * hidden);
    rows.forEach((row, r) => {
      make.set(row, r * hidden);
    });
    await engine.normalize(make);
    return make;
  };

  await extend(prompt);
  return {
    get prompt() {
      return current;
    },
    extend,

    async logits(continuations, steering) {
      if (continuations.length === 0) return engine.precision === 'f32' ? new Float32Array(0) : new Float64Array(0);
      const at = await read(continuations, steering);
      const logits = await engine.logits(await normedRows(continuations.map((tokens, i) => at(i, tokens.length))));
      return logits.subarray(0, continuations.length * vocabulary);
    },

    async logProbabilities(continuations, steering, from = 0) {
      if (continuations.length === 0) return [];
      continuations.forEach((tokens, i) => {
        if (tokens.length <= from) throw new InputError(`continuation ${i} has no tokens to score`);
        for (const id of tokens) {
          if (id < 0 || id >= vocabulary) {
            throw new InputError(`continuation ${i}: token id ${id} is outside the vocabulary of ${vocabulary}`);
          }
        }
      });
      const contexts = continuations.map((tokens) => tokens.subarray(0, tokens.length - 1));
      const at = await read(contexts, steering);
      // Beginnings that continuations share are scored once.
      const places = new Map<string, number>();
      const rows: Floats[] = [];
      const targets: number[] = [];
      const placed = continuations.map((tokens, i) =>
        Array.from(tokens.subarray(from), (target, j) => {
          const key = tokens.subarray(0, from + j + 1).join();
          const found = places.get(key);
          if (found !== undefined) return found;
          places.set(key, rows.length);
          targets.push(target);
          return rows.push(at(i, from + j)) - 1;
        }),
      );
      const request = { topK: 0, renyiOrders: [] };
      const { surprisalNats } = await engine.statistics(await normedRows(rows), Int32Array.from(targets), request);
      return placed.map((list) => Float64Array.from(list, (place) => -surprisalNats[place]));
    },
  };
}

/** Runs what follows the trunk on copies of its cache, a row each; streams [rows, longest, hidden]. */
async function readTails(
  engine: Engine,
  trunk: DecodingState,
  tails: readonly Int32Array[],
  longest: number,
  interventions: readonly Intervention[],
): Promise<Floats> {
  const rows = tails.length * longest < LEAST_ROWS ? [tails[0], tails[0]] : tails;
  const fork = forkState(
    trunk,
    rows.map(() => 0),
    trunk.length + longest,
  );
  const windows = rows.map((tail) => {
    const window = new Int32Array(longest);
    window.set(tail);
    return window;
  });
  const groups = await engine.forward({ windows, past: fork, interventions });
  return groups[0].stream;
}

/** Contexts that are no beginning of another, and the number of first tokens that all of them have in common. */
function branchesOf(contexts: readonly Int32Array[]): { branches: Int32Array[]; shared: number } {
  const branches: Int32Array[] = [];
  for (const context of [...contexts].sort((a, b) => b.length - a.length)) {
    if (!branches.some((branch) => commonLength(branch, context) === context.length)) branches.push(context);
  }
  const shared = branches.reduce(
    (least, branch) => Math.min(least, commonLength(branch, branches[0])),
    Number.POSITIVE_INFINITY,
  );
  return { branches, shared };
}

/** Number of first tokens that are equal. */
function commonLength(a: Int32Array, b: Int32Array): number {
  const most = Math.min(a.length, b.length);
  let n = 0;
  while (n < most && a[n] === b[n]) n++;
  return n;
}
