import { InputError } from '../errors.js';
import { type BatchSource, IGNORED, type TokenBatch } from '../training/types.js';

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

/** All texts one after the other, with the tokens around them, and which of these are asked for. */
interface TokenStream {
  readonly tokens: number[];
  readonly asked: boolean[];
}

function append(stream: TokenStream, text: TokenText, { prefix, end }: WindowSettings): void {
  const { tokens, asked } = stream;
  if (prefix !== undefined) {
    tokens.push(prefix);
    asked.push(false);
  }
  const first = tokens.length;
  for (const token of text.tokens) {
    tokens.push(token);
    asked.push(text.spans === undefined);
  }
  for (const [start, stop] of text.spans ?? []) asked.fill(true, first + start, first + stop);
  if (end !== undefined) {
    tokens.push(end);
    asked.push(text.spans === undefined || text.spans.some(([, stop]) => stop === text.tokens.length));
  }
}

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
      if (!window.asked[i + 1]) continue;
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
export function packTexts(texts: Iterable<TokenText>, settings: WindowSettings): TokenWindows {
  const { length } = settings;
  const whole: TokenStream = { tokens: [], asked: [] };
  for (const text of texts) append(whole, text, settings);
  if (whole.tokens.length < 2)
    throw new InputError('the texts hold fewer than two tokens: there is nothing to predict');
  const windows: TokenStream[] = [];
  for (let from = 0; from + 1 < whole.tokens.length; from += length) {
    const stop = from + length + 1;
    windows.push({ tokens: whole.tokens.slice(from, stop), asked: whole.asked.slice(from, stop) });
  }
  return finish(windows, length, 0);
}

/**
 * One window a text, filled up on the right. A text that is longer than a window is cut at its end and counted.
 * @throws InputError for a text of which nothing is asked within its window
 */
export function separateTexts(texts: Iterable<TokenText>, settings: WindowSettings): TokenWindows {
  const { length } = settings;
  const windows: TokenStream[] = [];
  let cutTexts = 0;
  for (const text of texts) {
    const stream: TokenStream = { tokens: [], asked: [] };
    append(stream, text, settings);
    if (stream.tokens.length > length + 1) cutTexts++;
    const window = { tokens: stream.tokens.slice(0, length + 1), asked: stream.asked.slice(0, length + 1) };
    if (!window.asked.includes(true, 1)) {
      throw new InputError(
        `${text.place ?? `text ${windows.length}`}: nothing of it is to be predicted within ${length} positions; ` +
          'raise --context, or shorten the prompt',
      );
    }
    windows.push(window);
  }
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

/**
 * Batches of windows; the last one of an epoch may be smaller.
 * @param order window numbers of an epoch, such as `epochOrder` gives; in their own order when absent
 */
export function windowBatches(
  windows: TokenWindows,
  batchSize: number,
  order?: (epoch: number) => Int32Array,
): BatchSource<TokenBatch> {
  const perEpoch = Math.ceil(windows.count / batchSize);
  const plain = Int32Array.from({ length: windows.count }, (_, w) => w);
  let known: { readonly epoch: number; readonly order: Int32Array } | undefined;
  return {
    perEpoch,
    batch(index) {
      const epoch = Math.floor(index / perEpoch);
      if (known?.epoch !== epoch) known = { epoch, order: order?.(epoch) ?? plain };
      const from = (index % perEpoch) * batchSize;
      return batchOfWindows(windows, known.order.slice(from, from + batchSize));
    },
  };
}
