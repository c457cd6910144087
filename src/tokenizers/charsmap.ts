import { InputError } from '../errors.js';

/**
 * The precompiled character map of a SentencePiece model: a double-array trie (darts-clone layout: 4-byte length, that
 * many bytes of 32-bit units, then NUL-terminated replacements) from UTF-8 prefixes to replacement strings.
 */
export interface CharsMap {
  /** Replacement of the shortest mapped prefix of `bytes[start .. end)`, or undefined; how Hugging Face reads the map. */
  shortest(bytes: Uint8Array, start: number, end: number): Uint8Array | undefined;
  /** Longest mapped prefix at `start`: its length in bytes (0: none), its replacement in `lastReplacement`. */
  longest(bytes: Uint8Array, start: number): number;
  readonly lastReplacement: Uint8Array;
}

/** Reads a precompiled character map. Throws InputError where its sizes do not fit. */
export function parseCharsMap(blob: Uint8Array, source: string): CharsMap {
  const view = new DataView(blob.buffer, blob.byteOffset, blob.byteLength);
  const trieBytes = blob.length < 4 ? -1 : view.getUint32(0, true);
  if (trieBytes < 4 || trieBytes % 4 !== 0 || 4 + trieBytes > blob.length) {
    throw new InputError(`${source}: the precompiled character map is damaged; convert the tokenizer again`);
  }
  const units = new Uint32Array(trieBytes / 4);
  for (let i = 0; i < units.length; i++) units[i] = view.getUint32(4 + 4 * i, true);
  const replacements = blob.subarray(4 + trieBytes);
  const unit = (index: number): number => (index < units.length ? units[index] : 0);
  const offsetOf = (node: number): number => (node >>> 10) << ((node & 0x200) >>> 6);
  const replacementAt = (offset: number): Uint8Array => {
    const end = replacements.indexOf(0, offset);
    if (offset >= replacements.length || end < 0) {
      throw new InputError(`${source}: the precompiled character map is damaged; convert the tokenizer again`);
    }
    return replacements.subarray(offset, end);
  };
  let matchedLength = 0;
  let lastReplacement: Uint8Array = new Uint8Array(0);
  /** Offset of the replacement for the shortest or longest mapped prefix, or -1. */
  const walk = (bytes: Uint8Array, start: number, end: number, longest: boolean): number => {
    let found = -1;
    let index = offsetOf(unit(0));
    for (let i = start; i < end; i++) {
      const byte = bytes[i];
      if (byte === 0) break;
      index = (index ^ byte) >>> 0;
      const node = unit(index);
      if ((node & 0x800000ff) >>> 0 !== byte) break;
      index = (index ^ offsetOf(node)) >>> 0;
      if (((node >>> 8) & 1) === 1) {
        found = unit(index) & 0x7fffffff;
        matchedLength = i + 1 - start;
        if (!longest) break;
      }
    }
    return found;
  };
  return {
    shortest(bytes, start, end) {
      const offset = walk(bytes, start, end, false);
      return offset < 0 ? undefined : replacementAt(offset);
    },
    longest(bytes, start) {
      const offset = walk(bytes, start, bytes.length, true);
      if (offset < 0) return 0;
      lastReplacement = replacementAt(offset);
      return matchedLength;
    },
    get lastReplacement() {
      return lastReplacement;
    },
  };
}

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
const graphemes = new Intl.Segmenter('und', { granularity: 'grapheme' });

/** Units that are segmented at once: the time of `Intl.Segmenter` grows with the square of the text it is given. */
const SEGMENT_WINDOW = 256;

/** The extended grapheme clusters of `text`, in time linear in its length. */
function* clustersOf(text: string): Generator<string, void, undefined> {
  let window = SEGMENT_WINDOW;
  for (let start = 0; start < text.length; ) {
    const end = Math.min(text.length, start + window);
    const segments = Array.from(graphemes.segment(text.slice(start, end)), ({ segment }) => segment);
    // The last cluster of a window may go on behind it.
    if (end < text.length) segments.pop();
    window = segments.length === 0 ? window * 2 : SEGMENT_WINDOW;
    for (const segment of segments) {
      yield segment;
      start += segment.length;
    }
  }
}

/** Printable ASCII that no mark can follow: what stands before anything else may be part of a cluster. */
const ASCII_RUN = /[ -~]+(?=[ -~]|$)/g;

/**
 * `text` to text through the map as Hugging Face `tokenizers` applies it: a grapheme cluster of fewer than six bytes is
 * looked up whole, then each of its code points.
 */
export function graphemeMapper(map: CharsMap): (text: string) => string {
  const keepsAscii = Array.from({ length: 0x5f }, (_, i) => Uint8Array.of(0x20 + i)).every(
    (byte) => map.shortest(byte, 0, 1) === undefined,
  );
  const mapClusters = (text: string): string => {
    let result = '';
    for (const segment of clustersOf(text)) {
      const bytes = encoder.encode(segment);
      if (bytes.length < 6) {
        const whole = map.shortest(bytes, 0, bytes.length);
        if (whole !== undefined) {
          result += decoder.decode(whole);
          continue;
        }
      }
      for (const char of segment) {
        const charBytes = char.length === segment.length ? bytes : encoder.encode(char);
        const replacement = map.shortest(charBytes, 0, charBytes.length);
        result += replacement === undefined ? char : decoder.decode(replacement);
      }
    }
    return result;
  };
  if (!keepsAscii) return mapClusters;
  return (text) => {
    let result = '';
    let last = 0;
    for (const run of text.matchAll(ASCII_RUN)) {
      result += mapClusters(text.slice(last, run.index)) + run[0];
      last = run.index + run[0].length;
    }
    return result + mapClusters(text.slice(last));
  };
}
