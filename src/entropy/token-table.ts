import type { RowStatistics } from '../kernels/row-statistics.js';
import type { Cell } from '../report/csv.js';
import { escapeToken } from '../report/escape.js';
import type { Tokenizer } from '../tokenizers/tokenizer.js';
import type { DocumentStatistics, ScoredTokens } from './corpus.js';
import { documentAggregate } from './corpus-summary.js';
import type { ScoredWindow } from './token-scoring.js';
import { contextLengthOf } from './windows.js';

/** What the table of tokens needs of every row of logits. */
export const TOKEN_STATISTICS = { topK: 10, renyiOrders: [0.5, 2] } as const;

/** Columns of the table of tokens. */
export const TOKEN_COLUMNS = [
  'document',
  'document_id',
  'position',
  'context_tokens',
  'token_id',
  'token',
  'bytes',
  'surprisal_nats',
  'entropy_nats',
  'varentropy_nats2',
  'rank',
  'top1_prob',
  'top1_id',
  'margin',
  'top5_mass',
  'top10_mass',
  'renyi_half_nats',
  'renyi_2_nats',
  'min_entropy_nats',
  'normalized_entropy',
  'excess_surprisal_nats',
  'surprisal_bits',
  'entropy_bits',
] as const;

/** The scored tokens of a window, as corpus statistics take them. */
export function scoredTokens({ window, statistics, first }: ScoredWindow): ScoredTokens {
  const count = window.targets.length;
  const end = first + count;
  const index = (from: (i: number) => number): Int32Array => Int32Array.from({ length: count }, (_, i) => from(i));
  return {
    positions: index((i) => window.targetStart + i),
    tokenIds: window.targets,
    contextLengths: index((i) => contextLengthOf(window, i)),
    surprisalNats: statistics.surprisalNats.subarray(first, end),
    entropyNats: statistics.entropyNats.subarray(first, end),
    varentropyNats2: statistics.varentropyNats2.subarray(first, end),
    topProbability: Float64Array.from({ length: count }, (_, i) => Math.exp(-statistics.minEntropyNats[first + i])),
    rank: Int32Array.from(statistics.rank.subarray(first, end)),
    validLabels: window.validLabels,
  };
}

/** Rows of the table, one a token. `tokenizer` renders the token; without one the text is empty. */
export function* tokenRows(scored: ScoredWindow, tokenizer: Tokenizer | undefined): Generator<Cell[]> {
  const { document, window, statistics, first } = scored;
  for (let i = 0; i < window.targets.length; i++) {
    const row = first + i;
    const id = window.targets[i];
    const bytes = tokenizer?.tokenBytes(id);
    const surprisal = statistics.surprisalNats[row];
    const entropy = statistics.entropyNats[row];
    yield [
      document.index,
      document.id,
      window.targetStart + i,
      contextLengthOf(window, i),
      id,
      bytes && escapeToken(bytes),
      bytes?.length,
      surprisal,
      entropy,
      statistics.varentropyNats2[row],
      statistics.rank[row],
      Math.exp(-statistics.minEntropyNats[row]),
      statistics.topColumns[row * statistics.topK],
      statistics.margin[row],
      topMass(statistics, row, 5),
      topMass(statistics, row, 10),
      statistics.renyiNats[0][row],
      statistics.renyiNats[1][row],
      statistics.minEntropyNats[row],
      statistics.normalizedEntropy[row],
      surprisal - entropy,
      surprisal / Math.LN2,
      entropy / Math.LN2,
    ];
  }
}

/** Mass of the k most probable tokens of a row. */
function topMass({ topK, topLogProbs }: RowStatistics, row: number, k: number): number {
  let mass = 0;
  for (let i = 0; i < Math.min(k, topK); i++) mass += Math.exp(topLogProbs[row * topK + i]);
  return Math.min(1, mass);
}

/** Columns of the table of documents. */
export const DOCUMENT_COLUMNS = [
  'document',
  'document_id',
  'source',
  'tokens',
  'scored_tokens',
  'bytes',
  'words',
  'nll_sum_nats',
  'mean_nll_nats',
  'perplexity',
  'bits_per_byte',
  'mean_entropy_nats',
  'infinite_tokens',
] as const;

export function documentRow(document: DocumentStatistics): Cell[] {
  const figures = documentAggregate(document);
  return [
    document.index,
    document.id,
    document.source,
    document.tokens,
    document.scoredTokens,
    document.bytes,
    document.words,
    document.nllSum,
    figures.mean_nll_nats,
    figures.perplexity,
    figures.bits_per_byte,
    figures.mean_entropy_nats,
    document.infiniteTokens,
  ];
}
