import { isBucket } from '../../src/policy/ares/difficulty.js';
import { controlKl, initialKl } from '../../src/policy/ares/kl-controller.js';
import { entropyScore, paperReward } from '../../src/policy/ares/reward.js';
import { batchThreshold } from '../../src/policy/ares/threshold.js';
import { normalisedToken, triggerCounts } from '../../src/policy/ares/triggers.js';
import { responseThreshold, windowMeans } from '../../src/policy/ares/window-entropy.js';
import { meanOf } from '../../src/policy/compensated-sum.js';
import { topKEntropyBounds } from '../../src/policy/topk-bounds.js';
import type { Json } from './harness.js';
import { float64, keysOf, number } from './tensors.js';

type Inputs = { [key: string]: Json };

function list(value: Json, name: string): Json[] {
  if (!Array.isArray(value)) throw new TypeError(`${name} is not a list`);
  return value;
}

function bucket(value: Json) {
  if (typeof value !== 'string' || !isBucket(value)) throw new TypeError(`${String(value)} is not a difficulty`);
  return value;
}

function rewardGrid(rows: Json[]): unknown {
  const scored = rows.map((row) => {
    if (row === null || typeof row !== 'object' || Array.isArray(row)) throw new TypeError('a row is not an object');
    const accuracy = number(row.accuracy, 'accuracy');
    const score = entropyScore({
      bucket: bucket(row.difficulty),
      correct: accuracy > 0,
      count: number(row.n_hwe, 'n_hwe'),
      target: number(row.target, 'target'),
      alpha: number(row.alpha, 'alpha'),
    });
    return { score, overall: accuracy + score };
  });
  return { entropy_score: scored.map(({ score }) => score), overall: scored.map(({ overall }) => overall) };
}

function paperCase(inputs: Inputs, wanted: Json): unknown {
  const target: { [key: string]: Json } = inputs.target as { [key: string]: Json };
  const { lambda, reward } = paperReward({
    bucket: list(inputs.difficulty, 'difficulty').map(bucket),
    count: float64(inputs.n_hwe, 'n_hwe'),
    accuracy: float64(inputs.accuracy, 'accuracy'),
    target: Object.fromEntries(Object.entries(target).map(([name, value]) => [bucket(name), number(value, name)])),
    eps: number(inputs.eps, 'eps'),
  });
  const names = keysOf((wanted as { [key: string]: Json }).lam);
  return { lam: Object.fromEntries(names.map((name) => [name, lambda[bucket(name)]])), reward: [...reward] };
}

function betaCase(inputs: Inputs): unknown {
  const control = {
    target: number(inputs.target, 'target'),
    initial: number(inputs.beta_init, 'beta_init'),
    ema: number(inputs.ema, 'ema'),
    logRate: number(inputs.log_lr, 'log_lr'),
    errorClip: number(inputs.error_clip, 'error_clip'),
    interval: number(inputs.interval, 'interval'),
    deadZone: number(inputs.deadzone, 'deadzone'),
    least: number(inputs.beta_min, 'beta_min'),
    most: number(inputs.beta_max, 'beta_max'),
  };
  let state = initialKl(control);
  const beta = Array.from(float64(inputs.seq_mean_kl, 'seq_mean_kl'), (kl, call) => {
    state = controlKl(state, kl, call + 1, control);
    return state.beta;
  });
  return { beta };
}

interface Response {
  readonly logProbs: Float64Array;
  readonly likeliest: readonly string[];
  readonly k: number;
}

function responseOf(value: Json, vocabulary: readonly string[]): Response {
  const positions = list(value, 'topk').map((entries) => list(entries, 'topk').map((pair) => list(pair, 'pair')));
  const k = Math.max(0, ...positions.map((entries) => entries.length));
  const logProbs = new Float64Array(positions.length * k).fill(Number.NEGATIVE_INFINITY);
  positions.forEach((entries, t) => {
    entries.forEach(([, logProb], j) => {
      logProbs[t * k + j] = number(logProb, 'logprob');
    });
  });
  return { logProbs, k, likeliest: positions.map(([[id]]) => vocabulary[number(id, 'id')]) };
}

function windowCase(inputs: Inputs): unknown {
  const vocabulary = list(inputs.vocab, 'vocab').map(String);
  const words = new Set(list(inputs.trigger_words, 'trigger_words').map(String));
  const width = number(inputs.window, 'window');
  const cut = number(inputs.hwe_threshold, 'hwe_threshold');
  const percent = number(inputs.percentile, 'percentile');
  const rows = list(inputs.topk, 'topk').map((value) => {
    const { logProbs, likeliest, k } = responseOf(value, vocabulary);
    const bounds = topKEntropyBounds(logProbs, likeliest.length, k);
    const entropy = bounds.lowerLump;
    const counts = triggerCounts(entropy, (t) => words.has(normalisedToken(likeliest[t])), width, cut);
    const threshold = responseThreshold(bounds.truncatedSum, width, percent);
    return { entropy, truncated: bounds.truncatedSum, counts, threshold, means: windowMeans(entropy, width) };
  });
  return {
    token_entropy: rows.map(({ entropy }) => [...entropy]),
    token_entropy_no_tail: rows.map(({ truncated }) => [...truncated]),
    mean_entropy: rows.map(({ entropy }) => meanOf(entropy)),
    rollout_threshold: rows.map(({ threshold }) => threshold),
    batch_threshold_median: batchThreshold(Float64Array.from(rows, ({ threshold }) => threshold)),
    valid_trigger_count: rows.map(({ counts }) => counts.valid),
    invalid_trigger_count: rows.map(({ counts }) => counts.invalid),
    soft_cost: rows.map(({ counts }) => counts.softCost),
    window_entropy_from_t: rows.map(({ means }) => [...means]),
  };
}

export function run(inputs: Inputs, wanted: Json): unknown {
  if (Array.isArray(inputs.rows)) return rewardGrid(inputs.rows);
  if (inputs.seq_mean_kl !== undefined) return betaCase(inputs);
  return inputs.topk === undefined ? paperCase(inputs, wanted) : windowCase(inputs);
}
