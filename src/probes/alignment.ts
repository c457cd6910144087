import { didYouMean, InputError } from '../errors.js';
import type { Labels } from '../formats/labels.js';

/** What names the rows of one file. */
export interface NamedRows {
  readonly name: string;
  readonly rows: number;
  readonly ids?: readonly string[];
}

/**
 * Holds that all members of a split have the same rows in the same order.
 * @throws InputError with both numbers of rows, or both ids at the first row where they differ
 */
export function checkAligned(members: readonly NamedRows[]): void {
  const [first, ...others] = members;
  for (const other of others) {
    if (other.rows !== first.rows) {
      throw new InputError(
        `${other.name}: has ${other.rows} rows, ${first.name} has ${first.rows}; members must describe the same inputs`,
      );
    }
    if (!first.ids || !other.ids) continue;
    for (let row = 0; row < first.rows; row++) {
      if (first.ids[row] === other.ids[row]) continue;
      throw new InputError(
        `row ${row}: id "${first.ids[row]}" in ${first.name}, but "${other.ids[row]}" in ${other.name}; ` +
          'write all members in the same order',
      );
    }
  }
}

/**
 * Class codes of a split in the order of the training classes.
 * @throws InputError naming a class that the training rows lack
 */
export function alignClasses(labels: Labels, names: readonly string[], split: string): Int32Array {
  if (labels.kind !== 'classes') {
    throw new InputError(`${split}: labels are amounts, those of the training rows are classes; set --label-kind`);
  }
  const codeOf = new Map(names.map((name, code) => [name, code]));
  const codes = labels.names.map((name) => codeOf.get(name) ?? -1);
  return Int32Array.from(labels.codes, (code, row) => {
    if (codes[code] >= 0) return codes[code];
    const name = labels.names[code];
    throw new InputError(
      `${split}: row ${row} has class "${name}", which is missing from the training rows` +
        `${didYouMean(name, names)}; give it training rows or leave its rows out`,
    );
  });
}

/**
 * Classes that have training rows, and their codes.
 * @throws InputError when there are fewer than two
 */
export function trainingClasses(codes: Int32Array, names: readonly string[]): { names: string[]; codes: Int32Array } {
  const counts = new Int32Array(names.length);
  for (const code of codes) counts[code]++;
  const kept = names.filter((_, code) => counts[code] > 0);
  if (kept.length < 2) {
    throw new InputError(`a probe needs two classes; the training rows have ${kept.length} ("${kept.join('", "')}")`);
  }
  const codeOf = new Map(kept.map((name, code) => [name, code]));
  return { names: kept, codes: Int32Array.from(codes, (code) => codeOf.get(names[code]) ?? -1) };
}
