import { InputError } from '../errors.js';
import { createRandom } from '../random.js';
import { trimTrailingWhitespace } from './text-counts.js';

/**
 * Splits the tokens of a context and its continuation as lm-evaluation-harness does: whitespace at the end of the context
 * moves to the continuation, the whole is encoded at once, and the continuation is what follows as many tokens as the
 * context alone has. Source: lm-evaluation-harness `_encode_pair`.
 *
 * @param encode text to token ids, with the special tokens the harness's model would add
 * @throws InputError when nothing is left to score
 */
export function splitContextContinuation(
  context: string,
  continuation: string,
  encode: (text: string) => ArrayLike<number>,
): { context: Int32Array; continuation: Int32Array } {
  const trimmed = trimTrailingWhitespace(context);
  const moved = context.slice(trimmed.length) + continuation;
  const contextIds = Int32Array.from(encode(trimmed));
  const continuationIds = Int32Array.from(encode(trimmed + moved)).slice(contextIds.length);
  if (continuationIds.length === 0) {
    throw new InputError(
      `the continuation ${JSON.stringify(continuation)} adds no token to its context: there is nothing to score`,
    );
  }
  return { context: contextIds, continuation: continuationIds };
}

/**
 * Token ids to feed and to score: `splitContextContinuation`, with the prefix token where the context has no token of its
 * own, as the harness (0.4.13) does for an empty context: the continuation is then encoded without special tokens, and a
 * prefix token that it begins with is not put before it again.
 *
 * @param encodePlain `encode` without special tokens
 */
export function encodePair(
  context: string,
  continuation: string,
  encode: (text: string) => ArrayLike<number>,
  prefixToken: number,
  encodePlain: (text: string) => ArrayLike<number> = encode,
): { context: Int32Array; continuation: Int32Array } {
  const pair = splitContextContinuation(context, continuation, encode);
  if (context === '') {
    const plain = Int32Array.from(encodePlain(continuation));
    const doubled = plain[0] === prefixToken && plain.length > 1;
    return { context: Int32Array.of(prefixToken), continuation: doubled ? plain.slice(1) : plain };
  }
  return pair.context.length > 0 ? pair : { context: Int32Array.of(prefixToken), continuation: pair.continuation };
}

/** One forward pass that scores a continuation: row `scoreFrom + i` of the outputs predicts `targets[i]`. */
export interface ChoiceWindow {
  readonly inputs: Int32Array;
  readonly scoreFrom: number;
  readonly targets: Int32Array;
  /** Tokens of the context that did not fit and were dropped on the left. */
  readonly truncated: number;
}

/**
 * The inputs for a continuation: context and continuation without the last token, cut on the left to `maxLength`, as the
 * harness cuts them.
 * @throws InputError when the continuation alone does not fit
 */
export function choiceWindow(context: Int32Array, continuation: Int32Array, maxLength: number): ChoiceWindow {
  if (continuation.length > maxLength) {
    throw new InputError(`a choice of ${continuation.length} tokens does not fit the context of ${maxLength}`);
  }
  const whole = new Int32Array(context.length + continuation.length);
  whole.set(context);
  whole.set(continuation, context.length);
  const truncated = Math.max(0, whole.length - (maxLength + 1));
  const inputs = whole.slice(truncated, whole.length - 1);
  return { inputs, scoreFrom: inputs.length - continuation.length, targets: continuation, truncated };
}

/** What a question gives: one entry a choice. */
export interface ChoiceScores {
  /** Summed log-likelihood of each choice, nats. */
  readonly logLikelihoods: ArrayLike<number>;
  /** Code points of each choice's text: the harness divides by Python's `len`, without the delimiter before it. */
  readonly characters: ArrayLike<number>;
  readonly bytes: ArrayLike<number>;
  readonly tokens: ArrayLike<number>;
  /** Index of the right choice, or several. */
  readonly gold: readonly number[];
}

/** By what a log-likelihood is divided before choices are weighed against each other. */
export type ChoiceNormalisation = 'none' | 'characters' | 'bytes' | 'tokens';

export const CHOICE_NORMALISATIONS: readonly ChoiceNormalisation[] = ['none', 'characters', 'bytes', 'tokens'];

/** Figures of one question. */
export interface ChoiceResult {
  /** First likeliest choice: as it stands, by character, by byte, by token. */
  readonly prediction: number;
  readonly predictionByCharacter: number;
  readonly predictionByByte: number;
  readonly predictionByToken: number;
  readonly correct: boolean;
  readonly correctByCharacter: boolean;
  readonly correctByByte: boolean;
  readonly correctByToken: boolean;
  /** softmax of the normalised log-likelihoods, its entropy, its largest entry, and the gap of the two largest. */
  readonly probabilities: Float64Array;
  readonly entropyNats: number;
  readonly confidence: number;
  readonly margin: number;
  /** Sum over the choices of (probability - one-hot)^2, against the first right choice. */
  readonly brier: number;
  readonly goldSurprisalNats: number;
}

/** First index of the largest value / length; a choice of no length has score -inf unless its likelihood is 0. */
function argmaxOfRatio(values: ArrayLike<number>, lengths?: ArrayLike<number>): number {
  let best = 0;
  let bestScore = Number.NaN;
  for (let i = 0; i < values.length; i++) {
    const score = lengths === undefined ? values[i] : values[i] / lengths[i];
    if (Number.isNaN(score)) continue;
    if (Number.isNaN(bestScore) || score > bestScore) {
      best = i;
      bestScore = score;
    }
  }
  return best;
}

/**
 * Scores one multiple-choice question as lm-evaluation-harness does: `acc` takes the likeliest choice, `acc_norm` the
 * likeliest by log-likelihood / characters, the first on ties. Probabilities, entropy, confidence and margin are of the
 * log-likelihoods under `normalisation`, the confidence of the prediction that goes with it. When no choice has any likelihood the softmax is uniform.
 * @throws InputError for fewer than two choices, unequal lengths, or a gold index out of range
 */
export function scoreChoices(scores: ChoiceScores, normalisation: ChoiceNormalisation = 'none'): ChoiceResult {
  const { logLikelihoods, gold } = scores;
  const choices = logLikelihoods.length;
  if (choices < 2) throw new InputError(`a question needs at least two choices, got ${choices}`);
  if (scores.characters.length !== choices || scores.bytes.length !== choices || scores.tokens.length !== choices) {
    throw new InputError(`lengths do not fit the ${choices} choices`);
  }
  if (gold.length === 0 || gold.some((index) => !Number.isInteger(index) || index < 0 || index >= choices)) {
    throw new InputError(`answer ${gold.join(', ')} is not an index of the ${choices} choices`);
  }
  let max = Number.NEGATIVE_INFINITY;
  const weighed = new Float64Array(choices);
  for (let i = 0; i < choices; i++) {
    if (!(logLikelihoods[i] < Number.POSITIVE_INFINITY)) {
      throw new InputError(`choice ${i} has the log-likelihood ${logLikelihoods[i]}`);
    }
    weighed[i] = normalisation === 'none' ? logLikelihoods[i] : logLikelihoods[i] / scores[normalisation][i];
    if (Number.isNaN(weighed[i])) weighed[i] = Number.NEGATIVE_INFINITY;
    max = Math.max(max, weighed[i]);
  }
  const probabilities = new Float64Array(choices);
  let sum = 0;
  for (let i = 0; i < choices; i++) {
    probabilities[i] = max === Number.NEGATIVE_INFINITY ? 1 : Math.exp(weighed[i] - max);
    sum += probabilities[i];
  }
  let entropy = 0;
  let brier = 0;
  let first = 0;
  let second = 0;
  for (let i = 0; i < choices; i++) {
    const p = probabilities[i] / sum;
    probabilities[i] = p;
    if (p > 0) entropy -= p * Math.log(p);
    brier += (p - (i === gold[0] ? 1 : 0)) ** 2;
    if (p > first) {
      second = first;
      first = p;
    } else if (p > second) second = p;
  }
  const prediction = argmaxOfRatio(logLikelihoods);
  const predictionByCharacter = argmaxOfRatio(logLikelihoods, scores.characters);
  const predictionByByte = argmaxOfRatio(logLikelihoods, scores.bytes);
  const predictionByToken = argmaxOfRatio(logLikelihoods, scores.tokens);
  return {
    prediction,
    predictionByCharacter,
    predictionByByte,
    predictionByToken,
    correct: gold.includes(prediction),
    correctByCharacter: gold.includes(predictionByCharacter),
    correctByByte: gold.includes(predictionByByte),
    correctByToken: gold.includes(predictionByToken),
    probabilities,
    entropyNats: Math.max(0, entropy),
    confidence: first,
    margin: first - second,
    brier,
    goldSurprisalNats: -Math.log(probabilities[gold[0]]),
  };
}

/** What the aggregate needs of a question; rows of shards are put together and sorted by `index`. */
export interface ChoiceRow {
  readonly index: number;
  readonly choices: number;
  readonly correct: boolean;
  readonly correctByCharacter: boolean;
  readonly correctByByte: boolean;
  readonly correctByToken: boolean;
  readonly entropyNats: number;
  readonly confidence: number;
  readonly margin: number;
  readonly brier: number;
  readonly goldSurprisalNats: number;
}

/** Whether the prediction that the confidence is of was right, by the normalisation that made it. */
export const CORRECT_UNDER = {
  none: 'correct',
  characters: 'correctByCharacter',
  bytes: 'correctByByte',
  tokens: 'correctByToken',
} as const satisfies Record<ChoiceNormalisation, keyof ChoiceRow>;

/** The row of a scored question. */
export function choiceRow(index: number, result: ChoiceResult): ChoiceRow {
  return {
    index,
    choices: result.probabilities.length,
    correct: result.correct,
    correctByCharacter: result.correctByCharacter,
    correctByByte: result.correctByByte,
    correctByToken: result.correctByToken,
    entropyNats: result.entropyNats,
    confidence: result.confidence,
    margin: result.margin,
    brier: result.brier,
    goldSurprisalNats: result.goldSurprisalNats,
  };
}

/** Figures of a set of questions, named as lm-evaluation-harness names its own. */
export interface ChoiceSummary {
  questions: number;
  acc: number;
  acc_stderr: number;
  /** By characters: the harness's `acc_norm`. */
  acc_norm: number;
  acc_norm_stderr: number;
  acc_bytes: number;
  acc_bytes_stderr: number;
  acc_tokens: number;
  acc_tokens_stderr: number;
  brier_score: number;
  brier_score_stderr: number;
  mean_choice_entropy_nats: number;
  mean_choice_entropy_nats_se: number;
  /** Mean of entropy / log(choices). */
  mean_normalized_choice_entropy: number;
  mean_margin: number;
  mean_margin_se: number;
  mean_gold_surprisal_nats: number;
  mean_gold_surprisal_nats_se: number;
  mean_confidence: number;
  /** Question-weighted mean of |accuracy - mean confidence| over equal-width bins of confidence. */
  expected_calibration_error: number;
  calibration_bins: { low: number; high: number; questions: number; mean_confidence: number; accuracy: number }[];
  /** Percentile bootstrap over questions. */
  acc_interval: { low: number; high: number; resamples: number; level: number; seed: number };
}

/** Mean and the harness's standard error: sample standard deviation / sqrt(n). NaN error for one value. */
function meanAndStderr(values: readonly number[]): [number, number] {
  let sum = 0;
  for (const value of values) sum += value;
  const mean = sum / values.length;
  let squares = 0;
  for (const value of values) squares += (value - mean) ** 2;
  return [mean, Math.sqrt(squares / (values.length - 1)) / Math.sqrt(values.length)];
}

const CALIBRATION_BINS = 10;

function calibration(
  rows: readonly ChoiceRow[],
  normalisation: ChoiceNormalisation,
): Pick<ChoiceSummary, 'expected_calibration_error' | 'calibration_bins'> {
  const outcome = CORRECT_UNDER[normalisation];
  const bins = Array.from({ length: CALIBRATION_BINS }, () => ({ questions: 0, confidence: 0, correct: 0 }));
  for (const row of rows) {
    const bin = bins[Math.min(CALIBRATION_BINS - 1, Math.floor(row.confidence * CALIBRATION_BINS))];
    bin.questions++;
    bin.confidence += row.confidence;
    if (row[outcome]) bin.correct++;
  }
  let error = 0;
  const table: ChoiceSummary['calibration_bins'] = [];
  bins.forEach(({ questions, confidence, correct }, i) => {
    if (questions === 0) return;
    error += Math.abs(correct - confidence);
    table.push({
      low: i / CALIBRATION_BINS,
      high: (i + 1) / CALIBRATION_BINS,
      questions,
      mean_confidence: confidence / questions,
      accuracy: correct / questions,
    });
  });
  return { expected_calibration_error: error / rows.length, calibration_bins: table };
}

function accuracyInterval(rows: readonly ChoiceRow[], seed: number): ChoiceSummary['acc_interval'] {
  const resamples = 1000;
  const level = 0.95;
  const correct = rows.filter((row) => row.correct).length;
  const n = rows.length;
  // A resample of 0/1 outcomes is a binomial count: drawing it by inversion costs O(n) once, not a draw a question.
  const random = createRandom(seed).fork(0x63686f69);
  const p = correct / n;
  const logs = new Float64Array(n + 1);
  for (let k = 1; k <= n; k++) logs[k] = logs[k - 1] + Math.log(k);
  const cumulative = new Float64Array(n + 1);
  let total = 0;
  for (let k = 0; k <= n; k++) {
    const certain = (p === 0 && k === 0) || (p === 1 && k === n);
    const inside = p > 0 && p < 1;
    if (certain) total += 1;
    else if (inside) total += Math.exp(logs[n] - logs[k] - logs[n - k] + k * Math.log(p) + (n - k) * Math.log1p(-p));
    cumulative[k] = total;
  }
  const draws = new Float64Array(resamples);
  for (let r = 0; r < resamples; r++) {
    const u = random.uniform() * total;
    let low = 0;
    let high = n;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (cumulative[middle] > u) high = middle;
      else low = middle + 1;
    }
    draws[r] = low / n;
  }
  draws.sort();
  const at = (fraction: number): number => draws[Math.round(fraction * (resamples - 1))];
  return { low: at((1 - level) / 2), high: at((1 + level) / 2), resamples, level, seed };
}

/**
 * Aggregates questions. Rows may come in any order and from several shards; they are taken in the order of their indices.
 * @throws InputError without any question, unless `allowEmpty` is set (all figures are then NaN)
 */
export function summarizeChoices(
  unordered: readonly ChoiceRow[],
  options: { readonly seed: number; readonly normalisation?: ChoiceNormalisation; readonly allowEmpty?: boolean },
): ChoiceSummary {
  if (unordered.length === 0 && options.allowEmpty !== true) throw new InputError('no question was scored');
  const rows = [...unordered].sort((a, b) => a.index - b.index);
  const share = (key: 'correct' | 'correctByCharacter' | 'correctByByte' | 'correctByToken') =>
    meanAndStderr(rows.map((row) => (row[key] ? 1 : 0)));
  const [acc, accStderr] = share('correct');
  const [accNorm, accNormStderr] = share('correctByCharacter');
  const [accBytes, accBytesStderr] = share('correctByByte');
  const [accTokens, accTokensStderr] = share('correctByToken');
  const [brier, brierStderr] = meanAndStderr(rows.map((row) => row.brier));
  const [entropy, entropyError] = meanAndStderr(rows.map((row) => row.entropyNats));
  const [normalized] = meanAndStderr(rows.map((row) => row.entropyNats / Math.log(row.choices)));
  const [margin, marginError] = meanAndStderr(rows.map((row) => row.margin));
  const [gold, goldError] = meanAndStderr(rows.map((row) => row.goldSurprisalNats));
  const [confidence] = meanAndStderr(rows.map((row) => row.confidence));
  return {
    questions: rows.length,
    acc,
    acc_stderr: accStderr,
    acc_norm: accNorm,
    acc_norm_stderr: accNormStderr,
    acc_bytes: accBytes,
    acc_bytes_stderr: accBytesStderr,
    acc_tokens: accTokens,
    acc_tokens_stderr: accTokensStderr,
    brier_score: brier,
    brier_score_stderr: brierStderr,
    mean_choice_entropy_nats: entropy,
    mean_choice_entropy_nats_se: entropyError,
    mean_normalized_choice_entropy: normalized,
    mean_margin: margin,
    mean_margin_se: marginError,
    mean_gold_surprisal_nats: gold,
    mean_gold_surprisal_nats_se: goldError,
    mean_confidence: confidence,
    ...calibration(rows, options.normalisation ?? 'none'),
    acc_interval: accuracyInterval(rows, options.seed),
  };
}
