import type { Figure } from '../../report/plots/figure.js';
import { type LineSeries, lineChart } from '../../report/plots/line-chart.js';
import type { Panel } from '../../report/plots/panel.js';
import { scatterChart } from '../../report/plots/scatter-chart.js';
import { shareAreas } from '../../report/plots/share-areas.js';
import type { DynamicsBody } from './dynamics-report.js';

const QUADRANT_LABELS = [
  'A > 0, likely: down',
  'A > 0, unlikely: up',
  'A < 0, likely: up',
  'A < 0, unlikely: down',
] as const;

const numbers = (body: DynamicsBody, name: string): Float64Array =>
  Float64Array.from(body.by_step, (row) => row[name] ?? Number.NaN);

const hasAny = (values: Float64Array): boolean => values.some((value) => !Number.isNaN(value));

function line(body: DynamicsBody, name: string, label: string, rest: Partial<LineSeries> = {}): LineSeries {
  return { name: label, x: numbers(body, 'step'), y: numbers(body, name), ...rest };
}

const LEVELS: Readonly<Record<DynamicsBody['entropy_kind'], readonly (readonly [string, string])[]>> = {
  entropy: [
    ['entropy_token_mean', 'mean'],
    ['entropy_p95', '95th percentile'],
    ['entropy_p75', '75th'],
    ['entropy_p50', 'median'],
    ['entropy_p25', '25th'],
    ['entropy_p05', '5th'],
  ],
  bounds: [
    ['entropy_upper_token_mean', 'upper bound'],
    ['entropy_lower_token_mean', 'lower bound'],
  ],
  nll: [['nll_mean', 'sampled -ln pi']],
};

function entropyPanel(body: DynamicsBody): Promise<Panel> {
  const named = LEVELS[body.entropy_kind].filter(([name]) => hasAny(numbers(body, name)));
  return lineChart({
    title: body.entropy_kind === 'nll' ? 'Sampled negative log-likelihood' : 'Token entropy',
    note: body.entropy_kind === 'entropy' ? 'Mean with one standard error, and percentiles over tokens.' : undefined,
    xLabel: 'step',
    yLabel: 'nats',
    yZero: true,
    series: named.map(([name, label], i) =>
      line(body, name, label, {
        ...(i === 0 && hasAny(numbers(body, `${name}_se`)) && { standardError: numbers(body, `${name}_se`) }),
        ...(i > 0 && { opacity: 0.75 }),
      }),
    ),
  });
}

function covariancePanel(body: DynamicsBody): Promise<Panel> {
  return lineChart({
    title: 'Covariance of log-probability and advantage',
    note: 'Over tokens, and over whole responses inside groups. Above zero: updates lower entropy.',
    xLabel: 'step',
    yLabel: 'nats',
    yZero: true,
    series: [
      line(body, 'cov_mean', 'tokens', { standardError: numbers(body, 'cov_mean_se') }),
      line(body, 'response_cov', 'responses', { standardError: numbers(body, 'response_cov_se') }),
    ],
  });
}

function tailPanel(body: DynamicsBody): Promise<Panel> {
  return lineChart({
    title: 'Largest covariances',
    note: 'Mean over the top fraction of the tokens of a step.',
    xLabel: 'step',
    yLabel: 'nats',
    yScale: 'log',
    series: [
      line(body, 'cov_top_2e-4', '0.02%'),
      line(body, 'cov_top_2e-3', '0.2%'),
      line(body, 'cov_top_2e-2', '2%'),
      line(body, 'cov_top_0.2', '20%'),
    ],
  });
}

function quadrantPanel(body: DynamicsBody): Promise<Panel> {
  const steps = numbers(body, 'step');
  const columns = ['pp', 'pn', 'np', 'nn'].map((name) => numbers(body, `omega_share_${name}`));
  const keep = Array.from(steps, (_, t) => t).filter((t) => columns.every((column) => !Number.isNaN(column[t])));
  const last = steps[keep[keep.length - 1]];
  const before = keep.length > 1 ? steps[keep[keep.length - 2]] : last - 1;
  return shareAreas({
    title: 'Which tokens move entropy',
    note: 'Share of |Omega| by sign of the advantage and of ln pi + H, with the predicted direction.',
    xLabel: 'step',
    classes: QUADRANT_LABELS,
    x: keep.map((t) => steps[t]),
    end: last + (last - before),
    shares: keep.flatMap((t) => columns.map((column) => column[t])),
  });
}

function changePanel(body: DynamicsBody): Promise<Panel> {
  const predicted = numbers(body, 'dentropy_predicted');
  const measured = numbers(body, 'dentropy_measured');
  const steps = numbers(body, 'step');
  const at = Array.from(steps, (_, t) => t).filter(
    (t) => Number.isFinite(predicted[t]) && Number.isFinite(measured[t]),
  );
  const fit = body.predicted_change.response_covariance;
  const values = at.flatMap((t) => [predicted[t], measured[t]]);
  const ends = [Math.min(...values), Math.max(...values)];
  return scatterChart({
    title: 'Predicted and measured change of entropy',
    note: `dH = -eta cov of responses: eta ${fit.eta_eff.toPrecision(3)}, R2 ${fit.r2.toFixed(2)}, one sign in ${(100 * fit.sign_agreement).toFixed(0)}% of steps.`,
    xLabel: 'predicted, nats',
    yLabel: 'measured to the next step, nats',
    series: [
      {
        name: 'steps',
        x: at.map((t) => predicted[t]),
        y: at.map((t) => measured[t]),
        labels: at.map((t) => `step ${steps[t]}`),
      },
    ],
    curve: { label: 'as predicted', x: ends, y: ends },
  });
}

function healthPanel(body: DynamicsBody): Promise<Panel> {
  const names = [
    ['clip_frac', 'clip fraction'],
    ['zero_adv_group_frac', 'zero-advantage groups'],
    ['length_limit_frac', 'at the length limit'],
    ['pass_at_1', 'pass@1'],
  ] as const;
  return lineChart({
    title: 'What else moved',
    xLabel: 'step',
    yLabel: 'share',
    yLow: 0,
    yHigh: 1,
    series: names.filter(([name]) => hasAny(numbers(body, name))).map(([name, label]) => line(body, name, label)),
  });
}

/** Draws entropy, covariance, quadrants and predicted changes by step; what the dump cannot say has no panel. */
export async function drawDynamics(body: DynamicsBody, subtitle: string): Promise<Figure> {
  const panels = [entropyPanel(body)];
  if (hasAny(numbers(body, 'cov_mean'))) panels.push(covariancePanel(body));
  if (hasAny(numbers(body, 'omega_share_pp'))) panels.push(quadrantPanel(body));
  if (body.predicted_change.response_covariance.pairs > 1) panels.push(changePanel(body));
  if (hasAny(numbers(body, 'cov_mean'))) panels.push(tailPanel(body));
  panels.push(healthPanel(body));
  return {
    title: 'Entropy of a policy in training',
    subtitle,
    headline: [
      { label: 'Steps', value: body.by_step.length },
      { label: 'Tokens', value: body.dump.counted_tokens },
      { label: 'First entropy', value: body.first_entropy_nats, unit: 'nats' },
      { label: 'Last entropy', value: body.last_entropy_nats, unit: 'nats' },
      ...(body.alarms.length > 0 ? [{ label: 'Alarm', value: body.alarms.map(({ kind }) => kind).join(', ') }] : []),
    ],
    panels: await Promise.all(panels),
    sections: [],
  };
}
