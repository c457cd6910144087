import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { type ClassifierArguments, trainClassifierModel } from '../../src/distillation/train-classifier-job.js';
import { encodeNpy } from '../../src/formats/npy.js';

const folder = mkdtempSync(join(tmpdir(), 'surprisal-job-'));
afterAll(() => rmSync(folder, { recursive: true }));

const run = (name: string, steps: number, more: Partial<ClassifierArguments> = {}) => {
  const args: ClassifierArguments = {
    sources: [{ path: 'fixtures/tables/digits.csv' }],
    evalShare: 0.2,
    student: { kind: 'network', text: 'mlp:8,crrelu,dropout=0.2', standardize: 'columns' },
    training: {
      loss: 'ce',
      steps,
      batchSize: 32,
      accumulate: 2,
      optimizer: { method: 'adamw' },
      learningRate: 0.02,
      schedule: 'constant',
      warmupSteps: 0,
      finalShare: 0,
      clipNorm: 1,
      precision: 'f32',
    },
    seed: 3,
    threads: 1,
    keep: 'last',
    checkpoints: join(folder, name),
    identity: { model: 'm', configuration: {} },
    resume: false,
    out: join(folder, `${name}.onnx`),
    ...more,
  };
  return trainClassifierModel(args, () => undefined);
};
const model = (name: string): Buffer => readFileSync(join(folder, `${name}.onnx`));

describe('training of a classifier', () => {
  it('goes on from its checkpoint to the same weights and figures', async () => {
    const whole = await run('whole', 12);
    await run('part', 5);
    const rest = await run('part', 12, { resume: true });
    expect(model('part').equals(model('whole'))).toBe(true);
    expect(rest.evaluations.at(-1)).toEqual(whole.evaluations.at(-1));
    expect(rest.after).toEqual(whole.after);
    expect(Object.keys(whole.scalars)).toEqual(['layers.0.epsilon']);
    await expect(
      run('part', 12, { resume: true, identity: { model: 'm', configuration: { loss: 'kd' } } }),
    ).rejects.toThrow('left by another run');
  });

  it('takes the logits of a file, and refuses those of other rows or too few classes', async () => {
    const logits = (rows: number, classes: number): string => {
      const path = join(folder, `logits-${rows}-${classes}.npy`);
      const data = new Float32Array(rows * classes).fill(0.5).map((value, i) => value + Math.sin(i));
      writeFileSync(path, encodeNpy(data, [rows, classes]));
      return path;
    };
    const teacher = (path: string) => ({ kind: 'logits', path }) as const;
    const learnt = await run('stored', 2, { teacher: teacher(logits(300, 10)) });
    expect(learnt.teacher?.training.rows).toBe(244);
    expect(learnt.teacher?.heldOut?.rows).toBe(56);
    await expect(run('a', 2, { teacher: teacher(logits(299, 10)) })).rejects.toThrow('299 rows of logits');
    await expect(run('b', 2, { teacher: teacher(logits(300, 9)) })).rejects.toThrow('logits of 9 classes');
    const onnx = { kind: 'onnx', path: join(folder, 'whole.onnx') } as const;
    await expect(run('c', 2, { student: onnx, teacher: teacher(logits(300, 11)) })).rejects.toThrow(
      'the teacher has 11 classes and the student 10',
    );
  });
});
