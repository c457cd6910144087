import type { Command } from 'commander';
import type { ComparisonSettings, NamedPlan } from '../src/decoding/row-comparison.js';
import { InputError } from '../src/errors.js';
import type { ReportValue } from '../src/report/values.js';
import { type AnalysisView, runAnalysis } from './analysis-run.js';
import { flagOf, parseInteger, parseNumber } from './edge-values.js';
import { PRECISION_OPTION, parsePrecision } from './model-session.js';
import {
  addPromptOptions,
  PROMPT_SHARED,
  type PromptOptions,
  type PromptShared,
  promptParameters,
} from './prompt-inputs.js';
import { attachShared, requireOption } from './shared-options.js';
import { addSteerOptions, STEER_OPTIONS, type SteerOptions, steerFiles, steerParameters } from './steer-options.js';

/** Own options of `steer decode`. */
export interface DecodeOptions extends SteerOptions, PromptOptions {
  logits?: string[];
  tensor?: string;
  sampler?: string[];
  samples?: string;
  maxNewTokens?: string;
  alphas?: string;
  rulesTemperature?: string;
  exact?: string;
  pathNucleus?: string;
  pathSteps?: string;
  answerPattern?: string;
  secondPass?: boolean;
  generations?: string;
  precision?: string;
}

/** Most candidates of the exact search: `MOST_CANDIDATES` of `entropy-constrained-mass.ts`. */
const MOST_EXACT = 24;
const DEFAULT_NEW_TOKENS = 64;
const DEFAULT_ALPHA = 0.4;

/** Declares `surprisal steer decode`. */
export function configure(command: Command): void {
  const read = attachShared(command, PROMPT_SHARED);
  command
    .option(
      '--sampler <steps...>',
      'such as temperature=1.5,top-h=0.4; several are compared on the same prompts; none is the model itself, greedy ' +
        'the most probable token',
    )
    .option('--logits <file...>', 'rows of logits instead of a model: .npy, .npz, .safetensors, dumps of --save-logits')
    .option('--tensor <name>', 'tensor of logits [.., vocabulary] (default: the only one, or logits)')
    .option('--samples <n>', 'continuations of each prompt and sampler (default 1)')
    .option('--max-new-tokens <n>', `tokens of a continuation at most (default ${DEFAULT_NEW_TOKENS})`)
    .option('--exact <m>', `compare top-H with the optimum among the m most probable tokens, at most ${MOST_EXACT}`)
    .option('--alphas <list>', 'shares for which the three rules of top-H stand side by side (default 0.4 with top-h)')
    .option('--rules-temperature <t>', 'temperature of that comparison (default: that of the first top-h, else 1)')
    .option(
      '--path-nucleus <settings>',
      'nucleus of whole paths, a rule of this project after the abstract of arXiv 2409.19790: ' +
        'k=4,top-p-token=0.9,top-p-path=0.9,select=topk|sample,length-penalty=0,temperature=1',
    )
    .option('--path-steps <file.csv>', 'table of the steps of --path-nucleus')
    .option('--answer-pattern <regex>', "group 1 is a path's answer: paths of a prompt vote by weight")
    .option('--no-second-pass', 'do not run the rows that all samplers meet through all of them')
    .option('--generations <file.jsonl>', 'the texts');
  addSteerOptions(command);
  addPromptOptions(command)
    .option(...PRECISION_OPTION)
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<DecodeOptions>());
    });
}

async function run(options: PromptShared, own: DecodeOptions): Promise<number> {
  const dumps = own.logits !== undefined;
  refuseForeign(options, own, dumps);
  const { DECODE_COLUMNS, DECODE_SCHEMA, DECODE_STEP_COLUMNS } = await import('../src/steering/decode-report.js');
  const settings = await comparisonOf(options, own);
  const subject = dumps ? (own.logits ?? []).join(', ') : requireOption(options.model, '--model', 'the model');
  if (!dumps) requireOption(options.data, '--data', 'the prompts');
  const files = new Map<string, string>();
  if (own.generations !== undefined) files.set('--generations', own.generations);
  if (own.pathSteps !== undefined) files.set('--path-steps', own.pathSteps);
  const view: AnalysisView = {
    name: DECODE_SCHEMA,
    command: 'steer decode',
    columns: DECODE_COLUMNS,
    tableColumns: DECODE_STEP_COLUMNS,
    files,
    unit: dumps ? 'rows' : 'tokens',
    inputs: [...options.data, ...(own.logits ?? []), ...steerFiles(own)],
    parameters: parametersOf(options, own, settings),
    subtitle: subject,
  };
  const work = dumps
    ? (await import('./steer-decode-logits.js')).logitsWork(options, own, settings)
    : (await import('./steer-decode-model.js')).modelWork(options, own, settings);
  return runAnalysis(view, { ...options, shard: undefined }, work);
}

/** Options that act where a model generates. */
const GENERATING = [
  'samples',
  'maxNewTokens',
  'pathNucleus',
  'pathSteps',
  'answerPattern',
  'generations',
  'vector',
  ...STEER_OPTIONS,
  'promptField',
  'chatTemplate',
  'idField',
  'precision',
] as const satisfies readonly (keyof DecodeOptions)[];

/** What one of the two kinds of input has no use for is refused. */
function refuseForeign(options: PromptShared, own: DecodeOptions, dumps: boolean): void {
  const refuse = (given: unknown, flag: string, why: string): void => {
    if (given !== undefined && given !== false) throw new InputError(`${flag}: ${why}; drop it`);
  };
  if (dumps) {
    for (const name of GENERATING) refuse(own[name], flagOf(name), 'a dump of logits is not generated from');
    refuse(options.model, '--model', 'a dump of logits needs no model');
    refuse(options.data[0], '--data', 'a dump of logits has no prompts');
    refuse(options.dataFormat, '--data-format', 'a dump of logits has no prompts');
    refuse(options.context, '--context', 'a dump of logits needs no model');
    refuse(own.secondPass === false ? true : undefined, '--no-second-pass', 'a dump of logits is read once');
    return;
  }
  refuse(own.tensor, '--tensor', 'only --logits has tensors');
  if (own.secondPass === false) {
    refuse(own.exact, '--exact', 'it needs the second pass');
    refuse(own.alphas, '--alphas', 'it needs the second pass');
  }
  if (own.sampler === undefined && own.pathNucleus !== undefined) {
    for (const name of ['samples', 'alphas'] as const)
      refuse(own[name], flagOf(name), 'it has no meaning without --sampler');
  }
  if (own.pathNucleus !== undefined) return;
  refuse(own.pathSteps, '--path-steps', 'it has no meaning without --path-nucleus');
  refuse(own.answerPattern, '--answer-pattern', 'it has no meaning without --path-nucleus');
}

/** The samplers and what stands beside them. */
async function comparisonOf(options: PromptShared, own: DecodeOptions): Promise<ComparisonSettings> {
  const { parseSamplingPlan } = await import('../src/decoding/sampler-text.js');
  if (own.sampler === undefined && own.pathNucleus === undefined) {
    throw new InputError('--sampler is missing; name one or several, such as temperature=1.5,top-h=0.4 or greedy');
  }
  const samplers = (own.sampler ?? []).map((name): NamedPlan => ({ name, plan: parseSamplingPlan(name) }));
  const twice = samplers.find(({ name }, s) => samplers.findIndex((other) => other.name === name) < s);
  if (twice) throw new InputError(`--sampler ${twice.name}: is given twice`);
  const firstTopH =
    own.secondPass === false ? undefined : samplers.find(({ plan }) => plan.steps.some(({ kind }) => kind === 'top-h'));
  let temperature = 1;
  for (const step of firstTopH?.plan.steps ?? []) {
    if (step.kind === 'temperature' && step.temperature > 0) temperature *= step.temperature;
  }
  if (own.rulesTemperature !== undefined) {
    temperature = parseNumber('--rules-temperature', own.rulesTemperature, Number.MIN_VALUE);
  }
  const alphas =
    own.alphas === undefined
      ? firstTopH
        ? [DEFAULT_ALPHA]
        : []
      : own.alphas.split(',').map((text) => parseNumber('--alphas', text, Number.MIN_VALUE, 1));
  if (own.rulesTemperature !== undefined && alphas.length === 0) {
    throw new InputError('--rules-temperature has no meaning without --alphas or a sampler with top-h');
  }
  const exact = own.exact === undefined ? undefined : parseInteger('--exact', own.exact, 1, MOST_EXACT);
  if (exact !== undefined) {
    const { topHStep } = await import('../src/decoding/row-comparison.js');
    if (!samplers.some(({ plan }) => topHStep(plan)?.rule === 'paper')) {
      throw new InputError("--exact needs a sampler with top-h by the paper's rule, after temperatures alone");
    }
  }
  return {
    samplers,
    alphas,
    temperature,
    threads: options.threads,
    ...(exact !== undefined && { exactCandidates: exact }),
  };
}

/** Continuations of each prompt. */
export const samplesOf = (own: DecodeOptions): number => parseInteger('--samples', own.samples ?? '1', 1);

/** Tokens of a continuation. */
export const newTokensOf = (own: DecodeOptions): number =>
  parseInteger('--max-new-tokens', own.maxNewTokens ?? String(DEFAULT_NEW_TOKENS), 1);

function parametersOf(
  options: PromptShared,
  own: DecodeOptions,
  { samplers, alphas, temperature, exactCandidates }: ComparisonSettings,
): Record<string, ReportValue> {
  const model = own.logits === undefined;
  return {
    model: options.model ?? null,
    data: [...options.data],
    limit: options.limit ?? null,
    logits: own.logits ?? null,
    tensor: own.tensor ?? null,
    samplers: samplers.map(({ name }) => name),
    samples: model ? samplesOf(own) : null,
    max_new_tokens: model ? newTokensOf(own) : null,
    alphas: [...alphas],
    rules_temperature: alphas.length > 0 ? temperature : null,
    exact: exactCandidates ?? null,
    second_pass: model ? own.secondPass !== false : null,
    path_nucleus: own.pathNucleus ?? null,
    answer_pattern: own.answerPattern ?? null,
    ...steerParameters(own),
    ...promptParameters(own),
    precision: model ? parsePrecision(own.precision) : null,
    seed: options.seed,
  };
}
