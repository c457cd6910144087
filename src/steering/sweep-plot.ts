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

/** One curve for each copy of the layer's controls. */
function controlCurves(body: SweepBody, layer: number, of: Measure): LineSeries[] {
  return (['shuffled', 'random'] as const).flatMap((kind) => {
    const own = body.rows.filter((row) => row.kind === kind && row.layer === layer);
    const copies = [...new Set(own.map(({ control }) => control))];
    return copies.map((copy, i) => {
      const name = copies.length === 1 ? kind : `${kind} ${i + 1}`;
      const belongs = (row: SweepRow): boolean => row.kind === kind && row.layer === layer && row.control === copy;
      return curve(body, name, of, belongs, { dashed: true });
    });
  });
}

/** The layer whose vector raises the entropy most, for the panel with its controls. */
function shownLayer(body: SweepBody): number {
  const best = [...body.verdicts].sort((a, b) => b.growth_nats - a.growth_nats)[0];
  return best?.layer ?? body.layers[0].layer;
}

function controlsChart(body: SweepBody, layer: number, of: Measure): LineChart {
  const exact = of === 'action_entropy_nats';
  return {
    title: exact ? `Layer ${layer}: the vector and its controls` : `Layer ${layer}: actions of sampled replies`,
    note: exact
      ? 'Exact choice after the fixed thought; the band is one standard error. Controls have the norm of the vector.'
      : 'Plug-in entropy of the replies that can be read.',
    xLabel: 'strength',
    yLabel: 'action entropy, nats',
    series: [curve(body, 'vector', of, isVector(layer)), ...controlCurves(body, layer, of)],
    references: [{ value: body.max_entropy_nats, label: 'all actions alike' }],
  };
}

function layersChart(body: SweepBody): LineChart {
  const layers = body.layers.map(({ layer }) => layer);
  const series = layers.map((layer): LineSeries => {
    const rows = [...body.rows.filter(isVector(layer)), body.unsteered].sort(signed);
    return {
      name: `layer ${layer}`,
      x: rows.map(({ strength, effective_strength }) => Math.sign(strength) * (effective_strength ?? 0)),
      y: rows.map((row) => row.action_entropy_nats),
      standardError: rows.map((row) => row.action_entropy_nats_se),
    };
  });
  return {
    title: 'Action entropy by layer',
    note: 'Against the effective strength: the length of what is added over that of the residual stream.',
    xLabel: 'strength x |v| / |x|',
    yLabel: 'action entropy, nats',
    series,
    ...(layers.length > 3 && { ordered: { label: 'layer', values: layers } }),
  };
}

function guardChart(body: SweepBody, layer: number): LineChart {
  const sampled = body.unsteered.sampled_prompts > 0;
  return {
    title: `Layer ${layer}: is an action still named?`,
    note: `Probability of naming one after the thought${sampled ? '; share of sampled replies that can be read' : ''}.`,
    xLabel: 'strength',
    yLabel: 'share',
    yLow: 0,
    yHigh: 1,
    series: [
      curve(body, 'probability of an action', 'action_mass', isVector(layer)),
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
    controlsChart(body, layer, 'action_entropy_nats'),
    ...(unsteered.sampled_prompts > 0 ? [controlsChart(body, layer, 'sampled_entropy_nats')] : []),
    ...(body.layers.length > 1 ? [layersChart(body)] : []),
    guardChart(body, layer),
    driftChart(body, layer),
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
