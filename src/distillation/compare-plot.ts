import { chartFigure } from '../report/plots/chart-figure.js';
import { dotRows } from '../report/plots/dot-rows.js';
import type { Figure } from '../report/plots/figure.js';
import type { LineChart, LineSeries } from '../report/plots/line-chart.js';
import type { CellResult, HeldOutPoint } from './compare-job.js';
import { type ComparisonBody, type ComparisonPlan, chosenResults } from './compare-report.js';

/** Mean and standard error over seeds of one figure along the steps. */
function curveOf(name: string, results: readonly CellResult[], read: (point: HeldOutPoint) => number): LineSeries {
  const ended = results.filter(({ failed }) => failed === undefined);
  const points = ended[0]?.curve ?? [];
  const n = ended.length;
  const means = points.map((_, p) => ended.reduce((sum, { curve }) => sum + read(curve[p]), 0) / n);
  const errors = points.map((_, p) =>
    n < 2 ? 0 : Math.sqrt(ended.reduce((sum, { curve }) => sum + (read(curve[p]) - means[p]) ** 2, 0) / (n - 1) / n),
  );
  return { name, x: points.map(({ step }) => step), y: means, standardError: errors };
}

/** Test figures of every loss above, learning curves on the held-out rows below. */
export async function comparisonFigure(
  plan: ComparisonPlan,
  body: ComparisonBody,
  results: readonly CellResult[],
  subtitle: string,
): Promise<Figure> {
  const chosen = chosenResults(plan, results);
  const names = body.losses.map(({ name, choice }) => (choice ? `${name} (${choice})` : name));
  const chart = (
    title: string,
    yLabel: string,
    yScale: 'linear' | 'log',
    read: (point: HeldOutPoint) => number,
  ): LineChart => ({
    title,
    xLabel: 'step',
    yLabel,
    yScale,
    series: chosen.map((own, family) => curveOf(names[family], own, read)),
    dots: false,
  });
  const figure = await chartFigure({
    title: 'Losses compared on one task',
    subtitle,
    headline: [
      { label: 'seeds', value: String(body.seeds.length) },
      { label: 'rows of the student', value: String(body.task.student_rows) },
      { label: 'test rows', value: String(body.task.test_rows) },
    ],
    charts: [
      { kind: 'lines', chart: chart('Accuracy on held-out rows', 'accuracy', 'linear', ({ accuracy }) => accuracy) },
      {
        kind: 'lines',
        chart: chart('Negative log-likelihood on held-out rows', 'nats', 'log', ({ nllNats }) => nllNats),
      },
    ],
  });
  const rows = (figureName: 'accuracy' | 'nll_nats', title: string, xLabel: string) =>
    dotRows({
      title,
      xLabel,
      rows: names,
      zero: false,
      series: [
        {
          name: title,
          values: body.losses.map(({ test }) => test[figureName]?.mean ?? Number.NaN),
          standardErrors: body.losses.map(({ test }) => test[figureName]?.standard_error ?? 0),
        },
      ],
    });
  const panels = [
    await rows('accuracy', 'Test accuracy', 'share of the test rows; lines are standard errors over seeds'),
    await rows('nll_nats', 'Test negative log-likelihood', 'nats; lines are standard errors over seeds'),
  ];
  return { ...figure, panels: [...panels, ...figure.panels] };
}
