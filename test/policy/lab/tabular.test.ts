import { describe, expect, it } from 'vitest';
import { InputError } from '../../../src/errors.js';
import { parseMethods, SHARED_LOCK_METHODS } from '../../../src/policy/lab/lab-methods.js';
import { labOutcome } from '../../../src/policy/lab/lab-report.js';
import { lawsOf } from '../../../src/policy/lab/laws.js';
import { ratioOfMeans, seedMean } from '../../../src/policy/lab/summary.js';
import { tabularEngine } from '../../../src/policy/lab/tabular.js';
import { drawKeys, sharedLock } from '../../../src/policy/lab/tabular-task.js';
import type { LabRollout, LabRun, LabTask } from '../../../src/policy/lab/types.js';
import { createRandom } from '../../../src/random.js';

const TASK: LabTask = Object.fromEntries(
  Object.entries(tabularEngine.task).map(([name, { initial }]) => [name, initial]),
);
const train = async (text: string, seed: number, steps: number, task: LabTask = TASK): Promise<LabRun> =>
  tabularEngine.run({ method: parseMethods([text])[0], seed, steps, task });
const bits = (values: Float64Array): string => Buffer.from(values.buffer).toString('base64');

describe('the shared lock', () => {
  it('draws keys that differ from the base key in c mod 4 positions', () => {
    const lock = sharedLock(TASK);
    const { base, keys } = drawKeys(lock, createRandom(5));
    for (let c = 0; c < lock.prompts; c++) {
      expect(base.filter((key, t) => key !== keys[c * 3 + t]).length).toBe(c % 4);
    }
  });

  it('begins at the entropy and success that the head start gives in closed form', async () => {
    const { curves } = await train('grpo', 1, 1);
    const p = Math.exp(2) / (Math.exp(2) + 7);
    const q = (1 - p) / 7;
    expect(curves.entropy[0]).toBeCloseTo(-p * Math.log(p) - 7 * q * Math.log(q), 12);
    expect(curves.success[0]).toBeCloseTo((p ** 3 + p * p * q + p * q * q + q ** 3) / 4, 12);
  });

  it('gives the same bits for the same seed, and other curves for another', async () => {
    const [one, again, other] = await Promise.all([train('steer', 3, 6), train('steer', 3, 6), train('steer', 4, 6)]);
    expect(bits(one.curves.entropy)).toBe(bits(again.curves.entropy));
    expect(bits(one.curves.success)).toBe(bits(again.curves.success));
    expect(bits(one.curves.entropy)).not.toBe(bits(other.curves.entropy));
  });

  it('collapses under the plain rule, and keeps its entropy under the others: two seeds, 51 steps', async () => {
    const entropies = new Map<string, number>();
    for (const text of SHARED_LOCK_METHODS) {
      const runs = await Promise.all([0, 1].map((seed) => train(text, seed, 51)));
      entropies.set(text, seedMean(runs.map(({ curves }) => curves.entropy[50])).mean);
    }
    const [plain, ...others] = [...entropies.values()];
    expect(plain).toBeLessThan(0.12);
    for (const entropy of others) expect(entropy).toBeGreaterThan(1.5 * plain);
  });

  it('keeps groups that teach something for later, and loses nothing that it has', async () => {
    const small = { ...TASK, prompts: 16, 'batch-prompts': 16, minibatches: 2 };
    const kept = await train('recent-samples:batch=6', 2, 12, small);
    const lost = await train('recent-samples:batch=6,recovery=no', 2, 12, small);
    for (const { curves } of [kept, lost]) {
      expect(new Set(curves.usedGroups)).toEqual(new Set([0, 6]));
      expect(curves.generatedGroups.every((groups) => groups === 16)).toBe(true);
      // Groups without spread never reach an update.
      curves.zeroAdvantageGroups.forEach((share, s) => {
        expect(share).toBe(curves.usedGroups[s] === 0 ? Number.NaN : 0);
      });
    }
  });

  it('writes rollouts whose log-probabilities belong to their tokens and whose groups have GRPO advantages', async () => {
    const records: LabRollout[] = [];
    const [method] = parseMethods(['grpo']);
    await tabularEngine.run({ method, seed: 1, steps: 2, task: TASK }, { rollouts: (some) => records.push(...some) });
    expect(records).toHaveLength(2 * 32 * 16);
    expect(new Set(records.map(({ responseId }) => responseId)).size).toBe(records.length);
    for (const { tokens, oldLogProb, topTokens } of records) {
      tokens.forEach((token, t) => {
        const at = topTokens?.ids.indexOf(token, t * 8) ?? -1;
        expect(topTokens?.logProbs[at]).toBe(oldLogProb[t]);
      });
    }
    // The first minibatch of the run is on policy; later ones have moved with the shared logits.
    expect(records.slice(0, 128).every(({ logProb, oldLogProb }) => logProb.every((l, t) => l === oldLogProb[t]))).toBe(
      true,
    );
    expect(records.slice(128, 512).some(({ logProb, oldLogProb }) => logProb.some((l, t) => l !== oldLogProb[t]))).toBe(
      true,
    );
  });

  it('refuses sizes that cannot be, and rules that need what responses lack', async () => {
    await expect(async () => train('grpo', 0, 1, { ...TASK, 'batch-prompts': 65 })).rejects.toThrow(InputError);
    await expect(async () => train('grpo', 0, 1, { ...TASK, positions: 2.5 })).rejects.toThrow(/whole number/);
    await expect(async () => train('pear', 0, 1)).rejects.toThrow(/no thinkEnd/);
    expect(tabularEngine.rules).not.toContain('pear');
  });
});

describe('means over seeds', () => {
  it('have the standard error of a mean, and ratios the one of their pairs', () => {
    expect(seedMean([1, 2, 3])).toEqual({ mean: 2, standardError: Math.sqrt(1 / 3) });
    expect(ratioOfMeans([2, 4, 6], [1, 2, 3])).toEqual({ mean: 2, standardError: 0 });
    const { mean, standardError } = ratioOfMeans([3, 4], [1, 2]);
    expect(mean).toBeCloseTo(7 / 3, 14);
    // Residuals (3 - 7/3, 4 - 14/3) / 1.5 = ±4/9: s / sqrt(2) = 4/9.
    expect(standardError).toBeCloseTo(4 / 9, 14);
  });

  it('compare with the plain rule seed by seed and judge the known directions', () => {
    const run = (label: string, intervention: string, seed: number, level: number, end: number) => {
      const entropy = Float64Array.from({ length: 201 }, (_, s) => level * Math.exp(-s / 20) + 0.01);
      const success = entropy.map((h) => end - 0.1 * Math.expm1(h));
      const curve = entropy;
      const curves = {
        ...{ entropy, success, reward: curve, length: curve, covariance: curve, touched: curve },
        ...{ generatedGroups: curve, usedGroups: curve, zeroAdvantageGroups: curve, extra: {} },
      };
      const laws = lawsOf(curves, { early: 30, level: 0.9, draws: 100, seed: 1 });
      return { method: { label, intervention, settings: {} }, seed, curves, warnings: [], laws };
    };
    const runs = [0, 1].flatMap((seed) => [
      run('plain', 'grpo', seed, 1, 0.25 + 0.01 * seed),
      run('kept', 'kl-cov', seed, 3, 0.4 + 0.01 * seed),
      run('damped', 'steer', seed, 1.5, 0.25 + 0.01 * seed),
    ]);
    const setting = {
      ...{ engine: tabularEngine, task: TASK, steps: 201, seeds: [0, 1], tableSteps: [0, 200] },
      ...{ early: 30, level: 0.9, draws: 100 },
    };
    const { directions } = labOutcome(setting, runs);
    expect(directions.map(({ method, held }) => [method, held])).toEqual([
      ['kept', true],
      ['kept', true],
      ['damped', false],
      ['damped', true],
      ['plain', true],
    ]);
    expect(directions[1].measured.mean).toBeCloseTo(0.15, 4);
  });
});
