import { InputError } from '../errors.js';

/** Logits of whole rows, row-major `[rows, vocabulary]`. */
export type LogitRows = Float32Array | Float64Array;

/** Per-row results of a comparison; every array has one entry a row. */
export interface RowComparison {
  readonly rows: number;
  /** KL(base || candidate) and KL(candidate || base), nats; infinite where one has mass and the other none. */
  readonly klNats: Float64Array;
  readonly reverseKlNats: Float64Array;
  /** Jensen-Shannon divergence, nats, at most ln 2. */
  readonly jensenShannonNats: Float64Array;
  readonly baseEntropyNats: Float64Array;
  readonly candidateEntropyNats: Float64Array;
  readonly baseSurprisalNats: Float64Array;
  readonly candidateSurprisalNats: Float64Array;
  readonly baseLogSumExp: Float64Array;
  readonly candidateLogSumExp: Float64Array;
  /** The likeliest token, the first one on ties, and its probability. */
  readonly baseTop: Int32Array;
  readonly candidateTop: Int32Array;
  readonly baseTopProbability: Float64Array;
  readonly candidateTopProbability: Float64Array;
}

export function createRowComparison(rows: number): RowComparison {
  const f64 = (): Float64Array => new Float64Array(rows);
  return {
    rows,
    klNats: f64(),
    reverseKlNats: f64(),
    jensenShannonNats: f64(),
    baseEntropyNats: f64(),
    candidateEntropyNats: f64(),
    baseSurprisalNats: f64(),
    candidateSurprisalNats: f64(),
    baseLogSumExp: f64(),
    candidateLogSumExp: f64(),
    baseTop: new Int32Array(rows),
    candidateTop: new Int32Array(rows),
    baseTopProbability: f64(),
    candidateTopProbability: f64(),
  };
}

/** First largest entry; NaN and plus infinity are refused by name. */
function topOf(logits: LogitRows, row: number, vocabulary: number, name: string): number {
  const start = row * vocabulary;
  let top = start;
  for (let i = start; i < start + vocabulary; i++) {
    const value = logits[i];
    if (!(value < Number.POSITIVE_INFINITY)) {
      throw new InputError(`${name}: row ${row}, column ${i - start} is ${value}; logits must be finite or -inf`);
    }
    if (value > logits[top]) top = i;
  }
  if (logits[top] === Number.NEGATIVE_INFINITY)
    throw new InputError(`${name}: row ${row} has empty support (all -inf)`);
  return top - start;
}

/**
 * Compares rows of two blocks of logits. Shapes: `base` and `candidate` `[rows, vocabulary]`, `targets` `[rows]` (a
 * negative target gives NaN surprisals). Sums run in f64 in the order of the columns.
 *
 * With `p = softmax(base)`, `q = softmax(candidate)`, `m = (p+q)/2`: KL(p||q), KL(q||p), JS = (KL(p||m) + KL(q||m))/2.
 * Terms with zero mass contribute zero. Rounding below zero is clamped.
 *
 * @throws InputError for NaN, plus infinity or an empty row, naming block, row and column
 */
export function compareRows(
  base: LogitRows,
  candidate: LogitRows,
  vocabulary: number,
  targets: Int32Array,
  out: RowComparison,
  names: { readonly base: string; readonly candidate: string } = { base: 'base logits', candidate: 'candidate logits' },
): void {
  const rows = out.rows;
  // Exponentials of the first pass serve the second: they cost more than the memory they take.
  const baseExp = new Float64Array(vocabulary);
  const candidateExp = new Float64Array(vocabulary);
  for (let row = 0; row < rows; row++) {
    const start = row * vocabulary;
    const baseTop = topOf(base, row, vocabulary, names.base);
    const candidateTop = topOf(candidate, row, vocabulary, names.candidate);
    const baseMax = base[start + baseTop];
    const candidateMax = candidate[start + candidateTop];
    let baseSum = 0;
    let candidateSum = 0;
    for (let i = 0; i < vocabulary; i++) {
      const e = Math.exp(base[start + i] - baseMax);
      const f = Math.exp(candidate[start + i] - candidateMax);
      baseExp[i] = e;
      candidateExp[i] = f;
      baseSum += e;
      candidateSum += f;
    }
    const baseShift = baseMax + Math.log(baseSum);
    const candidateShift = candidateMax + Math.log(candidateSum);
    const baseInverse = 1 / baseSum;
    const candidateInverse = 1 / candidateSum;
    let kl = 0;
    let reverse = 0;
    let js = 0;
    let baseEntropy = 0;
    let candidateEntropy = 0;
    for (let i = 0; i < vocabulary; i++) {
      const logP = base[start + i] - baseShift;
      const logQ = candidate[start + i] - candidateShift;
      const p = baseExp[i] * baseInverse;
      const q = candidateExp[i] * candidateInverse;
      if (p > 0) baseEntropy -= p * logP;
      if (q > 0) candidateEntropy -= q * logQ;
      // Equal terms add nothing: the rounding of the logarithm of their mean must not look like a divergence.
      if (logP === logQ) continue;
      // Half of the smallest double is zero: the halving stays outside the logarithm.
      const logM = Math.log(p + q) - Math.LN2;
      if (p > 0) {
        kl += p * (logP - logQ);
        js += p * (logP - logM);
      }
      if (q > 0) {
        reverse += q * (logQ - logP);
        js += q * (logQ - logM);
      }
    }
    out.klNats[row] = Math.max(0, kl);
    out.reverseKlNats[row] = Math.max(0, reverse);
    out.jensenShannonNats[row] = Math.min(Math.LN2, Math.max(0, 0.5 * js));
    out.baseEntropyNats[row] = Math.max(0, baseEntropy);
    out.candidateEntropyNats[row] = Math.max(0, candidateEntropy);
    out.baseLogSumExp[row] = baseShift;
    out.candidateLogSumExp[row] = candidateShift;
    out.baseTop[row] = baseTop;
    out.candidateTop[row] = candidateTop;
    out.baseTopProbability[row] = baseInverse;
    out.candidateTopProbability[row] = candidateInverse;
    const target = targets[row];
    out.baseSurprisalNats[row] = target < 0 ? Number.NaN : baseShift - base[start + target];
    out.candidateSurprisalNats[row] = target < 0 ? Number.NaN : candidateShift - candidate[start + target];
  }
}

/** Log-probability at or below which llama.cpp leaves a base token out of the divergence. */
const LLAMA_CPP_FLOOR = -16;

/**
 * KL(base || candidate) of one row whose base is coded in 16 bits, as llama.cpp computes it: the coded log-probabilities
 * are not normalised again and tokens whose base log-probability is at most -16 contribute nothing.
 *
 * @param candidateLogSumExp log of the sum of exponentials of the candidate's row
 */
export function codedKlNats(
  codes: Uint16Array,
  codeStart: number,
  scale: number,
  minLogProb: number,
  candidate: LogitRows,
  start: number,
  vocabulary: number,
  candidateLogSumExp: number,
): number {
  let kl = 0;
  for (let i = 0; i < vocabulary; i++) {
    const logP = scale * codes[codeStart + i] + minLogProb;
    if (logP > LLAMA_CPP_FLOOR) kl += Math.exp(logP) * (logP - candidate[start + i] + candidateLogSumExp);
  }
  return kl;
}
