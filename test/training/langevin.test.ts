import { describe, expect, it } from 'vitest';
import { type LangevinSettings, sampleLangevin } from '../../src/training/langevin.js';
import { createObjective } from '../../src/training/objective.js';
import type { FeatureBatch, Loss } from '../../src/training/types.js';
import { linearStudent } from './linear-student.js';

/** (logit - label)^2 / 2 of the only class: the log-likelihood of a normal variable of variance 1. */
const squared: Loss = {
  label: 'squared',
  scope: 'row',
  reads: { teacher: 'none', labels: true, features: false },
  evaluate({ rows, student, labels }, gradients) {
    let sum = 0;
    for (let r = 0; r < rows; r++) {
      const error = student[r] - (labels?.[r] ?? 0);
      sum += error ** 2 / 2;
      if (gradients !== undefined) gradients.logits[r] += (gradients.scale ?? 1) * error;
    }
    return { sum, validRows: rows };
  },
};

const ROWS = 24;
const STEP_SIZE = 0.03;
const all: FeatureBatch = {
  features: Float64Array.from({ length: ROWS }, (_, i) => Math.sin(i)),
  rows: ROWS,
  labels: Int32Array.from({ length: ROWS }, (_, i) => (i % 3) - 1),
  indices: Int32Array.from({ length: ROWS }, (_, i) => i),
};
const source = { perEpoch: 1, batch: () => all };
const objective = createObjective<FeatureBatch>([{ weight: 1, loss: squared }], { labels: (batch) => batch.labels });

async function sample(settings: Partial<LangevinSettings>): Promise<{ weights: number[]; biases: number[] }> {
  const student = linearStudent(1, 1, { blockRows: ROWS });
  const [weights, biases]: number[][] = [[], []];
  const seen: number[] = [];
  const result = await sampleLangevin(
    student,
    source,
    objective,
    { stepSize: STEP_SIZE, dataCount: ROWS, burnIn: 100, thinning: 2, snapshots: 1500, seed: 1, ...settings },
    {
      onSnapshot(index) {
        seen.push(index);
        weights.push(student.parameters.values[0]);
        biases.push(student.parameters.values[1]);
      },
    },
  );
  expect(seen).toEqual(seen.map((_, i) => i));
  expect(result.steps).toBe((settings.burnIn ?? 100) + seen.length * (settings.thinning ?? 2));
  return { weights, biases };
}

const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
const variance = (values: readonly number[]): number => mean(values.map((value) => (value - mean(values)) ** 2));

describe('Langevin sampling', () => {
  it.each([1, 2.5])(
    'of a linear model has the posterior of Bayesian regression, temperature %d',
    async (temperature) => {
      const priorPrecision = 3;
      const { weights, biases } = await sample({ priorPrecision, temperature });
      // Posterior precision L = [[sxx + l, sx], [sx, n + l]], mean its inverse times [sxy, sy].
      let [sx, sxx, sy, sxy] = [0, 0, 0, 0];
      for (let i = 0; i < ROWS; i++) {
        const [x, y] = [all.features[i], all.labels[i]];
        sx += x;
        sxx += x * x;
        sy += y;
        sxy += x * y;
      }
      const [a, d] = [sxx + priorPrecision, ROWS + priorPrecision];
      const determinant = a * d - sx * sx;
      expect(mean(weights)).toBeCloseTo((d * sxy - sx * sy) / determinant, 1);
      expect(mean(biases)).toBeCloseTo((a * sy - sx * sxy) / determinant, 1);
      // The steps themselves have covariance T (L - eta L^2 / 4)^-1, which tends to T L^-1 with the step size.
      const quarter = STEP_SIZE / 4;
      const [m11, m12, m22] = [
        a - quarter * (a * a + sx * sx),
        sx - quarter * sx * (a + d),
        d - quarter * (d * d + sx * sx),
      ];
      const ofSteps = m11 * m22 - m12 * m12;
      expect(Math.abs(variance(weights) / ((temperature * m22) / ofSteps) - 1)).toBeLessThan(0.1);
      expect(Math.abs(variance(biases) / ((temperature * m11) / ofSteps) - 1)).toBeLessThan(0.1);
    },
  );

  it('is the same for the same seed, and another for another', async () => {
    const short = { burnIn: 3, snapshots: 5, thinning: 1 };
    const first = await sample(short);
    expect(await sample(short)).toEqual(first);
    expect(await sample({ ...short, seed: 2 })).not.toEqual(first);
  });

  it('refuses settings out of range', async () => {
    await expect(sample({ stepSize: 0 })).rejects.toThrow('step size 0');
    await expect(sample({ burnIn: -1 })).rejects.toThrow('burn-in of -1');
    await expect(sample({ snapshots: 0 })).rejects.toThrow('snapshots 0');
    await expect(sample({ dataCount: 0 })).rejects.toThrow('needs dataCount');
  });
});
