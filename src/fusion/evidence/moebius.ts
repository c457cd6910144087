/** Most elements for which arrays over all subsets are kept: 2^20 doubles are 8 MB. */
export const MOST_DENSE_ELEMENTS = 20;

/** f(A) becomes the sum of f(B) over B in A, in place; `values` [2^n]. From masses to implicabilities. */
export function sumSubsets(values: Float64Array, n: number): void {
  for (let bit = 1; bit < 1 << n; bit <<= 1) {
    for (let set = 0; set < values.length; set++) if (set & bit) values[set] += values[set ^ bit];
  }
}

/** Inverse of `sumSubsets`. */
export function subtractSubsets(values: Float64Array, n: number): void {
  for (let bit = 1; bit < 1 << n; bit <<= 1) {
    for (let set = 0; set < values.length; set++) if (set & bit) values[set] -= values[set ^ bit];
  }
}

/** f(A) becomes the sum of f(B) over B that hold A, in place. From masses to commonalities. */
export function sumSupersets(values: Float64Array, n: number): void {
  for (let bit = 1; bit < 1 << n; bit <<= 1) {
    for (let set = 0; set < values.length; set++) if (!(set & bit)) values[set] += values[set | bit];
  }
}

/** Inverse of `sumSupersets`. */
export function subtractSupersets(values: Float64Array, n: number): void {
  for (let bit = 1; bit < 1 << n; bit <<= 1) {
    for (let set = 0; set < values.length; set++) if (!(set & bit)) values[set] -= values[set | bit];
  }
}
