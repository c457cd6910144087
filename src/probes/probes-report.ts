import type { Cell } from '../report/csv.js';
import type { ProbeMeasures } from './probes-job.js';
import type { ProbeArguments, SetResult, SplitRole } from './settings.js';

/** Name of the view and of its schema. */
export const PROBES_SCHEMA = 'probes';

const orNull = (value: number): number | null => (Number.isNaN(value) ? null : value);

export interface ScoreReport {
  split: string;
  role: SplitRole;
  rows: number;
  accuracy: number | null;
  /** Ends of the bootstrap interval of 95 % of the accuracy, or of the mean squared error. */
  interval_low: number | null;
  interval_high: number | null;
  nll_nats: number | null;
  nll_nats_se: number | null;
  ece: number | null;
  mse: number | null;
  mse_se: number | null;
  r2: number | null;
}

export interface GridReport {
  weight_decay: number;
  validation_accuracy: number | null;
  validation_nll_nats: number | null;
  validation_mse: number | null;
  train_loss: number;
  objective: number | null;
  gradient_norm: number | null;
  iterations: number;
  passes: number;
  converged: boolean;
  chosen: boolean;
}

export interface SetReport {
  task: string;
  name: string;
  kind: SetResult['kind'];
  size: number;
  features: number;
  parameters: number;
  weight_decay: number | null;
  path: string;
  /** Mean cross-entropy in nats of the training rows, or half their mean squared error. */
  train_loss: number | null;
  scores: ScoreReport[];
  grid: GridReport[];
}

export interface IntervalReport {
  value: number;
  low: number | null;
  high: number | null;
}

/** The distribution over single members: of accuracy, or of the mean squared error. */
export interface SingleReport {
  task: string;
  split: string;
  measure: 'accuracy' | 'mse';
  members: number;
  mean: number;
  /** Over members, with n - 1; null for one. */
  sd: number | null;
  best: number;
}

export interface GainReport {
  task: string;
  split: string;
  role: 'id' | 'ood';
  size: number;
  measure: 'accuracy' | 'mse_reduction';
  over_best_single: IntervalReport;
  over_mean_single: IntervalReport;
  over_ensemble: IntervalReport | null;
}

export interface RankReport {
  name: string;
  kind: SetResult['kind'];
  size: number;
  features: number;
  rankme: number | null;
  effective_rank_singular_values: number | null;
  effective_rank_squared: number | null;
  participation_ratio: number | null;
  stable_rank: number | null;
}

export interface ProbesBody {
  probe: string;
  tasks: { name: string; classes: readonly string[] | null }[];
  members: { name: string; kind: string; features: number; constant_features: number }[];
  splits: { name: string; role: SplitRole; rows: number; carved: boolean }[];
  sets: SetReport[];
  singles: SingleReport[];
  gains: GainReport[];
  /** Training rows over which ranks and CKA were measured. */
  rank_rows: number;
  ranks: RankReport[];
  linear_cka: (number | null)[][];
  warnings: readonly string[];
}

function setReport(set: SetResult): SetReport {
  return {
    task: set.task,
    name: set.name,
    kind: set.kind,
    size: set.size,
    features: set.features,
    parameters: set.parameters,
    weight_decay: set.decay,
    path: set.path,
    train_loss: orNull(set.trainLoss),
    scores: set.scores.map((score) => ({
      split: score.split,
      role: score.role,
      rows: score.rows,
      accuracy: score.accuracy,
      interval_low: orNull(score.low),
      interval_high: orNull(score.high),
      nll_nats: score.nllNats,
      nll_nats_se: score.nllNatsSe === null ? null : orNull(score.nllNatsSe),
      ece: score.ece,
      mse: score.mse,
      mse_se: score.mseSe === null ? null : orNull(score.mseSe),
      r2: score.r2 === null ? null : orNull(score.r2),
    })),
    grid: set.grid.map((point) => ({
      weight_decay: point.decay,
      validation_accuracy: point.validationAccuracy,
      validation_nll_nats: point.validationNllNats,
      validation_mse: point.validationMse,
      train_loss: point.trainLoss,
      objective: point.objective,
      gradient_norm: point.gradientNorm,
      iterations: point.iterations,
      passes: point.passes,
      converged: point.converged,
      chosen: point.chosen,
    })),
  };
}

function singleReports(sets: readonly SetResult[]): SingleReport[] {
  const reports: SingleReport[] = [];
  for (const task of new Set(sets.map((set) => set.task))) {
    const singles = sets.filter((set) => set.task === task && set.kind === 'single');
    singles[0].scores.forEach(({ split, accuracy }, s) => {
      const measure = accuracy === null ? ('mse' as const) : ('accuracy' as const);
      const values = singles.map(({ scores }) => scores[s][measure] ?? Number.NaN);
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
      const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
      reports.push({
        task,
        split,
        measure,
        members: values.length,
        mean,
        sd: values.length > 1 ? Math.sqrt(squares / (values.length - 1)) : null,
        best: measure === 'accuracy' ? Math.max(...values) : Math.min(...values),
      });
    });
  }
  return reports;
}

/** @param carved names of splits that were taken from the training rows */
export function probesBody(args: ProbeArguments, measures: ProbeMeasures, carved: readonly string[]): ProbesBody {
  const m = measures.members.length;
  const interval = ({ value, low, high }: { value: number; low: number; high: number }): IntervalReport => ({
    value,
    low: orNull(low),
    high: orNull(high),
  });
  const amounts = new Set(args.tasks.filter(({ classes }) => classes === null).map(({ name }) => name));
  return {
    probe: args.settings.probe,
    tasks: args.tasks.map(({ name, classes }) => ({ name, classes })),
    members: measures.members.map(({ name, kind, features, constantFeatures }) => ({
      name,
      kind,
      features,
      constant_features: constantFeatures,
    })),
    splits: args.splits.map(({ name, role, targets }) => ({
      name,
      role,
      rows: targets[0].length,
      carved: carved.includes(name),
    })),
    sets: measures.sets.map(setReport),
    singles: singleReports(measures.sets),
    gains: measures.gains.map((gain) => ({
      task: gain.task,
      split: gain.split,
      role: gain.role,
      size: gain.size,
      measure: amounts.has(gain.task) ? 'mse_reduction' : 'accuracy',
      over_best_single: interval(gain.overBest),
      over_mean_single: interval(gain.overMean),
      over_ensemble: gain.overEnsemble && interval(gain.overEnsemble),
    })),
    rank_rows: measures.rankRows,
    ranks: measures.ranks.map((rank) => ({
      name: rank.name,
      kind: rank.kind,
      size: rank.size,
      features: rank.features,
      rankme: orNull(rank.rankMe),
      effective_rank_singular_values: orNull(rank.effectiveRank),
      effective_rank_squared: orNull(rank.effectiveRankSquared),
      participation_ratio: orNull(rank.participationRatio),
      stable_rank: orNull(rank.stableRank),
    })),
    linear_cka: Array.from({ length: m }, (_, i) => Array.from(measures.cka.subarray(i * m, (i + 1) * m), orNull)),
    warnings: measures.warnings,
  };
}

/** Columns of `--out`: one row for every task, feature set and split. */
export const PROBE_COLUMNS = [
  'task',
  'split',
  'role',
  'rows',
  'set',
  'kind',
  'members',
  'features',
  'parameters',
  'weight_decay',
  'path',
  'train_loss',
  'accuracy',
  'interval_low',
  'interval_high',
  'nll_nats',
  'nll_nats_se',
  'ece',
  'mse',
  'mse_se',
  'r2',
] as const;

export function* probeRows(body: ProbesBody): Iterable<readonly Cell[]> {
  for (const set of body.sets) {
    for (const score of set.scores) {
      yield [
        set.task,
        score.split,
        score.role,
        score.rows,
        set.name,
        set.kind,
        set.size,
        set.features,
        set.parameters,
        set.weight_decay,
        set.path,
        set.train_loss,
        score.accuracy,
        score.interval_low,
        score.interval_high,
        score.nll_nats,
        score.nll_nats_se,
        score.ece,
        score.mse,
        score.mse_se,
        score.r2,
      ];
    }
  }
}

export const PROBE_TABLES = ['rank', 'cka', 'grid', 'gain'] as const;
export type ProbeTable = (typeof PROBE_TABLES)[number];

/** Columns of `--table`. */
export const PROBE_TABLE_COLUMNS: Readonly<Record<ProbeTable, readonly string[]>> = {
  rank: [
    'set',
    'kind',
    'members',
    'features',
    'rankme',
    'effective_rank_singular_values',
    'effective_rank_squared',
    'participation_ratio',
    'stable_rank',
  ],
  cka: ['member', 'other', 'linear_cka'],
  grid: [
    'task',
    'set',
    'weight_decay',
    'chosen',
    'validation_accuracy',
    'validation_nll_nats',
    'validation_mse',
    'train_loss',
    'objective',
    'gradient_norm',
    'iterations',
    'passes',
  ],
  gain: ['task', 'split', 'role', 'members', 'against', 'gain', 'low', 'high'],
};

export function* probeTableRows(kind: ProbeTable, body: ProbesBody): Iterable<readonly Cell[]> {
  if (kind === 'rank') {
    for (const rank of body.ranks) {
      const { name, kind: setKind, size, features, rankme, participation_ratio, stable_rank } = rank;
      const { effective_rank_singular_values, effective_rank_squared } = rank;
      yield [
        name,
        setKind,
        size,
        features,
        rankme,
        effective_rank_singular_values,
        effective_rank_squared,
        participation_ratio,
        stable_rank,
      ];
    }
  } else if (kind === 'cka') {
    for (const [i, row] of body.linear_cka.entries()) {
      for (const [j, value] of row.entries()) yield [body.members[i].name, body.members[j].name, value];
    }
  } else if (kind === 'grid') {
    for (const { task, name, grid } of body.sets) {
      for (const point of grid) {
        yield [
          task,
          name,
          point.weight_decay,
          point.chosen ? 1 : 0,
          point.validation_accuracy,
          point.validation_nll_nats,
          point.validation_mse,
          point.train_loss,
          point.objective,
          point.gradient_norm,
          point.iterations,
          point.passes,
        ];
      }
    }
  } else {
    for (const gain of body.gains) {
      const rows: [string, IntervalReport | null][] = [
        ['best single', gain.over_best_single],
        ['mean single', gain.over_mean_single],
        ['ensemble', gain.over_ensemble],
      ];
      for (const [against, interval] of rows) {
        if (interval === null) continue;
        yield [gain.task, gain.split, gain.role, gain.size, against, interval.value, interval.low, interval.high];
      }
    }
  }
}
