import { gaussianGram } from '../../src/diversity/gaussian-kernel.js';
import { gramSource } from '../../src/diversity/gram-source.js';
import { rkeScore, squaredNorm } from '../../src/diversity/rke.js';
import { kernelSpectrum, parseOrder, vendiScore } from '../../src/diversity/vendi-score.js';
import { arrayMatrix } from '../../src/formats/feature-matrix.js';
import { symmetricSpectrum } from '../../src/kernels/symmetric-spectrum.js';
import { featureCovariance } from '../../src/linalg/feature-map.js';
import { fourierMap } from '../../src/linalg/random-features.js';
import { withProducts } from '../../src/linalg/tiled-products.js';
import type { Json } from './harness.js';
import { float64, keysOf, number, shapeOf, tensor } from './tensors.js';

export function run(inputs: { [key: string]: Json }, wanted: Json): Promise<unknown> {
  return withProducts({}, async (products) => {
    const [n, d] = shapeOf(inputs.X, 'X');
    const [, frequencies] = shapeOf(inputs.omega, 'omega');
    const x = float64(inputs.X, 'X');
    const map = fourierMap(arrayMatrix('X', x, n, d), float64(inputs.omega, 'omega'), frequencies, { products });
    const covariance = await featureCovariance(map, { products });
    const approximate = kernelSpectrum(symmetricSpectrum(covariance.slice(), map.features)).eigenvalues;
    const gram = gramSource(await gaussianGram(x, n, d, number(inputs.sigma, 'sigma'), products), n);
    const exact = kernelSpectrum(await gram.eigenvalues()).eigenvalues;
    const result: Record<string, unknown> = {};
    for (const key of keysOf(wanted)) {
      const [, name, order] = /^(vendi_fkea|vendi_exact)_q(.+)$/.exec(key) ?? [];
      if (name !== undefined) result[key] = vendiScore(name === 'vendi_fkea' ? approximate : exact, parseOrder(order));
      else if (key === 'rke_fkea') result[key] = vendiScore(approximate, 2);
      else if (key === 'rke_fkea_from_frobenius') result[key] = rkeScore(squaredNorm(covariance)).score;
      else if (key === 'rke_exact') result[key] = rkeScore(await gram.squaredNorm()).score;
      else if (key === 'top_eigenvalues') {
        const top = approximate.slice(0, 10);
        result[key] = tensor([top.length], top);
      }
    }
    return result;
  });
}
