import { normalQuantile } from '../linalg/special-functions.js';
import type { Figure, FigureTable, HeadlineFigure, Section } from '../report/plots/figure.js';
import { heatMap } from '../report/plots/heat-map.js';
import { histogramChart } from '../report/plots/histogram.js';
import { tableMarkup } from '../report/plots/html-page.js';
import { intervalLadder } from '../report/plots/interval-ladder.js';
import { lineChart } from '../report/plots/line-chart.js';
import type { Panel } from '../report/plots/panel.js';
import { FULL_WIDTH } from '../report/plots/panel.js';
import { adjustedPValues, DISCOVERY_RATE, intervalNote, primaryMeasure } from './dependence-report.js';
import { type EntropyUnit, type EstimateWithError, inUnit } from './entropy-estimators.js';
import type { AnalysisResult, MeasureName, MeasureResult } from './measure-bench.js';

const NAMES: Readonly<Record<MeasureName, string>> = {
  entropy: 'Entropy',
  differential_entropy: 'Differential entropy',
  mutual_information: 'Mutual information',
  conditional_mutual_information: 'Conditional mutual information',
  interaction_information: 'Interaction information',
  transfer_entropy: 'Transfer entropy',
  active_information: 'Active information storage',
};

const SYMBOLS: Readonly<Record<MeasureName, string>> = {
  entropy: 'H',
  differential_entropy: 'h',
  mutual_information: 'I',
  conditional_mutual_information: 'I',
  interaction_information: 'II',
  transfer_entropy: 'T',
  active_information: 'A',
};

/** `I(x; y | z)`, `T(x → y)`. */
const shortName = ({ measure, of }: MeasureResult): string => `${SYMBOLS[measure]}(${of.replace(' -> ', ' \u2192 ')})`;

async function convergencePanel(result: MeasureResult, unit: EntropyUnit, width?: number): Promise<Panel[]> {
  const { convergence } = result;
  if (convergence === null || convergence.sizes.length < 2) return [];
  const convert = (values: Float64Array): Float64Array => values.map((value) => inUnit(value, unit));
  const split = result.profile === null;
  // An estimator outside of its regime would stretch the axis until the others are one line.
  const unfit = new Set(
    result.estimates.filter(({ reason }) => reason !== undefined).map(({ estimator }) => estimator),
  );
  const left = unfit.size === 0 ? '' : ` Left out, being unfit here: ${[...unfit].join(', ')}.`;
  return [
    await lineChart({
      title: `${shortName(result)} against the number of samples`,
      note: `${
        split
          ? 'Means over disjoint parts of the rows, \u00b1 1 s.e.; the last point is all rows. A curve that still moves there is biased.'
          : 'Means over subsamples without replacement, \u00b1 1 s.e.; the last point is all rows. Where the curves have not met, the sample is too small for some of them.'
      }${left}`,
      xLabel: 'samples',
      xScale: 'log',
      yLabel: unit,
      series: convergence.lines
        .filter(({ estimator }) => !unfit.has(estimator))
        .map(({ estimator, mean, se }) => ({
          name: estimator === result.chosen.estimator ? `${estimator} (chosen)` : estimator,
          x: convergence.sizes,
          y: convert(mean),
          standardError: convert(se),
        })),
      ...(width !== undefined && { width, height: 330 }),
    }),
  ];
}

const MOST_BINS = 40;

async function nullPanel(result: MeasureResult, unit: EntropyUnit): Promise<Panel[]> {
  const { test } = result;
  if (test === null || test.nullValues.length < 2) return [];
  const values = test.nullValues.map((value) => inUnit(value, unit));
  const observed = inUnit(test.observed, unit);
  const low = values.reduce((a, b) => Math.min(a, b));
  const high = values.reduce((a, b) => Math.max(a, b));
  if (!(high > low)) return [];
  const bins = Math.min(MOST_BINS, Math.ceil(1.5 * Math.sqrt(values.length)));
  const size = (high - low) / bins;
  const edges = Float64Array.from({ length: bins + 1 }, (_, i) => low + i * size);
  const counts = new Float64Array(bins);
  for (const value of values) counts[Math.min(bins - 1, Math.floor((value - low) / size))]++;
  const p = test.pValue < 0.0001 ? test.pValue.toExponential(1) : String(Number(test.pValue.toPrecision(3)));
  return [
    await histogramChart({
      title: `${shortName(result)} when ${test.method === 'strata' ? 'rows are exchanged within strata' : 'rows are exchanged'}`,
      note: `${test.exact ? 'All tables' : `${test.replicates} replicates`} (${test.method}); p = ${p}. Dashed: the mean under exchange, which is the bias, and what was observed.`,
      xLabel: unit,
      unit: unit === 'bits' ? 'bit' : 'nat',
      items: 'replicates',
      series: [{ name: 'exchanged', histogram: { edges, counts }, mean: inUnit(test.nullMean, unit) }],
      marked: { value: observed, label: 'observed' },
    }),
  ];
}

/** The normal interval of an estimate by its own standard error. */
function around({ valueNats, seNats }: EstimateWithError, alpha: number): { low: number; high: number } {
  const half = normalQuantile(1 - alpha / 2) * (seNats ?? 0);
  return { low: valueNats - half, high: valueNats + half };
}

async function ladderPanel(result: MeasureResult, unit: EntropyUnit, alpha: number): Promise<Panel[]> {
  const { interval } = result;
  if (interval === null) return [];
  const point = inUnit(result.chosen.valueNats, unit);
  const rung = (name: string, { low, high }: { low: number; high: number }, centre: number, chosen = false) => ({
    name,
    low: inUnit(low, unit),
    high: inUnit(high, unit),
    point: centre,
    chosen,
  });
  return [
    await intervalLadder({
      title: `Intervals of ${shortName(result)} (${result.chosen.estimator})`,
      note: `${100 * (1 - alpha)} %, ${interval.replicates} ${interval.method === 'block' ? 'block' : 'multinomial'} bootstrap replicates. ${
        intervalNote(interval, unit) ??
        'Resampling repeats the bias of the estimate, which moves the percentile interval.'
      }`,
      xLabel: unit,
      rungs: [
        rung('BCa', interval.bca, point, true),
        rung('bias-corrected normal', interval.normal, inUnit(interval.corrected, unit)),
        rung('basic', interval.basic, point),
        rung('percentile', interval.percentile, point),
        ...(result.chosen.seNats === null ? [] : [rung('estimate \u00b1 z se', around(result.chosen, alpha), point)]),
      ],
      reference: { label: 'estimate', value: point },
    }),
  ];
}

function headlineOf(result: AnalysisResult, unit: EntropyUnit): HeadlineFigure[] {
  return result.measures.slice(0, 8).map((measure) => ({
    label: `${shortName(measure)}, ${measure.chosen.estimator}`,
    value: inUnit(measure.chosen.valueNats, unit),
    unit,
    ...(measure.chosen.seNats !== null && { standardError: inUnit(measure.chosen.seNats, unit) }),
  }));
}

function estimateTable(result: AnalysisResult, unit: EntropyUnit): FigureTable {
  const names = [...new Set(result.measures.flatMap(({ estimates }) => estimates.map(({ estimator }) => estimator)))];
  return {
    columns: ['estimator', ...result.measures.map((measure) => `${shortName(measure)}, ${unit}`)],
    rows: names.map((name) => [
      name,
      ...result.measures.map(({ estimates }) => {
        const found = estimates.find(({ estimator }) => estimator === name);
        return found === undefined || Number.isNaN(found.valueNats) ? '' : inUnit(found.valueNats, unit);
      }),
    ]),
  };
}

async function pairPanels(result: AnalysisResult, unit: EntropyUnit): Promise<Panel[]> {
  const names = result.variables.map(({ name }) => name);
  const values = new Float64Array(names.length ** 2).fill(Number.NaN);
  const { bh } = adjustedPValues(result);
  const cells: { row: number; column: number }[] = [];
  let m = 0;
  for (let a = 0; a < names.length; a++) {
    for (let b = a + 1; b < names.length; b++, m++) {
      const value = inUnit(result.measures[m].chosen.valueNats, unit);
      values[a * names.length + b] = value;
      values[b * names.length + a] = value;
      if (bh[m] <= DISCOVERY_RATE) cells.push({ row: a, column: b }, { row: b, column: a });
    }
  }
  return [
    await heatMap({
      title: 'Mutual information of every two columns',
      note: `Rings: dependent at a false discovery rate of ${100 * DISCOVERY_RATE} % (Benjamini-Hochberg over ${result.measures.length} pairs).`,
      rows: names,
      columns: names,
      rowLabel: 'column',
      columnLabel: 'column',
      values,
      valueLabel: unit,
      kind: 'amount',
      flags: [{ label: 'discoveries, both ways', shape: 'ring', cells }],
    }),
  ];
}

/** The figure of the view: curves of convergence, null histograms and interval ladders; a heat map for all pairs. */
export async function drawDependence(
  result: AnalysisResult,
  settings: { readonly unit: EntropyUnit; readonly alpha: number; readonly pairs: boolean },
  subtitle: string,
): Promise<Figure> {
  const { unit, alpha, pairs } = settings;
  const primary = primaryMeasure(result);
  const panels: Panel[] = [];
  if (pairs) panels.push(...(await pairPanels(result, unit)));
  else {
    panels.push(...(await convergencePanel(primary, unit, FULL_WIDTH)));
    const others = result.measures.filter((measure) => measure !== primary);
    for (const measure of [primary, ...others]) panels.push(...(await nullPanel(measure, unit)));
    panels.push(...(await ladderPanel(primary, unit, alpha)));
    for (const measure of others) panels.push(...(await convergencePanel(measure, unit)));
  }
  const sections: Section[] = [{ heading: 'Every estimator', body: tableMarkup(estimateTable(result, unit)) }];
  return {
    title: pairs
      ? 'Dependence between columns'
      : `${NAMES[primary.measure]} of ${primary.of.replace(' -> ', ' \u2192 ')}`,
    subtitle,
    headline: pairs ? [] : headlineOf(result, unit),
    panels,
    sections,
  };
}
