import type { EncodedRows } from '../kernels/pyramid.js';

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/**
 * Matrices of a stack, encoded with one code and one set of levels, as the rows of one.
 * @throws RangeError when they differ in width or there is none
 */
export function concatenateRows(parts: readonly EncodedRows[]): EncodedRows {
  const [first] = parts;
  if (!first || parts.some(({ columns }) => columns !== first.columns)) {
    throw new RangeError('no matrices, or matrices of different widths');
  }
  if (parts.length === 1) return first;
  const scales = new Float32Array(parts.reduce((sum, part) => sum + part.rows, 0));
  let at = 0;
  for (const part of parts) {
    scales.set(part.scales, at);
    at += part.rows;
  }
  const zeros = parts.flatMap(({ zeroGroups }) => (zeroGroups ? [zeroGroups] : []));
  return {
    rows: scales.length,
    columns: first.columns,
    code: first.code,
    index: joined(parts.map(({ index }) => index)),
    gain: joined(parts.map(({ gain }) => gain)),
    scales,
    levels: first.levels,
    ...(zeros.length === parts.length && { zeroGroups: joined(zeros) }),
  };
}
