import { type Estimate, meanOfKnown } from './response-totals.js';

/** What is known of the responses of one step, [responses] each. */
export interface GroupedResponses {
  /** Number of the group. */
  readonly group: Int32Array;
  /** Mean log-probability over the tokens that count, nats; NaN where none does. */
  readonly logProb: Float64Array;
  readonly advantage: Float64Array;
}

export interface GroupCovariance {
  /** Numbers of the groups, by first appearance, with the covariance inside each. */
  readonly groups: Int32Array;
  readonly covariance: Float64Array;
  /** Mean over groups: the step's value. */
  readonly step: Estimate;
}

/**
 * Covariance of length-normalised log-probability and advantage of whole responses inside every group (population, so 0 for a
 * group of one), and its mean over groups (spec 1.3, offline estimate). Responses without a token that counts are left out.
 */
export function groupCovariance({ group, logProb, advantage }: GroupedResponses): GroupCovariance {
  const members = new Map<number, number[]>();
  for (let r = 0; r < group.length; r++) {
    if (Number.isNaN(logProb[r]) || Number.isNaN(advantage[r])) continue;
    const known = members.get(group[r]);
    if (known === undefined) members.set(group[r], [r]);
    else known.push(r);
  }
  const covariance = Float64Array.from(members.values(), (responses) => {
    const mean = (values: Float64Array): number => responses.reduce((sum, r) => sum + values[r], 0) / responses.length;
    const meanLogProb = mean(logProb);
    const meanAdvantage = mean(advantage);
    let products = 0;
    for (const r of responses) products += (logProb[r] - meanLogProb) * (advantage[r] - meanAdvantage);
    return products / responses.length;
  });
  return { groups: Int32Array.from(members.keys()), covariance, step: meanOfKnown(covariance) };
}

/** Share of correct responses of a group. */
export interface GroupAccuracy {
  readonly group: number;
  readonly correct: number;
  readonly known: number;
  readonly accuracy: number;
}

/** Accuracy of every group among the responses whose correctness is known (not NaN), by first appearance. */
export function groupAccuracies(group: Int32Array, correct: Float64Array): GroupAccuracy[] {
  const counts = new Map<number, { correct: number; known: number }>();
  for (let r = 0; r < group.length; r++) {
    if (Number.isNaN(correct[r])) continue;
    const count = counts.get(group[r]) ?? { correct: 0, known: 0 };
    count.correct += correct[r];
    count.known++;
    counts.set(group[r], count);
  }
  return [...counts].map(([g, count]) => ({ group: g, ...count, accuracy: count.correct / count.known }));
}
