import { describe, expect, it } from 'vitest';
import {
  addDocument,
  addEmptyWindow,
  addScoredTokens,
  type CorpusStatistics,
  corpusFromJson,
  corpusToJson,
  createCorpus,
  mergeCorpus,
  type ScoredTokens,
} from '../../src/entropy/corpus.js';
import { documentAggregate, summarizeCorpus } from '../../src/entropy/corpus-summary.js';
import { createRandom } from '../../src/random.js';

interface Made {
  surprisal: number[];
  entropy: number[];
}

/** A document's measures, a function of its index alone. */
function make(index: number): Made {
  const random = createRandom(99).fork(index);
  const tokens = 1 + random.integer(60);
  const entropy = Array.from({ length: tokens }, () => Math.abs(3 + random.normal()));
  return { entropy, surprisal: entropy.map((h) => Math.abs(h + 1.5 * random.normal())) };
}

function block(made: Made, from: number, to: number): ScoredTokens {
  const slice = (values: number[]): Float64Array => Float64Array.from(values.slice(from, to));
  const ints = (f: (i: number) => number): Int32Array => Int32Array.from({ length: to - from }, (_, i) => f(from + i));
  const surprisal = slice(made.surprisal);
  return {
    positions: ints((i) => i),
    tokenIds: ints((i) => i * 7),
    contextLengths: ints((i) => i + 1),
    surprisalNats: surprisal,
    entropyNats: slice(made.entropy),
    varentropyNats2: slice(made.entropy.map((h) => h / 2)),
    topProbability: slice(made.entropy.map((h) => Math.exp(-h / 2))),
    rank: Int32Array.from(surprisal, (s) => (s < 2 ? 1 : 5)),
    validLabels: to - from,
  };
}

function add(corpus: CorpusStatistics, index: number, made = make(index), bytes = true): void {
  const tokens = made.surprisal.length;
  const document = addDocument(corpus, {
    index,
    id: `d${index}`,
    source: index % 2 === 0 ? 'even' : 'odd',
    tokens,
    ...(bytes ? { bytes: 4 * tokens, words: tokens } : {}),
  });
  const describe = (position: number) => ({ token: `t${position}`, context: `c${index}` });
  for (let from = 0; from < tokens; from += 16) {
    addScoredTokens(corpus, document, block(made, from, Math.min(tokens, from + 16)), describe);
  }
}

const DOCUMENTS = 57;
const all = (exactQuantiles: number): CorpusStatistics => {
  const corpus = createCorpus({ exactQuantiles, top: 9 });
  for (let index = 0; index < DOCUMENTS; index++) add(corpus, index);
  return corpus;
};

describe('corpus statistics', () => {
  it.each([20_000, 200])('of united shards are those of one pass, byte for byte (exact up to %d values)', (exact) => {
    const whole = JSON.stringify(summarizeCorpus(all(exact), { seed: 3, resamples: 50 }));
    for (const shards of [2, 5]) {
      const parts = Array.from({ length: shards }, (_, shard) => {
        const part = createCorpus({ exactQuantiles: exact, top: 9 });
        for (let index = shard; index < DOCUMENTS; index += shards) add(part, index);
        return corpusFromJson(JSON.parse(JSON.stringify(corpusToJson(part))));
      });
      const united = mergeCorpus(parts.reverse());
      expect(JSON.stringify(summarizeCorpus(united, { seed: 3, resamples: 50 }))).toBe(whole);
    }
  });

  it('give the figures of the definitions', () => {
    const documents = Array.from({ length: DOCUMENTS }, (_, index) => make(index));
    const nll = documents.flatMap((made) => made.surprisal);
    const entropy = documents.flatMap((made) => made.entropy);
    const sum = (values: number[]): number => values.reduce((a, b) => a + b, 0);
    const n = nll.length;
    const mean = sum(nll) / n;
    const summary = summarizeCorpus(all(20_000), { seed: 1, resamples: 20 });
    expect(summary.documents).toBe(DOCUMENTS);
    expect([summary.tokens, summary.scored_tokens]).toEqual([n, n]);
    expect(summary.mean_nll_nats).toBeCloseTo(mean, 12);
    expect(summary.perplexity).toBeCloseTo(Math.exp(mean), 10);
    expect(summary.mean_nll_nats_se).toBeCloseTo(Math.sqrt((sum(nll.map((x) => x * x)) / n - mean ** 2) / (n - 1)), 12);
    expect(summary.bits_per_byte).toBeCloseTo(sum(nll) / Math.LN2 / (4 * n), 12);
    expect(summary.word_perplexity).toBeCloseTo(Math.exp(mean), 10);
    expect(summary.mean_entropy_bits).toBeCloseTo(sum(entropy) / n / Math.LN2, 12);
    expect(summary.macro_mean_nll_nats).toBeCloseTo(
      sum(documents.map((made) => sum(made.surprisal) / made.surprisal.length)) / DOCUMENTS,
      12,
    );
    const first = summary.by_context_length[0];
    expect(first).toMatchObject({ first: 1, last: 1, tokens: DOCUMENTS });
    expect(first.mean_nll_nats).toBeCloseTo(sum(documents.map((made) => made.surprisal[0])) / DOCUMENTS, 12);
    expect(sum(summary.by_context_length.map((bin) => bin.tokens))).toBe(n);
    expect(sum(summary.calibration.entropy_bins.map((bin) => bin.tokens))).toBe(n);
    expect(sum(summary.histograms.joint.map(([, , count]) => count))).toBe(n);
    expect(summary.sources.map(({ source }) => source)).toEqual(['even', 'odd']);
    const top = [...nll].sort((a, b) => b - a).slice(0, 9);
    expect(summary.most_surprising.map((token) => token.surprisal_nats)).toEqual(top);
    expect(summary.most_uncertain[0].token).toMatch(/^t\d+$/);
    expect(summary.surprisal_quantiles_nats.max).toBe(top[0]);
    const document = documentAggregate(all(20_000).documents.get(4) ?? expect.fail('no document 4'));
    expect(document.mean_nll_nats).toBeCloseTo(sum(documents[4].surprisal) / documents[4].surprisal.length, 12);
  });

  it('keep infinite surprisals in the count and finite figures beside', () => {
    const corpus = createCorpus();
    const made = { surprisal: [1, Number.POSITIVE_INFINITY, 3], entropy: [1, 1, 1] };
    add(corpus, 0, made);
    const summary = summarizeCorpus(corpusFromJson(JSON.parse(JSON.stringify(corpusToJson(corpus)))), { seed: 0 });
    expect(summary.perplexity).toBe(Number.POSITIVE_INFINITY);
    expect(summary.infinite_tokens).toBe(1);
    expect(summary.finite_perplexity).toBeCloseTo(Math.exp(2), 12);
    expect(summary.mean_nll_nats_se).toBeNaN();
    expect(summary.entropy_calibration_gap_nats).toBe(Number.NEGATIVE_INFINITY);
    expect(summary.most_surprising[0].surprisal_nats).toBe(Number.POSITIVE_INFINITY);
    expect(summary.surprisal_quantiles_nats.max).toBe(Number.POSITIVE_INFINITY);
    expect(summary.intervals).toBeUndefined();
  });

  it('order equal extremes by document and position', () => {
    const corpus = createCorpus({ top: 3 });
    for (const index of [4, 1, 2]) add(corpus, index, { surprisal: [5, 5], entropy: [1, 1] });
    const { most_surprising: list } = summarizeCorpus(corpus, { seed: 0 });
    expect(list.map((token) => [token.document, token.position])).toEqual([
      [1, 0],
      [1, 1],
      [2, 0],
    ]);
  });

  it('leave out byte figures when a document has no text, and mark empty windows', () => {
    const corpus = createCorpus();
    add(corpus, 0);
    add(corpus, 1, make(1), false);
    addEmptyWindow(corpus.documents.get(1) ?? expect.fail('no document 1'));
    const summary = summarizeCorpus(corpus, { seed: 0, resamples: 10 });
    expect(summary).not.toHaveProperty('bits_per_byte');
    expect(summary).not.toHaveProperty('word_perplexity');
    expect(summary.compat.hf_mean_of_window_means_perplexity).toBeNaN();
    expect(summary.compat.hf_label_weighted_perplexity).toBeGreaterThan(1);
  });

  it('refuse a document in two parts', () => {
    const part = createCorpus();
    add(part, 0);
    expect(() => mergeCorpus([part, part])).toThrow(/document 0/);
    expect(() => add(part, 0)).toThrow(RangeError);
  });
});
