import { describe, expect, it } from 'vitest';
import { createSchedule } from '../../src/training/schedules.js';

const rates = (settings: Parameters<typeof createSchedule>[0], steps: number): number[] =>
  Array.from({ length: steps }, (_, step) => createSchedule(settings)(step));

describe('schedules', () => {
  it('warms up to the rate, then keeps it', () => {
    expect(rates({ learningRate: 1, warmupSteps: 4 }, 6)).toEqual([0.25, 0.5, 0.75, 1, 1, 1]);
  });

  it('falls along a line', () => {
    const linear = rates({ schedule: 'linear', learningRate: 2, warmupSteps: 1, totalSteps: 5 }, 6);
    expect(linear).toEqual([2, 2, 1.5, 1, 0.5, 0]);
  });

  it('falls along half a cosine to its final share', () => {
    const cosine = rates({ schedule: 'cosine', learningRate: 1, totalSteps: 4, finalShare: 0.2 }, 6);
    const expected = [1, 0.6 + 0.4 * Math.SQRT1_2, 0.6, 0.6 - 0.4 * Math.SQRT1_2, 0.2, 0.2];
    for (const [step, rate] of cosine.entries()) expect(rate).toBeCloseTo(expected[step], 14);
  });

  it.each([
    [{ learningRate: -1 }, 'learning rate -1'],
    [{ learningRate: 1, warmupSteps: 2.5 }, 'warm-up of 2.5 steps'],
    [{ learningRate: 1, schedule: 'linear' } as const, 'needs the number of steps'],
    [
      { learningRate: 1, schedule: 'cosine', totalSteps: 3, warmupSteps: 4 } as const,
      'warm-up of 4 steps in a run of 3',
    ],
    [{ learningRate: 1, finalShare: 2 }, 'final share 2'],
    [{ learningRate: 1, schedule: 'linaer' as 'linear' }, 'did you mean "linear"?'],
  ])('refuses %j', (settings, message) => {
    expect(() => createSchedule(settings)).toThrow(message);
  });
});
