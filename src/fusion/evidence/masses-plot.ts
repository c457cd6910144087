import { chartFigure } from '../../report/plots/chart-figure.js';
import type { Figure } from '../../report/plots/figure.js';
import { heatMap } from '../../report/plots/heat-map.js';
import { histogramChart } from '../../report/plots/histogram.js';
import { lineChart } from '../../report/plots/line-chart.js';
import { FULL_WIDTH, type Panel } from '../../report/plots/panel.js';
import { SEPARATOR, setName } from './focal-sets.js';
import type { CaseResult, MassesResult, RuleResult } from './masses-job.js';
import { meanConflict } from './masses-report.js';

/** Sets with most mass that a figure shows. */
const MOST_SETS = 14;
const MOST_ELEMENTS = 24;
const HISTOGRAM_BINS = 20;

const defined = (results: readonly RuleResult[]): RuleResult[] =>
  results.filter(({ measures }) => measures !== undefined);

/** Masses of the sets that have most under any rule, rules by sets. */
async function massPanel(shown: CaseResult, elements: readonly string[], name: string): Promise<Panel> {
  const results = defined(shown.results);
  const masses = results.map(
    ({ low, high, measures }) =>
      new Map(Array.from(low, (l, i) => [setName(elements, l, high[i]), measures?.mass[i] ?? 0])),
  );
  const largest = new Map<string, number>();
  for (const found of masses) {
    for (const [set, mass] of found) if (mass > (largest.get(set) ?? 0)) largest.set(set, mass);
  }
  const size = (set: string): number => (set === '' ? 0 : set.split(SEPARATOR).length);
  const sets = [...largest]
    .sort((a, b) => b[1] - a[1])
    .slice(0, MOST_SETS)
    .sort(([a], [b]) => size(a) - size(b) || (a < b ? -1 : 1));
  return heatMap({
    title: `Masses${name}`,
    note: largest.size > sets.length ? `The ${sets.length} sets with most mass of ${largest.size}.` : undefined,
    rows: results.map(({ rule }) => rule),
    columns: sets.map(([set]) => (set === '' ? 'empty set' : set)),
    rowLabel: 'rule',
    columnLabel: 'set',
    values: masses.flatMap((found) => sets.map(([set]) => found.get(set) ?? 0)),
    valueLabel: 'mass',
    kind: 'amount',
    domain: [0, 1],
    width: FULL_WIDTH,
  });
}

function pignisticPanel(shown: CaseResult, elements: readonly string[], name: string): Promise<Panel> {
  const results = defined(shown.results);
  const order = [...elements.keys()]
    .sort((a, b) => Math.max(...results.map((r) => r.pignistic[b])) - Math.max(...results.map((r) => r.pignistic[a])))
    .slice(0, MOST_ELEMENTS)
    .sort((a, b) => a - b);
  return heatMap({
    title: `Pignistic probability${name}`,
    rows: results.map(({ rule }) => rule),
    columns: order.map((e) => elements[e]),
    rowLabel: 'rule',
    columnLabel: 'element',
    values: results.flatMap(({ pignistic }) => order.map((e) => pignistic[e])),
    valueLabel: 'probability',
    kind: 'amount',
    domain: [0, 1],
  });
}

function conflictPanel(cases: readonly CaseResult[], name: string): Promise<Panel> {
  if (cases.length === 1) {
    const { perStep } = cases[0].conflict;
    return lineChart({
      title: `Conflict K of every step${name}`,
      note: "Of Dempster's rule, from the left: the source that joins contradicts those before it.",
      xLabel: 'source that joins',
      yLabel: 'K',
      yLow: 0,
      yHigh: 1,
      series: [{ name: 'K', x: perStep.map((_, i) => i + 2), y: perStep }],
    });
  }
  const counts = new Int32Array(HISTOGRAM_BINS);
  for (const { conflict } of cases) {
    counts[Math.min(HISTOGRAM_BINS - 1, Math.floor(conflict.total * HISTOGRAM_BINS))]++;
  }
  return histogramChart({
    title: 'Total conflict K',
    xLabel: 'mass of the empty set after the conjunctive product',
    unit: 'unit',
    items: 'cases',
    series: [
      {
        name: 'cases',
        histogram: { edges: Array.from({ length: HISTOGRAM_BINS + 1 }, (_, i) => i / HISTOGRAM_BINS), counts },
      },
    ],
  });
}

/** Masses by rule, pignistic probabilities, and conflict: of the case with most conflict where there are several. */
export async function drawMasses(result: MassesResult, subtitle: string): Promise<Figure> {
  const { cases, elements, rules } = result;
  const shown = cases.reduce((most, found) => (found.conflict.total > most.conflict.total ? found : most));
  const name = cases.length > 1 ? `, case ${shown.name}` : '';
  const panels = [await massPanel(shown, elements, name)];
  panels.push(await pignisticPanel(shown, elements, name));
  if (shown.conflict.perStep.length > 0) panels.push(await conflictPanel(cases, name));
  const figure = await chartFigure({
    title: 'Evidence fused',
    subtitle,
    headline: [
      { label: 'Cases', value: cases.length },
      { label: 'Elements of the frame', value: elements.length },
      { label: 'Rules', value: rules.length },
      { label: cases.length > 1 ? 'Mean total conflict' : 'Total conflict', value: meanConflict(result).mean },
    ],
    charts: [],
  });
  return { ...figure, panels: [...panels, ...figure.panels] };
}
