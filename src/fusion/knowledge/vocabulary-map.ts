import { InputError } from '../../errors.js';
import { levenshtein } from './levenshtein.js';
import { editIndex, type NearestTexts, nearestTexts } from './minimum-edit.js';
import type { TokenPair } from './token-pair.js';
import type { TokenMap, TokenMapKind } from './types.js';

/** Finds, for each query, the first of `texts` at the least Levenshtein distance. */
export type NearestSearch = (texts: readonly string[], queries: readonly string[]) => NearestTexts;

const searchHere: NearestSearch = (texts, queries) => nearestTexts(editIndex(texts), queries);

/** `hard`: a source token stands for the pivot token of the same string, or for none. */
export function exactMap(pair: TokenPair): TokenMap {
  return { kind: 'exact', pivotIds: pair.equal.slice(), distances: pair.equal.map((id) => (id < 0 ? -1 : 0)) };
}

/** Source tokens without an equal in the pivot's vocabulary: their distinct strings, and the ids that share each. */
export function withoutEqual(pair: TokenPair): Map<string, number[]> {
  const open = new Map<string, number[]>();
  pair.swapped.forEach((text, id) => {
    if (text === '' || pair.equal[id] >= 0) return;
    const ids = open.get(text);
    if (ids) ids.push(id);
    else open.set(text, [id]);
  });
  return open;
}

/**
 * MinED: a source token stands for the pivot token of the same string (markers swapped), else for the one at the least
 * Levenshtein distance, the first in the vocabulary's order among equals. FuseLLM, section 3.2.
 */
export function minimumEditMap(pair: TokenPair, search: NearestSearch = searchHere): TokenMap {
  const pivotIds = pair.equal.slice();
  const distances: Int32Array = pair.equal.map((id) => (id < 0 ? -1 : 0));
  const open = withoutEqual(pair);
  const found = search(pair.pivot.texts, [...open.keys()]);
  [...open.values()].forEach((ids, q) => {
    for (const id of ids) {
      pivotIds[id] = found.nearest[q];
      distances[id] = found.distances[q];
    }
  });
  return { kind: 'mined', pivotIds, distances };
}

/** Distances of a map that was chosen otherwise. */
export function mapDistances(pair: TokenPair, pivotIds: Int32Array): Int32Array {
  return pivotIds.map((pivot, source) =>
    pivot < 0 || pair.source.texts[source] === '' ? -1 : levenshtein(pair.swapped[source], pair.pivot.texts[pivot]),
  );
}

/** A map in FuseLLM's form: the source's string, markers swapped, to the pivot's. */
export function mapByText(pair: TokenPair, map: TokenMap): Record<string, string> {
  const byText: Record<string, string> = Object.create(null) as Record<string, string>;
  pair.swapped.forEach((text, id) => {
    if (text !== '' && map.pivotIds[id] >= 0) byText[text] = pair.pivot.texts[map.pivotIds[id]];
  });
  return byText;
}

/**
 * The map that a file in FuseLLM's form describes.
 *
 * @throws InputError for a pivot token that the vocabulary does not have
 */
export function mapFromText(
  pair: TokenPair,
  byText: Readonly<Record<string, string>>,
  kind: TokenMapKind,
  file: string,
): TokenMap {
  const pivotIds = Int32Array.from(pair.swapped, (text) => {
    if (text === '' || !Object.hasOwn(byText, text)) return -1;
    const id = pair.pivotIdOf.get(byText[text]);
    if (id !== undefined) return id;
    throw new InputError(
      `${file}: ${JSON.stringify(text)} stands for ${JSON.stringify(byText[text])}, which the pivot's vocabulary does not ` +
        'have; use the map of these two tokenizers',
    );
  });
  return { kind, pivotIds, distances: mapDistances(pair, pivotIds) };
}
