import { accuracyByTercile, BUCKETS, type Bucket, type CountBin } from '../../ares/difficulty.js';
import { forkPoints } from '../../ares/fork-points.js';
import { lengthTargets } from '../../ares/length-target.js';
import { meanOf } from '../../compensated-sum.js';
import type { RolloutStep, TokenBlock } from '../../rollouts/types.js';
import { aresRound } from '../ares.js';
import { type AresStep, type AresWindows, aresOptions, initialAres } from '../ares-step.js';
import { wholeSetting } from '../record-effects.js';
import type { InterventionContext } from '../types.js';
import { figure, RECORD_COLUMNS, recordCells } from './points.js';
import type { DetailChart, DetailJson, MethodDetails } from './types.js';

/** A response whose entropies are drawn with its windows shaded. */
interface Trace {
  readonly record: number;
  readonly positions: readonly number[];
  readonly entropy: readonly number[];
  /** Validated windows, and the stretches of positions that they cover. */
  readonly count: number;
  readonly windows: readonly (readonly [number, number])[];
  readonly threshold: number;
}

/** Ranges [from, to) that overlap or touch as one, with half a position on each side of their tokens. */
function joined(ranges: readonly (readonly [number, number])[]): (readonly [number, number])[] {
  const all: [number, number][] = [];
  for (const [from, to] of ranges) {
    const last = all.at(-1);
    if (last !== undefined && from - 0.5 <= last[1]) last[1] = Math.max(last[1], to - 0.5);
    else all.push([from - 0.5, to - 0.5]);
  }
  return all;
}

/** Longer responses are not drawn token by token. */
const LONGEST_TRACE = 400;

/** A few numbers a response, of the whole dump. */
interface Collected {
  readonly bucket: Bucket[];
  readonly valid: number[];
  readonly correct: number[];
  readonly length: number[];
  readonly passRate: number[];
}

function windowText(
  block: TokenBlock,
  context: InterventionContext,
  from: number,
  positions: Int32Array,
): string | undefined {
  const { textIds } = block;
  const { textOf } = context;
  if (textIds === undefined || textOf === undefined) return undefined;
  return Array.from(positions, (t) => textOf(textIds[from + t])).join('');
}

function bucketRows(step: RolloutStep, result: AresStep, length: Int32Array) {
  return BUCKETS.map((bucket) => {
    const own = Array.from(step.records.keys()).filter((r) => result.groupBucket[result.groups.group[r]] === bucket);
    const mean = (of: (r: number) => number): number => meanOf(own.map(of));
    return {
      bucket,
      prompts: result.groupBucket.filter((one) => one === bucket).length,
      responses: own.length,
      accuracy: mean((r) => result.correct[r]),
      length: mean((r) => length[step.records[r]]),
      valid: mean((r) => result.valid[r]),
      invalid: mean((r) => result.invalid[r]),
      target: result.buckets.target[bucket],
      alpha: result.alpha[bucket],
      lambda: result.lambda[bucket],
      beta: result.state.kl[bucket].beta,
      reward: mean((r) => result.reward[r]),
    };
  });
}

function tercilesOf(seen: Collected): { bucket: Bucket; bins: CountBin[] }[] {
  return BUCKETS.map((bucket) => {
    const own = Array.from(seen.bucket.keys()).filter((i) => seen.bucket[i] === bucket);
    const counts = Float64Array.from(own, (i) => seen.valid[i]);
    return {
      bucket,
      bins: accuracyByTercile(
        counts,
        Float64Array.from(own, (i) => seen.correct[i]),
      ),
    };
  });
}

function chartsOf(terciles: ReturnType<typeof tercilesOf>, trace: Trace | undefined, place: string): DetailChart[] {
  const accuracy: DetailChart = {
    kind: 'lines',
    chart: {
      title: 'Accuracy by number of high-entropy windows',
      note: 'Three bins of the counts in each bucket of difficulty, drawn at their middles.',
      xLabel: 'high-entropy windows of a response',
      yLabel: 'accuracy',
      width: 964,
      yLow: 0,
      yHigh: 1,
      series: terciles
        .filter(({ bins }) => bins.some((bin) => bin.records > 0))
        .map(({ bucket, bins }) => ({
          name: bucket,
          x: bins.map((bin) => (bin.low + bin.high) / 2),
          y: bins.map((bin) => bin.accuracy),
        })),
    },
  };
  if (trace === undefined) return [accuracy];
  return [
    accuracy,
    {
      kind: 'lines',
      chart: {
        title: 'Entropy of one response and its windows',
        note: `${place}; ${trace.count} validated windows are shaded.`,
        xLabel: 'position',
        yLabel: 'entropy, nats',
        yZero: true,
        dots: false,
        width: 964,
        series: [{ name: 'entropy', x: trace.positions, y: trace.entropy }],
        references: [{ value: trace.threshold, label: 'threshold of a window' }],
        shaded: { label: 'validated windows', ranges: trace.windows },
      },
    },
  ];
}

/** Rows of the cold start, or why there are none. */
function coldStart(seen: Collected, perBin: number) {
  if (perBin === 0) return undefined;
  const passRate = Float64Array.from(seen.passRate);
  if (!passRate.includes(0) || !passRate.includes(1)) return undefined;
  return lengthTargets({ passRate, length: seen.length, perBin });
}

/** ARES by response, bucket and window: counts, rewards, terciles, fork points, length targets. */
export const aresDetails: MethodDetails = {
  tables: [
    {
      name: 'records',
      title: 'windows, bucket and reward of every response',
      form: 'csv',
      columns: [
        ...RECORD_COLUMNS,
        'bucket',
        'correct',
        'group_accuracy',
        'length',
        'n_hwe_valid',
        'n_hwe_invalid',
        'soft_cost_nats',
        'own_threshold_nats',
        'threshold_nats',
        'target',
        'entropy_score',
        'reward',
      ],
    },
    {
      name: 'buckets',
      title: 'accuracy, length, counts and weights by step and bucket',
      form: 'csv',
      columns: [
        'step',
        'bucket',
        'prompts',
        'responses',
        'accuracy',
        'length_mean',
        'n_hwe_valid_mean',
        'n_hwe_invalid_mean',
        'target',
        'alpha',
        'lambda',
        'kl_beta',
        'reward_mean',
      ],
    },
    {
      name: 'terciles',
      title: 'accuracy in three bins of the counts of a bucket',
      form: 'csv',
      columns: ['bucket', 'bin', 'n_hwe_from', 'n_hwe_to', 'responses', 'accuracy'],
    },
    {
      name: 'forks',
      title: 'where another continuation would be forked',
      form: 'csv',
      columns: [...RECORD_COLUMNS, 'position', 'window_mean_nats', 'text'],
    },
    {
      name: 'lengths',
      title: 'length targets of a cold start by pass rate',
      form: 'csv',
      columns: [...RECORD_COLUMNS, 'pass_rate', 'pass_rate_eighth', 'length', 'target_length', 'kept'],
    },
  ],
  run(rollouts, settings, context, sink) {
    const { index } = context;
    const budget = wholeSetting(settings, 'fork-budget', 'ares');
    const seen: Collected = { bucket: [], valid: [], correct: [], length: [], passRate: [] };
    const records: number[] = [];
    const thresholds: { step: number; threshold_nats: number | null }[] = [];
    const warnings = new Set<string>();
    let trace: Trace | undefined;
    let forks = 0;
    const { variant, window } = aresOptions(settings);
    let state = initialAres();
    const showRecord = (
      record: number,
      windows: AresWindows,
      block: TokenBlock,
      from: number,
      threshold: number,
    ): void => {
      const { positions, means, entropy, openings } = windows;
      const points =
        variant === 'paper'
          ? forkPoints(means, threshold, window, budget)
          : Array.from(openings.subarray(0, budget), (t) => ({ position: t, mean: means[t + 1] }));
      for (const { position, mean } of points) {
        forks++;
        const shown = positions.subarray(position, position + window + (variant === 'paper' ? 0 : 1));
        const text = windowText(block, context, from, shown);
        sink.row('forks', [...recordCells(rollouts, record), positions[position], mean, text]);
      }
      if (positions.length > LONGEST_TRACE || windows.windows.length <= (trace?.count ?? 0)) return;
      trace = {
        record,
        positions: [...positions],
        entropy: [...entropy],
        count: windows.windows.length,
        windows: joined(windows.windows),
        threshold,
      };
    };
    for (const step of rollouts.steps) {
      const { result, next } = aresRound(step, settings, context, state, showRecord);
      state = next;
      for (const warning of result.warnings) warnings.add(warning);
      thresholds.push({ step: step.step, threshold_nats: figure(result.threshold) });
      for (const row of bucketRows(step, result, index.counted)) {
        sink.row('buckets', [
          step.step,
          row.bucket,
          row.prompts,
          row.responses,
          row.accuracy,
          row.length,
          row.valid,
          row.invalid,
          row.target,
          row.alpha,
          row.lambda,
          row.beta,
          row.reward,
        ]);
      }
      step.records.forEach((record, r) => {
        const group = result.groups.group[r];
        const bucket = result.groupBucket[group];
        records.push(record);
        seen.bucket.push(bucket);
        seen.valid.push(result.valid[r]);
        seen.correct.push(result.correct[r]);
        seen.length.push(index.counted[record]);
        seen.passRate.push(result.groupAccuracy[group]);
        sink.row('records', [
          ...recordCells(rollouts, record),
          bucket,
          result.correct[r],
          result.groupAccuracy[group],
          index.counted[record],
          result.valid[r],
          result.invalid[r],
          result.softCost[r],
          result.ownThreshold[r],
          result.threshold,
          result.buckets.target[bucket],
          result.score[r],
          result.reward[r],
        ]);
      });
    }
    const terciles = tercilesOf(seen);
    for (const { bucket, bins } of terciles)
      bins.forEach((bin, b) => {
        sink.row('terciles', [bucket, b + 1, bin.low, bin.high, bin.records, bin.accuracy]);
      });
    const targets = coldStart(seen, wholeSetting(settings, 'cold-start', 'ares'));
    if (targets) {
      records.forEach((record, i) => {
        const cells = [seen.passRate[i], targets.bin[i], seen.length[i], targets.target[i], targets.kept[i]];
        sink.row('lengths', [...recordCells(rollouts, record), ...cells]);
      });
    }
    const bucketReport = terciles.map(({ bucket, bins }): DetailJson => {
      const own = Array.from(seen.bucket.keys()).filter((i) => seen.bucket[i] === bucket);
      const of = (values: readonly number[]) => figure(meanOf(own.map((i) => values[i])));
      return {
        bucket,
        responses: own.length,
        accuracy: of(seen.correct),
        length_mean: of(seen.length),
        hwe_mean: of(seen.valid),
        terciles: bins.map((bin) => ({
          from: bin.low,
          to: bin.high,
          responses: bin.records,
          accuracy: figure(bin.accuracy),
        })),
      };
    });
    return {
      report: {
        variant: String(settings.variant),
        window: wholeSetting(settings, 'window', 'ares'),
        responses: records.length,
        thresholds,
        hwe_mean: figure(meanOf(seen.valid)),
        fork_points: forks,
        buckets: bucketReport,
        length_target:
          targets === undefined
            ? null
            : {
                at_pass_rate_0: targets.longest,
                at_pass_rate_1: targets.shortest,
                responses_kept: targets.kept.reduce((sum, one) => sum + one, 0),
              },
      },
      charts: chartsOf(terciles, trace, trace === undefined ? '' : rollouts.place(trace.record)),
      warnings: [
        ...warnings,
        ...(targets === undefined && settings['cold-start'] !== 0
          ? ['no length targets, which need prompts with pass rate 0 and with 1']
          : []),
      ],
    };
  },
};
