import { entropyEstimator } from '../../src/dependence/entropy-estimators.js';
import { bindMeasure, MEASURE_TERMS, measureOf } from '../../src/dependence/information.js';
import { jointTable } from '../../src/dependence/joint-table.js';
import { segmentsOf } from '../../src/dependence/row-orders.js';
import { type Symbols, symbolsOf } from '../../src/dependence/symbols.js';
import { historyOf, pastSymbols, presentSymbols } from '../../src/dependence/transfer.js';
import type { Json } from './harness.js';
import { float64, number } from './tensors.js';

export function run(inputs: { [key: string]: Json }): unknown {
  const [x, y] = ['x', 'y'].map((name) => symbolsOf(float64(inputs[name], name)));
  const k = number(inputs.k, 'k');
  const l = number(inputs.l, 'l');
  const plugin = entropyEstimator('plugin');
  const segments = segmentsOf(x.codes.length);
  const transfer = (source: Symbols, target: Symbols): number => {
    const history = historyOf(segments, Math.max(k, l), 'series');
    const variables = [
      presentSymbols(target, history),
      pastSymbols(source, history, l),
      pastSymbols(target, history, k),
    ];
    const table = jointTable(variables);
    return measureOf(bindMeasure(table, MEASURE_TERMS.conditional_mutual_information), table.counts, plugin);
  };
  const storage = (target: Symbols): number => {
    const history = historyOf(segments, k, 'series');
    const table = jointTable([presentSymbols(target, history), pastSymbols(target, history, k)]);
    return measureOf(bindMeasure(table, MEASURE_TERMS.mutual_information), table.counts, plugin);
  };
  return {
    te_x_to_y: transfer(x, y),
    te_y_to_x: transfer(y, x),
    active_information_y: storage(y),
    active_information_x: storage(x),
  };
}
