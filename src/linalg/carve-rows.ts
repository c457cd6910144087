import { createRandom } from '../random.js';

/**
 * Takes shares of rows out of the training rows, by class where there are classes, so that each keeps its share and a
 * class of few rows stays in training.
 * @param groups class of every row, or null
 * @param shares of the parts that are taken, in their order
 * @returns ascending row numbers: what is left, then every part
 */
export function carveRows(
  rows: number,
  groups: Int32Array | null,
  shares: readonly number[],
  seed: number,
): { readonly rest: Int32Array; readonly parts: Int32Array[] } {
  const order = createRandom(seed).fork(0x73706c69).permutation(rows);
  const byGroup = new Map<number, number[]>();
  for (const row of order) {
    const group = groups?.[row] ?? 0;
    const members = byGroup.get(group) ?? [];
    members.push(row);
    byGroup.set(group, members);
  }
  const rest: number[] = [];
  const parts: number[][] = shares.map(() => []);
  for (const members of byGroup.values()) {
    let at = 0;
    shares.forEach((share, p) => {
      const count = Math.floor(share * members.length);
      parts[p].push(...members.slice(at, at + count));
      at += count;
    });
    rest.push(...members.slice(at));
  }
  return { rest: Int32Array.from(rest).sort(), parts: parts.map((part) => Int32Array.from(part).sort()) };
}
