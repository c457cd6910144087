/** Sums over scored tokens from which every corpus figure follows. Infinite surprisals are counted, not summed. */
export interface TokenSums {
  /** Scored tokens, those of infinite surprisal included. */
  readonly tokens: number;
  readonly infiniteTokens: number;
  /** Sum of the finite surprisals, and of their squares. */
  readonly nllSum: number;
  readonly nllSquareSum: number;
  readonly entropySum: number;
  readonly entropySquareSum: number;
  readonly varentropySum: number;
}

/** UTF-8 bytes and words of the original text; undefined where the text is not known. */
export interface TextCounts {
  readonly bytes?: number;
  readonly words?: number;
}

/** Corpus figures, named as reports name them. Infinite and NaN figures are numbers here; writers spell them. */
export interface TokenAggregate {
  scored_tokens: number;
  infinite_tokens: number;
  total_nll_nats: number;
  mean_nll_nats: number;
  mean_nll_bits: number;
  mean_nll_nats_se: number;
  perplexity: number;
  perplexity_se: number;
  finite_mean_nll_nats: number;
  finite_perplexity: number;
  mean_entropy_nats: number;
  mean_entropy_bits: number;
  mean_entropy_nats_se: number;
  mean_varentropy_nats2: number;
  entropy_calibration_gap_nats: number;
  bits_per_byte?: number;
  byte_perplexity?: number;
  word_perplexity?: number;
}

/** Standard error of a mean from sums: `sqrt((mean(x^2) - mean(x)^2) / (n - 1))`, as llama.cpp prints it. */
export function standardErrorOfMean(sum: number, squareSum: number, count: number): number {
  const mean = sum / count;
  return Math.sqrt(Math.max(0, squareSum / count - mean * mean) / (count - 1));
}

/**
 * Corpus figures of token sums. Ratios of sums, never means of ratios. One infinite surprisal makes the mean and the
 * perplexity infinite and their errors NaN; the finite-only figures stand beside. `entropy_calibration_gap_nats` is the
 * teacher-forced gap, mean entropy less mean surprisal.
 *
 * `bits_per_byte = nll/(ln 2 * bytes)`, `byte_perplexity = exp(nll/bytes)`, `word_perplexity = exp(nll/words)`
 * (lm-evaluation-harness); `perplexity_se = perplexity * se` (llama.cpp).
 */
export function aggregateTokens(sums: TokenSums, text: TextCounts = {}): TokenAggregate {
  const { tokens, infiniteTokens } = sums;
  const finite = tokens - infiniteTokens;
  const total = infiniteTokens > 0 ? Number.POSITIVE_INFINITY : sums.nllSum;
  const mean = tokens === 0 ? Number.NaN : total / tokens;
  const meanError = infiniteTokens > 0 ? Number.NaN : standardErrorOfMean(sums.nllSum, sums.nllSquareSum, tokens);
  const meanEntropy = sums.entropySum / tokens;
  const figures: TokenAggregate = {
    scored_tokens: tokens,
    infinite_tokens: infiniteTokens,
    total_nll_nats: total,
    mean_nll_nats: mean,
    mean_nll_bits: mean / Math.LN2,
    mean_nll_nats_se: meanError,
    perplexity: Math.exp(mean),
    perplexity_se: Math.exp(mean) * meanError,
    finite_mean_nll_nats: sums.nllSum / finite,
    finite_perplexity: Math.exp(sums.nllSum / finite),
    mean_entropy_nats: meanEntropy,
    mean_entropy_bits: meanEntropy / Math.LN2,
    mean_entropy_nats_se: standardErrorOfMean(sums.entropySum, sums.entropySquareSum, tokens),
    mean_varentropy_nats2: sums.varentropySum / tokens,
    entropy_calibration_gap_nats: meanEntropy - mean,
  };
  if (text.bytes !== undefined) {
    figures.bits_per_byte = total / (Math.LN2 * text.bytes);
    figures.byte_perplexity = Math.exp(total / text.bytes);
  }
  if (text.words !== undefined) figures.word_perplexity = Math.exp(total / text.words);
  return figures;
}
