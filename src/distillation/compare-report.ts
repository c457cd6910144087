import { bootstrapDocuments } from '../linalg/bootstrap.js';
import type { ClassMetrics } from './class-metrics.js';
import type { CellResult, PreparedComparison } from './compare-job.js';
import type { LossCandidate } from './loss-sweep.js';

/** A family of losses: one row of the table. */
export interface LossFamily {
  /** As the user wrote it. */
  readonly name: string;
  readonly members: readonly LossCandidate[];
}

/** What chooses among the members of a family, on the held-out rows. */
export type Choice = 'accuracy' | 'nll';

/** Figures of a classifier that are compared, with their names in reports. */
export const COMPARED = ['accuracy', 'nll_nats', 'calibration_error', 'agreement', 'kl_nats'] as const;
export type Compared = (typeof COMPARED)[number];

/** A mean over seeds; everything but the mean is null with one seed. */
export interface SeedSpread {
  mean: number;
  /** Standard deviation over seeds, divisor n - 1. */
  standard_deviation: number | null;
  standard_error: number | null;
  /** 95 % percentile interval of a bootstrap of the seeds. */
  interval_low: number | null;
  interval_high: number | null;
}

export type SpreadFigures = Partial<Record<Compared, SeedSpread>>;

export interface MemberFigures {
  loss: string;
  choice: string;
  chosen: boolean;
  /** Seeds whose run ended with figures. */
  seeds: number;
  failed: number;
  held_out: SpreadFigures;
  test: SpreadFigures;
}

export interface FamilyFigures {
  name: string;
  /** The chosen member; null when no seed of any member gave figures. */
  loss: string | null;
  choice: string | null;
  test: SpreadFigures;
  /** Paired differences to the reference family by seed: this minus that. */
  difference: SpreadFigures | null;
  members: MemberFigures[];
}

export interface ComparisonBody {
  task: {
    training_rows: number;
    student_rows: number;
    held_out_rows: number;
    test_rows: number;
    features: number;
    classes: number;
  };
  student: { description: string; weights: number; steps: number };
  teacher: {
    description: string;
    held_out: Record<string, number>;
    test: Record<string, number>;
  } | null;
  seeds: number[];
  chosen_by: string;
  reference: string;
  losses: FamilyFigures[];
  warnings: string[];
}

export interface ComparisonPlan {
  readonly families: readonly LossFamily[];
  readonly seeds: readonly number[];
  readonly chooseBy: Choice;
  /** Place of the reference among the families. */
  readonly reference: number;
  readonly student: string;
  readonly teacher?: string;
  /** Seed of the bootstrap. */
  readonly seed: number;
}

const RESAMPLES = 2000;

const valuesOf = (metrics: ClassMetrics): Record<Compared, number | undefined> => ({
  accuracy: metrics.accuracy,
  nll_nats: metrics.nllNats,
  calibration_error: metrics.calibrationError,
  agreement: metrics.agreement,
  kl_nats: metrics.klNats,
});

/** Mean and spread of one figure over seeds. */
export function seedSpread(values: readonly number[], seed: number): SeedSpread {
  const n = values.length;
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  if (n < 2) {
    return { mean, standard_deviation: null, standard_error: null, interval_low: null, interval_high: null };
  }
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1);
  const pairs = Float64Array.from(values.flatMap((value) => [value, 1]));
  const { intervals } = bootstrapDocuments(pairs, 2, [([sum, count]) => sum / count], { seed, resamples: RESAMPLES });
  return {
    mean,
    standard_deviation: Math.sqrt(variance),
    standard_error: Math.sqrt(variance / n),
    interval_low: intervals?.[0].low ?? null,
    interval_high: intervals?.[0].high ?? null,
  };
}

function spreads(rows: readonly ClassMetrics[], seed: number): SpreadFigures {
  const found: SpreadFigures = {};
  if (rows.length === 0) return found;
  for (const name of COMPARED) {
    const values = rows.map((row) => valuesOf(row)[name]).filter((value): value is number => value !== undefined);
    if (values.length === rows.length) found[name] = seedSpread(values, seed);
  }
  return found;
}

/** Cells of a plan: families, their members, seeds, in this order. */
export function plannedCells({ families, seeds }: Pick<ComparisonPlan, 'families' | 'seeds'>) {
  const cells: { index: number; family: number; member: number; seed: number; loss: string }[] = [];
  families.forEach(({ members }, family) => {
    members.forEach(({ text }, member) => {
      for (const seed of seeds) cells.push({ index: cells.length, family, member, seed, loss: text });
    });
  });
  return cells;
}

/** The member with the best mean on the held-out rows; -1 when none has figures. Ties go to the first. */
function bestMember(heldOut: readonly SpreadFigures[], chooseBy: Choice): number {
  let best = -1;
  let bestValue = Number.NEGATIVE_INFINITY;
  heldOut.forEach((figures, m) => {
    const own = chooseBy === 'accuracy' ? figures.accuracy?.mean : figures.nll_nats && -figures.nll_nats.mean;
    if (own === undefined || !(own > bestValue)) return;
    best = m;
    bestValue = own;
  });
  return best;
}

/** Differences by seed between two sets of results of the same seeds, in the same order; failed runs leave the pair out. */
function pairedDifferences(own: readonly CellResult[], reference: readonly CellResult[], seed: number): SpreadFigures {
  const pairs = own.flatMap((result, s) =>
    result.failed === undefined && reference[s].failed === undefined
      ? [[valuesOf(result.test), valuesOf(reference[s].test)]]
      : [],
  );
  const found: SpreadFigures = {};
  if (pairs.length === 0) return found;
  for (const name of COMPARED) {
    const differences = pairs.flatMap(([a, b]) => {
      const [x, y] = [a[name], b[name]];
      return x === undefined || y === undefined ? [] : [x - y];
    });
    if (differences.length === pairs.length) found[name] = seedSpread(differences, seed);
  }
  return found;
}

/** Results of each family's chosen member, by seed. */
export function chosenResults(plan: ComparisonPlan, results: readonly CellResult[]): (readonly CellResult[])[] {
  const cells = plannedCells(plan);
  return plan.families.map(({ members }, family) => {
    const bySeed = members.map((_, member) =>
      cells.filter((cell) => cell.family === family && cell.member === member).map(({ index }) => results[index]),
    );
    const heldOut = bySeed.map((own) =>
      spreads(
        own.filter(({ failed }) => failed === undefined).map((result) => result.heldOut),
        plan.seed,
      ),
    );
    return bySeed[Math.max(0, bestMember(heldOut, plan.chooseBy))];
  });
}

const plainFigures = (metrics: ClassMetrics): Record<string, number> => ({
  accuracy: metrics.accuracy,
  accuracy_se: metrics.accuracyError,
  nll_nats: metrics.nllNats,
  nll_nats_se: metrics.nllError,
  calibration_error: metrics.calibrationError,
  entropy_nats: metrics.entropyNats,
});

/** @param results of all cells of the plan, in their order */
export function comparisonBody(
  plan: ComparisonPlan,
  prepared: PreparedComparison,
  results: readonly CellResult[],
): ComparisonBody {
  const cells = plannedCells(plan);
  const chosen = chosenResults(plan, results);
  const { task, teacher } = prepared;
  const losses = plan.families.map(({ name, members }, family): FamilyFigures => {
    const figures = members.map(({ text, choice }, member): MemberFigures => {
      const own = cells
        .filter((cell) => cell.family === family && cell.member === member)
        .map(({ index }) => results[index]);
      const ended = own.filter(({ failed }) => failed === undefined);
      return {
        loss: text,
        choice,
        chosen: false,
        seeds: ended.length,
        failed: own.length - ended.length,
        held_out: spreads(
          ended.map((result) => result.heldOut),
          plan.seed,
        ),
        test: spreads(
          ended.map((result) => result.test),
          plan.seed,
        ),
      };
    });
    const best = bestMember(
      figures.map((member) => member.held_out),
      plan.chooseBy,
    );
    if (best >= 0) figures[best].chosen = true;
    return {
      name,
      loss: figures[best]?.loss ?? null,
      choice: figures[best]?.choice ?? null,
      test: figures[best]?.test ?? {},
      difference:
        family === plan.reference ? null : pairedDifferences(chosen[family], chosen[plan.reference], plan.seed),
      members: figures,
    };
  });
  const failures = results.flatMap(({ failed, index }) =>
    failed === undefined ? [] : [`${cells[index].loss}, seed ${cells[index].seed}: ${failed}`],
  );
  const { training } = task;
  return {
    task: {
      training_rows: prepared.teacherRows,
      student_rows: training.rows,
      held_out_rows: task.heldOut.rows,
      test_rows: task.test.rows,
      features: training.features.length / training.rows,
      classes: task.classes,
    },
    student: { description: plan.student, weights: results[0]?.weights ?? 0, steps: results[0]?.steps ?? 0 },
    teacher:
      plan.teacher === undefined || !teacher
        ? null
        : { description: plan.teacher, held_out: plainFigures(teacher.heldOut), test: plainFigures(teacher.test) },
    seeds: [...plan.seeds],
    chosen_by: plan.chooseBy === 'accuracy' ? 'held-out accuracy' : 'held-out nll_nats',
    reference: plan.families[plan.reference].name,
    losses,
    warnings: [...prepared.warnings, ...failures],
  };
}

/** Columns of `--out`: one row a family. */
export const COMPARE_COLUMNS = [
  'loss',
  'chosen',
  ...COMPARED.flatMap((name) => [name, `${name}_sd`, `${name}_se`, `${name}_low`, `${name}_high`]),
  ...COMPARED.flatMap((name) => [`difference_${name}`, `difference_${name}_se`]),
];

const cellsOf = (spread: SeedSpread | undefined): (number | undefined)[] => [
  spread?.mean,
  spread?.standard_deviation ?? undefined,
  spread?.standard_error ?? undefined,
  spread?.interval_low ?? undefined,
  spread?.interval_high ?? undefined,
];

export function* comparisonRows(body: ComparisonBody): Generator<(string | number | undefined)[]> {
  for (const { name, loss, test, difference } of body.losses) {
    yield [
      name,
      loss ?? undefined,
      ...COMPARED.flatMap((figure) => cellsOf(test[figure])),
      ...COMPARED.flatMap((figure) => [difference?.[figure]?.mean, difference?.[figure]?.standard_error ?? undefined]),
    ];
  }
}

/** Columns of `--table`: one row a training. */
export const COMPARE_TABLE_COLUMNS = [
  'family',
  'loss',
  'seed',
  'chosen',
  ...['held_out', 'test'].flatMap((set) => COMPARED.map((name) => `${set}_${name}`)),
  'failed',
];

export function* comparisonTable(
  plan: ComparisonPlan,
  body: ComparisonBody,
  results: readonly CellResult[],
): Generator<(string | number | undefined)[]> {
  for (const { index, family, member, seed, loss } of plannedCells(plan)) {
    const { heldOut, test, failed } = results[index];
    const own = [heldOut, test].flatMap((metrics) => COMPARED.map((name) => valuesOf(metrics)[name]));
    const { chosen } = body.losses[family].members[member];
    yield [plan.families[family].name, loss, seed, chosen ? 1 : 0, ...own, failed];
  }
}
