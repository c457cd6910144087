import { describe, expect, it } from 'vitest';
import { banditLuck, checkBandit, drawIndex, runFigures } from '../../src/steering/bandit.js';

const BANDIT = { means: [95, 105], sigma: 10, horizon: 50 };

describe('a Gaussian bandit', () => {
  it('gives rewards of the arm, with the deviation asked for', () => {
    for (const action of [0, 1]) {
      const rewards: number[] = [];
      for (let run = 0; run < 100; run++) {
        const luck = banditLuck(BANDIT, 3, run);
        for (let step = 0; step < 50; step++) rewards.push(luck.reward(step, action));
      }
      const mean = rewards.reduce((a, b) => a + b, 0) / rewards.length;
      const deviation = Math.sqrt(rewards.reduce((s, x) => s + (x - mean) ** 2, 0) / rewards.length);
      // Five standard errors of 5,000 draws.
      expect(Math.abs(mean - BANDIT.means[action])).toBeLessThan(5 * (10 / Math.sqrt(5000)));
      expect(Math.abs(deviation - 10)).toBeLessThan(5 * (10 / Math.sqrt(10_000)));
    }
  });

  it('is as lucky whatever was done before', () => {
    const first = banditLuck(BANDIT, 7, 2);
    const reward = first.reward(4, 1);
    const second = banditLuck(BANDIT, 7, 2);
    second.choice(0);
    second.reward(0, 0);
    expect(second.reward(4, 1)).toBe(reward);
    expect(banditLuck(BANDIT, 7, 3).reward(4, 1)).not.toBe(reward);
    expect(second.reward(5, 1)).not.toBe(reward);
  });

  it('draws an action by its weight', () => {
    expect(drawIndex([0, 2, 2], 0)).toBe(1);
    expect(drawIndex([0, 2, 2], 0.49)).toBe(1);
    expect(drawIndex([0, 2, 2], 0.5)).toBe(2);
    expect(drawIndex([1, 0], 0.999999)).toBe(0);
    expect(() => drawIndex([0, 0], 0.5)).toThrow(RangeError);
  });

  it('measures a run', () => {
    const pulls = [0, 0, 1, 1, 0].map((action) => ({ action, reward: 100 + action }));
    const figures = runFigures(BANDIT, pulls);
    expect(figures.steps).toBe(5);
    expect(figures.meanReward).toBeCloseTo(100.4, 12);
    expect(figures.regret).toBe(30);
    expect(figures.bestArmShare).toBeCloseTo(0.4, 12);
    expect(figures.switchRate).toBe(0.5);
    expect(runFigures(BANDIT, pulls.slice(0, 1)).switchRate).toBeNaN();
  });

  it('refuses what is no bandit', () => {
    expect(() => checkBandit({ means: [1], sigma: 1, horizon: 1 })).toThrow(/one action is zero/);
    expect(() => checkBandit({ means: [1, Number.NaN], sigma: 1, horizon: 1 })).toThrow(/--means/);
    expect(() => checkBandit({ means: [1, 2], sigma: -1, horizon: 1 })).toThrow(/--sigma/);
    expect(() => checkBandit({ means: [1, 2], sigma: 1, horizon: 0 })).toThrow(/--horizon/);
  });
});
