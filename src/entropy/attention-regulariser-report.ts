import { quartileBins } from '../linalg/quartile-bins.js';
import type { FitBatch } from './attention-fit-job.js';
import { corpusLoss, corpusTemperatureGradient, createPenalties } from './attention-penalty.js';
import type { AttentionRun } from './attention-run.js';
import type { RegulariserSettings } from './attention-settings.js';
import { headFigures } from './attention-statistics.js';

export interface RegulariserReport {
  variant: 'code' | 'algorithm1';
  gamma: number;
  lambda: number;
  context_size: number;
  max_entropy_nats: number;
  tolerance_nats: number;
  /** With lambda. */
  loss: number;
  unscaled_loss: number;
  /** Left out of the loss. The released code hides them with a nansum. */
  nan_queries: number;
  by_head: {
    layer: number;
    head: number;
    threshold: number;
    wanted_nats: number;
    deviation_nats: number;
    penalised_queries: number;
    loss: number;
    threshold_gradient: number;
  }[];
}

export interface FitReport {
  temperature_per: 'position' | 'head';
  learnt_thresholds: boolean;
  /** Every layer ended before the limit of passes. */
  settled: boolean;
  /** With lambda. */
  loss_before: number;
  loss_after: number;
  mean_entropy_nats_before: number;
  mean_entropy_nats_after: number;
  /** Of heads by quarter of log(context). */
  absolute_shares_before: number[];
  absolute_shares_after: number[];
  by_layer: { layer: number; passes: number; settled: boolean }[];
  by_head: {
    layer: number;
    head: number;
    threshold: number;
    entropy_nats_before: number;
    entropy_nats_after: number;
    loss_before: number;
    loss_after: number;
    temperature_least: number;
    temperature_geometric_mean: number;
    temperature_greatest: number;
  }[];
}

function meansOf(run: Pick<AttentionRun, 'statistics'>, contextSize: number): Float64Array {
  return Float64Array.from(headFigures(run.statistics, contextSize), (head) => head.entropy_nats);
}

/** Loss of the regulariser over a run, and its gradient by the thresholds. */
export function regulariserReport(run: AttentionRun, settings: RegulariserSettings): RegulariserReport {
  const { heads, sums } = run.statistics;
  const penalties = run.penalties ?? createPenalties(sums.length);
  const means = meansOf(run, settings.contextSize);
  const { loss, unscaled, headLoss, thresholdGradient } = corpusLoss(penalties, means, settings);
  const maximum = Math.log(settings.contextSize);
  return {
    variant: settings.reduction,
    gamma: settings.gamma,
    lambda: settings.lambda,
    context_size: settings.contextSize,
    max_entropy_nats: maximum,
    tolerance_nats: settings.gamma * maximum,
    loss,
    unscaled_loss: unscaled,
    nan_queries: sums.reduce((sum, head) => sum + head.nanRows, 0),
    by_head: sums.map((_, i) => ({
      layer: Math.floor(i / heads),
      head: i % heads,
      threshold: settings.thresholds[i],
      wanted_nats: settings.thresholds[i] * maximum,
      deviation_nats: means[i] - settings.thresholds[i] * maximum,
      penalised_queries: penalties[i].rows,
      loss: headLoss[i],
      threshold_gradient: thresholdGradient[i],
    })),
  };
}

/** The settings behind a report, to unite shards. */
export function settingsOfReport(report: RegulariserReport): RegulariserSettings {
  return {
    reduction: report.variant,
    gamma: report.gamma,
    lambda: report.lambda,
    contextSize: report.context_size,
    thresholds: Float64Array.from(report.by_head, (head) => head.threshold),
  };
}

/** Gradients of the loss over a run: by thresholds `[layers, heads]`, by temperatures `[layers, heads, positions]`. */
export function regulariserGradients(
  run: AttentionRun,
  settings: RegulariserSettings,
): { readonly thresholds: Float64Array; readonly temperatures: Float64Array } {
  const means = meansOf(run, settings.contextSize);
  const counts = run.statistics.sums.map((head) => head.rows);
  const { thresholdGradient } = corpusLoss(run.penalties ?? createPenalties(means.length), means, settings);
  const sums = run.temperatureSums ?? new Float64Array(means.length);
  return {
    thresholds: thresholdGradient,
    temperatures: corpusTemperatureGradient(sums, means, counts, settings),
  };
}

/** What a fit of temperatures changed. */
export function fitReport(
  fit: FitBatch,
  settings: RegulariserSettings,
  contextTokens: number,
  how: { readonly perPosition: boolean; readonly learnt: boolean },
): FitReport {
  const { layers, heads } = fit.after;
  const size = layers * heads;
  const positions = fit.temperatures.length / size;
  const scale = settings.lambda / size;
  const before = meansOf(fit.before, contextTokens);
  const after = meansOf({ statistics: fit.after }, contextTokens);
  const total = (parts: Float64Array): number => scale * parts.reduce((sum, part) => sum + part, 0);
  const meanOf = (values: Float64Array): number => values.reduce((sum, value) => sum + value, 0) / values.length;
  const shares = (values: Float64Array): number[] => [...quartileBins(values, Math.log(contextTokens)).fractions];
  return {
    temperature_per: how.perPosition ? 'position' : 'head',
    learnt_thresholds: how.learnt,
    settled: !fit.settled.includes(0),
    loss_before: total(fit.lossBefore),
    loss_after: total(fit.lossAfter),
    mean_entropy_nats_before: meanOf(before),
    mean_entropy_nats_after: meanOf(after),
    absolute_shares_before: shares(before),
    absolute_shares_after: shares(after),
    by_layer: Array.from({ length: layers }, (_, layer) => ({
      layer,
      passes: fit.passes[layer],
      settled: fit.settled[layer] === 1,
    })),
    by_head: Array.from({ length: size }, (_, i) => {
      const own = fit.temperatures.subarray(i * positions, (i + 1) * positions);
      return {
        layer: Math.floor(i / heads),
        head: i % heads,
        threshold: fit.thresholds[i],
        entropy_nats_before: before[i],
        entropy_nats_after: after[i],
        loss_before: scale * fit.lossBefore[i],
        loss_after: scale * fit.lossAfter[i],
        temperature_least: own.reduce((least, t) => Math.min(least, t), Number.POSITIVE_INFINITY),
        temperature_geometric_mean: Math.exp(own.reduce((sum, t) => sum + Math.log(t), 0) / positions),
        temperature_greatest: own.reduce((most, t) => Math.max(most, t), 0),
      };
    }),
  };
}
