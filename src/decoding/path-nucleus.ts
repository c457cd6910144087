import { didYouMean, InputError } from '../errors.js';

/**
 * Path-level nucleus sampling: the abstract of arXiv 2409.19790 names "a combination of top-p sampling and beam search";
 * its full procedure was not published, so the rule here is this project's own (specification of steering, section 4).
 */
export interface PathNucleusSettings {
  /** Paths that are kept, the width of the beam. */
  readonly width: number;
  /** Mass of the nucleus of each path's next token, in (0, 1]; 1 takes every token. */
  readonly tokenMass: number;
  /** Mass of the joint nucleus over all candidates, in (0, 1]. */
  readonly pathMass: number;
  /** `topk` keeps the heaviest candidates, `sample` draws them without replacement (Gumbel-top-k). */
  readonly select: PathSelection;
  /** a of L / length^a; 0 ranks by the log-probability itself. */
  readonly lengthPenalty: number;
  /** Divides scores before they become weights. */
  readonly temperature: number;
}

export type PathSelection = 'topk' | 'sample';

export const PATH_SELECTIONS: readonly PathSelection[] = ['topk', 'sample'];

/** Defaults: beam of four, both nuclei of mass 0.9, deterministic. */
export const PATH_NUCLEUS_DEFAULTS: PathNucleusSettings = {
  width: 4,
  tokenMass: 0.9,
  pathMass: 0.9,
  select: 'topk',
  lengthPenalty: 0,
  temperature: 1,
};

/** A chain of generated tokens. */
export interface TokenPath {
  readonly tokens: readonly number[];
  /** Sum of ln p of its tokens under the untruncated distributions. */
  readonly logProbability: number;
  readonly finished: boolean;
}

/** A path after a step, and which of the paths before it continues. */
export interface ExtendedPath extends TokenPath {
  readonly parent: number;
}

/** One step: what was there to choose from, and what was chosen. */
export interface PathStep {
  readonly paths: readonly ExtendedPath[];
  readonly candidates: number;
  /** Entropy of the weights of all candidates. */
  readonly jointEntropyNats: number;
  /** exp of that entropy: how many equally heavy candidates it is worth. */
  readonly effectivePaths: number;
  readonly nucleusCandidates: number;
  readonly nucleusMass: number;
}

/** @throws InputError for settings out of range */
export function checkPathNucleus(settings: PathNucleusSettings): void {
  const check = (name: string, value: number, holds: boolean, wanted: string): void => {
    if (!holds) throw new InputError(`path nucleus: ${name} is ${value}; expected ${wanted}`);
  };
  const { width, tokenMass, pathMass, lengthPenalty, temperature } = settings;
  check('k', width, Number.isInteger(width) && width >= 1, 'a positive whole number');
  check('top-p-token', tokenMass, tokenMass > 0 && tokenMass <= 1, 'a number in (0, 1]');
  check('top-p-path', pathMass, pathMass > 0 && pathMass <= 1, 'a number in (0, 1]');
  check('length-penalty', lengthPenalty, Number.isFinite(lengthPenalty) && lengthPenalty >= 0, 'a number from 0 on');
  check('temperature', temperature, Number.isFinite(temperature) && temperature > 0, 'a positive number');
}

const NUMBERS = {
  k: 'width',
  'top-p-token': 'tokenMass',
  'top-p-path': 'pathMass',
  'length-penalty': 'lengthPenalty',
  temperature: 'temperature',
} as const satisfies Record<string, keyof PathNucleusSettings>;

const isNumberName = (name: string): name is keyof typeof NUMBERS => Object.hasOwn(NUMBERS, name);

/**
 * Settings from text such as `k=4,top-p-token=0.9,top-p-path=0.9,select=sample`; what is not named keeps its default.
 * @throws InputError naming what is unknown or out of range
 */
export function parsePathNucleus(text: string): PathNucleusSettings {
  let settings = PATH_NUCLEUS_DEFAULTS;
  for (const part of text.split(',').filter((piece) => piece.trim() !== '')) {
    const [name, value = ''] = part.split('=', 2).map((piece) => piece.trim());
    if (name === 'select') {
      const select = PATH_SELECTIONS.find((known) => known === value);
      if (!select) throw new InputError(`path nucleus: select is "${value}"; expected ${PATH_SELECTIONS.join(' or ')}`);
      settings = { ...settings, select };
    } else if (isNumberName(name)) {
      settings = { ...settings, [NUMBERS[name]]: value === '' ? Number.NaN : Number(value) };
    } else {
      const names = [...Object.keys(NUMBERS), 'select'];
      throw new InputError(`path nucleus: unknown "${name}"${didYouMean(name, names)}; known are ${names.join(', ')}`);
    }
  }
  checkPathNucleus(settings);
  return settings;
}

/** The path before anything was generated. */
export const EMPTY_PATH: TokenPath = { tokens: [], logProbability: 0, finished: false };

/** Candidates in parallel arrays: `token` is -1 where a finished path passes unchanged. */
interface Candidates {
  readonly parent: Int32Array;
  readonly token: Int32Array;
  readonly logProbability: Float64Array;
  /** L / length^a / temperature. */
  readonly score: Float64Array;
}

/**
 * One step of the rule. Weights are the softmax of the candidates' scores; candidates are ranked by score, ties by their
 * token sequence.
 * @param paths at most `settings.width`
 * @param logProbabilities ln p of every next token [vocabulary] for each unfinished path; finished ones are not looked at
 * @param ends whether a token finishes a path
 * @param uniform the i-th uniform of this step, for the i-th candidate of the joint nucleus; used by `sample` alone
 */
export function stepPaths(
  paths: readonly TokenPath[],
  logProbabilities: readonly (Float64Array | undefined)[],
  settings: PathNucleusSettings,
  ends: (token: number) => boolean,
  uniform: (i: number) => number,
): PathStep {
  const candidates = candidatesOf(paths, logProbabilities, settings);
  const { score, parent, token } = candidates;
  const order = Int32Array.from(score.keys());
  order.sort((a, b) => score[b] - score[a] || compareSequences(paths, candidates, a, b));
  const weights = softmax(score);
  let entropy = 0;
  for (const weight of weights) if (weight > 0) entropy -= weight * Math.log(weight);

  const { count, mass } = prefixOfMass(order, weights, settings.pathMass);
  const nucleus = order.subarray(0, count);
  const chosen =
    settings.select === 'topk'
      ? nucleus.subarray(0, settings.width)
      : gumbelTopK(nucleus, score, settings.width, uniform);
  return {
    paths: Array.from(chosen, (c) => {
      const before = paths[parent[c]];
      if (token[c] < 0) return { ...before, parent: parent[c] };
      return {
        tokens: [...before.tokens, token[c]],
        logProbability: candidates.logProbability[c],
        finished: ends(token[c]),
        parent: parent[c],
      };
    }),
    candidates: order.length,
    jointEntropyNats: entropy,
    effectivePaths: Math.exp(entropy),
    nucleusCandidates: count,
    nucleusMass: mass,
  };
}

/** Weights of paths among each other: the softmax of their scores. */
export function pathWeights(
  paths: readonly TokenPath[],
  settings: Pick<PathNucleusSettings, 'lengthPenalty' | 'temperature'>,
): Float64Array {
  return softmax(
    Float64Array.from(paths, ({ tokens, logProbability }) => scoreOf(logProbability, tokens.length, settings)),
  );
}

function scoreOf(
  logProbability: number,
  length: number,
  { lengthPenalty, temperature }: Pick<PathNucleusSettings, 'lengthPenalty' | 'temperature'>,
): number {
  return logProbability / Math.max(1, length) ** lengthPenalty / temperature;
}

function candidatesOf(
  paths: readonly TokenPath[],
  logProbabilities: readonly (Float64Array | undefined)[],
  settings: PathNucleusSettings,
): Candidates {
  const extensions = paths.map(({ finished }, p): Int32Array => {
    if (finished) return Int32Array.of(-1);
    const row = logProbabilities[p];
    if (row === undefined) throw new RangeError(`path ${p} has no distribution of its next token`);
    return tokenNucleus(row, settings.tokenMass);
  });
  const total = extensions.reduce((sum, { length }) => sum + length, 0);
  const candidates: Candidates = {
    parent: new Int32Array(total),
    token: new Int32Array(total),
    logProbability: new Float64Array(total),
    score: new Float64Array(total),
  };
  let next = 0;
  paths.forEach((path, p) => {
    for (const token of extensions[p]) {
      const logProbability = path.logProbability + (token < 0 ? 0 : (logProbabilities[p]?.[token] ?? Number.NaN));
      candidates.parent[next] = p;
      candidates.token[next] = token;
      candidates.logProbability[next] = logProbability;
      candidates.score[next++] = scoreOf(logProbability, path.tokens.length + (token < 0 ? 0 : 1), settings);
    }
  });
  return candidates;
}

/** How far below the largest log-probability the search for a nucleus begins and goes on, in nats. */
const BAND_NATS = 4;

/**
 * Tokens of the smallest prefix of the sorted distribution with the mass; those of probability 0 are never among them.
 * What lies above a threshold is such a prefix, so that only that much of a large vocabulary is sorted.
 */
function tokenNucleus(logProbabilities: Float64Array, mass: number): Int32Array {
  let largest = Number.NEGATIVE_INFINITY;
  let possible = 0;
  for (let i = 0; i < logProbabilities.length; i++) {
    const value = logProbabilities[i];
    if (Number.isNaN(value)) throw new RangeError(`token ${i} has the log-probability NaN`);
    if (value > largest) largest = value;
    if (value > Number.NEGATIVE_INFINITY) possible++;
  }
  const above = (threshold: number): Int32Array => {
    const found: number[] = [];
    for (let i = 0; i < logProbabilities.length; i++) if (logProbabilities[i] > threshold) found.push(i);
    return Int32Array.from(found);
  };
  if (mass >= 1) return above(Number.NEGATIVE_INFINITY);
  for (let band = BAND_NATS; ; band *= 2) {
    const order = above(largest - band);
    order.sort((a, b) => logProbabilities[b] - logProbabilities[a] || a - b);
    let sum = 0;
    let count = 0;
    while (count < order.length && sum < mass) sum += Math.exp(logProbabilities[order[count++]]);
    if (sum >= mass || order.length === possible) return order.subarray(0, count);
  }
}

function softmax(scores: Float64Array): Float64Array {
  let largest = Number.NEGATIVE_INFINITY;
  for (const score of scores) if (score > largest) largest = score;
  const weights = scores.map((score) => Math.exp(score - largest));
  let total = 0;
  for (const weight of weights) total += weight;
  return weights.map((weight) => weight / total);
}

function prefixOfMass(order: Int32Array, weights: Float64Array, mass: number): { count: number; mass: number } {
  let sum = 0;
  let count = 0;
  while (count < order.length && (mass >= 1 || sum < mass)) sum += weights[order[count++]];
  return { count, mass: sum };
}

/** The k candidates with the largest score plus Gumbel noise -ln(-ln U): k draws without replacement. */
function gumbelTopK(nucleus: Int32Array, score: Float64Array, k: number, uniform: (i: number) => number): Int32Array {
  const perturbed = Float64Array.from(nucleus, (c, i) => score[c] - Math.log(-Math.log(uniform(i))));
  const places = Int32Array.from(perturbed.keys());
  places.sort((a, b) => (perturbed[a] === perturbed[b] ? a - b : perturbed[b] - perturbed[a]));
  return places.subarray(0, k).map((place) => nucleus[place]);
}

/** Lexicographic order of the token sequences of two candidates; a prefix comes before what continues it. */
function compareSequences(paths: readonly TokenPath[], { parent, token }: Candidates, a: number, b: number): number {
  const first = paths[parent[a]].tokens;
  const second = paths[parent[b]].tokens;
  const lengthA = first.length + (token[a] < 0 ? 0 : 1);
  const lengthB = second.length + (token[b] < 0 ? 0 : 1);
  for (let i = 0; i < Math.min(lengthA, lengthB); i++) {
    const difference = (i < first.length ? first[i] : token[a]) - (i < second.length ? second[i] : token[b]);
    if (difference !== 0) return difference;
  }
  return lengthA - lengthB;
}
