import type { Figure, HeadlineFigure } from './figure.js';
import type { Histogram } from './histogram.js';
import { histogramChart } from './histogram.js';
import type { ReliabilityBin } from './reliability.js';
import { reliabilityChart } from './reliability.js';

/** What the figure of `analyze-entropy choices` is drawn from. */
export interface ChoicesFigureData {
  readonly title: string;
  readonly subtitle?: string;
  readonly headline: readonly HeadlineFigure[];
  /** Questions binned by the probability of the chosen answer: its mean and the share that was right. */
  readonly reliability: readonly ReliabilityBin[];
  /** Entropy over the choices as a share of its maximum, log(choices), of the questions answered rightly and wrongly. */
  readonly entropyWhenRight: Histogram;
  readonly entropyWhenWrong: Histogram;
  readonly meanEntropyWhenRight?: number;
  readonly meanEntropyWhenWrong?: number;
}

/** The figure of multiple-choice questions: reliability, and whether entropy tells right from wrong answers. */
export async function choicesFigure(data: ChoicesFigureData): Promise<Figure> {
  const panels = [
    await reliabilityChart({
      title: 'Calibration of the chosen answer',
      note: 'Share of right answers in each bin of confidence. Below the line the model is overconfident.',
      xLabel: 'mean probability of the chosen answer',
      yLabel: 'share answered rightly',
      items: 'questions',
      bins: data.reliability,
      probability: true,
    }),
    await histogramChart({
      title: 'Entropy over the choices',
      note: 'The further the two are apart, the better entropy warns of a wrong answer.',
      xLabel: 'entropy over the choices / log(choices)',
      unit: 'unit',
      items: 'questions',
      series: [
        { name: 'right', histogram: data.entropyWhenRight, mean: data.meanEntropyWhenRight },
        { name: 'wrong', histogram: data.entropyWhenWrong, mean: data.meanEntropyWhenWrong },
      ],
    }),
  ];
  return { title: data.title, subtitle: data.subtitle, headline: data.headline, panels, sections: [] };
}
