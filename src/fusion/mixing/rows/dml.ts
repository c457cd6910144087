import { InputError } from '../../../errors.js';
import { fitLogLinearLaw } from '../law-fit.js';
import { lawOptimum } from '../law-optimum.js';
import type { MixingMethod } from '../types.js';

/**
 * Data mixing laws (Ye et al. 2024): L_i(p) = b_i + a_i exp(sum_j M_ji p_j), fitted to runs on static mixtures; its minimum over
 * the simplex is trained on from the first step to the last.
 */
export const dml: MixingMethod = {
  name: 'dml',
  summary: 'data mixing laws: the minimum of a log-linear law fitted to a sweep of runs',
  law: 'log-linear-static',
  evidence: null,
  parameters: () => ({ floor: 0 }),
  create({ groups, sweep, seed }) {
    if (sweep === undefined) throw new InputError('dml needs a sweep: mixtures and the losses behind runs on them');
    const k = groups.length;
    const proportions = lawOptimum(fitLogLinearLaw(sweep, { seed }), { seed }).mixture;
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
