import type { MixingMethod } from '../types.js';

/** The same share for every group. */
export const stratified: MixingMethod = {
  name: 'stratified',
  summary: 'every group has the share 1/k',
  law: 'none',
  evidence: null,
  parameters: () => ({}),
  create({ groups }) {
    const k = groups.length;
    const proportions = new Float64Array(k).fill(1 / k);
    return {
      proportions,
      update: () => ({
        matrix: null,
        used: null,
        exponent: new Float64Array(k),
        proportions,
        condition: null,
        signalToNoise: null,
      }),
      result: () => proportions,
    };
  },
};
