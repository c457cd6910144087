import { equalWidthBins } from '../../src/dependence/binning.js';
import { entropyEstimator } from '../../src/dependence/entropy-estimators.js';
import {
  bindMeasure,
  type EntropyTerm,
  entropyTerms,
  MEASURE_TERMS,
  measureOf,
} from '../../src/dependence/information.js';
import { jointTable } from '../../src/dependence/joint-table.js';
import {
  continuousVariable,
  frenzelPompe,
  kozachenkoLeonenko,
  ksg1,
  ksg2,
} from '../../src/dependence/neighbour-information.js';
import type { Json } from './harness.js';
import { float64, number } from './tensors.js';

export function run(inputs: { [key: string]: Json }): unknown {
  const [x, y, z] = ['x', 'y', 'z'].map((name) => continuousVariable(float64(inputs[name], name)));
  const k = number(inputs.k, 'k');
  const bins = number(inputs.bins, 'bins');
  const [bx, by, bz] = [x, y, z].map((variable) => equalWidthBins(variable.data, bins));
  const table = jointTable([bx, by, bz]);
  const binned = (terms: readonly EntropyTerm[], estimator = 'plugin'): number =>
    measureOf(bindMeasure(table, terms), table.counts, entropyEstimator(estimator));
  return {
    ksg1: ksg1(x, y, { k }).valueNats,
    ksg2: ksg2(x, y, { k }).valueNats,
    cmi_frenzel_pompe: frenzelPompe(x, y, z, { k }).valueNats,
    kl_entropy_x: kozachenkoLeonenko([x], { k }).valueNats,
    kl_entropy_xy: kozachenkoLeonenko([x, y], { k }).valueNats,
    binned_h_x: binned(entropyTerms(1)),
    binned_mi: binned(MEASURE_TERMS.mutual_information),
    binned_mi_miller_madow: binned(MEASURE_TERMS.mutual_information, 'miller-madow'),
    binned_cmi: binned(MEASURE_TERMS.conditional_mutual_information),
    binned_interaction_information: binned(MEASURE_TERMS.interaction_information),
  };
}
