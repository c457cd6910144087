import type { FeatureLayer } from '../features/model-features.js';
import type { Cell } from '../report/csv.js';
import { finiteOrName } from '../report/values.js';
import type { DiversityMeasures } from './diversity-job.js';
import { type SpectralMeasure, spectralMeasures } from './measures.js';
import type { ComparedFigure, SetComparison } from './set-comparison.js';
import type { SetMeasures } from './set-measures.js';
import type { DiversitySettings } from './settings.js';

/** Name of the report's schema. */
export const DIVERSITY_SCHEMA = 'diversity';

/** What the command knows of a set and the job does not. */
export interface MeasuredSet {
  readonly layer: FeatureLayer | null;
  readonly measures: DiversityMeasures;
  readonly ids?: readonly string[];
  /** Beginnings of the texts, where items are texts. */
  readonly excerpts?: readonly string[];
  /** Group of every item. */
  readonly groupOf?: readonly string[];
}

type Order = number | 'inf';

interface MeasureReport {
  measure: 'vendi' | 'truncated_vendi' | 'rke' | 'intdiv';
  q: Order;
  t: number | null;
}

interface FigureReport extends MeasureReport {
  value: number;
  value_se: number | null;
  /** Natural logarithm of the score: an entropy; null for IntDiv. */
  entropy_nats: number | null;
  method: string;
  method_error: number | null;
  method_error_kind: string | null;
  /** What half of the frequencies or landmarks give. */
  value_half: number | null;
}

interface CurveReport {
  items: number;
  subsamples: number;
  scores: (MeasureReport & { value: number; value_se: number | null; value_std: number | null })[];
}

interface ComparedReport extends MeasureReport {
  value: number;
  against: number;
  union: number;
  difference: number;
  difference_se: number | null;
  difference_low: number | null;
  difference_high: number | null;
  difference_matched: number | null;
  permutation_low: number | null;
  permutation_high: number | null;
  permutation_p: number | null;
}

export interface SetReport {
  name: string;
  layer: FeatureLayer | null;
  items: number;
  columns: number;
  duplicate_items: number;
  weighted: boolean;
  sigma: number | null;
  median_distance: number | null;
  method: string;
  method_reason: string;
  order_decomposed: number;
  scores: Record<string, number>;
  figures: FigureReport[];
  spectrum: {
    rank: number;
    cut: number;
    dropped: number;
    smallest: number;
    negative_mass: number;
    eigenvalues: Float64Array;
  } | null;
  curve: CurveReport[];
  groups: { name: string; items: number; share: number; scores: Record<string, number> }[];
  leave_one_out: { item: number; id: string; gains: Record<string, number> }[];
  modes: {
    mode: number;
    eigenvalue: number;
    items_nearest: number;
    items: { item: number; id: string; score: number; text: string | null }[];
  }[];
}

export interface ComparisonReport {
  set: string;
  layer: FeatureLayer | null;
  against: string;
  items: number;
  against_items: number;
  against_duplicate_items: number;
  union_method: string;
  permutations: number;
  resampled_parts: number;
  against_figures: FigureReport[];
  figures: ComparedReport[];
}

export interface DiversityBody {
  kernel: string;
  /** Of the first set. */
  scores: Record<string, number>;
  sets: SetReport[];
  comparisons: ComparisonReport[];
  warnings: string[];
}

const orderOf = (q: number): Order => finiteOrName(q) as Order;

/** `vendi_q1`, `truncated_t3_q2`, `rke`, `intdiv_q1`. */
export function measureKey({ measure, q, t }: MeasureReport): string {
  if (measure === 'rke') return 'rke';
  if (measure === 'truncated_vendi') return `truncated_t${t}_q${q}`;
  return `${measure}_q${q}`;
}

const reported = ({ kind, q, t }: SpectralMeasure): MeasureReport => ({ measure: kind, q: orderOf(q), t });

function keyed(measures: readonly SpectralMeasure[], values: ArrayLike<number>): Record<string, number> {
  return Object.fromEntries(measures.map((measure, k) => [measureKey(reported(measure)), values[k]]));
}

const ERROR_KINDS: Readonly<Record<string, string>> = {
  slq: 'standard error over probes',
  fkea: 'larger of the standard error over frequencies and the change from half of them',
  nystrom: 'change from half the landmarks',
};

function spectralFigures(figures: SetMeasures['figures']): FigureReport[] {
  return figures.map((figure) => ({
    ...reported(figure),
    value: figure.value,
    value_se: figure.standardError,
    entropy_nats: Math.log(figure.value),
    method: figure.path,
    method_error: figure.methodError,
    method_error_kind: figure.methodError === null ? null : (ERROR_KINDS[figure.path] ?? null),
    value_half: figure.halfValue,
  }));
}

function internalFigures(set: SetMeasures): FigureReport[] {
  return set.internal.map(({ q, value, standardError, pairs }) => ({
    measure: 'intdiv',
    q: orderOf(q),
    t: null,
    value,
    value_se: null,
    entropy_nats: null,
    method: pairs === null ? 'all pairs' : `${pairs} pairs`,
    method_error: standardError,
    method_error_kind: standardError === null ? null : 'standard error over pairs',
    value_half: null,
  }));
}

const nameOfItem = (set: MeasuredSet, item: number): string => set.ids?.[item] ?? String(item);

function setReport(measured: MeasuredSet, measures: readonly SpectralMeasure[]): SetReport {
  const { set, sigma, medianDistance, columns } = measured.measures;
  const figures = [...spectralFigures(set.figures), ...internalFigures(set)];
  const { spectrum } = set;
  return {
    name: set.name,
    layer: measured.layer,
    items: set.items,
    columns,
    duplicate_items: set.duplicates,
    weighted: set.weighted,
    sigma,
    median_distance: medianDistance,
    method: set.path,
    method_reason: set.reason,
    order_decomposed: set.order,
    scores: Object.fromEntries(figures.map((figure) => [measureKey(figure), figure.value])),
    figures,
    spectrum: spectrum && {
      rank: spectrum.rank,
      cut: spectrum.cut,
      dropped: spectrum.dropped,
      smallest: spectrum.smallest,
      negative_mass: spectrum.negativeMass,
      eigenvalues: spectrum.eigenvalues,
    },
    curve: set.curve.map(({ items, subsamples, mean, deviation }) => ({
      items,
      subsamples,
      scores: measures.map((measure, k) => ({
        ...reported(measure),
        value: mean[k],
        value_se: subsamples < 2 ? null : deviation[k] / Math.sqrt(subsamples),
        value_std: subsamples < 2 ? null : deviation[k],
      })),
    })),
    groups: set.groups.map(({ name, items, share, scores }) => ({
      name,
      items,
      share,
      scores: keyed(measures, scores),
    })),
    leave_one_out: Array.from(set.leftOut?.items ?? [], (item, i) => ({
      item,
      id: nameOfItem(measured, item),
      gains: keyed(measures, set.leftOut?.gains.subarray(i * measures.length, (i + 1) * measures.length) ?? []),
    })),
    modes: set.modes.map(({ eigenvalue, items, scores }, mode) => ({
      mode,
      eigenvalue,
      items_nearest: set.modeOf.reduce((count, nearest) => count + (nearest === mode ? 1 : 0), 0),
      items: Array.from(items, (item, i) => ({
        item,
        id: nameOfItem(measured, item),
        score: scores[i],
        text: measured.excerpts?.[item] ?? null,
      })),
    })),
  };
}

function comparedReport(figure: ComparedFigure): ComparedReport {
  return {
    ...reported(figure),
    value: figure.value,
    against: figure.against,
    union: figure.union,
    difference: figure.difference,
    difference_se: figure.standardError,
    difference_low: figure.low,
    difference_high: figure.high,
    difference_matched: figure.matchedDifference,
    permutation_low: figure.permutationLow,
    permutation_high: figure.permutationHigh,
    permutation_p: figure.permutationP,
  };
}

function comparisonReport(found: SetComparison, layer: FeatureLayer | null): ComparisonReport {
  return {
    set: found.set,
    layer,
    against: found.against,
    items: found.items,
    against_items: found.againstItems,
    against_duplicate_items: found.againstDuplicates,
    union_method: found.unionPath,
    permutations: found.permutations,
    resampled_parts: found.parts,
    against_figures: spectralFigures(found.againstFigures),
    figures: found.figures.map(comparedReport),
  };
}

/** Makes the body of the report. */
export function diversityBody(measured: readonly MeasuredSet[], settings: DiversitySettings): DiversityBody {
  const measures = spectralMeasures(settings.orders, settings.truncations);
  const sets = measured.map((set) => setReport(set, measures));
  return {
    kernel: settings.kernel,
    scores: sets[0].scores,
    sets,
    comparisons: measured.flatMap(({ measures: found, layer }) =>
      found.comparisons.map((comparison) => comparisonReport(comparison, layer)),
    ),
    warnings: [...new Set(measured.flatMap(({ measures: { warnings } }) => warnings))],
  };
}

/** Columns of the table of scores: sets, what they are compared with, and groups. */
export const SCORE_COLUMNS = [
  'set',
  'layer',
  'role',
  'group',
  'items',
  'measure',
  'q',
  't',
  'value',
  'value_se',
  'entropy_nats',
  'method',
  'method_error',
  'value_half',
  'cut',
] as const;

/** Rows of the table of scores. */
export function* scoreRows(body: DiversityBody): Generator<Cell[]> {
  for (const set of body.sets) {
    const cut = set.spectrum?.cut ?? null;
    for (const f of set.figures) {
      const values = [f.measure, f.q, f.t, f.value, f.value_se, f.entropy_nats, f.method, f.method_error, f.value_half];
      yield [set.name, set.layer, 'set', null, set.items, ...values, f.measure === 'intdiv' ? null : cut];
    }
    for (const group of set.groups) {
      for (const f of set.figures) {
        const value = group.scores[measureKey(f)];
        if (value === undefined) continue;
        const values = [f.measure, f.q, f.t, value, null, Math.log(value), set.method, null, null, null];
        yield [set.name, set.layer, 'group', group.name, group.items, ...values];
      }
    }
  }
  for (const found of body.comparisons) {
    for (const f of found.against_figures) {
      const values = [
        f.measure,
        f.q,
        f.t,
        f.value,
        f.value_se,
        f.entropy_nats,
        f.method,
        f.method_error,
        f.value_half,
        null,
      ];
      yield [found.against, found.layer, 'against', null, found.against_items, ...values];
    }
  }
}

export const TABLE_KINDS = ['items', 'spectrum', 'curve', 'comparisons', 'modes'] as const;
export type TableKind = (typeof TABLE_KINDS)[number];

/** Columns of `--table`. What single items add has a column for every measure. */
export function detailColumns(kind: TableKind, settings: DiversitySettings): readonly string[] {
  if (kind === 'items') {
    const gains = spectralMeasures(settings.orders, settings.truncations)
      .filter(({ kind: found }) => found !== 'rke')
      .map((measure) => `gain_${measureKey(reported(measure))}`);
    return ['set', 'layer', 'item', 'id', 'group', 'mode', 'gain_rke', ...gains];
  }
  if (kind === 'spectrum') return ['set', 'layer', 'index', 'eigenvalue'];
  if (kind === 'curve')
    return ['set', 'layer', 'items', 'subsamples', 'measure', 'q', 't', 'value', 'value_se', 'value_std'];
  if (kind === 'modes') return ['set', 'layer', 'mode', 'eigenvalue', 'place', 'item', 'id', 'score', 'text'];
  return [
    'set',
    'layer',
    'against',
    'measure',
    'q',
    't',
    'value',
    'against_value',
    'union',
    'difference',
    'difference_se',
    'difference_low',
    'difference_high',
    'difference_matched',
    'permutation_low',
    'permutation_high',
    'permutation_p',
  ];
}

/** Rows of `--table`. */
export function* detailRows(
  kind: TableKind,
  body: DiversityBody,
  measured: readonly MeasuredSet[],
  settings: DiversitySettings,
): Generator<Cell[]> {
  if (kind === 'comparisons') {
    for (const { set, layer, against, figures } of body.comparisons) {
      for (const { measure, q, t, ...values } of figures)
        yield [set, layer, against, measure, q, t, ...(Object.values(values) as Cell[])];
    }
    return;
  }
  for (const [index, set] of body.sets.entries()) {
    const head = [set.name, set.layer];
    if (kind === 'items') yield* itemRows(head, measured[index], set, settings);
    if (kind === 'spectrum')
      for (const [i, value] of set.spectrum?.eigenvalues.entries() ?? []) yield [...head, i, value];
    if (kind === 'curve') {
      for (const { items, subsamples, scores } of set.curve) {
        for (const { measure, q, t, value, value_se, value_std } of scores)
          yield [...head, items, subsamples, measure, q, t, value, value_se, value_std];
      }
    }
    if (kind === 'modes') {
      for (const { mode, eigenvalue, items } of set.modes) {
        for (const [place, { item, id, score, text }] of items.entries())
          yield [...head, mode, eigenvalue, place, item, id, score, text];
      }
    }
  }
}

function* itemRows(
  head: readonly Cell[],
  measured: MeasuredSet,
  set: SetReport,
  settings: DiversitySettings,
): Generator<Cell[]> {
  const keys = spectralMeasures(settings.orders, settings.truncations)
    .filter(({ kind }) => kind !== 'rke')
    .map((measure) => measureKey(reported(measure)));
  const { rkeGains, modeOf } = measured.measures.set;
  const sampled = new Map(set.leave_one_out.map(({ item, gains }) => [item, gains]));
  for (let item = 0; item < set.items; item++) {
    const gains = sampled.get(item);
    const mode = modeOf.length > 0 ? modeOf[item] : null;
    const group = measured.groupOf?.[item] ?? null;
    const values = keys.map((key) => gains?.[key] ?? null);
    yield [...head, item, nameOfItem(measured, item), group, mode, rkeGains?.[item] ?? null, ...values];
  }
}
