import type { Figure } from '../report/plots/figure.js';
import { type DensityCurve, histogramChart } from '../report/plots/histogram.js';
import { type LineSeries, lineChart } from '../report/plots/line-chart.js';
import type { Panel } from '../report/plots/panel.js';
import { exactProbability } from './ntk-permutations.js';
import { kernelWords, type NtkResult, type NtkRow } from './ntk-report.js';

/** Pairs of bits and ones that get a histogram; the others are in the report. */
const MOST_HISTOGRAMS = 4;
const CURVE_POINTS = 161;

/** Models needed against k, ensembles against their predicted accuracy, and outputs of single networks. */
export async function drawNtk(result: NtkResult, subtitle: string): Promise<Figure> {
  const rows = result.sizes.flatMap((size) => size.rows);
  const simulated = rows.filter((row) => row.measured !== undefined);
  const panels: Panel[] = [await neededPanel(result)];
  if (simulated.length > 0) panels.push(await accuracyPanel(simulated));
  for (const row of simulated.slice(0, MOST_HISTOGRAMS)) panels.push(await outputPanel(row));
  return {
    title: 'Permutations learnt exactly by ensembles of wide networks',
    subtitle: `${subtitle}; theory: ${kernelWords(result.parametrisation)}`,
    headline: [
      { label: 'Error allowed at one input', value: result.delta },
      ...simulated.slice(0, 2).map(({ law, measured }) => ({
        label: `z of mean on, k = ${law.k}, ${law.ones} ones`,
        value: measured?.meanOn.z ?? Number.NaN,
      })),
    ],
    panels,
    sections: [],
  };
}

function neededPanel({ sizes, delta }: NtkResult): Promise<Panel> {
  const ones = [...new Set(sizes.flatMap(({ rows }) => rows.map(({ law }) => law.ones)))].sort((a, b) => a - b);
  const series: LineSeries[] = [];
  const x = sizes.map(({ k }) => k);
  const at = (m: number, value: (row: NtkRow) => number | undefined): number[] =>
    sizes.map(({ rows }) => {
      const row = rows.find(({ law }) => law.ones === m);
      return (row && value(row)) ?? Number.NaN;
    });
  for (const m of ones) series.push({ name: `union, ${m} ones`, x, y: at(m, (row) => row.needed.gaussianUnion) });
  for (const m of ones) {
    series.push({ name: `tail bound, ${m} ones`, x, y: at(m, (row) => row.needed.tailBound), dashed: true });
  }
  for (const m of ones) {
    const y = at(m, (row) => row.measured?.modelsMeasured);
    if (y.some(Number.isFinite)) series.push({ name: `measured, ${m} ones`, x, y });
  }
  const shown = series.filter(({ y }) => Array.from(y).some(Number.isFinite));
  return lineChart({
    title: 'Networks needed',
    note: `So that one input is right with probability ${1 - delta}; measured: right on that share of the tests.`,
    xLabel: 'bits k',
    yLabel: 'networks',
    yScale: 'log',
    series: shown,
    dots: true,
  });
}

function accuracyPanel(rows: readonly NtkRow[]): Promise<Panel> {
  const series = rows.flatMap(({ law, measured }, colour): LineSeries[] => {
    const points = measured?.accuracy ?? [];
    const x = points.map(({ models }) => models);
    const name = `k = ${law.k}, ${law.ones} ones`;
    return [
      {
        name,
        colour,
        x,
        y: points.map(({ exact }) => exact),
        standardError: points.map(({ standardError }) => standardError ?? 0),
      },
      { name: `${name}, theory`, colour, x, y: x.map((models) => exactProbability(law, models)), dashed: true },
    ];
  });
  return lineChart({
    title: 'Tests that are right in every output',
    note: 'Mean over disjoint groups of networks, with one standard error where there are two or more.',
    xLabel: 'networks in the ensemble',
    yLabel: 'share of tests',
    xScale: 'log',
    yLow: 0,
    yHigh: 1,
    series,
  });
}

function outputPanel({ law, measured }: NtkRow): Promise<Panel> {
  const found = measured as NonNullable<NtkRow['measured']>;
  const { edges, on, off } = found.histogram;
  const gaussian = (mean: number): DensityCurve => {
    const deviation = Math.sqrt(law.variance);
    const x = Float64Array.from(
      { length: CURVE_POINTS },
      (_, i) => mean + deviation * 4 * ((2 * i) / (CURVE_POINTS - 1) - 1),
    );
    const scale = 1 / (deviation * Math.sqrt(2 * Math.PI));
    return {
      label: 'predicted Gaussian',
      x,
      y: x.map((value) => scale * Math.exp(-((value - mean) ** 2) / (2 * law.variance))),
    };
  };
  const predicted = [law.meanOn, ...(law.meanOff === undefined ? [] : [law.meanOff])];
  return histogramChart({
    title: `Outputs of single networks, k = ${law.k}, ${law.ones} ones`,
    note: 'Each kind of output is scaled to an area of 1.',
    xLabel: 'output',
    unit: 'unit',
    items: 'outputs',
    series: [
      { name: 'target one', histogram: { edges, counts: on }, mean: found.meanOn.measured },
      ...(law.meanOff === undefined
        ? []
        : [{ name: 'target zero', histogram: { edges, counts: off }, mean: found.meanOff?.measured }]),
    ],
    curves: law.variance > 0 ? predicted.map(gaussian) : [],
  });
}
