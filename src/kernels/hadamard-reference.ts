import type { Rotation } from '../linalg/hadamard.js';

/**
 * The rotation in plain steps. Sums are taken in the order of the native kernel, so that both give the same bits:
 * butterflies of strides 1, 2, 4, ...; a core adds, input by input of four, what the four contribute to an output. What
 * is stored in a Float32Array is rounded there, which for sums and products of single numbers is the single result.
 */

/** Inputs of a core that share a table of their sixteen signed sums. */
const GROUP = 4;

/** Butterflies of H_segment on every run of `segment` entries: the order of Sylvester, H[a][b] = (-1)^popcount(a & b). */
function butterflies(x: Float32Array | Float64Array, segment: number): void {
  for (let stride = 1; stride < segment; stride *= 2) {
    for (let start = 0; start < x.length; start += 2 * stride) {
      for (let j = start; j < start + stride; j++) {
        const [a, b] = [x[j], x[j + stride]];
        x[j] = a + b;
        x[j + stride] = a - b;
      }
    }
  }
}

/** The sixteen sums of four inputs: bit i of the index is set where input i is subtracted. */
function signedSums(
  inputs: Float32Array | Float64Array,
  table: Float32Array | Float64Array,
  pairs: typeof table,
): void {
  const [a, b, c, d] = inputs;
  pairs[0] = a + b;
  pairs[1] = b - a;
  pairs[2] = a - b;
  pairs[3] = -pairs[0];
  pairs[4] = c + d;
  pairs[5] = d - c;
  pairs[6] = c - d;
  pairs[7] = -pairs[4];
  for (let code = 0; code < 16; code++) table[code] = pairs[code & 3] + pairs[4 + (code >> 2)];
}

/**
 * x <- (H ⊗ I) x for a row x [core, segment] and the signs of H as codes [core, core / 4].
 * @param scratch [core], as wide as x
 */
function multiplyCore(
  x: Float32Array | Float64Array,
  core: number,
  segment: number,
  codes: Uint8Array,
  scratch: Float32Array | Float64Array,
): void {
  const make = (length: number): typeof x =>
    x instanceof Float32Array ? new Float32Array(length) : new Float64Array(length);
  const table = make(16);
  const pairs = make(8);
  const inputs = make(GROUP);
  const groups = core / GROUP;
  for (let j = 0; j < segment; j++) {
    scratch.fill(0);
    for (let g = 0; g < groups; g++) {
      for (let i = 0; i < GROUP; i++) inputs[i] = x[(GROUP * g + i) * segment + j];
      signedSums(inputs, table, pairs);
      for (let r = 0; r < core; r++) scratch[r] += table[codes[r * groups + g]];
    }
    for (let r = 0; r < core; r++) x[r * segment + j] = scratch[r];
  }
}

/**
 * Rotates every row of x [rows, n] in place.
 * @param diagonal [n], the signs over the root of the order of the Hadamard matrix, as wide as x
 * @param codes of the core, or of its transpose for the inverse; null without a core
 */
export function rotateRowsReference(
  x: Float32Array | Float64Array,
  rows: number,
  rotation: Rotation,
  inverse: boolean,
  diagonal: Float32Array | Float64Array,
  codes: Uint8Array | null,
): void {
  const { length: n, core, segment, permutation } = rotation;
  const scratch = x instanceof Float32Array ? new Float32Array(core) : new Float64Array(core);
  const held = permutation === undefined ? undefined : x.slice(0, n);
  for (let r = 0; r < rows; r++) {
    const row = x.subarray(r * n, (r + 1) * n);
    if (!inverse) {
      for (let i = 0; i < n; i++) row[i] *= diagonal[i];
      if (permutation !== undefined && held !== undefined) {
        held.set(row);
        for (let i = 0; i < n; i++) row[i] = held[permutation[i]];
      }
    }
    butterflies(row, segment);
    if (codes !== null) multiplyCore(row, core, segment, codes, scratch);
    if (inverse) {
      if (permutation !== undefined && held !== undefined) {
        held.set(row);
        for (let i = 0; i < n; i++) row[permutation[i]] = held[i];
      }
      for (let i = 0; i < n; i++) row[i] *= diagonal[i];
    }
  }
}
