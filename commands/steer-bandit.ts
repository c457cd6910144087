import type { Command } from 'commander';
import type { SamplingPlan } from '../src/decoding/types.js';
import { InputError } from '../src/errors.js';
import { resolveModelPath } from '../src/formats/hub.js';
import { reportObject } from '../src/report/values.js';
import { checkBandit, type GaussianBandit } from '../src/steering/bandit.js';
import type { AgentSampling, BanditArguments, BanditProgress, BanditRun } from '../src/steering/bandit-job.js';
import type { BanditSetting } from '../src/steering/bandit-report.js';
import { AGENT_TASKS, type AgentPrompt, PROMPT_STYLES, type PromptStyle } from '../src/steering/prompts.js';
import { type AnalysisContext, type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import { type Checkpoint, openCheckpoint } from './edge-checkpoint.js';
import { flagOf, parseChoice, parseInteger, parseNumber } from './edge-values.js';
import { type ModelSession, openModelSession, PRECISION_OPTION, parsePrecision } from './model-session.js';
import { attachShared, requireOption, type SharedOptions } from './shared-options.js';
import {
  addSteerOptions,
  readSteering,
  type Steering,
  type SteerOptions,
  steerFiles,
  steerParameters,
} from './steer-options.js';

const SHARED = [
  'model',
  'out',
  'report',
  'table',
  'plot',
  'seed',
  'threads',
  'maxMemory',
  'device',
  'context',
  'assert',
  'baseline',
  'timings',
  'quiet',
  'dryRun',
  'force',
  'resume',
] as const;

type Shared = Pick<SharedOptions, (typeof SHARED)[number] | 'config' | 'debug'>;

interface BanditOptions extends SteerOptions {
  arms?: string;
  means?: string;
  sigma?: string;
  horizon?: string;
  runs?: string;
  entropy?: string;
  samples?: string;
  sampler?: string;
  maxNewTokens?: string;
  actionPattern?: string;
  temperature?: string;
  task?: string;
  promptStyle?: string;
  history?: string;
  thought?: string;
  precision?: string;
}

const COMMAND = 'steer bandit';
const ENTROPIES = ['exact', 'sampled', 'both'] as const;

const DEFAULTS = { arms: 2, mean: 100, sigma: 10, horizon: 15, runs: 20, samples: 25, newTokens: 100 } as const;

/** Declares `surprisal steer bandit`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option('--arms <n>', `arms of equal means (default ${DEFAULTS.arms}, or as many as --means names)`)
    .option('--means <list>', `mean reward of each arm, such as 95,105 (default ${DEFAULTS.mean} each)`)
    .option('--sigma <x>', `standard deviation of rewards (default ${DEFAULTS.sigma})`)
    .option('--horizon <steps>', `steps of a run (default ${DEFAULTS.horizon})`)
    .option('--runs <n>', `runs (default ${DEFAULTS.runs})`)
    .option(
      '--entropy <way>',
      'exact (forced choice, nothing is sampled), sampled (completions that are parsed), both (default exact)',
    )
    .option('--samples <n>', `sampled: completions a step (default ${DEFAULTS.samples})`)
    .option('--sampler <steps>', "sampled: such as temperature=0.8,top-p=0.9 (default the model's own distribution)")
    .option('--max-new-tokens <n>', `sampled: tokens of a completion at most (default ${DEFAULTS.newTokens})`)
    .option('--action-pattern <regex>', "sampled: one group, the action (default the prompt's own)")
    .option('--temperature <t>', 'exact: divides the logits of the choice (default 1)')
    .option('--task <name>', `${AGENT_TASKS.join(', ')} (default buttons)`)
    .option(
      '--prompt-style <style>',
      'full (ReAct through the chat template), brief (a list of choices and rewards, for short contexts) (default full ' +
        'where there is a chat template)',
    )
    .option('--history <steps>', 'earlier steps that a prompt shows (default all)')
    .option(
      '--thought <text>',
      'exact: the thought before the choice (default a neutral sentence; none in brief style)',
    )
    .option(...PRECISION_OPTION);
  addSteerOptions(command).action(async () => {
    process.exitCode = await run(await read(), command.opts<BanditOptions>());
  });
}

/** What the options say, before a model is opened. */
interface Plan {
  readonly bandit: GaussianBandit;
  readonly runs: number;
  readonly exact: boolean;
  readonly sampling: AgentSampling | undefined;
  readonly temperature: number | undefined;
}

function refuse(own: BanditOptions, names: readonly (keyof BanditOptions)[], reason: string): void {
  const given = names.find((name) => own[name] !== undefined);
  if (given === undefined) return;
  const flag = flagOf(given);
  throw new InputError(`${flag} has no meaning with ${reason}; leave it out`);
}

function banditOf(own: BanditOptions): GaussianBandit {
  const arms = own.arms === undefined ? undefined : parseInteger('--arms', own.arms, 1, 1000);
  const named = own.means?.split(',').map((mean) => parseNumber('--means', mean));
  if (arms !== undefined && named !== undefined && arms !== named.length) {
    throw new InputError(`--arms ${arms}: --means names ${named.length}; leave --arms out`);
  }
  const bandit: GaussianBandit = {
    means: named ?? new Array<number>(arms ?? DEFAULTS.arms).fill(DEFAULTS.mean),
    sigma: own.sigma === undefined ? DEFAULTS.sigma : parseNumber('--sigma', own.sigma, 0),
    horizon: own.horizon === undefined ? DEFAULTS.horizon : parseInteger('--horizon', own.horizon, 1),
  };
  checkBandit(bandit);
  return bandit;
}

async function planOf(own: BanditOptions): Promise<Plan> {
  const entropy = parseChoice('--entropy', own.entropy ?? 'exact', ENTROPIES);
  if (entropy === 'exact') refuse(own, ['samples', 'sampler', 'maxNewTokens', 'actionPattern'], '--entropy exact');
  if (entropy === 'sampled') refuse(own, ['temperature', 'thought'], '--entropy sampled');
  const { parseSamplingPlan } = await import('../src/decoding/sampler-text.js');
  const plan: SamplingPlan = own.sampler === undefined ? { steps: [] } : parseSamplingPlan(own.sampler);
  const sampling: AgentSampling = {
    samples: own.samples === undefined ? DEFAULTS.samples : parseInteger('--samples', own.samples, 1),
    plan,
    ...(own.actionPattern !== undefined && { pattern: own.actionPattern }),
    maxNewTokens:
      own.maxNewTokens === undefined ? DEFAULTS.newTokens : parseInteger('--max-new-tokens', own.maxNewTokens, 1),
  };
  const temperature = own.temperature === undefined ? undefined : parseNumber('--temperature', own.temperature, 0);
  if (temperature === 0) throw new InputError('--temperature 0: the entropy of the choice would be zero; use more');
  return {
    bandit: banditOf(own),
    runs: own.runs === undefined ? DEFAULTS.runs : parseInteger('--runs', own.runs, 1),
    exact: entropy !== 'sampled',
    sampling: entropy === 'exact' ? undefined : sampling,
    temperature,
  };
}

/** The style that was asked for, else the one that the model can take. */
function promptOf(own: BanditOptions, { bandit }: Plan, session: ModelSession): AgentPrompt {
  const hasTemplate = session.tokenizer?.chatTemplate !== undefined;
  const style: PromptStyle =
    own.promptStyle === undefined
      ? hasTemplate
        ? 'full'
        : 'brief'
      : parseChoice('--prompt-style', own.promptStyle, PROMPT_STYLES);
  return {
    task: parseChoice('--task', own.task ?? 'buttons', AGENT_TASKS),
    style,
    arms: bandit.means.length,
    horizon: bandit.horizon,
    ...(own.history !== undefined && { history: parseInteger('--history', own.history) }),
    ...(own.thought !== undefined && { thought: own.thought }),
  };
}

async function run(options: Shared, own: BanditOptions): Promise<number> {
  const spec = requireOption(options.model, '--model', 'a model directory or a .gguf file');
  const { out } = options;
  const plan = await planOf(own);
  const { formatSamplingPlan } = await import('../src/decoding/sampler-text.js');
  const { BANDIT_SCHEMA, RUN_COLUMNS } = await import('../src/steering/bandit-report.js');
  const { bandit, sampling } = plan;
  const parameters = {
    model: spec,
    means: [...bandit.means],
    sigma: bandit.sigma,
    horizon: bandit.horizon,
    runs: plan.runs,
    entropy: own.entropy ?? 'exact',
    samples: sampling?.samples ?? null,
    sampler: sampling ? formatSamplingPlan(sampling.plan) : null,
    max_new_tokens: sampling?.maxNewTokens ?? null,
    action_pattern: own.actionPattern ?? null,
    temperature: plan.exact ? (plan.temperature ?? 1) : null,
    prompt_style: own.promptStyle ?? null,
    precision: parsePrecision(own.precision),
    seed: options.seed,
    ...steerParameters(own),
  };
  const view = {
    name: BANDIT_SCHEMA,
    command: COMMAND,
    columns: [],
    tableColumns: RUN_COLUMNS,
    files: new Map(out === undefined ? [] : [['--out', out] as const]),
    unit: 'steps',
    inputs: steerFiles(own),
    parameters,
    subtitle: `${spec}, means ${bandit.means.join(', ')}, ${plan.runs} runs of ${bandit.horizon} steps`,
  };
  // The log is written by this view: its rows are no table.
  const shared = { ...options, out: undefined, format: undefined, shard: undefined };
  return runAnalysis(view, shared, {
    measure: (context) => measure(context, { spec, out, plan, own, options, parameters }),
    plan: async () => [
      ['runs', plan.runs],
      ['steps a run', bandit.horizon],
      ['means', bandit.means.join(', ')],
      ['passes a step', plan.exact ? 'what is new of the prompt, and the choice' : 'the prompt'],
      ['completions a step', sampling?.samples ?? 0],
    ],
  });
}

interface Work {
  readonly spec: string;
  readonly out: string | undefined;
  readonly plan: Plan;
  readonly own: BanditOptions;
  readonly options: Shared;
  readonly parameters: object;
}

async function measure(context: AnalysisContext, work: Work): Promise<AnalysisOutcome> {
  const { spec, plan, own, options } = work;
  const session = await openModelSession(spec, {
    ...options,
    precision: parsePrecision(own.precision),
  });
  try {
    if (!session.tokenizer) throw new InputError(`${spec}: an agent needs the model's tokenizer, and there is none`);
    const prompt = promptOf(own, plan, session);
    const steering = await steeringOf(work, session, context);
    const run = { ...work.parameters, prompt, digests: await session.digests() };
    const checkpoint = openCheckpoint<BanditRun[]>(work.out ?? options.report, run, options.resume);
    const runs = await play(context, session, { ...plan, prompt, steering }, options.seed, checkpoint);
    const setting = {
      bandit: plan.bandit,
      prompt,
      pattern: plan.sampling?.pattern,
      seed: options.seed,
      steering: steering ? reportObject(steering.parameters) : null,
      assumptions: steering?.assumptions ?? [],
    };
    return { ...(await outcomeOf(runs, setting, context)), digests: () => session.digests() };
  } finally {
    await session.close();
  }
}

async function steeringOf(
  { spec, own }: Work,
  session: ModelSession,
  context: AnalysisContext,
): Promise<Steering | undefined> {
  let sha256: string | undefined;
  if (own.vector !== undefined && own.anyModel !== true) {
    const { hashModel } = await import('../src/models/model-hash.js');
    sha256 = await hashModel(resolveModelPath(spec, process.env).path);
  }
  if (own.positions?.endsWith('.jsonl')) {
    throw new InputError(`--positions ${own.positions}: prompts arise as runs are played; a mask cannot be given`);
  }
  const model = { spec, info: session.host.info, ...(sha256 !== undefined && { sha256 }) };
  return readSteering(own, model, 0, context.ledger);
}

/** Plays what a checkpoint does not hold. Runs in the order of their numbers. */
async function play(
  context: AnalysisContext,
  session: ModelSession,
  plan: Plan & { readonly prompt: AgentPrompt; readonly steering: Steering | undefined },
  seed: number,
  checkpoint: Checkpoint<BanditRun[]>,
): Promise<BanditRun[]> {
  const { PLAY_BANDIT } = await import('../src/steering/bandit-job.js');
  const done = [...(checkpoint.found ?? [])];
  const missing = Array.from({ length: plan.runs }, (_, run) => run).filter(
    (run) => !done.some((found) => found.run === run),
  );
  let made = 0;
  context.progress.setTotal(missing.length * plan.bandit.horizon);
  const args: BanditArguments = {
    bandit: plan.bandit,
    prompt: plan.prompt,
    runs: missing,
    seed,
    exact: plan.exact,
    ...(plan.sampling && { sampling: plan.sampling }),
    ...(plan.temperature !== undefined && { temperature: plan.temperature }),
    ...(plan.steering && { steering: plan.steering.plan }),
  };
  await session.host.run(PLAY_BANDIT, args, (value) => {
    const event = value as BanditProgress;
    if ('complete' in event) {
      done.push(event.complete);
      if (checkpoint.due()) checkpoint.save(done);
    } else {
      made += event.steps;
      context.progress.update(made);
    }
  });
  checkpoint.remove();
  return done.sort((a, b) => a.run - b.run);
}

async function outcomeOf(
  runs: readonly BanditRun[],
  setting: BanditSetting,
  context: AnalysisContext,
): Promise<AnalysisOutcome> {
  const { banditBody, checkPlayed, logRow, runRows } = await import('../src/steering/bandit-report.js');
  checkPlayed(runs, setting);
  const body = banditBody(runs, setting);
  for (const warning of body.warnings) context.warn(warning);
  return {
    body,
    rows: () => [],
    tableRows: () => runRows(body),
    figure: async (subtitle) => (await import('../src/steering/bandit-plot.js')).drawBandit(body, subtitle),
    files: () => new Map([['--out', logBytes()]]),
    summary: {
      header: ['measure', 'mean over runs', 'se', '95% low', '95% high'],
      rows: SUMMARY.flatMap(([label, key]) => {
        const value = body[key];
        if (value === null) return [];
        const spread = [body[`${key}_se`], body[`${key}_low`], body[`${key}_high`]];
        return [[label, value, ...spread.map((x) => x ?? '')]];
      }),
    },
  };
  function logBytes(): Uint8Array {
    const lines = runs.flatMap(({ run, steps }) => steps.map((step) => JSON.stringify(logRow(run, step, setting))));
    return new TextEncoder().encode(lines.map((line) => `${line}\n`).join(''));
  }
}

const SUMMARY = [
  ['exact action entropy (nats)', 'action_entropy_nats'],
  ['plug-in action entropy (nats)', 'plugin_entropy_nats'],
  ['Miller-Madow action entropy (nats)', 'miller_madow_entropy_nats'],
  ['completions that parse', 'valid_share'],
  ['mass of the actions', 'action_mass'],
  ['mean reward', 'mean_reward'],
  ['regret of a run', 'regret'],
  ['best-arm share', 'best_arm_share'],
  ['switch rate', 'switch_rate'],
] as const;
