import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { openCheckpoints, type RunIdentity } from '../../src/training/checkpoint.js';
import { createDataOrder } from '../../src/training/data-order.js';
import { createObjective } from '../../src/training/objective.js';
import { createOptimizer, type OptimizerSettings } from '../../src/training/optimizer.js';
import { type TrainHooks, type TrainResult, type TrainSettings, train } from '../../src/training/trainer.js';
import type { BatchSource, FeatureBatch, Loss } from '../../src/training/types.js';
import { clouds, crossEntropy, linearStudent } from './linear-student.js';

const WIDTH = 4;
const CLASSES = 3;
const ROWS = 30;
const data = clouds(ROWS, WIDTH, CLASSES);
const order = createDataOrder({ count: ROWS, batchSize: 7, seed: 11 });
const source: BatchSource<FeatureBatch> = {
  perEpoch: order.perEpoch,
  batch(index) {
    const items = order.items(index);
    const features = new Float64Array(items.length * WIDTH);
    for (const [r, item] of items.entries())
      features.set(data.features.subarray(item * WIDTH, (item + 1) * WIDTH), r * WIDTH);
    return { features, rows: items.length, labels: Int32Array.from(items, (i) => data.labels[i]), indices: items };
  },
};
const objectiveOf = (loss: Loss) =>
  createObjective<FeatureBatch>([{ weight: 1, loss }], { labels: (batch) => batch.labels });
const identity: RunIdentity = { model: 'linear-4-3', seed: 11, configuration: { loss: 'ce', batch: 7 } };

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'surprisal-checkpoint-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const METHODS: OptimizerSettings[] = [
  { method: 'adamw', exemptVectors: true },
  { method: 'adam', weightDecay: 0.01 },
  { method: 'sgd', momentum: 0.9, nesterov: true },
  { method: 'lion' },
  { method: 'sgld', dataCount: ROWS, priorPrecision: 1, seed: 3 },
];

async function run(
  settings: Partial<TrainSettings>,
  hooks: TrainHooks = {},
  loss: Loss = crossEntropy,
): Promise<{ values: ArrayLike<number>; result: TrainResult }> {
  const student = linearStudent(WIDTH, CLASSES, { precision: 'f32' });
  const result = await train(
    student,
    source,
    objectiveOf(loss),
    {
      steps: 17,
      accumulate: 2,
      optimizer: { method: 'adamw' },
      schedule: { learningRate: 0.01, schedule: 'cosine', warmupSteps: 3 },
      checkpointEvery: 4,
      ...settings,
    },
    hooks,
  );
  return { values: student.parameters.values, result };
}

describe('checkpoints of a run', () => {
  it.each(METHODS)('a run that died goes on to the same bits: $method', async (optimizer) => {
    const unbroken = await run({ optimizer });
    // Dies in step 11: the last checkpoint is that of step 8.
    let calls = 0;
    const dying: Loss = {
      ...crossEntropy,
      evaluate(input, gradients) {
        if (input.rows > 0 && ++calls > 10 * 6) throw new Error('killed');
        return crossEntropy.evaluate(input, gradients);
      },
    };
    const store = openCheckpoints(directory, identity);
    await expect(run({ optimizer }, { checkpoints: store }, dying)).rejects.toThrow('killed');
    const again = openCheckpoints(directory, identity);
    expect(again.last).toBeGreaterThan(0);
    const resumed = await run({ optimizer }, { checkpoints: again });
    expect(resumed.result.resumedFrom).toBe(again.last === 17 ? resumed.result.resumedFrom : 0);
    expect(resumed.values).toEqual(unbroken.values);
    expect(readdirSync(directory)).toEqual(['step-00000017']);
  });

  it('keeps the best values across an interruption', async () => {
    const scores = [5, 2, 4, 3, 9, 9];
    const evaluateAt = (step: number) => ({ loss: scores[step / 3 - 1] ?? 9 });
    const settings = { evaluateEvery: 3, restoreBest: true, steps: 18 };
    const unbroken = await run(settings, { evaluate: evaluateAt });
    expect(unbroken.result.best).toEqual({ step: 6, loss: 2 });
    let steps = 0;
    const stopped = await run(settings, {
      evaluate: evaluateAt,
      checkpoints: openCheckpoints(directory, identity),
      stop: () => ++steps === 10,
    });
    expect(stopped.result).toMatchObject({ steps: 10, stopped: true });
    expect(readdirSync(directory).sort()).toEqual(['best-00000006', 'step-00000010']);
    const resumed = await run(settings, { evaluate: evaluateAt, checkpoints: openCheckpoints(directory, identity) });
    expect(resumed.result).toMatchObject({ resumedFrom: 10, best: { step: 6, loss: 2 } });
    expect(resumed.values).toEqual(unbroken.values);
  });

  it('a run that is complete is not run again', async () => {
    const first = await run({}, { checkpoints: openCheckpoints(directory, identity) });
    let steps = 0;
    const second = await run({}, { checkpoints: openCheckpoints(directory, identity), onStep: () => void steps++ });
    expect(steps).toBe(0);
    expect(second.result).toMatchObject({ steps: 17, resumedFrom: 17 });
    expect(second.values).toEqual(first.values);
  });

  it('names what differs in a checkpoint of another run, model or optimiser', async () => {
    await run({}, { checkpoints: openCheckpoints(directory, identity) });
    const opened = (changes: Partial<RunIdentity>, settings: Partial<TrainSettings> = {}) =>
      run(settings, { checkpoints: openCheckpoints(directory, { ...identity, ...changes }) });
    await expect(opened({ seed: 12 })).rejects.toThrow('seed was 11 and is now 12');
    await expect(opened({ configuration: { loss: 'kd', batch: 7 } })).rejects.toThrow(
      'configuration.loss was "ce" and is now "kd"',
    );
    await expect(opened({ model: 'another' })).rejects.toThrow('model was "linear-4-3" and is now "another"');
    await expect(opened({}, { optimizer: { method: 'lion' } })).rejects.toThrow(
      'tensor "v.weight" is not of this model',
    );
    await expect(opened({}, { optimizer: { method: 'sgd', momentum: 0.9 } })).rejects.toThrow(
      'tensor "velocity.weight" is missing',
    );
    await expect(opened({}, { steps: 5 })).rejects.toThrow('a checkpoint of step 17 in a run of 5 steps');
    const rate = { learningRate: 0.01, warmupSteps: 3 };
    await expect(opened({}, { schedule: { ...rate, schedule: 'linear' } })).rejects.toThrow(
      'schedule.schedule was "cosine" and is now "linear"',
    );
    await expect(opened({}, { steps: 30 })).rejects.toThrow('schedule.totalSteps was 17 and is now 30');
    await expect(opened({}, { clipNorm: 1 })).rejects.toThrow('clipNorm was null and is now 1');
    await expect(opened({}, { optimizer: { method: 'adamw', beta1: 0.8 } })).rejects.toThrow(
      'optimizer.beta1 was nothing and is now 0.8',
    );
    const store = openCheckpoints(directory, identity);
    const wide = linearStudent(WIDTH + 1, CLASSES, { precision: 'f32' }).parameters;
    expect(() => store.load(wide, createOptimizer(wide, { method: 'adamw' }))).toThrow(
      'tensor "values.weight" has shape [4, 3], the model has [5, 3]',
    );
    const double = linearStudent(WIDTH, CLASSES).parameters;
    expect(() => store.load(double, createOptimizer(double, { method: 'adamw' }))).toThrow('is F32, this run computes');
    // Nothing of the student was touched by what was refused.
    expect(wide.values).toEqual(linearStudent(WIDTH + 1, CLASSES, { precision: 'f32' }).parameters.values);
  });

  it('a constant rate may go on for longer than was planned', async () => {
    const schedule = { learningRate: 0.01 };
    const whole = await run({ schedule, steps: 21 });
    await run({ schedule }, { checkpoints: openCheckpoints(directory, identity) });
    const longer = await run({ schedule, steps: 21 }, { checkpoints: openCheckpoints(directory, identity) });
    expect(longer.result).toMatchObject({ resumedFrom: 17, steps: 21 });
    expect(longer.values).toEqual(whole.values);
  });

  it('refuses a state that cannot be read', async () => {
    await run({}, { checkpoints: openCheckpoints(directory, identity) });
    writeFileSync(join(directory, 'step-00000017', 'state.json'), '{"format"');
    await expect(run({}, { checkpoints: openCheckpoints(directory, identity) })).rejects.toThrow(InputError);
  });

  it('passes over what a kill left half-written, and removes it', async () => {
    await run({ steps: 8 }, { checkpoints: openCheckpoints(directory, identity) });
    // A process that is no more.
    const leftover = join(directory, '.step-00000012.4194305.0.partial');
    mkdirSync(leftover);
    writeFileSync(join(leftover, 'tensors.safetensors'), 'half');
    const store = openCheckpoints(directory, identity);
    expect(store.last).toBe(8);
    expect(readdirSync(directory)).toEqual(['step-00000008']);
    const state = JSON.parse(readFileSync(join(directory, 'step-00000008', 'state.json'), 'utf8'));
    expect(state.identity).toEqual(identity);
  });

  it('keeps no checkpoint whose values give no finite loss', async () => {
    // The step that ruins the values is one behind which a checkpoint is due: the one before it stays.
    let calls = 0;
    const ruin: Loss = {
      ...crossEntropy,
      evaluate(input, gradients) {
        const output = crossEntropy.evaluate(input, gradients);
        return ++calls > 8 * 6 ? { ...output, sum: Number.POSITIVE_INFINITY } : output;
      },
    };
    const first = await source.batch(0);
    const student = linearStudent(WIDTH, CLASSES, { precision: 'f32', blockRows: 5 });
    const settings = {
      steps: 20,
      optimizer: { method: 'adamw' },
      schedule: { learningRate: 0.1 },
      checkpointEvery: 4,
    } as const;
    const checkpoints = openCheckpoints(directory, identity);
    calls = 0;
    const failing = train(
      student,
      { perEpoch: 1, batch: () => first },
      objectiveOf(ruin),
      { ...settings, accumulate: 3 },
      { checkpoints },
    );
    await expect(failing).rejects.toThrow('step 9: the loss is Infinity (ce); the checkpoint of step 4');
    expect(readdirSync(directory)).toEqual(['step-00000004']);
  });

  it('refuses to end with values that are not finite', async () => {
    const settings = { steps: 3, optimizer: { method: 'sgd' }, schedule: { learningRate: 3e38 } } as const;
    const large: Loss = {
      ...crossEntropy,
      evaluate(input, gradients) {
        gradients?.logits.fill(30);
        return { sum: 1, validRows: input.rows };
      },
    };
    const ending = run({ ...settings, steps: 1 }, { checkpoints: openCheckpoints(directory, identity) }, large);
    await expect(ending).rejects.toThrow('step 1: the values of weight are not finite any more; no checkpoint');
  });

  it('says which checkpoint is kept when the loss is lost', async () => {
    let calls = 0;
    const lost: Loss = {
      ...crossEntropy,
      evaluate(input, gradients) {
        const output = crossEntropy.evaluate(input, gradients);
        return ++calls > 60 ? { ...output, sum: Number.NaN } : output;
      },
    };
    const failing = run({}, { checkpoints: openCheckpoints(directory, identity) }, lost);
    await expect(failing).rejects.toThrow(
      /step 1\d: the loss is NaN \(ce\); the checkpoint of step (8|12) in .* is kept/,
    );
  });
});
