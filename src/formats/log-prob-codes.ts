/**
 * 16-bit coding of a row of log-probabilities, as llama.cpp's KL-divergence base files use it: log-probabilities from
 * `max - 16` to `max` in 65,535 equal steps, everything below clipped to code 0. A step is at most 16/65535 nats.
 */
export interface CodedRow {
  /** Float32 values. `log p` of code c is `scale * c + minLogProb`. */
  readonly scale: number;
  readonly minLogProb: number;
  /** Exact probability mass of all entries of code 0, and their number. */
  readonly tailMass: number;
  readonly tailCount: number;
  /** Log of the sum of exponentials of the logits, and their entropy, both exact in f64. */
  readonly logSumExp: number;
  readonly entropyNats: number;
}

/** Nats below the largest logit at which codes end. */
export const CODE_RANGE_NATS = 16;
const HIGHEST_CODE = 65_535;

function roundHalfToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest < 0.5) return floor;
  if (rest > 0.5) return floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

/**
 * Codes one row of logits. Values are rounded to float32 first and scale, offset and products are float32, so that the
 * codes are those that llama.cpp stores.
 *
 * @param logits `[vocabulary]` from `start`; minus infinity is allowed, NaN and plus infinity are the caller's to refuse
 * @param codes receives `vocabulary` codes from `codeStart`
 */
export function encodeLogProbs(
  logits: Float32Array | Float64Array,
  start: number,
  vocabulary: number,
  codes: Uint16Array,
  codeStart: number,
): CodedRow {
  let max = Number.NEGATIVE_INFINITY;
  let min = Number.POSITIVE_INFINITY;
  for (let i = start; i < start + vocabulary; i++) {
    if (logits[i] > max) max = logits[i];
    if (logits[i] < min) min = logits[i];
  }
  let sum = 0;
  let weighted = 0;
  for (let i = start; i < start + vocabulary; i++) {
    const below = logits[i] - max;
    if (below === Number.NEGATIVE_INFINITY) continue;
    const e = Math.exp(below);
    sum += e;
    weighted += e * below;
  }
  const logSum = Math.log(sum);
  const top = Math.fround(max);
  const bottom = Math.max(Math.fround(min), Math.fround(top - CODE_RANGE_NATS));
  const minLogProb = Math.fround(Math.fround(bottom - top) - Math.fround(logSum));
  const scale = Math.fround(Math.fround(top - bottom) / HIGHEST_CODE);
  let tail = 0;
  let tailCount = 0;
  const inverse = Math.fround(1 / scale);
  for (let i = 0; i < vocabulary; i++) {
    const logit = Math.fround(logits[start + i]);
    let code = 0;
    if (scale > 0 && logit > bottom) {
      code = Math.min(HIGHEST_CODE, roundHalfToEven(Math.fround(inverse * Math.fround(logit - bottom))));
    }
    codes[codeStart + i] = code;
    if (code === 0) {
      tail += Math.exp(logits[start + i] - max);
      tailCount++;
    }
  }
  return {
    scale,
    minLogProb,
    tailMass: tail / sum,
    tailCount,
    logSumExp: max + logSum,
    entropyNats: Math.max(0, logSum - weighted / sum),
  };
}

/**
 * Log-probabilities of a coded row, in f64 and not normalised again. Entries of code 0 share the tail's mass evenly.
 * `tail` undefined stands for a file that does not store it: a row whose range is under 16 nats has its smallest entry
 * there; of a clipped row the tail gets what the other codes leave of 1, at most what code 0 stands for.
 *
 * @param out receives `vocabulary` log-probabilities; minus infinity where the tail has no mass
 */
export function decodeLogProbs(
  codes: Uint16Array,
  codeStart: number,
  vocabulary: number,
  row: { readonly scale: number; readonly minLogProb: number },
  tail: { readonly mass: number; readonly count: number } | undefined,
  out: Float64Array,
): void {
  let coded = 0;
  let tailCount = 0;
  for (let i = 0; i < vocabulary; i++) {
    const code = codes[codeStart + i];
    if (code === 0) {
      tailCount++;
      continue;
    }
    const logProb = row.scale * code + row.minLogProb;
    out[i] = logProb;
    coded += Math.exp(logProb);
  }
  const atCode = tailCount * Math.exp(row.minLogProb);
  // Rounding of the codes may leave nothing; a tail of zero mass would make divergences infinite that are not.
  const least = row.scale * HIGHEST_CODE < 0.9999 * CODE_RANGE_NATS ? atCode : atCode * Math.exp(-CODE_RANGE_NATS);
  const mass = tail?.mass ?? Math.min(Math.max(least, 1 - coded), atCode);
  const logShare = Math.log(mass / tailCount);
  for (let i = 0; i < vocabulary; i++) if (codes[codeStart + i] === 0) out[i] = logShare;
}
