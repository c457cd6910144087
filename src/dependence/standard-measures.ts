import type { Points } from '../kernels/neighbours.js';
import { NEIGHBOUR_ESTIMATORS } from './continuous-analysis.js';
import type { DiscreteData } from './discrete-analysis.js';
import { MEASURE_TERMS } from './information.js';
import { tableOfCells } from './joint-table.js';
import {
  type Bench,
  discreteData,
  exchangeOf,
  isSymbols,
  type MeasureResult,
  measureContinuous,
  measureDiscrete,
  requireOneKind,
  supportsOf,
  symbolsOfVariable,
} from './measure-bench.js';
import type { Symbols } from './symbols.js';
import { symbolPoints, type Variable } from './variables.js';

function countedData(variables: readonly Symbols[], counts: Float64Array): DiscreteData {
  const table = tableOfCells(variables, counts);
  const rows = new Int32Array(table.total);
  let at = 0;
  table.counts.forEach((count, cell) => {
    rows.fill(cell, at, at + count);
    at += count;
  });
  return { table, rows };
}

const dataOf = (bench: Bench, variables: readonly Variable[]): DiscreteData => {
  const symbols = variables.map(symbolsOfVariable);
  return bench.args.counts === null ? discreteData(symbols) : countedData(symbols, bench.args.counts);
};

export function entropyOf(bench: Bench, place: number): MeasureResult {
  const variable = bench.variables[place];
  if (isSymbols(variable)) {
    const data = dataOf(bench, [variable]);
    return measureDiscrete(bench, data, supportsOf(bench, data.table, [place]), bench.segments, {
      measure: 'entropy',
      of: variable.name,
      terms: [{ sign: 1, variables: [0] }],
      subset: [0],
      test: null,
      exchangeable: true,
    });
  }
  return measureContinuous(bench, {
    measure: 'differential_entropy',
    of: variable.name,
    points: [variable.points],
    estimators: NEIGHBOUR_ESTIMATORS.differential_entropy,
    test: null,
  });
}

export function pairOf(bench: Bench, first: number, second: number): MeasureResult {
  const [x, y] = [bench.variables[first], bench.variables[second]];
  const of = `${x.name}; ${y.name}`;
  const exchange = exchangeOf(bench, bench.segments);
  if (isSymbols(x) && isSymbols(y)) {
    const data = dataOf(bench, [x, y]);
    return measureDiscrete(bench, data, supportsOf(bench, data.table, [first, second]), bench.segments, {
      measure: 'mutual_information',
      of,
      terms: MEASURE_TERMS.mutual_information,
      subset: [0, 1],
      test: { kind: 'pair', exchange },
      exchangeable: true,
    });
  }
  const px = x.kind === 'numbers' ? x.points : undefined;
  const py = y.kind === 'numbers' ? y.points : undefined;
  const points =
    px && py
      ? [px, py]
      : [
          px ?? symbolPoints(symbolsOfVariable(x), py as Points),
          py ?? symbolPoints(symbolsOfVariable(y), px as Points),
        ];
  return measureContinuous(bench, {
    measure: 'mutual_information',
    of,
    points,
    estimators: px && py ? NEIGHBOUR_ESTIMATORS.mutual_information : NEIGHBOUR_ESTIMATORS.mixed_information,
    test: { exchanged: 0, exchange },
  });
}

/** I(X;Y), I(X;Y|Z) and their difference. */
export function conditionalOf(bench: Bench): MeasureResult[] {
  const { variables } = bench;
  const [x, y, z] = variables;
  requireOneKind(variables, 'conditional mutual information');
  const given = `${x.name}; ${y.name} | ${z.name}`;
  if (isSymbols(x)) {
    const data = dataOf(bench, variables);
    const supports = supportsOf(bench, data.table, [0, 1, 2]);
    const shared = { subset: [0, 1, 2], exchangeable: true } as const;
    const zSymbols = marginalOfRows(data, 2);
    return [
      measureDiscrete(bench, data, supports, bench.segments, {
        ...shared,
        measure: 'conditional_mutual_information',
        of: given,
        terms: MEASURE_TERMS.conditional_mutual_information,
        test: { kind: 'conditional', exchange: { kind: 'strata', ...zSymbols } },
      }),
      measureDiscrete(bench, data, supports, bench.segments, {
        ...shared,
        measure: 'interaction_information',
        of: `${x.name}; ${y.name}; ${z.name}`,
        terms: MEASURE_TERMS.interaction_information,
        test: null,
      }),
    ];
  }
  bench.warnings.push(
    `no permutation test of I(${given}): rows of ${x.name} have no strata of a continuous ${z.name} to be exchanged in; bin with --bins for one`,
  );
  return [
    measureContinuous(bench, {
      measure: 'conditional_mutual_information',
      of: given,
      points: variables.flatMap((variable) => (variable.kind === 'numbers' ? [variable.points] : [])),
      estimators: NEIGHBOUR_ESTIMATORS.conditional_mutual_information,
      test: null,
    }),
  ];
}

const marginalOfRows = (data: DiscreteData, variable: number): { codes: Int32Array; size: number } => ({
  codes: Int32Array.from(data.rows, (cell) => data.table.cells[variable][cell]),
  size: data.table.sizes[variable],
});
