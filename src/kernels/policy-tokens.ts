/**
 * Passes over the tokens of rollouts (spec 0.4, 1.2, 2): figures of every response, summands of the covariance of
 * log-probability and advantage, the change of entropy that every token's update asks for. Native results are the same bits
 * whatever the number of threads and the instruction set: sums belong to one response each.
 */
import { kernelThreads, nativeKernels } from './native.js';
import {
  countMaskReference,
  countTokensReference,
  covarianceSummandsReference,
  entropyChangeSummandsReference,
  type HeldTokens,
  type PolicyTokens,
  RESPONSE_FIELDS,
  responseCovariancesReference,
  responseFiguresReference,
  settleIdsReference,
  settleValuesReference,
  sumsAboveReference,
  type TokenTables,
} from './policy-tokens-reference.js';

export {
  type HeldTokens,
  type PolicyTokens,
  RESPONSE_FIELD,
  RESPONSE_FIELDS,
  type TokenTables,
} from './policy-tokens-reference.js';

/** Columns without which a summand is not defined. */
type Covaried = PolicyTokens & Required<Pick<PolicyTokens, 'logProb' | 'advantage'>>;
type Changing = Covaried & Required<Pick<PolicyTokens, 'oldLogProb' | 'entropy'>>;

function checkColumns(tokens: PolicyTokens, offsets?: Int32Array): void {
  const { mask, responseAdvantage: _, ...columns } = tokens;
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
 * Figures of every response over its tokens that count: see `RESPONSE_FIELD`. Products are of deviations from the response's own
 * means; those of missing columns are 0.
 * @param offsets [responses + 1]: the tokens of response r are those from offsets[r] to offsets[r + 1].
 * @param figures [responses, RESPONSE_FIELDS], written.
 * @param held takes the tokens that count, from `held.at` on
 * @returns position behind the last token that is held
 */
export function responseFigures(
  tokens: PolicyTokens,
  offsets: Int32Array,
  clip: ClipBand,
  figures: Float64Array,
  { held, threads }: { readonly held?: HeldTokens; readonly threads?: number } = {},
): number {
  checkColumns(tokens, offsets);
  const { responseAdvantage, mask } = tokens;
  const responses = offsets.length - 1;
  if (figures.length !== responses * RESPONSE_FIELDS || (responseAdvantage && responseAdvantage.length !== responses))
    throw new RangeError(`${figures.length} figures or advantages do not fit ${responses} responses`);
  if (held?.ids && held.ids.from.length !== mask.length)
    throw new RangeError(`${held.ids.from.length} token ids for ${mask.length} tokens`);
  const native = nativeKernels();
  const next =
    native === undefined
      ? responseFiguresReference(tokens, offsets, clip.low, clip.high, figures, held)
      : native.responseFigures(
          tokens.logProb ?? null,
          tokens.oldLogProb ?? null,
          tokens.referenceLogProb ?? null,
          tokens.entropy ?? null,
          tokens.advantage ?? null,
          mask,
          offsets,
          clip.low,
          clip.high,
          figures,
          responseAdvantage ?? null,
          held?.logProb ?? null,
          held?.entropy ?? null,
          held?.advantage ?? null,
          held?.ids?.from ?? null,
          held?.ids?.into ?? null,
          held?.at ?? 0,
          kernelThreads(threads),
        );
  if (next < 0) throw new RangeError('more tokens count than there is room for');
  return next;
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

/**
 * `covarianceSummands` of tokens all of which count, where those of a response have one advantage; -0 as 0.
 * @param logProb [tokens]; `summands` may be the same array
 * @param responseAdvantage [responses]
 * @returns how many are positive.
 */
export function responseCovariances(
  logProb: Float64Array,
  responseAdvantage: Float64Array,
  offsets: Int32Array,
  means: { readonly logProb: number; readonly advantage: number },
  summands: Float64Array,
  threads?: number,
): number {
  if (responseAdvantage.length !== offsets.length - 1 || summands.length !== logProb.length)
    throw new RangeError('summands or advantages differ in length');
  if (logProb.length === 0) return 0;
  const native = nativeKernels();
  if (native === undefined)
    return responseCovariancesReference(logProb, responseAdvantage, offsets, means.logProb, means.advantage, summands);
  return native.responseCovariances(
    logProb,
    responseAdvantage,
    offsets,
    means.logProb,
    means.advantage,
    summands,
    kernelThreads(threads),
  );
}

/** Sums of the values of every response that lie above each threshold: [responses, thresholds]. */
export function sumsAbove(
  values: Float64Array,
  offsets: Int32Array,
  thresholds: Float64Array,
  threads?: number,
): Float64Array {
  const sums = new Float64Array((offsets.length - 1) * thresholds.length);
  const native = nativeKernels();
  if (native === undefined) sumsAboveReference(values, offsets, thresholds, sums);
  else native.sumsAbove(values, offsets, thresholds, sums, kernelThreads(threads));
  return sums;
}

/**
 * Adds tokens to tables [ids], in their order; ids below 0 and tokens under the mask are left out.
 * @param mask all tokens count when undefined
 * @returns false, with nothing done, where an id lies beyond the tables.
 */
export function countTokens(
  ids: Int32Array,
  entropy: Float64Array,
  mask: Uint8Array | undefined,
  threshold: number,
  tables: TokenTables,
): boolean {
  if (ids.length !== entropy.length || (mask && mask.length !== ids.length))
    throw new RangeError(`${ids.length} token ids for ${entropy.length} tokens`);
  const native = nativeKernels();
  if (native === undefined) return countTokensReference(ids, entropy, mask, threshold, tables);
  return native.countTokens(ids, entropy, mask ?? null, threshold, tables.counts, tables.entropies);
}

/**
 * Puts 0 where the mask is 0: a select, so that a NaN there goes nowhere.
 * @returns whether all that is left lies in [least, most], which holds 0; a NaN does not.
 */
export function settleValues(
  values: Float64Array,
  mask: Uint8Array | undefined,
  [least, most]: readonly [number, number],
  threads?: number,
): boolean {
  const native = nativeKernels();
  if (native === undefined) return settleValuesReference(values, mask, least, most);
  return native.settleValues(values, mask ?? null, least, most, kernelThreads(threads));
}

/** Puts 0 where the mask is 0. @returns whether all that is left is at least 0. */
export function settleIds(ids: Int32Array, mask: Uint8Array | undefined): boolean {
  const native = nativeKernels();
  return native === undefined ? settleIdsReference(ids, mask) : native.settleIds(ids, mask ?? null);
}

/** Tokens of every response that count, to `counts` [responses]. @returns whether the mask is 0 and 1 throughout. */
export function countMask(mask: Uint8Array, offsets: Int32Array, counts: Int32Array): boolean {
  const native = nativeKernels();
  return native === undefined ? countMaskReference(mask, offsets, counts) : native.countMask(mask, offsets, counts);
}
