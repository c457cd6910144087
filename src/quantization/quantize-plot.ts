import type { Figure, HeadlineFigure } from '../report/plots/figure.js';
import { groupedBars } from '../report/plots/grouped-bars.js';
import { tableMarkup } from '../report/plots/html-page.js';
import { FULL_WIDTH, type Panel } from '../report/plots/panel.js';
import { type ScatterSeries, scatterChart } from '../report/plots/scatter-chart.js';
import type { QuantizeBody, TensorRecord } from './quantize-report.js';
import { shannonDecibels } from './tensor-statistics.js';

/** One dot a tensor, by what it does, under the Shannon bound. */
function tensorPanel(tensors: readonly TensorRecord[]): Promise<Panel> {
  const roles = [...new Set(tensors.map(({ role }) => role))];
  const rates = tensors.map(({ bpw_file: bits }) => bits);
  const x = [Math.min(...rates), Math.max(...rates)];
  return scatterChart({
    title: 'Rate and distortion of the tensors',
    note: 'Everything stored counted. Shannon: no code of Gaussian weights exceeds 6.02 dB a bit.',
    xLabel: 'bits per weight of the tensor in the files',
    yLabel: 'SQNR, dB',
    width: FULL_WIDTH,
    height: 400,
    series: roles.map((role): ScatterSeries => {
      const own = tensors.filter((tensor) => tensor.role === role);
      return {
        name: role,
        x: own.map(({ bpw_file: bits }) => bits),
        y: own.map(({ sqnr_db: decibels }) => decibels),
        labels: own.map(({ name }) => name),
        radius: 3,
      };
    }),
    curve: { label: 'Shannon bound', x, y: x.map(shannonDecibels) },
  });
}

/** Relative errors by layer: of the outputs where there is a Hessian, else of the weights. */
function layerPanel(tensors: readonly TensorRecord[]): Promise<Panel> {
  const layers = [...new Set(tensors.map(({ layer }) => layer))].sort((a, b) => a - b);
  const metric = tensors.some(({ hessian_loss: loss }) => loss !== null);
  const mean = (layer: number, of: (tensor: TensorRecord) => number | null): number => {
    const own = tensors.filter((tensor) => tensor.layer === layer && of(tensor) !== null);
    const weights = own.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
    return own.reduce((sum, tensor) => sum + (of(tensor) ?? 0) * tensor.rows * tensor.columns, 0) / weights;
  };
  const bars = (name: string, of: (tensor: TensorRecord) => number | null) => ({
    name,
    values: layers.map((layer) => mean(layer, of)),
  });
  return groupedBars({
    title: metric ? 'Relative error of the outputs by layer' : 'Relative error of the weights by layer',
    note: 'Mean over the tensors of a layer, weighed by their size.',
    xLabel: 'layer',
    yLabel: 'part of the energy that is lost',
    width: FULL_WIDTH,
    height: 320,
    places: layers.map((layer) => (layer < 0 ? 'head' : String(layer))),
    series: metric
      ? [
          bars('as stored', (tensor) => tensor.hessian_loss_relative),
          bars('without feedback and refits', (tensor) => tensor.hessian_loss_relative_plain),
          bars('Shannon bound', (tensor) => tensor.shannon_hessian_loss_relative),
        ]
      : [bars('as stored', (tensor) => 10 ** (-tensor.sqnr_db / 10))],
  });
}

/** The figure of a run: rate and distortion of every tensor, errors by layer. */
export async function quantizeFigure(body: QuantizeBody): Promise<Figure> {
  const { quantized, whole_model: whole, evaluation, tensors } = body;
  const predictions = evaluation?.predictions;
  const headline: HeadlineFigure[] = [
    { label: 'Bits per quantised weight', value: quantized.bits_per_weight },
    { label: 'Bits per weight of the model', value: whole.bits_per_weight },
    { label: 'SQNR', value: body.sqnr_db, unit: 'dB' },
    ...(predictions
      ? [
          {
            label: 'Perplexity before',
            value: predictions.base_perplexity,
            standardError: predictions.base_perplexity_se,
          },
          { label: 'Perplexity after', value: predictions.perplexity, standardError: predictions.perplexity_se },
          {
            label: 'Mean KL',
            value: predictions.mean_kl_nats,
            unit: 'nats',
            standardError: predictions.mean_kl_nats_se,
          },
        ]
      : []),
  ];
  return {
    title: `Quantised ${body.model.path.replace(/\/+$/, '').split('/').pop()}`,
    subtitle: `${quantized.tensors} tensors, ${quantized.weights} weights, ${quantized.bytes} bytes`,
    headline,
    panels: [await tensorPanel(tensors), await layerPanel(tensors)],
    sections: [
      {
        heading: 'Tensors',
        body: tableMarkup({
          columns: ['tensor', 'D', 'K', 'gain bits', 'bits per weight', 'SQNR, dB', 'relative output error'],
          rows: tensors.map((tensor) => [
            tensor.name,
            tensor.group_length,
            tensor.pulses,
            tensor.gain_bits,
            tensor.bpw_file,
            tensor.sqnr_db,
            tensor.hessian_loss_relative ?? '',
          ]),
        }),
      },
    ],
  };
}
