/** Audit of a teacher and student pair without training: what every loss says, and what they agree on. */
import { InputError } from '../errors.js';
import { logSumExpRow } from '../kernels/loss-rows-reference.js';
import { type ListTeacher, plackettLuceRows } from '../kernels/plackett-luce.js';
import { type Calibration, gatherCalibration } from '../training/calibration.js';
import { type Floats, IGNORED, type Loss, type TeacherRows } from '../training/types.js';
import { type CompSumAudit, gatherCompSum } from './comp-sum-audit.js';
import { type RegretBounds, regretBounds, weightProfile } from './hypothesis-weight.js';
import { chooseLosses, gatherLosses, type LeftOut, type LossFigures, type PairShape } from './pair-losses.js';
import { kendallTau, largestEntries, orderedClasses } from './rank-agreement.js';
import { createMixture, type Mixture } from './universality.js';

/** Ranks of the curve; what lies beyond is one number. */
export const RANKS = 50;
const TOP = 5;
/** Weights below this silence the label. */
const SILENT = 0.01;
/** First ranks of the histogram's bins. */
const RANK_BINS = [0, 1, 2, 3, 5, 10, 20, 50, 100, 1000] as const;

export interface PairOptions extends PairShape {
  /** All that the pair allows when absent. */
  readonly losses?: readonly Loss[];
  readonly taus: readonly number[];
  /** Temperature of the PLD weights. */
  readonly pldTau: number;
  readonly scoreBound?: number;
}

export interface PairBlock {
  readonly rows: number;
  readonly firstRow: number;
  readonly student: Floats;
  readonly teacher?: TeacherRows;
  /** [rows]. */
  readonly labels?: Int32Array;
  /** [rows, classes]: label probabilities for the comp-sum bounds. */
  readonly conditional?: Float64Array;
}

/** A mean with its standard error. */
export interface MeanFigure {
  /** NaN where no row has the figure. */
  readonly mean: number;
  readonly standard_error: number | null;
}

export interface PldFigures {
  readonly tau: number;
  readonly loss_nats: MeanFigure;
  /** Teacher's weight of the label; small ones silence it. */
  readonly first_weight: MeanFigure;
  readonly first_weight_below_001_share: number;
  /** Classes that the teacher ranks before the label. */
  readonly label_rank: MeanFigure;
  readonly label_rank_histogram: readonly {
    readonly from: number;
    readonly to: number | null;
    readonly rows: number;
  }[];
  readonly weight_entropy_nats: MeanFigure;
  readonly tail_weight: MeanFigure;
  readonly student_tail: MeanFigure;
  readonly per_rank: readonly {
    readonly rank: number;
    readonly contribution_nats: number;
    readonly standard_error: number | null;
  }[];
  /** Mean contribution of all ranks beyond. */
  readonly rest_nats: number;
}

export interface ModelFigures {
  readonly accuracy: MeanFigure;
  readonly nll_nats: MeanFigure;
  /** Rows that it is the mean of: a teacher of top-k rows knows it where its list holds the label. */
  readonly nll_rows: number;
  readonly entropy_nats: MeanFigure;
  readonly confidence: MeanFigure;
  readonly calibration: Calibration;
}

export interface AgreementFigures {
  readonly top1: MeanFigure;
  readonly top5_overlap: MeanFigure;
  /** Kendall's tau-b of the orders, and of how many classes a row. */
  readonly kendall_tau: MeanFigure;
  readonly kendall_classes: number;
}

export interface PairRegret {
  readonly samples: number;
  /** KL(teacher || student), nats per sample. */
  readonly divergence_nats: number;
  readonly mixture_total_nats: number;
  readonly student_total_nats: number;
  readonly teacher_total_nats: number;
  readonly regret_to_teacher_nats: number;
  readonly regret_to_student_nats: number;
  readonly regret_limit_nats: number;
  readonly posterior_of_teacher: number;
  readonly bounds: RegretBounds;
  readonly bound_per_sample_nats: number;
}

export interface PairAudit {
  readonly rows: number;
  readonly classes: number;
  readonly losses: readonly LossFigures[];
  readonly losses_left_out: readonly LeftOut[];
  readonly pld: PldFigures | null;
  readonly agreement: AgreementFigures | null;
  readonly student: ModelFigures | null;
  readonly teacher: ModelFigures | null;
  readonly comp_sum: CompSumAudit | null;
  readonly universality: PairRegret | null;
  readonly warnings: readonly string[];
}

/** One row for the table of rows. */
export interface PairRow {
  readonly row: number;
  readonly label: number | undefined;
  readonly studentClass: number;
  readonly studentConfidence: number;
  readonly studentNll: number;
  readonly teacherClass: number | undefined;
  readonly teacherConfidence: number | undefined;
  readonly teacherNll: number | undefined;
  readonly losses: ReadonlyMap<string, number>;
}

interface MeanGatherer {
  add(value: number): void;
  finish(): MeanFigure;
}

function gatherMean(): MeanGatherer {
  let count = 0;
  let mean = 0;
  let squares = 0;
  return {
    add(value) {
      if (Number.isNaN(value)) return;
      const difference = value - mean;
      mean += difference / ++count;
      squares += difference * (value - mean);
    },
    finish: () => ({
      mean: count > 0 ? mean : Number.NaN,
      standard_error: count > 1 ? Math.sqrt(squares / (count - 1) / count) : null,
    }),
  };
}

interface ModelRow {
  readonly best: number;
  readonly confidence: number;
  /** NaN where the label's probability is not known. */
  readonly nll: number;
  /** NaN where only the top of the distribution is known. */
  readonly entropy: number;
}

function denseRow(logits: Floats, at: number, classes: number, label: number): ModelRow {
  const logZ = logSumExpRow(logits, at, classes);
  const best = largestEntries(logits, at, classes, 1)[0];
  let entropy = 0;
  for (let j = at; j < at + classes; j++) {
    const logP = logits[j] - logZ;
    const p = Math.exp(logP);
    if (p > 0) entropy -= p * logP;
  }
  const nll = label < 0 ? Number.NaN : logZ - logits[at + label];
  return { best, confidence: Math.exp(logits[at + best] - logZ), nll, entropy };
}

function teacherRow(teacher: TeacherRows, row: number, classes: number, label: number): ModelRow {
  if (teacher.kind === 'dense') return denseRow(teacher.logits, row * classes, classes, label);
  const { k, ids, logProbs } = teacher;
  const place = label < 0 ? -1 : ids.subarray(row * k, (row + 1) * k).indexOf(label);
  const confidence = ids[row * k] < 0 ? Number.NaN : Math.exp(logProbs[row * k]);
  const nll = place < 0 ? Number.NaN : -logProbs[row * k + place];
  return { best: ids[row * k], confidence, nll, entropy: Number.NaN };
}

interface ModelGatherer {
  add(row: ModelRow, label: number): void;
  finish(): ModelFigures | null;
}

function gatherModel(): ModelGatherer {
  const accuracy = gatherMean();
  const nll = gatherMean();
  const entropy = gatherMean();
  const confidence = gatherMean();
  const calibration = gatherCalibration();
  let rows = 0;
  let nllRows = 0;
  return {
    add(row, label) {
      rows++;
      entropy.add(row.entropy);
      confidence.add(row.confidence);
      if (label < 0) return;
      nll.add(row.nll);
      if (!Number.isNaN(row.nll)) nllRows++;
      accuracy.add(row.best === label ? 1 : 0);
      if (!Number.isNaN(row.confidence)) calibration.add(row.confidence, row.best === label);
    },
    finish: () =>
      rows === 0
        ? null
        : {
            accuracy: accuracy.finish(),
            nll_nats: nll.finish(),
            nll_rows: nllRows,
            entropy_nats: entropy.finish(),
            confidence: confidence.finish(),
            calibration: calibration.finish(),
          },
  };
}

interface AgreementGatherer {
  add(block: PairBlock, row: number, student: ModelRow, teacher: ModelRow): void;
  finish(): AgreementFigures;
}

function gatherAgreement(classes: number): AgreementGatherer {
  const top1 = gatherMean();
  const top5 = gatherMean();
  const kendall = gatherMean();
  let ordered = orderedClasses(classes);
  return {
    add({ student, teacher }, row, own, given) {
      if (teacher === undefined || given.best < 0) return;
      top1.add(own.best === given.best ? 1 : 0);
      const at = row * classes;
      const top = teacher.kind === 'top';
      if (top) ordered = Math.min(ordered, teacher.k);
      const listed = top
        ? teacher.ids.subarray(row * teacher.k, (row + 1) * teacher.k).filter((id) => id >= 0)
        : largestEntries(teacher.logits, at, classes, ordered);
      const scores = top
        ? Float64Array.from(teacher.logProbs.subarray(row * teacher.k, row * teacher.k + listed.length))
        : Float64Array.from(listed, (id) => teacher.logits[at + id]);
      const best = new Set(largestEntries(student, at, classes, TOP));
      const compared = Math.min(TOP, listed.length, classes);
      top5.add(listed.subarray(0, compared).filter((id) => best.has(id)).length / compared);
      const count = Math.min(ordered, listed.length);
      const own5 = Float64Array.from(listed.subarray(0, count), (id) => student[at + id]);
      kendall.add(kendallTau(own5, scores.subarray(0, count)));
    },
    finish: () => ({
      top1: top1.finish(),
      top5_overlap: top5.finish(),
      kendall_tau: kendall.finish(),
      kendall_classes: ordered,
    }),
  };
}

interface PldGatherer {
  add(block: PairBlock): void;
  finish(): PldFigures;
}

function gatherPld(classes: number, tau: number): PldGatherer {
  const names = ['loss', 'firstWeight', 'labelRank', 'weightEntropy', 'tailWeight', 'studentTail'] as const;
  const means = Object.fromEntries(names.map((name) => [name, gatherMean()])) as Record<
    (typeof names)[number],
    MeanGatherer
  >;
  const ranks = Math.min(RANKS, classes);
  const curve = Array.from({ length: ranks }, gatherMean);
  const rest = gatherMean();
  const histogram = new Float64Array(RANK_BINS.length);
  let silent = 0;
  let counted = 0;
  return {
    add({ rows, firstRow, student, teacher, labels }) {
      if (teacher === undefined || labels === undefined) return;
      const given: ListTeacher = teacher.kind === 'dense' ? { logits: teacher.logits } : teacher;
      const found = plackettLuceRows({
        ...{ rows, classes, student, teacher: given, labels, firstRow, ranks },
        ...{ labelFirst: true, weights: 'teacher', temperature: tau, tail: 'partial', missingLabel: 'tail-share' },
        listed: teacher.kind === 'dense' ? Number.POSITIVE_INFINITY : teacher.k,
      });
      for (let row = 0; row < rows; row++) {
        if (labels[row] === IGNORED) continue;
        counted++;
        for (const name of names) means[name].add(found.figures[name][row]);
        if (found.figures.firstWeight[row] < SILENT) silent++;
        const rank = found.figures.labelRank[row];
        const bin = RANK_BINS.findLastIndex((from) => rank >= from);
        if (bin >= 0) histogram[bin]++;
        let left = found.figures.loss[row];
        curve.forEach((mean, k) => {
          const value = found.contributions[row * ranks + k];
          mean.add(value);
          left -= value;
        });
        rest.add(Math.max(0, left));
      }
    },
    finish: () => ({
      tau,
      loss_nats: means.loss.finish(),
      first_weight: means.firstWeight.finish(),
      first_weight_below_001_share: counted === 0 ? 0 : silent / counted,
      label_rank: means.labelRank.finish(),
      label_rank_histogram: RANK_BINS.map((from, i) => ({
        from,
        to: i + 1 < RANK_BINS.length ? RANK_BINS[i + 1] - 1 : null,
        rows: histogram[i],
      })),
      weight_entropy_nats: means.weightEntropy.finish(),
      tail_weight: means.tailWeight.finish(),
      student_tail: means.studentTail.finish(),
      per_rank: curve.map((mean, k) => {
        const { mean: contribution_nats, standard_error } = mean.finish();
        return { rank: k + 1, contribution_nats, standard_error };
      }),
      rest_nats: rest.finish().mean,
    }),
  };
}

/** Mixture of teacher and student, in this order, with equal prior. */
function regretOf(mixture: Mixture, divergence: number): PairRegret {
  const prior = Float64Array.of(0.5, 0.5);
  const [teacherTotal, studentTotal] = mixture.totals;
  const bounds = regretBounds(weightProfile([0, divergence], prior), mixture.seen);
  return {
    samples: mixture.seen,
    divergence_nats: divergence,
    mixture_total_nats: mixture.total,
    student_total_nats: studentTotal,
    teacher_total_nats: teacherTotal,
    regret_to_teacher_nats: mixture.total - teacherTotal,
    regret_to_student_nats: mixture.total - studentTotal,
    regret_limit_nats: Math.LN2,
    posterior_of_teacher: mixture.posterior()[0],
    bounds,
    bound_per_sample_nats: bounds.ball_nats / mixture.seen,
  };
}

export interface PairGatherer {
  /**
   * @param onRow called for every row that counts
   * @throws InputError for NaN, wrong labels, sizes that differ, with row and column
   */
  add(block: PairBlock, onRow?: (row: PairRow) => void): void;
  finish(): PairAudit;
}

/** Gathers an audit over blocks of rows; memory does not grow with them but for one number a row. */
export function gatherPair(options: PairOptions): PairGatherer {
  const { classes, taus, pldTau, scoreBound } = options;
  if (!(pldTau > 0)) throw new InputError(`the temperature of the PLD weights must be above 0; it is ${pldTau}`);
  const { losses, leftOut } = chooseLosses(options.losses, options);
  const lossSums = gatherLosses(losses);
  const compSum = options.labels && taus.length > 0 ? gatherCompSum({ taus, classes, scoreBound }) : undefined;
  const pld = options.teacher !== 'none' && options.labels ? gatherPld(classes, pldTau) : undefined;
  const agreement = options.teacher === 'none' ? undefined : gatherAgreement(classes);
  const student = gatherModel();
  const teacher = gatherModel();
  const mixture = options.teacher === 'dense' && options.labels ? createMixture(Float64Array.of(0.5, 0.5)) : undefined;
  const divergence = gatherMean();
  let rows = 0;

  const addRow = (block: PairBlock, row: number, found: ReadonlyMap<string, Float64Array>): PairRow => {
    const label = block.labels?.[row] ?? IGNORED;
    const own = denseRow(block.student, row * classes, classes, label);
    student.add(own, label);
    const given = block.teacher && teacherRow(block.teacher, row, classes, label);
    if (given !== undefined) {
      teacher.add(given, label);
      agreement?.add(block, row, own, given);
      mixture?.observe([given.nll, own.nll]);
    }
    if (block.teacher?.kind === 'dense')
      divergence.add(rowDivergence(block.teacher.logits, block.student, row, classes));
    return {
      row: block.firstRow + row,
      label: block.labels === undefined ? undefined : label,
      studentClass: own.best,
      studentConfidence: own.confidence,
      studentNll: own.nll,
      teacherClass: given?.best,
      teacherConfidence: given?.confidence,
      teacherNll: given?.nll,
      losses: new Map([...found].map(([name, values]) => [name, values[row]])),
    };
  };

  return {
    add(block, onRow) {
      const found = lossSums.add({ ...block, classes });
      compSum?.add({ ...block, logits: block.student });
      pld?.add(block);
      for (let row = 0; row < block.rows; row++) {
        if (block.labels?.[row] === IGNORED) continue;
        rows++;
        const described = addRow(block, row, found);
        onRow?.(described);
      }
    },
    finish() {
      const pldFigures = rows > 0 ? (pld?.finish() ?? null) : null;
      const audit = rows > 0 ? (compSum?.finish() ?? null) : null;
      const [own, given] = [student.finish(), teacher.finish()];
      return {
        rows,
        classes,
        losses: lossSums.finish(),
        losses_left_out: leftOut,
        pld: pldFigures,
        agreement: agreement?.finish() ?? null,
        student: own,
        teacher: given,
        comp_sum: audit,
        universality: mixture && rows > 0 ? regretOf(mixture, divergence.finish().mean) : null,
        warnings: [...warningsOf(rows, pldFigures, audit), ...unknownLabels(own, given)],
      };
    },
  };
}

function rowDivergence(teacher: Floats, student: Floats, row: number, classes: number): number {
  const at = row * classes;
  const logZt = logSumExpRow(teacher, at, classes);
  const logZs = logSumExpRow(student, at, classes);
  let sum = 0;
  for (let j = at; j < at + classes; j++) {
    const logT = teacher[j] - logZt;
    const t = Math.exp(logT);
    if (t > 0) sum += t * (logT - (student[j] - logZs));
  }
  return Math.max(0, sum);
}

/** The rows whose label a list leaves out are those that the teacher finds least likely. */
function unknownLabels(student: ModelFigures | null, teacher: ModelFigures | null): string[] {
  if (student === null || teacher === null || teacher.nll_rows >= student.nll_rows) return [];
  const share = ((100 * teacher.nll_rows) / student.nll_rows).toFixed(1);
  return [
    `the teacher's list holds the label of ${share}% of the rows: its NLL is the mean over those, and lower than over all`,
  ];
}

function warningsOf(rows: number, pld: PldFigures | null, compSum: CompSumAudit | null): string[] {
  const warnings: string[] = [];
  if (rows === 0) warnings.push('no row counts: every label is ignored');
  if (pld !== null && pld.first_weight_below_001_share > 0.25) {
    const share = (100 * pld.first_weight_below_001_share).toFixed(0);
    warnings.push(
      `${share}% of the rows give the label a PLD weight below 0.01: the teacher silences it; raise --pld-tau`,
    );
  }
  for (const { tau, bound_holds } of compSum?.by_tau ?? []) {
    if (!bound_holds) warnings.push(`tau ${tau}: the error passes its bound; check the label probabilities and ties`);
  }
  if (compSum !== null && compSum.overflowing_rows.length > 0) {
    warnings.push(`the comp-sum loss of rows ${compSum.overflowing_rows.join(', ')} overflows at the smallest tau`);
  }
  return warnings;
}
