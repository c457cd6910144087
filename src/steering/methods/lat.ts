import { createRandom } from '../../random.js';
import { type ContrastMethod, checkPairs, orient, pairDifferences } from './contrast.js';
import { centred, firstComponent } from './principal-component.js';

const SIGN_STREAM = 0x6c617473;

/**
 * Linear artificial tomography (Zou et al. 2023): differences in a random order of the two members, centred, then the
 * first principal component. The random signs keep the mean difference out of the centre, where `pca-diff` loses it.
 */
export const LAT: ContrastMethod = {
  name: 'lat',
  aliases: [],
  summary: 'first component of differences with random signs, centred (linear artificial tomography)',
  direction(rows, options = {}) {
    checkPairs(rows);
    const random = createRandom(options.seed ?? 0).fork(SIGN_STREAM);
    const signs = Float64Array.from({ length: rows.pairs }, () => (random.uniform() < 0.5 ? -1 : 1));
    const signed = pairDifferences(rows).map((value, at) => signs[Math.floor(at / rows.width)] * value);
    const what = 'lat: differences minus their mean';
    const found = firstComponent(centred(signed, rows.width), rows.width, what, options.threads);
    return { ...found, vector: orient(found.vector, rows, options.sign) };
  },
};
