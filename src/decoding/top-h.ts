import { createEntropySum, RELATIVE_SLACK, WEIGHT_DEPTH } from '../kernels/token-cuts.js';
import { filterTokens, type LogitRow } from '../kernels/token-filter.js';
import { checkSamplingPlan, planFilters } from './sampler.js';
import { type SamplingPlan, TOP_H_RULES, type TopHRule } from './types.js';

/** What one rule of top-H does to rows of logits, [rows] each. Entropies in nats, over softmax(x/T). */
export interface TopHDiagnostics {
  readonly rule: TopHRule;
  readonly alpha: number;
  readonly temperature: number;
  /** H(p) over the whole vocabulary. */
  readonly entropyNats: Float64Array;
  /** alpha H(p). */
  readonly boundNats: Float64Array;
  readonly keptCount: Int32Array;
  /** Gamma, the mass that is kept. */
  readonly keptMass: Float64Array;
  /** H(q), q the kept part renormalised. */
  readonly entropyAfterNats: Float64Array;
  /** 1 where H(q) <= alpha H(p), within 1e-12 relative. */
  readonly boundHeld: Uint8Array;
  /** JSD(p, q). */
  readonly divergenceNats: Float64Array;
  /** e^H(q). */
  readonly perplexity: Float64Array;
  /** H(q)/H(p); 0 where H(p) is 0. */
  readonly entropyRatio: Float64Array;
  /** Ids kept in each row, ascending; empty unless asked for. */
  readonly kept: readonly Int32Array[];
}

export interface TopHOptions {
  readonly alpha: number;
  readonly rule: TopHRule;
  /** Default 1. Above 0. */
  readonly temperature?: number;
  readonly keep?: boolean;
  readonly threads?: number;
  /** What error messages call the logits, and the number of the first row there. */
  readonly name?: string;
  readonly firstRow?: number;
}

const planOf = ({ alpha, rule, temperature = 1 }: TopHOptions): SamplingPlan => ({
  steps: [
    ...(temperature === 1 ? [] : [{ kind: 'temperature', temperature } as const]),
    { kind: 'top-h', alpha, rule },
  ],
});

/**
 * Top-H by one rule on every row (Potraghloo et al. 2025), with what the paper's bound says of the outcome.
 * @param logits [rows, vocabulary]
 * @throws InputError for alpha or temperature out of range, or a row with NaN, +Infinity or no finite logit
 */
export function topHDiagnostics(
  logits: LogitRow,
  rows: number,
  vocabulary: number,
  options: TopHOptions,
): TopHDiagnostics {
  const { alpha, rule, temperature = 1, keep = false } = options;
  const filtered = filterTokens({
    ...options,
    logits,
    rows,
    vocabulary,
    pipelines: [planFilters(planOf(options))],
    keep,
  });
  const { temperedEntropyNats, keptCount, keptMass, entropyAfterNats } = filtered.figures;
  const boundNats = temperedEntropyNats.map((entropy) => alpha * entropy);
  return {
    rule,
    alpha,
    temperature,
    entropyNats: temperedEntropyNats,
    boundNats,
    keptCount: Int32Array.from(keptCount),
    keptMass,
    entropyAfterNats,
    boundHeld: Uint8Array.from(entropyAfterNats, (entropy, r) => (entropyHeld(entropy, boundNats[r]) ? 1 : 0)),
    divergenceNats: keptMass.map(truncationDivergence),
    perplexity: entropyAfterNats.map(Math.exp),
    entropyRatio: entropyAfterNats.map((entropy, r) =>
      temperedEntropyNats[r] > 0 ? entropy / temperedEntropyNats[r] : 0,
    ),
    kept: filtered.kept,
  };
}

/** All three rules on the same rows. */
export function topHRules(
  logits: LogitRow,
  rows: number,
  vocabulary: number,
  options: Omit<TopHOptions, 'rule'>,
): readonly TopHDiagnostics[] {
  return TOP_H_RULES.map((rule) => topHDiagnostics(logits, rows, vocabulary, { ...options, rule }));
}

/** H(q) <= bound, within the relative slack of the comparisons. */
export function entropyHeld(entropyNats: number, boundNats: number): boolean {
  return entropyNats <= boundNats * (1 + RELATIVE_SLACK) + Number.EPSILON;
}

/**
 * Jensen-Shannon divergence of p and its part of mass Gamma renormalised, in nats:
 * ln 2 + (Gamma ln Gamma - (1 + Gamma) ln(1 + Gamma))/2. It depends on the mass alone (theorem 1) and falls as it grows.
 */
export function truncationDivergence(mass: number): number {
  if (mass === 0) return Math.LN2;
  return Math.max(0, Math.LN2 + (mass * Math.log(mass) - (1 + mass) * Math.log1p(mass)) / 2);
}

/**
 * Renormalised entropies H_1, H_2, ... of the prefixes of the descending order of one row, in nats: they grow strictly
 * along it (theorem 3).
 * @param logits [vocabulary]; masked tokens are left out
 * @param count how many; default all tokens of probability above 0
 */
export function prefixEntropies(
  logits: LogitRow,
  options: { temperature?: number; count?: number } = {},
): Float64Array {
  const { temperature = 1 } = options;
  checkSamplingPlan(planOf({ alpha: 1, rule: 'paper', temperature }));
  const sorted = Float64Array.from(logits)
    .filter((x) => x > Number.NEGATIVE_INFINITY)
    .sort()
    .reverse();
  const entropies: number[] = [];
  const sum = createEntropySum();
  for (const x of sorted.subarray(0, options.count ?? sorted.length)) {
    const d = (x - sorted[0]) / temperature;
    if (d < -WEIGHT_DEPTH) break;
    sum.add(Math.exp(d), d);
    entropies.push(sum.entropyNats());
  }
  return Float64Array.from(entropies);
}
