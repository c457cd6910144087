import { InputError } from '../../errors.js';
import {
  BUCKETS,
  type Bucket,
  type BucketUpdate,
  bucketOf,
  INITIAL_BUCKETS,
  isBucket,
  type PerBucket,
  perBucket,
  updateBuckets,
} from '../ares/difficulty.js';
import { initialKl } from '../ares/kl-controller.js';
import { entropyScore, paperReward } from '../ares/reward.js';
import { batchThreshold, trackedThreshold } from '../ares/threshold.js';
import { TRIGGER_WORDS } from '../ares/trigger-words.js';
import { normalisedToken, triggerCounts } from '../ares/triggers.js';
import { countAbove, percentile, responseThreshold, windowMeans, windowRegions } from '../ares/window-entropy.js';
import type { RolloutStep, TokenBlock } from '../rollouts/types.js';
import { topKEntropyBounds } from '../topk-bounds.js';
import type { AresState } from './carried-state.js';
import {
  countedPositions,
  countedValues,
  eachRecord,
  entropiesOf,
  placesOf,
  type StepGroups,
  stepCorrect,
  stepGroups,
  wholeSetting,
} from './record-effects.js';
import { choiceSetting, numberSetting } from './settings.js';
import { createLearnedTexts, type LearnedTexts } from './token-texts.js';
import type { InterventionContext, InterventionSettings } from './types.js';

export type AresVariant = 'paper' | 'code';

/** Settings of ARES as they are used. */
export interface AresOptions {
  readonly variant: AresVariant;
  readonly window: number;
  readonly percent: number;
  /** Fixed threshold in nats; absent: from the step. */
  readonly threshold?: number;
  readonly thresholdEma: number;
  readonly statistic: 'median' | 'mean';
  readonly entropy: string;
  readonly trigger: 'top' | 'sampled';
  readonly buckets: 'accuracy' | 'dump';
  readonly targetEma: number;
}

export function aresOptions(settings: InterventionSettings): AresOptions {
  const fixed = numberSetting(settings, 'threshold');
  return {
    variant: choiceSetting(settings, 'variant') === 'paper' ? 'paper' : 'code',
    window: wholeSetting(settings, 'window', 'ares'),
    percent: numberSetting(settings, 'percentile'),
    ...(fixed > 0 && { threshold: fixed }),
    thresholdEma: numberSetting(settings, 'threshold-ema'),
    statistic: choiceSetting(settings, 'threshold-statistic') === 'mean' ? 'mean' : 'median',
    entropy: choiceSetting(settings, 'entropy'),
    trigger: choiceSetting(settings, 'trigger-token') === 'sampled' ? 'sampled' : 'top',
    buckets: choiceSetting(settings, 'buckets') === 'dump' ? 'dump' : 'accuracy',
    targetEma: numberSetting(settings, 'target-ema'),
  };
}

export function initialAres(): AresState {
  return { buckets: INITIAL_BUCKETS, kl: perBucket(() => initialKl()), klCalls: 0 };
}

/** The entropies of the tokens of a record that count, in the two forms that the method reads. */
interface RecordEntropies {
  readonly positions: Int32Array;
  /** Of windows and counts: with the tail. */
  readonly entropy: Float64Array;
  /** Of the threshold: the published code takes the sum over the top k without the tail. */
  readonly forThreshold: Float64Array;
}

/** What ARES sees in a response. */
export interface AresWindows {
  readonly positions: Int32Array;
  readonly entropy: Float64Array;
  /** Window means from every counted token on. */
  readonly means: Float64Array;
  readonly valid: number;
  readonly invalid: number;
  readonly softCost: number;
  /** Validated windows [from, to) as positions of the response. */
  readonly windows: readonly (readonly [from: number, to: number])[];
  /** Counted tokens (numbers among `positions`) at which validated windows open: triggers, or starts of regions. */
  readonly openings: Int32Array;
}

/** Reads records of blocks; made once a step. */
export interface AresReader {
  threshold(block: TokenBlock, from: number, to: number): number;
  windows(block: TokenBlock, from: number, to: number, threshold: number): AresWindows;
  learn(block: TokenBlock): void;
  /** Likeliest tokens without a known text: they are no triggers. */
  unknownTexts(): number;
}

function needTop(block: TokenBlock, why: string) {
  const { topTokens } = block;
  if (topTokens !== undefined) return topTokens;
  throw new InputError(`ares needs the likeliest tokens ${why}: --map topk=COLUMN, or --model re-scores the dump`);
}

/** Which entropies are read when nothing says so: those of the published code where the dump has the likeliest tokens. */
function entropySource(block: TokenBlock, { entropy, variant }: AresOptions): string {
  if (entropy !== 'auto') return entropy;
  if (variant === 'code' && block.topTokens !== undefined) return 'topk';
  return block.entropy === undefined && block.entropyLower !== undefined ? 'lower' : 'full';
}

function recordEntropies(block: TokenBlock, from: number, to: number, options: AresOptions): RecordEntropies {
  const positions = countedPositions(block.mask, from, to);
  const source = entropySource(block, options);
  if (source !== 'topk') {
    const entropy = countedValues(entropiesOf(block, source, 'ares'), from, positions);
    return { positions, entropy, forThreshold: entropy };
  }
  const { k, logProbs } = needTop(block, 'for its entropies (or the setting entropy=full)');
  const rows = new Float64Array(positions.length * k);
  for (let j = 0; j < positions.length; j++) {
    const at = (from + positions[j]) * k;
    rows.set(logProbs.subarray(at, at + k), j * k);
  }
  const bounds = topKEntropyBounds(rows, positions.length, k);
  return { positions, entropy: bounds.lowerLump, forThreshold: bounds.truncatedSum };
}

function triggerTest(
  block: TokenBlock,
  { trigger }: AresOptions,
  context: InterventionContext,
  texts: LearnedTexts,
  words: ReadonlySet<string>,
  known: Map<number, boolean>,
  unknown: () => void,
): (index: number) => boolean {
  const test = (id: number, textOf: (id: number) => string | undefined): boolean => {
    const before = known.get(id);
    if (before !== undefined) return before;
    const text = textOf(id);
    if (text === undefined) {
      unknown();
      return false;
    }
    const found = words.has(normalisedToken(text));
    known.set(id, found);
    return found;
  };
  if (trigger === 'top') {
    const top = needTop(block, 'as triggers (or the setting trigger-token=sampled)');
    return (i) => test(top.ids[i * top.k], texts.of);
  }
  const { textIds } = block;
  const { textOf } = context;
  if (textIds === undefined || textOf === undefined)
    throw new InputError('ares needs the texts of tokens: --map token_text=COLUMN, or --model for its tokenizer');
  return (i) => test(textIds[i], textOf);
}

export function createAresReader(options: AresOptions, context: InterventionContext): AresReader {
  const words = new Set(context.triggerWords ?? TRIGGER_WORDS);
  const texts = createLearnedTexts(context);
  const known = new Map<number, boolean>();
  let missing = 0;
  const { variant, window, percent } = options;
  return {
    learn: texts.learn,
    unknownTexts: () => missing,
    threshold(block, from, to) {
      const { forThreshold } = recordEntropies(block, from, to, options);
      return variant === 'code' ? responseThreshold(forThreshold, window, percent) : percentile(forThreshold, percent);
    },
    windows(block, from, to, threshold) {
      const { positions, entropy } = recordEntropies(block, from, to, options);
      const means = windowMeans(entropy, window);
      const place = (t: number): number => positions[t];
      if (variant === 'paper') {
        const regions = windowRegions(means, threshold);
        return {
          positions,
          entropy,
          means,
          valid: countAbove(means, threshold),
          invalid: 0,
          softCost: regions.length === 0 ? 0 : means.reduce((sum, mean) => sum + Math.max(0, mean - threshold), 0),
          windows: regions.map((one) => [place(one.from), place(one.to + window - 1) + 1] as const),
          openings: Int32Array.from(regions, (one) => one.from),
        };
      }
      const isTrigger = triggerTest(block, options, context, texts, words, known, () => {
        missing++;
      });
      const counts = triggerCounts(entropy, (t) => isTrigger(from + positions[t]), window, threshold);
      return {
        positions,
        entropy,
        means,
        valid: counts.valid,
        invalid: counts.invalid,
        softCost: counts.softCost,
        windows: Array.from(counts.positions, (t) => [place(t + 1), place(t + window) + 1] as const),
        openings: counts.positions,
      };
    },
  };
}

/** ARES on a whole step: entries in the order of its records. */
export interface AresStep {
  readonly threshold: number;
  /** Threshold of every response by itself. */
  readonly ownThreshold: Float64Array;
  readonly valid: Float64Array;
  readonly invalid: Float64Array;
  readonly softCost: Float64Array;
  readonly correct: Uint8Array;
  readonly groups: StepGroups;
  /** [groups]. */
  readonly groupAccuracy: Float64Array;
  readonly groupBucket: readonly Bucket[];
  readonly buckets: BucketUpdate;
  /** Weights with which the step was scored. */
  readonly alpha: PerBucket<number>;
  /** Dual weights of the paper; 0 under the code variant. */
  readonly lambda: PerBucket<number>;
  /** What is added to the accuracy. */
  readonly score: Float64Array;
  readonly reward: Float64Array;
  readonly reader: AresReader;
  readonly options: AresOptions;
  readonly state: AresState;
  readonly warnings: readonly string[];
}

function dumpBucket(word: string | undefined, prompt: string): Bucket {
  const lower = word?.trim().toLowerCase();
  if (isBucket(lower)) return lower;
  throw new InputError(
    `ares: the difficulty of prompt ${prompt} is ${word === undefined ? 'not given' : `"${word}"`}; with buckets=dump it is ${BUCKETS.join(', ')} ` +
      '(--map difficulty=COLUMN)',
  );
}

/** Means over the members of every group, [groups]. */
function groupMeans(values: ArrayLike<number>, { group, groups }: StepGroups): Float64Array {
  const sum = new Float64Array(groups);
  const members = new Int32Array(groups);
  for (let r = 0; r < group.length; r++) {
    sum[group[r]] += values[r];
    members[group[r]]++;
  }
  return sum.map((total, g) => total / members[g]);
}

function scoresOf(
  step: Omit<AresStep, 'score' | 'reward' | 'lambda' | 'reader' | 'options' | 'state' | 'warnings'>,
  variant: AresVariant,
): { score: Float64Array; reward: Float64Array; lambda: PerBucket<number> } {
  const { valid, correct, groups, groupBucket, buckets, alpha } = step;
  const bucket = Array.from(groups.group, (g) => groupBucket[g]);
  const accuracy = Float64Array.from(correct);
  if (variant === 'paper') {
    const { lambda, reward } = paperReward({ bucket, count: valid, accuracy, target: buckets.target });
    return { lambda, reward, score: reward.map((value, r) => value - accuracy[r]) };
  }
  const score = valid.map((count, r) => {
    const target = buckets.target[bucket[r]];
    if (target === undefined) return 0;
    return entropyScore({ bucket: bucket[r], correct: correct[r] === 1, count, target, alpha: alpha[bucket[r]] });
  });
  return { score, reward: score.map((value, r) => accuracy[r] + value), lambda: perBucket(() => 0) };
}

/**
 * Thresholds, counts, buckets and rewards of a step, in two passes over its tokens.
 * @param use is shown the windows of every record
 */
export function aresStep(
  step: RolloutStep,
  settings: InterventionSettings,
  context: InterventionContext,
  state: AresState,
  use?: (record: number, windows: AresWindows, block: TokenBlock, from: number, threshold: number) => void,
): AresStep {
  const { index } = context;
  const options = aresOptions(settings);
  const reader = createAresReader(options, context);
  const correct = stepCorrect(step, index, 'ares');
  const groups = stepGroups(step, index);
  const places = placesOf(step);
  const n = step.records.length;
  const ownThreshold = new Float64Array(n);
  for (const block of step.blocks()) {
    reader.learn(block);
    eachRecord(block, (record, from, to) => {
      ownThreshold[places.get(record) ?? 0] = reader.threshold(block, from, to);
    });
  }
  const statistic = options.variant === 'paper' ? 'mean' : options.statistic;
  const own = batchThreshold(ownThreshold, statistic);
  const threshold =
    options.threshold ??
    (options.variant === 'paper' ? own : trackedThreshold(state.threshold, own, options.thresholdEma));
  const [valid, invalid, softCost] = [new Float64Array(n), new Float64Array(n), new Float64Array(n)];
  for (const block of step.blocks()) {
    eachRecord(block, (record, from, to) => {
      const windows = reader.windows(block, from, to, threshold);
      const place = places.get(record) ?? 0;
      valid[place] = windows.valid;
      invalid[place] = windows.invalid;
      softCost[place] = windows.softCost;
      use?.(record, windows, block, from, threshold);
    });
  }
  const groupAccuracy = groupMeans(correct, groups);
  const first = new Int32Array(groups.groups).fill(-1);
  for (let r = 0; r < n; r++) if (first[groups.group[r]] < 0) first[groups.group[r]] = step.records[r];
  const groupBucket = Array.from(groupAccuracy, (accuracy, g) =>
    options.buckets === 'accuracy'
      ? bucketOf(accuracy)
      : dumpBucket(index.difficulty?.[first[g]], index.promptIds[groups.numbers[g]]),
  );
  const buckets = updateBuckets(state.buckets, groupBucket, groupMeans(valid, groups), options.targetEma);
  const { alpha } = state.buckets;
  const base = { threshold, ownThreshold, valid, invalid, softCost, correct, groups, groupAccuracy, groupBucket };
  const all = { ...base, buckets, alpha };
  const warnings: string[] = [];
  if (reader.unknownTexts() > 0)
    warnings.push('likeliest tokens without a known text are no triggers; --model gives a tokenizer');
  return {
    ...all,
    ...scoresOf(all, options.variant),
    reader,
    options,
    state: { ...state, threshold, buckets: buckets.state },
    warnings,
  };
}
