import { describe, expect, it } from 'vitest';
import {
  createPolicyRows,
  descend,
  evaluateRows,
  meanEntropy,
  successProbability,
  type TabularPolicy,
} from '../../../src/policy/lab/tabular-policy.js';
import { createRandom } from '../../../src/random.js';

const [contexts, positions, vocabulary] = [3, 2, 4];

function randomPolicy(seed: number): TabularPolicy {
  const random = createRandom(seed);
  const shared = Float64Array.from({ length: positions * vocabulary }, () => random.normal());
  const own = Float64Array.from({ length: contexts * positions * vocabulary }, () => random.normal());
  return { contexts, positions, vocabulary, shared, own };
}

const rowsOf = (policy: TabularPolicy) => {
  const rows = createPolicyRows(policy);
  evaluateRows(policy, [0, 1, 2], rows);
  return rows;
};

describe('the table of softmaxes', () => {
  it('gives probabilities of 1 together, and the entropy of their definition', () => {
    const { logProbs, probs, entropies } = rowsOf(randomPolicy(1));
    entropies.forEach((entropy, row) => {
      const p = probs.subarray(row * vocabulary, (row + 1) * vocabulary);
      expect(p.reduce((sum, value) => sum + value, 0)).toBeCloseTo(1, 14);
      expect(entropy).toBeCloseTo(-p.reduce((sum, value) => sum + value * Math.log(value), 0), 13);
      p.forEach((value, v) => {
        expect(logProbs[row * vocabulary + v]).toBeCloseTo(Math.log(value), 13);
      });
    });
  });

  it('finds the success probability by counting all responses', () => {
    const policy = randomPolicy(2);
    const rows = rowsOf(policy);
    const keys = Int32Array.from([0, 1, 2, 3, 3, 0]);
    let expected = 0;
    for (let c = 0; c < contexts; c++) {
      for (let a = 0; a < vocabulary; a++) {
        for (let b = 0; b < vocabulary; b++) {
          if (a !== keys[2 * c] || b !== keys[2 * c + 1]) continue;
          expected += rows.probs[2 * c * vocabulary + a] * rows.probs[(2 * c + 1) * vocabulary + b];
        }
      }
    }
    expect(successProbability(policy, rows, keys)).toBeCloseTo(expected / contexts, 14);
  });

  it('descends along the gradient of log-probabilities and entropies: against finite differences', () => {
    const batch = { rows: Int32Array.from([0, 1, 4, 0, 5]), tokens: Int32Array.from([1, 3, 0, 1, 2]) };
    const gradients = {
      logProb: Float64Array.from([0.3, -0.2, 0.5, 0.1, -0.7]),
      entropy: Float64Array.from([0.2, 0.2, -0.4, 0.1, 0.3]),
    };
    const loss = (policy: TabularPolicy): number => {
      const { logProbs, entropies } = rowsOf(policy);
      return batch.rows.reduce(
        (sum, row, i) =>
          sum +
          gradients.logProb[i] * logProbs[row * vocabulary + batch.tokens[i]] +
          gradients.entropy[i] * entropies[row],
        0,
      );
    };
    const policy = randomPolicy(3);
    const moved = { ...policy, shared: policy.shared.slice(), own: policy.own.slice() };
    descend(moved, batch, gradients, rowsOf(policy), { own: 1, shared: 0.5 });
    const slope = (name: 'shared' | 'own', i: number): number => {
      const at = (shift: number) => {
        const values = policy[name].slice();
        values[i] += shift;
        return loss({ ...policy, [name]: values });
      };
      return (at(1e-6) - at(-1e-6)) / 2e-6;
    };
    policy.shared.forEach((value, i) => {
      expect(value - moved.shared[i]).toBeCloseTo(0.5 * slope('shared', i), 8);
    });
    policy.own.forEach((value, i) => {
      expect(value - moved.own[i]).toBeCloseTo(slope('own', i), 8);
    });
  });

  it('averages entropies over all rows', () => {
    const rows = rowsOf({
      ...randomPolicy(4),
      shared: new Float64Array(positions * vocabulary),
      own: new Float64Array(contexts * positions * vocabulary),
    });
    expect(meanEntropy(rows)).toBeCloseTo(Math.log(vocabulary), 14);
  });
});
