import { InputError } from '../errors.js';
import { createRandom, type Random } from '../random.js';
import { gatherRows } from './gather-rows.js';
import type { LanguageModel } from './language-model.js';
import type { Floats, Intervention } from './layer-runner.js';

export interface SamplingOptions {
  /** 0 takes the most probable token. */
  readonly temperature: number;
  /** Keep the k most probable tokens; 0 keeps all. */
  readonly topK: number;
  /** Keep the smallest set of most probable tokens whose mass reaches p; 1 keeps all. */
  readonly topP: number;
  readonly seed: number;
}

export interface GenerationRequest extends SamplingOptions {
  readonly prompts: readonly Int32Array[];
  readonly maxNewTokens: number;
  /** Generation of a sequence ends after one of these; it is kept in the output. */
  readonly stopIds: readonly number[];
  readonly interventions?: readonly Intervention[];
}

/** What was generated after one prompt. */
export interface Generated {
  readonly tokens: Int32Array;
  /** Log-probability of each token under the model's full distribution (temperature 1), in nats. */
  readonly logProbabilities: Float64Array;
  /** Entropy of the full distribution at each step, in nats. */
  readonly entropyNats: Float64Array;
}

/**
 * Generates with a key/value cache. Prompts of equal length run together; each prompt draws from its own stream of the
 * seed, so a result does not depend on what else is generated.
 * @throws InputError for a model whose layers cannot be reached, an empty prompt, or options out of range.
 */
export async function generate(model: LanguageModel, request: GenerationRequest): Promise<Generated[]> {
  checkSampling(request);
  const { engine } = model;
  if (!engine) throw new InputError(`${model.info.path}: generation needs a model directory or a .gguf file`);
  const root = createRandom(request.seed);
  const results = new Array<Generated>(request.prompts.length);
  const byLength = new Map<number, number[]>();
  request.prompts.forEach((prompt, index) => {
    if (prompt.length === 0) throw new InputError(`prompt ${index} has no tokens`);
    const same = byLength.get(prompt.length);
    if (same) same.push(index);
    else byLength.set(prompt.length, [index]);
  });
  for (const [length, members] of byLength) {
    const together = Math.max(1, Math.floor(engine.plan.rowsPerRun / length));
    for (let first = 0; first < members.length; first += together) {
      const batch = members.slice(first, first + together);
      const made = await generateBatch(engine, batch, request, root);
      batch.forEach((index, b) => {
        results[index] = made[b];
      });
    }
  }
  return results;
}

async function generateBatch(
  engine: NonNullable<LanguageModel['engine']>,
  members: readonly number[],
  request: GenerationRequest,
  root: Random,
): Promise<Generated[]> {
  const { hiddenSize, vocabularySize } = engine.model;
  // A product with a single row has other last bits: a prompt alone keeps itself company.
  const batch = members.length === 1 ? [members[0], members[0]] : members;
  const length = request.prompts[batch[0]].length;
  const state = engine.startDecoding(length + request.maxNewTokens);
  const streams = batch.map((index) => root.fork(index));
  const sequences = batch.map(() => ({ tokens: [] as number[], logs: [] as number[], entropies: [] as number[] }));
  const finished = batch.map((_, b) => b >= members.length);
  const interventions = request.interventions?.map((intervention) => ({
    ...intervention,
    positions: (window: number, position: number) => intervention.positions(batch[window], position),
  }));

  let windows = batch.map((index) => request.prompts[index]);
  for (let step = 0; step < request.maxNewTokens && finished.includes(false); step++) {
    const groups = await engine.forward({ windows, past: state, ...(interventions && { interventions }) });
    const last = windows[0].length;
    const rows = gatherRows(
      groups,
      hiddenSize,
      windows.map(() => [last - 1, last] as const),
    );
    await engine.normalize(rows);
    const logits = await engine.logits(rows);
    windows = batch.map((_, b) => {
      const row = logits.subarray(b * vocabularySize, (b + 1) * vocabularySize);
      const { logProbabilities, entropyNats } = distribution(row);
      const token = chooseToken(logProbabilities, request, streams[b]);
      if (!finished[b]) {
        sequences[b].tokens.push(token);
        sequences[b].logs.push(logProbabilities[token]);
        sequences[b].entropies.push(entropyNats);
        finished[b] = request.stopIds.includes(token);
      }
      return Int32Array.of(token);
    });
  }
  return sequences.slice(0, members.length).map((sequence) => ({
    tokens: Int32Array.from(sequence.tokens),
    logProbabilities: Float64Array.from(sequence.logs),
    entropyNats: Float64Array.from(sequence.entropies),
  }));
}

function checkSampling(options: SamplingOptions & { readonly maxNewTokens: number }): void {
  const check = (name: string, value: number, holds: boolean, wanted: string): void => {
    if (!holds) throw new InputError(`${name} is ${value}; expected ${wanted}`);
  };
  check('temperature', options.temperature, options.temperature >= 0, 'a number that is not negative');
  check('top-k', options.topK, Number.isInteger(options.topK) && options.topK >= 0, 'a whole number, 0 for all');
  check('top-p', options.topP, options.topP > 0 && options.topP <= 1, 'a number in (0, 1]');
  check('max-new-tokens', options.maxNewTokens, options.maxNewTokens >= 1, 'a positive whole number');
}

/** Log-softmax of one row in f64, with its entropy. */
function distribution(row: Floats): { logProbabilities: Float64Array; entropyNats: number } {
  let max = Number.NEGATIVE_INFINITY;
  for (const x of row) if (x > max) max = x;
  let sum = 0;
  for (const x of row) sum += Math.exp(x - max);
  const logSum = max + Math.log(sum);
  const logProbabilities = new Float64Array(row.length);
  let entropyNats = 0;
  for (let i = 0; i < row.length; i++) {
    const log = row[i] - logSum;
    logProbabilities[i] = log;
    if (log > Number.NEGATIVE_INFINITY) entropyNats -= Math.exp(log) * log;
  }
  return { logProbabilities, entropyNats };
}

/**
 * Draws a token: temperature, then top-k, then top-p over the renormalised rest (the order of transformers). Ties go to
 * the lower id.
 */
export function chooseToken(logProbabilities: Float64Array, options: SamplingOptions, random: Random): number {
  if (options.temperature === 0) {
    let best = 0;
    for (let i = 1; i < logProbabilities.length; i++) if (logProbabilities[i] > logProbabilities[best]) best = i;
    return best;
  }
  const restricted = options.topK > 0 || options.topP < 1;
  const order = Int32Array.from({ length: logProbabilities.length }, (_, i) => i);
  if (restricted) order.sort((a, b) => logProbabilities[b] - logProbabilities[a] || a - b);
  const kept = options.topK > 0 ? Math.min(options.topK, order.length) : order.length;
  const top = restricted ? logProbabilities[order[0]] : logProbabilities.reduce((a, b) => Math.max(a, b));
  const weights = new Float64Array(kept);
  let total = 0;
  for (let i = 0; i < kept; i++) {
    weights[i] = Math.exp((logProbabilities[order[i]] - top) / options.temperature);
    total += weights[i];
  }
  let count = kept;
  if (options.topP < 1) {
    let mass = 0;
    for (count = 0; count < kept && mass < options.topP * total; count++) mass += weights[count];
    total = mass;
  }
  let threshold = random.uniform() * total;
  for (let i = 0; i < count; i++) {
    threshold -= weights[i];
    if (threshold < 0) return order[i];
  }
  return order[count - 1];
}
