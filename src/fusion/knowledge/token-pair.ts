import { codePoints, levenshtein } from './levenshtein.js';
import type { TokenTexts } from './types.js';

/** Two vocabularies side by side: what alignment, maps and moved distributions all ask for. */
export interface TokenPair {
  readonly source: TokenTexts;
  readonly pivot: TokenTexts;
  /** Source tokens with every space marker replaced by the pivot's. */
  readonly swapped: readonly string[];
  /** [source vocabulary] pivot id of the same string, the marker replaced; -1 where the pivot has none. */
  readonly equal: Int32Array;
  /** Pivot ids by string; where a string stands twice, the later id, as a Python dictionary keeps it. */
  readonly pivotIdOf: ReadonlyMap<string, number>;
  /** Source ids by swapped string. */
  readonly sourceIdOf: ReadonlyMap<string, number>;
}

/** Every occurrence of the marker left out. */
export function strip(text: string, marker: string): string {
  return marker === '' ? text : text.replaceAll(marker, '');
}

function idsByText(texts: readonly string[]): Map<string, number> {
  const ids = new Map<string, number>();
  texts.forEach((text, id) => {
    if (text !== '') ids.set(text, id);
  });
  return ids;
}

export function tokenPair(source: TokenTexts, pivot: TokenTexts): TokenPair {
  const swapped = source.texts.map((text) => text.replaceAll(source.marker, pivot.marker));
  const pivotIdOf = idsByText(pivot.texts);
  const equal = Int32Array.from(swapped, (text) => (text === '' ? -1 : (pivotIdOf.get(text) ?? -1)));
  return { source, pivot, swapped, equal, pivotIdOf, sourceIdOf: idsByText(swapped) };
}

/**
 * How tokens are compared while two sequences are aligned. `fusellm`: both markers stripped. `fusechat`: where that
 * leaves an empty string, the source's marker becomes the pivot's and nothing is stripped, so that a lone marker costs.
 */
export type CostRule = 'fusellm' | 'fusechat';

/** The two strings that are compared. */
export function comparedTexts(pair: TokenPair, source: number, pivot: number, rule: CostRule): [string, string] {
  const a = strip(pair.source.texts[source], pair.source.marker);
  const b = strip(pair.pivot.texts[pivot], pair.pivot.marker);
  const raw = rule === 'fusechat' && (a === '' || b === '');
  return raw ? [pair.swapped[source], pair.pivot.texts[pivot]] : [a, b];
}

/** Code points of a list of texts, stripped, computed when asked for. */
export function strippedPoints(texts: readonly string[], marker: string): (id: number) => Int32Array {
  const known: (Int32Array | undefined)[] = [];
  return (id) => {
    known[id] ??= codePoints(strip(texts[id], marker));
    return known[id];
  };
}

/** Distance by which FuseChat weighs two tokens: a tenth where one contains the other. */
export function containedDistance(pair: TokenPair, source: number, pivot: number): number {
  const [a, b] = comparedTexts(pair, source, pivot, 'fusechat');
  const weight = a.includes(b) || b.includes(a) ? 0.1 : 1;
  return levenshtein(a, b) * weight;
}
