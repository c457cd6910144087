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
  /** Of the second-moment matrix, mean included. */
  readonly effectiveRankUncentred?: DepthCurve;
  readonly logitLensSurprisalNats?: DepthCurve;
  readonly top1Agreement?: DepthCurve;
  readonly cosineToPrevious?: DepthCurve;
  /** Entropy of the model's own output, for comparison with the logit lens. */
  readonly finalEntropyNats?: number;
  /** Width of the residual stream: the most that the effective rank can be. */
  readonly hiddenSize?: number;
}

/** Small multiples over depth: residual norm, the logit lens against the final layer, cosines, effective rank. */
export async function layersFigure(data: LayersFigureData): Promise<Figure> {
  const panels: Panel[] = [];
  const add = async (
    curves: Readonly<Record<string, DepthCurve | undefined>>,
    chart: Omit<LineChart, 'series' | 'xLabel'>,
  ): Promise<void> => {
    const series = Object.entries(curves).flatMap(([name, curve]) =>
      curve === undefined ? [] : [{ name, x: data.layers, y: curve.values, standardError: curve.standardError }],
    );
    if (series.length > 0) panels.push(await lineChart({ ...chart, xLabel: 'layers passed', series }));
  };
  await add(
    { norm: data.residualNorm },
    {
      title: 'Norm of the residual stream',
      note: 'Mean Euclidean norm over tokens; logarithmic.',
      yLabel: 'norm',
      yScale: 'log',
    },
  );
  await add(
    { entropy: data.logitLensEntropyNats },
    {
      title: 'Entropy through the logit lens',
      note: 'Entropy of the distribution that the head gives when the model is cut after this layer.',
      yLabel: 'nats',
      yZero: true,
      references:
        data.finalEntropyNats === undefined ? undefined : [{ value: data.finalEntropyNats, label: 'final entropy' }],
    },
  );
  await add(
    { divergence: data.klToFinalNats },
    {
      title: 'Divergence from the final distribution',
      note: 'KL(final \u2016 logit lens): how much of the prediction is still to be decided.',
      yLabel: 'nats',
      yZero: true,
    },
  );
  await add(
    { surprisal: data.logitLensSurprisalNats },
    {
      title: 'Surprisal of the next token through the logit lens',
      note: 'What cutting the model after this layer would cost.',
      yLabel: 'nats',
      yZero: true,
    },
  );
  await add(
    { agreement: data.top1Agreement },
    {
      title: 'Agreement with the final layer',
      note: 'Share of positions whose likeliest token is already that of the whole model.',
      yLabel: 'share',
      yZero: true,
      yHigh: 1,
    },
  );
  await add(
    { cosine: data.cosineToPrevious },
    {
      title: 'Cosine between a layer and the one before',
      note: 'Near 1 where the layer hardly turns the residual stream.',
      yLabel: 'cosine',
      yZero: true,
      yHigh: 1,
    },
  );
  await add(
    { centred: data.effectiveRank, 'mean included': data.effectiveRankUncentred },
    {
      title: 'Effective rank of the residual stream',
      note:
        data.hiddenSize === undefined
          ? 'Exponential of the entropy of the normalised spectrum.'
          : `Exponential of the entropy of the normalised spectrum; at most ${data.hiddenSize}.`,
      yLabel: 'dimensions',
      yZero: true,
    },
  );
  return { title: data.title, subtitle: data.subtitle, headline: data.headline, panels, sections: [] };
}
