import type { Points } from '../kernels/neighbours.js';
import { NEIGHBOUR_ESTIMATORS } from './continuous-analysis.js';
import { checkSupport } from './count-profile.js';
import { MEASURE_TERMS } from './information.js';
import type { JointTable } from './joint-table.js';
import {
  type Bench,
  discreteData,
  exchangeOf,
  isSymbols,
  type MeasureResult,
  measureContinuous,
  measureDiscrete,
  requireOneKind,
} from './measure-bench.js';
import { type History, historyOf, pastPoints, pastSymbols, presentPoints, presentSymbols } from './transfer.js';

/** T(source -> target) and A(target), each in both directions. */
export function transferOf(bench: Bench): MeasureResult[] {
  const { history: k, lag: l } = bench.args.settings;
  const { variables } = bench;
  requireOneKind(variables, 'transfer entropy');
  const results: MeasureResult[] = [];
  const what = variables.map(({ name }) => name).join(', ');
  const shared = historyOf(bench.segments, Math.max(k, l), what);
  const alone = historyOf(bench.segments, k, what);
  for (const [source, target] of [
    [0, 1],
    [1, 0],
  ]) {
    results.push(transferBetween(bench, source, target, shared));
  }
  for (const target of [0, 1]) results.push(storageOf(bench, target, alone));
  return results;
}

function transferBetween(bench: Bench, source: number, target: number, history: History): MeasureResult {
  const { settings } = bench.args;
  const [from, to] = [bench.variables[source], bench.variables[target]];
  const of = `${from.name} -> ${to.name}`;
  const exchange = exchangeOf(bench, history.segments);
  if (isSymbols(from) && isSymbols(to)) {
    const data = discreteData([
      presentSymbols(to.symbols, history),
      pastSymbols(from.symbols, history, settings.lag),
      pastSymbols(to.symbols, history, settings.history),
    ]);
    return measureDiscrete(bench, data, historySupports(bench, data.table, source, target), history.segments, {
      measure: 'transfer_entropy',
      of,
      terms: MEASURE_TERMS.conditional_mutual_information,
      subset: [0, 1, 2],
      test: { kind: 'transfer', exchange },
      exchangeable: false,
    });
  }
  const points = [from, to].map((variable) => (variable.kind === 'numbers' ? variable.points : undefined));
  const [sourcePoints, targetPoints] = points as [Points, Points];
  return measureContinuous(bench, {
    measure: 'transfer_entropy',
    of,
    points: [
      presentPoints(targetPoints, history),
      pastPoints(sourcePoints, history, settings.lag),
      pastPoints(targetPoints, history, settings.history),
    ],
    estimators: NEIGHBOUR_ESTIMATORS.conditional_mutual_information,
    test: { exchanged: 1, exchange },
  });
}

function storageOf(bench: Bench, target: number, history: History): MeasureResult {
  const { settings } = bench.args;
  const variable = bench.variables[target];
  if (isSymbols(variable)) {
    const data = discreteData([
      presentSymbols(variable.symbols, history),
      pastSymbols(variable.symbols, history, settings.history),
    ]);
    const [own] = supportsForTarget(bench, data.table, target);
    return measureDiscrete(bench, data, [own, data.table.sizes[1]], history.segments, {
      measure: 'active_information',
      of: variable.name,
      terms: MEASURE_TERMS.mutual_information,
      subset: [0, 1],
      test: { kind: 'pair', exchange: exchangeOf(bench, history.segments) },
      exchangeable: false,
    });
  }
  return measureContinuous(bench, {
    measure: 'active_information',
    of: variable.name,
    points: [presentPoints(variable.points, history), pastPoints(variable.points, history, settings.history)],
    estimators: NEIGHBOUR_ESTIMATORS.mutual_information,
    test: { exchanged: 1, exchange: exchangeOf(bench, history.segments) },
  });
}

function supportsForTarget(bench: Bench, table: JointTable, target: number): number[] {
  const stated = bench.args.settings.support?.[target];
  if (stated === undefined) return [table.sizes[0]];
  checkSupport(stated, table.sizes[0], `variable "${bench.variables[target].name}"`);
  return [stated];
}

/** A history of m rows of a variable with K symbols can take K^m values. */
function historySupports(bench: Bench, table: JointTable, source: number, target: number): number[] {
  const { support, history, lag } = bench.args.settings;
  if (support === null) return [...table.sizes];
  const [present] = supportsForTarget(bench, table, target);
  return [present, (support[source] ?? table.sizes[1]) ** lag, present ** history];
}
