import type { Cell } from '../report/csv.js';
import type { Figure } from '../report/plots/figure.js';
import { type LineSeries, lineChart } from '../report/plots/line-chart.js';
import type { Panel } from '../report/plots/panel.js';
import { reliabilityChart } from '../report/plots/reliability.js';
import { scatterChart } from '../report/plots/scatter-chart.js';
import type { SummaryCell } from '../report/summary-table.js';
import { errorOfSurrogate, surrogateOfError } from './comp-sum-bounds.js';
import type { MeanFigure, ModelFigures, PairAudit, PairRow } from './pair-audit.js';

export const SCORE_SCHEMA = 'distill-score';

/** Columns of `--out`: one row a loss. */
export const LOSS_COLUMNS = ['loss', 'mean_nats', 'standard_error_nats', 'gradient_norm'] as const;
/** Columns of `--table`: one row a rank of the Plackett-Luce list; the last row is all ranks beyond. */
export const RANK_COLUMNS = ['rank', 'contribution_nats', 'standard_error_nats'] as const;

export function* lossRows({ losses }: PairAudit): Generator<readonly Cell[]> {
  for (const { loss, mean, standard_error, gradient_norm } of losses) yield [loss, mean, standard_error, gradient_norm];
}

export function* rankRows({ pld }: PairAudit): Generator<readonly Cell[]> {
  if (pld === null) return;
  for (const { rank, contribution_nats, standard_error } of pld.per_rank)
    yield [rank, contribution_nats, standard_error];
  yield ['rest', pld.rest_nats, null];
}

/** Columns and rows of `--per-row`. */
export function rowTable(rows: readonly PairRow[]): { columns: string[]; rows: Iterable<readonly Cell[]> } {
  const losses = [...(rows[0]?.losses.keys() ?? [])];
  const columns = [
    ...['row', 'label', 'student_class', 'student_confidence', 'student_nll_nats'],
    ...['teacher_class', 'teacher_confidence', 'teacher_nll_nats'],
    ...losses.map((name) => `${name}_nats`),
  ];
  const cells = rows.map((row): Cell[] => [
    ...[row.row, row.label, row.studentClass, row.studentConfidence, row.studentNll],
    ...[row.teacherClass, row.teacherConfidence, row.teacherNll],
    ...losses.map((name) => row.losses.get(name)),
  ]);
  return { columns, rows: cells };
}

export const scoreBody = (audit: PairAudit): object => ({
  ...audit,
  definitions: {
    losses: 'means over the rows that count, of each loss before any weight; kd alone carries T^2',
    gradient_norm: 'Euclidean norm of the derivative of the mean loss by all logits of the student',
    per_rank: 'w_k (A_k - u_k) of rank k, label first, averaged over rows; they add up to the PLD loss',
    calibration: 'expected calibration error of the greatest probability, 15 equal bins',
    comp_sum:
      'zero-one excess <= gamma_exact for label probabilities p; without --conditional p is one-hot and the bound is a certificate of error on these rows',
    universality:
      'mixture of teacher and student with equal prior; the bound is the least of samples * radius - ln W(radius) about the teacher',
  },
});

const found = (figure: MeanFigure | undefined): readonly [SummaryCell, SummaryCell] => [
  figure?.mean,
  figure?.standard_error ?? undefined,
];

function modelRows(name: string, figures: ModelFigures | null): SummaryCell[][] {
  if (figures === null) return [];
  // Top-k rows of a teacher have no entropy.
  const rows: SummaryCell[][] = Number.isNaN(figures.entropy_nats.mean)
    ? []
    : [[`${name} entropy, nats`, ...found(figures.entropy_nats)]];
  if (figures.accuracy.standard_error === null && figures.nll_nats.standard_error === null) return rows;
  return [
    [`${name} accuracy`, ...found(figures.accuracy)],
    [`${name} NLL, nats`, ...found(figures.nll_nats)],
    [`${name} calibration error`, figures.calibration.error, undefined],
    ...rows,
  ];
}

export const SUMMARY_HEADER = ['figure', 'value', 'standard error'] as const;

/** What standard output shows: figure, value, standard error. */
export function summaryRows(audit: PairAudit): SummaryCell[][] {
  const { pld, agreement, comp_sum, universality } = audit;
  return [
    ['rows', audit.rows, undefined],
    ...audit.losses.map(({ loss, mean, standard_error }): SummaryCell[] => [loss, mean, standard_error ?? undefined]),
    ...modelRows('student', audit.student),
    ...modelRows('teacher', audit.teacher),
    ...(agreement
      ? [
          ['top-1 agreement', ...found(agreement.top1)],
          ['top-5 overlap', ...found(agreement.top5_overlap)],
          [`Kendall tau of ${agreement.kendall_classes} classes`, ...found(agreement.kendall_tau)],
        ]
      : []),
    ...(pld ? [['mean PLD weight of the label', ...found(pld.first_weight)]] : []),
    ...(comp_sum?.by_tau ?? []).map((row): SummaryCell[] => [
      `error bound, tau ${row.tau}`,
      row.gamma_exact,
      undefined,
    ]),
    ...(comp_sum ? [['zero-one excess', comp_sum.by_tau[0]?.zero_one_excess, undefined]] : []),
    ...(universality ? [['regret bound, nats per sample', universality.bound_per_sample_nats, undefined]] : []),
  ];
}

function rankPanel(audit: PairAudit): Promise<Panel>[] {
  const { pld } = audit;
  if (pld === null) return [];
  const ranks = pld.per_rank.filter(({ contribution_nats }, i) => i === 0 || contribution_nats > 0);
  const beyond =
    audit.classes > pld.per_rank.length
      ? ` ${pld.rest_nats.toPrecision(3)} nats lie beyond rank ${pld.per_rank.length}.`
      : '';
  return [
    lineChart({
      title: 'What each rank adds to the PLD loss',
      note: `Rank 1 is the label.${beyond}`,
      xLabel: 'rank',
      yLabel: 'nats',
      yZero: true,
      series: [
        {
          name: `tau ${pld.tau}`,
          x: ranks.map(({ rank }) => rank),
          y: ranks.map(({ contribution_nats }) => contribution_nats),
          standardError: ranks.map(({ standard_error }) => standard_error ?? 0),
        },
      ],
    }),
  ];
}

const CURVE_POINTS = 121;

/** Gamma curves up to the largest measured excess, with the measured points as marks on lines of their own. */
function boundPanel({ comp_sum }: PairAudit): Promise<Panel>[] {
  const rows = (comp_sum?.by_tau ?? []).filter(({ surrogate_excess }) => Number.isFinite(surrogate_excess));
  if (comp_sum === null || rows.length === 0) return [];
  const series: LineSeries[] = rows.flatMap(({ tau, surrogate_excess, zero_one_excess }, colour): LineSeries[] => {
    // From well below both the measured excess and the one at which the bound says nothing.
    const empty = surrogateOfError(1, tau, comp_sum.classes);
    const end = Math.max(empty, surrogate_excess);
    const low = Math.min(surrogate_excess > 0 ? surrogate_excess : empty, empty) / 20;
    const x = Float64Array.from({ length: CURVE_POINTS }, (_, i) => low * (end / low) ** (i / (CURVE_POINTS - 1)));
    return [
      {
        name: `tau ${tau}`,
        colour,
        dashed: false,
        x,
        y: x.map((value) => errorOfSurrogate(value, tau, comp_sum.classes)),
      },
      { name: `tau ${tau}, these rows`, colour, points: true, x: [surrogate_excess], y: [zero_one_excess] },
    ];
  });
  return [
    lineChart({
      title: 'Error that the excess of a comp-sum loss allows',
      note: 'Curves: the bound Gamma. Dots: these rows; each must lie under its own curve.',
      xLabel: 'excess of the loss',
      yLabel: 'zero-one excess',
      xScale: 'log',
      yLow: 0,
      yHigh: 1,
      series,
      dots: false,
    }),
  ];
}

function reliabilityPanels({ student, teacher }: PairAudit): Promise<Panel>[] {
  return (
    [
      ['Student', student],
      ['Teacher', teacher],
    ] as const
  ).flatMap(([name, figures]) => {
    const bins = (figures?.calibration.bins ?? []).flatMap(({ rows, mean_confidence, accuracy }) =>
      mean_confidence === null || accuracy === null
        ? []
        : [
            {
              count: rows,
              predicted: mean_confidence,
              observed: accuracy,
              standardError: Math.sqrt((accuracy * (1 - accuracy)) / rows),
            },
          ],
    );
    if (bins.length === 0) return [];
    return [
      reliabilityChart({
        title: `Calibration of the ${name.toLowerCase()}`,
        note: `Expected calibration error ${(figures?.calibration.error ?? 0).toPrecision(3)}.`,
        xLabel: 'greatest probability',
        yLabel: 'share right',
        items: 'rows',
        bins,
        probability: true,
      }),
    ];
  });
}

const MOST_POINTS = 2000;

/** Teacher's confidence against the student's loss, thinned evenly. */
function confidencePanel(rows: readonly PairRow[]): Promise<Panel>[] {
  const known = rows.filter((row) => row.teacherConfidence !== undefined && !Number.isNaN(row.studentNll));
  if (known.length === 0) return [];
  const step = Math.max(1, Math.ceil(known.length / MOST_POINTS));
  const shown = known.filter((_, i) => i % step === 0);
  const series = (name: string, right: boolean) => {
    const points = shown.filter((row) => (row.teacherClass === row.label) === right);
    return {
      name,
      x: points.map((row) => row.teacherConfidence ?? Number.NaN),
      y: points.map((row) => row.studentNll),
      radius: 2.5,
    };
  };
  return [
    scatterChart({
      title: "Teacher's confidence and student's loss",
      note: shown.length < known.length ? `${shown.length} of ${known.length} rows.` : 'One dot a row.',
      xLabel: "teacher's greatest probability",
      yLabel: "student's -ln p(label), nats",
      series: [series('teacher right', true), series('teacher wrong', false)].filter(({ x }) => x.length > 0),
    }),
  ];
}

/** Per-rank curve, bounds, calibration, and confidence against loss. */
export async function drawScore(audit: PairAudit, rows: readonly PairRow[], subtitle: string): Promise<Figure> {
  const panels = await Promise.all([
    ...rankPanel(audit),
    ...boundPanel(audit),
    ...confidencePanel(rows),
    ...reliabilityPanels(audit),
  ]);
  const { agreement, student, pld } = audit;
  const figure = (label: string, value: MeanFigure | undefined, unit?: string) =>
    value === undefined || Number.isNaN(value.mean)
      ? []
      : [
          {
            label,
            value: value.mean,
            ...(unit && { unit }),
            ...(value.standard_error !== null && { standardError: value.standard_error }),
          },
        ];
  return {
    title: 'Student and teacher, as they are',
    subtitle,
    headline: [
      { label: 'Rows', value: audit.rows },
      ...figure('Top-1 agreement', agreement?.top1),
      ...figure('Student NLL', student?.nll_nats, 'nats'),
      ...figure('PLD', pld?.loss_nats, 'nats'),
      ...figure('PLD weight of the label', pld?.first_weight),
    ],
    panels,
    sections: [],
  };
}
