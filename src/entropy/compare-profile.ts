import {
  addToBin,
  type BinTable,
  type BinTableJson,
  binAt,
  binError,
  binMean,
  binsFromJson,
  binsToJson,
  type CountTable,
  countInto,
  countsToJson,
  mergeBins,
  mergeCounts,
  PAIR_WIDTH,
  positionBin,
  positionBinRange,
  sortedBins,
  uniformBin,
} from './binning.js';
import type { TokenComparison } from './compare.js';

/** Bins of a factor of ten in the histogram of divergences. */
export const KL_BINS_PER_DECADE = 8;
/** A divergence below this is rounding: it is counted apart. */
export const LEAST_KL_NATS = 1e-12;
/** Width of the bins of entropy and of its change, in nats. */
export const CHANGE_WIDTH_NATS = 0.25;
/** Bins of the change on either side of zero; the outermost hold all beyond. */
const CHANGE_REACH = 64;
const CHANGE_COLUMNS = 2 * CHANGE_REACH;

/** A token on which base and candidate disagree most. Surprisals are NaN where the token has no target. */
export interface DivergentToken {
  readonly document: number;
  readonly id: string;
  readonly position: number;
  readonly tokenId: number;
  readonly token: string;
  readonly context: string;
  readonly klNats: number;
  readonly baseTop: string;
  readonly candidateTop: string;
  readonly baseSurprisalNats: number;
  readonly candidateSurprisalNats: number;
}

/** Where a comparison differs: by context length, by size, by entropy, and the worst tokens. Mergeable. */
export interface ComparisonProfile {
  readonly limit: number;
  /** Sums of finite KL and of the change of entropy. */
  readonly byContext: BinTable;
  readonly klHistogram: CountTable;
  counts: { negligible: number; infinite: number };
  /** Counts by (bin of the base's entropy * CHANGE_COLUMNS + bin of the change). */
  readonly change: CountTable;
  readonly divergent: DivergentToken[];
}

export function createProfile(limit: number): ComparisonProfile {
  return {
    limit,
    byContext: new Map(),
    klHistogram: new Map(),
    counts: { negligible: 0, infinite: 0 },
    change: new Map(),
    divergent: [],
  };
}

function comesBefore(a: Pick<DivergentToken, 'klNats' | 'document' | 'position'>, b: typeof a): boolean {
  if (a.klNats !== b.klNats) return a.klNats > b.klNats;
  return a.document !== b.document ? a.document < b.document : a.position < b.position;
}

function enter(profile: ComparisonProfile, token: DivergentToken): void {
  const { divergent, limit } = profile;
  let at = divergent.length;
  while (at > 0 && comesBefore(token, divergent[at - 1])) at--;
  if (at >= limit) return;
  divergent.splice(at, 0, token);
  if (divergent.length > limit) divergent.length = limit;
}

/** Where a row belongs, for the profile. */
export interface ProfiledRow {
  readonly document: number;
  readonly position: number;
  readonly contextLength: number;
}

/**
 * Adds row `i` of a comparison.
 * @param describe called for the rows that enter the list of the most divergent
 */
export function addToProfile(
  profile: ComparisonProfile,
  comparison: TokenComparison,
  i: number,
  row: ProfiledRow,
  describe: () => Omit<DivergentToken, 'document' | 'position' | 'klNats'>,
): void {
  const kl = comparison.klNats[i];
  const baseEntropy = comparison.baseEntropyNats[i];
  const change = comparison.candidateEntropyNats[i] - baseEntropy;
  if (kl === Number.POSITIVE_INFINITY) profile.counts.infinite++;
  else if (kl < LEAST_KL_NATS) profile.counts.negligible++;
  else countInto(profile.klHistogram, Math.floor(Math.log10(kl) * KL_BINS_PER_DECADE));
  if (Number.isFinite(kl)) {
    addToBin(binAt(profile.byContext, positionBin(row.contextLength), PAIR_WIDTH), kl, change);
  }
  const changeBin = Math.min(CHANGE_COLUMNS - 1, Math.max(0, Math.floor(change / CHANGE_WIDTH_NATS) + CHANGE_REACH));
  countInto(profile.change, uniformBin(baseEntropy, CHANGE_WIDTH_NATS) * CHANGE_COLUMNS + changeBin);
  const last = profile.divergent[profile.divergent.length - 1];
  const here = { document: row.document, position: row.position, klNats: kl };
  if (kl > 0 && (profile.divergent.length < profile.limit || (last && comesBefore(here, last)))) {
    enter(profile, { ...here, ...describe() });
  }
}

export function mergeProfiles(parts: readonly ComparisonProfile[]): ComparisonProfile {
  const merged = createProfile(parts[0].limit);
  for (const part of parts) {
    mergeBins(merged.byContext, part.byContext);
    mergeCounts(merged.klHistogram, part.klHistogram);
    mergeCounts(merged.change, part.change);
    merged.counts = {
      negligible: merged.counts.negligible + part.counts.negligible,
      infinite: merged.counts.infinite + part.counts.infinite,
    };
    for (const token of part.divergent) enter(merged, token);
  }
  return merged;
}

/** Numbers that JSON has no number for, by name. */
type Named = number | 'inf' | 'nan';
const named = (value: number): Named =>
  Number.isNaN(value) ? 'nan' : value === Number.POSITIVE_INFINITY ? 'inf' : value;
const unnamed = (value: Named): number =>
  value === 'inf' ? Number.POSITIVE_INFINITY : value === 'nan' ? Number.NaN : value;

export interface ComparisonProfileJson {
  limit: number;
  by_context: BinTableJson;
  kl_histogram: [number, number][];
  counts: { negligible: number; infinite: number };
  change: [number, number][];
  divergent: (Omit<DivergentToken, 'klNats' | 'baseSurprisalNats' | 'candidateSurprisalNats'> & {
    klNats: Named;
    baseSurprisalNats: Named;
    candidateSurprisalNats: Named;
  })[];
}

export function profileToJson(profile: ComparisonProfile): ComparisonProfileJson {
  return {
    limit: profile.limit,
    by_context: binsToJson(profile.byContext),
    kl_histogram: countsToJson(profile.klHistogram),
    counts: profile.counts,
    change: countsToJson(profile.change),
    divergent: profile.divergent.map((token) => ({
      ...token,
      klNats: named(token.klNats),
      baseSurprisalNats: named(token.baseSurprisalNats),
      candidateSurprisalNats: named(token.candidateSurprisalNats),
    })),
  };
}

export function profileFromJson(json: ComparisonProfileJson): ComparisonProfile {
  return {
    limit: json.limit,
    byContext: binsFromJson(json.by_context),
    klHistogram: new Map(json.kl_histogram),
    counts: json.counts,
    change: new Map(json.change),
    divergent: json.divergent.map((token) => ({
      ...token,
      klNats: unnamed(token.klNats),
      baseSurprisalNats: unnamed(token.baseSurprisalNats),
      candidateSurprisalNats: unnamed(token.candidateSurprisalNats),
    })),
  };
}

/** The profile as a report shows it. */
export interface ProfileSummary {
  kl_by_context_length: {
    first: number;
    last: number;
    tokens: number;
    mean_kl_nats: number;
    mean_kl_nats_se: number;
    mean_delta_entropy_nats: number;
    mean_delta_entropy_nats_se: number;
  }[];
  kl_histogram: {
    bins_per_decade: number;
    /** [b, count]: divergences of 10^(b / bins_per_decade) to 10^((b + 1) / bins_per_decade) nats. */
    counts: [number, number][];
    negligible_below_nats: number;
    negligible: number;
    infinite: number;
  };
  entropy_change: {
    bin_width_nats: number;
    /** [bin of the base's entropy, bin of the change (0 holds 0 to one width, -1 the bin below), count]. */
    counts: [number, number, number][];
  };
  most_divergent: {
    document: number;
    id: string;
    position: number;
    token_id: number;
    token: string;
    context: string;
    kl_nats: number;
    base_top: string;
    candidate_top: string;
    base_surprisal_nats: number;
    candidate_surprisal_nats: number;
  }[];
}

export function summarizeProfile(profile: ComparisonProfile): ProfileSummary {
  return {
    kl_by_context_length: sortedBins(profile.byContext).map(([index, bin]) => ({
      ...positionBinRange(index),
      tokens: bin.count,
      mean_kl_nats: binMean(bin, 0),
      mean_kl_nats_se: binError(bin, 0),
      mean_delta_entropy_nats: binMean(bin, 1),
      mean_delta_entropy_nats_se: binError(bin, 1),
    })),
    kl_histogram: {
      bins_per_decade: KL_BINS_PER_DECADE,
      counts: countsToJson(profile.klHistogram),
      negligible_below_nats: LEAST_KL_NATS,
      ...profile.counts,
    },
    entropy_change: {
      bin_width_nats: CHANGE_WIDTH_NATS,
      counts: countsToJson(profile.change).map(([cell, count]) => [
        Math.floor(cell / CHANGE_COLUMNS),
        (cell % CHANGE_COLUMNS) - CHANGE_REACH,
        count,
      ]),
    },
    most_divergent: profile.divergent.map((token) => ({
      document: token.document,
      id: token.id,
      position: token.position,
      token_id: token.tokenId,
      token: token.token,
      context: token.context,
      kl_nats: token.klNats,
      base_top: token.baseTop,
      candidate_top: token.candidateTop,
      base_surprisal_nats: token.baseSurprisalNats,
      candidate_surprisal_nats: token.candidateSurprisalNats,
    })),
  };
}
