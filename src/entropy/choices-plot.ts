import { choicesFigure } from '../report/plots/choices-figure.js';
import { type HeadlineFigure, plotBytes } from '../report/plots/figure.js';
import type { Histogram } from '../report/plots/histogram.js';
import type { ChoicesBody } from './choices-report.js';

/** Bytes of the figure of multiple-choice questions. */
export async function choicesPlot(body: ChoicesBody, subtitle: string, target: string): Promise<Uint8Array> {
  const { bins, right, wrong } = body.entropy_histograms;
  const histogram = (counts: readonly number[]): Histogram => ({
    edges: Array.from({ length: bins + 1 }, (_, i) => i / bins),
    counts,
  });
  const interval = (name: 'acc_norm' | 'mean_choice_entropy_nats'): Partial<HeadlineFigure> => {
    const found = body.intervals?.[name];
    return found ? { interval: [found.low, found.high], intervalName: '95 % bootstrap over questions' } : {};
  };
  const figure = await choicesFigure({
    title: 'Multiple choice: right, wrong, and how sure',
    subtitle,
    headline: [
      { label: 'Questions', value: body.questions },
      {
        label: 'Accuracy',
        value: body.acc,
        standardError: body.acc_stderr,
        interval: [body.acc_interval.low, body.acc_interval.high],
        intervalName: '95 % bootstrap over questions',
      },
      {
        label: 'Accuracy by length',
        value: body.acc_norm,
        standardError: body.acc_norm_stderr,
        ...interval('acc_norm'),
      },
      { label: 'Calibration error', value: body.expected_calibration_error },
      {
        label: 'Entropy over the choices',
        value: body.mean_choice_entropy_nats,
        unit: 'nats',
        standardError: body.mean_choice_entropy_nats_se,
        ...interval('mean_choice_entropy_nats'),
      },
      ...(Number.isNaN(body.entropy_auroc) ? [] : [{ label: 'AUROC of entropy', value: body.entropy_auroc }]),
    ],
    reliability: body.calibration_bins.map((bin) => ({
      predicted: bin.mean_confidence,
      observed: bin.accuracy,
      standardError: Math.sqrt((bin.accuracy * (1 - bin.accuracy)) / Math.max(1, bin.questions - 1)),
      count: bin.questions,
    })),
    entropyWhenRight: histogram(right),
    entropyWhenWrong: histogram(wrong),
    meanEntropyWhenRight: body.mean_normalized_entropy_when_right,
    meanEntropyWhenWrong: body.mean_normalized_entropy_when_wrong,
  });
  return plotBytes(figure, target);
}
