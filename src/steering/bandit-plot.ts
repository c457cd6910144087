import { chartFigure } from '../report/plots/chart-figure.js';
import type { Figure, HeadlineFigure } from '../report/plots/figure.js';
import type { LineSeries } from '../report/plots/line-chart.js';
import type { BanditBody, StepRow } from './bandit-report.js';

/** What stands in the note where a single curve has no legend. */
const ENTROPY_NAMES: Readonly<Record<string, string>> = {
  exact: 'Exact, of the forced choice.',
  'plug-in': 'Plug-in, of sampled completions.',
};

/** Entropy by step, and how each run moved between the arms. */
export function drawBandit(body: BanditBody, subtitle: string): Promise<Figure> {
  const steps = body.by_step.filter(({ runs }) => runs > 0);
  const x = steps.map(({ step }) => step);
  const curve = (
    name: string,
    key: 'action_entropy_nats' | 'plugin_entropy_nats' | 'miller_madow_entropy_nats' | 'valid_share' | 'action_mass',
  ): LineSeries[] => {
    const at = (suffix: '' | '_se') => steps.map((row: StepRow) => row[`${key}${suffix}`] ?? Number.NaN);
    const y = at('');
    return y.every(Number.isNaN) ? [] : [{ name, x, y, standardError: at('_se') }];
  };
  const entropies = [
    ...curve('exact', 'action_entropy_nats'),
    ...curve('plug-in', 'plugin_entropy_nats'),
    ...curve('Miller-Madow', 'miller_madow_entropy_nats'),
  ];
  const runs = body.by_run.map(
    ({ run, cumulative_action }): LineSeries => ({
      name: `run ${run}`,
      x: Float64Array.from({ length: cumulative_action.length + 1 }, (_, i) => i),
      y: Float64Array.of(0, ...cumulative_action),
      opacity: 0.45,
    }),
  );
  const last = body.actions.length - 1;
  const guards = [...curve('completions that parse', 'valid_share'), ...curve('mass of the actions', 'action_mass')];
  return chartFigure({
    title: 'An agent on a Gaussian bandit',
    subtitle,
    headline: headline(body),
    charts: [
      {
        kind: 'lines',
        chart: {
          title: 'Entropy of the action by step',
          note: `${entropies.length === 1 ? `${ENTROPY_NAMES[entropies[0].name] ?? ''} ` : ''}Mean over runs; the band is one standard error.`,
          xLabel: 'step',
          yLabel: 'nats',
          yZero: true,
          series: entropies,
          references: [{ value: body.greatest_entropy_nats, label: `ln ${body.actions.length}` }],
        },
      },
      {
        kind: 'lines',
        chart: {
          title: 'Cumulative index of the action, a line a run',
          note: `0 for ${body.actions[0]}, ${last} for ${body.actions[last]}.`,
          xLabel: 'steps made',
          yLabel: 'sum of indices',
          yZero: true,
          series: runs,
          ordered: { label: 'run', values: body.by_run.map(({ run }) => run) },
          dots: false,
          ceiling: { label: `always ${body.actions[last]}`, at: (step) => last * step },
        },
      },
      ...(guards.length === 0
        ? []
        : [
            {
              kind: 'lines' as const,
              chart: {
                title: 'Share of replies that are an action',
                note: 'Sampled completions that parse; or the probability, after the fixed thought, of any action.',
                xLabel: 'step',
                yLabel: 'share',
                yLow: 0,
                yHigh: 1,
                series: guards,
              },
            },
          ]),
    ],
  });
}

function headline(body: BanditBody): HeadlineFigure[] {
  type Key =
    | 'mean_reward'
    | 'regret'
    | 'best_arm_share'
    | 'switch_rate'
    | 'action_entropy_nats'
    | 'plugin_entropy_nats';
  const figure = (label: string, key: Key, unit?: string): HeadlineFigure[] => {
    const { [key]: value, [`${key}_se` as const]: standardError } = body;
    if (value === null) return [];
    return [{ label, value, ...(unit && { unit }), ...(standardError !== null && { standardError }) }];
  };
  return [
    { label: 'Runs', value: body.runs },
    { label: 'Steps', value: body.steps },
    ...figure('Exact action entropy', 'action_entropy_nats', 'nats'),
    ...figure('Plug-in action entropy', 'plugin_entropy_nats', 'nats'),
    ...figure('Mean reward', 'mean_reward'),
    ...figure('Regret of a run', 'regret'),
    ...figure('Best arm', 'best_arm_share'),
    ...figure('Switches', 'switch_rate'),
  ];
}
