import { type ReportObject, reportObject } from '../report/values.js';
import { type CorpusJson, type CorpusStatistics, corpusFromJson, mergeCorpus } from './corpus.js';
import { type CorpusSummary, summarizeCorpus } from './corpus-summary.js';

/** Name of the report's schema. */
export const TOKENS_SCHEMA = 'tokens';

/** Body of the report of `analyze-entropy tokens`. */
export type TokensBody = CorpusSummary & { readonly convention: ReportObject };

/** Makes the body from the statistics of all documents, in one process or united from shards. */
export function tokensBody(
  corpus: CorpusStatistics,
  options: { readonly seed: number; readonly convention: ReportObject },
): TokensBody {
  return { convention: options.convention, ...summarizeCorpus(corpus, { seed: options.seed }) };
}

/** Unites the shards of a run; the bytes are those of a run without shards. */
export function mergeTokenReports(
  parts: readonly { readonly report: Readonly<Record<string, unknown>>; readonly partial: unknown }[],
): ReportObject {
  const corpus = mergeCorpus(parts.map((part) => corpusFromJson(part.partial as CorpusJson)));
  const { parameters, convention } = parts[0].report as {
    parameters: { seed: number };
    convention: ReportObject;
  };
  return reportObject(tokensBody(corpus, { seed: parameters.seed, convention }));
}
