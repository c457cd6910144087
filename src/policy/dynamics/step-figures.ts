import { InputError } from '../../errors.js';
import {
  type ClipBand,
  covarianceSummands,
  type PolicyTokens,
  RESPONSE_FIELD,
  RESPONSE_FIELDS,
  responseCovariances,
  responseFigures,
  sumsAbove,
} from '../../kernels/policy-tokens.js';
import { gatherPrefixes } from '../../kernels/rank-selection.js';
import {
  type SelectionPath,
  selectLargest,
  streamedQuantiles,
  topCount,
  type ValueStream,
} from '../../linalg/streamed-selection.js';
import { zeroAdvantageGroups } from '../advantages.js';
import { addTo, createCompensatedSum, totalOf } from '../compensated-sum.js';
import type { RolloutIndex, RolloutStep, TokenBlock } from '../rollouts/types.js';
import { groupAccuracies, groupCovariance } from './group-covariance.js';
import { createStepMemory, type HeldStep, type HeldWishes, type StepMemory } from './held-step.js';
import {
  clusteredMean,
  column,
  covarianceSums,
  type Estimate,
  fieldTotal,
  figureOf,
  meanOfKnown,
  type ResponseTable,
  responseMeans,
  tokenMean,
} from './response-totals.js';

const F = RESPONSE_FIELD;

/** Shares of the tokens of the largest covariances whose mean is reported (spec 1.2). */
export const TOP_FRACTIONS = [2e-4, 2e-3, 2e-2, 0.2, 0.5, 1] as const;
/** Probabilities of the quantiles of the entropies; 0.8 is the threshold of the top 20%. */
export const ENTROPY_QUANTILES = [0.05, 0.25, 0.5, 0.75, 0.8, 0.95, 0.99] as const;
/** Quadrants by sign of the advantage and of ln x + H, with the direction that entropy is predicted to move in. */
export const QUADRANTS = [
  { advantage: '+', tendency: '+', predicted: 'down' },
  { advantage: '+', tendency: '-', predicted: 'up' },
  { advantage: '-', tendency: '+', predicted: 'up' },
  { advantage: '-', tendency: '-', predicted: 'down' },
] as const;

export interface StepSettings {
  readonly clip: ClipBand;
  /** Token values that may be held in memory. */
  readonly exactLimit: number;
  /** Length from which a response counts as cut off; those as long as the longest of the dump when absent. */
  readonly lengthLimit: number;
  /** `TOP_FRACTIONS` when absent. */
  readonly topFractions?: readonly number[];
  readonly threads?: number;
  /** Where the tokens of the step are held, if there are few enough; used again by the next one. */
  readonly memory?: StepMemory;
}

/** Level and spread of the entropies of a step, nats. */
export interface EntropyFigures {
  /** Mean over tokens, and mean over responses of their means. */
  readonly token: Estimate;
  readonly sequence: Estimate;
  /** At `ENTROPY_QUANTILES`. */
  readonly quantiles: readonly number[];
  readonly path: SelectionPath;
}

/** Covariance of ln pi and advantage over tokens. */
export interface CovarianceFigures {
  readonly mean: Estimate;
  readonly fractionPositive: number;
  /** Mean over the top fractions, at `TOP_FRACTIONS`, and the least of their summands. */
  readonly top: readonly number[];
  readonly thresholds: readonly number[];
  readonly byAccuracy: readonly {
    readonly accuracy: number;
    readonly groups: number;
    readonly tokens: number;
    readonly mean: number;
  }[];
  readonly path: SelectionPath;
}

/** Tokens of a step by what their updates are predicted to do to entropy (spec 2). */
export interface QuadrantFigures {
  /** In the order of `QUADRANTS`; Omega sums are signed. */
  readonly tokens: readonly number[];
  readonly omega: readonly number[];
  /** Tokens of advantage 0 or ln x + H = 0. */
  readonly neutral: number;
  /** Tokens whose probability was held at an end of its range. */
  readonly held: number;
  /** -sum Omega / tokens: the predicted net change of entropy, to a factor of step size. */
  readonly net: Estimate;
}

/** How far the policy has moved from the one that sampled, and from the reference. */
export interface RatioFigures {
  readonly clipFraction: Estimate;
  readonly clippedHigh: number;
  readonly clippedLow: number;
  /** Mean of old - new log-probability, of its size, and of e^d - d - 1 (d = new - old): estimates of KL(old || new), nats. */
  readonly kl: Estimate;
  readonly absolute: Estimate;
  readonly klK3: Estimate;
  /** The same against the reference policy. */
  readonly reference?: { readonly kl: Estimate; readonly klK3: Estimate };
}

/** All that is known of one step. Entropies and log-probabilities in nats; what the dump cannot say is absent. */
export interface StepFigures {
  readonly step: number;
  readonly records: number;
  /** Responses of which no token counts. */
  readonly emptyRecords: number;
  readonly tokens: number;
  readonly groups: number;
  readonly entropy?: EntropyFigures;
  readonly entropyLower?: EntropyFigures;
  readonly entropyUpper?: EntropyFigures;
  readonly nll?: Estimate;
  /** Means over the tokens, at which covariances are centred. */
  readonly means?: { readonly logProb: number; readonly advantage: number };
  readonly covariance?: CovarianceFigures;
  /** Of whole responses inside groups. */
  readonly responseCovariance?: Estimate;
  readonly quadrants?: QuadrantFigures;
  readonly ratios?: RatioFigures;
  readonly zeroAdvantageFraction?: number;
  readonly reward?: Estimate;
  readonly passAt1?: Estimate;
  readonly length: Estimate;
  readonly longest: number;
  /** Share of responses at the length limit. */
  readonly cutFraction: number;
}

/** The values of a column that count, over the blocks of a step, held where there are few enough. */
export function columnStream(
  step: RolloutStep,
  of: (block: TokenBlock) => Float64Array | undefined,
  name: string,
): ValueStream {
  return {
    count: step.counted,
    each(take) {
      for (const block of step.blocks({ transient: true })) {
        const values = of(block);
        if (values === undefined) throw new RangeError(`a block lacks ${name}`);
        take(values, block.mask);
      }
    },
  };
}

/** Values without a mask that are already in memory, without NaN and -0. */
export function heldStream(values: Float64Array): ValueStream {
  return { count: values.length, held: values, each: (take) => take(values) };
}

/** Values of a step that count, while they are gathered block by block; undefined where they are too many to be held. */
interface Gathering {
  add(values: Float64Array, mask: Uint8Array): void;
  readonly values: Float64Array;
}

const NO_PREFIXES = new Float64Array(0);

function gathering(count: number, exactLimit: number): Gathering | undefined {
  if (count > exactLimit) return undefined;
  const values = new Float64Array(count);
  let at = 0;
  return {
    values,
    add(block, mask) {
      const next = gatherPrefixes(block, mask, NO_PREFIXES, 0, values, at);
      if (next < 0) throw new RangeError('a value that counts is not a number');
      at = next;
    },
  };
}

type EntropyColumn = 'entropy' | 'entropyLower' | 'entropyUpper';

/** What the first pass over the blocks of a step leaves. */
interface FirstPass {
  readonly responses: ResponseTable;
  /** By column; the tables of the bounds have their entropy fields alone. */
  readonly entropies: ReadonlyMap<EntropyColumn, { table: ResponseTable; held?: Float64Array }>;
  readonly columns: ReadonlySet<string>;
  /** Tokens that count, where they are few enough. */
  readonly held?: HeldStep;
}

const tableOf = (responses: number): ResponseTable => ({
  responses,
  figures: new Float64Array(responses * RESPONSE_FIELDS),
});

/** The columns of a block that the figures are of, advantages by response where they are so. */
function tokensOf(block: TokenBlock): PolicyTokens {
  const { logProb, oldLogProb, referenceLogProb, entropy, recordAdvantage, mask } = block;
  // Advantages by token are made when they are asked for.
  const advantage = recordAdvantage === undefined ? block.advantage : undefined;
  return { logProb, oldLogProb, referenceLogProb, entropy, advantage, responseAdvantage: recordAdvantage, mask };
}

function firstPass(step: RolloutStep, settings: StepSettings): FirstPass {
  const responses = step.records.length;
  const { clip, threads, exactLimit, memory = createStepMemory() } = settings;
  memory.release();
  const table = tableOf(responses);
  const bounds = new Map<EntropyColumn, { table: ResponseTable; gather?: Gathering }>();
  const columns = new Set<string>();
  const holds = step.counted <= exactLimit;
  let wishes: HeldWishes = { logProb: false, entropy: false, advantage: false, ids: undefined };
  let first = 0;
  let at = 0;
  for (const block of step.blocks({ transient: true })) {
    const { recordAdvantage, offsets, mask } = block;
    const tokens = tokensOf(block);
    const { logProb, oldLogProb, referenceLogProb, entropy, advantage } = tokens;
    const either = recordAdvantage ?? advantage;
    for (const [name, value] of Object.entries({ logProb, oldLogProb, referenceLogProb, entropy, advantage: either })) {
      if (value !== undefined) columns.add(name);
    }
    const own = (target: ResponseTable): Float64Array =>
      target.figures.subarray(first * RESPONSE_FIELDS, (first + offsets.length - 1) * RESPONSE_FIELDS);
    wishes = {
      logProb: logProb !== undefined && either !== undefined,
      entropy: entropy !== undefined,
      advantage: advantage !== undefined,
      ids: block.textIds ?? block.tokens,
    };
    const held = holds ? memory.room(step.counted, at, wishes) : undefined;
    at = responseFigures(tokens, offsets, clip, own(table), { held, threads });
    for (const name of ['entropyLower', 'entropyUpper'] as const) {
      const values = block[name];
      if (values === undefined) continue;
      const found = bounds.get(name) ?? { table: tableOf(responses), gather: gathering(step.counted, exactLimit) };
      bounds.set(name, found);
      found.gather?.add(values, mask);
      responseFigures({ entropy: values, mask }, offsets, clip, own(found.table), { threads });
    }
    first += offsets.length - 1;
  }
  const held = holds ? memory.hold(at, wishes) : undefined;
  const entropies = new Map<EntropyColumn, { table: ResponseTable; held?: Float64Array }>();
  if (columns.has('entropy')) entropies.set('entropy', { table, ...(held?.entropy && { held: held.entropy }) });
  for (const [name, { table: bound, gather }] of bounds) {
    entropies.set(name, { table: bound, ...(gather && { held: gather.values }) });
  }
  return { responses: table, entropies, columns, ...(held && { held }) };
}

/** @throws InputError where a value that counts is not a number */
function requireNumbers(table: ResponseTable, field: number, name: string): void {
  for (let r = 0; r < table.responses; r++) {
    if (Number.isNaN(figureOf(table, r, field))) throw new InputError(`${name}: a value that counts is not a number`);
  }
}

function entropyFigures(
  step: RolloutStep,
  pass: FirstPass,
  name: EntropyColumn,
  settings: StepSettings,
): EntropyFigures {
  const own = pass.entropies.get(name);
  if (own === undefined) throw new RangeError(`the step has no ${name}`);
  requireNumbers(own.table, F.entropy, name);
  const stream = own.held ? heldStream(own.held) : columnStream(step, (block) => block[name], name);
  const { values, path } = streamedQuantiles(stream, ENTROPY_QUANTILES, { ...settings, name });
  return {
    token: tokenMean(own.table, F.entropy),
    sequence: meanOfKnown(responseMeans(own.table, F.entropy)),
    quantiles: [...values],
    path,
  };
}

interface Summands {
  readonly stream: ValueStream;
  /** Tokens that count before each response, [responses + 1]. */
  readonly offsets: Int32Array;
  readonly positive: number;
  readonly held?: Float64Array;
}

/** Tokens that count before each response, [responses + 1]. */
function countedOffsets(responses: ResponseTable): Int32Array {
  const offsets = new Int32Array(responses.responses + 1);
  for (let r = 0; r < responses.responses; r++) offsets[r + 1] = offsets[r] + figureOf(responses, r, F.count);
  return offsets;
}

interface Means {
  readonly logProb: number;
  readonly advantage: number;
}

/** Summands of tokens that are held, in the place of their log-probabilities. */
function heldSummands(
  { logProb, advantage }: HeldStep,
  offsets: Int32Array,
  responseAdvantage: Float64Array,
  means: Means,
  threads: number | undefined,
): Summands {
  if (logProb === undefined) throw new RangeError('the step holds no log-probabilities');
  const positive =
    advantage === undefined
      ? responseCovariances(logProb, responseAdvantage, offsets, means, logProb, threads)
      : covarianceSummands(
          { logProb, advantage, mask: new Uint8Array(logProb.length).fill(1) },
          means,
          logProb,
          threads,
        );
  if (advantage !== undefined) for (let i = 0; i < logProb.length; i++) logProb[i] += 0;
  return { stream: heldStream(logProb), offsets, positive, held: logProb };
}

/** Summands of a step that is too large to be held, those that count only, made again on every pass. */
function streamedSummands(step: RolloutStep, offsets: Int32Array, means: Means, threads: number | undefined): Summands {
  let positive = 0;
  let scratch = new Float64Array(0);
  const eachBlock = (take: (summands: Float64Array, mask: Uint8Array) => void): void => {
    positive = 0;
    for (const { logProb, advantage, mask } of step.blocks({ transient: true })) {
      if (logProb === undefined || advantage === undefined) throw new RangeError('a block lacks a column');
      if (scratch.length < mask.length) scratch = new Float64Array(mask.length);
      const summands = scratch.subarray(0, mask.length);
      positive += covarianceSummands({ logProb, advantage, mask }, means, summands, threads);
      take(summands, mask);
    }
  };
  eachBlock(() => {});
  return { stream: { count: step.counted, each: eachBlock }, offsets, positive };
}

/** Sums of the summands above each threshold over a whole step, added response by response. */
function totalsAbove(
  step: RolloutStep,
  { held, offsets, stream }: Summands,
  thresholds: Float64Array,
  threads: number | undefined,
): Float64Array {
  const totals = Array.from(thresholds, createCompensatedSum);
  const addSums = (sums: Float64Array): void => {
    for (let i = 0; i < sums.length; i++) addTo(totals[i % thresholds.length], sums[i]);
  };
  if (held !== undefined) {
    addSums(sumsAbove(held, offsets, thresholds, threads));
    return Float64Array.from(totals, totalOf);
  }
  // Responses are added as they stand without their gaps, so that the bits are those of the way through memory.
  const blocks = step.blocks()[Symbol.iterator]();
  let first = 0;
  stream.each((values, mask) => {
    const block = blocks.next().value as TokenBlock;
    const last = first + block.records.length;
    const base = offsets[first];
    const dense = new Float64Array(offsets[last] - base);
    gatherPrefixes(values, mask, NO_PREFIXES, 0, dense, 0);
    const own = offsets.slice(first, last + 1).map((offset) => offset - base);
    addSums(sumsAbove(dense, own, thresholds, threads));
    first = last;
  });
  return Float64Array.from(totals, totalOf);
}

function byAccuracy(
  sums: Float64Array,
  counts: Float64Array,
  group: Int32Array,
  correct: Float64Array,
): CovarianceFigures['byAccuracy'] {
  const accuracy = new Map(groupAccuracies(group, correct).map((one) => [one.group, one.accuracy]));
  const buckets = new Map<
    number,
    { groups: Set<number>; tokens: number; sum: ReturnType<typeof createCompensatedSum> }
  >();
  for (let r = 0; r < sums.length; r++) {
    const key = accuracy.get(group[r]);
    if (key === undefined) continue;
    const bucket = buckets.get(key) ?? { groups: new Set(), tokens: 0, sum: createCompensatedSum() };
    buckets.set(key, bucket);
    bucket.groups.add(group[r]);
    bucket.tokens += counts[r];
    addTo(bucket.sum, sums[r]);
  }
  return [...buckets]
    .sort(([a], [b]) => a - b)
    .map(([key, { groups, tokens, sum }]) => ({
      accuracy: key,
      groups: groups.size,
      tokens,
      mean: totalOf(sum) / tokens,
    }));
}

function covarianceFigures(
  step: RolloutStep,
  { responses, held }: FirstPass,
  means: Means,
  facts: { group: Int32Array; correct?: Float64Array; advantage: Float64Array },
  settings: StepSettings,
): CovarianceFigures {
  const counts = column(responses, F.count);
  const n = step.counted;
  const sums = covarianceSums(responses, means.logProb, means.advantage);
  requireNumbers(responses, F.logProb, 'covariance');
  const offsets = countedOffsets(responses);
  const summands =
    held === undefined
      ? streamedSummands(step, offsets, means, settings.threads)
      : heldSummands(held, offsets, facts.advantage, means, settings.threads);
  const wanted = (settings.topFractions ?? TOP_FRACTIONS).map((fraction) => topCount(fraction, n));
  const largest = selectLargest(summands.stream, wanted, { ...settings, name: 'covariance' });
  const thresholds = Float64Array.from(largest, ({ threshold }) => threshold);
  const above = totalsAbove(step, summands, thresholds, settings.threads);
  const mean = clusteredMean(sums, counts);
  return {
    mean,
    fractionPositive: summands.positive / n,
    top: largest.map(({ k, ties, threshold }, i) => (k === n ? mean.mean : (above[i] + ties * threshold) / k)),
    thresholds: [...thresholds],
    byAccuracy: facts.correct ? byAccuracy(sums, counts, facts.group, facts.correct) : [],
    path: largest[0].path,
  };
}

function quadrantFigures(responses: ResponseTable, tokens: number): QuadrantFigures {
  const four = (first: number): number[] => [0, 1, 2, 3].map((q) => fieldTotal(responses, first + q));
  const counts = four(F.quadrantCounts);
  const changes = new Float64Array(responses.responses);
  for (let r = 0; r < changes.length; r++) {
    const omega = (q: number): number => figureOf(responses, r, F.quadrantOmegas + q);
    changes[r] = -(omega(0) + omega(1) + omega(2) + omega(3));
  }
  return {
    tokens: counts,
    omega: four(F.quadrantOmegas),
    neutral: tokens - counts.reduce((sum, count) => sum + count, 0),
    held: fieldTotal(responses, F.heldProbabilities),
    net: clusteredMean(changes, column(responses, F.count)),
  };
}

function ratioFigures(responses: ResponseTable, columns: ReadonlySet<string>, tokens: number): RatioFigures {
  const high = column(responses, F.clippedHigh);
  const low = column(responses, F.clippedLow);
  const negative = ({ mean, se }: Estimate): Estimate => ({ mean: 0 - mean, se });
  return {
    clipFraction: clusteredMean(
      high.map((count, r) => count + low[r]),
      column(responses, F.count),
    ),
    clippedHigh: fieldTotal(responses, F.clippedHigh) / tokens,
    clippedLow: fieldTotal(responses, F.clippedLow) / tokens,
    kl: negative(tokenMean(responses, F.logRatio)),
    absolute: tokenMean(responses, F.absoluteLogRatio),
    klK3: tokenMean(responses, F.oldDivergence),
    ...(columns.has('referenceLogProb') && {
      reference: {
        kl: tokenMean(responses, F.referenceLogRatio),
        klK3: tokenMean(responses, F.referenceDivergence),
      },
    }),
  };
}

/** A fact of the records of a step, in their order. */
function ofRecords(values: Float64Array | undefined, records: Int32Array): Float64Array | undefined {
  if (values === undefined) return undefined;
  const own = new Float64Array(records.length);
  for (let i = 0; i < own.length; i++) own[i] = values[records[i]];
  return own;
}

/** Advantages of whole responses: those of the records, else the means of their tokens. */
function responseAdvantages(index: RolloutIndex, step: RolloutStep, responses: ResponseTable): Float64Array {
  return ofRecords(index.advantage, step.records) ?? responseMeans(responses, F.advantage);
}

/**
 * All figures of one step, over its tokens that count, in two passes over its blocks and bounded memory (spec 0.5, 1.2, 1.3, 2).
 * Results depend neither on threads nor on how the step is cut into blocks.
 */
export function stepFigures(step: RolloutStep, index: RolloutIndex, settings: StepSettings): StepFigures {
  const pass = firstPass(step, settings);
  const { responses, columns } = pass;
  const counts = column(responses, F.count);
  const group = step.records.map((r) => index.group[r]);
  const correct = ofRecords(index.correct, step.records);
  const known = counts.filter((count) => count > 0);
  const base = {
    step: step.step,
    records: step.records.length,
    emptyRecords: counts.length - known.length,
    tokens: step.counted,
    groups: new Set(group).size,
    length: meanOfKnown(counts),
    longest: counts.reduce((most, count) => Math.max(most, count), 0),
    cutFraction: counts.filter((count) => count >= settings.lengthLimit).length / counts.length,
    ...(index.reward && {
      reward: meanOfKnown(ofRecords(index.reward, step.records) ?? []),
    }),
    ...(correct && { passAt1: meanOfKnown(groupAccuracies(group, correct).map(({ accuracy }) => accuracy)) }),
  };
  if (step.counted === 0) return base;
  const has = (...names: string[]): boolean => names.every((name) => columns.has(name));
  const advantage = has('advantage') ? responseAdvantages(index, step, responses) : undefined;
  const entropies: Partial<Record<EntropyColumn, EntropyFigures>> = {};
  for (const name of pass.entropies.keys()) entropies[name] = entropyFigures(step, pass, name, settings);
  const n = step.counted;
  const means = { logProb: fieldTotal(responses, F.logProb) / n, advantage: fieldTotal(responses, F.advantage) / n };
  const nll = ({ mean, se }: Estimate): Estimate => ({ mean: 0 - mean, se });
  return {
    ...base,
    ...entropies,
    ...(has('logProb') && { nll: nll(tokenMean(responses, F.logProb)) }),
    ...(has('logProb') &&
      advantage && {
        means,
        covariance: covarianceFigures(step, pass, means, { group, advantage, ...(correct && { correct }) }, settings),
      }),
    ...(has('logProb') &&
      advantage && {
        responseCovariance: groupCovariance({ group, logProb: responseMeans(responses, F.logProb), advantage }).step,
      }),
    ...(has('logProb', 'oldLogProb', 'advantage') &&
      entropies.entropy && { quadrants: quadrantFigures(responses, step.counted) }),
    ...(has('logProb', 'oldLogProb') && { ratios: ratioFigures(responses, columns, step.counted) }),
    ...(advantage && { zeroAdvantageFraction: zeroAdvantageGroups(advantage, group).fraction }),
  };
}
