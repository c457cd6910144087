import type { Cell } from '../report/csv.js';
import { escapeToken } from '../report/escape.js';
import { type ReportObject, type ReportValue, reportObject } from '../report/values.js';
import type { Tokenizer } from '../tokenizers/tokenizer.js';
import {
  addComparison,
  type ComparisonJson,
  type ComparisonStatistics,
  type ComparisonSummary,
  comparisonFromJson,
  comparisonToJson,
  createComparison,
  documentComparisons,
  mergeComparisons,
  summarizeComparison,
  type TokenComparison,
} from './compare.js';
import {
  addToProfile,
  type ComparisonProfile,
  type ComparisonProfileJson,
  createProfile,
  mergeProfiles,
  type ProfileSummary,
  profileFromJson,
  profileToJson,
  summarizeProfile,
} from './compare-profile.js';
import type { RowPlaces } from './compare-scoring.js';

export const COMPARE_SCHEMA = 'compare';

/** Columns of the table of tokens: one row a token and candidate. */
export const COMPARE_COLUMNS = [
  'document',
  'document_id',
  'position',
  'context_tokens',
  'token_id',
  'token',
  'candidate',
  'kl_nats',
  'reverse_kl_nats',
  'js_nats',
  'base_entropy_nats',
  'candidate_entropy_nats',
  'delta_entropy_nats',
  'base_surprisal_nats',
  'candidate_surprisal_nats',
  'delta_surprisal_nats',
  'base_prob',
  'candidate_prob',
  'delta_p',
  'base_top1_id',
  'candidate_top1_id',
  'base_top1_prob',
  'candidate_top1_prob',
  'same_top1',
] as const;

/** Columns of the table of documents: one row a document and candidate. */
export const COMPARE_DOCUMENT_COLUMNS = [
  'document',
  'document_id',
  'source',
  'candidate',
  'scored_tokens',
  'mean_kl_nats',
  'mean_reverse_kl_nats',
  'mean_js_nats',
  'base_perplexity',
  'candidate_perplexity',
  'ln_perplexity_ratio',
  'mean_delta_entropy_nats',
  'top1_agreement',
] as const;

/** Mergeable statistics of one candidate. */
export interface CandidateStatistics {
  readonly name: string;
  readonly comparison: ComparisonStatistics;
  readonly profile: ComparisonProfile;
}

export function createCandidate(name: string, top: number): CandidateStatistics {
  return { name, comparison: createComparison(), profile: createProfile(top) };
}

const textOf = (tokenizer: Tokenizer | undefined, id: number): string =>
  id < 0 ? '' : tokenizer ? escapeToken(tokenizer.tokenBytes(id)) : `[${id}]`;

/** Tokens of context shown beside a divergent token. */
const SHOWN_CONTEXT = 12;

/** Adds the rows of one chunk: those of one document together, in order. */
export function addCandidateRows(
  candidate: CandidateStatistics,
  comparison: TokenComparison,
  places: RowPlaces,
  tokenizer: Tokenizer | undefined,
): void {
  const rows = places.targets.length;
  for (let start = 0; start < rows; ) {
    let end = start + 1;
    while (end < rows && places.documentIndices[end] === places.documentIndices[start]) end++;
    addComparison(candidate.comparison, places.documentIndices[start], sliceComparison(comparison, start, end));
    start = end;
  }
  for (let i = 0; i < rows; i++) {
    const document = places.documents[i];
    const position = places.positions[i];
    addToProfile(
      candidate.profile,
      comparison,
      i,
      { document: document.index, position, contextLength: places.contextLengths[i] },
      () => {
        let context = '';
        for (let p = Math.max(0, position - SHOWN_CONTEXT); p < position; p++) {
          context += textOf(tokenizer, document.tokens[p]);
        }
        return {
          id: document.id,
          tokenId: places.targets[i],
          token: textOf(tokenizer, places.targets[i]),
          context,
          baseTop: textOf(tokenizer, comparison.baseTop[i]),
          candidateTop: textOf(tokenizer, comparison.candidateTop[i]),
          baseSurprisalNats: comparison.baseSurprisalNats[i],
          candidateSurprisalNats: comparison.candidateSurprisalNats[i],
        };
      },
    );
  }
}

function sliceComparison(comparison: TokenComparison, start: number, end: number): TokenComparison {
  const { codedKlNats } = comparison;
  return {
    rows: end - start,
    klNats: comparison.klNats.subarray(start, end),
    reverseKlNats: comparison.reverseKlNats.subarray(start, end),
    jensenShannonNats: comparison.jensenShannonNats.subarray(start, end),
    baseEntropyNats: comparison.baseEntropyNats.subarray(start, end),
    candidateEntropyNats: comparison.candidateEntropyNats.subarray(start, end),
    baseSurprisalNats: comparison.baseSurprisalNats.subarray(start, end),
    candidateSurprisalNats: comparison.candidateSurprisalNats.subarray(start, end),
    baseLogSumExp: comparison.baseLogSumExp.subarray(start, end),
    candidateLogSumExp: comparison.candidateLogSumExp.subarray(start, end),
    baseTop: comparison.baseTop.subarray(start, end),
    candidateTop: comparison.candidateTop.subarray(start, end),
    baseTopProbability: comparison.baseTopProbability.subarray(start, end),
    candidateTopProbability: comparison.candidateTopProbability.subarray(start, end),
    deltaProbability: comparison.deltaProbability.subarray(start, end),
    ...(codedKlNats && { codedKlNats: codedKlNats.subarray(start, end) }),
  };
}

/** Row `i` of the table of tokens. */
export function comparisonRow(
  name: string,
  comparison: TokenComparison,
  places: RowPlaces,
  i: number,
  tokenizer: Tokenizer | undefined,
): Cell[] {
  const baseSurprisal = comparison.baseSurprisalNats[i];
  const candidateSurprisal = comparison.candidateSurprisalNats[i];
  return [
    places.documentIndices[i],
    places.documents[i].id,
    places.positions[i],
    places.contextLengths[i],
    places.targets[i],
    tokenizer && textOf(tokenizer, places.targets[i]),
    name,
    comparison.klNats[i],
    comparison.reverseKlNats[i],
    comparison.jensenShannonNats[i],
    comparison.baseEntropyNats[i],
    comparison.candidateEntropyNats[i],
    comparison.candidateEntropyNats[i] - comparison.baseEntropyNats[i],
    baseSurprisal,
    candidateSurprisal,
    candidateSurprisal - baseSurprisal,
    Math.exp(-baseSurprisal),
    Math.exp(-candidateSurprisal),
    comparison.deltaProbability[i],
    comparison.baseTop[i],
    comparison.candidateTop[i],
    comparison.baseTopProbability[i],
    comparison.candidateTopProbability[i],
    comparison.baseTop[i] === comparison.candidateTop[i],
  ];
}

/** Rows of the table of documents, by document and then by candidate. */
export function* comparisonDocumentRows(
  candidates: readonly CandidateStatistics[],
  documents: ReadonlyMap<number, { readonly id: string; readonly source: string }>,
): Generator<Cell[]> {
  const figures = candidates.map(({ comparison }) => documentComparisons(comparison));
  for (let d = 0; d < (figures[0]?.length ?? 0); d++) {
    for (const [c, { name }] of candidates.entries()) {
      const document = figures[c][d];
      const place = documents.get(document.index);
      yield [
        document.index,
        place?.id,
        place?.source,
        name,
        document.tokens,
        document.meanKlNats,
        document.meanReverseKlNats,
        document.meanJensenShannonNats,
        Math.exp(document.baseMeanNllNats),
        Math.exp(document.candidateMeanNllNats),
        document.candidateMeanNllNats - document.baseMeanNllNats,
        document.meanDeltaEntropyNats,
        document.top1Agreement,
      ];
    }
  }
}

/** Where the base's predictions came from. */
export interface BaseDescription {
  /** `model`, a dump of `--save-logits`, or a base file of llama.cpp. */
  readonly kind: 'model' | 'dump' | 'llama.cpp';
  readonly name: string;
  readonly vocabulary_size: number;
}

export type CandidateBody = { readonly candidate: string } & ComparisonSummary & ProfileSummary;

/** Body of the report of `analyze-entropy compare`. */
export interface CompareBody {
  readonly convention: ReportObject;
  readonly base: BaseDescription;
  readonly documents: number;
  readonly tokens: number;
  readonly scored_tokens: number;
  readonly candidates: readonly CandidateBody[];
}

/** What the statistics of the candidates do not say. */
export interface CompareCounts {
  readonly documents: number;
  readonly tokens: number;
  readonly scoredTokens: number;
}

/** Makes the body from the statistics of all documents, in one process or united from shards. */
export function compareBody(
  candidates: readonly CandidateStatistics[],
  counts: CompareCounts,
  head: { readonly convention: ReportObject; readonly base: BaseDescription; readonly seed: number },
): CompareBody {
  return {
    convention: head.convention,
    base: head.base,
    documents: counts.documents,
    tokens: counts.tokens,
    scored_tokens: counts.scoredTokens,
    candidates: candidates.map(({ name, comparison, profile }) => ({
      candidate: name,
      ...summarizeComparison(comparison, { seed: head.seed }),
      ...summarizeProfile(profile),
    })),
  };
}

interface ComparePartial {
  documents: number;
  tokens: number;
  scored_tokens: number;
  candidates: { name: string; comparison: ComparisonJson; profile: ComparisonProfileJson }[];
}

/** The mergeable part of a shard's report. */
export function comparePartial(candidates: readonly CandidateStatistics[], counts: CompareCounts): ReportValue {
  return reportObject({
    documents: counts.documents,
    tokens: counts.tokens,
    scored_tokens: counts.scoredTokens,
    candidates: candidates.map(({ name, comparison, profile }) => ({
      name,
      comparison: comparisonToJson(comparison),
      profile: profileToJson(profile),
    })),
  });
}

/** Unites the shards of a run; the bytes are those of a run without shards. */
export function mergeCompareReports(
  parts: readonly { readonly report: Readonly<Record<string, unknown>>; readonly partial: unknown }[],
): ReportObject {
  const partials = parts.map((part) => part.partial as ComparePartial);
  const candidates = partials[0].candidates.map(
    ({ name }, c): CandidateStatistics => ({
      name,
      comparison: mergeComparisons(partials.map((partial) => comparisonFromJson(partial.candidates[c].comparison))),
      profile: mergeProfiles(partials.map((partial) => profileFromJson(partial.candidates[c].profile))),
    }),
  );
  const sum = (key: 'documents' | 'tokens' | 'scored_tokens'): number =>
    partials.reduce((total, partial) => total + partial[key], 0);
  const { parameters, convention, base } = parts[0].report as unknown as {
    parameters: { seed: number };
    convention: ReportObject;
    base: BaseDescription;
  };
  const counts = { documents: sum('documents'), tokens: sum('tokens'), scoredTokens: sum('scored_tokens') };
  return reportObject(compareBody(candidates, counts, { convention, base, seed: parameters.seed }));
}
