import type { Figure } from '../../report/plots/figure.js';
import { lineChart } from '../../report/plots/line-chart.js';
import type { Panel } from '../../report/plots/panel.js';
import { scatterChart } from '../../report/plots/scatter-chart.js';
import type { DifficultyResult } from './difficulty-job.js';
import { DIFFICULTIES } from './labels.js';

const CURVE_POINTS = 60;

function curvePanel({ curve }: DifficultyResult): Promise<Panel>[] {
  if (!curve) return [];
  const {
    levels,
    meanNats,
    standardErrorNats,
    quadratic: [a, b, c],
  } = curve.points;
  const [first, last] = [levels[0], levels[levels.length - 1]];
  const x = Float64Array.from({ length: CURVE_POINTS }, (_, i) => first + ((last - first) * i) / (CURVE_POINTS - 1));
  return [
    lineChart({
      title: 'Entropy by difficulty',
      note: `mean of the questions of a level with one standard error; parabola by least squares, ${curve.intervals.uShaped ? '' : 'not '}U-shaped`,
      xLabel: 'level of difficulty',
      yLabel: 'mean token entropy (nats)',
      series: [
        { name: 'questions', x: levels, y: meanNats, standardError: standardErrorNats },
        { name: 'parabola', x, y: x.map((at) => a * at * at + b * at + c), dashed: true },
      ],
      dots: false,
    }),
  ];
}

function classPanel({ questions, labels }: DifficultyResult): Promise<Panel> {
  return scatterChart({
    title: 'Questions',
    note: 'samples of one question each; colours are the proxy labels',
    xLabel: 'share of correct samples',
    yLabel: 'mean token entropy (nats)',
    series: DIFFICULTIES.map((name, c) => {
      const own = [...labels.keys()].filter((q) => labels[q] === c);
      return {
        name,
        x: own.map((q) => questions.accuracy[q]),
        y: own.map((q) => questions.entropyNats[q]),
        labels: own.map((q) => questions.ids[q]),
      };
    }),
  });
}

function paretoPanel({ routing }: DifficultyResult): Promise<Panel> {
  return scatterChart({
    title: 'Accuracy and tokens',
    note:
      routing.basis === 'measured'
        ? `${routing.questions} questions, samples under each strategy`
        : `${routing.questions} questions; budgets alone, on samples drawn without them`,
    xLabel: 'mean tokens of a response',
    yLabel: 'accuracy',
    series: routing.policies.map(({ name, meanTokens, accuracy }) => ({
      name,
      x: [meanTokens],
      y: [accuracy],
      labels: [name],
      radius: 5,
    })),
  });
}

/** The curve over difficulty, the questions, and what each way to pick a strategy costs. */
export async function difficultyFigure(result: DifficultyResult, subtitle: string): Promise<Figure> {
  const panels = await Promise.all([...curvePanel(result), classPanel(result), paretoPanel(result)]);
  const counts = DIFFICULTIES.map((_, c) => result.labels.reduce((sum, label) => sum + Number(label === c), 0));
  return {
    title: 'Difficulty and entropy',
    subtitle: `${subtitle}; ${DIFFICULTIES.map((name, c) => `${counts[c]} ${name}`).join(', ')}`,
    headline: result.probe
      ? [
          {
            label: 'accuracy of the probe',
            value: result.probe.score.accuracy,
            standardError: result.probe.score.accuracySe,
            unit: '',
          },
        ]
      : [],
    panels,
    sections: [],
  };
}
