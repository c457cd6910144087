import type { Cell } from '../report/csv.js';
import type { TokenRouting } from './routing-statistics.js';

/** What a router did with single tokens, in their order. */
export interface RoutedTokens {
  count: number;
  /** 0-based among all tokens that the router was shown, [n]. */
  readonly positions: Int32Array;
  /** [n] each. */
  readonly entropyNats: Float64Array;
  readonly chosenEntropyNats: Float64Array;
  readonly logNormalizer: Float64Array;
  /** [n, k]: the most probable first. */
  readonly chosen: Int32Array;
  readonly weights: Float64Array;
}

/** Room for `capacity` tokens. */
export function createRoutedTokens(capacity: number, topK: number): RoutedTokens {
  return {
    count: 0,
    positions: new Int32Array(capacity),
    entropyNats: new Float64Array(capacity),
    chosenEntropyNats: new Float64Array(capacity),
    logNormalizer: new Float64Array(capacity),
    chosen: new Int32Array(capacity * topK),
    weights: new Float64Array(capacity * topK),
  };
}

/** Appends a token. @throws RangeError when there is no room */
export function logToken(tokens: RoutedTokens, routing: TokenRouting): void {
  const at = tokens.count++;
  const topK = routing.chosen.length;
  tokens.positions[at] = routing.token;
  tokens.entropyNats[at] = routing.entropyNats;
  tokens.chosenEntropyNats[at] = routing.chosenEntropyNats;
  tokens.logNormalizer[at] = routing.logNormalizer;
  tokens.chosen.set(routing.chosen, at * topK);
  tokens.weights.set(routing.weights, at * topK);
}

/** Columns of the table of tokens: one row a token and layer. `perNat` of the unit turns nats into it. */
export function tokenColumns(unit: string): string[] {
  return [
    'document',
    'document_id',
    'position',
    'token_id',
    'layer',
    `entropy_${unit}`,
    `topk_weight_entropy_${unit}`,
    'log_normalizer',
    'experts',
    'weights',
  ];
}

/** Where a token stands. */
export interface TokenPlace {
  readonly document: number;
  readonly documentId: string;
  readonly position: number;
  /** Absent where only logits are known. */
  readonly tokenId?: number;
  readonly layer: number;
}

/** The row of token `i`. Experts and weights are lists with a space between, the most probable first. */
export function tokenRow(place: TokenPlace, tokens: RoutedTokens, i: number, perNat: number): Cell[] {
  const topK = tokens.chosen.length / tokens.positions.length;
  const from = i * topK;
  return [
    place.document,
    place.documentId,
    place.position,
    place.tokenId,
    place.layer,
    tokens.entropyNats[i] * perNat,
    tokens.chosenEntropyNats[i] * perNat,
    tokens.logNormalizer[i],
    tokens.chosen.subarray(from, from + topK).join(' '),
    tokens.weights.subarray(from, from + topK).join(' '),
  ];
}
