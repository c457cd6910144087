import { symmetricRankK } from '../kernels/gemm.js';
import { symmetricSpectrum } from '../kernels/symmetric-spectrum.js';
import { centreColumns, ckaOfHsic, linearHsic } from '../linalg/cka.js';
import { type RankMeasures, rankMeasures, singularValuesOfGram } from '../linalg/rank-measures.js';

/** Features of one member over the rows that are measured, `[rows, columns]`. */
export interface HeldMember {
  readonly data: Float64Array;
  readonly columns: number;
}

/**
 * Singular values, descending, of members side by side over `rows` rows, not centred: from the second moment of their
 * features or, with fewer rows than features, from the sum of the members' products of rows. Nothing is concatenated
 * beyond the rows that are measured.
 */
export function singularValuesOfMembers(
  members: readonly HeldMember[],
  rows: number,
  options: { readonly threads?: number } = {},
): Float64Array {
  const features = members.reduce((sum, { columns }) => sum + columns, 0);
  if (features > rows) {
    const gram = new Float64Array(rows * rows);
    for (const { data, columns } of members) {
      symmetricRankK(data, gram, { n: rows, k: columns }, { beta: 1, ...options });
    }
    return singularValuesOfGram(symmetricSpectrum(gram, rows, options), rows);
  }
  const block = 512;
  const joined = new Float64Array(Math.min(block, rows) * features);
  const gram = new Float64Array(features * features);
  for (let start = 0; start < rows; start += block) {
    const count = Math.min(block, rows - start);
    let column = 0;
    for (const { data, columns } of members) {
      for (let r = 0; r < count; r++) {
        joined.set(data.subarray((start + r) * columns, (start + r + 1) * columns), r * features + column);
      }
      column += columns;
    }
    symmetricRankK(joined, gram, { n: features, k: count }, { transpose: true, beta: 1, ...options });
  }
  return singularValuesOfGram(symmetricSpectrum(gram, features, options), features);
}

export interface SetRank extends RankMeasures {
  readonly singularValues: Float64Array;
}

export function rankOfMembers(
  members: readonly HeldMember[],
  rows: number,
  options: { readonly threads?: number } = {},
): SetRank {
  const singularValues = singularValuesOfMembers(members, rows, options);
  return { ...rankMeasures(singularValues), singularValues };
}

/** Pairwise linear CKA `[m, m]` of members over the same rows. */
export function ckaOfMembers(members: readonly HeldMember[], rows: number, onPair?: () => void): Float64Array {
  const m = members.length;
  const centred = members.map(({ data, columns }) => centreColumns(data, rows, columns));
  const hsic = (i: number, j: number): number => {
    const value = linearHsic(centred[i], members[i].columns, centred[j], members[j].columns, rows);
    onPair?.();
    return value;
  };
  const own = members.map((_, i) => hsic(i, i));
  const result = new Float64Array(m * m);
  for (let i = 0; i < m; i++) {
    result[i * m + i] = own[i] > 0 ? 1 : Number.NaN;
    for (let j = 0; j < i; j++) {
      result[i * m + j] = ckaOfHsic(hsic(i, j), own[i], own[j]);
      result[j * m + i] = result[i * m + j];
    }
  }
  return result;
}
