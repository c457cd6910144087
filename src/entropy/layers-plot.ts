import type { Figure } from '../report/plots/figure.js';
import { type DepthCurve, layersFigure } from '../report/plots/layers-figure.js';
import type { LayerReport, LayersBody } from './layers-report.js';

/** Draws the figure of layers from the body of its report. */
export function drawLayers(body: LayersBody, subtitle: string): Promise<Figure> {
  const curve = (key: keyof LayerReport, error?: keyof LayerReport): DepthCurve => ({
    values: body.by_layer.map((layer) => layer[key] ?? Number.NaN),
    ...(error && { standardError: body.by_layer.map((layer) => layer[error] ?? Number.NaN) }),
  });
  const last = body.by_layer[body.layers];
  const error = (value: number | undefined) =>
    value === undefined || Number.isNaN(value) ? {} : { standardError: value };
  return layersFigure({
    title: 'How the prediction takes shape, layer by layer',
    subtitle,
    headline: [
      { label: 'Documents', value: body.documents },
      { label: 'Positions', value: body.positions },
      { label: 'Final surprisal', value: body.mean_nll_nats, unit: 'nats', ...error(last.lens_surprisal_nats_se) },
      { label: 'Final entropy', value: body.mean_entropy_nats, unit: 'nats', ...error(last.lens_entropy_nats_se) },
      { label: 'Half of the top tokens decided at layer', value: body.half_agreement_layer },
    ],
    layers: body.by_layer.map(({ layer }) => layer),
    residualNorm: curve('residual_norm', 'residual_norm_se'),
    logitLensEntropyNats: curve('lens_entropy_nats', 'lens_entropy_nats_se'),
    klToFinalNats: curve('lens_kl_to_final_nats', 'lens_kl_to_final_nats_se'),
    logitLensSurprisalNats: curve('lens_surprisal_nats', 'lens_surprisal_nats_se'),
    top1Agreement: curve('lens_top1_agreement', 'lens_top1_agreement_se'),
    cosineToPrevious: curve('cosine_to_previous', 'cosine_to_previous_se'),
    ...(body.effective_rank_measured && {
      effectiveRank: curve('effective_rank'),
      effectiveRankUncentred: curve('effective_rank_uncentred'),
    }),
    finalEntropyNats: body.mean_entropy_nats,
    hiddenSize: body.hidden_size,
  });
}
