import { InputError } from '../errors.js';
import { symmetricRankK } from '../kernels/gemm.js';
import type { Floats } from '../models/layer-runner.js';
import { ENTROPY_BINS, type RouterRule, type RoutingStatistics } from './types.js';

/** Rows that are multiplied at once; fixed, so that sums do not depend on how the rows came. */
const BLOCK_ROWS = 256;

/** What is known of rows beside their logits. */
export interface RoutingRows {
  /** Rows that count, [rows]: padding has 0. All when absent. */
  readonly valid?: ArrayLike<number | boolean>;
  /**
   * The experts that the model itself chose, [rows, k] in any order: what a forward pass in f32 did, which may break a tie
   * of rounded scores otherwise. Without it the rule is applied to the logits.
   */
  readonly chosen?: ArrayLike<number>;
}

/** Statistics of the router of one layer that come batch by batch; nothing of the size of the text is kept. */
export interface RoutingSums {
  readonly tokens: number;
  /** Adds logits [rows, E]. @throws InputError naming layer, token and expert for a logit that is not finite */
  add(logits: Floats, rows: number, known?: RoutingRows): void;
  finish(): RoutingStatistics;
}

/** What the router did with one token. The arrays are those of the sums and change with the next token. */
export interface TokenRouting {
  /** 0-based, of all tokens that were shown, those that do not count included. */
  readonly token: number;
  readonly entropyNats: number;
  /** Entropy of the renormalised weights of the chosen experts. */
  readonly chosenEntropyNats: number;
  /** log sum exp z. */
  readonly logNormalizer: number;
  readonly chosen: Int32Array;
  /** p of the chosen experts, softmax(z) or sigmoid(z), [k]. */
  readonly scores: Float64Array;
  /** Renormalised weights of the chosen experts: p divided by its sum over them, [k]. */
  readonly weights: Float64Array;
}

export interface RoutingSumsOptions {
  readonly threads?: number;
  /** False leaves the sums of z and z z^T empty (length 0), which the entropies do not need. */
  readonly grams?: boolean;
  /** Where co-activation is counted, [E, E], in the place of a matrix of its own: then that of the statistics is empty. */
  readonly coActivation?: Float64Array;
  /** Shown every token that counts. */
  readonly onToken?: (routing: TokenRouting) => void;
}

/** Experts of one token in the order of their scores, and what their weights are made of. */
export interface RoutedToken {
  /** The k chosen experts, highest score first, ties to the lowest index, [k]. */
  readonly chosen: Int32Array;
  /** Log of the score that weighs an expert: z for softmax routers, log sigmoid(z) for sigmoid ones, [E]. */
  readonly logScores: Float64Array;
  /** Whether the last chosen expert and the first that was not have equal scores. */
  tied: boolean;
}

/** log(1 / (1 + e^-z)), without overflow. */
function logSigmoid(z: number): number {
  return z < 0 ? z - Math.log1p(Math.exp(z)) : -Math.log1p(Math.exp(-z));
}

/**
 * Applies the rule of a router to tokens, one at a time: softmax routers choose by z (softmax keeps the order), sigmoid
 * routers by sigmoid(z) + correction bias, both within the best groups where the rule has some. The result is reused by the
 * next call.
 * @throws InputError when k is not between 1 and E, the bias is not [E], or groups do not hold k experts
 */
export function createRouter(experts: number, rule: RouterRule): (logits: Floats, offset: number) => RoutedToken {
  const { topK, score, correctionBias, groups } = rule;
  if (!Number.isInteger(topK) || topK < 1 || topK > experts) {
    throw new InputError(`top-k ${topK} of ${experts} experts: it must be between 1 and their number`);
  }
  if (correctionBias !== undefined && correctionBias.length !== experts) {
    throw new InputError(`a correction bias of ${correctionBias.length} entries for ${experts} experts`);
  }
  if (groups !== undefined) checkGroups(experts, topK, groups);
  const logScores = new Float64Array(experts);
  const bias = score === 'sigmoid' ? correctionBias : undefined;
  // Sums of scores decide among groups; without a bias or groups logits do, which tell more experts apart.
  const byScore = bias !== undefined || groups !== undefined ? new Float64Array(experts) : undefined;
  const token = { chosen: new Int32Array(topK), logScores, tied: false };
  return (logits, offset) => {
    for (let e = 0; e < experts; e++) {
      const z = logits[offset + e];
      logScores[e] = score === 'softmax' ? z : logSigmoid(z);
      if (byScore) byScore[e] = score === 'softmax' ? z : Math.exp(logScores[e]) + (bias ? bias[e] : 0);
    }
    if (byScore && groups) keepBestGroups(byScore, groups, score === 'softmax' ? 1 : 2);
    token.tied = chooseLargest(byScore ?? logits.subarray(offset, offset + experts), token.chosen);
    return token;
  };
}

/** @throws InputError when the groups cannot be, or hold fewer experts than are chosen */
function checkGroups(experts: number, topK: number, { nGroup, topkGroup }: NonNullable<RouterRule['groups']>): void {
  const fits = experts % nGroup === 0 && topkGroup >= 1 && topkGroup <= nGroup;
  if (fits && (topkGroup * experts) / nGroup >= topK) return;
  throw new InputError(
    `${topK} of ${experts} experts in ${topkGroup} of ${nGroup} groups: the groups do not hold them`,
  );
}

/**
 * Puts -Infinity on the experts outside of the best groups. A group counts as much as the sum of its `most` largest scores:
 * the largest alone in DeepSeek-V2 (softmax), the two largest in DeepSeek-V3 (sigmoid). Ties to the lowest group.
 */
function keepBestGroups(
  scores: Float64Array,
  { nGroup, topkGroup }: NonNullable<RouterRule['groups']>,
  most: number,
): void {
  const size = scores.length / nGroup;
  const totals = new Float64Array(nGroup);
  const largest = new Int32Array(Math.min(most, size));
  for (let group = 0; group < nGroup; group++) {
    const own = scores.subarray(group * size, (group + 1) * size);
    chooseLargest(own, largest);
    for (const e of largest) totals[group] += own[e];
  }
  const best = new Int32Array(topkGroup);
  chooseLargest(totals, best);
  for (let group = 0; group < nGroup; group++) {
    if (!best.includes(group)) scores.fill(Number.NEGATIVE_INFINITY, group * size, (group + 1) * size);
  }
}

/** Places of the k largest scores, descending, ties to the lowest index; tells whether the k-th and the next are equal. */
function chooseLargest(scores: Floats, chosen: Int32Array): boolean {
  const k = chosen.length;
  let filled = 0;
  for (let e = 0; e < scores.length; e++) {
    if (filled === k && !(scores[e] > scores[chosen[k - 1]])) continue;
    let place = filled < k ? filled++ : k - 1;
    while (place > 0 && scores[e] > scores[chosen[place - 1]]) {
      chosen[place] = chosen[place - 1];
      place--;
    }
    chosen[place] = e;
  }
  const last = scores[chosen[k - 1]];
  let equal = 0;
  let within = 0;
  for (let e = 0; e < scores.length; e++) if (scores[e] === last) equal++;
  for (let i = 0; i < k; i++) if (scores[chosen[i]] === last) within++;
  return equal > within;
}

/**
 * Softmax of `scores` at the places `at` (at all of them when absent) into `weights`, and its entropy in nats:
 * H = log sum e^d - sum (e^d / sum e^d) d with d the distance to the largest, exact for scores of any size.
 */
function softmaxEntropy(scores: Float64Array, weights: Float64Array, at?: Int32Array): number {
  const count = at?.length ?? scores.length;
  let largest = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < count; i++) largest = Math.max(largest, scores[at ? at[i] : i]);
  let sum = 0;
  let moment = 0;
  for (let i = 0; i < count; i++) {
    const distance = scores[at ? at[i] : i] - largest;
    const weight = Math.exp(distance);
    weights[i] = weight;
    sum += weight;
    // e^d d tends to 0.
    if (weight > 0) moment += weight * distance;
  }
  for (let i = 0; i < count; i++) weights[i] /= sum;
  return Math.max(0, Math.log(sum) - moment / sum);
}

function logSumExp(logits: Floats, offset: number, count: number): number {
  let largest = Number.NEGATIVE_INFINITY;
  for (let e = 0; e < count; e++) largest = Math.max(largest, logits[offset + e]);
  let sum = 0;
  for (let e = 0; e < count; e++) sum += Math.exp(logits[offset + e] - largest);
  return largest + Math.log(sum);
}

/** Sum of x x^T over rows x [n], gathered into blocks of a fixed number of rows. */
function createGram(n: number, threads: number | undefined) {
  const gram = new Float64Array(n * n);
  const block = new Float64Array(BLOCK_ROWS * n);
  let filled = 0;
  const flush = (): void => {
    if (filled === 0) return;
    const options = { transpose: true, beta: 1, ...(threads !== undefined && { threads }) };
    symmetricRankK(block, gram, { n, k: filled }, options);
    filled = 0;
  };
  return {
    /** The place of the next row, to be filled at once. */
    next(): Float64Array {
      if (filled === BLOCK_ROWS) flush();
      return block.subarray(filled * n, ++filled * n);
    },
    finish(): Float64Array {
      flush();
      for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) gram[j * n + i] = gram[i * n + j];
      return gram.slice();
    },
  };
}

/**
 * Opens the routing statistics of a layer.
 * @param rule how its logits choose; `normalizeTopK` does not matter here: weights of the chosen are divided by their sum
 * @throws InputError when k is not between 1 and E
 */
export function createRoutingSums(
  layer: number,
  experts: number,
  rule: RouterRule,
  options: RoutingSumsOptions = {},
): RoutingSums {
  const route = createRouter(experts, rule);
  const { topK } = rule;
  const counts = new Float64Array(experts);
  const histogram = new Float64Array(ENTROPY_BINS);
  const probabilitySum = new Float64Array(experts);
  const gateMass = new Float64Array(experts);
  const grams = options.grams ?? true;
  const logitSum = new Float64Array(grams ? experts : 0);
  const coActivation = options.coActivation ?? new Float64Array(experts * experts);
  const gram = createGram(grams ? experts : 0, options.threads);
  const centredGram = createGram(grams ? experts : 0, options.threads);
  const probabilities = new Float64Array(experts);
  const weights = new Float64Array(topK);
  const most = Math.log(experts);
  let [tokens, tiedTokens, seen] = [0, 0, 0];
  let [entropySum, entropyMean, entropyDeviationSum, chosenEntropySum, squaredLogNormalizerSum] = [0, 0, 0, 0, 0];

  const checkLogits = (logits: Floats, offset: number): void => {
    for (let e = 0; e < experts; e++) {
      const z = logits[offset + e];
      if (!Number.isFinite(z)) throw new InputError(`layer ${layer}, token ${seen}, expert ${e}: router logit ${z}`);
    }
  };

  const addLogits = (logits: Floats, offset: number): void => {
    const row = gram.next();
    let sum = 0;
    for (let e = 0; e < experts; e++) {
      const z = logits[offset + e];
      row[e] = z;
      logitSum[e] += z;
      sum += z;
    }
    const centred = centredGram.next();
    for (let e = 0; e < experts; e++) centred[e] = logits[offset + e] - sum / experts;
  };

  const scores = new Float64Array(topK);
  const chosenScores = ({ chosen, logScores }: RoutedToken, normalizer: number): Float64Array => {
    for (let i = 0; i < topK; i++) scores[i] = Math.exp(logScores[chosen[i]] - normalizer);
    return scores;
  };

  const addEntropy = (entropy: number): void => {
    const distance = entropy - entropyMean;
    entropyMean += distance / tokens;
    entropyDeviationSum += distance * (entropy - entropyMean);
    entropySum += entropy;
    const bin = most > 0 ? Math.floor((ENTROPY_BINS * entropy) / most) : 0;
    histogram[Math.min(ENTROPY_BINS - 1, bin)]++;
  };

  const addChosen = (chosen: Int32Array): void => {
    for (const i of chosen) {
      counts[i]++;
      for (const j of chosen) coActivation[i * experts + j]++;
    }
  };

  return {
    get tokens() {
      return tokens;
    },
    add(logits, rows, known = {}) {
      if (logits.length < rows * experts) {
        throw new RangeError(`${logits.length} router logits are not [${rows}, ${experts}]`);
      }
      for (let row = 0; row < rows; row++, seen++) {
        if (known.valid && !known.valid[row]) continue;
        tokens++;
        const offset = row * experts;
        checkLogits(logits, offset);
        if (grams) addLogits(logits, offset);
        const logNormalizer = logSumExp(logits, offset, experts);
        squaredLogNormalizerSum += logNormalizer ** 2;
        const token = route(logits, offset);
        if (token.tied) tiedTokens++;
        if (known.chosen) for (let i = 0; i < topK; i++) token.chosen[i] = known.chosen[row * topK + i];
        const entropyNats = softmaxEntropy(token.logScores, probabilities);
        addEntropy(entropyNats);
        for (let e = 0; e < experts; e++) probabilitySum[e] += probabilities[e];
        const chosenEntropyNats = softmaxEntropy(token.logScores, weights, token.chosen);
        chosenEntropySum += chosenEntropyNats;
        for (let i = 0; i < topK; i++) gateMass[token.chosen[i]] += weights[i];
        addChosen(token.chosen);
        options.onToken?.({
          token: seen,
          entropyNats,
          chosenEntropyNats,
          logNormalizer,
          chosen: token.chosen,
          scores: chosenScores(token, rule.score === 'softmax' ? logNormalizer : 0),
          weights,
        });
      }
    },
    finish: () => ({
      layer,
      experts,
      topK,
      score: rule.score,
      tokens,
      counts: counts.slice(),
      tiedTokens,
      entropySum,
      entropyDeviationSum,
      entropyHistogram: histogram.slice(),
      chosenEntropySum,
      probabilitySum: probabilitySum.slice(),
      gateMass: gateMass.slice(),
      squaredLogNormalizerSum,
      logitSum: logitSum.slice(),
      logitGram: gram.finish(),
      centredLogitGram: centredGram.finish(),
      coActivation: options.coActivation ? new Float64Array(0) : coActivation.slice(),
    }),
  };
}

/** Sum of two arrays of one length. */
export function addArrays(a: Float64Array, b: Float64Array): Float64Array {
  return a.map((value, i) => value + b[i]);
}

/**
 * Statistics of the tokens of both; deviations unite by Chan, Golub and LeVeque (1979).
 * @throws InputError when they are not of the same layer, experts and rule
 */
export function addRoutingStatistics(a: RoutingStatistics, b: RoutingStatistics): RoutingStatistics {
  for (const key of ['layer', 'experts', 'topK', 'score'] as const) {
    if (a[key] !== b[key]) {
      throw new InputError(`routing statistics of layer ${a.layer} do not unite: ${key} ${a[key]} and ${b[key]}`);
    }
  }
  const tokens = a.tokens + b.tokens;
  const apart = a.tokens > 0 && b.tokens > 0 ? a.entropySum / a.tokens - b.entropySum / b.tokens : 0;
  const between = tokens > 0 ? apart * apart * ((a.tokens * b.tokens) / tokens) : 0;
  return {
    layer: a.layer,
    experts: a.experts,
    topK: a.topK,
    score: a.score,
    tokens,
    counts: addArrays(a.counts, b.counts),
    tiedTokens: a.tiedTokens + b.tiedTokens,
    entropySum: a.entropySum + b.entropySum,
    entropyDeviationSum: a.entropyDeviationSum + b.entropyDeviationSum + between,
    entropyHistogram: addArrays(a.entropyHistogram, b.entropyHistogram),
    chosenEntropySum: a.chosenEntropySum + b.chosenEntropySum,
    probabilitySum: addArrays(a.probabilitySum, b.probabilitySum),
    gateMass: addArrays(a.gateMass, b.gateMass),
    squaredLogNormalizerSum: a.squaredLogNormalizerSum + b.squaredLogNormalizerSum,
    logitSum: addArrays(a.logitSum, b.logitSum),
    logitGram: addArrays(a.logitGram, b.logitGram),
    centredLogitGram: addArrays(a.centredLogitGram, b.centredLogitGram),
    coActivation: addArrays(a.coActivation, b.coActivation),
  };
}
