import { describe, expect, it } from 'vitest';
import { RunError } from '../../src/errors.js';
import { createDataOrder } from '../../src/training/data-order.js';
import { createObjective } from '../../src/training/objective.js';
import { MOST_SKIPPED_IN_A_ROW, type TrainHooks, type TrainSettings, train } from '../../src/training/trainer.js';
import { type BatchSource, type FeatureBatch, IGNORED, type Loss, type StepRecord } from '../../src/training/types.js';
import { clouds, crossEntropy, linearStudent } from './linear-student.js';

const WIDTH = 5;
const CLASSES = 3;
const data = clouds(40, WIDTH, CLASSES);

const batchOf = (items: Int32Array, labels = data.labels): FeatureBatch => ({
  features: gather(items),
  rows: items.length,
  labels: Int32Array.from(items, (i) => labels[i]),
  indices: items,
});

function gather(items: Int32Array): Float64Array {
  const rows = new Float64Array(items.length * WIDTH);
  for (const [r, item] of items.entries())
    rows.set(data.features.subarray(item * WIDTH, (item + 1) * WIDTH), r * WIDTH);
  return rows;
}

function sourceOf(batchSize: number, labels = data.labels): BatchSource<FeatureBatch> {
  const order = createDataOrder({ count: data.labels.length, batchSize, seed: 7 });
  return { perEpoch: order.perEpoch, batch: (index) => batchOf(order.items(index), labels) };
}

const objective = createObjective<FeatureBatch>([{ weight: 1, loss: crossEntropy }], {
  labels: (batch) => batch.labels,
});
const settings: TrainSettings = {
  steps: 12,
  optimizer: { method: 'adamw' },
  schedule: { learningRate: 0.05, schedule: 'cosine', warmupSteps: 2 },
};

async function runOnce(
  source: BatchSource<FeatureBatch>,
  changes: Partial<TrainSettings> = {},
  hooks: TrainHooks = {},
  student = linearStudent(WIDTH, CLASSES),
) {
  const records: StepRecord[] = [];
  const result = await train(
    student,
    source,
    objective,
    { ...settings, ...changes },
    {
      onStep: (record) => void records.push(record),
      ...hooks,
    },
  );
  return { records, result, values: student.parameters.values };
}

describe('train', () => {
  it('lowers the loss and tells every step', async () => {
    const { records, result } = await runOnce(sourceOf(20), { steps: 60 });
    expect(records.map(({ step }) => step)).toEqual(Array.from({ length: 60 }, (_, i) => i + 1));
    expect(records[59].loss).toBeLessThan(0.8 * records[0].loss);
    expect(records[0].learningRate).toBeCloseTo(0.025, 12);
    expect(result).toMatchObject({ steps: 60, resumedFrom: 0, skipped: 0, stopped: false });
  });

  it('averages over the rows that count, not over micro-batches', async () => {
    // Micro-batches of 4 whose rows count unevenly: the sum over all of 20 divided once.
    const labels = data.labels.map((label, i) => (i % 3 === 0 || i % 7 === 1 ? IGNORED : label));
    const whole = await runOnce(sourceOf(20, labels));
    const parts = await runOnce(sourceOf(4, labels), { accumulate: 5 });
    for (let s = 0; s < 12; s++) {
      expect(parts.records[s].validRows).toBe(whole.records[s].validRows);
      expect(parts.records[s].loss).toBeCloseTo(whole.records[s].loss, 12);
      expect(parts.records[s].gradientNorm).toBeCloseTo(whole.records[s].gradientNorm, 12);
    }
    for (const [i, value] of parts.values.entries()) expect(value).toBeCloseTo(whole.values[i], 10);
  });

  it("weighs the student's own terms by the rows of their micro-batch", async () => {
    const student = () => linearStudent(WIDTH, CLASSES, { penalty: 0.7 });
    const whole = await runOnce(sourceOf(20), {}, {}, student());
    const parts = await runOnce(sourceOf(5), { accumulate: 4 }, {}, student());
    expect(Object.keys(whole.records[0].terms)).toEqual(['ce', 'penalty']);
    for (let s = 0; s < 12; s++) expect(parts.records[s].loss).toBeCloseTo(whole.records[s].loss, 10);
    const last = whole.records[11];
    expect(last.loss).toBeCloseTo(last.terms.ce + last.terms.penalty, 12);
  });

  it('shortens long gradients and tells the norm of before', async () => {
    const norms = (clipped: Awaited<ReturnType<typeof runOnce>>) => clipped.records[0].gradientNorm;
    const sgd = { method: 'sgd' } as const;
    const schedule = { learningRate: 1 };
    const free = await runOnce(sourceOf(20), { steps: 1, optimizer: sgd, schedule });
    const clipped = await runOnce(sourceOf(20), { steps: 1, optimizer: sgd, schedule, clipNorm: 0.01 });
    expect(norms(clipped)).toBe(norms(free));
    const start = linearStudent(WIDTH, CLASSES).parameters.values;
    const moved = Math.hypot(...clipped.values.map((value, i) => value - start[i]));
    expect(moved).toBeCloseTo(0.01, 6);
  });

  it('moves nothing where no row counts', async () => {
    const warnings: string[] = [];
    const none = new Int32Array(40).fill(IGNORED);
    const { records, values } = await runOnce(
      sourceOf(20, none),
      { steps: 2 },
      { warn: (text) => warnings.push(text) },
    );
    expect(records[1]).toMatchObject({ loss: 0, gradientNorm: 0, validRows: 0, skipped: false });
    expect(values).toEqual(linearStudent(WIDTH, CLASSES).parameters.values);
    expect(warnings).toEqual([1, 2].map((step) => expect.stringContaining(`step ${step}: no row`)));
  });

  /** Cross-entropy whose gradient, or value, is spoilt at some steps. */
  const spoilt = (at: (call: number) => boolean, what: 'gradient' | 'value'): Loss => {
    let call = 0;
    return {
      ...crossEntropy,
      evaluate(input, gradients) {
        const output = crossEntropy.evaluate(input, gradients);
        if (!at(++call)) return output;
        if (what === 'value') return { ...output, sum: Number.NaN };
        if (gradients !== undefined) gradients.logits[0] = Number.POSITIVE_INFINITY;
        return output;
      },
    };
  };
  const oneBlock = () => linearStudent(WIDTH, CLASSES, { blockRows: 40 });
  const trainWith = (loss: Loss, hooks: TrainHooks = {}) =>
    train(
      oneBlock(),
      sourceOf(20),
      createObjective<FeatureBatch>([{ weight: 1, loss }], { labels: (batch) => batch.labels }),
      { ...settings, steps: 30 },
      hooks,
    );

  it('leaves out steps with a gradient that is not finite', async () => {
    const records: StepRecord[] = [];
    const warnings: string[] = [];
    const result = await trainWith(
      spoilt((call) => call === 3 || call === 5, 'gradient'),
      { onStep: (record) => void records.push(record), warn: (text) => warnings.push(text) },
    );
    expect(result.skipped).toBe(2);
    expect(records.filter(({ skipped }) => skipped).map(({ step }) => step)).toEqual([3, 5]);
    expect(warnings[0]).toContain('step 3: the gradient of weight is not finite');
    expect(Number.isFinite(records[29].loss)).toBe(true);
  });

  it('stops behind ten of them in a row', async () => {
    const run = trainWith(spoilt((call) => call > 4, 'gradient'));
    await expect(run).rejects.toThrow(RunError);
    await expect(run).rejects.toThrow(`step ${4 + MOST_SKIPPED_IN_A_ROW}: the gradient of weight is not finite`);
  });

  it('stops at a loss that is not a number, and names the step', async () => {
    const run = trainWith(spoilt((call) => call === 6, 'value'));
    await expect(run).rejects.toThrow(RunError);
    await expect(run).rejects.toThrow('step 6: the loss is NaN (ce); no checkpoint had been written yet');
  });

  it('evaluates, and leaves the best values where that is asked', async () => {
    const seen: Float64Array[] = [];
    const student = linearStudent(WIDTH, CLASSES);
    const scores = [3, 1, 2, 5];
    const result = await train(
      student,
      sourceOf(20),
      objective,
      { ...settings, evaluateEvery: 3, restoreBest: true },
      {
        evaluate() {
          seen.push(student.parameters.values.slice() as Float64Array);
          return { loss: scores[seen.length - 1] };
        },
      },
    );
    expect(result.best).toEqual({ step: 6, loss: 1 });
    expect(student.parameters.values).toEqual(seen[1]);
  });

  it('ends early where the hook says so', async () => {
    let asked = 0;
    const { result } = await runOnce(sourceOf(20), {}, { stop: () => ++asked === 4 });
    expect(result).toMatchObject({ steps: 4, stopped: true });
  });

  it.each([
    [{ steps: 0 }, 'steps 0'],
    [{ accumulate: 1.5 }, 'accumulation 1.5'],
    [{ clipNorm: 0 }, 'clipping at norm 0'],
    [{ evaluateEvery: 2 }, 'nothing to evaluate on'],
    [{ schedule: { learningRate: 0.1, schedule: 'cosin' as 'cosine' } }, 'did you mean "cosine"'],
    [{ optimizer: { method: 'sgd', nesterov: true } as const }, 'nesterov needs a momentum'],
    [{ optimizer: { method: 'sgd', beta1: 0.9 } as const }, 'optimizer sgd has no beta1'],
  ])('refuses %j', async (changes, message) => {
    await expect(runOnce(sourceOf(20), changes)).rejects.toThrow(message);
  });
});
