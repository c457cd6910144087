import type { Figure, HeadlineFigure } from '../report/plots/figure.js';
import { groupedBars } from '../report/plots/grouped-bars.js';
import { tableMarkup } from '../report/plots/html-page.js';
import { type LineSeries, lineChart } from '../report/plots/line-chart.js';
import { FULL_WIDTH, type Panel } from '../report/plots/panel.js';
import { type ScatterSeries, scatterChart } from '../report/plots/scatter-chart.js';
import type { SweepBody, SweepRow } from './sweep-report.js';
import { lloydMaxSqnr, shannonDecibels } from './tensor-statistics.js';

/** Methods of one rate each that make one line together. */
const FAMILIES: readonly { readonly pattern: RegExp; readonly title: string }[] = [
  { pattern: /^q\d_k$/, title: 'K-quants' },
  { pattern: /^(q\d_[01]|iq4_nl)$/, title: 'GGUF blocks of 32' },
  { pattern: /^nf4/, title: 'NF4' },
];

interface Family {
  readonly title: string;
  /** By ascending rate. */
  readonly rows: readonly SweepRow[];
}

function familiesOf(rows: readonly SweepRow[]): Family[] {
  const families = new Map<string, SweepRow[]>();
  for (const row of rows) {
    const title = FAMILIES.find(({ pattern }) => pattern.test(row.method))?.title ?? row.title;
    families.set(title, [...(families.get(title) ?? []), row]);
  }
  return [...families].map(([title, own]) => ({
    title,
    rows: own.sort((a, b) => a.bits_per_weight - b.bits_per_weight),
  }));
}

function seriesOf(
  { title, rows }: Family,
  of: (row: SweepRow) => number,
  error?: (row: SweepRow) => number,
): LineSeries {
  return {
    name: title,
    x: rows.map((row) => row.bits_per_weight),
    y: rows.map(of),
    ...(error && { standardError: rows.map(error) }),
  };
}

const RATE = 'bits per quantised weight, everything stored counted';

/** KL against rate: kept tensors are the same for all, so equal rates are equal bytes of the whole model. */
async function divergencePanel(families: readonly Family[]): Promise<Panel | undefined> {
  const measured = families.flatMap(({ title, rows }) => {
    const own = rows.filter(({ evaluation }) => evaluation !== null);
    return own.length > 0 ? [{ title, rows: own }] : [];
  });
  if (measured.length === 0) return undefined;
  return lineChart({
    title: 'Divergence from the original',
    note: 'Mean KL(original || quantised) of the next token, with one standard error. Equal rates are equal bytes of the whole model.',
    xLabel: RATE,
    yLabel: 'mean KL, nats',
    yScale: 'log',
    width: FULL_WIDTH,
    height: 420,
    series: measured.map((family) =>
      seriesOf(
        family,
        ({ evaluation }) => evaluation?.mean_kl_nats ?? Number.NaN,
        ({ evaluation }) => evaluation?.mean_kl_nats_se ?? Number.NaN,
      ),
    ),
  });
}

async function distortionPanel(families: readonly Family[], rows: readonly SweepRow[]): Promise<Panel> {
  const most = Math.max(...rows.map(({ bits_per_weight: bits }) => bits));
  const bits = [2, 3, 4, 5, 6].filter((b) => b <= Math.ceil(most));
  return lineChart({
    title: 'Rate and distortion of the weights',
    note: 'Shannon: no code of Gaussian weights exceeds 6.02 dB a bit. Lloyd-Max: the best scalar code of Gaussian weights, its scales not counted.',
    xLabel: RATE,
    yLabel: 'SQNR, dB',
    width: FULL_WIDTH,
    height: 420,
    ceiling: { label: 'Shannon bound D(R) = 2^(-2R)', at: shannonDecibels },
    series: [
      ...families.map((family) => seriesOf(family, (row) => row.sqnr_db)),
      {
        name: 'Lloyd-Max, Gaussian',
        x: bits,
        y: bits.map(lloydMaxSqnr),
        dashed: true,
      },
    ],
  });
}

/** One dot a tensor and candidate, by what the tensor does. */
async function tensorPanel(rows: readonly SweepRow[]): Promise<Panel> {
  const byRole = new Map<string, { x: number[]; y: number[]; labels: string[] }>();
  for (const row of rows) {
    for (const tensor of row.tensors) {
      const own = byRole.get(tensor.role) ?? { x: [], y: [], labels: [] };
      own.x.push(tensor.bits_per_weight);
      own.y.push(tensor.sqnr_db);
      own.labels.push(`${row.title}, ${tensor.name}`);
      byRole.set(tensor.role, own);
    }
  }
  const ends = rows.flatMap(({ tensors }) => tensors.map(({ bits_per_weight: bits }) => bits));
  const x = [Math.min(...ends), Math.max(...ends)];
  return scatterChart({
    title: 'Tensors',
    note: 'A dot a tensor and setting.',
    xLabel: 'bits per weight of the tensor',
    yLabel: 'SQNR, dB',
    width: FULL_WIDTH,
    height: 380,
    series: [...byRole].map(([name, points]): ScatterSeries => ({ name, ...points, radius: 2.2 })),
    curve: { label: 'Shannon bound', x, y: x.map(shannonDecibels) },
  });
}

/** Between the largest and the smallest bar, beyond which small ones cannot be seen. */
const LARGE_RATIO = 100;
/** Most settings whose losses stand side by side. */
const MOST_BARS = 5;

/** Of each family the setting nearest to the rate that most families come near to. */
function comparable(families: readonly Family[]): SweepRow[] {
  const rates = families.flatMap(({ rows }) => rows.map((row) => row.bits_per_weight));
  const distance = (family: Family, rate: number): number =>
    Math.min(...family.rows.map((row) => Math.abs(row.bits_per_weight - rate)));
  const spread = (rate: number): number =>
    families.reduce((sum, family) => sum + Math.min(1, distance(family, rate)), 0);
  const rate = [...rates].sort((a, b) => spread(a) - spread(b) || a - b)[0];
  return families
    .map(
      ({ rows }) =>
        [...rows].sort((a, b) => Math.abs(a.bits_per_weight - rate) - Math.abs(b.bits_per_weight - rate))[0],
    )
    .slice(0, MOST_BARS);
}

async function lossPanel(families: readonly Family[]): Promise<Panel | undefined> {
  const withLoss = families.filter(({ rows }) => rows.some((row) => row.hessian_loss_relative !== null));
  if (withLoss.length === 0) return undefined;
  const rows = comparable(withLoss);
  const layers = [...new Set(rows.flatMap(({ tensors }) => tensors.map(({ layer }) => layer)))].sort((a, b) => a - b);
  const lossOf = (row: SweepRow, layer: number): number => {
    const own = row.tensors.filter((tensor) => tensor.layer === layer && tensor.hessian_loss !== null);
    return own.length === 0 ? Number.NaN : own.reduce((sum, tensor) => sum + (tensor.hessian_loss ?? 0), 0);
  };
  const losses = rows.flatMap((row) => layers.map((layer) => lossOf(row, layer))).filter((loss) => loss > 0);
  const most = Math.max(...losses);
  const least = Math.min(...losses);
  return groupedBars({
    title: 'Error of the outputs by layer',
    note: 'Sum of tr(E H E^T) over the tensors of a layer, of settings of like rates.',
    xLabel: 'layer',
    yLabel: 'squared error of the outputs',
    // A logarithmic axis has no zero for bars to stand on: only where a linear one would hide layers.
    ...(most > LARGE_RATIO * least && { yScale: 'log' as const }),
    width: FULL_WIDTH,
    height: 320,
    places: layers.map((layer) => (layer < 0 ? 'head' : String(layer))),
    series: rows.map((row) => ({
      name: `${row.title}, ${row.bits_per_weight.toFixed(2)} bits`,
      values: layers.map((layer) => lossOf(row, layer)),
    })),
  });
}

/** The figure of a sweep: divergence and distortion against rate, tensors, errors by layer. */
export async function rateDistortionFigure(body: SweepBody): Promise<Figure> {
  const families = familiesOf(body.rows);
  const panels: (Panel | undefined)[] = [];
  if (body.rows.length > 0) {
    panels.push(
      await divergencePanel(families),
      await distortionPanel(families, body.rows),
      await tensorPanel(body.rows),
      await lossPanel(families),
    );
  }
  const headline: HeadlineFigure[] = [
    { label: 'Quantised weights', value: body.selected.weights },
    { label: 'Weights of the model', value: body.source.model_weights },
    { label: 'Tokens scored', value: body.scored_tokens },
    ...(body.base
      ? [{ label: 'Perplexity of the original', value: body.base.perplexity, standardError: body.base.perplexity_se }]
      : []),
  ];
  return {
    title: `Quantisers of ${body.model.path.replace(/\/+$/, '').split('/').pop()}`,
    subtitle: subtitleOf(body),
    headline,
    panels: panels.filter((panel) => panel !== undefined),
    sections: [
      {
        heading: 'Settings',
        body: tableMarkup({
          columns: [
            'setting',
            'bits per weight',
            'bits of the model',
            'SQNR, dB',
            'perplexity',
            'mean KL, nats',
            'same top-1',
          ],
          rows: body.rows.map((row) => [
            row.id,
            row.bits_per_weight,
            row.model_bits_per_weight,
            row.sqnr_db,
            row.evaluation?.perplexity ?? '',
            row.evaluation?.mean_kl_nats ?? '',
            row.evaluation?.top1_agreement ?? '',
          ]),
        }),
      },
    ],
  };
}

function subtitleOf({ source, convention, left_out: left }: SweepBody): string {
  const window = convention === null ? '' : ` Windows of ${String(convention.window_tokens)} tokens.`;
  const stored = `Source: ${source.types.join(', ')}, ${source.bits_per_weight.toFixed(2)} bits a weight`;
  const again = source.quantized ? ', quantised itself' : '';
  return `${stored}${again}.${window}${left.length > 0 ? ` ${left.length} settings left out, see the report.` : ''}`;
}
