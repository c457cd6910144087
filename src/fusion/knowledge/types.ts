/** Sparse rows of logits over a vocabulary: entries of row t lie at `offsets[t]` .. `offsets[t + 1]`. */
export interface SparseRows {
  /** [rows + 1] */
  readonly offsets: Int32Array;
  /** Token ids; within a row none stands twice. */
  readonly ids: Int32Array;
  /** Raw logits beside {@link ids}; top-k rows are in descending order. */
  readonly logits: Float64Array | Float32Array;
}

/**
 * How a row over the pivot's vocabulary came about:
 * - `exact`: one source position, whose token is the pivot's token
 * - `mapped`: one source position, whose token only stands for the pivot's token (by the map, or as an ending of it)
 * - `one-to-many`: as `mapped`, but the source position also stands for other pivot positions
 * - `many-to-one`: several source positions, one of which gave the row
 * - `fallback`: one-hot
 * - `empty`: no entry; the pivot's own distribution takes its place
 */
export const ROW_KINDS = ['exact', 'mapped', 'one-to-many', 'many-to-one', 'fallback', 'empty'] as const;

export type RowKind = (typeof ROW_KINDS)[number];

/** Rows over the pivot's vocabulary, one a position of the pivot's sequence; row j predicts token j + 1. */
export interface AlignedRows extends SparseRows {
  /** [rows], indices into {@link ROW_KINDS}. */
  readonly kinds: Uint8Array;
}

/** One row of {@link AlignedRows}; its arrays are views. */
export interface AlignedRow {
  readonly ids: Int32Array;
  readonly logits: Float64Array | Float32Array;
  readonly kind: RowKind;
}

/** Row `t` of aligned rows. */
export function alignedRow(rows: AlignedRows, t: number): AlignedRow {
  const begin = rows.offsets[t];
  const end = rows.offsets[t + 1];
  return {
    ids: rows.ids.subarray(begin, end),
    logits: rows.logits.subarray(begin, end),
    kind: ROW_KINDS[rows.kinds[t]],
  };
}

/** The strings by which a tokenizer's tokens are compared with another's. */
export interface TokenTexts {
  /** By id; empty for an id without a token. */
  readonly texts: readonly string[];
  /** What stands for a space at the head of a token: `▁` (SentencePiece), `Ġ` (byte-level) or a space (decoded). */
  readonly marker: string;
  readonly bosId?: number;
  readonly eosId?: number;
  readonly unkId?: number;
}

/** Source positions of every pivot position: those of position j lie at `offsets[j]` .. `offsets[j + 1]`, ascending. */
export interface SequenceAlignment {
  /** [pivot positions + 1] */
  readonly offsets: Int32Array;
  readonly positions: Int32Array;
  /** Sum of the costs along the path. */
  readonly cost: number;
}

export type TokenMapKind = 'exact' | 'mined' | 'cooccurrence' | 'ms';

/** For every source token the pivot token that stands for it. */
export interface TokenMap {
  readonly kind: TokenMapKind;
  /** [source vocabulary] pivot id; -1 where there is none. */
  readonly pivotIds: Int32Array;
  /** [source vocabulary] Levenshtein distance of the two strings, the source's marker replaced by the pivot's; -1 where there is none. */
  readonly distances: Int32Array;
  /** [source vocabulary] how often the two were matched; of maps by statistics only. */
  readonly counts?: Float64Array;
  /** Source tokens whose choice the context changed; of maps by co-occurrence only. */
  readonly refined?: Int32Array;
}

/**
 * How distributions are moved.
 * `fusellm-hard`: only positions whose tokens are equal, only equal tokens. `fusellm-soft`: tokens by the map.
 * `fusechat`: a token may be an ending of the other; tokens by their text, else by the map.
 */
export type MoveRule = 'fusellm-hard' | 'fusellm-soft' | 'fusechat';

export interface MoveOptions {
  readonly rule: MoveRule;
  /** Of a position without a source: the next pivot token (which the row predicts), or FuseLLM's, the token itself. Default `next`. */
  readonly fallback?: 'next' | 'fusellm';
  /** FuseChat: whether a pivot position with several source positions may take the row of one of them. Default true. */
  readonly alignmentMatrix?: boolean;
}
