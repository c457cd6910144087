import type { Figure } from '../../report/plots/figure.js';
import { lineChart } from '../../report/plots/line-chart.js';
import type { Panel } from '../../report/plots/panel.js';
import { shareBars } from '../../report/plots/share-bars.js';
import type { SummaryCell } from '../../report/summary-table.js';
import { type Selection, selectionEntropy } from './selector.js';
import {
  type InterferenceRow,
  interferenceByCount,
  type LikeliestTokens,
  type SelectionBaselines,
  type SelectionFigures,
  type SelectorSettings,
  selectionBaselines,
  selectionFigures,
  type TrainedSelector,
  trainSelector,
} from './train-selector.js';

export const SELECT_SCHEMA = 'fuse-select';

/** A gate to fit. Structured-cloneable. */
export interface SelectorRequest {
  readonly ces: readonly Float64Array[];
  readonly settings: SelectorSettings;
  readonly nearTie: number;
  readonly positions?: LikeliestTokens;
}

export interface FittedSelector {
  readonly trained: TrainedSelector;
  readonly baselines: SelectionBaselines;
  readonly interference: readonly InterferenceRow[] | null;
}

/** Fits a gate: a job. */
export async function fitSelector({ ces, settings, nearTie, positions }: SelectorRequest): Promise<FittedSelector> {
  return {
    trained: trainSelector(ces, settings),
    baselines: selectionBaselines(ces, nearTie),
    interference: positions ? interferenceByCount(ces, positions, settings) : null,
  };
}

interface FiguresBody {
  readonly weighted_ce_nats: number;
  readonly importance: readonly number[];
  readonly importance_shares: readonly number[];
  readonly cv2: number;
  readonly selection_shares: readonly number[];
  readonly effective_sources: number;
  readonly entropy_nats: number;
  readonly fused_score: number;
}

export interface SelectBody {
  readonly models: readonly string[];
  readonly sequences: number;
  readonly dropped_nan: number;
  readonly gate: {
    readonly threshold: number;
    readonly feedback_weight: number;
    readonly batch_size: number;
    readonly steps: number;
    readonly learning_rate: number;
  };
  readonly before: FiguresBody;
  readonly after: FiguresBody;
  readonly baselines: {
    readonly least_ce_nats: number;
    readonly average_ce_nats: number;
    readonly mean_ce_nats: readonly number[];
    readonly least_ce_shares: readonly number[];
    readonly near_ties: number;
  };
  readonly interference:
    | readonly {
        readonly sources: number;
        readonly models: readonly string[];
        readonly mince: number;
        readonly avgce: number;
        readonly selected: number;
      }[]
    | null;
  readonly curve: readonly {
    readonly step: number;
    readonly loss_nats: number;
    readonly cv2: number;
    readonly shares: readonly number[];
  }[];
}

function figuresBody(figures: SelectionFigures): FiguresBody {
  const sum = figures.importance.reduce((a, b) => a + b, 0);
  return {
    weighted_ce_nats: figures.weightedCe,
    importance: [...figures.importance],
    importance_shares: Array.from(figures.importance, (value) => value / sum),
    cv2: figures.feedback,
    selection_shares: figures.selectionShares,
    effective_sources: figures.effectiveSources,
    entropy_nats: figures.entropy,
    fused_score: figures.fusedScore,
  };
}

/** Points of a curve in a report at most. */
const MOST_POINTS = 200;

export function selectBody(
  { trained, baselines, interference }: FittedSelector,
  models: readonly string[],
  counts: { readonly sequences: number; readonly droppedNan: number },
  settings: SelectorSettings,
): SelectBody {
  const { curve } = trained;
  const stretch = Math.ceil(curve.length / MOST_POINTS);
  return {
    models,
    sequences: counts.sequences,
    dropped_nan: counts.droppedNan,
    gate: {
      threshold: settings.threshold,
      feedback_weight: settings.feedbackWeight,
      batch_size: settings.batchSize,
      steps: settings.steps,
      learning_rate: settings.learningRate,
    },
    before: figuresBody(trained.before),
    after: figuresBody(trained.after),
    baselines: {
      least_ce_nats: baselines.leastCe,
      average_ce_nats: baselines.averageCe,
      mean_ce_nats: baselines.meanCe,
      least_ce_shares: baselines.leastCeShares,
      near_ties: baselines.nearTies,
    },
    interference: interference?.map((one) => ({ ...one, models: models.slice(0, one.sources) })) ?? null,
    curve: curve
      .filter((_, i) => i % stretch === 0 || i === curve.length - 1)
      .map(({ step, loss, feedback, shares }) => ({ step, loss_nats: loss, cv2: feedback, shares })),
  };
}

/** Columns of the table: scores, P, what is kept and weights of every model. */
export function selectionColumns(count: number): string[] {
  const models = Array.from({ length: count }, (_, k) => k);
  return [
    'sequence',
    ...['score', 'probability', 'kept', 'weight'].flatMap((name) => models.map((k) => `${name}_${k}`)),
    ...['fused_score', 'effective_sources', 'entropy_nats'],
  ];
}

/** Rows of the table, a sequence each. @param kept numbers of the sequences that were read */
export function* selectionRows(
  gate: Float64Array,
  ces: readonly Float64Array[],
  threshold: number,
  kept: Int32Array,
): Generator<(string | number)[]> {
  const selections: readonly Selection[] = selectionFigures(gate, ces, threshold).selections;
  for (const [s, { scores, probabilities, kept: models, weights, fusedScore }] of selections.entries()) {
    const entropy = selectionEntropy(weights);
    yield [kept[s], ...scores, ...probabilities, ...models, ...weights, fusedScore, Math.exp(entropy), entropy];
  }
}

export function selectSummary(body: SelectBody): SummaryCell[][] {
  const { before, after, baselines } = body;
  const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
  return [
    ['sequences', body.sequences],
    ...body.models.flatMap((name, k): SummaryCell[][] => [
      [`${name}: mean cross-entropy, nats`, baselines.mean_ce_nats[k]],
      [`${name}: best for`, percent(baselines.least_ce_shares[k])],
      [`${name}: kept for`, percent(after.selection_shares[k])],
      [`${name}: share of the weights`, percent(after.importance_shares[k])],
    ]),
    ['weighted cross-entropy before, nats', before.weighted_ce_nats],
    ['weighted cross-entropy, nats', after.weighted_ce_nats],
    ['of the best model each, nats', baselines.least_ce_nats],
    ['of AvgCE, nats', baselines.average_ce_nats],
    ['CV² of the importance before', before.cv2],
    ['CV² of the importance', after.cv2],
    ['effective number of sources', after.effective_sources],
    ...(body.interference ?? []).map(({ sources, mince, avgce, selected }): SummaryCell[] => [
      `interference of ${sources} models: MinCE, AvgCE, selector`,
      [mince, avgce, selected].map(percent).join(', '),
    ]),
  ];
}

/** Importance over the steps, shares of the selection, interference against the number of sources. */
export async function selectFigure(body: SelectBody, subtitle: string): Promise<Figure> {
  const { curve, models, after, before, interference } = body;
  const steps = curve.map(({ step }) => step);
  const panels: Panel[] = [
    await lineChart({
      title: 'Importance over the steps',
      note: 'Share of each model in the weights of a batch.',
      xLabel: 'step',
      yLabel: 'share',
      yLow: 0,
      series: models.map((name, k) => ({ name, x: steps, y: curve.map(({ shares }) => shares[k]) })),
      dots: false,
    }),
    await shareBars({
      title: 'Shares of the weights',
      note: `A model is kept above P = ${body.gate.threshold}.`,
      classes: models,
      bars: [
        { name: 'before', shares: before.importance_shares },
        { name: 'fitted', shares: after.importance_shares },
        { name: 'least cross-entropy', shares: body.baselines.least_ce_shares },
      ],
    }),
  ];
  if (interference) {
    const x = interference.map(({ sources }) => sources);
    const series = (['mince', 'avgce', 'selected'] as const).map((key) => ({
      name: { mince: 'MinCE', avgce: 'AvgCE', selected: 'selector' }[key],
      x,
      y: interference.map((one) => one[key]),
    }));
    panels.push(
      await lineChart({
        title: 'Interference against the number of models',
        note: 'Share of positions at which the fused choice is wrong while a kept model is right.',
        xLabel: 'models',
        yLabel: 'share',
        yLow: 0,
        series,
      }),
    );
  }
  return {
    title: 'Selection of sources',
    subtitle,
    headline: [
      { label: 'Sequences', value: body.sequences },
      { label: 'Weighted cross-entropy', value: after.weighted_ce_nats, unit: 'nats' },
      { label: 'CV² of the importance', value: after.cv2 },
      { label: 'Effective number of sources', value: after.effective_sources },
    ],
    panels,
    sections: [],
  };
}
