import { dualSource } from '../../src/diversity/feature-source.js';
import { gramSource } from '../../src/diversity/gram-source.js';
import { internalDiversity } from '../../src/diversity/internal-diversity.js';
import type { KernelSource } from '../../src/diversity/kernel-source.js';
import { rkeScore } from '../../src/diversity/rke.js';
import { checkSimilarity } from '../../src/diversity/similarity-matrix.js';
import { REFERENCE_FLOOR, truncatedSpectrum } from '../../src/diversity/truncated-vendi.js';
import { unitGram, unitRows } from '../../src/diversity/unit-rows.js';
import { kernelSpectrum, parseOrder, vendiScore } from '../../src/diversity/vendi-score.js';
import { checkWeights } from '../../src/diversity/weights.js';
import { arrayMatrix } from '../../src/formats/feature-matrix.js';
import { type TiledProducts, withProducts } from '../../src/linalg/tiled-products.js';
import type { Json } from './harness.js';
import { float64, keysOf, shapeOf, tensor } from './tensors.js';

/** The kernel matrix of a case, and the source of its scores: dual where features have fewer columns than rows. */
async function kernelOf(
  inputs: { [key: string]: Json },
  products: TiledProducts,
): Promise<{ k: Float64Array; n: number; dual: KernelSource }> {
  if (inputs.K !== undefined) {
    const [n] = shapeOf(inputs.K, 'K');
    const k = float64(inputs.K, 'K');
    checkSimilarity(k, n, { name: 'K' });
    return { k, n, dual: gramSource(k, n) };
  }
  const [n, d] = shapeOf(inputs.X, 'X');
  const rows = unitRows(arrayMatrix('X', float64(inputs.X, 'X'), n, d));
  const k = await unitGram(rows);
  return { k, n, dual: d < n ? dualSource(rows, { products }) : gramSource(k, n) };
}

export function run(inputs: { [key: string]: Json }, wanted: Json): Promise<unknown> {
  return withProducts({}, (products) => scoresOf(inputs, wanted, products));
}

async function scoresOf(inputs: { [key: string]: Json }, wanted: Json, products: TiledProducts): Promise<unknown> {
  const { k, n, dual } = await kernelOf(inputs, products);
  const gram = gramSource(k, n);
  const weights = inputs.p === undefined ? undefined : float64(inputs.p, 'p');
  if (weights) checkWeights(weights, n, 'p');
  const spectrum = kernelSpectrum(await dual.eigenvalues()).eigenvalues;
  const weighted = weights && kernelSpectrum(await gramSource(k, n, { weights }).eigenvalues()).eigenvalues;
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    const [, name, truncation, order] = /^(.*?)(?:_t(\d+))?_q([^_]+)$/.exec(key) ?? [undefined, key];
    const q = order === undefined ? Number.NaN : parseOrder(order);
    if (name === 'vendi' || name === 'score_X_reference') result[key] = vendiScore(spectrum, q);
    else if (name === 'weighted_vendi' && weighted) result[key] = vendiScore(weighted, q);
    else if (name === 'intdiv') result[key] = internalDiversity(k, n, q);
    else if (name === 'weighted_intdiv') result[key] = internalDiversity(k, n, q, weights);
    else if (name === 'truncated')
      result[key] = vendiScore(truncatedSpectrum(spectrum, Number(truncation), n, REFERENCE_FLOOR), q);
    else if (name === 'weighted_truncated' && weighted)
      result[key] = vendiScore(truncatedSpectrum(weighted, Number(truncation), n, REFERENCE_FLOOR), q);
    else if (name === 'rke_frobenius_form') result[key] = rkeScore(await gram.squaredNorm()).score;
    else if (name === 'rke_log') result[key] = rkeScore(await gram.squaredNorm()).entropyNats;
    else if (name === 'eigenvalues_of_K_over_n')
      result[key] = tensor([n], (await gram.eigenvalues()).slice().sort().reverse());
  }
  return result;
}
