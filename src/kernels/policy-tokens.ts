/**
 * Passes over the tokens of rollouts (spec 0.4, 1.2, 2): figures of every response, summands of the covariance of
 * log-probability and advantage, the change of entropy that every token's update asks for. Native results are the same bits
 * whatever the number of threads and the instruction set: sums belong to one response each.
 */
import { kernelThreads, nativeKernels } from './native.js';
import {
  countTokensReference,
  covarianceSummandsReference,
  entropyChangeSummandsReference,
  type PolicyTokens,
  RESPONSE_FIELDS,
  responseFiguresReference,
  sumsAboveReference,
  type TokenTables,
} from './policy-tokens-reference.js';

export { type PolicyTokens, RESPONSE_FIELD, RESPONSE_FIELDS, type TokenTables } from './policy-tokens-reference.js';

/** Columns without which a summand is not defined. */
type Covaried = PolicyTokens & Required<Pick<PolicyTokens, 'logProb' | 'advantage'>>;
type Changing = Covaried & Required<Pick<PolicyTokens, 'oldLogProb' | 'entropy'>>;

function checkColumns(tokens: PolicyTokens, offsets?: Int32Array): void {
  const { mask, ...columns } = tokens;
  for (const [name, column] of Object.entries(columns)) {
    if (column !== undefined && column.length !== mask.length) {
      throw new RangeError(`${column.length} values of ${name} for ${mask.length} tokens`);
    }
  }
  if (offsets === undefined) return;
  let last = 0;
  for (const offset of offsets) {
    if (offset < last || offset > mask.length) throw new RangeError(`offset ${offset} among ${mask.length} tokens`);
    last = offset;
  }
  if (offsets.length === 0) throw new RangeError('offsets have one entry more than there are responses');
}

/** How far the ratio of new and old probability may lie from 1. */
export interface ClipBand {
  readonly low: number;
  readonly high: number;
}

/**
 * Figures of every response over its tokens that count: see `RESPONSE_FIELD`. Squares and products are of deviations from the
 * response's own means; those of missing columns are 0.
 * @param offsets [responses + 1]: the tokens of response r are those from offsets[r] to offsets[r + 1].
 * @returns [responses, RESPONSE_FIELDS].
 */
export function responseFigures(
  tokens: PolicyTokens,
  offsets: Int32Array,
  clip: ClipBand,
  threads?: number,
): Float64Array {
  checkColumns(tokens, offsets);
  const figures = new Float64Array((offsets.length - 1) * RESPONSE_FIELDS);
  const native = nativeKernels();
  if (native === undefined) {
    responseFiguresReference(tokens, offsets, clip.low, clip.high, figures);
    return figures;
  }
  native.responseFigures(
    tokens.logProb ?? null,
    tokens.oldLogProb ?? null,
    tokens.referenceLogProb ?? null,
    tokens.entropy ?? null,
    tokens.advantage ?? null,
    tokens.mask,
    offsets,
    clip.low,
    clip.high,
    figures,
    kernelThreads(threads),
  );
  return figures;
}

/**
 * c_i = (A_i - mean A)(ln pi_i - mean ln pi) of every token, 0 under the mask (spec 1.2), written to `summands`.
 * @returns how many are positive.
 */
export function covarianceSummands(
  { logProb, advantage, mask }: Covaried,
  means: { readonly logProb: number; readonly advantage: number },
  summands: Float64Array,
  threads?: number,
): number {
  checkColumns({ logProb, advantage, oldLogProb: summands, mask });
  // An empty typed array has no address, which the addon takes for a column that is not there.
  if (mask.length === 0) return 0;
  const native = nativeKernels();
  if (native === undefined) {
    return covarianceSummandsReference(logProb, advantage, mask, means.logProb, means.advantage, summands);
  }
  return native.covarianceSummands(
    logProb,
    null,
    null,
    null,
    advantage,
    mask,
    means.logProb,
    means.advantage,
    summands,
    kernelThreads(threads),
  );
}

/**
 * Omega_i = (A / q) x (1 - x)(ln x + H) of every token, 0 under the mask (spec 2): positive where the update of the token is
 * predicted to lower entropy. x = pi and q = pi_old are held at 1e-8 or more, x at 1 - 1e-8 or less.
 */
export function entropyChangeSummands(tokens: Changing, omegas: Float64Array, threads?: number): void {
  const { logProb, oldLogProb, entropy, advantage, mask } = tokens;
  checkColumns({ logProb, oldLogProb, entropy, advantage, referenceLogProb: omegas, mask });
  if (mask.length === 0) return;
  const native = nativeKernels();
  if (native === undefined) entropyChangeSummandsReference(logProb, oldLogProb, entropy, advantage, mask, omegas);
  else {
    native.entropyChangeSummands(logProb, oldLogProb, null, entropy, advantage, mask, omegas, kernelThreads(threads));
  }
}

/** Sums of the values of every response that count and lie above each threshold: [responses, thresholds]. */
export function sumsAbove(
  values: Float64Array,
  mask: Uint8Array,
  offsets: Int32Array,
  thresholds: Float64Array,
  threads?: number,
): Float64Array {
  checkColumns({ entropy: values, mask }, offsets);
  const sums = new Float64Array((offsets.length - 1) * thresholds.length);
  const native = nativeKernels();
  if (native === undefined) sumsAboveReference(values, mask, offsets, thresholds, sums);
  else native.sumsAbove(values, mask, offsets, thresholds, sums, kernelThreads(threads));
  return sums;
}

/**
 * Adds tokens to tables [ids], in their order; ids below 0 and tokens under the mask are left out.
 * @returns false, with nothing done, where an id lies beyond the tables.
 */
export function countTokens(
  ids: Int32Array,
  entropy: Float64Array,
  mask: Uint8Array,
  threshold: number,
  tables: TokenTables,
): boolean {
  checkColumns({ entropy, mask });
  if (ids.length !== mask.length) throw new RangeError(`${ids.length} token ids for ${mask.length} tokens`);
  const native = nativeKernels();
  if (native === undefined) return countTokensReference(ids, entropy, mask, threshold, tables);
  const { all, high, entropies } = tables;
  return native.countTokens(ids, entropy, mask, threshold, all, high, entropies);
}
