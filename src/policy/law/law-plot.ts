import type { Figure } from '../../report/plots/figure.js';
import { type LineSeries, lineChart } from '../../report/plots/line-chart.js';
import { markup } from '../../report/plots/markup.js';
import type { Panel } from '../../report/plots/panel.js';
import { FULL_WIDTH } from '../../report/plots/panel.js';
import type { LawAnalysis, RunLaw } from './law-analysis.js';
import { type LawFit, predictLaw } from './law-fit.js';
import { CAUTIONS } from './law-report.js';

/** Points of a drawn curve. */
const CURVE = 80;
/** More runs than this are told apart by colour no longer: their curves alone are drawn. */
const MOST_DETAILED = 4;

/** The figure of laws: performance against entropy, what the early points said, entropy and covariance by step. */
export async function lawFigure(analysis: LawAnalysis, subtitle: string, logEntropy: boolean): Promise<Figure> {
  const { runs, scaling } = analysis;
  const [first] = runs;
  const panels: Panel[] = [await lawPanel(runs, logEntropy)];
  if (runs.some(({ early }) => early !== undefined)) panels.push(await stepPanel(runs));
  panels.push(await curvePanel(runs, 'Entropy by step', 'mean token entropy (nats)', ({ entropy }) => entropy));
  if (runs.some(({ joined }) => joined.steps.covariance !== undefined)) {
    panels.push(
      await curvePanel(runs, 'Covariance by step', 'cov(log-probability, advantage)', ({ covariance }) => covariance),
    );
  }
  if (scaling !== undefined) panels.push(await scalingPanel(runs, scaling));
  const { fit, early } = first;
  return {
    title: 'The law of entropy and performance: R = -a e^H + b',
    subtitle,
    headline:
      runs.length > 1
        ? [{ label: 'Runs', value: runs.length }]
        : [
            { label: 'a', value: fit.a, standardError: finite(fit.aError) },
            { label: 'b', value: fit.b, standardError: finite(fit.bError) },
            { label: 'Ceiling b - a', value: fit.ceiling, standardError: finite(fit.ceilingError) },
            { label: 'R2', value: fit.r2 },
            ...(early === undefined
              ? []
              : [
                  { label: `Ceiling, first ${early.points} points`, value: early.fit.ceiling },
                  { label: 'RMSE of the prediction', value: early.rmse },
                ]),
          ],
    panels,
    sections: [
      {
        heading: 'What not to read into it',
        body: markup`<ul>${CAUTIONS.map((caution) => markup`<li>${caution}</li>`)}</ul>`,
      },
    ],
  };
}

const finite = (value: number): number | undefined => (Number.isFinite(value) ? value : undefined);

/** Entropies from `low` to `high` with the law there. */
function curve(fit: LawFit, low: number, high: number): { x: Float64Array; y: Float64Array } {
  const x = Float64Array.from({ length: CURVE }, (_, i) => low + ((high - low) * i) / (CURVE - 1));
  return { x, y: predictLaw(fit, x) };
}

async function lawPanel(runs: readonly RunLaw[], logEntropy: boolean): Promise<Panel> {
  const entropies = runs.flatMap(({ joined }) => [...joined.entropy]);
  const [lowest, highest] = [
    entropies.reduce((least, one) => Math.min(least, one), Number.POSITIVE_INFINITY),
    entropies.reduce((most, one) => Math.max(most, one), Number.NEGATIVE_INFINITY),
  ];
  // The ceilings stand at H = 0, which a logarithmic axis does not have.
  const start = logEntropy ? Math.max(lowest, 1e-6) : 0;
  const detailed = runs.length <= MOST_DETAILED;
  const name = (run: RunLaw, what: string): string => (runs.length === 1 ? what : `${run.joined.run}, ${what}`);
  const series = runs.flatMap((run, i): LineSeries[] => {
    const { joined, fit, early, intervals } = run;
    const own: LineSeries[] = [
      { name: name(run, 'measured'), x: joined.entropy, y: joined.performance, colour: i, points: true },
      { name: name(run, 'law'), ...curve(fit, start, highest), colour: i },
    ];
    if (early !== undefined && detailed) {
      own.push({
        name: name(run, `law of the first ${early.points}`),
        ...curve(early.fit, start, highest),
        colour: runs.length === 1 ? 1 : i,
        dashed: true,
      });
    }
    if (detailed) {
      const ceilings = [
        { of: 'ceiling', ends: intervals.blocks?.ceiling, fit, colour: i },
        ...(early === undefined
          ? []
          : [
              {
                of: 'early ceiling',
                ends: early.intervals.blocks?.ceiling,
                fit: early.fit,
                colour: runs.length === 1 ? 1 : i,
              },
            ]),
      ];
      for (const { ends, fit: of, colour, of: what } of ceilings) {
        if (ends === undefined || logEntropy) continue;
        // A short bar at H = 0, as wide as a fortieth of the axis.
        const x = [0, highest / 40];
        own.push({
          name: name(run, `${what}, block interval`),
          x,
          y: [of.ceiling, of.ceiling],
          band: { low: [ends.low, ends.low], high: [ends.high, ends.high] },
          colour,
          points: false,
        });
      }
    }
    return own;
  });
  return lineChart({
    title: 'Performance against entropy',
    note: `Points are evaluated steps; solid, the law of all of them${logEntropy ? '' : ', whose value at H = 0 is the ceiling; bars there are intervals of it, neighbours drawn together'}.`,
    xLabel: 'mean token entropy (nats)',
    yLabel: 'performance',
    xScale: logEntropy ? 'log' : 'linear',
    series,
    dots: false,
    references: detailed && runs.length === 1 ? [{ value: runs[0].fit.ceiling, label: 'ceiling' }] : [],
    width: FULL_WIDTH,
    height: 330,
  });
}

async function stepPanel(runs: readonly RunLaw[]): Promise<Panel> {
  const series = runs.flatMap(({ joined, early }, i): LineSeries[] => {
    const measured: LineSeries = {
      name: runs.length === 1 ? 'measured' : `${joined.run}, measured`,
      x: joined.step,
      y: joined.performance,
      colour: i,
    };
    if (early === undefined) return [measured];
    const { predicted, halfWidth, points } = early;
    return [
      measured,
      {
        name: runs.length === 1 ? `law of the first ${points} points` : `${joined.run}, law of the first ${points}`,
        x: joined.step.subarray(points),
        y: predicted,
        ...(runs.length <= MOST_DETAILED && {
          band: {
            low: predicted.map((value, k) => value - halfWidth[k]),
            high: predicted.map((value, k) => value + halfWidth[k]),
          },
        }),
        colour: runs.length === 1 ? 1 : i,
        dashed: true,
      },
    ];
  });
  return lineChart({
    title: 'What the early points said',
    note: 'Dashed: the later points from their entropies and the law of the early ones, with prediction intervals.',
    xLabel: 'step',
    yLabel: 'performance',
    series,
    dots: false,
  });
}

function curvePanel(
  runs: readonly RunLaw[],
  title: string,
  yLabel: string,
  of: (steps: RunLaw['joined']['steps']) => Float64Array | undefined,
): Promise<Panel> {
  return lineChart({
    title,
    note: 'All steps, evaluated or not.',
    xLabel: 'step',
    yLabel,
    series: runs.flatMap(({ joined }, i): LineSeries[] => {
      const y = of(joined.steps);
      return y === undefined ? [] : [{ name: joined.run, x: joined.steps.step, y, colour: i }];
    }),
    dots: false,
  });
}

function scalingPanel(runs: readonly RunLaw[], { a, b }: NonNullable<LawAnalysis['scaling']>): Promise<Panel> {
  const sized = runs.filter(({ joined }) => joined.params !== undefined);
  const params = sized.map(({ joined }) => joined.params ?? Number.NaN);
  const ends = [Math.min(...params), Math.max(...params)];
  const lines = [
    { name: 'a', line: a, of: (fit: LawFit) => fit.a },
    { name: 'b', line: b, of: (fit: LawFit) => fit.b },
  ];
  return lineChart({
    title: 'a and b against the size of the model',
    note: 'Straight lines in ln(parameters).',
    xLabel: 'parameters',
    yLabel: 'coefficient',
    xScale: 'log',
    series: lines.flatMap(({ name, line, of }, i): LineSeries[] => [
      { name: `${name}, runs`, x: params, y: sized.map(({ fit }) => of(fit)), colour: i, points: true },
      { name, x: ends, y: ends.map((x) => line.intercept + line.slope * Math.log(x)), colour: i },
    ]),
    dots: false,
  });
}
