import { strip, type TokenPair } from './token-pair.js';
import {
  type AlignedRows,
  type MoveOptions,
  ROW_KINDS,
  type SequenceAlignment,
  type SparseRows,
  type TokenMap,
} from './types.js';

/** Ids and alignment of one text in both tokenizers. */
export interface AlignedText {
  readonly source: Int32Array;
  readonly pivot: Int32Array;
  readonly alignment: SequenceAlignment;
}

/** Which source position gives each pivot position its row (-1: none, a one-hot row), and the kind of the row. */
export interface RowOrigins {
  /** [pivot positions] */
  readonly positions: Int32Array;
  /** [pivot positions], indices into `ROW_KINDS`; rows that turn out empty are not known yet. */
  readonly kinds: Uint8Array;
}

const EXACT = ROW_KINDS.indexOf('exact');
const MAPPED = ROW_KINDS.indexOf('mapped');
const ONE_TO_MANY = ROW_KINDS.indexOf('one-to-many');
const MANY_TO_ONE = ROW_KINDS.indexOf('many-to-one');
const FALLBACK = ROW_KINDS.indexOf('fallback');
const EMPTY = ROW_KINDS.indexOf('empty');

/** The kind of row that the one source token at a pivot position may give it, or -1. */
type Acceptance = (source: number, pivot: number, first: boolean) => number;

function acceptanceOf(pair: TokenPair, map: TokenMap | undefined, options: MoveOptions): Acceptance {
  const { swapped, pivot, source } = pair;
  if (options.rule === 'fusechat') {
    return (from, to) => {
      const a = swapped[from];
      const b = pivot.texts[to];
      if (a === b) return EXACT;
      return a.endsWith(b) || b.endsWith(a) ? MAPPED : -1;
    };
  }
  // A tokenizer of GPT's kind writes no marker at the head of a text; SentencePiece does.
  const bareHead = source.marker === 'Ġ' || source.marker === ' ';
  return (from, to, first) => {
    const target = pivot.texts[to];
    let text = swapped[from];
    if (first && bareHead && target.startsWith(pivot.marker) && !text.startsWith(pivot.marker)) {
      text = pivot.marker + text;
    }
    if (text === target) return EXACT;
    if (options.rule === 'fusellm-hard' || map === undefined) return -1;
    const known = pair.sourceIdOf.get(text);
    return known !== undefined && pivot.texts[map.pivotIds[known]] === target ? MAPPED : -1;
  };
}

/**
 * Of several source positions the first whose token is an ending of the pivot's, or has it as its ending (markers
 * stripped); -1 without one.
 *
 * FuseChat goes on to consume the pivot's string by the source's pieces where there is none, and leaves rows empty where
 * their joined texts end alike. Neither can happen: the last piece of either is an ending already.
 */
function endingPosition(pair: TokenPair, text: AlignedText, begin: number, end: number, pivot: number): number {
  const target = strip(pair.pivot.texts[pivot], pair.pivot.marker);
  for (let at = begin; at < end; at++) {
    const position = text.alignment.positions[at];
    const piece = strip(pair.source.texts[text.source[position]], pair.source.marker);
    if (target.endsWith(piece) || piece.endsWith(target)) return position;
  }
  return -1;
}

/** How many pivot positions each source position stands for. */
function usesOf({ source, alignment }: AlignedText): Int32Array {
  const uses = new Int32Array(source.length);
  for (const position of alignment.positions) uses[position]++;
  return uses;
}

/**
 * Which source row every pivot position takes; needs no logits.
 *
 * @param map of rules `fusellm-soft` and `fusechat`
 */
export function rowOrigins(
  pair: TokenPair,
  text: AlignedText,
  map: TokenMap | undefined,
  options: MoveOptions,
): RowOrigins {
  const { pivot, source, alignment } = text;
  const accepts = acceptanceOf(pair, map, options);
  const uses = usesOf(text);
  const several = options.rule === 'fusechat' && options.alignmentMatrix !== false;
  const positions = new Int32Array(pivot.length).fill(-1);
  const kinds = new Uint8Array(pivot.length).fill(FALLBACK);
  for (let j = 0; j < pivot.length; j++) {
    const begin = alignment.offsets[j];
    const end = alignment.offsets[j + 1];
    if (end - begin > 1) {
      positions[j] = several ? endingPosition(pair, text, begin, end, pivot[j]) : -1;
      if (positions[j] >= 0) kinds[j] = MANY_TO_ONE;
      continue;
    }
    const position = alignment.positions[begin];
    const kind = accepts(source[position], pivot[j], j === 0);
    if (kind < 0) continue;
    positions[j] = position;
    kinds[j] = kind === MAPPED && uses[position] > 1 ? ONE_TO_MANY : kind;
  }
  return { positions, kinds };
}

/** [source vocabulary] the pivot token that a source token's logit goes to; -1: it is dropped. */
export function translation(pair: TokenPair, map: TokenMap | undefined, options: MoveOptions): Int32Array {
  if (options.rule === 'fusellm-hard' || map === undefined) return pair.equal;
  if (options.rule === 'fusellm-soft') return map.pivotIds;
  return pair.equal.map((id, source) => (id >= 0 ? id : map.pivotIds[source]));
}

/**
 * Moves a source's top-k rows to the pivot's positions and vocabulary. Entries are walked in their order; the first that
 * reaches a pivot token stays, later ones are dropped, not added. A position without a source row is one-hot, logit 1.
 *
 * @param rows one a source position
 */
export function moveDistribution(
  pair: TokenPair,
  text: AlignedText,
  rows: SparseRows,
  map: TokenMap | undefined,
  options: MoveOptions,
): AlignedRows {
  const { positions, kinds } = rowOrigins(pair, text, map, options);
  const targets = translation(pair, map, options);
  const { pivot } = text;
  const last = pivot.length - 1;
  let capacity = 0;
  for (const position of positions) {
    capacity += position < 0 ? 1 : rows.offsets[position + 1] - rows.offsets[position];
  }
  const ids = new Int32Array(capacity);
  const logits = rows.logits instanceof Float32Array ? new Float32Array(capacity) : new Float64Array(capacity);
  const offsets = new Int32Array(pivot.length + 1);
  const seen = new Int32Array(pair.pivot.texts.length);
  let count = 0;
  for (let j = 0; j < pivot.length; j++) {
    const position = positions[j];
    if (position < 0) {
      ids[count] = options.fallback === 'fusellm' ? pivot[j] : pivot[Math.min(j + 1, last)];
      logits[count++] = 1;
    } else {
      for (let at = rows.offsets[position]; at < rows.offsets[position + 1]; at++) {
        const target = targets[rows.ids[at]];
        if (target < 0 || seen[target] === j + 1) continue;
        seen[target] = j + 1;
        ids[count] = target;
        logits[count++] = rows.logits[at];
      }
      if (count === offsets[j]) kinds[j] = EMPTY;
    }
    offsets[j + 1] = count;
  }
  return { offsets, ids: ids.slice(0, count), logits: logits.slice(0, count), kinds };
}
