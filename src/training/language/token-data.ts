import { InputError } from '../../errors.js';
import { createDataOrder } from '../data-order.js';
import { type BatchSource, IGNORED, type TokenBatch } from '../types.js';

/** A text as token ids, without the tokens that are put around it. */
export interface TokenText {
  readonly tokens: Int32Array;
  /** Tokens start..end-1 that a model is asked to predict, ascending; all of them when absent. */
  readonly spans?: readonly (readonly [start: number, end: number])[];
  /** Where the text stands, for messages. */
  readonly place?: string;
}

/**
 * Windows of equal length, side by side. Position i of a window asks for `labels[i]`, the token after it, or nothing
 * where that is IGNORED.
 */
export interface TokenWindows {
  readonly count: number;
  readonly length: number;
  /** [count, length]; what lies behind a window's end is its last token again. */
  readonly tokens: Int32Array;
  /** [count, length]. */
  readonly labels: Int32Array;
  /** [count]: positions of each window that hold text. */
  readonly lengths: Int32Array;
  /** Labels that are not IGNORED. */
  readonly validLabels: number;
  /** Texts that were longer than a window and were cut (windows of one text each). */
  readonly cutTexts: number;
}

export interface WindowSettings {
  /** Positions of a window. */
  readonly length: number;
  /** Put before every text; nothing is asked at the place before it. */
  readonly prefix?: number;
  /** Put behind every text, and asked for. */
  readonly end?: number;
}

/** Texts one after the other, with the tokens around them, and which of these are asked for (1). */
interface TokenStream {
  readonly tokens: Int32Array;
  readonly asked: Uint8Array;
}

function streamOf(texts: readonly TokenText[], { prefix, end }: WindowSettings): TokenStream {
  const around = (prefix === undefined ? 0 : 1) + (end === undefined ? 0 : 1);
  const size = texts.reduce((sum, text) => sum + text.tokens.length + around, 0);
  const tokens = new Int32Array(size);
  const asked = new Uint8Array(size);
  let at = 0;
  for (const text of texts) {
    if (prefix !== undefined) tokens[at++] = prefix;
    const first = at;
    const last = first + text.tokens.length;
    tokens.set(text.tokens, first);
    if (text.spans === undefined) asked.fill(1, first, last);
    for (const [start, stop] of text.spans ?? []) asked.fill(1, first + start, first + stop);
    at = last;
    if (end === undefined) continue;
    tokens[at] = end;
    asked[at++] = text.spans === undefined || text.spans.some(([, stop]) => stop === text.tokens.length) ? 1 : 0;
  }
  return { tokens, asked };
}

const cut = ({ tokens, asked }: TokenStream, from: number, to: number): TokenStream => ({
  tokens: tokens.subarray(from, to),
  asked: asked.subarray(from, to),
});

function finish(windows: readonly TokenStream[], length: number, cutTexts: number): TokenWindows {
  const count = windows.length;
  const tokens = new Int32Array(count * length);
  const labels = new Int32Array(count * length).fill(IGNORED);
  const lengths = new Int32Array(count);
  let validLabels = 0;
  windows.forEach((window, w) => {
    // The last token of a window is there to be predicted alone.
    const positions = window.tokens.length - 1;
    lengths[w] = positions;
    for (let i = 0; i < length; i++) tokens[w * length + i] = window.tokens[Math.min(i, positions - 1)];
    for (let i = 0; i < positions; i++) {
      if (window.asked[i + 1] === 0) continue;
      labels[w * length + i] = window.tokens[i + 1];
      validLabels++;
    }
  });
  return { count, length, tokens, labels, lengths, validLabels, cutTexts };
}

/**
 * Cuts the texts, put one after the other, into windows of `length` positions, each of which predicts the token after it;
 * the last window may be shorter. Every token but the very first is a label once, except prefixes.
 * @throws InputError when the texts hold fewer than two tokens
 */
export function packTexts(texts: readonly TokenText[], settings: WindowSettings): TokenWindows {
  const { length } = settings;
  const whole = streamOf(texts, settings);
  if (whole.tokens.length < 2)
    throw new InputError('the texts hold fewer than two tokens: there is nothing to predict');
  const windows: TokenStream[] = [];
  for (let from = 0; from + 1 < whole.tokens.length; from += length) windows.push(cut(whole, from, from + length + 1));
  return finish(windows, length, 0);
}

/**
 * One window a text, filled up on the right. A text that is longer than a window is cut at its end and counted.
 * @throws InputError for a text of which nothing is asked within its window
 */
export function separateTexts(texts: readonly TokenText[], settings: WindowSettings): TokenWindows {
  const { length } = settings;
  let cutTexts = 0;
  const windows = texts.map((text, index) => {
    const stream = streamOf([text], settings);
    if (stream.tokens.length > length + 1) cutTexts++;
    const window = cut(stream, 0, length + 1);
    if (!window.asked.includes(1, 1)) {
      throw new InputError(
        `${text.place ?? `text ${index}`}: nothing of it is to be predicted within ${length} positions; raise --context, ` +
          'or shorten the prompt',
      );
    }
    return window;
  });
  if (windows.length === 0) throw new InputError('there is no text to learn from');
  return finish(windows, length, cutTexts);
}

/** Windows `chosen` as one batch, as long as the longest of them. */
export function batchOfWindows(windows: TokenWindows, chosen: Int32Array): TokenBatch {
  const length = chosen.reduce((most, w) => Math.max(most, windows.lengths[w]), 1);
  const tokens = new Int32Array(chosen.length * length);
  const labels = new Int32Array(chosen.length * length);
  chosen.forEach((w, row) => {
    const from = w * windows.length;
    tokens.set(windows.tokens.subarray(from, from + length), row * length);
    labels.set(windows.labels.subarray(from, from + length), row * length);
  });
  return { tokens, batch: chosen.length, length, labels, windows: chosen };
}

/** Batches of windows in an order such as `createDataOrder` gives. */
export function orderedBatches(
  windows: TokenWindows,
  order: { readonly perEpoch: number; items(index: number): Int32Array },
): BatchSource<TokenBatch> {
  return { perEpoch: order.perEpoch, batch: (index) => batchOfWindows(windows, order.items(index)) };
}

/** Batches of windows as they lie; the last one may be smaller. */
export function windowBatches(windows: TokenWindows, batchSize: number): BatchSource<TokenBatch> {
  return orderedBatches(windows, createDataOrder({ count: windows.count, batchSize, seed: 0, shuffle: false }));
}

/**
 * Windows of several texts, one after the other.
 * @throws RangeError when they are of different lengths
 */
export function joinWindows(parts: readonly TokenWindows[]): TokenWindows {
  const [first] = parts;
  if (parts.some(({ length }) => length !== first.length)) throw new RangeError('windows of different lengths');
  const count = parts.reduce((sum, part) => sum + part.count, 0);
  const joined = (of: (part: TokenWindows) => Int32Array, width: number): Int32Array => {
    const values = new Int32Array(count * width);
    let at = 0;
    for (const part of parts) {
      values.set(of(part), at);
      at += of(part).length;
    }
    return values;
  };
  return {
    count,
    length: first.length,
    tokens: joined(({ tokens }) => tokens, first.length),
    labels: joined(({ labels }) => labels, first.length),
    lengths: joined(({ lengths }) => lengths, 1),
    validLabels: parts.reduce((sum, { validLabels }) => sum + validLabels, 0),
    cutTexts: parts.reduce((sum, { cutTexts }) => sum + cutTexts, 0),
  };
}
