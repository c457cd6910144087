/** Items by what they equal: class of each item, and how many items each class has, classes in order of appearance. */
export interface EqualityClasses {
  readonly classOf: Int32Array;
  readonly sizes: Int32Array;
}

export function equalityClasses(items: readonly string[]): EqualityClasses {
  const index = new Map<string, number>();
  const sizes: number[] = [];
  const classOf = Int32Array.from(items, (item) => {
    let found = index.get(item);
    if (found === undefined) {
      found = sizes.length;
      index.set(item, found);
      sizes.push(0);
    }
    sizes[found]++;
    return found;
  });
  return { classOf, sizes: Int32Array.from(sizes) };
}

/**
 * Eigenvalues, ascending, of the kernel that is 1 for equal items and 0 for others, over `rows`: the share of every
 * class, or the sum of its weights. No matrix is needed, for any number of items.
 */
export function matchEigenvalues(
  { classOf, sizes }: EqualityClasses,
  options: { readonly rows?: Int32Array; readonly weights?: Float64Array } = {},
): Float64Array {
  const { rows, weights } = options;
  const shares = new Float64Array(sizes.length);
  const count = rows?.length ?? classOf.length;
  let total = 0;
  for (let i = 0; i < count; i++) {
    const row = rows?.[i] ?? i;
    const weight = weights?.[row] ?? 1;
    shares[classOf[row]] += weight;
    total += weight;
  }
  for (let i = 0; i < shares.length; i++) shares[i] /= total;
  return shares.sort();
}
