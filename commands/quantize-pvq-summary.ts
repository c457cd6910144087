import { SENSITIVITY_TOKENS } from '../src/quantization/divergence-sensitivity.js';
import { foresee } from '../src/quantization/foresee.js';
import type { QuantizeBody } from '../src/quantization/quantize-report.js';
import { type SummaryCell, summaryTable } from '../src/report/summary-table.js';
import type { ReportValue } from '../src/report/values.js';
import { parseInteger } from './edge-values.js';
import type { Calibration } from './quantize-calibration.js';
import type { QuantizeOptions, QuantizeShared, Subject } from './quantize-pvq-subject.js';

export function calibrationBody(calibration: Calibration | undefined): Pick<QuantizeBody, 'calibration'> {
  return {
    calibration: calibration
      ? {
          tokens: calibration.tokens,
          window_tokens: calibration.windowTokens,
          text_sha256: calibration.textSha256,
          unreached_inputs: calibration.unreached,
        }
      : null,
  };
}

/** Options that decide the bytes of the output. */
export function parametersOf(
  { spec, settings, rotation, patterns, format }: Subject,
  options: QuantizeShared,
  own: QuantizeOptions,
): Record<string, ReportValue> {
  const { rate, feedback, cap, seed: _, rotation: __, ...rest } = settings;
  return {
    model: spec,
    format,
    dtype: format === 'dequantized' ? (own.dtype ?? 'bf16') : null,
    bpw: rate.kind === 'bpw' ? rate.bitsPerWeight : null,
    pulses: rate.kind === 'code' ? rate.pulses : null,
    gain_bits: rate.kind === 'code' ? rate.gainBits : null,
    group_lengths: [...settings.groupLengths],
    super_group: settings.superGroup,
    rotation,
    levels: rest.levels,
    gain: rest.gain,
    search: rest.search,
    cap: cap?.positive ?? null,
    zero_groups: rest.zeroGroups,
    allocation: rest.allocation,
    sensitivity_tokens: rest.allocation === 'kl' ? sensitivityTokens(own) : null,
    error_feedback: feedback.errorFeedback,
    metric_search: feedback.metricSearch,
    row_refit: feedback.rowRefit,
    gain_refit: feedback.gainRefit,
    passes: feedback.passes,
    damping: feedback.damping,
    act_order: feedback.actOrder,
    tensors: [...patterns.tensors],
    keep: [...patterns.keep],
    data: [...options.data],
    data_format: options.dataFormat ?? null,
    text_split: options.textSplit,
    text_field: options.textField,
    limit: options.limit ?? null,
    calib_tokens: own.calibTokens === undefined ? null : Number(own.calibTokens),
    calib_length: own.calibLength === undefined ? null : Number(own.calibLength),
    hessians: own.hessians ?? null,
    imatrix: own.imatrix ?? null,
    context: options.context ?? null,
    precision: own.precision ?? 'f32',
    device: options.device,
    seed: options.seed,
  };
}

export function evaluationParameters(own: QuantizeOptions): Record<string, ReportValue> {
  return {
    eval_data: [...(own.evalData ?? [])],
    eval_tokens: own.evalTokens === undefined ? null : Number(own.evalTokens),
    choices: [...(own.choices ?? [])],
    activations: own.activations ?? null,
    convention: own.convention ?? null,
  };
}

/** Lines of `--dry-run`: what would be read and written, and the memory that it takes. */
export function planRows(
  { files, selection, settings, rotation, calibrated, format }: Subject,
  options: QuantizeShared,
  own: QuantizeOptions,
): SummaryCell[][] {
  const foreseen = foresee(files, selection, settings, calibrated);
  return [
    ['tensors to quantise', selection.selected.length],
    ['their weights', foreseen.weights],
    ['tensors kept', selection.kept.length],
    ['bytes read', foreseen.sourceBytes],
    ['format', format],
    ['rotation', rotation],
    ['bits per quantised weight, files', foreseen.bitsPerWeight],
    ['bytes of quantised tensors', foreseen.quantizedBytes],
    ['bytes of the whole model', foreseen.modelBytes],
    ['SQNR expected of white rows, dB', foreseen.expectedSqnrDb],
    [
      'allocation',
      foreseen.measured ? settings.allocation : `${settings.allocation} (measured first; plan by weights)`,
    ],
    ['calibration tokens', calibrated ? (own.calibTokens ?? 'all, at most 65536') : 'none'],
    ['largest tensor, weights', foreseen.largestTensor],
    ['peak memory of quantising in bytes, about', foreseen.peakBytes],
    ['memory limit in bytes', options.maxMemory],
  ];
}

export function summary(body: QuantizeBody, out: string): string {
  const { quantized, kept, whole_model: whole, evaluation } = body;
  const rows: SummaryCell[][] = [
    ['quantised', quantized.tensors, quantized.weights, quantized.bytes, quantized.bits_per_weight],
    ['kept', kept.tensors, kept.weights, kept.bytes, kept.bits_per_weight],
    ['whole model', whole.tensors, whole.weights, whole.bytes, whole.bits_per_weight],
  ];
  const figures: SummaryCell[][] = [
    ['SQNR, dB', body.sqnr_db],
    ['below the Shannon bound of its payload, dB', body.mean_below_shannon_db],
  ];
  if (body.hessian_loss_relative !== null) figures.push(['relative output error', body.hessian_loss_relative]);
  if (evaluation?.predictions) {
    const { predictions } = evaluation;
    figures.push(
      [`perplexity before (${evaluation.context_tokens} tokens of context)`, predictions.base_perplexity],
      ['perplexity after', predictions.perplexity],
      ['mean KL to the original, nats', predictions.mean_kl_nats],
      ['same most likely token', predictions.top1_agreement],
    );
  }
  if (evaluation?.choices) {
    figures.push(
      ['choices: accuracy before', evaluation.choices.before.accuracy],
      ['choices: accuracy after', evaluation.choices.after.accuracy],
    );
  }
  figures.push(['written to', out]);
  const warnings = body.warnings.map((warning) => `warning: ${warning}\n`).join('');
  return (
    summaryTable(['part', 'tensors', 'weights', 'bytes', 'bits/weight'], rows) +
    summaryTable(['figure', 'value'], figures) +
    warnings
  );
}

export function sensitivityTokens({ sensitivityTokens: text }: QuantizeOptions): number {
  return text === undefined ? SENSITIVITY_TOKENS : parseInteger('--sensitivity-tokens', text, 1);
}
