import { createRandom, type Random } from '../../../random.js';
import type { DecoderStudent } from '../../../training/decoder-student.js';
import { createOptimizer, type Optimizer } from '../../../training/optimizer.js';
import type { CarriedState } from '../../interventions/carried-state.js';
import { createBatchSource } from '../batch-source.js';
import { createCurves } from '../curves.js';
import type { LabCurves, LabRollout, LabSink } from '../types.js';
import type { Branching } from './branches.js';
import { windowLength } from './policy-batch.js';
import { type Minibatch, type PolicyUpdate, scoreMinibatch, type TrainingRule, updatePolicy } from './policy-update.js';
import { generateRound, type RolloutGroup, type Speaker, writeResponses } from './rollout-groups.js';
import type { Prompt } from './task.js';

/** How a policy is trained, whatever its task. */
export interface PolicyTraining {
  readonly steps: number;
  /** Prompts to train on, and prompts of a step. */
  readonly prompts: number;
  readonly batchPrompts: number;
  /** Responses of a prompt; those of a prompt in steps with branches, before the branches. */
  readonly responses: number;
  readonly originals: number;
  readonly minibatches: number;
  readonly learningRate: number;
  readonly maxNorm: number;
  /** Where responses branch, in the first `branchSteps` steps. */
  readonly branching?: Branching;
  readonly branchSteps: number;
  /** Steps between evaluations on fresh prompts, and on those that are trained on. */
  readonly evaluateEvery: number;
  readonly solvedEvery: number;
  /** Fresh prompts of an evaluation; responses to each prompt of either kind. */
  readonly evaluationPrompts: number;
  readonly evaluationResponses: number;
  /** Prompts that are asked behind the last step, with their hidden states. */
  readonly probePrompts: number;
  readonly probeResponses: number;
  /** Temperature of those responses, and their budget as a part of the longest response. */
  readonly probeTemperature: number;
  readonly probeBudget: number;
}

export interface TrainedPolicy {
  readonly student: DecoderStudent;
  readonly speaker: Speaker;
}

/** Streams of random numbers of a run. */
const STREAM = { prompts: 1, evaluationPrompts: 2, rounds: 3, evaluation: 4, probePrompts: 5, probe: 6 } as const;
/** Likeliest tokens of a position that rules and dumps see. */
const TOP_TOKENS = 4;
/** Columns of the curves beside those of every engine. */
export const EXTRA_CURVES = [
  'clip_fraction',
  'gradient_norm',
  'generated_tokens',
  'think_length_tokens',
  'branch_reward',
  'evaluation_length_tokens',
  'solved_prompts',
] as const;

/** Warnings of updates by their text without its numbers: the first one, and how often it came. */
type Warnings = Map<string, { readonly first: string; count: number }>;

function note(warnings: Warnings, text: string): void {
  const key = text.replace(/\d+(\.\d+)?/g, '#');
  const known = warnings.get(key);
  if (known) known.count++;
  else warnings.set(key, { first: text, count: 1 });
}

const notesOf = (warnings: Warnings): string[] =>
  [...warnings.values()].map(({ first, count }) => (count === 1 ? first : `${first} (first of ${count} updates)`));

interface Run extends TrainedPolicy {
  readonly training: PolicyTraining;
  readonly rule: TrainingRule;
  readonly optimizer: Optimizer;
  readonly random: Random;
  readonly prompts: readonly Prompt[];
  readonly evaluation: readonly Prompt[];
  readonly curves: LabCurves;
  readonly warnings: Warnings;
  readonly sink: LabSink;
  generatedTokens: number;
  updates: number;
}

/** Share of right responses to every prompt, and mean tokens of a response that are the policy's. */
function ask(
  speaker: Speaker,
  prompts: readonly Prompt[],
  responses: number,
  random: Random,
): { readonly rates: Float64Array; readonly length: number } {
  const { task } = speaker;
  const samples = writeResponses(
    speaker,
    prompts.flatMap((prompt, p) =>
      Array.from({ length: responses }, (_, r) => ({
        context: prompt.tokens,
        episode: task.begin(prompt),
        random: random.fork(p * responses + r),
        limit: task.responseLimit,
      })),
    ),
  );
  const rates = new Float64Array(prompts.length);
  let length = 0;
  samples.forEach(({ tokens, mask }, i) => {
    for (const one of mask) length += one;
    const p = Math.floor(i / responses);
    if (task.grade(prompts[p], tokens).correct) rates[p] += 1 / responses;
  });
  return { rates, length: length / samples.length };
}

const meanOf = (values: ArrayLike<number>): number => {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i];
  return sum / values.length;
};

/** A prompt is solved when most responses to it are right. */
const SOLVED = 0.5;

function evaluate({ speaker, training, random, prompts, evaluation, curves }: Run, step: number): void {
  const { evaluateEvery, solvedEvery, evaluationResponses, steps } = training;
  const own = random.fork(STREAM.evaluation).fork(step);
  const due = (every: number): boolean => step % every === 0 || step === steps - 1;
  if (due(evaluateEvery)) {
    const { rates, length } = ask(speaker, evaluation, evaluationResponses, own.fork(0));
    curves.success[step] = meanOf(rates);
    curves.extra.evaluation_length_tokens[step] = length;
  }
  if (due(solvedEvery)) {
    const { rates } = ask(speaker, prompts, evaluationResponses, own.fork(1));
    curves.extra.solved_prompts[step] = rates.reduce((count, rate) => count + (rate > SOLVED ? 1 : 0), 0);
  }
}

/** Facts of the responses that a step has generated. */
function observe({ curves }: Run, groups: readonly RolloutGroup[], step: number): void {
  const rollouts = groups.flatMap((group) => group.rollouts);
  const whole = rollouts.filter(({ branch }) => !branch);
  const branches = rollouts.filter(({ branch }) => branch);
  curves.reward[step] = meanOf(whole.map(({ reward }) => reward));
  curves.length[step] = meanOf(whole.map(({ mask }) => mask.reduce((sum, one) => sum + one, 0)));
  curves.extra.think_length_tokens[step] = meanOf(whole.flatMap(({ thinkEnd }) => thinkEnd ?? []));
  curves.extra.branch_reward[step] = meanOf(branches.map(({ reward }) => reward));
}

function responseEntropy(minibatches: readonly Minibatch[]): number {
  let [sum, count] = [0, 0];
  for (const { old, batch } of minibatches) {
    for (let i = 0; i < batch.mask.length; i++) {
      if (batch.mask[i] === 0) continue;
      sum += old.entropy[i];
      count++;
    }
  }
  return sum / count;
}

/** Records of a minibatch in the terms of a dump. */
function recordsOf(
  { speaker }: Pick<Run, 'speaker'>,
  { groups, batch, old, reward, advantage }: Minibatch,
  logProb: Float64Array,
  step: number,
): LabRollout[] {
  const { vocabulary } = speaker.task;
  const owners = groups.flatMap((group) => group.rollouts.map((rollout) => ({ group, rollout })));
  return owners.map(({ group, rollout }, r) => {
    const [from, to] = [batch.offsets[r], batch.offsets[r + 1]];
    const { thinkEnd, stepSpans, correct, tokens, mask } = rollout;
    const top = old.topTokens;
    return {
      step,
      promptId: group.prompt.id,
      responseId: `${step}-${group.step}-${group.prompt.id}-${rollout.id}`,
      tokens,
      tokenText: Array.from(tokens, (token) => ` ${vocabulary[token]}`),
      logProb: logProb.slice(from, to),
      oldLogProb: old.logProb.slice(from, to),
      entropy: old.entropy.slice(from, to),
      mask,
      advantage: advantage[r],
      reward: reward[r],
      correct,
      difficulty: group.prompt.difficulty,
      ...(top && {
        topTokens: {
          k: top.k,
          ids: top.ids.slice(from * top.k, to * top.k),
          logProbs: top.logProbs.slice(from * top.k, to * top.k),
        },
      }),
      ...(thinkEnd !== undefined && { thinkEnd }),
      ...(stepSpans && { stepSpans }),
    };
  });
}

/** The updates of a step, minibatch by minibatch. */
async function train(run: Run, groups: readonly RolloutGroup[], step: number): Promise<void> {
  const { student, optimizer, training, rule, speaker, curves, sink } = run;
  const { minibatches, learningRate, maxNorm } = training;
  const length = windowLength(groups.flatMap((group) => group.rollouts));
  const scored: Minibatch[] = [];
  for (let m = 0; m < minibatches; m++) {
    const [from, to] = [m, m + 1].map((part) => Math.floor((part * groups.length) / minibatches));
    if (to > from) {
      scored.push(await scoreMinibatch(student, groups.slice(from, to), length, TOP_TOKENS));
    }
  }
  const updates: PolicyUpdate[] = [];
  for (const minibatch of scored) {
    const options = { learningRate, maxNorm, number: run.updates++ };
    const update = await updatePolicy(student, optimizer, minibatch, rule, speaker.task, options);
    for (const warning of update.warnings) note(run.warnings, warning);
    updates.push(update);
  }
  const tokens = updates.reduce((sum, { counted }) => sum + counted, 0);
  const byToken = (of: (update: PolicyUpdate) => number): number =>
    updates.reduce((sum, update) => sum + of(update) * update.counted, 0) / tokens;
  curves.entropy[step] = responseEntropy(scored);
  curves.covariance[step] = byToken(({ covariance }) => covariance);
  curves.touched[step] = updates.reduce((sum, { touched }) => sum + touched, 0) / tokens;
  curves.extra.clip_fraction[step] = byToken(({ clipFraction }) => clipFraction);
  curves.extra.gradient_norm[step] = meanOf(updates.map(({ gradientNorm }) => gradientNorm));
  curves.zeroAdvantageGroups[step] =
    groups.filter(({ rollouts }) => rollouts.every(({ reward }) => reward === rollouts[0].reward)).length /
    groups.length;
  sink.rollouts?.(scored.flatMap((minibatch, m) => recordsOf(run, minibatch, updates[m].logProb, step)));
}

/** Asks prompts of all difficulties behind the last step, and tells what the policy makes of them. */
async function probe(run: Run): Promise<void> {
  const { student, speaker, training, random, sink } = run;
  const { probePrompts, probeResponses, probeTemperature: temperature, probeBudget, batchPrompts, steps } = training;

  if (sink.probe === undefined || probePrompts === 0) return;
  const prompts = drawPrompts(speaker, probePrompts, random.fork(STREAM.probePrompts), 'probe-');
  const records: LabRollout[] = [];
  const stream = random.fork(STREAM.probe);
  const limit = Math.floor(probeBudget * speaker.task.responseLimit);
  for (let from = 0; from < prompts.length; from += batchPrompts) {
    const asked = prompts.slice(from, from + batchPrompts);
    const sampling = { responses: probeResponses, temperature, limit };
    const groups = generateRound(speaker, { prompts: asked, ...sampling, step: steps, random: stream.fork(from) });
    const length = windowLength(groups.flatMap((group) => group.rollouts));
    const minibatch = await scoreMinibatch(student, groups, length, 0);
    records.push(...recordsOf(run, minibatch, minibatch.old.logProb, steps));
  }
  const width = student.description.hiddenSize;
  const states = new Float32Array(prompts.length * width);
  prompts.forEach(({ tokens }, p) => {
    speaker.decoder.begin(1);
    for (const token of tokens) states.set(speaker.decoder.feed(Int32Array.of(token)).features, p * width);
  });
  sink.probe({ records, promptIds: prompts.map(({ id }) => id), width, states });
}

function drawPrompts({ task }: Speaker, count: number, random: Random, prefix = ''): Prompt[] {
  return Array.from({ length: count }, (_, i) => {
    const prompt = task.prompt(random.fork(i), i);
    return prefix === '' ? prompt : Object.assign(prompt, { id: prefix + prompt.id });
  });
}

/**
 * Trains a policy by group-relative policy gradients under a rule (AdamW without decay, gradients clipped by norm). The same
 * policy, rule and seed give the same bytes.
 */
export async function trainPolicy(
  { student, speaker }: TrainedPolicy,
  training: PolicyTraining,
  rule: Pick<TrainingRule, 'intervention' | 'settings' | 'seed' | 'plain'>,
  sink: LabSink = {},
): Promise<{ curves: LabCurves; warnings: readonly string[] }> {
  const random = createRandom(rule.seed);
  const carried: CarriedState = {};
  const run: Run = {
    student,
    speaker,
    training,
    rule: { ...rule, carried },
    optimizer: createOptimizer(student.parameters, { method: 'adamw', weightDecay: 0 }),
    random,
    prompts: drawPrompts(speaker, training.prompts, random.fork(STREAM.prompts)),
    evaluation: drawPrompts(speaker, training.evaluationPrompts, random.fork(STREAM.evaluationPrompts)),
    curves: createCurves(training.steps, EXTRA_CURVES),
    warnings: new Map(),
    sink,
    generatedTokens: 0,
    updates: 0,
  };
  const source = createBatchSource<RolloutGroup>(rule.intervention, rule.settings);
  const rounds = random.fork(STREAM.rounds);
  const { curves } = run;
  for (let step = 0; step < training.steps; step++) {
    evaluate(run, step);
    const own = rounds.fork(step);
    const order = own.fork(0).permutation(training.prompts).subarray(0, training.batchPrompts);
    const branching = step < training.branchSteps ? training.branching : undefined;
    const generated = generateRound(speaker, {
      prompts: Array.from(order, (p) => run.prompts[p]),
      responses: branching ? training.originals : training.responses,
      ...(branching && { branching }),
      step,
      random: own.fork(1),
    });
    const used = source.next(generated);
    observe(run, generated, step);
    for (const { rollouts } of generated) for (const { tokens } of rollouts) run.generatedTokens += tokens.length;
    curves.extra.generated_tokens[step] = run.generatedTokens;
    curves.generatedGroups[step] = generated.length;
    curves.usedGroups[step] = used.length;
    if (used.length > 0) await train(run, used, step);
    sink.progress?.(step);
  }
  await probe(run);
  return { curves, warnings: notesOf(run.warnings) };
}
