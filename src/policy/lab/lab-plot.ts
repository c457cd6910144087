import type { Figure } from '../../report/plots/figure.js';
import { type LineSeries, lineChart } from '../../report/plots/line-chart.js';
import type { Panel } from '../../report/plots/panel.js';
import { type LawFit, predictLaw } from '../law/law-fit.js';
import type { LabOutcome } from './lab-report.js';
import { type MethodRuns, meanCurve, seedMean } from './summary.js';
import type { LabRun } from './types.js';

/** Points of a drawn law. */
const LAW_POINTS = 60;
/** Steps that are shown of a run; more cannot be told apart. */
const MOST_POINTS = 600;

/** Every k-th step, so that no more than `MOST_POINTS` are drawn; the last one always. */
function shownSteps(steps: number): number[] {
  const stride = Math.ceil(steps / MOST_POINTS);
  return Array.from({ length: steps }, (_, s) => s).filter((s) => s % stride === 0 || s === steps - 1);
}

function curveSeries(
  methods: readonly MethodRuns[],
  name: 'entropy' | 'success',
  steps: readonly number[],
): LineSeries[] {
  return methods.map(({ label, runs }) => {
    const { mean, standardError } = meanCurve(runs.map(({ curves }) => curves[name]));
    // Engines that sample their evaluations do not make one in every step.
    const measured = steps.filter((s) => !Number.isNaN(mean[s]));
    return {
      name: label,
      x: measured,
      y: measured.map((s) => mean[s]),
      standardError: measured.map((s) => standardError[s]),
    };
  });
}

/** Mean entropy and mean success of a method in the order of its steps. */
function pathOf({ runs }: MethodRuns, steps: readonly number[]): { readonly x: number[]; readonly y: number[] } {
  const entropy = meanCurve(runs.map(({ curves }) => curves.entropy)).mean;
  const success = meanCurve(runs.map(({ curves }) => curves.success)).mean;
  const measured = steps.filter((s) => !Number.isNaN(success[s]));
  return { x: measured.map((s) => entropy[s]), y: measured.map((s) => success[s]) };
}

/** A law between two entropies, with parameters averaged over seeds; linear in them, so this is the mean of the laws. */
function lawSeries(name: string, fits: readonly LawFit[], low: number, high: number, colour: number): LineSeries {
  const ratio = high / low;
  const x = Float64Array.from({ length: LAW_POINTS }, (_, i) => low * ratio ** (i / (LAW_POINTS - 1)));
  const each = fits.map((fit) => predictLaw(fit, x));
  return { name, x, y: Array.from(x, (_, i) => seedMean(each.map((law) => law[i])).mean), dashed: true, colour };
}

/** Success against entropy of the plain rule with its laws, and what the early one says of the end. */
async function lawPanel({ plain, setting }: LabOutcome, steps: readonly number[]): Promise<Panel[]> {
  if (plain === undefined) return [];
  const path = pathOf(plain, steps);
  const laws = plain.runs.flatMap(({ laws: found }) => (typeof found === 'string' ? [] : [found]));
  const early = laws.flatMap(({ early: found }) => (found === undefined ? [] : [found.fit]));
  const [low, high] = [Math.min(...path.x.filter((h) => h > 0)), Math.max(...path.x)];
  const ceiling = early.length === 0 ? Number.NaN : seedMean(early.map((fit) => fit.ceiling)).mean;
  return [
    await lineChart({
      title: 'Law of the plain rule',
      note: `R = -a e^H + b over all steps, and over the first ${setting.early}: means over seeds.`,
      xLabel: 'entropy (nats)',
      yLabel: 'success probability',
      xScale: 'log',
      dots: false,
      series: [
        { name: `${plain.label} (mean over seeds)`, ...path, colour: 0 },
        ...(laws.length > 0
          ? [
              lawSeries(
                'law, all steps',
                laws.map(({ full }) => full.fit),
                low,
                high,
                1,
              ),
            ]
          : []),
        ...(early.length > 0 ? [lawSeries(`law, first ${setting.early} steps`, early, low, high, 2)] : []),
      ],
      references: [{ value: ceiling, label: 'ceiling predicted early' }],
    }),
  ];
}

/** Groups generated for one that was trained on, so far: what recovery saves. */
async function groupsPanel(methods: readonly MethodRuns<LabRun>[], steps: readonly number[]): Promise<Panel[]> {
  const ratio = ({ curves: { generatedGroups, usedGroups } }: LabRun): Float64Array => {
    let [generated, used] = [0, 0];
    return generatedGroups.map((count, s) => {
      generated += count;
      used += Number.isNaN(usedGroups[s]) ? 0 : usedGroups[s];
      return used > 0 ? generated / used : Number.NaN;
    });
  };
  const filtered = methods.filter(({ runs }) =>
    runs.some(({ curves }) => curves.usedGroups.some((used, s) => used !== curves.generatedGroups[s])),
  );
  if (filtered.length === 0) return [];
  return [
    await lineChart({
      title: 'Groups generated for one trained on',
      note: 'Sums from the first step on; one standard error over seeds.',
      xLabel: 'step',
      yLabel: 'generated / used',
      yScale: 'log',
      dots: false,
      series: filtered.map(({ label, runs }) => {
        const { mean, standardError } = meanCurve(runs.map(ratio));
        return {
          name: label,
          x: steps,
          y: steps.map((s) => mean[s]),
          standardError: steps.map((s) => standardError[s]),
        };
      }),
    }),
  ];
}

/** Entropy and success by step with bands over seeds, the law of the plain rule, and the paths of all methods. */
export async function drawLab(outcome: LabOutcome, subtitle: string): Promise<Figure> {
  const { methods, setting, directions } = outcome;
  const steps = shownSteps(setting.steps);
  const { length } = setting.seeds;
  const band = length === 1 ? 'One seed.' : `Mean over ${length} seeds; one standard error.`;
  const panels = [
    await lineChart({
      title: 'Entropy of the policy',
      note: band,
      xLabel: 'step',
      yLabel: 'entropy (nats)',
      yScale: 'log',
      dots: false,
      series: curveSeries(methods, 'entropy', steps),
    }),
    await lineChart({
      title: 'Probability of a right answer',
      note: band,
      xLabel: 'step',
      yLabel: 'success probability',
      dots: false,
      series: curveSeries(methods, 'success', steps),
    }),
    ...(await lawPanel(outcome, steps)),
    await lineChart({
      title: 'Success against entropy',
      note: 'From the untrained policy on the right; means over seeds.',
      xLabel: 'entropy (nats)',
      yLabel: 'success probability',
      xScale: 'log',
      dots: false,
      series: methods.map((method) => ({ name: method.label, ...pathOf(method, steps) })),
    }),
    ...(await groupsPanel(methods, steps)),
  ];
  const last = setting.steps - 1;
  const headline = methods.map(({ label, runs }) => {
    const { mean, standardError } = seedMean(runs.map(({ curves }) => curves.success[last]));
    return { label: `${label}: success`, value: mean, ...(Number.isFinite(standardError) && { standardError }) };
  });
  const held = directions.filter((direction) => direction.held).length;
  return {
    title: `Policies trained under ${methods.length} rules: ${setting.engine.title}`,
    subtitle: directions.length === 0 ? subtitle : `${subtitle}; ${held} of ${directions.length} known directions held`,
    headline,
    panels,
    sections: [],
  };
}
