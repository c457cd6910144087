import { InputError } from '../errors.js';
import { parseLosses, splitLossList } from '../training/losses/loss-text.js';
import type { Loss } from '../training/types.js';
import type { PairAudit, PairRow } from './pair-audit.js';

/** What all audits of a pair are told. */
export interface SharedScore {
  /** Losses by name, separated by commas; all that the pair allows when absent. */
  readonly losses?: string;
  readonly taus: readonly number[];
  readonly pldTau: number;
  readonly scoreBound?: number;
  /** Whether the table of rows is wanted. */
  readonly rowsWanted: boolean;
}

/** What an audit hands back. */
export interface ScoreFigures {
  readonly audit: PairAudit;
  /** Empty unless wanted. */
  readonly rows: readonly PairRow[];
  /** [rows, classes], where asked for. */
  readonly gradient?: Float64Array;
}

/**
 * The part of the options that losses and bounds read.
 *
 * @throws InputError for unknown losses, and for sums of them, which have no figures of their own
 */
export function scoredLosses({ losses, taus, pldTau, scoreBound }: SharedScore): {
  losses?: Loss[];
  taus: readonly number[];
  pldTau: number;
  scoreBound?: number;
} {
  const shared = { taus, pldTau, ...(scoreBound !== undefined && { scoreBound }) };
  if (losses === undefined) return shared;
  const parsed = splitLossList(losses).map((text) => {
    const terms = parseLosses(text);
    if (terms.length !== 1 || terms[0].weight !== 1) {
      throw new InputError(`--losses: "${text}" is a sum or has a weight; list plain losses, separated by commas`);
    }
    return terms[0].loss;
  });
  return { ...shared, losses: parsed };
}
