import { directSquaredDistances } from '../../src/linalg/point-distances.js';
import { type Categories, categoriesOfCodes, categoriesOfLabels } from '../../src/representations/categories.js';
import { diffusionSpectrum } from '../../src/representations/diffusion-entropy.js';
import { gaussianKernel } from '../../src/representations/diffusion-kernel.js';
import { mutualInformation, mutualInformationTerms } from '../../src/representations/mutual-information.js';
import { spectralEntropy } from '../../src/representations/spectral-entropy.js';
import { isTensor, type Json } from './harness.js';
import { float64, int32, number, shapeOf } from './tensors.js';

/** Integers in one column are classes, reals are binned; for vectors the case gives the clusters. */
function categoriesOf(inputs: { [key: string]: Json }): Categories {
  const values = float64(inputs.reference, 'reference');
  const [, width = 1] = shapeOf(inputs.reference, 'reference');
  if (width > 1) return categoriesOfCodes(int32(inputs.cluster_of_sample, 'cluster_of_sample'), 'clusters');
  if (values.every(Number.isInteger)) return categoriesOfCodes(values, 'classes');
  return categoriesOfLabels({ kind: 'numbers', values }, number(inputs.n_clusters, 'n_clusters'), 'reference');
}

function subsetsOf(value: Json, name: string): Int32Array[] {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw new TypeError('no subsets');
  const lists = value[name];
  if (!Array.isArray(lists)) throw new TypeError(`no subsets of ${name}`);
  return lists.map((rows) => Int32Array.from(isTensor(rows) ? rows.data : (rows as number[]), Number));
}

export async function run(inputs: { [key: string]: Json }): Promise<unknown> {
  const z = float64(inputs.Z, 'Z');
  const [, d] = shapeOf(inputs.Z, 'Z');
  const sigma = number(inputs.sigma, 'sigma');
  const t = inputs.t === undefined ? 1 : number(inputs.t, 't');
  const categories = categoriesOf(inputs);
  const terms = await mutualInformationTerms(
    categories,
    (category) => subsetsOf(inputs.subsample_indices_per_cluster, categories.names[category]),
    async (rows) => {
      const points = new Float64Array(rows.length * d);
      rows.forEach((row, i) => {
        points.set(z.subarray(row * d, (row + 1) * d), i * d);
      });
      const kernel = directSquaredDistances(points, rows.length, d);
      gaussianKernel(kernel, rows.length, sigma);
      return Float64Array.of(spectralEntropy(diffusionSpectrum(kernel, rows.length, 'K').eigenvalues, t).bits);
    },
  );
  const byName = <T>(value: (term: (typeof terms)[number]) => T) =>
    Object.fromEntries(terms.map((term) => [term.name, value(term)]));
  return {
    dsmi_bits: mutualInformation(terms, 0).bits,
    dse_given_cluster_bits: byName(({ givenBits }) => givenBits[0]),
    dse_subsamples_bits: byName(({ subsetBits }) => subsetBits.map(([bits]) => bits)),
  };
}
