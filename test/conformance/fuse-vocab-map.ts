import {
  type CoOccurrence,
  countCoOccurrence,
  refineByCoOccurrence,
} from '../../src/fusion/knowledge/co-occurrence.js';
import { candidateSearch, editIndex } from '../../src/fusion/knowledge/minimum-edit.js';
import { mapByText, minimumEditMap, withoutEqual } from '../../src/fusion/knowledge/vocabulary-map.js';
import { pairOf } from './fuse-token-align.js';
import type { Json } from './harness.js';
import { keysOf, number, numbers, tensor } from './tensors.js';

type Inputs = { [key: string]: Json };

function counted(inputs: Inputs, side: 'source' | 'pivot'): CoOccurrence {
  const rows: CoOccurrence = new Map();
  for (const text of inputs[`${side}_texts_ids`] as Json[]) {
    countCoOccurrence(rows, Int32Array.from(numbers(text, side)), number(inputs.window, 'window'));
  }
  return rows;
}

function dense(rows: CoOccurrence, size: number): unknown {
  const values = new Float64Array(size * size);
  for (const [row, entries] of rows) for (const [column, count] of entries) values[row * size + column] = count;
  return tensor([size, size], values, 'int64');
}

export function run(inputs: Inputs, wanted: Json): unknown {
  const pair = pairOf(inputs);
  const mined = minimumEditMap(pair);
  const named: Record<string, unknown> = {};
  if ('window' in inputs) {
    const source = counted(inputs, 'source');
    const pivot = counted(inputs, 'pivot');
    const refined = refineByCoOccurrence(pair, mined, source, pivot);
    const text = (id: number) => pair.pivot.texts[id];
    named.mapping = mapByText(pair, refined);
    named.updated = Object.fromEntries(
      Array.from(refined.refined ?? [], (id) => [
        pair.swapped[id],
        [text(mined.pivotIds[id]), text(refined.pivotIds[id])],
      ]),
    );
    named.pivot_cooccurrence = dense(pivot, pair.pivot.texts.length);
    named.source_cooccurrence = dense(source, pair.source.texts.length);
  } else {
    const nearestOf = candidateSearch(editIndex(pair.pivot.texts));
    named.mapping = mapByText(pair, mined);
    named.candidates = Object.fromEntries(
      [...withoutEqual(pair).keys()].map((query) => [
        query,
        Array.from(nearestOf(query), (id) => pair.pivot.texts[id]),
      ]),
    );
  }
  return Object.fromEntries(keysOf(wanted).map((key) => [key, named[key]]));
}
