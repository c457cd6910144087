import { chartFigure } from '../../report/plots/chart-figure.js';
import type { Figure } from '../../report/plots/figure.js';
import { heatMap } from '../../report/plots/heat-map.js';
import { histogramChart } from '../../report/plots/histogram.js';
import { lineChart } from '../../report/plots/line-chart.js';
import type { Panel } from '../../report/plots/panel.js';
import { reliabilityChart } from '../../report/plots/reliability.js';
import type { AlloysResult } from './alloys-job.js';
import { candidateConflicts, tenths } from './alloys-report.js';
import type { EvaluationResult } from './evaluate.js';
import { CALIBRATION_BINS, calibrationBins, errorByUnknown } from './label-scores.js';

/** Similar less dissimilar, elements in the order of their tree. */
function substitutability({ elements, matrices }: AlloysResult): Promise<Panel> {
  const n = elements.length;
  const order = Array.from(matrices.order);
  return heatMap({
    title: 'Substitutability of elements',
    note: "Mass of similar less mass of dissimilar; elements in the order of Ward's tree.",
    rows: order.map((e) => elements[e]),
    columns: order.map((e) => elements[e]),
    rowLabel: 'element',
    columnLabel: 'element',
    values: order.flatMap((a) =>
      order.map((b) => (a === b ? Number.NaN : matrices.similar[a * n + b] - matrices.dissimilar[a * n + b])),
    ),
    valueLabel: 'similar less dissimilar',
    kind: 'signed',
  });
}

function conflicts(result: AlloysResult): Promise<Panel> {
  const edges = Array.from({ length: CALIBRATION_BINS + 1 }, (_, i) => i / CALIBRATION_BINS);
  const series = [
    { name: 'substitutions', counts: tenths(result.substitutions.map(({ conflict }) => conflict)) },
    ...(result.candidates === undefined ? [] : [{ name: 'candidates', counts: tenths(candidateConflicts(result)) }]),
  ];
  return histogramChart({
    title: 'Conflict',
    note: "Mass that contradicts itself before Dempster's rule divides it out.",
    xLabel: 'conflict K',
    unit: 'unit',
    items: 'combinations',
    series: series.map(({ name, counts }) => ({ name, histogram: { edges, counts } })),
  });
}

function unknownAndError({ predictions }: EvaluationResult): Promise<Panel> {
  const bins = errorByUnknown(predictions).filter(({ rows }) => rows > 0);
  return lineChart({
    title: 'Ignorance and error',
    note: 'Share of wrong labels among held-out alloys by the mass on no single label.',
    xLabel: 'mass on no single label',
    yLabel: 'share wrong',
    yLow: 0,
    series: [
      {
        name: 'error',
        x: bins.map(({ predicted }) => predicted),
        y: bins.map(({ observed }) => observed),
        standardError: bins.map(({ standardError }) => standardError),
      },
    ],
  });
}

function probabilities({ candidates, labelNames }: AlloysResult): Promise<Panel> | undefined {
  if (candidates === undefined) return undefined;
  const k = labelNames.length;
  const found = Array.from(candidates.predictions.unknown, (_, i) => candidates.predictions.probabilities[i * k]);
  return histogramChart({
    title: `Probability of ${labelNames[0]} of the candidates`,
    xLabel: `P(${labelNames[0]})`,
    unit: 'unit',
    items: 'candidates',
    series: [
      {
        name: 'candidates',
        histogram: {
          edges: Array.from({ length: CALIBRATION_BINS + 1 }, (_, i) => i / CALIBRATION_BINS),
          counts: tenths(found),
        },
      },
    ],
  });
}

/** Substitutability, conflict, candidates; and of held-out alloys reliability and error by ignorance. */
export async function drawAlloys(result: AlloysResult, subtitle: string): Promise<Figure> {
  const { evaluation, labelNames, labelCounts, substitutions } = result;
  const panels: Panel[] = [await substitutability(result)];
  if (evaluation !== undefined) {
    panels.push(
      await reliabilityChart({
        title: 'Reliability',
        note: `Held-out alloys, ${evaluation.kind}: predicted probability against what they are.`,
        xLabel: `predicted P(${labelNames[0]})`,
        yLabel: `share that is ${labelNames[0]}`,
        items: 'alloys',
        bins: calibrationBins(evaluation.predictions).map((bin) => ({ ...bin, count: bin.rows })),
        probability: true,
      }),
      await unknownAndError(evaluation),
    );
  }
  panels.push(await conflicts(result));
  const shares = await probabilities(result);
  if (shares !== undefined) panels.push(shares);
  const lead = evaluation?.pooled[0];
  const figure = await chartFigure({
    title: 'Evidence on substitutions between alloys',
    subtitle,
    headline: [
      { label: 'Alloys', value: labelCounts.reduce((sum, count) => sum + count, 0) },
      { label: 'Pieces of evidence', value: result.pieces },
      { label: 'Substitutions', value: substitutions.length },
      ...(lead === undefined
        ? []
        : [
            { label: 'Held-out accuracy', value: lead.accuracy, standardError: lead.accuracySe },
            ...(Number.isNaN(lead.auc) ? [] : [{ label: 'Held-out AUC', value: lead.auc, standardError: lead.aucSe }]),
          ]),
    ],
    charts: [],
    tables:
      evaluation === undefined
        ? []
        : [
            {
              heading: 'Held-out alloys',
              table: {
                columns: ['method', 'accuracy', 'with evidence', 'macro F1', 'AUC', 'Brier'],
                rows: evaluation.methods.map((name, m) => {
                  const scores = evaluation.pooled[m];
                  const cells = [scores.accuracy, scores.decidedAccuracy, scores.macroF1, scores.auc, scores.brier];
                  return [name, ...cells.map((value) => (Number.isNaN(value) ? '' : value))];
                }),
              },
            },
          ],
  });
  return { ...figure, panels: [...panels, ...figure.panels] };
}
