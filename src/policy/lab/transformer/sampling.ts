import type { Random } from '../../../random.js';
import type { IncrementalDecoder } from './incremental-decoder.js';
import { type Episode, PADDING } from './task.js';

/** A response to be written. */
export interface SampleRequest {
  /** What the policy has read: a prompt, or a prompt with the beginning of a response. */
  readonly context: Int32Array;
  /** Has taken what of the context is the policy's. */
  readonly episode: Episode;
  readonly random: Random;
  /** Most tokens behind the context, those of the world included. */
  readonly limit: number;
}

export interface Sample {
  readonly tokens: Int32Array;
  /** 1 where the token is the policy's, 0 where it is the world's. */
  readonly mask: Uint8Array;
  /** log pi(token) and entropy over the whole vocabulary, nats; 0 under a mask of 0. */
  readonly logProb: Float64Array;
  readonly entropy: Float64Array;
}

interface Growing {
  readonly request: SampleRequest;
  readonly tokens: number[];
  readonly mask: number[];
  readonly logProb: number[];
  readonly entropy: number[];
  /** What the world has said and was not read yet. */
  readonly waiting: number[];
  over: boolean;
}

/** Probabilities of one row of logits, in double. @returns log-sum-exp and entropy, nats */
export function softmaxRow(
  logits: ArrayLike<number>,
  from: number,
  probabilities: Float64Array,
): { readonly logTotal: number; readonly entropy: number } {
  const count = probabilities.length;
  let most = Number.NEGATIVE_INFINITY;
  for (let v = 0; v < count; v++) if (logits[from + v] > most) most = logits[from + v];
  let total = 0;
  let weighted = 0;
  for (let v = 0; v < count; v++) {
    const centred = logits[from + v] - most;
    const weight = Math.exp(centred);
    probabilities[v] = weight;
    total += weight;
    weighted += weight * centred;
  }
  for (let v = 0; v < count; v++) probabilities[v] /= total;
  return { logTotal: most + Math.log(total), entropy: Math.max(0, Math.log(total) - weighted / total) };
}

function draw(probabilities: Float64Array, random: Random): number {
  let left = random.uniform();
  let last = 0;
  for (let v = 0; v < probabilities.length; v++) {
    if (probabilities[v] === 0) continue;
    last = v;
    left -= probabilities[v];
    if (left < 0) return v;
  }
  return last;
}

/** p^(1/T), divided by the sum. */
function temper(probabilities: Float64Array, temperature: number): void {
  let total = 0;
  for (let v = 0; v < probabilities.length; v++) {
    probabilities[v] **= 1 / temperature;
    total += probabilities[v];
  }
  for (let v = 0; v < probabilities.length; v++) probabilities[v] /= total;
}

/** Rows that have ended are taken out when so small a part still goes on. */
const WORTH_KEEPING = 0.75;

export interface SamplingOptions {
  /** Of the draws alone (default 1): log-probabilities and entropies are the policy's. */
  readonly temperature?: number;
}

/** Draws one token behind what a row has read. */
function grow(
  row: Growing,
  logits: Float32Array,
  from: number,
  probabilities: Float64Array,
  temperature: number,
): void {
  const { request, tokens, mask, logProb, entropy, waiting } = row;
  const { logTotal, entropy: own } = softmaxRow(logits, from, probabilities);
  if (temperature !== 1) temper(probabilities, temperature);
  const token = draw(probabilities, request.random);
  tokens.push(token);
  mask.push(1);
  logProb.push(Math.min(0, logits[from + token] - logTotal));
  entropy.push(own);
  const { observation, over } = request.episode.take(token);
  row.over = over || tokens.length + observation.length >= request.limit;
  if (row.over) return;
  waiting.push(token, ...observation);
  for (const said of observation) {
    tokens.push(said);
    mask.push(0);
    logProb.push(0);
    entropy.push(0);
  }
}

/**
 * Writes responses, all sequences one position at a time. Every response has random numbers of its own, so
 * that none depends on what is written beside it.
 */
export function sampleResponses(
  decoder: IncrementalDecoder,
  vocabulary: number,
  requests: readonly SampleRequest[],
  { temperature = 1 }: SamplingOptions = {},
): Sample[] {
  const probabilities = new Float64Array(vocabulary);
  const rows = requests.map(
    (request): Growing => ({
      request,
      tokens: [],
      mask: [],
      logProb: [],
      entropy: [],
      waiting: [...request.context],
      over: request.limit <= 0,
    }),
  );
  // Sequences in the decoder, those that have ended since it was last told included.
  let held = rows.filter(({ over }) => !over);
  decoder.begin(held.length);
  for (let left = held.length; left > 0; ) {
    const fed = Int32Array.from(held, ({ over, waiting }) => (over ? PADDING : (waiting.shift() ?? PADDING)));
    const { logits } = decoder.feed(fed);
    held.forEach((row, i) => {
      if (!row.over && row.waiting.length === 0) grow(row, logits, i * vocabulary, probabilities, temperature);
    });
    left = held.reduce((count, { over }) => count + (over ? 0 : 1), 0);
    if (left <= WORTH_KEEPING * held.length) {
      decoder.keep(Int32Array.from(held.keys()).filter((i) => !held[i].over));
      held = held.filter(({ over }) => !over);
    }
  }
  return rows.map(({ tokens, mask, logProb, entropy }) => ({
    tokens: Int32Array.from(tokens),
    mask: Uint8Array.from(mask),
    logProb: Float64Array.from(logProb),
    entropy: Float64Array.from(entropy),
  }));
}
