import type { Figure, HeadlineFigure } from './figure.js';
import type { LineChart } from './line-chart.js';
import { lineChart } from './line-chart.js';
import type { Panel } from './panel.js';

/** A curve over depth: one value for each entry of `layers`, with standard errors where they are known. */
export interface DepthCurve {
  readonly values: ArrayLike<number>;
  readonly standardError?: ArrayLike<number>;
}

/** What the figure of `analyze-entropy layers` is drawn from. Curves that were not measured are left out. */
export interface LayersFigureData {
  readonly title: string;
  readonly subtitle?: string;
  readonly headline: readonly HeadlineFigure[];
  /** Depth of each entry: 0 is the embedding, k the output of the k-th layer. */
  readonly layers: ArrayLike<number>;
  readonly residualNorm?: DepthCurve;
  readonly logitLensEntropyNats?: DepthCurve;
  readonly klToFinalNats?: DepthCurve;
  readonly effectiveRank?: DepthCurve;
  /** Entropy of the model's own output, for comparison with the logit lens. */
  readonly finalEntropyNats?: number;
  /** Width of the residual stream: the most that the effective rank can be. */
  readonly hiddenSize?: number;
}

/** Small multiples over depth: residual norm, logit-lens entropy, KL to the final distribution, effective rank. */
export async function layersFigure(data: LayersFigureData): Promise<Figure> {
  const panels: Panel[] = [];
  const add = async (curve: DepthCurve | undefined, chart: Omit<LineChart, 'series' | 'xLabel'>): Promise<void> => {
    if (curve === undefined) return;
    const series = [{ name: chart.title, x: data.layers, y: curve.values, standardError: curve.standardError }];
    panels.push(await lineChart({ ...chart, xLabel: 'layers passed', series }));
  };
  await add(data.residualNorm, {
    title: 'Norm of the residual stream',
    note: 'Mean Euclidean norm over tokens; logarithmic.',
    yLabel: 'norm',
    yScale: 'log',
  });
  await add(data.logitLensEntropyNats, {
    title: 'Entropy through the logit lens',
    note: 'Entropy of the distribution that the head gives when the model is cut after this layer.',
    yLabel: 'nats',
    yZero: true,
    references:
      data.finalEntropyNats === undefined ? undefined : [{ value: data.finalEntropyNats, label: 'final entropy' }],
  });
  await add(data.klToFinalNats, {
    title: 'Divergence from the final distribution',
    note: 'KL(final \u2016 logit lens): how much of the prediction is still to be decided.',
    yLabel: 'nats',
    yZero: true,
  });
  await add(data.effectiveRank, {
    title: 'Effective rank of the residual stream',
    note:
      data.hiddenSize === undefined
        ? 'Exponential of the entropy of the normalised spectrum.'
        : `Exponential of the entropy of the normalised spectrum; at most ${data.hiddenSize}.`,
    yLabel: 'dimensions',
    yZero: true,
  });
  return { title: data.title, subtitle: data.subtitle, headline: data.headline, panels, sections: [] };
}
