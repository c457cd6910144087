import { type Figure, type HeadlineFigure, plotBytes } from '../report/plots/figure.js';
import { type Histogram, histogramChart } from '../report/plots/histogram.js';
import { lineChart } from '../report/plots/line-chart.js';
import type { Panel } from '../report/plots/panel.js';
import { tokensFigure } from '../report/plots/tokens-figure.js';
import type { LogitsBody } from './logits-report.js';
import type { LogProbsBody } from './logprobs-report.js';
import { denseHistogram, figureData } from './tokens-plot.js';

interface Interval {
  readonly low: number;
  readonly high: number;
}

function intervalOf(intervals: object | undefined, name: string): Partial<HeadlineFigure> {
  const found = (intervals as Record<string, Interval> | undefined)?.[name];
  return found ? { interval: [found.low, found.high], intervalName: '95 % document bootstrap' } : {};
}

/** Bytes of the figure of stored logits, with or without targets. */
export async function logitsPlot(body: LogitsBody, subtitle: string, target: string): Promise<Uint8Array> {
  if (body.targets) {
    const data = { ...figureData(body, subtitle), title: 'Stored logits against their targets' };
    // Rows of a dump have ids and no text: the lists of notable tokens stay in the report.
    const { mostSurprising: _surprising, mostUncertain: _uncertain, ...figure } = data;
    return plotBytes(await tokensFigure({ ...figure, tokens: [], tokenTotal: body.rows }), target);
  }
  const panels: Panel[] = [
    await histogramChart({
      title: 'Entropy of the predictions',
      xLabel: 'entropy, nats',
      unit: 'nat',
      items: 'rows',
      series: [
        {
          name: 'entropy',
          histogram: denseHistogram(body.histograms.entropy, body.histograms.bin_width_nats),
          mean: body.mean_entropy_nats,
        },
      ],
    }),
  ];
  if (body.by_context_length.length > 1) {
    panels.push(
      await lineChart({
        title: 'Entropy by position',
        note: 'Means over the rows of a bin of positions; bands of one standard error.',
        xLabel: 'place of the row in its document, from 1',
        yLabel: 'nats',
        xScale: 'position',
        height: 300,
        series: [
          {
            name: 'entropy',
            x: body.by_context_length.map(({ first, last }) => (first + last) / 2),
            y: body.by_context_length.map(({ mean_entropy_nats: mean }) => mean),
            standardError: body.by_context_length.map(({ mean_entropy_nats_se: error }) => error),
          },
        ],
      }),
    );
  }
  const figure: Figure = {
    title: 'Entropy of stored logits',
    subtitle,
    headline: [
      { label: 'Documents', value: body.documents },
      { label: 'Rows', value: body.rows },
      { label: 'Vocabulary', value: body.vocabulary_size },
      {
        label: 'Mean entropy',
        value: body.mean_entropy_nats,
        unit: 'nats',
        standardError: body.mean_entropy_nats_se,
        ...intervalOf(body.intervals, 'mean_entropy_nats'),
      },
      { label: 'Mean varentropy', value: body.mean_varentropy_nats2, unit: 'nats²' },
      { label: 'Entropy / log V', value: body.mean_normalized_entropy },
    ],
    panels,
    sections: [],
  };
  return plotBytes(figure, target);
}

/** Bytes of the figure of top-k log-probabilities: the two bounds, over positions and as distributions. */
export async function logProbsPlot(body: LogProbsBody, subtitle: string, target: string): Promise<Uint8Array> {
  const width = body.histograms.bin_width_nats;
  const unbounded = body.unbounded_positions;
  const upper: Histogram = {
    ...denseHistogram(body.histograms.entropy_upper, width),
    ...(unbounded > 0 && { above: unbounded }),
  };
  const panels: Panel[] = [
    await histogramChart({
      title: 'Bounds on the entropy',
      note: 'The entropy of every position lies between its two bounds; what was not returned cannot say where.',
      xLabel: 'nats',
      unit: 'nat',
      items: 'positions',
      series: [
        {
          name: 'lower bound',
          histogram: denseHistogram(body.histograms.entropy_lower, width),
          mean: body.mean_entropy_lower_nats,
        },
        ...(unbounded === body.positions
          ? []
          : [{ name: 'upper bound', histogram: upper, mean: body.mean_entropy_upper_nats }]),
      ],
    }),
  ];
  if (body.by_position.length > 1) {
    const x = body.by_position.map(({ first, last }) => (first + last) / 2);
    panels.push(
      await lineChart({
        title: 'Bounds by position',
        note: 'Means over the positions of a bin that have both bounds; bands of one standard error.',
        xLabel: 'position in the sequence',
        yLabel: 'nats',
        xScale: 'position',
        height: 300,
        yZero: true,
        series: [
          {
            name: 'lower bound',
            x,
            y: body.by_position.map((bin) => bin.mean_entropy_lower_nats),
            standardError: body.by_position.map((bin) => bin.mean_entropy_lower_nats_se),
          },
          {
            name: 'upper bound',
            x,
            y: body.by_position.map((bin) => bin.mean_entropy_upper_nats),
            standardError: body.by_position.map((bin) => bin.mean_entropy_upper_nats_se),
          },
        ],
      }),
    );
  }
  const figure: Figure = {
    title: 'Entropy from top log-probabilities: what can be said',
    subtitle,
    headline: [
      { label: 'Documents', value: body.documents },
      { label: 'Positions', value: body.positions },
      { label: 'Mean kept mass', value: body.mean_kept_mass },
      {
        label: 'Entropy, at least',
        value: body.mean_entropy_lower_nats,
        unit: 'nats',
        standardError: body.mean_entropy_lower_nats_se,
        ...intervalOf(body.intervals, 'mean_entropy_lower_nats'),
      },
      {
        label: 'Entropy, at most',
        value: body.mean_entropy_upper_nats,
        unit: 'nats',
        ...(Number.isFinite(body.mean_entropy_upper_nats) && {
          standardError: body.mean_entropy_upper_nats_se,
          ...intervalOf(body.intervals, 'mean_entropy_upper_nats'),
        }),
      },
      ...(body.scored_tokens > 0 ? [{ label: 'Perplexity', value: body.perplexity }] : []),
    ],
    panels,
    sections: [],
  };
  return plotBytes(figure, target);
}
