import { InputError } from '../errors.js';
import type { TopLogProbs } from '../formats/logprob-rows.js';

/** Bounds on the entropy of a distribution of which the largest probabilities are known. */
export interface EntropyBounds {
  readonly keptMass: number;
  readonly tailMass: number;
  /** All tail mass on as few tokens as the smallest of the k largest probabilities allows. */
  readonly lowerNats: number;
  /** Tail mass even over all other tokens; infinite when the vocabulary is not given and there is a tail. */
  readonly upperNats: number;
  /** Surprisal of the target; when it was not returned, the least it can be, and the flag is set. */
  readonly surprisalNats: number;
  readonly surprisalIsLowerBound: boolean;
}

/** Kept mass may exceed 1 by the rounding of what servers print. */
const MASS_TOLERANCE = 1e-3;

const surprise = (p: number): number => (p > 0 ? -p * Math.log(p) : 0);

/**
 * Entropy bounds from the k largest log-probabilities with a missing tail of mass r. No unseen token is likelier than the
 * smallest of the k, `c`: the lower bound packs the tail into floor(r/c) tokens of probability c and one of the rest; the
 * upper bound spreads it evenly over the `vocabulary - kept` others. Both are tight.
 *
 * @param vocabulary number of tokens, where it is known
 * @throws InputError when the log-probabilities are positive, add up to more than 1, or leave a tail with no token for it
 */
export function entropyBounds(row: TopLogProbs, vocabulary?: number): EntropyBounds {
  const { top, extra, targetLogProb } = row;
  const place = `position ${row.position}`;
  if (top.length === 0)
    throw new InputError(`${place}: no log-probabilities; ask the server for top log-probabilities`);
  const kept = top.length + (extra === undefined ? 0 : 1);
  if (vocabulary !== undefined && kept > vocabulary) {
    throw new InputError(
      `${place}: ${kept} log-probabilities for a vocabulary of ${vocabulary}; correct --vocabulary-size`,
    );
  }
  let cap = Number.POSITIVE_INFINITY;
  let mass = 0;
  let known = 0;
  for (let i = 0; i < kept; i++) {
    const logProb = i < top.length ? top[i] : (extra as number);
    if (Number.isNaN(logProb) || logProb > MASS_TOLERANCE) {
      throw new InputError(`${place}: ${logProb} is no log-probability (natural logarithm, at most 0)`);
    }
    const p = Math.exp(Math.min(0, logProb));
    mass += p;
    known += surprise(p);
    if (i < top.length && p < cap) cap = p;
  }
  if (mass > 1 + MASS_TOLERANCE) {
    throw new InputError(
      `${place}: the probabilities add up to ${Number(mass.toPrecision(6))}; are these log-probabilities?`,
    );
  }
  // Below the rounding of the sum there is no tail to speak of.
  const tail = mass > 1 - 1e-12 ? 0 : 1 - mass;
  const unseen = vocabulary === undefined ? Number.POSITIVE_INFINITY : vocabulary - kept;
  if (tail > MASS_TOLERANCE && unseen === 0) {
    throw new InputError(
      `${place}: mass ${Number(tail.toPrecision(4))} is missing, but the whole vocabulary was returned`,
    );
  }
  const upper = tail === 0 || unseen === 0 ? known : known + tail * (Math.log(unseen) - Math.log(tail));
  let lower = known;
  if (tail > 0 && unseen > 0) {
    if (cap > 0) {
      const atoms = Math.floor(tail / cap);
      lower += atoms * surprise(cap) + surprise(Math.max(0, tail - atoms * cap));
    } else {
      lower += surprise(tail);
    }
  }
  // A target that was not returned is no likelier than the cap, nor than the whole tail.
  const bound = -Math.log(Math.min(cap, tail));
  return {
    keptMass: mass,
    tailMass: tail,
    lowerNats: Math.max(0, Math.min(lower, upper)),
    upperNats: Math.max(0, upper),
    surprisalNats: targetLogProb === undefined ? bound : Math.max(0, -targetLogProb),
    surprisalIsLowerBound: targetLogProb === undefined,
  };
}
