import type { Cell } from '../../report/csv.js';
import { escapeToken } from '../../report/escape.js';
import type { DumpReport } from '../rollouts/dump-report.js';
import type { DynamicsResult, EntropyKind } from './analyse-dynamics.js';
import { type AlarmRules, entropyAlarms, rankSuspects, type SuspectSeries } from './entropy-alarms.js';
import { fitThroughOrigin, measuredChange, type OriginFit } from './predicted-change.js';
import type { Estimate } from './response-totals.js';
import { ENTROPY_QUANTILES, type EntropyFigures, QUADRANTS, type StepFigures, TOP_FRACTIONS } from './step-figures.js';
import type { TopToken } from './token-table.js';

export const DYNAMICS_SCHEMA = 'policy-dynamics';

const QUADRANT_NAMES = ['pp', 'pn', 'np', 'nn'] as const;
const UNKNOWN: Estimate = { mean: Number.NaN, se: Number.NaN };

/** What a step is in the report and in the table: a number, or null where the dump cannot say. */
export type StepRow = Readonly<Record<string, number | null>>;

const known = (value: number | undefined): number | null => (value === undefined || Number.isNaN(value) ? null : value);

function quantile(figures: EntropyFigures | undefined, probability: (typeof ENTROPY_QUANTILES)[number]): number | null {
  return known(figures?.quantiles[ENTROPY_QUANTILES.indexOf(probability)]);
}

function topMean(step: StepFigures, fraction: (typeof TOP_FRACTIONS)[number]): number | null {
  return known(step.covariance?.top[TOP_FRACTIONS.indexOf(fraction)]);
}

/** Columns of the report skeleton (spec 0.5), under their names there. */
function skeleton(step: StepFigures): StepRow {
  return {
    step: step.step,
    n_tokens: step.tokens,
    entropy_token_mean: known(step.entropy?.token.mean),
    entropy_seq_mean: known(step.entropy?.sequence.mean),
    nll_mean: known(step.nll?.mean),
    entropy_p05: quantile(step.entropy, 0.05),
    entropy_p25: quantile(step.entropy, 0.25),
    entropy_p50: quantile(step.entropy, 0.5),
    entropy_p75: quantile(step.entropy, 0.75),
    entropy_p95: quantile(step.entropy, 0.95),
    cov_mean: known(step.covariance?.mean.mean),
    'cov_top_2e-4': topMean(step, 2e-4),
    'cov_top_2e-3': topMean(step, 2e-3),
    'cov_top_2e-2': topMean(step, 2e-2),
    clip_frac: known(step.ratios?.clipFraction.mean),
    zero_adv_group_frac: known(step.zeroAdvantageFraction),
    reward_mean: known(step.reward?.mean),
    pass_at_1: known(step.passAt1?.mean),
    length_mean: known(step.length.mean),
  };
}

function entropyRest(step: StepFigures): StepRow {
  const bound = (name: string, figures: EntropyFigures | undefined): [string, number | null][] => [
    [`${name}_token_mean`, known(figures?.token.mean)],
    [`${name}_token_mean_se`, known(figures?.token.se)],
    [`${name}_seq_mean`, known(figures?.sequence.mean)],
    [`${name}_p50`, quantile(figures, 0.5)],
    [`${name}_p80`, quantile(figures, 0.8)],
  ];
  return {
    entropy_token_mean_se: known(step.entropy?.token.se),
    entropy_seq_mean_se: known(step.entropy?.sequence.se),
    nll_mean_se: known(step.nll?.se),
    entropy_p80: quantile(step.entropy, 0.8),
    entropy_p99: quantile(step.entropy, 0.99),
    ...Object.fromEntries([...bound('entropy_lower', step.entropyLower), ...bound('entropy_upper', step.entropyUpper)]),
  };
}

function covarianceRest(step: StepFigures): StepRow {
  return {
    cov_mean_se: known(step.covariance?.mean.se),
    cov_frac_positive: known(step.covariance?.fractionPositive),
    'cov_top_0.2': topMean(step, 0.2),
    'cov_top_0.5': topMean(step, 0.5),
    cov_top_1: topMean(step, 1),
    response_cov: known(step.responseCovariance?.mean),
    response_cov_se: known(step.responseCovariance?.se),
  };
}

function quadrantRest({ quadrants }: StepFigures): StepRow {
  const size = quadrants?.omega.reduce((sum, omega) => sum + Math.abs(omega), 0) ?? Number.NaN;
  return {
    ...Object.fromEntries(QUADRANT_NAMES.map((name, q) => [`tokens_${name}`, known(quadrants?.tokens[q])])),
    ...Object.fromEntries(
      QUADRANT_NAMES.map((name, q) => [
        `omega_share_${name}`,
        known(Math.abs(quadrants?.omega[q] ?? Number.NaN) / size),
      ]),
    ),
    omega_net: known(quadrants?.net.mean),
    omega_net_se: known(quadrants?.net.se),
    omega_held_tokens: known(quadrants?.held),
  };
}

function policyRest(step: StepFigures): StepRow {
  const { ratios } = step;
  return {
    clip_frac_se: known(ratios?.clipFraction.se),
    clip_frac_high: known(ratios?.clippedHigh),
    clip_frac_low: known(ratios?.clippedLow),
    kl_k1_nats: known(ratios?.kl.mean),
    kl_k1_nats_se: known(ratios?.kl.se),
    kl_k3_nats: known(ratios?.klK3.mean),
    kl_k3_nats_se: known(ratios?.klK3.se),
    log_ratio_abs_mean: known(ratios?.absolute.mean),
    ref_kl_k1_nats: known(ratios?.reference?.kl.mean),
    ref_kl_k3_nats: known(ratios?.reference?.klK3.mean),
    reward_mean_se: known(step.reward?.se),
    pass_at_1_se: known(step.passAt1?.se),
    length_mean_se: known(step.length.se),
    length_max: step.longest,
    length_limit_frac: known(step.cutFraction),
    n_records: step.records,
    n_empty_records: step.emptyRecords,
    n_groups: step.groups,
  };
}

/** Which of the series of a dump is its entropy, nats: exact, the lower bound, or what was sampled. */
export function entropySeries(kind: EntropyKind, steps: readonly StepFigures[]): Float64Array {
  return Float64Array.from(steps, (step) => {
    if (kind === 'entropy') return step.entropy?.token.mean ?? Number.NaN;
    return (kind === 'bounds' ? step.entropyLower?.token.mean : step.nll?.mean) ?? Number.NaN;
  });
}

const MEASURED: Readonly<Record<EntropyKind, string>> = {
  entropy: 'entropy_token_mean',
  bounds: 'entropy_lower_token_mean',
  nll: 'nll_mean',
};

function fitBody(fit: OriginFit) {
  return {
    pairs: fit.pairs,
    eta_eff: fit.eta,
    eta_eff_se: fit.etaSe,
    r2: fit.r2,
    sign_agreement: fit.signAgreement,
    correlation: fit.correlation,
    running_correlation: fit.runningCorrelation,
  };
}

type Predictor = 'response_covariance' | 'token_covariance' | 'omega';

function predictors(steps: readonly StepFigures[]): Record<Predictor, Float64Array> {
  const of = (value: (step: StepFigures) => number | undefined): Float64Array =>
    Float64Array.from(steps, (step) => value(step) ?? Number.NaN);
  return {
    response_covariance: of((step) => step.responseCovariance?.mean),
    token_covariance: of((step) => step.covariance?.mean.mean),
    // The line is dH = -eta x, and the net change is already signed as entropy is.
    omega: of((step) => step.quadrants && -step.quadrants.net.mean),
  };
}

function suspects(rows: readonly StepRow[]): SuspectSeries[] {
  const series = (name: string, level?: number): SuspectSeries => ({
    name,
    values: Float64Array.from(rows, (row) => row[name] ?? Number.NaN),
    ...(level !== undefined && { level }),
  });
  const all = [
    series('clip_frac', 0.2),
    series('length_limit_frac', 0.1),
    series('kl_k3_nats', 0.1),
    series('ref_kl_k3_nats'),
    series('zero_adv_group_frac', 0.5),
    series('length_mean'),
    series('cov_top_2e-3'),
    series('reward_mean'),
  ];
  return all.filter(({ values }) => values.some((value) => !Number.isNaN(value)));
}

function quadrantTotals(steps: readonly StepFigures[]) {
  const found = steps.flatMap(({ quadrants }) => quadrants ?? []);
  if (found.length === 0) return null;
  const sum = (of: (one: (typeof found)[number]) => number): number => found.reduce((total, one) => total + of(one), 0);
  const size = sum((one) => one.omega.reduce((total, omega) => total + Math.abs(omega), 0));
  const tokens = sum((one) => one.neutral + one.tokens.reduce((total, count) => total + count, 0));
  return {
    rows: QUADRANTS.map((quadrant, q) => {
      const count = sum((one) => one.tokens[q]);
      return {
        advantage: quadrant.advantage,
        tendency: quadrant.tendency,
        predicted: quadrant.predicted,
        tokens: count,
        token_share: count / tokens,
        omega_share: sum((one) => Math.abs(one.omega[q])) / size,
        omega_sum: sum((one) => one.omega[q]),
      };
    }),
    neutral_tokens: sum((one) => one.neutral),
    held_tokens: sum((one) => one.held),
  };
}

function accuracyRows(steps: readonly StepFigures[]) {
  return steps.flatMap(({ step, covariance }) =>
    (covariance?.byAccuracy ?? []).map(({ accuracy, groups, tokens, mean }) => ({
      step,
      group_accuracy: accuracy,
      groups,
      tokens,
      cov_mean: mean,
    })),
  );
}

/** Steps between which others are missing, in numbers of the dump. */
function gaps(steps: readonly StepFigures[]): number {
  const apart = steps.slice(1).map(({ step }, t) => step - steps[t].step);
  const usual = Math.min(...apart);
  return apart.filter((distance) => distance > usual).length;
}

function warningsOf(
  result: DynamicsResult,
  alarms: ReturnType<typeof entropyAlarms>,
  collapseRatio: number,
  first: string | undefined,
) {
  const percent = Number((100 * collapseRatio).toPrecision(3));
  const { steps, kind } = result;
  const warnings: string[] = [];
  const nats = (value: number): string => value.toPrecision(3);
  for (const { kind: what, before, after, step } of alarms) {
    const lead = first === undefined ? '' : `; ${first} goes best with its changes`;
    warnings.push(
      what === 'collapse'
        ? `entropy collapsed from ${nats(before)} to ${nats(after)} nats; at or below ${percent}% of the first since step ${step}${lead}`
        : `entropy surged from ${nats(before)} to ${nats(after)} nats by step ${step}${lead}`,
    );
  }
  if (kind === 'bounds') {
    warnings.push('the dump has the likeliest tokens alone: entropies are bounds, and quadrants are not possible');
  }
  if (kind === 'nll') {
    warnings.push(
      'the dump has no entropies: nll_mean estimates them with high variance, and with bias where sampling had a temperature or a cut',
    );
  }
  const empty = steps.reduce((sum, step) => sum + step.emptyRecords, 0);
  if (empty > 0) warnings.push(`${empty} responses have no token that counts; means over responses leave them out`);
  const moved = steps.some((step) => (step.ratios?.absolute.mean ?? 0) > 0);
  if (!moved && steps.some((step) => step.ratios)) {
    warnings.push('old and new log-probabilities are the same: ratios are 1, so clip fraction and KL are 0');
  }
  const idle = steps.filter((step) => (step.zeroAdvantageFraction ?? 0) >= 0.5).length;
  if (idle > 0)
    warnings.push(`at ${idle} of ${steps.length} steps half of the groups or more have advantages of 0 alone`);
  if (steps.length > 2 && gaps(steps) > 0) {
    warnings.push(
      `${gaps(steps)} of the changes of entropy span missing steps; they are compared with the covariance of one step`,
    );
  }
  return warnings;
}

/** The body of the report. Numbers that the dump cannot give are null in `by_step` and named `nan` elsewhere. */
export function dynamicsBody(result: DynamicsResult, rules: AlarmRules) {
  const { steps, kind } = result;
  const entropy = entropySeries(kind, steps);
  const change = measuredChange(entropy);
  const by = predictors(steps);
  const fits = {
    response_covariance: fitThroughOrigin(by.response_covariance, change),
    token_covariance: fitThroughOrigin(by.token_covariance, change),
    omega: fitThroughOrigin(by.omega, change),
  };
  const rows = steps.map(
    (step, t): StepRow => ({
      ...skeleton(step),
      ...entropyRest(step),
      ...covarianceRest(step),
      dentropy_measured: known(change[t]),
      dentropy_predicted: known(-fits.response_covariance.eta * by.response_covariance[t]),
      ...quadrantRest(step),
      ...policyRest(step),
    }),
  );
  const alarms = entropyAlarms(
    Float64Array.from(steps, ({ step }) => step),
    entropy,
    rules,
  );
  const ranked = rankSuspects(suspects(rows), change, rules.window);
  const leading = ranked.find(({ correlation }) => !Number.isNaN(correlation))?.name;
  const path = (paths: (string | undefined)[]): string | null => {
    const used = paths.filter((one) => one !== undefined);
    return used.length === 0 ? null : used.includes('histogram') ? 'histogram' : 'memory';
  };
  return {
    dump: result.dump satisfies DumpReport,
    entropy_kind: kind,
    selection: {
      entropy: path(steps.map((step) => (step.entropy ?? step.entropyLower)?.path)),
      covariance: path(steps.map((step) => step.covariance?.path)),
    },
    first_entropy_nats: entropy.at(0) ?? Number.NaN,
    last_entropy_nats: entropy.at(-1) ?? Number.NaN,
    length_limit: result.lengthLimit,
    by_step: rows,
    cov_by_group_accuracy: accuracyRows(steps),
    predicted_change: {
      measured: MEASURED[kind],
      response_covariance: fitBody(fits.response_covariance),
      token_covariance: fitBody(fits.token_covariance),
      omega: fitBody(fits.omega),
    },
    quadrants: quadrantTotals(steps),
    high_entropy_tokens: {
      tokens: result.highTokens,
      rows: result.frequencies.map(({ text, high, all, meanEntropy }) => ({
        text: escapeToken(text),
        high,
        all,
        high_share: high / all,
        mean_entropy_nats: meanEntropy,
      })),
    },
    alarm_rules: {
      collapse_ratio: rules.collapseRatio,
      surge_ratio: rules.surgeRatio,
      window: rules.window,
    },
    alarms: alarms.map(({ kind: what, before, after, step }) => ({
      kind: what,
      step,
      before_nats: before,
      after_nats: after,
    })),
    suspects: ranked.map((suspect) => ({
      name: suspect.name,
      correlation: suspect.correlation,
      p_value: suspect.pValue,
      pairs: suspect.pairs,
      first: suspect.first,
      last: suspect.last,
      level: suspect.level,
      steps_at_level: suspect.stepsAtLevel,
    })),
    warnings: warningsOf(result, alarms, rules.collapseRatio, leading),
  };
}

export type DynamicsBody = ReturnType<typeof dynamicsBody>;

const NO_STEP: StepFigures = {
  step: 0,
  records: 0,
  emptyRecords: 0,
  tokens: 0,
  groups: 0,
  length: UNKNOWN,
  longest: 0,
  cutFraction: 0,
};

/** Columns of `--out`: those of the skeleton first, under its names. */
export const STEP_COLUMNS: readonly string[] = Object.keys({
  ...skeleton(NO_STEP),
  ...entropyRest(NO_STEP),
  ...covarianceRest(NO_STEP),
  dentropy_measured: null,
  dentropy_predicted: null,
  ...quadrantRest(NO_STEP),
  ...policyRest(NO_STEP),
});

export function* stepRows(body: DynamicsBody): Generator<Cell[]> {
  for (const row of body.by_step) yield STEP_COLUMNS.map((name) => row[name]);
}

/** Columns of `--table`. */
export const TOKEN_COLUMNS_OUT = [
  'rank',
  'score',
  'step',
  'response',
  'record',
  'position',
  'token_id',
  'token',
  'entropy_nats',
  'logprob_nats',
  'advantage',
  'before',
  'after',
] as const;

export function* tokenRows(tokens: readonly TopToken[]): Generator<Cell[]> {
  for (const [i, token] of tokens.entries()) {
    yield [
      i + 1,
      token.score,
      token.step,
      escapeToken(token.response),
      token.record,
      token.position,
      token.tokenId < 0 ? null : token.tokenId,
      escapeToken(token.text),
      known(token.entropy),
      known(token.logProb),
      known(token.advantage),
      escapeToken(token.before),
      escapeToken(token.after),
    ];
  }
}
