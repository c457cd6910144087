import type { TextToken } from '../report/plots/coloured-text.js';
import { plotBytes } from '../report/plots/figure.js';
import { type NotableToken, tokensFigure } from '../report/plots/tokens-figure.js';
import type { Tokenizer } from '../tokenizers/tokenizer.js';
import type { NotableTokenSummary } from './corpus-summary.js';
import type { TokensBody } from './token-report.js';
import type { ScoredWindow } from './token-scoring.js';

/** Tokens kept for the coloured text: the start of the data. */
const KEPT_TOKENS = 4000;

/** Gathers the text to colour while a run goes on, and draws the figure at its end. */
export interface TokensPlot {
  add(scored: ScoredWindow): void;
  /** Bytes of the figure for a target that ends in .svg, .png or .html. */
  plot(body: TokensBody, subtitle: string, target: string): Promise<Uint8Array>;
  /** The gathered text as plain JSON, for a checkpoint. */
  toJson(): TokensPlotJson;
}

type PlainToken = Omit<TextToken, 'text' | 'top1Text' | 'surprisalNats'> & {
  readonly surprisalNats: number | 'inf';
  readonly id: number;
  readonly top1Id: number;
};

export interface TokensPlotJson {
  readonly total: number;
  readonly kept: readonly PlainToken[];
}

export function createTokensPlot(tokenizer: Tokenizer | undefined, from?: TokensPlotJson): TokensPlot {
  const kept: PlainToken[] = [...(from?.kept ?? [])];
  let total = from?.total ?? 0;
  const textOf = (id: number): string | Uint8Array => tokenizer?.tokenBytes(id) ?? `[${id}]`;
  return {
    add({ document, window, statistics, first }) {
      total += window.targets.length;
      for (let i = 0; i < window.targets.length && kept.length < KEPT_TOKENS; i++) {
        const row = first + i;
        const surprisal = statistics.surprisalNats[row];
        kept.push({
          id: window.targets[i],
          surprisalNats: surprisal === Number.POSITIVE_INFINITY ? 'inf' : surprisal,
          entropyNats: statistics.entropyNats[row],
          rank: statistics.rank[row],
          top1Prob: Math.exp(-statistics.minEntropyNats[row]),
          top1Id: statistics.topColumns[row * statistics.topK],
          document: document.id,
        });
      }
    },
    async plot(body, subtitle, target) {
      const tokens = kept.map(
        ({ id, top1Id, surprisalNats, ...token }): TextToken => ({
          ...token,
          text: textOf(id),
          top1Text: textOf(top1Id),
          surprisalNats: surprisalNats === 'inf' ? Number.POSITIVE_INFINITY : surprisalNats,
        }),
      );
      return plotBytes(await tokensFigure({ ...figureData(body, subtitle), tokens, tokenTotal: total }), target);
    },
    toJson: () => ({ total, kept }),
  };
}

type FigureData = Parameters<typeof tokensFigure>[0];

/** The part of the figure that stands in the report. */
export function figureData(
  body: Omit<TokensBody, 'convention' | 'compat'>,
  subtitle: string,
): Omit<FigureData, 'tokens' | 'tokenTotal'> {
  const interval = (name: 'perplexity' | 'mean_nll_nats' | 'mean_entropy_nats' | 'bits_per_byte') => {
    const found = body.intervals?.[name];
    return found ? { interval: [found.low, found.high] as const, intervalName: '95 % document bootstrap' } : {};
  };
  const surprisal = denseHistogram(body.histograms.surprisal, body.histograms.bin_width_nats);
  return {
    title: 'Where the model is sure, and where it is not',
    subtitle,
    headline: [
      { label: 'Documents', value: body.documents },
      { label: 'Tokens scored', value: body.scored_tokens },
      { label: 'Perplexity', value: body.perplexity, standardError: body.perplexity_se, ...interval('perplexity') },
      {
        label: 'Mean surprisal',
        value: body.mean_nll_nats,
        unit: 'nats',
        standardError: body.mean_nll_nats_se,
        ...interval('mean_nll_nats'),
      },
      {
        label: 'Mean entropy',
        value: body.mean_entropy_nats,
        unit: 'nats',
        standardError: body.mean_entropy_nats_se,
        ...interval('mean_entropy_nats'),
      },
      ...(body.bits_per_byte === undefined
        ? []
        : [{ label: 'Bits per byte', value: body.bits_per_byte, ...interval('bits_per_byte') }]),
    ],
    entropyHistogram: denseHistogram(sumSources(body), body.histograms.bin_width_nats),
    surprisalHistogram: surprisal,
    meanEntropyNats: body.mean_entropy_nats,
    meanSurprisalNats: body.finite_mean_nll_nats,
    byPosition: body.by_context_length.map((bin) => ({
      position: (bin.first + bin.last) / 2,
      meanEntropyNats: bin.mean_entropy_nats,
      meanSurprisalNats: bin.mean_nll_nats,
      seEntropyNats: bin.mean_entropy_nats_se,
      seSurprisalNats: bin.mean_nll_nats_se,
      count: bin.tokens,
    })),
    calibration: body.calibration.entropy_bins.map((bin) => ({
      predicted: bin.mean_entropy_nats,
      observed: bin.mean_nll_nats,
      standardError: bin.mean_nll_nats_se,
      count: bin.tokens,
    })),
    confidence: body.calibration.confidence_bins.map((bin) => ({
      predicted: bin.mean_top_probability,
      observed: bin.accuracy,
      standardError: bin.accuracy_se,
      count: bin.tokens,
    })),
    density: jointDensity(body),
    mostSurprising: body.most_surprising.map(notable),
    mostUncertain: body.most_uncertain.map(notable),
  };
}

function notable(token: NotableTokenSummary): NotableToken {
  return {
    document: token.id,
    position: token.position,
    before: token.context,
    token: {
      text: token.token,
      surprisalNats: token.surprisal_nats,
      entropyNats: token.entropy_nats,
      rank: Number.NaN,
      top1Prob: Number.NaN,
    },
    after: '',
  };
}

function sumSources(body: Pick<TokensBody, 'histograms'>): [number, number][] {
  const counts = new Map<number, number>();
  for (const { counts: list } of body.histograms.entropy_by_source) {
    for (const [bin, count] of list) counts.set(bin, (counts.get(bin) ?? 0) + count);
  }
  return [...counts];
}

/** Bins 0..last with their edges, from a list of [bin, count]. */
export function denseHistogram(
  counts: readonly [number, number][],
  width: number,
): { edges: number[]; counts: number[] } {
  const last = counts.reduce((most, [bin]) => Math.max(most, bin), 0);
  const dense = new Array<number>(last + 1).fill(0);
  for (const [bin, count] of counts) dense[bin] += count;
  return { edges: Array.from({ length: last + 2 }, (_, i) => i * width), counts: dense };
}

function jointDensity(body: Pick<TokensBody, 'histograms'>): NonNullable<FigureData['density']> {
  const { joint, bin_width_nats: width } = body.histograms;
  const columns = 1 + joint.reduce((most, [entropy]) => Math.max(most, entropy), 0);
  const rows = 1 + joint.reduce((most, [, surprisal]) => Math.max(most, surprisal), 0);
  const counts = new Float64Array(columns * rows);
  for (const [entropy, surprisal, count] of joint) counts[entropy * rows + surprisal] += count;
  return {
    xEdges: Array.from({ length: columns + 1 }, (_, i) => i * width),
    yEdges: Array.from({ length: rows + 1 }, (_, i) => i * width),
    counts,
  };
}
