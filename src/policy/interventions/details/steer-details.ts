import { addTo, createCompensatedSum, totalOf } from '../../compensated-sum.js';
import { fitThroughOrigin, measuredChange } from '../../dynamics/predicted-change.js';
import { smallBlocks } from '../../rollouts/small-blocks.js';
import type { RolloutStep, Rollouts } from '../../rollouts/types.js';
import { meanEntropy } from '../entropy-bonus.js';
import { eachRecord } from '../record-effects.js';
import { choiceSetting } from '../settings.js';
import { type PreparedSteer, prepareSteer } from '../steer.js';
import { QUADRANTS } from '../steer-facts.js';
import type { Facts } from '../types.js';
import { createLargestTokens } from './largest-tokens.js';
import { figure, RECORD_COLUMNS, recordCells } from './points.js';
import { type SignedLogAxis, signedLogAxis, signedLogCounts, signedLogLabel } from './signed-log.js';
import { textAround } from './token-context.js';
import type { DetailChart, DetailValue, MethodDetails } from './types.js';

/** Tokens of the table. */
const MOST_TOKENS = 500;
/** Metrics below this are drawn on a linear scale. */
const LINEAR_METRIC = 1e-3;

const QUADRANT_TITLES: Readonly<Record<(typeof QUADRANTS)[number]['name'], string>> = {
  raised_likely: 'A > 0, likely (H down)',
  raised_unlikely: 'A > 0, unlikely (H up)',
  lowered_likely: 'A < 0, likely (H up)',
  lowered_unlikely: 'A < 0, unlikely (H down)',
};

const STEP_FACTS = [
  'metric_largest',
  'metric_p999',
  'metric_top_1_percent_share',
  'clamped_new',
  'clamped_old',
  'weight_mean',
  'weight_smallest',
  'weight_largest',
] as const;

/** One step as the details tell it. */
interface SteerStep {
  readonly step: number;
  readonly tokens: number;
  readonly facts: Facts;
  readonly entropy: number;
  /** Sum over the tokens of -Omega, by the number of tokens. */
  readonly predicted: number;
}

/** Quadrant of a token in the order of `QUADRANTS`; -1 where advantage or surplus are 0. */
function quadrantOf(advantage: number, surplus: number): number {
  if (advantage === 0 || surplus === 0) return -1;
  return (advantage > 0 ? 0 : 2) + (surplus > 0 ? 0 : 1);
}

/** Metrics of a whole dump by quadrant, as they are drawn and counted. */
function createQuadrants(axis: SignedLogAxis) {
  return QUADRANTS.map(({ name, entropy }) => ({
    name,
    entropy,
    tokens: 0,
    metric: createCompensatedSum(),
    ...signedLogCounts(axis),
  }));
}

/** Shows every counted token with its metric to the quadrants and to the table of the largest. */
function readTokens(
  step: RolloutStep,
  prepared: PreparedSteer,
  quadrants: ReturnType<typeof createQuadrants>,
  largest: ReturnType<typeof createLargestTokens<readonly DetailValue[]>>,
  rollouts: Rollouts,
): void {
  for (const block of step.blocks()) {
    const { mask, logProb, oldLogProb = logProb, entropy, advantage } = block;
    if (logProb === undefined || oldLogProb === undefined || entropy === undefined || advantage === undefined) continue;
    const omegas = prepared.omegas(block);
    const weights = prepared.weights(block);
    eachRecord(block, (record, from, to) => {
      for (let i = from; i < to; i++) {
        if (mask[i] === 0) continue;
        const metric = Math.abs(omegas[i]);
        const quadrant = quadrants[quadrantOf(advantage[i], logProb[i] + entropy[i])];
        if (quadrant !== undefined) {
          quadrant.tokens++;
          addTo(quadrant.metric, metric);
          quadrant.add(omegas[i]);
        }
        largest.offer(metric, () => {
          const around = textAround(block, rollouts.textOf, i, [from, to]);
          return [
            ...recordCells(rollouts, record),
            i - from,
            omegas[i],
            weights[i],
            quadrant?.name,
            logProb[i],
            oldLogProb[i],
            entropy[i],
            advantage[i],
            block.tokens?.[i],
            around?.text,
            around?.context,
          ];
        });
      }
    });
  }
}

/** How the predicted changes go with the measured ones. */
function agreementOf(steps: readonly SteerStep[], measured: Float64Array) {
  // The fit is by the mean of Omega, whose change is its opposite.
  const fit = fitThroughOrigin(
    Float64Array.from(steps, ({ predicted }) => -predicted),
    measured,
  );
  return {
    pairs: fit.pairs,
    step_size_fitted: figure(fit.eta),
    step_size_standard_error: figure(fit.etaSe),
    r2: figure(fit.r2),
    sign_agreement: figure(fit.signAgreement),
    pearson: figure(fit.correlation),
  };
}

function chartsOf(
  steps: readonly SteerStep[],
  quadrants: ReturnType<typeof createQuadrants>,
  axis: SignedLogAxis,
  measured: Float64Array,
  slope: number | null,
): DetailChart[] {
  const x = steps.slice(0, -1).map(({ predicted }) => predicted);
  const y = measured.subarray(0, x.length);
  const charts: DetailChart[] = [
    {
      kind: 'histogram',
      chart: {
        title: 'Metric of the tokens by quadrant',
        note: 'Above 0 the update of a token is predicted to lower the entropy. Likely: ln x + H > 0. Each outline has area 1.',
        xLabel: signedLogLabel('Omega', axis),
        unit: 'unit of the axis',
        items: 'tokens',
        series: quadrants
          .filter(({ tokens }) => tokens > 0)
          .map(({ name, histogram }) => ({ name: QUADRANT_TITLES[name], histogram })),
      },
    },
  ];
  if (x.length > 0) {
    const ends = [Math.min(0, ...x), Math.max(0, ...x)];
    charts.push({
      kind: 'scatter',
      chart: {
        title: 'Predicted against measured change of the entropy',
        note: 'One point a step: the mean of -Omega, and the mean entropy of the next step less that of this one.',
        xLabel: 'mean of -Omega, nats per unit of step size',
        yLabel: 'measured change, nats',
        series: [
          { name: 'steps', x, y, labels: steps.slice(0, x.length).map(({ step }) => `step ${step}`), radius: 3 },
        ],
        ...(slope !== null && { curve: { label: 'through 0', x: ends, y: ends.map((end) => slope * end) } }),
      },
    });
  }
  const line = (name: 'metric_largest' | 'metric_p999', title: string) => ({
    name: title,
    x: steps.map(({ step }) => step),
    y: steps.map(({ facts }) => facts[name]),
  });
  if (steps.length > 1)
    charts.push({
      kind: 'lines',
      chart: {
        title: 'Largest metric of a step',
        note: 'The largest decides the weights of all; far above the 99.9th percentile it is an outlier that flattens them.',
        xLabel: 'step',
        yLabel: '|Omega|',
        yScale: 'log',
        width: 964,
        series: [line('metric_largest', 'largest'), line('metric_p999', '99.9th percentile')],
      },
    });
  return charts;
}

/** STEER by token and step: the tokens of the largest metric, quadrants, and the predicted change against the measured one. */
export const steerDetails: MethodDetails = {
  tables: [
    {
      name: 'tokens',
      title: `the ${MOST_TOKENS} tokens with the largest |Omega|, largest first`,
      form: 'csv',
      columns: [
        ...[...RECORD_COLUMNS, 'position', 'omega', 'weight', 'quadrant', 'logprob_nats', 'old_logprob_nats'],
        ...['entropy_nats', 'advantage', 'token', 'text', 'context'],
      ],
    },
    {
      name: 'steps',
      title: 'metric, weights, quadrants and changes of the entropy by step',
      form: 'csv',
      columns: [
        ...['step', 'tokens', ...STEP_FACTS],
        ...QUADRANTS.flatMap(({ name }) => [`${name}_tokens`, `${name}_share`]),
        ...['predicted_entropy_change_sum', 'predicted_entropy_change_mean', 'entropy_mean_nats'],
        'measured_next_change_nats',
      ],
    },
  ],
  run(rollouts, settings, context, sink) {
    const steps: SteerStep[] = [];
    const warnings = new Set<string>();
    const absolutes = createCompensatedSum();
    for (const whole of rollouts.steps) {
      const prepared = prepareSteer(smallBlocks(whole), settings, context);
      for (const warning of prepared.warnings)
        warnings.add(rollouts.steps.length > 1 ? `step ${whole.step}: ${warning}` : warning);
      const { facts } = prepared;
      steps.push({
        step: whole.step,
        tokens: whole.counted,
        facts,
        entropy: meanEntropy(whole),
        predicted: facts.predicted_entropy_change_sum / whole.counted,
      });
    }
    const most = steps.reduce((largest, { facts }) => Math.max(largest, facts.metric_largest), 0);
    const axis = signedLogAxis(most, LINEAR_METRIC);
    const quadrants = createQuadrants(axis);
    const largest = createLargestTokens<readonly DetailValue[]>(MOST_TOKENS);
    for (const whole of rollouts.steps) {
      const step = smallBlocks(whole);
      readTokens(step, prepareSteer(step, settings, context), quadrants, largest, rollouts);
    }
    for (const { metric } of quadrants) addTo(absolutes, totalOf(metric));
    for (const row of largest.rows()) sink.row('tokens', row);
    const measured = measuredChange(Float64Array.from(steps, ({ entropy }) => entropy));
    for (const [s, { step, tokens, facts, entropy, predicted }] of steps.entries())
      sink.row('steps', [
        ...[step, tokens, ...STEP_FACTS.map((name) => facts[name])],
        ...QUADRANTS.flatMap(({ name }) => [facts[`${name}_tokens`], facts[`${name}_share`]]),
        ...[facts.predicted_entropy_change_sum, predicted, entropy, measured[s]],
      ]);
    const agreement = agreementOf(steps, measured);
    const total = totalOf(absolutes);
    const sumOf = (name: string): number => steps.reduce((sum, { facts }) => sum + facts[name], 0);
    return {
      report: {
        estimator: choiceSetting(settings, 'estimator'),
        steps: steps.length,
        tokens: steps.reduce((sum, { tokens }) => sum + tokens, 0),
        metric_largest: most,
        clamped_new: sumOf('clamped_new'),
        clamped_old: sumOf('clamped_old'),
        quadrants: Object.fromEntries(
          quadrants.map(({ name, entropy, tokens, metric }) => [
            name,
            { entropy, tokens, metric_share: total === 0 ? 0 : totalOf(metric) / total },
          ]),
        ),
        prediction: agreement,
        by_step: steps.map(({ step, tokens, facts, entropy, predicted }, s) => ({
          step,
          tokens,
          ...Object.fromEntries(STEP_FACTS.map((name) => [name, facts[name]])),
          predicted_entropy_change_sum: facts.predicted_entropy_change_sum,
          predicted_entropy_change_mean: predicted,
          entropy_mean_nats: entropy,
          measured_next_change_nats: figure(measured[s]),
        })),
      },
      charts: chartsOf(steps, quadrants, axis, measured, agreement.step_size_fitted),
      warnings: [...warnings],
    };
  },
};
