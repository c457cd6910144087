import { type EqualityClasses, matchEigenvalues } from './exact-match.js';
import { allBut, itemParts, type KernelSource } from './kernel-source.js';

/** The kernel that is 1 for equal items: its eigenvalues are the shares of the classes. */
export function matchSource(classes: EqualityClasses, weights?: Float64Array): KernelSource {
  const { classOf, sizes } = classes;
  const n = classOf.length;
  const of = async (rows?: Int32Array): Promise<Float64Array> =>
    matchEigenvalues(classes, { ...(rows && { rows }), ...(weights && { weights }) });
  const squares = async (): Promise<number> => (await of()).reduce((sum, share) => sum + share * share, 0);
  return {
    path: 'counts',
    items: n,
    order: sizes.length,
    eigenvalues: of,
    eigenvaluesWithout: (item) => of(allBut(n, item)),
    squaredNorm: squares,
    rowSquares: async () => Float64Array.from(classOf, (found) => sizes[found]),
    meanPower: squares,
    similarity: (i, j) => (classOf[i] === classOf[j] ? 1 : 0),
    parts: async (strata) => itemParts(strata, of),
    leading: async () => undefined,
  };
}
