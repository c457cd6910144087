import { dotRows } from '../report/plots/dot-rows.js';
import type { Figure, HeadlineFigure } from '../report/plots/figure.js';
import { heatMap } from '../report/plots/heat-map.js';
import { type LineChart, lineChart } from '../report/plots/line-chart.js';
import type { Panel } from '../report/plots/panel.js';
import { HALF_WIDTH } from '../report/plots/panel.js';
import type { DecodeBody } from './decode-report.js';
import type { StepMeans, TextFigures } from './decode-text.js';

interface Decoder {
  readonly name: string;
  readonly text: TextFigures | null;
}

/** Entropy before and after the cut by step, what the texts are like, which tokens the samplers share. */
export async function decodeFigure(body: DecodeBody, subtitle: string): Promise<Figure> {
  const decoders: Decoder[] = [
    ...body.samplers,
    ...(body.path_nucleus ? [{ name: 'path-nucleus', text: body.path_nucleus.text }] : []),
  ];
  const panels: Panel[] = [
    ...(body.source === 'model' ? await textPanels(decoders) : []),
    ...(body.rows === null ? [] : await rowPanels(body)),
  ];
  return { title: 'Decoding', subtitle, headline: headlineOf(body), panels, sections: [] };
}

function headlineOf(body: DecodeBody): HeadlineFigure[] {
  const headline: HeadlineFigure[] = [{ label: 'samplers', value: body.samplers.length }];
  if (body.prompts !== null) headline.push({ label: 'prompts', value: body.prompts });
  if (body.rows !== null) headline.push({ label: 'rows', value: body.rows });
  if (body.mean_entropy_nats) {
    const { mean, se } = body.mean_entropy_nats;
    headline.push({ label: 'mean entropy at temperature 1', value: mean, standardError: se, unit: 'nats' });
  }
  return headline;
}

async function textPanels(decoders: readonly Decoder[]): Promise<Panel[]> {
  const written = decoders.flatMap(({ name, text }) => (text ? [{ name, text }] : []));
  const names = written.map(({ name }) => name);
  const steps = (
    of: (step: StepMeans) => number | null,
    chart: Omit<LineChart, 'series' | 'xLabel'>,
    se?: (step: StepMeans) => number | null,
  ): Promise<Panel> =>
    lineChart({
      ...chart,
      xLabel: 'token after the prompt',
      series: written.flatMap(({ name, text: { by_step } }) =>
        by_step.some((step) => of(step) !== null)
          ? [
              {
                name,
                x: by_step.map(({ step }) => step + 1),
                y: by_step.map((step) => of(step) ?? Number.NaN),
                ...(se && { standardError: by_step.map((step) => se(step) ?? 0) }),
              },
            ]
          : [],
      ),
    });
  const dots = (
    title: string,
    note: string,
    xLabel: string,
    of: (text: TextFigures) => { mean: number; se?: number },
  ): Promise<Panel> =>
    dotRows({
      title,
      note,
      xLabel,
      rows: names,
      width: HALF_WIDTH,
      series: [
        {
          name: title,
          values: written.map(({ text }) => of(text).mean),
          standardErrors: written.map(({ text }) => of(text).se ?? 0),
        },
      ],
    });
  return [
    await steps(
      (step) => step.mean_entropy_nats,
      {
        title: 'Entropy before the cut',
        note: 'Of the model at temperature 1, along the text that each sampler wrote; bands of one standard error.',
        yLabel: 'nats',
        yZero: true,
      },
      (step) => step.mean_entropy_nats_se,
    ),
    await steps(
      (step) => step.mean_entropy_after_nats,
      {
        title: 'Entropy of what was drawn from',
        note: 'After temperature and cut.',
        yLabel: 'nats',
        yZero: true,
      },
      (step) => step.mean_entropy_after_nats_se,
    ),
    await steps((step) => step.mean_kept_count, {
      title: 'Tokens kept',
      note: 'Mean number of tokens that could be drawn; logarithmic.',
      yLabel: 'tokens',
      yScale: 'log',
    }),
    await dots(
      'Surprisal of the text',
      'Under the untempered model; lines are one standard error over prompts.',
      'nats a token',
      ({ mean_surprisal_nats: { mean, se } }) => ({ mean, se: Number.isFinite(se) ? se : 0 }),
    ),
    await dots('Distinct pairs of tokens', 'distinct-2 over all continuations.', 'share', ({ distinct_2 }) => ({
      mean: distinct_2,
    })),
    await dots(
      'Self-BLEU',
      'How much continuations repeat each other; 1: all alike.',
      'self-BLEU-4',
      ({ self_bleu_4: { mean, se } }) => ({ mean, se: Number.isFinite(se) ? se : 0 }),
    ),
  ];
}

async function rowPanels(body: DecodeBody): Promise<Panel[]> {
  const names = body.samplers.map(({ name }) => name);
  const panels: Panel[] = [];
  const kept = body.samplers.flatMap((sampler) => (sampler.kept ? [sampler.kept] : []));
  panels.push(
    await dotRows({
      title: 'Entropy on the same rows',
      note: 'Of the tempered distribution before the cut and after it, over all rows.',
      xLabel: 'nats',
      rows: names,
      width: HALF_WIDTH,
      series: [
        { name: 'before', values: kept.map((figures) => figures.mean_entropy_tempered_nats.mean) },
        { name: 'after', values: kept.map((figures) => figures.mean_entropy_after_nats.mean) },
      ],
    }),
    await dotRows({
      title: 'Mass kept on the same rows',
      note: 'Share of the tempered distribution, mean over rows.',
      xLabel: 'mass',
      rows: names,
      width: HALF_WIDTH,
      series: [{ name: 'mass', values: kept.map((figures) => figures.mean_kept_mass.mean) }],
    }),
  );
  if (body.jaccard) {
    panels.push(
      await heatMap({
        title: 'Tokens that two samplers share',
        note: 'Jaccard index of the kept sets on the same rows, mean over rows.',
        rows: names.map((name, s) => `${s + 1}: ${name}`),
        columns: names.map((_, s) => String(s + 1)),
        rowLabel: 'sampler',
        columnLabel: 'sampler',
        values: body.jaccard.flat(),
        valueLabel: 'Jaccard index',
        kind: 'amount',
        domain: [0, 1],
      }),
    );
  }
  for (const { alpha, temperature, rules } of body.top_h_rules) {
    panels.push(
      await dotRows({
        title: `Rules of top-H, alpha ${alpha}, temperature ${temperature}`,
        note: 'Mean entropy of what each rule keeps, against the bound of the paper.',
        xLabel: 'nats',
        rows: rules.map(({ rule }) => rule),
        width: HALF_WIDTH,
        series: [
          { name: 'H(q)', values: rules.map((rule) => rule.mean_entropy_after_nats.mean) },
          { name: 'alpha H(p)', values: rules.map((rule) => alpha * rule.mean_entropy_tempered_nats.mean) },
        ],
      }),
    );
  }
  return panels;
}
