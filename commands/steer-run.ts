import type { Command } from 'commander';
import { parseSamplingPlan } from '../src/decoding/sampler-text.js';
import type { SteeringTerm } from '../src/decoding/steering-plan.js';
import { InputError } from '../src/errors.js';
import { resolveModelPath } from '../src/formats/hub.js';
import { hashModelFiles } from '../src/models/model-hash.js';
import type { ReportValue } from '../src/report/values.js';
import { encodeForcedChoice } from '../src/steering/forced-choice.js';
import { RUN_STEERED } from '../src/steering/run-job.js';
import {
  RUN_COLUMNS,
  RUN_SCHEMA,
  RUN_TOKEN_COLUMNS,
  type RunBody,
  runBody,
  runRows,
  runTokenRows,
  type SteeredLayer,
} from '../src/steering/run-report.js';
import { type AnalysisContext, type AnalysisOutcome, type AnalysisView, runAnalysis } from './analysis-run.js';
import { parseInteger, parseNumber, unescaped } from './edge-values.js';
import { modelDigests } from './model-digests.js';
import { openModelSession, PRECISION_OPTION, parsePrecision } from './model-session.js';
import {
  addPromptOptions,
  PROMPT_SHARED,
  type PromptOptions,
  type PromptShared,
  promptParameters,
  readPrompts,
} from './prompt-inputs.js';
import { attachShared, requireOption } from './shared-options.js';
import { addSteerOptions, readSteering, type SteerOptions, steerFiles, steerParameters } from './steer-options.js';

interface OwnOptions extends SteerOptions, PromptOptions {
  samples?: string;
  sampler?: string;
  maxNewTokens?: string;
  stop?: string[];
  guards?: boolean;
  targetEntropy?: string;
  actions?: string[];
  thought?: string;
  precision?: string;
}

const COMMAND = 'steer run';
const DEFAULT_NEW_TOKENS = 100;

/** Declares `surprisal steer run`. */
export function configure(command: Command): void {
  const read = attachShared(command, PROMPT_SHARED);
  addSteerOptions(command)
    .option('--samples <n>', 'continuations of each prompt (default 1)')
    .option('--sampler <steps>', 'such as temperature=0.8,top-p=0.9, or greedy (default: as the model says)')
    .option('--max-new-tokens <n>', `tokens of a continuation at most (default ${DEFAULT_NEW_TOKENS})`)
    .option('--stop <texts...>', 'a continuation ends behind the first of these texts; \\n is a new line')
    .option('--no-guards', 'do not measure the text under the unsteered model, which takes two more passes')
    .option('--target-entropy <nats>', 'multiply all strengths, prompt by prompt, until the choice has this entropy')
    .option('--actions <texts...>', 'the choice of --target-entropy: actions as the model writes them')
    .option('--thought <text>', 'fixed text between prompt and action');
  addPromptOptions(command)
    .option(...PRECISION_OPTION)
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<OwnOptions>());
    });
}

async function run(options: PromptShared, own: OwnOptions): Promise<number> {
  const model = requireOption(options.model, '--model', 'the model that generates');
  requireOption(options.data, '--data', 'the prompts');
  checkTarget(own);
  const view: AnalysisView = {
    name: RUN_SCHEMA,
    command: COMMAND,
    columns: RUN_COLUMNS,
    tableColumns: RUN_TOKEN_COLUMNS,
    unit: 'tokens',
    inputs: [...options.data, ...steerFiles(own)],
    parameters: parametersOf(model, options, own),
    subtitle: model,
  };
  return runAnalysis(
    view,
    { ...options, shard: undefined },
    {
      measure: (context) => measure(context, model, options, own),
      plan: async () => [
        ['continuations a prompt', samplesOf(own)],
        ['tokens a continuation', newTokens(own)],
        ['passes over the text', own.guards === false ? 1 : 3],
      ],
    },
  );
}

const samplesOf = (own: OwnOptions): number => parseInteger('--samples', own.samples ?? '1', 1);
const newTokens = (own: OwnOptions): number =>
  parseInteger('--max-new-tokens', own.maxNewTokens ?? String(DEFAULT_NEW_TOKENS), 1);
function checkTarget(own: OwnOptions): void {
  if (own.targetEntropy === undefined) {
    const stray = (['actions', 'thought'] as const).find((name) => own[name] !== undefined);
    if (stray) throw new InputError(`--${stray} has no meaning without --target-entropy`);
    return;
  }
  if (!own.vector) throw new InputError('--target-entropy needs --vector');
  const target = parseNumber('--target-entropy', own.targetEntropy, 0);
  const actions = requireOption(own.actions, '--actions', 'the actions whose entropy is meant');
  const most = Math.log(actions.length);
  if (target > most) {
    throw new InputError(`--target-entropy ${target}: ${actions.length} actions have at most ${most.toFixed(4)} nats`);
  }
}

function parametersOf(model: string, options: PromptShared, own: OwnOptions): Record<string, ReportValue> {
  return {
    model,
    data: [...options.data],
    ...steerParameters(own),
    samples: samplesOf(own),
    sampler: own.sampler ?? null,
    max_new_tokens: newTokens(own),
    stop: (own.stop ?? []).map(unescaped),
    guards: own.guards !== false,
    target_entropy_nats: own.targetEntropy === undefined ? null : Number(own.targetEntropy),
    actions: own.actions ?? null,
    thought: own.thought ?? null,
    ...promptParameters(own),
    limit: options.limit ?? null,
    precision: parsePrecision(own.precision),
    seed: options.seed,
  };
}

async function measure(
  context: AnalysisContext,
  model: string,
  options: PromptShared,
  own: OwnOptions,
): Promise<AnalysisOutcome> {
  context.timings.begin('hash the model');
  const { digests, files } = await modelDigests(model, resolveModelPath(model, process.env).path);
  context.timings.begin('open the model');
  const session = await openModelSession(model, { ...options, precision: parsePrecision(own.precision) });
  try {
    const { tokenizer, host } = session;
    if (!tokenizer) throw new InputError(`${model}: has no tokenizer, which text needs`);
    const prompts = await readPrompts(options, own, tokenizer, context.ledger);
    const subject = { spec: model, info: host.info, sha256: hashModelFiles(files) };
    const steering = await readSteering(own, subject, prompts.length, context.ledger);
    const limit = host.info.maxPositions ?? Number.POSITIVE_INFINITY;
    const long = prompts.find(({ tokens }) => tokens.length + newTokens(own) > limit);
    if (long) {
      throw new InputError(
        `${long.place}: ${long.tokens.length} tokens and ${newTokens(own)} new ones are more than the model's ${limit} ` +
          'positions; lower --max-new-tokens',
      );
    }
    const target = own.targetEntropy === undefined ? undefined : Number(own.targetEntropy);
    context.timings.begin('generate');
    let tokens = 0;
    const { prompts: made, residualNorms } = await host.run(
      RUN_STEERED,
      {
        prompts: prompts.map((prompt) => prompt.tokens),
        samples: samplesOf(own),
        maxNewTokens: newTokens(own),
        stopIds: host.info.eosIds,
        stopTexts: (own.stop ?? []).map(unescaped),
        plan: own.sampler === undefined ? { steps: [] } : parseSamplingPlan(own.sampler),
        seed: options.seed,
        guards: own.guards !== false,
        ...(steering && { steering: steering.plan }),
        ...(target !== undefined && {
          target: {
            entropyNats: target,
            choice: encodeForcedChoice(tokenizer, unescaped(own.thought ?? ''), (own.actions ?? []).map(unescaped)),
          },
        }),
      },
      (more) => {
        tokens += Number(more);
        context.progress.update(tokens, 'tokens');
      },
    );
    for (const line of steering?.assumptions ?? []) context.warn(line);
    const body = runBody(made, {
      steering: (steering?.plan.terms ?? []).map((term) => steeredLayer(term, residualNorms)),
      assumptions: steering?.assumptions ?? [],
      seed: options.seed,
      ...(target !== undefined && { targetNats: target }),
    });
    const ids = prompts.map(({ id }) => id);
    return {
      body,
      rows: () => runRows(made, ids, (own) => tokenizer.decode(own, { skipSpecialTokens: true })),
      tableRows: () => runTokenRows(made, ids, (token) => tokenizer.tokenBytes(token)),
      figure: async (subtitle) => (await import('../src/steering/run-plot.js')).runFigure(made, body, subtitle),
      summary: summary(body),
      digests: async () => digests,
    };
  } finally {
    await session.close();
  }
}

function steeredLayer({ layer, operator, vector, scale }: SteeringTerm, residual: Float64Array): SteeredLayer {
  let squares = 0;
  for (const x of vector) squares += x * x;
  const norm = Math.sqrt(squares);
  const adds = operator.includes('add');
  const known = layer < 0 ? null : residual[layer];
  return {
    layer,
    operator,
    strength: scale,
    vector_norm: norm,
    residual_norm: known,
    effective_strength: adds && known !== null ? (Math.abs(scale) * norm) / known : null,
  };
}

function summary(body: RunBody): AnalysisOutcome['summary'] {
  const { target, steering } = body;
  return {
    header: ['what', 'value'],
    rows: [
      ['prompts', body.prompts],
      ['prompts steered', body.steered_prompts],
      ['tokens', body.tokens],
      ['token entropy, nats', body.mean_entropy_nats.mean],
      ['unsteered perplexity of the text', body.unsteered_perplexity ?? undefined],
      ['KL from unsteered, nats a token', body.mean_kl_nats?.mean],
      ['distinct pairs of tokens', body.distinct_2],
      ...steering.map(({ layer, operator, effective_strength }): [string, string | number] => [
        `layer ${layer}, ${operator}`,
        effective_strength === null ? 'no multiplier' : effective_strength,
      ]),
      ...(target
        ? ([
            ['prompts that reached the target', target.reached_prompts],
            ['mean factor on the strengths', target.mean_strength_factor],
          ] as [string, number][])
        : []),
    ],
  };
}
