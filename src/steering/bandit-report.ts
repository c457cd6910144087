import type { Cell } from '../report/csv.js';
import type { ReportObject } from '../report/values.js';
import { countEntropy } from './action-entropy.js';
import { checkParsed } from './action-pattern.js';
import { type GaussianBandit, runFigures } from './bandit.js';
import type { BanditRun, BanditStep } from './bandit-job.js';
import { type AgentPrompt, actionNames, actionPatternOf, forcedReply } from './prompts.js';
import { ratioMean } from './ratio-mean.js';

/** Name of the JSON report of `steer bandit`, without its prefix. */
export const BANDIT_SCHEMA = 'steer-bandit';

/**
 * One row of the log: a step. Keys are those that `steer compute` reads; a run's name tells bandit, seed and number, so that
 * logs can be put together.
 */
export function logRow(run: number, step: BanditStep, setting: BanditSetting): Record<string, unknown> {
  const { bandit, prompt, seed } = setting;
  const { exact, sampled, pull } = step;
  const counted = sampled && countEntropy(sampled.counts);
  return {
    run: `${bandit.means.join(',')} seed ${seed} run ${run}`,
    step: step.step,
    prompt: step.prompt,
    rendered: step.rendered,
    actions: actionNames(prompt),
    ...(sampled &&
      counted && {
        counts: sampled.counts,
        n_valid: counted.valid,
        plugin_entropy_nats: counted.valid > 0 ? counted.pluginNats : null,
        miller_madow_entropy_nats: counted.valid > 0 ? counted.millerMadowNats : null,
        completions: sampled.completions,
        completion_actions: sampled.actions,
      }),
    ...(exact && {
      entropy_nats: exact.entropyNats,
      action_probabilities: [...exact.probabilities],
      action_mass: exact.mass,
    }),
    action: pull?.action ?? null,
    reward: pull?.reward ?? null,
    reply: pull?.completion ?? null,
  };
}

/** Quantities that are averaged, by the beginning of their keys in the report. */
const MEASURES = {
  action_entropy_nats: ({ exact }: BanditStep) => exact?.entropyNats,
  action_mass: ({ exact }: BanditStep) => exact?.mass,
  plugin_entropy_nats: ({ sampled }: BanditStep) => sampled && finite(countEntropy(sampled.counts).pluginNats),
  miller_madow_entropy_nats: ({ sampled }: BanditStep) =>
    sampled && finite(countEntropy(sampled.counts).millerMadowNats),
  valid_share: ({ sampled }: BanditStep) => sampled && countEntropy(sampled.counts).valid / sampled.completions.length,
  token_entropy_nats: ({ sampled }: BanditStep) => sampled?.tokenEntropyNats,
} as const;

type Measure = keyof typeof MEASURES;
const MEASURE_NAMES = Object.keys(MEASURES) as Measure[];

/** A step without a completion that parses has no entropy. */
const finite = (value: number): number | undefined => (Number.isNaN(value) ? undefined : value);

/** A mean over runs with its bootstrap; null where nothing was measured, and the last three for fewer than two runs. */
export interface RunMean {
  readonly mean: number | null;
  readonly se: number | null;
  readonly low: number | null;
  readonly high: number | null;
}

/** A mean in a report: `x`, `x_se`, `x_low`, `x_high`. */
type MeanKeys<K extends string> = { readonly [P in K | `${K}_se` | `${K}_low` | `${K}_high`]: number | null };

const OUTCOMES = ['mean_reward', 'regret', 'best_arm_share', 'switch_rate'] as const;

/** One run of the report. */
export type RunRow = {
  readonly run: number;
  readonly steps: number;
  /** Whether it reached the horizon. */
  readonly complete: boolean;
  readonly mean_reward: number;
  readonly regret: number;
  readonly best_arm_share: number;
  readonly switch_rate: number;
  /** Cumulative action index (0-based) after each step. */
  readonly cumulative_action: readonly number[];
} & { readonly [K in Measure]: number | null };

/** What all runs show at one step. */
export type StepRow = { readonly step: number; readonly runs: number } & MeanKeys<Measure>;

export type BanditBody = {
  readonly task: string;
  readonly prompt_style: string;
  readonly history: number | null;
  readonly actions: readonly string[];
  readonly action_pattern: string;
  /** What a forced choice writes before the action, and the strings that it compares. */
  readonly forced_thought: string;
  readonly forced_actions: readonly string[];
  /** The prompt of the first step of the first run. */
  readonly first_prompt: string;
  readonly longest_prompt_tokens: number;
  readonly means: readonly number[];
  readonly sigma: number;
  readonly horizon: number;
  readonly runs: number;
  readonly steps: number;
  readonly complete_runs: number;
  /** Steps that were carried out over those that the runs would have had. */
  readonly complete_step_share: number;
  readonly greatest_entropy_nats: number;
  readonly bootstrap: {
    readonly unit: 'run';
    readonly resamples: number;
    readonly level: number;
    readonly seed: number;
  };
  readonly by_run: readonly RunRow[];
  readonly by_step: readonly StepRow[];
  readonly warnings: readonly string[];
  /** Vectors, strengths, layers and positions; null without a vector. */
  readonly steering: ReportObject | null;
  /** What had to be assumed about files of vectors. */
  readonly assumptions: readonly string[];
} & MeanKeys<Measure> &
  MeanKeys<(typeof OUTCOMES)[number]>;

export interface BanditSetting {
  readonly bandit: GaussianBandit;
  readonly prompt: AgentPrompt;
  readonly pattern: string | undefined;
  readonly seed: number;
  readonly steering: ReportObject | null;
  readonly assumptions: readonly string[];
}

const RESAMPLES = 1000;
const LEVEL = 0.95;
const NO_INTERVAL = { se: null, low: null, high: null };

/**
 * Mean of values that lie in runs, with the run as unit: the sum over all runs over the count over all runs, and its
 * percentile bootstrap.
 * @param values [runs], the values of each run
 */
export function meanOverRuns(values: readonly (readonly number[])[], seed: number): RunMean {
  const own = values.filter((list) => list.length > 0);
  const sums = Float64Array.from(own.flatMap((list) => [list.reduce((a, b) => a + b, 0), list.length]));
  const found = ratioMean(sums, { seed, resamples: RESAMPLES, level: LEVEL });
  const { se, low, high } = found?.interval ?? NO_INTERVAL;
  return { mean: found?.mean ?? null, se, low, high };
}

function keysOf<K extends string>(name: K, { mean, se, low, high }: RunMean): MeanKeys<K> {
  return { [name]: mean, [`${name}_se`]: se, [`${name}_low`]: low, [`${name}_high`]: high } as MeanKeys<K>;
}

/** Keys of several means. */
function allKeys<K extends string>(names: readonly K[], meanOf: (name: K) => RunMean): MeanKeys<K> {
  return Object.assign({}, ...names.map((name) => keysOf(name, meanOf(name)))) as MeanKeys<K>;
}

const present = (steps: readonly BanditStep[], name: Measure): number[] =>
  steps.flatMap((step) => MEASURES[name](step) ?? []);

function runRow({ run, steps }: BanditRun, bandit: GaussianBandit): RunRow {
  const pulls = steps.flatMap(({ pull }) => pull ?? []);
  const figures = runFigures(bandit, pulls);
  let index = 0;
  const measures = MEASURE_NAMES.map((name) => [name, meanOverRuns([present(steps, name)], 0).mean] as const);
  return {
    run,
    steps: figures.steps,
    complete: figures.steps === bandit.horizon,
    mean_reward: figures.meanReward,
    regret: figures.regret,
    best_arm_share: figures.bestArmShare,
    switch_rate: figures.switchRate,
    ...(Object.fromEntries(measures) as { [K in Measure]: number | null }),
    cumulative_action: pulls.map(({ action }) => {
      index += action;
      return index;
    }),
  };
}

/** Body of the report, from runs in the order of their numbers. */
export function banditBody(runs: readonly BanditRun[], setting: BanditSetting): BanditBody {
  const { bandit, prompt, seed } = setting;
  const rows = runs.map((run) => runRow(run, bandit));
  const steps = rows.reduce((sum, row) => sum + row.steps, 0);
  const { thought, actions } = forcedReply(prompt);
  const outcome = (name: (typeof OUTCOMES)[number]): RunMean =>
    meanOverRuns(
      rows.map((row) => (Number.isNaN(row[name]) ? [] : [row[name]])),
      seed,
    );
  return {
    task: prompt.task,
    prompt_style: prompt.style,
    history: prompt.history ?? null,
    actions: actionNames(prompt),
    action_pattern: setting.pattern ?? actionPatternOf(prompt),
    forced_thought: thought,
    forced_actions: actions,
    first_prompt: runs[0]?.steps[0]?.prompt ?? '',
    longest_prompt_tokens: runs.reduce(
      (most, run) => run.steps.reduce((max, { promptTokens }) => Math.max(max, promptTokens), most),
      0,
    ),
    means: bandit.means,
    sigma: bandit.sigma,
    horizon: bandit.horizon,
    runs: runs.length,
    steps,
    complete_runs: rows.filter(({ complete }) => complete).length,
    complete_step_share: steps / (runs.length * bandit.horizon),
    greatest_entropy_nats: Math.log(prompt.arms),
    ...allKeys(OUTCOMES, outcome),
    ...allKeys(MEASURE_NAMES, (name) =>
      meanOverRuns(
        runs.map((run) => present(run.steps, name)),
        seed,
      ),
    ),
    bootstrap: { unit: 'run', resamples: RESAMPLES, level: LEVEL, seed },
    by_run: rows,
    by_step: Array.from({ length: bandit.horizon }, (_, step) => {
      const there = runs.flatMap((run) => (run.steps[step] ? [run.steps[step]] : []));
      return {
        step,
        runs: there.length,
        ...allKeys(MEASURE_NAMES, (name) =>
          meanOverRuns(
            there.map((one) => present([one], name)),
            seed,
          ),
        ),
      };
    }),
    steering: setting.steering,
    assumptions: setting.assumptions,
    warnings: warningsOf(runs, rows, bandit),
  };
}

/** Below this the choice is forced on a model that would rather say something else. */
const LITTLE_MASS = 0.01;

function warningsOf(runs: readonly BanditRun[], rows: readonly RunRow[], { horizon }: GaussianBandit): string[] {
  const warnings: string[] = [];
  const ended = rows.filter(({ complete }) => !complete).length;
  if (ended > 0) warnings.push(`${ended} of ${rows.length} runs ended before step ${horizon}: no completion parsed`);
  const steps = runs.flatMap((run) => run.steps);
  const entropies = steps.flatMap(
    (step) => MEASURES.action_entropy_nats(step) ?? MEASURES.plugin_entropy_nats(step) ?? [],
  );
  if (entropies.every((entropy) => entropy === 0)) {
    warnings.push('every step chose one action: no entropy to weight a direction with');
  }
  const { mean } = meanOverRuns([steps.flatMap((step) => MEASURES.action_mass(step) ?? [])], 0);
  if (mean !== null && mean < LITTLE_MASS) {
    warnings.push(
      `after the thought the model says one of the actions with a probability of ${mean.toPrecision(2)} only: the choice ` +
        'between them is forced on it',
    );
  }
  return warnings;
}

/** Throws InputError when no completion of any run parsed. */
export function checkPlayed(runs: readonly BanditRun[], { prompt, pattern }: BanditSetting): void {
  const unparsed = runs.filter(({ steps }) => !steps.some(({ pull }) => pull));
  const source = pattern ?? actionPatternOf(prompt);
  checkParsed(
    { source, actions: actionNames(prompt) },
    unparsed.map(({ run }) => `run ${run}, step 0`),
    runs.length,
  );
}

/** Columns of `--table`: one row a run. */
export const RUN_COLUMNS = [
  'run',
  'steps',
  'complete',
  'mean_reward',
  'regret',
  'best_arm_share',
  'switch_rate',
  ...MEASURE_NAMES,
] as const satisfies readonly (keyof RunRow)[];

export function* runRows({ by_run }: BanditBody): Generator<Cell[]> {
  for (const row of by_run) yield RUN_COLUMNS.map((column) => row[column]);
}
