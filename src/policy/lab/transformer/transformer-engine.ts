import { InputError } from '../../../errors.js';
import { createRandom } from '../../../random.js';
import { findIntervention, INTERVENTIONS } from '../../interventions/registry.js';
import { completeSettings } from '../../interventions/settings.js';
import type { InterventionSettings, Need, Surrogate } from '../../interventions/types.js';
import type { LabEngine, LabRun, LabRunRequest, LabSink, LabTask } from '../types.js';
import { additionTask } from './addition-task.js';
import { type Branching, criticalBranching, windowBranching } from './branches.js';
import { chainTask } from './chain-task.js';
import { createIncrementalDecoder, HEAD_STEP } from './incremental-decoder.js';
import { openPolicy, randomPolicy } from './policy-network.js';
import type { PolicyTask } from './task.js';
import { EXTRA_CURVES, type PolicyTraining, trainPolicy } from './train-policy.js';
import { warmStart } from './warm-start.js';

type TaskSettings = LabEngine['task'];

/** What both worlds share: sizes of the policy, the warm start, rates and batches. */
const COMMON: TaskSettings = {
  layers: { kind: 'number', initial: 2, least: 1, help: 'layers of the policy' },
  hidden: { kind: 'number', initial: 32, least: 8, help: 'width of the policy' },
  heads: { kind: 'number', initial: 4, least: 1, help: 'attention heads' },
  'base-seed': {
    kind: 'number',
    initial: 1,
    help: 'of the world and of the warm start, which runs of all seeds share',
  },
  'warm-steps': { kind: 'number', initial: 400, least: 0, help: 'supervised steps before the first rollout' },
  'warm-rate': { kind: 'number', initial: 0.01, least: 0, help: 'learning rate of the warm start' },
  prompts: { kind: 'number', initial: 512, least: 1, help: 'prompts to train on' },
  'batch-prompts': { kind: 'number', initial: 16, least: 1, help: 'prompts of a step, without replacement' },
  responses: { kind: 'number', initial: 16, least: 1, help: 'responses of a prompt' },
  minibatches: { kind: 'number', initial: 2, least: 1, help: 'updates of a step, by prompts' },
  'learning-rate': { kind: 'number', initial: 0.001, least: 0, help: 'of AdamW' },
  'max-norm': { kind: 'number', initial: 1, least: 0, help: 'longer gradients are shortened to this norm' },
  'branch-steps': {
    kind: 'number',
    initial: 1e9,
    least: 0,
    help: 'steps in which responses branch (CURE: stage 1; then plain GRPO)',
  },
  originals: { kind: 'number', initial: 4, least: 1, help: 'responses of a prompt before the branches of CURE (n1)' },
  forks: { kind: 'number', initial: 0, least: 0, help: 'most forks of a response at windows of high entropy (ARES)' },
  'fork-window': { kind: 'number', initial: 4, least: 1, help: 'tokens of such a window' },
  'evaluate-every': { kind: 'number', initial: 2, least: 1, help: 'steps between evaluations on fresh prompts' },
  'solved-every': { kind: 'number', initial: 10, least: 1, help: 'steps between evaluations on the training prompts' },
  'evaluation-prompts': { kind: 'number', initial: 128, least: 1, help: 'prompts of an evaluation' },
  'evaluation-responses': {
    kind: 'number',
    initial: 4,
    least: 1,
    help: 'responses to each, and to each training prompt',
  },
  'probe-prompts': { kind: 'number', initial: 300, least: 0, help: 'prompts asked at the end, with hidden states' },
  'probe-responses': { kind: 'number', initial: 10, least: 1, help: 'responses to each' },
  'probe-temperature': { kind: 'number', initial: 1, least: 0.05, help: 'temperature of those responses' },
  'probe-budget': {
    kind: 'number',
    initial: 1,
    least: 0.05,
    most: 1,
    help: 'their tokens at most, as a part of the longest response',
  },
};

/** What the weights behind a warm start do not depend on. */
const AFTER_WARM_START = new Set(
  Object.keys(COMMON).filter(
    (name) => !['layers', 'hidden', 'heads', 'base-seed', 'warm-steps', 'warm-rate'].includes(name),
  ),
);

const ADDITION: TaskSettings = {
  ...COMMON,
  modulus: { kind: 'number', initial: 7, least: 2, help: 'numbers are 0 to this - 1' },
  operands: { kind: 'number', initial: 4, least: 2, help: 'most numbers of a sum' },
  idle: {
    kind: 'number',
    initial: 0.4,
    least: 0,
    most: 0.9,
    help: 'probability of an idle word, and of one more, between the sums of a demonstration',
  },
  'hard-share': {
    kind: 'number',
    initial: 0.3,
    least: 0,
    most: 1,
    help: 'share of sums that demonstrations get wrong',
  },
  'hard-right': { kind: 'number', initial: 0.3, least: 0, most: 1, help: 'how often they get them right' },
};

const CHAIN: TaskSettings = {
  ...COMMON,
  'warm-steps': { kind: 'number', initial: 250, least: 0, help: 'supervised steps before the first rollout' },
  'learning-rate': { kind: 'number', initial: 0.0005, least: 0, help: 'of AdamW' },
  turns: { kind: 'number', initial: 8, least: 1, help: 'doors to take' },
  keys: { kind: 'number', initial: 8, least: 1, help: 'keys, each with its own doors' },
  rooms: { kind: 'number', initial: 8, least: 1, help: 'rooms' },
  doors: { kind: 'number', initial: 6, least: 2, help: 'doors of a room' },
  'hard-share': { kind: 'number', initial: 0.5, least: 0, most: 1, help: 'share of doors that demonstrations guess' },
  'hard-right': { kind: 'number', initial: 0.35, least: 0, most: 1, help: 'how often they guess right' },
  'easy-right': { kind: 'number', initial: 0.97, least: 0, most: 1, help: 'how often they take the doors they know' },
};

/** Clip of the plain rule. */
const PLAIN: Surrogate = { clip: { low: 0.2, high: 0.2 } };
/** Sequences that are written at once, and demonstrations of a supervised step. */
const DECODER_ROWS = 512;
const WARM_BATCH = 64;
const [WORLD, WEIGHTS] = [0, 1];

function counted(task: LabTask, name: string): number {
  const value = task[name];
  if (!Number.isInteger(value)) throw new InputError(`--task ${name}=${value}: must be a whole number`);
  return value;
}

/** Where a method's responses branch: CURE's settings, or the forks of the task. */
function branchingOf(
  task: PolicyTask,
  sizes: LabTask,
  intervention: string,
  settings: InterventionSettings,
): { branching?: Branching; originals?: number } {
  if (intervention === 'cure') {
    const [topK, branches, promptBudget] = ['top-k', 'branches', 'prompt-budget'].map((name) => Number(settings[name]));
    const randomOrder = settings.order === 'random';
    return {
      branching: criticalBranching(task, { topK, branches, promptBudget, randomOrder }),
      originals: counted(sizes, 'originals'),
    };
  }
  const budget = counted(sizes, 'forks');
  if (budget === 0) return {};
  return { branching: windowBranching({ width: counted(sizes, 'fork-window'), budget }) };
}

function trainingOf(
  task: LabTask,
  steps: number,
  branches: { branching?: Branching; originals?: number },
): PolicyTraining {
  const number = (name: string): number => counted(task, name);
  const training = {
    steps,
    prompts: number('prompts'),
    batchPrompts: number('batch-prompts'),
    responses: number('responses'),
    originals: branches.originals ?? number('responses'),
    minibatches: number('minibatches'),
    learningRate: task['learning-rate'],
    maxNorm: task['max-norm'],
    ...(branches.branching && { branching: branches.branching }),
    branchSteps: number('branch-steps'),
    evaluateEvery: number('evaluate-every'),
    solvedEvery: number('solved-every'),
    evaluationPrompts: number('evaluation-prompts'),
    evaluationResponses: number('evaluation-responses'),
    probePrompts: number('probe-prompts'),
    probeResponses: number('probe-responses'),
    probeTemperature: task['probe-temperature'],
    probeBudget: task['probe-budget'],
  };
  if (training.batchPrompts > training.prompts) {
    throw new InputError(
      `--task batch-prompts=${training.batchPrompts}: a step draws prompts without replacement, of ${training.prompts}`,
    );
  }
  if (training.minibatches > training.batchPrompts) {
    throw new InputError(
      `--task minibatches=${training.minibatches}: minibatches hold whole groups, and a step has ${training.batchPrompts}`,
    );
  }
  return training;
}

/** Weights behind a warm start by what it depends on: runs of one thread share them. */
const warmed = new Map<string, Float32Array>();

function describeEngine(engine: {
  readonly name: string;
  readonly title: string;
  readonly task: TaskSettings;
  readonly steps: number;
  readonly knows: readonly Need[];
  readonly world: (task: LabTask) => PolicyTask;
}): LabEngine {
  const { name, title, steps, knows, world } = engine;

  const run = async ({ method, seed, steps: count, task: sizes }: LabRunRequest, sink?: LabSink): Promise<LabRun> => {
    const intervention = findIntervention(method.intervention);
    const missing = intervention.needs.find((need) => !knows.includes(need));
    if (missing !== undefined) {
      throw new InputError(
        `--method ${method.intervention}: the engine ${name} has no ${missing}; it trains under ${described.rules.join(', ')}`,
      );
    }
    const settings = completeSettings(intervention, method.settings);
    const task = world(sizes);
    const training = trainingOf(sizes, count, branchingOf(task, sizes, intervention.name, settings));
    const base = createRandom(counted(sizes, 'base-seed'));
    const positions = task.promptLimit + task.responseLimit;
    const network = {
      layers: counted(sizes, 'layers'),
      hidden: counted(sizes, 'hidden'),
      heads: counted(sizes, 'heads'),
      vocabulary: task.vocabulary.length,
      positions,
    };
    if (network.hidden % (HEAD_STEP * network.heads) !== 0)
      throw new InputError(
        `--task hidden=${network.hidden}: must be a multiple of ${HEAD_STEP} for each of ${network.heads} heads`,
      );
    const perPrompt = Math.max(training.responses, 1);
    const windows = Math.max(WARM_BATCH, Math.ceil(training.batchPrompts / training.minibatches) * perPrompt);
    const student = await openPolicy(randomPolicy(network, base.fork(WEIGHTS)), { windows, length: positions });
    try {
      const key = JSON.stringify([name, Object.entries(sizes).filter(([size]) => !AFTER_WARM_START.has(size))]);
      const { values } = student.parameters;
      const known = warmed.get(key);
      if (known) values.set(known);
      else {
        await warmStart(student, task, {
          steps: counted(sizes, 'warm-steps'),
          batch: WARM_BATCH,
          learningRate: sizes['warm-rate'],
          seed: counted(sizes, 'base-seed'),
        });
        warmed.set(key, Float32Array.from(values));
      }
      const decoder = createIncrementalDecoder(student.description, student.tensors, DECODER_ROWS, positions);
      const trained = { student, speaker: { task, decoder, rows: DECODER_ROWS } };
      const rule = { intervention, settings, seed, plain: PLAIN };
      const { curves, warnings } = await trainPolicy(trained, training, rule, sink);
      return { method, seed, curves, warnings };
    } finally {
      await student.close();
    }
  };

  const described: LabEngine = {
    name,
    title,
    task: engine.task,
    steps,
    measures: EXTRA_CURVES,
    get rules() {
      return INTERVENTIONS.filter(({ needs }) => needs.every((need) => knows.includes(need))).map((one) => one.name);
    },
    run,
  };
  return described;
}

const TOKENS: readonly Need[] = [
  'logProb',
  'oldLogProb',
  'entropy',
  'advantage',
  'reward',
  'correct',
  'topTokens',
  'text',
  'difficulty',
];

/** Sums modulo m with a scratch pad of free length before `</think>`, then the answer. */
export const additionEngine: LabEngine = describeEngine({
  name: 'transformer',
  title: 'Modular addition with a scratch pad: a small transformer',
  task: ADDITION,
  steps: 60,
  knows: [...TOKENS, 'thinkEnd'],
  world: (task) =>
    additionTask(
      {
        modulus: task.modulus,
        operands: task.operands,
        idle: task.idle,
        hardShare: task['hard-share'],
        hardRight: task['hard-right'],
      },
      createRandom(counted(task, 'base-seed')).fork(WORLD),
    ),
});

/** Turns with the world's answers between them and one reward at the end. */
export const chainEngine: LabEngine = describeEngine({
  name: 'transformer-chain',
  title: 'Eight doors, one reward at the end: a small transformer',
  task: CHAIN,
  steps: 60,
  knows: [...TOKENS, 'stepSpans'],
  world: (task) =>
    chainTask(
      {
        turns: task.turns,
        keys: task.keys,
        rooms: task.rooms,
        doors: task.doors,
        hardShare: task['hard-share'],
        hardRight: task['hard-right'],
        easyRight: task['easy-right'],
      },
      createRandom(counted(task, 'base-seed')).fork(WORLD),
    ),
});
