import { type ChartFigureData, chartFigure } from '../report/plots/chart-figure.js';
import type { Figure, FigureTable } from '../report/plots/figure.js';
import type { LineSeries } from '../report/plots/line-chart.js';
import {
  type ComparisonReport,
  type DiversityBody,
  type MeasuredSet,
  measureKey,
  type SetReport,
} from './diversity-report.js';
import { vendiScore } from './vendi-score.js';

type Chart = ChartFigureData['charts'][number];

/** Orders at which a curve over orders is drawn. */
const ORDERS = Float64Array.from({ length: 41 }, (_, i) => 0.2 * i);
/** Lines that can be told apart. */
const MOST_SETS = 8;
const WHOLE_WIDTH = 964;
const MOST_POINTS = 400;

const nameOf = ({ name, layer }: SetReport): string => (layer === null ? name : `layer ${layer}`);

function overOrders(body: DiversityBody): Chart | undefined {
  const sets = body.sets.filter(({ spectrum }) => spectrum !== null && spectrum.eigenvalues.length === spectrum.rank);
  if (sets.length === 0) return undefined;
  return {
    kind: 'lines',
    chart: {
      title: 'Score against order',
      note: 'Order 0 counts directions, high orders see the most frequent mode only.',
      xLabel: 'order q',
      yLabel: 'effective number of items',
      yScale: 'log',
      series: sets.slice(0, MOST_SETS).map((set) => ({
        name: nameOf(set),
        x: ORDERS,
        y: ORDERS.map((q) => vendiScore(set.spectrum?.eigenvalues ?? new Float64Array(0), q)),
      })),
    },
  };
}

function overItems(set: SetReport): Chart | undefined {
  if (set.curve.length < 2) return undefined;
  const keys = set.curve[0].scores.map(measureKey).filter((key) => key !== 'rke');
  return {
    kind: 'lines',
    chart: {
      title: 'Score against the number of items',
      note: 'Subsamples without replacement; bands are one standard error of the mean.',
      xLabel: 'items',
      yLabel: 'effective number of items',
      xScale: 'log',
      yScale: 'log',
      series: keys.slice(0, MOST_SETS).map((key): LineSeries => {
        const of = set.curve.map(({ scores }) => scores.find((score) => measureKey(score) === key));
        return {
          name: key,
          x: set.curve.map(({ items }) => items),
          y: of.map((score) => score?.value ?? Number.NaN),
          standardError: of.map((score) => score?.value_se ?? Number.NaN),
        };
      }),
    },
  };
}

function decay(body: DiversityBody): Chart | undefined {
  const sets = body.sets.filter(({ spectrum }) => spectrum !== null);
  if (sets.length === 0) return undefined;
  return {
    kind: 'lines',
    chart: {
      title: 'Spectrum of the kernel',
      note: 'Eigenvalues of K/n in descending order; their sum is 1.',
      xLabel: 'index',
      yLabel: 'eigenvalue',
      xScale: 'log',
      yScale: 'log',
      series: sets.slice(0, MOST_SETS).map((set) => {
        const eigenvalues = set.spectrum?.eigenvalues ?? new Float64Array(0);
        return { name: nameOf(set), x: eigenvalues.map((_, i) => i + 1), y: eigenvalues };
      }),
    },
  };
}

function overLayers(body: DiversityBody): Chart | undefined {
  const sets = body.sets.filter(({ layer }) => typeof layer === 'number');
  if (sets.length < 2) return undefined;
  const keys = Object.keys(sets[0].scores).filter((key) => !key.startsWith('intdiv'));
  return {
    kind: 'lines',
    chart: {
      title: 'Score by layer',
      xLabel: 'layers passed',
      yLabel: 'effective number of items',
      yScale: 'log',
      series: keys.slice(0, MOST_SETS).map((key) => {
        const figures = sets.map((set) => set.figures.find((figure) => measureKey(figure) === key));
        return {
          name: key,
          x: sets.map(({ layer }) => Number(layer)),
          y: figures.map((figure) => figure?.value ?? Number.NaN),
          standardError: figures.map((figure) => figure?.value_se ?? Number.NaN),
        };
      }),
    },
  };
}

function groups(set: SetReport): Chart | undefined {
  if (set.groups.length === 0) return undefined;
  // Ranks would take the whole colour scale, and RKE is order 2.
  const keys = Object.keys(set.groups[0].scores).filter((key) => key !== 'rke' && !key.endsWith('_q0'));
  if (keys.length === 0) return undefined;
  return {
    kind: 'heat-map',
    chart: {
      title: 'Groups by themselves',
      note: 'Score of the items of each group; a group of many items can hold more.',
      rows: set.groups.map(({ name, items }) => `${name} (${items})`),
      columns: keys,
      rowLabel: 'group',
      columnLabel: 'measure',
      values: set.groups.flatMap(({ scores }) => keys.map((key) => scores[key])),
      valueLabel: 'effective number of items',
      kind: 'amount',
      width: WHOLE_WIDTH,
    },
  };
}

/** What single items add to the order-2 score, sorted; thinned where there are many. */
function gains({ measures: { set } }: MeasuredSet): Chart | undefined {
  if (set.rkeGains === null || set.items < 3) return undefined;
  const sorted = set.rkeGains.slice().sort().reverse();
  const step = Math.max(1, Math.floor(sorted.length / MOST_POINTS));
  const places = Array.from({ length: Math.ceil(sorted.length / step) }, (_, i) => i * step);
  return {
    kind: 'lines',
    chart: {
      title: 'What single items add',
      note: 'Gain in the order-2 score (RKE); below 0 for items that resemble many others.',
      xLabel: 'item, by gain',
      yLabel: 'gain',
      yZero: true,
      series: [{ name: 'gain', x: places.map((place) => place + 1), y: places.map((place) => sorted[place]) }],
    },
  };
}

function differences(body: DiversityBody): Chart | undefined {
  const series = body.comparisons.slice(0, MOST_SETS).map(({ against, layer, figures }): LineSeries => {
    const drawn = figures.filter(({ measure, q }) => measure === 'vendi' && q !== 'inf' && q !== 0);
    return {
      name: layer === null ? `less ${against}` : `layer ${layer}, less ${against}`,
      x: drawn.map(({ q }) => Number(q)),
      y: drawn.map(({ difference }) => difference),
      standardError: drawn.map(({ difference_se }) => difference_se ?? Number.NaN),
    };
  });
  if (series.length === 0) return undefined;
  return {
    kind: 'lines',
    chart: {
      title: 'Difference between sets',
      note: 'Score of the set less that of the other; bands are one standard error.',
      xLabel: 'order q',
      yLabel: 'difference',
      yZero: true,
      series,
    },
  };
}

function compared({ figures }: ComparisonReport): FigureTable {
  return {
    columns: ['measure', 'set', 'against', 'union', 'difference', 'low', 'high', 'equal size', 'p'],
    rows: figures.map((figure) => [
      measureKey(figure),
      figure.value,
      figure.against,
      figure.union,
      figure.difference,
      figure.difference_low ?? '',
      figure.difference_high ?? '',
      figure.difference_matched ?? '',
      figure.permutation_p ?? '',
    ]),
  };
}

function modes(set: SetReport): FigureTable {
  return {
    columns: ['mode', 'eigenvalue', 'items nearest', 'top items'],
    rows: set.modes.map(({ mode, eigenvalue, items_nearest, items }) => [
      mode,
      eigenvalue,
      items_nearest,
      items.map(({ id, text }) => (text === null ? id : `${id}: ${text}`)).join(' | '),
    ]),
  };
}

/** Draws scores over orders, over items and over layers, the spectrum, and the groups. */
export function drawDiversity(
  body: DiversityBody,
  measured: readonly MeasuredSet[],
  subtitle: string,
): Promise<Figure> {
  const [first] = body.sets;
  const charts = [
    overLayers(body),
    overOrders(body),
    overItems(first),
    decay(body),
    gains(measured[0]),
    differences(body),
    groups(first),
  ];
  const headline = first.figures.find(({ measure, q }) => measure === 'vendi' && q === 1) ?? first.figures[0];
  return chartFigure({
    title: 'Diversity',
    subtitle,
    headline: [
      { label: 'Items', value: first.items },
      { label: 'Duplicates', value: first.duplicate_items },
      { label: 'Kernel', value: body.kernel },
      { label: 'Path', value: first.method },
      {
        label: `Effective number, ${measureKey(headline)}`,
        value: headline.value,
        ...(headline.value_se !== null && { standardError: headline.value_se }),
      },
    ],
    charts: charts.filter((chart): chart is Chart => chart !== undefined),
    tables: [
      ...body.comparisons.map((comparison) => ({
        heading: `${comparison.set} against ${comparison.against}`,
        note: 'Intervals from half-samples of each set; p from exchanging items between the sets.',
        table: compared(comparison),
      })),
      ...body.sets
        .filter((set) => set.modes.length > 0)
        .map((set) => ({ heading: `Modes of ${nameOf(set)}`, table: modes(set) })),
    ],
  });
}
