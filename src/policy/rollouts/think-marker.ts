import { InputError } from '../../errors.js';

/** The end-of-thinking marker: a sequence of token ids, or a text. */
export type Marker = { readonly ids: Int32Array } | { readonly text: string };

/** First and last position of a marker in a response. */
export interface MarkerPlace {
  readonly start: number;
  readonly end: number;
}

/** A marker from the command line: ids separated by commas, or a text. @throws InputError for an empty one */
export function parseMarker(text: string): Marker {
  if (text.trim() === '') throw new InputError('--think-marker is empty');
  if (/^\s*\d+(\s*,\s*\d+)*\s*$/.test(text)) return { ids: Int32Array.from(text.split(','), Number) };
  return { text };
}

/** Where the sequence stands among the tokens that count. */
export function findIds(
  tokens: Int32Array,
  mask: Uint8Array | undefined,
  ids: Int32Array,
  choice: 'first' | 'last',
): MarkerPlace | undefined {
  const stop = tokens.length - ids.length;
  const isAt = (start: number): boolean => {
    for (let j = 0; j < ids.length; j++) {
      if (tokens[start + j] !== ids[j] || (mask !== undefined && mask[start + j] === 0)) return false;
    }
    return true;
  };
  const [from, step] = choice === 'first' ? [0, 1] : [stop, -1];
  for (let start = from; start >= 0 && start <= stop; start += step) {
    if (isAt(start)) return { start, end: start + ids.length - 1 };
  }
  return undefined;
}

/** The tokens whose texts, one behind another, hold a piece of the marker. Masked-out tokens have no text and break it. */
export function findText(
  texts: readonly string[],
  mask: Uint8Array | undefined,
  marker: string,
  choice: 'first' | 'last',
): MarkerPlace | undefined {
  const starts = new Int32Array(texts.length + 1);
  let whole = '';
  for (let t = 0; t < texts.length; t++) {
    starts[t] = whole.length;
    // A character that no marker holds.
    whole += mask !== undefined && mask[t] === 0 ? '\u0000' : texts[t];
  }
  starts[texts.length] = whole.length;
  const at = choice === 'first' ? whole.indexOf(marker) : whole.lastIndexOf(marker);
  if (at < 0) return undefined;
  const holder = (position: number): number => {
    let [low, high] = [0, texts.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (starts[middle] <= position) low = middle;
      else high = middle - 1;
    }
    return low;
  };
  return { start: holder(at), end: holder(at + marker.length - 1) };
}
