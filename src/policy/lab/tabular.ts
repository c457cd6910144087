import { InputError } from '../../errors.js';
import { createRandom } from '../../random.js';
import { groupAdvantages } from '../advantages.js';
import { findIntervention, INTERVENTIONS } from '../interventions/registry.js';
import { completeSettings } from '../interventions/settings.js';
import type { Need, Surrogate } from '../interventions/types.js';
import { createBatchSource } from './batch-source.js';
import { createCurves } from './curves.js';
import { sampleRound, type TabularGroup } from './tabular-groups.js';
import {
  createPolicyRows,
  evaluateRows,
  meanEntropy,
  type PolicyRows,
  successProbability,
  type TabularPolicy,
} from './tabular-policy.js';
import { drawKeys, initialPolicy, type LockKeys, SHARED_LOCK, type SharedLock, sharedLock } from './tabular-task.js';
import { type TabularBatch, type TabularRule, turnsOf, updatePolicy } from './tabular-update.js';
import type { LabCurves, LabEngine, LabRollout, LabRunRequest, LabSink } from './types.js';

/** What the responses of the shared lock have. */
const KNOWN: readonly Need[] = [
  'logProb',
  'oldLogProb',
  'entropy',
  'advantage',
  'reward',
  'correct',
  'stepSpans',
  'difficulty',
];

/** Clip of the plain rule in the published table. */
const PLAIN: Surrogate = { clip: { low: 0.2, high: 0.2 } };

/** Curves beside those of every engine. */
const MEASURES = ['clip_fraction'] as const;

/** What stays the same during a run. */
interface Run {
  readonly lock: SharedLock;
  readonly keys: LockKeys;
  readonly policy: TabularPolicy;
  /** Of the policy before the updates of the step. */
  readonly before: PolicyRows;
  /** Of the policy during the updates. */
  readonly current: PolicyRows;
  readonly rule: TabularRule;
  readonly curves: LabCurves;
  /** Updates in which each was given. */
  readonly warnings: Map<string, number>;
}

/** The groups of a minibatch as one batch, with what the policy before the step says of their tokens. */
function batchOf({ lock, before }: Run, groups: readonly TabularGroup[], importance: boolean): TabularBatch {
  const { positions, vocabulary, responses } = lock;
  const records = groups.length * responses;
  const batch = {
    contexts: new Int32Array(records),
    group: Int32Array.from({ length: records }, (_, r) => Math.floor(r / responses)),
    groups: groups.length,
    tokens: new Int32Array(records * positions),
    oldLogProb: new Float64Array(records * positions),
    oldEntropy: new Float64Array(records * positions),
    reward: new Float64Array(records),
  };
  groups.forEach(({ context, tokens, rewards, logProb }, g) => {
    const first = g * responses;
    batch.contexts.fill(context, first, first + responses);
    batch.tokens.set(tokens, first * positions);
    batch.reward.set(rewards, first);
    if (importance) batch.oldLogProb.set(logProb, first * positions);
    for (let i = 0; i < tokens.length; i++) {
      const row = context * positions + (i % positions);
      if (!importance) batch.oldLogProb[first * positions + i] = before.logProbs[row * vocabulary + tokens[i]];
      batch.oldEntropy[first * positions + i] = before.entropies[row];
    }
  });
  return { ...batch, advantage: groupAdvantages(batch.reward, batch.group, batch.groups) };
}

/** All tokens of every position of a prompt, the likeliest first; of the policy that sampled. */
function likeliest(rows: PolicyRows, context: number, { positions, vocabulary }: SharedLock): LabRollout['topTokens'] {
  const ids = new Int32Array(positions * vocabulary);
  const logProbs = new Float64Array(positions * vocabulary);
  for (let t = 0; t < positions; t++) {
    const start = (context * positions + t) * vocabulary;
    const row = rows.logProbs.subarray(start, start + vocabulary);
    const order = Int32Array.from(row, (_, v) => v).sort((one, other) => row[other] - row[one] || one - other);
    order.forEach((v, j) => {
      ids[t * vocabulary + j] = v;
      logProbs[t * vocabulary + j] = row[v];
    });
  }
  return { k: vocabulary, ids, logProbs };
}

/** The records of a minibatch in the terms of a dump. */
function rolloutsOf(
  run: Run,
  groups: readonly TabularGroup[],
  batch: TabularBatch,
  logProb: Float64Array,
  step: number,
  firstGroup: number,
): LabRollout[] {
  const { lock, keys } = run;
  const { positions, responses } = lock;
  const top = new Map(groups.map(({ context }) => [context, likeliest(run.before, context, lock)]));
  return Array.from(batch.contexts, (context, r) => {
    const [from, to] = [r * positions, (r + 1) * positions];
    const tokens = batch.tokens.slice(from, to);
    const away = keys.base.reduce((count, key, t) => count + (key === keys.keys[context * positions + t] ? 0 : 1), 0);
    const group = groups[batch.group[r]];
    return {
      step,
      promptId: `lock-${context}`,
      responseId: `${step}-${group.step}-${firstGroup + batch.group[r]}-${r % responses}`,
      tokens,
      tokenText: Array.from(tokens, (token) => `key${token}`),
      logProb: logProb.slice(from, to),
      oldLogProb: batch.oldLogProb.slice(from, to),
      entropy: batch.oldEntropy.slice(from, to),
      advantage: batch.advantage[r],
      reward: batch.reward[r],
      correct: batch.reward[r] > 0,
      difficulty: String(away),
      topTokens: top.get(context),
      stepSpans: turnsOf(positions),
    };
  });
}

/** The updates of a step, minibatch by minibatch. */
function train(run: Run, groups: readonly TabularGroup[], importance: boolean, step: number, sink?: LabSink): void {
  const { lock, policy, current, rule, curves } = run;
  const { minibatches, positions, responses, rates } = lock;
  const sums = { tokens: 0, touched: 0, covariance: 0, clipped: 0, idle: 0 };
  const records: LabRollout[] = [];
  for (let m = 0; m < minibatches; m++) {
    const from = Math.floor((m * groups.length) / minibatches);
    const members = groups.slice(from, Math.floor(((m + 1) * groups.length) / minibatches));
    if (members.length === 0) continue;
    const batch = batchOf(run, members, importance);
    const update = updatePolicy(policy, current, batch, rule, rates, step * minibatches + m);
    const tokens = batch.tokens.length;
    sums.tokens += tokens;
    sums.touched += update.touched;
    sums.covariance += update.meanCovariance * tokens;
    sums.clipped += update.clipFraction * tokens;
    for (const { correct } of members) if (correct === 0 || correct === responses) sums.idle++;
    for (const warning of update.warnings) run.warnings.set(warning, (run.warnings.get(warning) ?? 0) + 1);
    if (sink?.rollouts) records.push(...rolloutsOf(run, members, batch, update.logProb, step, from));
  }
  curves.length[step] = positions;
  curves.covariance[step] = sums.covariance / sums.tokens;
  curves.touched[step] = sums.touched / sums.tokens;
  curves.zeroAdvantageGroups[step] = sums.idle / groups.length;
  curves.extra.clip_fraction[step] = sums.clipped / sums.tokens;
  sink?.rollouts?.(records);
}

function runTabular({ method, seed, steps, task }: LabRunRequest, sink?: LabSink) {
  const lock = sharedLock(task);
  const intervention = findIntervention(method.intervention);
  const missing = intervention.needs.find((need) => !KNOWN.includes(need));
  if (missing !== undefined) {
    throw new InputError(
      `--method ${method.intervention}: the tabular engine has no ${missing}; use --engine transformer, or one of ${tabularEngine.rules.join(', ')}`,
    );
  }
  const source = createBatchSource<TabularGroup>(intervention, completeSettings(intervention, method.settings));
  const random = createRandom(seed);
  const keys = drawKeys(lock, random.fork(0));
  const policy = initialPolicy(lock, keys.base);
  const run: Run = {
    lock,
    keys,
    policy,
    before: createPolicyRows(policy),
    current: createPolicyRows(policy),
    rule: { ...source.loss, seed, plain: PLAIN, carried: {} },
    curves: createCurves(steps, MEASURES),
    warnings: new Map(),
  };
  const everyContext = Array.from({ length: lock.prompts }, (_, c) => c);
  const { curves } = run;
  for (let step = 0; step < steps; step++) {
    evaluateRows(policy, everyContext, run.before);
    curves.entropy[step] = meanEntropy(run.before);
    curves.success[step] = successProbability(policy, run.before, keys.keys);
    const generated = sampleRound(lock, keys, run.before, step, random.fork(step + 1));
    const used = source.next(generated);
    const right = generated.reduce((sum, { correct }) => sum + correct, 0);
    curves.reward[step] = right / (generated.length * lock.responses);
    curves.generatedGroups[step] = generated.length;
    curves.usedGroups[step] = used.length;
    if (used.length > 0) train(run, used, source.importance, step, sink);
    sink?.progress?.(step);
  }
  const updates = steps * lock.minibatches;
  const warnings = [...run.warnings].map(([text, count]) => `${text} (${count} of ${updates} updates)`);
  return { method, seed, curves, warnings };
}

/** The shared lock of spec 12: how the entropy of a table of softmaxes collapses, and what keeps it up. */
export const tabularEngine: LabEngine = {
  name: 'tabular',
  title: 'Shared lock: a table of softmaxes, keys that mostly agree',
  task: SHARED_LOCK,
  steps: 500,
  measures: MEASURES,
  get rules() {
    return INTERVENTIONS.filter(({ needs }) => needs.every((need) => KNOWN.includes(need))).map(({ name }) => name);
  },
  run: runTabular,
};
