import { type BootstrapInterval, bootstrapDocuments } from '../../linalg/bootstrap.js';
import type { Cell } from '../../report/csv.js';
import { escapeToken } from '../../report/escape.js';
import type { AlignedCorpus } from './align-job.js';
import { type AlignSum, SUMS } from './align-measure.js';
import { tokenPair } from './token-pair.js';
import { ROW_KINDS, type RowKind } from './types.js';

/** An estimate with its standard error and interval over texts; null where there is one text alone. */
export interface Estimate {
  readonly value: number;
  readonly se: number | null;
  readonly low: number | null;
  readonly high: number | null;
}

type KindKey = 'exact' | 'mapped' | 'one_to_many' | 'many_to_one' | 'fallback' | 'empty';
const KEYS = ROW_KINDS.map((kind) => kind.replaceAll('-', '_') as KindKey);
const keyOf = (kind: RowKind): KindKey => KEYS[ROW_KINDS.indexOf(kind)];

/** Figures of a domain, or of all texts. */
export interface DomainFigures {
  readonly domain: string;
  readonly documents: number;
  readonly pivot_tokens: number;
  readonly source_tokens: number;
  readonly pivot_tokens_per_document: number;
  readonly source_tokens_per_document: number;
  /** Share of the pivot's positions that take a row of the source. */
  readonly learnt: Estimate;
  readonly shares: Readonly<Record<KindKey, Estimate>>;
  /** Shares of positions without a source row, by how the sequences meet there. */
  readonly fallback: { readonly one_to_one: number; readonly one_to_many: number; readonly many_to_one: number };
  /** Mean edits a pivot position along the path. */
  readonly mean_cost: Estimate;
  /**
   * Probability over the positions that take a row of the source, null without its rows: of its likeliest tokens, and of
   * those that reach the pivot (both null of stored logits, whose whole is not known), and the second over the first.
   */
  readonly mass: { readonly top_k: Estimate | null; readonly moved: Estimate | null; readonly kept: Estimate } | null;
}

export type Verdict = 'yes' | 'partly' | 'no';

/** Least shares of positions that must take a row of the source. Our own: no paper states any. */
export const VERDICT_THRESHOLDS = { yes: 0.8, partly: 0.5 } as const;

/** Figures of the map of the vocabularies. */
export interface MapFigures {
  readonly kind: string;
  readonly equal: number;
  readonly mapped: number;
  readonly unmapped: number;
  readonly refined: number | null;
  /** Edits of mapped tokens: mean over tokens, and over their occurrences in the texts. */
  readonly mean_distance: number | null;
  readonly mean_distance_of_text: number | null;
  /** Mapped tokens by distance, from 0. */
  readonly by_distance: readonly number[];
}

export interface SourceFigures {
  readonly source: string;
  readonly vocabulary: number;
  readonly marker: string;
  readonly overlap: {
    /** Source tokens whose string, markers swapped, the pivot has; as shares of both vocabularies and of the source's text. */
    readonly equal_tokens: number;
    readonly share_of_source: number;
    readonly share_of_pivot: number;
    readonly share_of_text: number;
    /** Source tokens whose bytes are those of a pivot token. */
    readonly equal_bytes: number;
  };
  readonly map: MapFigures;
  readonly dropped: number;
  readonly total: DomainFigures;
  readonly domains: readonly DomainFigures[];
  readonly verdict: { readonly fused: Verdict; readonly text: string };
}

export interface AlignBody {
  readonly pivot: string;
  readonly pivot_vocabulary: number;
  readonly pivot_marker: string;
  readonly documents: number;
  readonly bootstrap: { readonly units: string; readonly resamples: number; readonly level: number };
  readonly verdict_thresholds: typeof VERDICT_THRESHOLDS;
  readonly sources: readonly SourceFigures[];
  readonly warnings: readonly string[];
}

const RESAMPLES = 1000;

/** Sums by their names. */
const sum = (totals: Float64Array, name: AlignSum): number => totals[SUMS.indexOf(name)];
const share = (name: AlignSum, of: AlignSum) => (totals: Float64Array) => sum(totals, name) / sum(totals, of);

const learnt = (totals: Float64Array): number =>
  1 - (sum(totals, 'fallback') + sum(totals, 'empty')) / sum(totals, 'positions');

const STATISTICS = [
  learnt,
  ...ROW_KINDS.map((kind) => share(kind, 'positions')),
  share('cost', 'positions'),
  share('top_k_mass', 'moved_rows'),
  share('moved_mass', 'moved_rows'),
  share('moved_mass', 'top_k_mass'),
];

function estimates(sums: Float64Array, totals: Float64Array, seed: number): Estimate[] {
  const { intervals } = bootstrapDocuments(sums, SUMS.length, STATISTICS, { seed, resamples: RESAMPLES });
  const finite = (interval: BootstrapInterval | undefined, key: keyof BootstrapInterval): number | null => {
    const value = interval?.[key];
    return value !== undefined && Number.isFinite(value) ? value : null;
  };
  return STATISTICS.map((of, s) => ({
    value: of(totals),
    se: finite(intervals?.[s], 'se'),
    low: finite(intervals?.[s], 'low'),
    high: finite(intervals?.[s], 'high'),
  }));
}

export interface FigureSettings {
  readonly seed: number;
  /** Whether rows hold probabilities over the whole vocabulary. */
  readonly normalised: boolean;
}

/** @param sums [texts of the domain, SUMS.length] */
function domainFigures(domain: string, sums: Float64Array, settings: FigureSettings): DomainFigures {
  const documents = sums.length / SUMS.length;
  const totals = new Float64Array(SUMS.length);
  sums.forEach((value, i) => {
    totals[i % SUMS.length] += value;
  });
  const [own, ...rest] = estimates(sums, totals, settings.seed);
  const kinds = rest.slice(0, ROW_KINDS.length);
  const [cost, topK, moved, kept] = rest.slice(ROW_KINDS.length);
  const positions = sum(totals, 'positions');
  return {
    domain,
    documents,
    pivot_tokens: positions,
    source_tokens: sum(totals, 'source_positions'),
    pivot_tokens_per_document: positions / documents,
    source_tokens_per_document: sum(totals, 'source_positions') / documents,
    learnt: own,
    shares: Object.fromEntries(kinds.map((estimate, i) => [KEYS[i], estimate])) as Record<KindKey, Estimate>,
    fallback: {
      one_to_one: sum(totals, 'fallback_one_to_one') / positions,
      one_to_many: sum(totals, 'fallback_one_to_many') / positions,
      many_to_one: sum(totals, 'fallback_many_to_one') / positions,
    },
    mean_cost: cost,
    mass:
      sum(totals, 'moved_rows') > 0
        ? { top_k: settings.normalised ? topK : null, moved: settings.normalised ? moved : null, kept }
        : null,
  };
}

/** How often each source token occurs in the blocks. */
export function sourceOccurrences(corpus: AlignedCorpus): Int32Array {
  const counts = new Int32Array(corpus.source.texts.length);
  for (const block of corpus.blocks) for (const id of block.source) counts[id]++;
  return counts;
}

function mapFigures(corpus: AlignedCorpus, equal: Int32Array, occurrences: Int32Array): MapFigures {
  const { map, source } = corpus;
  const byDistance: number[] = [];
  let same = 0;
  let mapped = 0;
  let unmapped = 0;
  let edits = 0;
  let editsOfText = 0;
  let mappedInText = 0;
  map.pivotIds.forEach((pivot, id) => {
    if (source.texts[id] === '') return;
    if (pivot < 0) unmapped++;
    else if (pivot === equal[id]) same++;
    else {
      mapped++;
      const distance = map.distances[id];
      edits += distance;
      editsOfText += distance * occurrences[id];
      mappedInText += occurrences[id];
      while (byDistance.length <= distance) byDistance.push(0);
      byDistance[distance]++;
    }
  });
  return {
    kind: map.kind,
    equal: same,
    mapped,
    unmapped,
    refined: map.refined ? map.refined.length : null,
    mean_distance: mapped > 0 ? edits / mapped : null,
    mean_distance_of_text: mappedInText > 0 ? editsOfText / mappedInText : null,
    by_distance: byDistance,
  };
}

const percent = (value: number): string => `${(100 * value).toFixed(1)} %`;

function verdictOf(
  source: string,
  pivot: string,
  { learnt: own, shares, mass }: DomainFigures,
): SourceFigures['verdict'] {
  const { yes, partly } = VERDICT_THRESHOLDS;
  const fused: Verdict = own.value >= yes ? 'yes' : own.value >= partly ? 'partly' : 'no';
  const saying = {
    yes: 'can be fused',
    partly: 'can be fused in part',
    no: 'should not be fused by this map',
  }[fused];
  const kept = mass === null ? '' : `, with ${percent(mass.kept.value)} of the probability of its likeliest tokens`;
  const limit =
    fused === 'yes'
      ? `at least ${percent(yes)}`
      : fused === 'partly'
        ? `${percent(partly)} to ${percent(yes)}`
        : `below ${percent(partly)}`;
  return {
    fused,
    text:
      `${source} ${saying} into ${pivot}: ${percent(own.value)} of positions take a row of the source` +
      ` (${percent(shares.exact.value)} by equal tokens)${kept}, ${limit}; the others learn the label alone`,
  };
}

/**
 * Figures of one source.
 *
 * @param sums [texts, SUMS.length], as `measureAlignment` gives them
 * @param domains of each text
 */
export function sourceFigures(
  names: { readonly source: string; readonly pivot: string },
  corpus: AlignedCorpus,
  sums: Float64Array,
  domains: readonly string[],
  settings: FigureSettings,
): SourceFigures {
  const dropped = new Set(corpus.dropped);
  const rowsOf = (wanted: (text: number) => boolean): Float64Array =>
    Float64Array.from(
      domains.flatMap((_, text) =>
        wanted(text) && !dropped.has(text) ? [...sums.subarray(text * SUMS.length, (text + 1) * SUMS.length)] : [],
      ),
    );
  const { equal } = tokenPair(corpus.source, corpus.pivot);
  const occurrences = sourceOccurrences(corpus);
  const filled = (texts: readonly string[]): number => texts.reduce((count, text) => count + (text === '' ? 0 : 1), 0);
  const equalTokens = equal.reduce((count, id) => count + (id < 0 ? 0 : 1), 0);
  const inText = occurrences.reduce((count, own, id) => count + (equal[id] < 0 ? 0 : own), 0);
  const all = occurrences.reduce((count, own) => count + own, 0);
  const total = domainFigures(
    'all',
    rowsOf(() => true),
    settings,
  );
  const present = [...new Set(domains)].filter((domain) =>
    domains.some((own, text) => own === domain && !dropped.has(text)),
  );
  return {
    source: names.source,
    vocabulary: corpus.source.texts.length,
    marker: corpus.source.marker,
    overlap: {
      equal_tokens: equalTokens,
      share_of_source: equalTokens / filled(corpus.source.texts),
      share_of_pivot: new Set(equal.filter((id) => id >= 0)).size / filled(corpus.pivot.texts),
      share_of_text: inText / all,
      equal_bytes: corpus.equalBytes,
    },
    map: mapFigures(corpus, equal, occurrences),
    dropped: dropped.size,
    total,
    domains: present.map((domain) =>
      domainFigures(
        domain,
        rowsOf((text) => domains[text] === domain),
        settings,
      ),
    ),
    verdict: verdictOf(names.source, names.pivot, total),
  };
}

export function alignBody(
  pivot: { readonly name: string; readonly vocabulary: number; readonly marker: string },
  documents: number,
  sources: readonly SourceFigures[],
  warnings: readonly string[],
): AlignBody {
  return {
    pivot: pivot.name,
    pivot_vocabulary: pivot.vocabulary,
    pivot_marker: pivot.marker,
    documents,
    bootstrap: { units: 'documents', resamples: RESAMPLES, level: 0.95 },
    verdict_thresholds: VERDICT_THRESHOLDS,
    sources,
    warnings,
  };
}

export const ALIGN_COLUMNS = [
  'source',
  'domain',
  'documents',
  'pivot_tokens',
  'source_tokens',
  'learnt',
  'learnt_se',
  'learnt_low',
  'learnt_high',
  ...KEYS,
  'fallback_one_to_one',
  'fallback_one_to_many',
  'fallback_many_to_one',
  'mean_cost',
  'mean_cost_se',
  'top_k_mass',
  'moved_mass',
  'kept_mass',
] as const;

export function* alignRows({ sources }: AlignBody): Generator<readonly Cell[]> {
  for (const { source, domains, total } of sources) {
    for (const own of [...domains, total]) {
      const { learnt: rate, shares, fallback, mean_cost: cost, mass } = own;
      yield [
        source,
        own.domain,
        own.documents,
        own.pivot_tokens,
        own.source_tokens,
        rate.value,
        rate.se ?? '',
        rate.low ?? '',
        rate.high ?? '',
        ...ROW_KINDS.map((kind) => shares[keyOf(kind)].value),
        fallback.one_to_one,
        fallback.one_to_many,
        fallback.many_to_one,
        cost.value,
        cost.se ?? '',
        mass?.top_k?.value ?? '',
        mass?.moved?.value ?? '',
        mass?.kept.value ?? '',
      ];
    }
  }
}

export const TOKEN_MAP_COLUMNS = [
  'source',
  'source_id',
  'source_token',
  'pivot_id',
  'pivot_token',
  'equal',
  'distance',
  'occurrences',
  'matches',
] as const;

/** The map token by token: `occurrences` of the source token in the texts, `matches` of the two along the paths. */
export function* tokenMapRows(name: string, corpus: AlignedCorpus): Generator<readonly Cell[]> {
  const { source, pivot, map } = corpus;
  const { equal } = tokenPair(source, pivot);
  const occurrences = sourceOccurrences(corpus);
  const matched = new Map(corpus.matches.map(([to, from, count]) => [from * pivot.texts.length + to, count]));
  for (const [id, text] of source.texts.entries()) {
    if (text === '') continue;
    const to = map.pivotIds[id];
    yield [
      name,
      id,
      escapeToken(text),
      to < 0 ? '' : to,
      to < 0 ? '' : escapeToken(pivot.texts[to]),
      to >= 0 && to === equal[id] ? 1 : 0,
      to < 0 ? '' : map.distances[id],
      occurrences[id],
      to < 0 ? 0 : (matched.get(id * pivot.texts.length + to) ?? 0),
    ];
  }
}
