import { addTo, createCompensatedSum, totalOf } from '../../compensated-sum.js';
import { smallBlocks } from '../../rollouts/small-blocks.js';
import type { RolloutStep, Rollouts, TokenBlock } from '../../rollouts/types.js';
import { prepareClipCov } from '../clip-cov.js';
import { prepareKlCov } from '../kl-cov.js';
import { eachRecord } from '../record-effects.js';
import { numberSetting } from '../settings.js';
import type { InterventionContext, InterventionSettings, PreparedIntervention } from '../types.js';
import { figure, RECORD_COLUMNS, recordCells } from './points.js';
import { type SignedLogAxis, signedLogAxis, signedLogCounts, signedLogLabel } from './signed-log.js';
import { textAround } from './token-context.js';
import type { DetailChart, DetailSink, MethodDetails } from './types.js';

/** Covariances below this are drawn on a linear scale. */
const LINEAR_COVARIANCE = 0.01;

/** A method that chooses tokens by their summand of the covariance. */
interface PreparedChoice extends PreparedIntervention {
  /** Covariance of every token, NaN under a mask of 0; 1 where it is chosen. */
  choose(block: TokenBlock): { readonly covariance: Float64Array; readonly chosen: Uint8Array };
}

/** How one of both methods prepares a step, and what it says of it. */
interface CovarianceMethod {
  readonly facts: readonly string[];
  prepare(step: RolloutStep, settings: InterventionSettings, context: InterventionContext): PreparedChoice;
  /** Covariances at which tokens begin or cease to be chosen; `thresholds` are those of the steps. */
  cuts(
    settings: InterventionSettings,
    thresholds: readonly number[],
  ): { readonly label: string; readonly at: number }[];
}

const klCovMethod: CovarianceMethod = {
  facts: ['selected', 'effective_fraction', 'covariance_threshold', 'abs_log_ratio_mean_nats', 'units'],
  prepare(step, settings, context) {
    const prepared = prepareKlCov(step, settings, context);
    const choose = (block: TokenBlock) => {
      const { covariance, selected } = prepared.inspect(block);
      return { covariance, chosen: selected };
    };
    return { ...prepared, choose };
  },
  cuts(_settings, thresholds) {
    const known = thresholds.filter(Number.isFinite);
    if (known.length === 0) return [];
    const [least, most] = [Math.min(...known), Math.max(...known)];
    return least === most
      ? [{ label: 'cut', at: least }]
      : [
          { label: 'lowest cut of a step', at: least },
          { label: 'highest cut', at: most },
        ];
  },
};

const clipCovMethod: CovarianceMethod = {
  facts: ['eligible', 'quota', 'chosen', 'clip_fraction', 'clipped_by_ppo', 'effective_fraction', 'units'],
  prepare(step, settings, context) {
    const prepared = prepareClipCov(step, settings, context);
    return { ...prepared, choose: prepared.inspect };
  },
  cuts: (settings) => [
    { label: 'lower bound', at: numberSetting(settings, 'lower') },
    { label: 'upper bound', at: numberSetting(settings, 'upper') },
  ],
};

/** What is summed over the tokens of a step. */
interface StepSums {
  readonly all: Float64Array;
  readonly chosen: Float64Array;
  chosenTokens: number;
  positive: number;
  least: number;
  most: number;
}

function sumsOf(step: RolloutStep, prepared: PreparedChoice): StepSums {
  const sums: StepSums = {
    ...{ all: createCompensatedSum(), chosen: createCompensatedSum(), chosenTokens: 0, positive: 0 },
    ...{ least: Number.POSITIVE_INFINITY, most: Number.NEGATIVE_INFINITY },
  };
  for (const block of step.blocks()) {
    const { covariance, chosen } = prepared.choose(block);
    for (let i = 0; i < covariance.length; i++) {
      if (block.mask[i] === 0) continue;
      const value = covariance[i];
      addTo(sums.all, value);
      if (value > 0) sums.positive++;
      sums.least = Math.min(sums.least, value);
      sums.most = Math.max(sums.most, value);
      if (chosen[i] === 0) continue;
      addTo(sums.chosen, value);
      sums.chosenTokens++;
    }
  }
  return sums;
}

/** Counts the covariances of a step, and writes a row for every token that is chosen. */
function readTokens(
  step: RolloutStep,
  prepared: PreparedChoice,
  counts: { readonly all: ReturnType<typeof signedLogCounts>; readonly chosen: ReturnType<typeof signedLogCounts> },
  rollouts: Rollouts,
  sink: DetailSink,
): void {
  for (const block of step.blocks()) {
    const { covariance, chosen } = prepared.choose(block);
    const { logProb, oldLogProb = logProb, entropy, advantage, tokens } = block;
    eachRecord(block, (record, from, to) => {
      for (let i = from; i < to; i++) {
        if (block.mask[i] === 0) continue;
        counts.all.add(covariance[i]);
        if (chosen[i] === 0) continue;
        counts.chosen.add(covariance[i]);
        const around = textAround(block, rollouts.textOf, i, [from, to]);
        sink.row('chosen', [
          ...[...recordCells(rollouts, record), i - from, covariance[i], logProb?.[i], oldLogProb?.[i]],
          ...[entropy?.[i], advantage?.[i], tokens?.[i], around?.text, around?.context],
        ]);
      }
    });
  }
}

function covarianceChart(
  axis: SignedLogAxis,
  counts: { readonly all: ReturnType<typeof signedLogCounts>; readonly chosen: ReturnType<typeof signedLogCounts> },
  cuts: readonly { readonly label: string; readonly at: number }[],
) {
  return {
    kind: 'histogram',
    chart: {
      title: 'Covariance of the tokens',
      note: 'Summands (A - mean A)(log pi - mean log pi). Each outline has area 1.',
      xLabel: signedLogLabel('c', axis),
      unit: 'unit of the axis',
      items: 'tokens',
      series: [
        { name: 'all tokens', histogram: counts.all.histogram },
        { name: 'chosen', histogram: counts.chosen.histogram },
      ],
      marked: cuts.map(({ label, at }) => ({
        label,
        value: axis.place(at),
        shown: `c = ${Number(at.toPrecision(4))}`,
      })),
    },
  } as const;
}

/** Mean covariance of all tokens and of the chosen ones, step by step. */
function stepChart(
  rows: readonly {
    readonly step: number;
    readonly covariance_mean: number;
    readonly covariance_chosen_mean: number | null;
  }[],
): DetailChart[] {
  if (rows.length < 2) return [];
  const x = rows.map(({ step }) => step);
  const series = [
    { name: 'all tokens', x, y: rows.map((row) => row.covariance_mean) },
    { name: 'chosen', x, y: rows.map((row) => row.covariance_chosen_mean ?? Number.NaN) },
  ];
  const note = 'Mean over the tokens of a step. A gap: no token is chosen.';
  return [
    {
      kind: 'lines',
      chart: { title: 'Covariance by step', note, xLabel: 'step', yLabel: 'mean c', yZero: true, series },
    },
  ];
}

function covarianceDetails(method: CovarianceMethod): MethodDetails {
  return {
    tables: [
      {
        name: 'chosen',
        title: 'every token that is chosen, with its covariance',
        form: 'csv',
        columns: [
          ...[...RECORD_COLUMNS, 'position', 'covariance', 'logprob_nats', 'old_logprob_nats', 'entropy_nats'],
          ...['advantage', 'token', 'text', 'context'],
        ],
      },
      {
        name: 'steps',
        title: 'covariances and choices by step',
        form: 'csv',
        columns: [
          ...['step', 'tokens', 'covariance_mean', 'covariance_largest', 'covariance_positive_share'],
          ...['covariance_chosen_mean', ...method.facts],
        ],
      },
    ],
    run(rollouts, settings, context, sink) {
      const warnings = new Map<string, number>();
      let most = 0;
      const rows = rollouts.steps.map((whole) => {
        const step = smallBlocks(whole);
        const prepared = method.prepare(step, settings, context);
        for (const warning of prepared.warnings) warnings.set(warning, (warnings.get(warning) ?? 0) + 1);
        const sums = sumsOf(step, prepared);
        most = Math.max(most, Math.abs(sums.least), Math.abs(sums.most));
        const { facts } = prepared;
        return { step: step.step, tokens: step.counted, facts, sums };
      });
      const axis = signedLogAxis(most, LINEAR_COVARIANCE);
      const counts = { all: signedLogCounts(axis), chosen: signedLogCounts(axis) };
      for (const whole of rollouts.steps) {
        const step = smallBlocks(whole);
        readTokens(step, method.prepare(step, settings, context), counts, rollouts, sink);
      }
      const byStep = rows.map(({ step, tokens, facts, sums }) => ({
        step,
        tokens,
        covariance_mean: totalOf(sums.all) / tokens,
        covariance_largest: sums.most,
        covariance_positive_share: sums.positive / tokens,
        covariance_chosen_mean: figure(totalOf(sums.chosen) / sums.chosenTokens),
        ...Object.fromEntries(method.facts.map((name) => [name, figure(facts[name])])),
      }));
      for (const row of byStep)
        sink.row(
          'steps',
          Object.values(row).map((value) => value ?? undefined),
        );
      const tokens = rows.reduce((sum, row) => sum + row.tokens, 0);
      const chosen = rows.reduce((sum, { sums }) => sum + sums.chosenTokens, 0);
      const mean = (pick: (sums: StepSums) => number, count: number): number =>
        rows.reduce((sum, { sums }) => sum + pick(sums), 0) / count;
      const cuts = method.cuts(
        settings,
        rows.map(({ facts }) => facts.covariance_threshold),
      );
      return {
        report: {
          steps: rows.length,
          tokens,
          chosen,
          chosen_share: chosen / tokens,
          covariance_mean: mean(({ all }) => totalOf(all), tokens),
          covariance_largest: rows.reduce(
            (largest, { sums }) => Math.max(largest, sums.most),
            Number.NEGATIVE_INFINITY,
          ),
          covariance_positive_share: mean(({ positive }) => positive, tokens),
          covariance_chosen_mean: figure(mean((sums) => totalOf(sums.chosen), chosen)),
          by_step: byStep,
        },
        charts: [covarianceChart(axis, counts, cuts), ...stepChart(byStep)],
        warnings: [...warnings].map(([warning, times]) =>
          rows.length > 1 ? `${warning} (${times} of ${rows.length} steps)` : warning,
        ),
      };
    },
  };
}

/** KL-Cov by token: which get the penalty, and where the cut lies. */
export const klCovDetails: MethodDetails = covarianceDetails(klCovMethod);

/** Clip-Cov by token: which are left out of the update, and between which bounds they were drawn. */
export const clipCovDetails: MethodDetails = covarianceDetails(clipCovMethod);
