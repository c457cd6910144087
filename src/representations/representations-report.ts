import type { Cell } from '../report/csv.js';
import { bandwidthName } from './bandwidth.js';
import { followsRule, nearestToRule } from './bandwidth-sweep.js';
import type { Information, SetMeasures } from './measure-set.js';
import { mutualInformation } from './mutual-information.js';
import type { RepresentationMeasures } from './representations-job.js';
import type { RepresentationSettings, Variant } from './settings.js';

/** Name of the view and of its schema. */
export const REPRESENTATIONS_SCHEMA = 'representations';

/** Eigenvalues that the report lists; `--table` has all. */
const LISTED_EIGENVALUES = 20;
/** Eigenvalues that stand in the main table. */
const TABLE_EIGENVALUES = 3;

export interface EntropyReport {
  t: number;
  dse_bits: number;
  dse_bits_se: number | null;
  dse_nats: number;
  dse_over_log2_n: number;
  /** 2^DSE. */
  effective_rank: number;
  /** From half of the features or landmarks. */
  dse_bits_half_rank: number | null;
  share_above_0_01: number | null;
}

export interface InformationReport {
  with: string;
  categories: string;
  by_time: { t: number; dsmi_bits: number; dsmi_bits_se: number }[];
  terms: {
    category: string;
    count: number;
    weight: number;
    t: number;
    dse_given_bits: number;
    dse_subsets_bits: number[];
    term_bits: number;
  }[];
}

export interface SweepReport {
  sigma: number;
  name: string;
  mean_similarity: number;
  t: number;
  dse_bits: number;
  share_above_0_01: number | null;
  /** Whether about 1 % (0.5 to 2 %) of the powered eigenvalues exceed 0.01. */
  follows_rule: boolean;
}

export interface SetReport {
  name: string;
  layer: number | 'final' | null;
  dtype: string;
  rows: number;
  columns: number;
  rows_used: number;
  /** Rows of a subsample, from 0; null when all were used. */
  sampled_rows: number[] | null;
  duplicate_rows: number;
  constant_columns: number;
  sigma: number;
  sigma_rule: string;
  median_distance: number;
  median_distance_rows: number;
  mean_similarity: number;
  operator: 'K' | 'P';
  method: string;
  entropies: EntropyReport[];
  top_eigenvalues: number[] | null;
  von_neumann_entropy_nats: number;
  von_neumann_effective_dimension: number;
  rankme: number;
  effective_rank_singular_values: number;
  effective_rank_squared: number;
  participation_ratio: number;
  stable_rank: number;
  condition_number: number;
  variants: { [key: string]: number };
  sweep: SweepReport[];
  /** The cell of the sweep nearest to the rule of thumb. */
  sweep_nearest_rule: { sigma: number; t: number; share_above_0_01: number } | null;
  curve: { size: number; repetitions: number; t: number; dse_bits: number; dse_bits_std: number }[];
  information: InformationReport[];
}

/** Mean attention entropy of the heads of the block whose output is layer `layer`, on the same text. */
export interface AttentionLayerReport {
  layer: number;
  mean_entropy_nats: number;
  /** Over log(visible keys). */
  mean_normalized_entropy: number;
}

export interface RepresentationsBody {
  sets: SetReport[];
  /** Linear CKA of every pair, rows of a matrix; null for one set or sets over different rows. */
  linear_cka: number[][] | null;
  /** Null unless it was asked for. */
  attention: AttentionLayerReport[] | null;
  warnings: string[];
}

/** Key of a variant in reports and tables. */
export function variantKey(variant: Variant, { neighbours, bins }: RepresentationSettings): string {
  const keys: Record<Variant, string> = {
    'matrix-entry': 'matrix_entry_entropy_bits',
    adjacency: 'adjacency_gaussian_entropy_bits',
    anisotropic: 'adjacency_anisotropic_entropy_bits',
    knn: `adjacency_knn${neighbours}_entropy_bits`,
    shannon: `shannon_${bins}_bins_entropy_bits`,
  };
  return keys[variant];
}

function entropiesOf(set: SetMeasures, times: readonly number[]): EntropyReport[] {
  const { bits, standardErrorBits, halfRankBits } = set.estimate;
  const most = Math.log2(set.used);
  return times.map((t, k) => ({
    t,
    dse_bits: bits[k],
    dse_bits_se: standardErrorBits?.[k] ?? null,
    dse_nats: bits[k] * Math.LN2,
    dse_over_log2_n: most === 0 ? 0 : bits[k] / most,
    effective_rank: 2 ** bits[k],
    dse_bits_half_rank: halfRankBits?.[k] ?? null,
    share_above_0_01: set.shares?.[k] ?? null,
  }));
}

function informationOf({ reference, kind, terms }: Information, times: readonly number[]): InformationReport {
  const found = times.map((_, k) => mutualInformation(terms, k));
  return {
    with: reference,
    categories: kind,
    by_time: times.map((t, k) => ({ t, dsmi_bits: found[k].bits, dsmi_bits_se: found[k].standardError })),
    terms: terms.flatMap(({ name, count, weight, givenBits, subsetBits }, b) =>
      times.map((t, k) => ({
        category: name,
        count,
        weight,
        t,
        dse_given_bits: givenBits[k],
        dse_subsets_bits: subsetBits.map((bits) => bits[k]),
        term_bits: found[k].termBits[b],
      })),
    ),
  };
}

function sweepOf(set: SetMeasures): Pick<SetReport, 'sweep' | 'sweep_nearest_rule'> {
  const nearest = nearestToRule(set.sweep);
  return {
    sweep: set.sweep.flatMap(({ sigma, name, meanSimilarity, cells }) =>
      cells.map(({ t, bits, shareAbove }) => ({
        sigma,
        name,
        mean_similarity: meanSimilarity,
        t,
        dse_bits: bits,
        share_above_0_01: Number.isNaN(shareAbove) ? null : shareAbove,
        follows_rule: followsRule(shareAbove),
      })),
    ),
    sweep_nearest_rule: nearest
      ? { sigma: nearest.row.sigma, t: nearest.cell.t, share_above_0_01: nearest.cell.shareAbove }
      : null,
  };
}

function setReport(set: SetMeasures, settings: RepresentationSettings): SetReport {
  const { times } = settings;
  const { shape, estimate, bandwidth } = set;
  return {
    name: set.name,
    layer: set.layer,
    dtype: set.dtype,
    rows: set.rows,
    columns: set.columns,
    rows_used: set.used,
    sampled_rows: set.indices === null ? null : Array.from(set.indices),
    duplicate_rows: set.duplicates,
    constant_columns: set.constantColumns,
    sigma: bandwidth.sigma,
    sigma_rule: bandwidthName(settings.sigma),
    median_distance: bandwidth.medianDistance,
    median_distance_rows: bandwidth.rows,
    mean_similarity: estimate.meanSimilarity,
    operator: settings.operator,
    method: estimate.method,
    entropies: entropiesOf(set, times),
    top_eigenvalues: estimate.eigenvalues && Array.from(estimate.eigenvalues.subarray(0, LISTED_EIGENVALUES)),
    von_neumann_entropy_nats: shape.vonNeumannNats,
    von_neumann_effective_dimension: shape.effectiveDimension,
    rankme: shape.rankMe,
    effective_rank_singular_values: shape.effectiveRank,
    effective_rank_squared: shape.effectiveRankSquared,
    participation_ratio: shape.participationRatio,
    stable_rank: shape.stableRank,
    condition_number: shape.conditionNumber,
    variants: Object.fromEntries(
      Object.entries(set.variants).map(([variant, bits]) => [variantKey(variant as Variant, settings), bits]),
    ),
    ...sweepOf(set),
    curve: set.curve.flatMap(({ size, repetitions, meanBits, deviationBits }) =>
      times.map((t, k) => ({ size, repetitions, t, dse_bits: meanBits[k], dse_bits_std: deviationBits[k] })),
    ),
    information: set.information.map((information) => informationOf(information, times)),
  };
}

/** Makes the body of the report. */
export function representationsBody(
  measures: RepresentationMeasures,
  attention: AttentionLayerReport[] | null,
  settings: RepresentationSettings,
): RepresentationsBody {
  const m = measures.sets.length;
  const { similarity } = measures;
  return {
    sets: measures.sets.map((set) => setReport(set, settings)),
    linear_cka: similarity && Array.from({ length: m }, (_, i) => Array.from(similarity.subarray(i * m, (i + 1) * m))),
    attention,
    warnings: [...measures.warnings],
  };
}

const SET_COLUMNS = [
  'mean_similarity',
  'von_neumann_entropy_nats',
  'von_neumann_effective_dimension',
  'rankme',
  'effective_rank_singular_values',
  'effective_rank_squared',
  'participation_ratio',
  'stable_rank',
  'condition_number',
  'duplicate_rows',
  'constant_columns',
] as const satisfies readonly (keyof SetReport)[];

/** Columns of the main table: one row a set and diffusion time. References add two columns each. */
export function entropyColumns(settings: RepresentationSettings, references: readonly string[]): string[] {
  return [
    'set',
    'layer',
    'n',
    'd',
    'sigma',
    't',
    'operator',
    'method',
    'dse_bits',
    'dse_bits_se',
    'dse_nats',
    'dse_over_log2_n',
    'effective_rank',
    'share_above_0_01',
    ...Array.from({ length: TABLE_EIGENVALUES }, (_, i) => `eigenvalue_${i + 1}`),
    'median_distance',
    ...SET_COLUMNS,
    ...settings.variants.map((variant) => variantKey(variant, settings)),
    ...references.flatMap((_, i) => {
      const suffix = references.length > 1 ? `_${i + 1}` : '';
      return [`dsmi${suffix}_bits`, `dsmi${suffix}_bits_se`];
    }),
  ];
}

/** Rows of the main table. */
export function* entropyRows(body: RepresentationsBody): Generator<Cell[]> {
  for (const set of body.sets) {
    for (const [k, entropy] of set.entropies.entries()) {
      yield [
        set.name,
        set.layer ?? undefined,
        set.rows_used,
        set.columns,
        set.sigma,
        entropy.t,
        set.operator,
        set.method,
        entropy.dse_bits,
        entropy.dse_bits_se ?? undefined,
        entropy.dse_nats,
        entropy.dse_over_log2_n,
        entropy.effective_rank,
        entropy.share_above_0_01 ?? undefined,
        ...Array.from({ length: TABLE_EIGENVALUES }, (_, i) => set.top_eigenvalues?.[i]),
        set.median_distance,
        ...SET_COLUMNS.map((column) => set[column]),
        ...Object.values(set.variants),
        ...set.information.flatMap(({ by_time }) => [by_time[k].dsmi_bits, by_time[k].dsmi_bits_se]),
      ];
    }
  }
}

/** What the rows of `--table` are. */
export type TableKind = 'spectrum' | 'terms' | 'curve' | 'sweep';

export const TABLE_KINDS: readonly TableKind[] = ['spectrum', 'terms', 'curve', 'sweep'];

export const DETAIL_COLUMNS: Readonly<Record<TableKind, readonly string[]>> = {
  spectrum: ['set', 'layer', 'index', 'eigenvalue', 'singular_value', 'covariance_share'],
  terms: [
    'set',
    'layer',
    'with',
    'category',
    'count',
    'weight',
    't',
    'dse_given_bits',
    'dse_subsets_mean_bits',
    'term_bits',
  ],
  curve: ['set', 'layer', 'size', 'repetitions', 't', 'dse_bits', 'dse_bits_std'],
  sweep: [
    'set',
    'layer',
    'sigma',
    'sigma_name',
    'mean_similarity',
    't',
    'dse_bits',
    'share_above_0_01',
    'follows_rule',
  ],
};

/** Rows of `--table`. */
export function* detailRows(
  kind: TableKind,
  body: RepresentationsBody,
  measures: RepresentationMeasures,
): Generator<Cell[]> {
  for (const [i, set] of body.sets.entries()) {
    const place = [set.name, set.layer ?? undefined];
    if (kind === 'spectrum') yield* spectrumRows(place, measures.sets[i]);
    if (kind === 'curve') {
      for (const { size, repetitions, t, dse_bits, dse_bits_std } of set.curve) {
        yield [...place, size, repetitions, t, dse_bits, dse_bits_std];
      }
    }
    if (kind === 'sweep') {
      for (const row of set.sweep) {
        const share = row.share_above_0_01 ?? undefined;
        yield [...place, row.sigma, row.name, row.mean_similarity, row.t, row.dse_bits, share, row.follows_rule];
      }
    }
    if (kind === 'terms') {
      for (const { with: reference, terms } of set.information) {
        for (const { category, count, weight, t, dse_given_bits, dse_subsets_bits, term_bits } of terms) {
          const mean = dse_subsets_bits.reduce((sum, bits) => sum + bits, 0) / dse_subsets_bits.length;
          yield [...place, reference, category, count, weight, t, dse_given_bits, mean, term_bits];
        }
      }
    }
  }
}

function* spectrumRows(place: readonly Cell[], { estimate, shape }: SetMeasures): Generator<Cell[]> {
  const { eigenvalues } = estimate;
  const { singularValues, covarianceShares } = shape;
  const rows = Math.max(eigenvalues?.length ?? 0, singularValues.length);
  for (let i = 0; i < rows; i++) yield [...place, i, eigenvalues?.[i], singularValues[i], covarianceShares[i]];
}
