import type { Figure } from '../report/plots/figure.js';
import { type LineSeries, lineChart } from '../report/plots/line-chart.js';
import type { Panel } from '../report/plots/panel.js';
import { FULL_WIDTH } from '../report/plots/panel.js';
import type { SparseResult } from './sparse-job.js';
import type { RegressBody } from './sparse-report.js';

/** Columns drawn by name on the path; the others would hide them. */
const MOST_LINES = 10;

const SOLVER_NAMES: Readonly<Record<string, string>> = {
  pg: 'proximal gradient',
  ag: 'accelerated, restarted',
  ncg: 'conjugate gradient',
};

/** Draws the solution path, the error of cross-validation, the size of the support, and the solvers' way down. */
export async function drawRegress(body: RegressBody, result: SparseResult, subtitle: string): Promise<Figure> {
  const panels: Panel[] = [];
  if (result.points.length > 1) panels.push(...(await pathPanels(body, result)));
  if (result.traces.length > 0) panels.push(...(await solverPanels(result)));
  const cv = body.cross_validation;
  return {
    title: `${body.penalty.toUpperCase()} ${body.family} regression`,
    subtitle,
    headline: [
      { label: 'Rows', value: body.rows },
      { label: 'Columns', value: body.columns },
      { label: 'Selected', value: body.support_size },
      { label: 'lambda', value: body.lambda },
      { label: 'Deviance explained', value: body.deviance_explained },
      { label: 'Largest KKT residual', value: body.max_kkt_residual },
      ...(cv === null ? [] : [{ label: `Error (${cv.measure})`, value: cv.error, standardError: cv.error_se }]),
    ],
    panels,
    sections: [],
  };
}

/** Columns by the largest coefficient they reach on the path. */
function strongest(result: SparseResult, most: number): number[] {
  const largest = new Map<number, number>();
  for (const { coefficients } of result.points) {
    coefficients.columns.forEach((j, k) => {
      largest.set(j, Math.max(largest.get(j) ?? 0, Math.abs(coefficients.values[k])));
    });
  }
  const chosen = new Set(result.points[result.chosen].coefficients.columns);
  const rank = (j: number): number => (chosen.has(j) ? 1e6 : 0) + (largest.get(j) ?? 0);
  return [...largest.keys()].sort((a, b) => rank(b) - rank(a) || a - b).slice(0, most);
}

async function pathPanels(body: RegressBody, result: SparseResult): Promise<Panel[]> {
  const { points, validation } = result;
  const lambdas = points.map(({ lambda }) => lambda);
  const named = strongest(result, MOST_LINES);
  const series = named.map(
    (j): LineSeries => ({
      name: result.names[j],
      x: lambdas,
      y: points.map(({ coefficients }) => {
        const at = coefficients.columns.indexOf(j);
        return at < 0 ? 0 : coefficients.values[at];
      }),
    }),
  );
  const markedX = { value: body.lambda, label: 'chosen' };
  const common = { xLabel: 'lambda', xScale: 'log' as const, markedX };
  const all = new Set(points.flatMap(({ coefficients }) => [...coefficients.columns])).size;
  const panels = [
    await lineChart({
      ...common,
      title: 'Solution path',
      note: `Coefficients of standardised columns; ${named.length} of ${all} that enter are drawn.`,
      yLabel: 'coefficient',
      width: FULL_WIDTH,
      height: 300,
      series,
    }),
  ];
  if (validation !== undefined) {
    panels.push(
      await lineChart({
        ...common,
        title: 'Error of cross-validation',
        note: `${validation.folds} folds; the band is one standard error.`,
        yLabel: body.cross_validation?.measure ?? 'error',
        series: [{ name: 'error', x: lambdas, y: validation.meanError, standardError: validation.standardError }],
      }),
    );
  }
  panels.push(
    await lineChart({
      ...common,
      title: 'Size of the support',
      note: 'Selected columns, and those that the strong rule let into the solver.',
      yLabel: 'columns',
      yZero: true,
      series: [
        { name: 'selected', x: lambdas, y: points.map(({ coefficients }) => coefficients.columns.length) },
        { name: 'kept by the strong rule', x: lambdas, y: points.map(({ screened }) => screened), dashed: true },
      ],
    }),
  );
  return panels;
}

async function solverPanels(result: SparseResult): Promise<Panel[]> {
  const seriesBy = (x: (trace: SparseResult['traces'][number]) => ArrayLike<number>): LineSeries[] =>
    result.traces.map((trace) => ({
      name: `${SOLVER_NAMES[trace.solver]}${trace.lineSearch ? `, ${trace.lineSearch}` : ''}`,
      x: x(trace),
      y: trace.gap.map((gap) => (gap > 1e-16 ? gap : Number.NaN)),
    }));
  const common = { yLabel: 'objective less the best', yScale: 'log' as const };
  return [
    await lineChart({
      ...common,
      title: 'Objective against iterations',
      note: 'From zeros at the chosen lambda.',
      xLabel: 'iterations',
      series: seriesBy(({ gap }) => Float64Array.from(gap, (_, i) => i + 1)),
    }),
    await lineChart({
      ...common,
      title: 'Objective against gradient evaluations',
      note: 'A line search of the conjugate gradients takes several.',
      xLabel: 'gradient evaluations',
      series: seriesBy(({ gradients }) => gradients),
    }),
  ];
}
