import { asymptoticTest } from '../../src/dependence/contingency.js';
import { profileOf } from '../../src/dependence/count-profile.js';
import { entropyEstimator, leaveOneOut } from '../../src/dependence/entropy-estimators.js';
import { deltaStandardError, pluginEntropy, pluginOfRows } from '../../src/dependence/entropy-plugin.js';
import { bindMeasure, MEASURE_TERMS, measureOf } from '../../src/dependence/information.js';
import { bootstrapIntervals, type Interval } from '../../src/dependence/intervals.js';
import { jointTable } from '../../src/dependence/joint-table.js';
import { judgeAgainst } from '../../src/dependence/permutation.js';
import { measureInOrder } from '../../src/dependence/shuffled-measure.js';
import { countSymbols, symbolsOf } from '../../src/dependence/symbols.js';
import type { Json } from './harness.js';
import { float64, number, numbers, tensor } from './tensors.js';

const rowsOf = (value: Json, name: string): number[][] =>
  Array.isArray(value) ? value.map((row) => numbers(row, name)) : [];
const ends = ({ low, high }: Interval): number[] => [low, high];

export function run(inputs: { [key: string]: Json }): unknown {
  const [x, y] = ['x', 'y'].map((name) => symbolsOf(float64(inputs[name], name)));
  const plugin = entropyEstimator('plugin');
  const table = jointTable([x, y]);
  const mi = measureOf(bindMeasure(table, MEASURE_TERMS.mutual_information), table.counts, plugin);
  const [hx, hy] = [x, y].map((symbols) => pluginEntropy(profileOf(countSymbols(symbols))));
  const shuffled = { exchanged: x, fixed: hx + hy, joined: [{ sign: -1 as const, other: y, support: 0 }] };
  const value = measureInOrder(shuffled, plugin);
  const orders = rowsOf(inputs.permutations, 'permutations');
  const values = orders.map((order) => value(Int32Array.from(order)));
  const test = judgeAgainst(mi, values);
  const asymptotic = asymptoticTest([{ rows: countSymbols(x), columns: countSymbols(y) }], mi);
  const profile = profileOf(countSymbols(x));
  const entropy = pluginOfRows(x.codes);
  const replicates = Float64Array.from(rowsOf(inputs.bootstrap, 'bootstrap'), (rows) => pluginOfRows(x.codes, rows));
  const jackknife = {
    values: leaveOneOut(profile, 0, plugin),
    weights: profile.values.map((count, g) => count * profile.multiplicities[g]),
  };
  const boot = bootstrapIntervals(entropy, replicates, jackknife, number(inputs.alpha, 'alpha'));
  return {
    mi,
    null: values,
    p_value: test.pValue,
    null_mean: test.nullMean,
    mi_minus_null_mean: test.excess,
    g_statistic: asymptotic.statistic,
    df: asymptotic.degreesOfFreedom,
    p_value_chi2: asymptotic.pValue,
    entropy_x: entropy,
    boot: tensor([replicates.length], replicates),
    boot_bias: boot.bias,
    bias_corrected: boot.corrected,
    se_boot: boot.se,
    se_delta: deltaStandardError(profile),
    ci_percentile: ends(boot.percentile),
    ci_basic: ends(boot.basic),
    ci_normal_bias_corrected: ends(boot.normal),
    z0: boot.z0,
    acceleration: boot.acceleration,
    ci_bca: ends(boot.bca),
  };
}
