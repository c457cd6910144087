import { chartFigure } from '../report/plots/chart-figure.js';
import type { Figure } from '../report/plots/figure.js';
import type { LineChart, LineSeries } from '../report/plots/line-chart.js';
import type { SweepBody, SweepRow } from './sweep-report.js';

type Measure = 'action_entropy_nats' | 'sampled_entropy_nats' | 'action_mass' | 'valid_share' | 'first_token_kl_nats';

const signed = (a: SweepRow, b: SweepRow): number => a.strength - b.strength;

/** Points of one curve with the unsteered model at zero. */
function curve(
  body: SweepBody,
  name: string,
  of: Measure,
  belongs: (row: SweepRow) => boolean,
  more: Pick<LineSeries, 'dashed'> = {},
): LineSeries {
  const rows = [...body.rows.filter(belongs), body.unsteered].sort(signed);
  const se = of === 'action_entropy_nats' ? { standardError: rows.map((row) => row.action_entropy_nats_se) } : {};
  return { name, x: rows.map(({ strength }) => strength), y: rows.map((row) => row[of]), ...se, ...more };
}

const isVector = (layer: number) => (row: SweepRow) => row.kind === 'vector' && row.layer === layer;

/** Mean over the copies of a control at each strength. */
function controlCurve(
  body: SweepBody,
  kind: 'random' | 'shuffled',
  layer: number,
  of: Measure,
): LineSeries | undefined {
  const rows = body.rows.filter((row) => row.kind === kind && row.layer === layer);
  if (rows.length === 0) return undefined;
  const strengths = [...new Set(rows.map(({ strength }) => strength)), 0].sort((a, b) => a - b);
  const mean = (strength: number): number => {
    if (strength === 0) return body.unsteered[of];
    const own = rows.filter((row) => row.strength === strength);
    return own.reduce((sum, row) => sum + row[of], 0) / own.length;
  };
  const copies = new Set(rows.map(({ control }) => control)).size;
  const name = copies === 1 ? `${kind}` : `${kind}, mean of ${copies}`;
  return { name, x: strengths, y: strengths.map(mean), dashed: true };
}

/** The layer whose vector raises the entropy most, for the panel with its controls. */
function shownLayer(body: SweepBody): number {
  const best = [...body.verdicts].sort((a, b) => b.growth_nats - a.growth_nats)[0];
  return best?.layer ?? body.layers[0].layer;
}

function controlsChart(body: SweepBody, layer: number): LineChart {
  const of: Measure = Number.isNaN(body.unsteered.action_entropy_nats) ? 'sampled_entropy_nats' : 'action_entropy_nats';
  const controls = (['shuffled', 'random'] as const).map((kind) => controlCurve(body, kind, layer, of));
  return {
    title: `Layer ${layer}: the vector and its controls`,
    note: 'Bands are one standard error; controls have the norm of the vector.',
    xLabel: 'strength',
    yLabel: 'action entropy, nats',
    series: [curve(body, 'vector', of, isVector(layer)), ...controls.filter((found) => found !== undefined)],
    references: [{ value: body.max_entropy_nats, label: 'all actions alike' }],
    markedX: { value: 0, label: 'unsteered' },
  };
}

function layersChart(body: SweepBody): LineChart {
  const of: Measure = Number.isNaN(body.unsteered.action_entropy_nats) ? 'sampled_entropy_nats' : 'action_entropy_nats';
  const layers = body.layers.map(({ layer }) => layer);
  return {
    title: 'Action entropy by layer',
    note: 'One line a layer that is steered.',
    xLabel: 'strength',
    yLabel: 'action entropy, nats',
    series: layers.map((layer) => curve(body, `layer ${layer}`, of, isVector(layer))),
    ...(layers.length > 3 && { ordered: { label: 'layer', values: layers } }),
  };
}

function guardChart(body: SweepBody, layer: number): LineChart {
  const exact = !Number.isNaN(body.unsteered.action_mass);
  const sampled = body.unsteered.sampled_prompts > 0;
  return {
    title: `Layer ${layer}: is an action still named?`,
    note: exact
      ? 'Probability of naming an action after the thought; share of sampled replies that can be read.'
      : 'Share of sampled replies that can be read.',
    xLabel: 'strength',
    yLabel: 'share',
    yLow: 0,
    yHigh: 1,
    series: [
      ...(exact ? [curve(body, 'probability of an action', 'action_mass', isVector(layer))] : []),
      ...(sampled ? [curve(body, 'readable replies', 'valid_share', isVector(layer))] : []),
    ],
  };
}

/** Temperatures on the same measures: entropy and validity. */
function temperatureChart(body: SweepBody): LineChart | undefined {
  const rows = body.rows.filter(({ kind }) => kind === 'temperature');
  if (rows.length === 0) return undefined;
  const points = [body.unsteered, ...rows].sort((a, b) => a.temperature - b.temperature);
  const x = points.map(({ temperature }) => temperature);
  const series = (name: string, of: Measure): LineSeries => ({ name, x, y: points.map((row) => row[of]) });
  const all = [
    series('exact action entropy, nats', 'action_entropy_nats'),
    series('sampled action entropy, nats', 'sampled_entropy_nats'),
    series('readable replies', 'valid_share'),
  ];
  return {
    title: 'Temperature instead of steering',
    note: 'The unsteered model at other temperatures.',
    xLabel: 'temperature',
    yLabel: 'nats, or share',
    yZero: true,
    series: all.filter(({ y }) => Array.from(y).some((value) => !Number.isNaN(value))),
  };
}

function driftChart(body: SweepBody, layer: number): LineChart {
  return {
    title: `Layer ${layer}: how far the reply moves`,
    note: 'KL of the first token of a reply, steered from unsteered.',
    xLabel: 'strength',
    yLabel: 'nats',
    yZero: true,
    series: [curve(body, 'first token', 'first_token_kl_nats', isVector(layer))],
  };
}

/** The figure of a sweep: the curve beside its controls, all layers, guards, temperatures. */
export async function sweepFigure(body: SweepBody, subtitle: string): Promise<Figure> {
  const layer = shownLayer(body);
  const { unsteered } = body;
  const verdict = body.verdicts.find((own) => own.layer === layer);
  const temperature = temperatureChart(body);
  const charts: LineChart[] = [
    controlsChart(body, layer),
    ...(body.layers.length > 1 ? [layersChart(body)] : []),
    guardChart(body, layer),
    ...(Number.isNaN(unsteered.first_token_kl_nats) ? [] : [driftChart(body, layer)]),
    ...(temperature ? [temperature] : []),
  ];
  return chartFigure({
    title: 'Steering the entropy of actions',
    subtitle,
    headline: [
      { label: 'Prompts', value: body.prompts },
      {
        label: 'Unsteered entropy',
        value: unsteered.action_entropy_nats,
        unit: 'nats',
        standardError: unsteered.action_entropy_nats_se,
      },
      ...(verdict
        ? [
            {
              label: `Growth, layer ${layer}`,
              value: verdict.growth_nats,
              unit: 'nats',
              interval: [verdict.growth_low_nats, verdict.growth_high_nats] as const,
              intervalName: `95 % bootstrap over runs, strength ${verdict.rising_from} to ${verdict.rising_to}`,
            },
            ...(verdict.random_growth_nats === null
              ? []
              : [{ label: 'Largest of random vectors', value: verdict.random_growth_nats, unit: 'nats' }]),
          ]
        : []),
    ],
    charts: charts.map((chart) => ({ kind: 'lines', chart })),
  });
}
