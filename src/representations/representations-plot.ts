import { type ChartFigureData, chartFigure } from '../report/plots/chart-figure.js';
import type { Figure } from '../report/plots/figure.js';
import type { LineChart, LineSeries } from '../report/plots/line-chart.js';
import type { RepresentationMeasures } from './representations-job.js';
import type { RepresentationsBody, SetReport } from './representations-report.js';

type Chart = ChartFigureData['charts'][number];

const lines = (chart: LineChart): Chart => ({ kind: 'lines', chart });

/** Most eigenvalues of a decay curve that are drawn. */
const MOST_DRAWN = 1000;

/** Where the sets stand on the x axis: by layer, or in the order given. */
function axisOf(sets: readonly SetReport[]): { label: string; places: number[] } {
  if (sets.every(({ layer }) => typeof layer === 'number')) {
    return { label: 'layers passed', places: sets.map(({ layer }) => Number(layer)) };
  }
  return { label: 'set, in the order given', places: sets.map((_, i) => i + 1) };
}

const timesOf = (body: RepresentationsBody): number[] => body.sets[0].entropies.map(({ t }) => t);

/** Draws what was measured: curves over layers or files, or the subsampling curve and the spectrum of one set. */
export function drawRepresentations(
  body: RepresentationsBody,
  measures: RepresentationMeasures,
  subtitle: string,
): Promise<Figure> {
  const several = body.sets.length > 1;
  const [first] = body.sets;
  const { rows_used: n, columns: d } = first;
  const charts = [
    ...(several ? [entropyOverSets(body), ranksOverSets(body), conditionOverSets(body)] : []),
    ...(body.attention ? [attentionOverLayers(body)] : []),
    ...(several && first.information.length > 0 ? [informationOverSets(body)] : []),
    ...(several ? [decayOfSets(body, measures)] : [subsampling(first), decayOfTimes(body, measures)]),
    ...(several ? [] : informationTerms(first)),
    ...sweepMap(first),
    ...(body.linear_cka ? [similarity(body, body.linear_cka)] : []),
  ].filter((chart): chart is Chart => chart !== undefined);
  const headline = several
    ? [
        { label: 'Sets', value: body.sets.length },
        { label: 'Rows', value: n },
        { label: 'Columns', value: d },
      ]
    : [
        { label: 'Rows', value: n },
        { label: 'Columns', value: d },
        {
          label: `DSE at t = ${first.entropies[0].t}`,
          value: first.entropies[0].dse_bits,
          unit: 'bits',
          ...(first.entropies[0].dse_bits_se !== null && { standardError: first.entropies[0].dse_bits_se }),
        },
        { label: 'RankMe', value: first.rankme },
      ];
  return chartFigure({
    title: several ? 'Entropy and rank of representations' : 'Diffusion spectral entropy',
    subtitle: `${subtitle}; bandwidth ${first.sigma_rule}, operator ${first.operator}, ${first.method}`,
    headline,
    charts,
  });
}

function entropyOverSets(body: RepresentationsBody): Chart {
  const { label, places } = axisOf(body.sets);
  const series = timesOf(body).map((t, k): LineSeries => {
    const errors = body.sets.map(({ entropies }) => entropies[k].dse_bits_se ?? Number.NaN);
    return {
      name: `t = ${t}`,
      x: places,
      y: body.sets.map(({ entropies }) => entropies[k].dse_bits),
      ...(errors.some(Number.isFinite) && { standardError: errors }),
    };
  });
  return lines({
    title: 'Diffusion spectral entropy',
    note: `Entropy of the spectrum of the diffusion graph of the rows; at most log2 n = ${Math.log2(body.sets[0].rows_used).toFixed(2)}.`,
    xLabel: label,
    yLabel: 'bits',
    yZero: true,
    series,
  });
}

function ranksOverSets(body: RepresentationsBody): Chart {
  const { label, places } = axisOf(body.sets);
  const curve = (name: string, y: (set: SetReport) => number): LineSeries => ({
    name,
    x: places,
    y: body.sets.map(y),
  });
  return lines({
    title: 'Effective rank',
    note: 'Exponential of the entropy of the singular values (RankMe differs by its 1e-7), of their squares, and of the centred covariance.',
    xLabel: label,
    yLabel: 'dimensions',
    yZero: true,
    series: [
      curve('singular values', (set) => set.effective_rank_singular_values),
      curve('squared', (set) => set.effective_rank_squared),
      curve('covariance', (set) => set.von_neumann_effective_dimension),
    ],
  });
}

function conditionOverSets(body: RepresentationsBody): Chart {
  const { label, places } = axisOf(body.sets);
  return lines({
    title: 'Condition number',
    note: 'Largest over smallest singular value, logarithmic; a gap where the features are rank-deficient.',
    xLabel: label,
    yLabel: 'ratio',
    yScale: 'log',
    series: [{ name: 'condition number', x: places, y: body.sets.map((set) => set.condition_number) }],
  });
}

function attentionOverLayers(body: RepresentationsBody): Chart {
  const layers = body.attention ?? [];
  return lines({
    title: 'Attention entropy',
    note: 'Mean over heads and queries; the attention of a layer stands where its output does.',
    xLabel: 'layers passed',
    yLabel: 'nats',
    yZero: true,
    series: [
      {
        name: 'attention entropy',
        x: layers.map(({ layer }) => layer),
        y: layers.map((layer) => layer.mean_entropy_nats),
      },
    ],
  });
}

function informationOverSets(body: RepresentationsBody): Chart {
  const { label, places } = axisOf(body.sets);
  const [{ information }] = body.sets;
  const series = information.flatMap(({ with: reference, by_time }, i) =>
    by_time.map(({ t }, k): LineSeries => {
      const found = body.sets.map((set) => set.information[i].by_time[k]);
      return {
        name: by_time.length > 1 ? `${reference}, t = ${t}` : reference,
        x: places,
        y: found.map(({ dsmi_bits }) => dsmi_bits),
        standardError: found.map(({ dsmi_bits_se }) => dsmi_bits_se),
      };
    }),
  );
  return lines({
    title: 'Diffusion spectral mutual information',
    note: 'Bands: one standard error over random subsets.',
    xLabel: label,
    yLabel: 'bits',
    yZero: true,
    series,
  });
}

/** Decay of a spectrum raised to t, as a series. Ranks count from 1. */
function decay(name: string, eigenvalues: Float64Array | null, t: number): LineSeries {
  const shown = eigenvalues?.subarray(0, MOST_DRAWN) ?? new Float64Array(0);
  return {
    name,
    x: Array.from(shown, (_, i) => i + 1),
    y: Array.from(shown, (value) => Math.abs(value) ** t),
  };
}

const DECAY = {
  xLabel: 'rank of the eigenvalue',
  yLabel: 'eigenvalue',
  xScale: 'log',
  yScale: 'log',
  yLow: 1e-8,
} as const;

function decayOfSets(body: RepresentationsBody, measures: RepresentationMeasures): Chart | undefined {
  const series = measures.sets.map((set, i) =>
    decay(body.sets[i].layer === null ? set.name : `layer ${body.sets[i].layer}`, set.estimate.eigenvalues, 1),
  );
  if (series.every(({ x }) => x.length === 0)) return undefined;
  const { label, places } = axisOf(body.sets);
  return lines({
    title: 'Eigenvalues of the diffusion operator',
    ...DECAY,
    series,
    ...(series.length > 2 && { ordered: { label, values: places } }),
  });
}

function decayOfTimes(body: RepresentationsBody, measures: RepresentationMeasures): Chart | undefined {
  const { eigenvalues } = measures.sets[0].estimate;
  if (eigenvalues === null || eigenvalues.length < 2) return undefined;
  return lines({
    title: 'Eigenvalues of the diffusion operator',
    note: 'To the power t. Rule of thumb: about 1 % of them above 0.01.',
    ...DECAY,
    series: timesOf(body).map((t) => decay(`t = ${t}`, eigenvalues, t)),
    references: [{ value: 0.01, label: 'threshold' }],
  });
}

function subsampling(set: SetReport): Chart | undefined {
  if (set.curve.length === 0) return undefined;
  const times = [...new Set(set.curve.map(({ t }) => t))];
  return lines({
    title: 'Entropy against the number of rows',
    note: 'Means over random subsets; bands: one standard deviation. Where the curve still rises, compare equal numbers only.',
    xLabel: 'rows',
    yLabel: 'bits',
    xScale: 'position',
    yZero: true,
    ceiling: { label: 'log2 n', at: Math.log2 },
    series: times.map((t): LineSeries => {
      const points = set.curve.filter((point) => point.t === t);
      return {
        name: `t = ${t}`,
        x: points.map(({ size }) => size),
        y: points.map(({ dse_bits }) => dse_bits),
        standardError: points.map(({ dse_bits_std }) => dse_bits_std),
      };
    }),
  });
}

/** What each category adds, for the references of one set. */
function informationTerms(set: SetReport): Chart[] {
  return set.information.map(({ with: reference, terms, by_time }): Chart => {
    const categories = [...new Set(terms.map(({ category }) => category))];
    return {
      kind: 'heat-map',
      chart: {
        title: `Terms of the mutual information with ${reference}`,
        note: 'Share of the rows times (entropy of random subsets less entropy of the category), bits.',
        rows: by_time.map(({ t }) => `t = ${t}`),
        columns: categories,
        rowLabel: 'time',
        columnLabel: 'category',
        values: by_time.flatMap(({ t }) =>
          categories.map(
            (name) => terms.find((term) => term.category === name && term.t === t)?.term_bits ?? Number.NaN,
          ),
        ),
        valueLabel: 'bits',
        kind: 'signed',
      },
    };
  });
}

function sweepMap(set: SetReport): Chart[] {
  if (set.sweep.length === 0) return [];
  const sigmas = [...new Set(set.sweep.map(({ sigma }) => sigma))];
  const times = [...new Set(set.sweep.map(({ t }) => t))];
  const at = (sigma: number, t: number) => set.sweep.find((cell) => cell.sigma === sigma && cell.t === t);
  return [
    {
      kind: 'heat-map',
      chart: {
        title: 'Entropy over bandwidths and diffusion times',
        note: 'Ringed: about 1 % of the powered eigenvalues exceed 0.01, the rule of thumb of the authors.',
        rows: times.map((t) => `t = ${t}`),
        columns: sigmas.map((sigma) => String(Number(sigma.toPrecision(3)))),
        rowLabel: 'time',
        columnLabel: 'bandwidth',
        values: times.flatMap((t) => sigmas.map((sigma) => at(sigma, t)?.dse_bits ?? Number.NaN)),
        valueLabel: 'bits',
        kind: 'amount',
        flags: [
          {
            label: 'about 1 % above 0.01',
            shape: 'ring',
            cells: times.flatMap((t, row) =>
              sigmas.flatMap((sigma, column) => (at(sigma, t)?.follows_rule ? [{ row, column }] : [])),
            ),
          },
        ],
      },
    },
  ];
}

function similarity(body: RepresentationsBody, matrix: readonly (readonly number[])[]): Chart {
  const names = body.sets.map(({ layer, name }) => (layer === null ? name : String(layer)));
  return {
    kind: 'heat-map',
    chart: {
      title: 'Linear CKA',
      note: 'Alignment of the centred features of two sets over the same rows: 1 up to rotation, scale and shift.',
      rows: names,
      columns: names,
      rowLabel: body.sets[0].layer === null ? 'set' : 'layer',
      columnLabel: body.sets[0].layer === null ? 'set' : 'layer',
      values: matrix.flat(),
      valueLabel: 'CKA',
      kind: 'amount',
      domain: [0, 1],
      width: 470,
    },
  };
}
