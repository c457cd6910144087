import { chartFigure } from '../report/plots/chart-figure.js';
import type { Figure } from '../report/plots/figure.js';
import type { LineSeries } from '../report/plots/line-chart.js';
import { HALF_WIDTH } from '../report/plots/panel.js';
import type { DataBody, StudyBody } from './pretraining-report.js';

type Chart = Parameters<typeof chartFigure>[0]['charts'][number];

const power = (value: number): string => {
  const exponent = Math.log10(value);
  return Number.isInteger(exponent) && exponent > 3 ? `1e${exponent}` : String(value);
};

function riskChart(body: StudyBody): Chart {
  const methods = new Map<string, LineSeries>();
  const named = (method: string, m: number): string => (method === 'pretrained' ? `m = ${power(m)}` : method);
  for (const { method, m } of body.cells) {
    const name = named(method, m);
    if (methods.has(name)) continue;
    const own = body.cells.filter((cell) => cell.method === method && cell.m === m);
    methods.set(name, {
      name,
      x: own.map(({ n }) => n),
      y: own.map(({ excess_risk }) => (excess_risk > 0 ? excess_risk : Number.NaN)),
      standardError: own.map(({ excess_risk_se }) => excess_risk_se ?? Number.NaN),
      dashed: method !== 'pretrained',
    });
  }
  return {
    kind: 'lines',
    chart: {
      title: 'Excess risk against labelled rows',
      note: `Means over ${body.seeds} seeds with their standard errors; the best predictor that knows the truth is 0.`,
      xLabel: 'labelled rows n',
      yLabel: body.measure === 'mse' ? 'excess mean squared error' : 'excess error rate',
      xScale: 'log',
      yScale: 'log',
      width: 964,
      height: 320,
      series: [...methods.values()],
    },
  };
}

function ratioChart(body: StudyBody): Chart {
  const cells = body.cells.filter(({ method }) => method === 'pretrained');
  const ms = [...new Set(cells.map(({ m }) => m))];
  const ns = [...new Set(cells.map(({ n }) => n))];
  const values = ms.flatMap((m) =>
    ns.map((n) => {
      const own = cells.find((cell) => cell.m === m && cell.n === n);
      const other = body.cells.find((cell) => cell.method === 'supervised' && cell.n === n);
      return own && other && own.excess_risk > 0 && other.excess_risk > 0
        ? Math.log10(own.excess_risk / other.excess_risk)
        : Number.NaN;
    }),
  );
  return {
    kind: 'heat-map',
    chart: {
      title: 'Pretraining against supervised learning',
      note: 'log10 of the ratio of excess risks; blue where pretraining is better.',
      rows: ms.map(power),
      columns: ns.map(String),
      rowLabel: 'unlabelled rows m',
      columnLabel: 'labelled rows n',
      values,
      valueLabel: 'log10 ratio',
      kind: 'signed',
      width: HALF_WIDTH,
    },
  };
}

function sweepChart(body: StudyBody): Chart[] {
  if (body.signal_sweep.length < 2) return [];
  const x = body.signal_sweep.map(({ signal }) => signal);
  const gain = body.signal_sweep.map((point) => point.gain);
  return [
    {
      kind: 'lines',
      chart: {
        title: 'Gain of pretraining against signal',
        note: 'Share of the trivial risk saved beyond supervised learning; the band is half of the 95 % interval.',
        xLabel: body.case === 'mixture' ? 'separation' : 'signal to noise',
        yLabel: 'gain',
        xScale: 'log',
        yZero: true,
        series: [
          {
            name: 'gain',
            x,
            y: gain.map(({ value }) => value ?? Number.NaN),
            standardError: gain.map(({ low, high }) => ((high ?? Number.NaN) - (low ?? Number.NaN)) / 4),
          },
        ],
      },
    },
  ];
}

/** Draws the risks over the grid, the ratio to supervised learning, and the sweep over signals. */
export function drawStudy(body: StudyBody, subtitle: string): Promise<Figure> {
  const last = body.rates[body.rates.length - 1];
  return chartFigure({
    title: 'What unlabelled rows are worth',
    subtitle,
    headline: [
      { label: 'Seeds', value: body.seeds },
      {
        label: `Slope at m = ${power(last.m)}`,
        value: last.slope.value ?? Number.NaN,
        ...(last.slope.low !== null && last.slope.high !== null && { interval: [last.slope.low, last.slope.high] }),
        intervalName: '95 % over seeds',
      },
    ],
    charts: [riskChart(body), ratioChart(body), ...sweepChart(body)],
  });
}

/** Draws the spectrum of the factor model or the likelihood of EM, with the risks as headline. */
export function drawData(body: DataBody, subtitle: string): Promise<Figure> {
  const trajectory = body.model.log_likelihood_trajectory_nats;
  const { eigenvalues } = body.model;
  const chart: Chart =
    trajectory.length > 0
      ? {
          kind: 'lines',
          chart: {
            title: 'Log-likelihood of EM',
            xLabel: 'iteration',
            yLabel: 'nats a row',
            width: 964,
            series: [{ name: 'log-likelihood', x: trajectory.map((_, i) => i), y: trajectory }],
          },
        }
      : {
          kind: 'lines',
          chart: {
            title: 'Eigenvalues of the factors',
            xLabel: 'factor',
            yLabel: 'eigenvalue',
            width: 964,
            yZero: true,
            series: [{ name: 'eigenvalue', x: eigenvalues.map((_, i) => i + 1), y: eigenvalues }],
            references: [{ label: 'noise', value: body.model.noise_variance ?? Number.NaN }],
          },
        };
  const risk = (label: string, { value, low, high }: DataBody['gain']) => ({
    label,
    value: value ?? Number.NaN,
    ...(low !== null && high !== null && { interval: [low, high] as const }),
    intervalName: '95 % over test rows',
  });
  return chartFigure({
    title: 'Pretraining against supervised learning',
    subtitle,
    headline: [
      risk(`Pretrained, ${body.measure}`, body.risk_pretrained),
      risk(`Supervised, ${body.measure}`, body.risk_supervised),
      risk('Supervised minus pretrained', body.gain),
    ],
    charts: [chart],
  });
}
