import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { isFactorisedStore } from '../../src/models/factorised-store.js';
import { openModelFiles } from '../../src/models/model-files.js';
import { createRandom } from '../../src/random.js';
import { openCheckpoints } from '../../src/training/checkpoint.js';
import { type DecoderStudent, openDecoderStudent } from '../../src/training/decoder-student.js';
import {
  factorisedTensors,
  type LoSparseModel,
  loSparseFollower,
  openLoSparse,
} from '../../src/training/losparse-parts.js';
import { survivors } from '../../src/training/losparse-pruner.js';
import { createLoss } from '../../src/training/losses/index.js';
import { writeModelDirectory } from '../../src/training/model-writer.js';
import { createObjective } from '../../src/training/objective.js';
import { existingStudent } from '../../src/training/student-config.js';
import { type TrainHooks, type TrainResult, train } from '../../src/training/trainer.js';
import type { TokenBatch } from '../../src/training/types.js';

const folder = mkdtempSync(join(tmpdir(), 'losparse-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const architecture = (name: string): string => `fixtures/architectures/${name}`;
const OPTIONS = { precision: 'f64', threads: 1, seed: 1 } as const;

function batchOf(index = 0): TokenBatch {
  const random = createRandom(5).fork(index);
  const tokens = Int32Array.from({ length: 12 }, () => random.integer(67));
  return { tokens, labels: tokens.map((token) => (token + 3) % 67), batch: 2, length: 6, windows: new Int32Array(2) };
}

const open = (parts: LoSparseModel): Promise<DecoderStudent> =>
  openDecoderStudent(parts.files, {
    ...{ precision: 'f64', threads: 1, batch: 2, length: 6 },
    adapters: parts.adapters,
    train: ['*'],
  });

async function logitsOf(student: DecoderStudent): Promise<Float64Array> {
  const all = new Float64Array(12 * student.classes);
  await student.evaluate(batchOf(), ({ firstRow, logits }) => all.set(logits, firstRow * student.classes));
  return all;
}

function expectClose(actual: Float64Array, expected: Float64Array, tolerance: number): void {
  const difference = actual.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i])), 0);
  expect(difference).toBeLessThan(tolerance);
}

describe('experts in low rank and sparse rows', () => {
  it.each(['mixtral', 'qwen3-moe-fused-square', 'qwen3-vl-moe', 'qwen2-moe-merged-remap'])(
    'are the same model, trained and written (%s)',
    async (name) => {
      const model = existingStudent(architecture(name), 1);
      const whole = await openDecoderStudent(model.files, { precision: 'f64', threads: 1, batch: 2, length: 6 });
      const expected = await logitsOf(whole);
      await whole.close();
      const parts = openLoSparse(model.files, { ...OPTIONS, rank: 3 });
      expect(parts.continued).toBe(false);
      const student = await open(parts);
      expectClose(await logitsOf(student), expected, 1e-10);
      // All rows of S but every fifth.
      for (const { name: tensor, rows, columns } of parts.matrices) {
        const data = student.tensors.get(tensor)?.data;
        for (let row = 0; row < rows; row++) if (row % 5 > 0) data?.fill(0, row * columns, (row + 1) * columns);
      }
      const cut = await logitsOf(student);
      const out = join(folder, name);
      mkdirSync(out);
      const { store, figures, ...form } = factorisedTensors(parts, student.tensors, student.parameters, 'F32', 1);
      writeModelDirectory(out, model, store, { dtype: 'F32', ...form });
      expect(figures).toMatchObject({ matrices: parts.matrices.length, dense_matrices: 0 });
      expect(figures.bytes_after).toBeLessThan(figures.bytes_before);
      await student.close();

      const written = existingStudent(out, 1);
      expect(isFactorisedStore(written.files.store)).toBe(true);
      const again = openLoSparse(written.files, OPTIONS);
      expect(again.continued).toBe(true);
      expect(again.matrices).toEqual(parts.matrices);
      const continued = await open(again);
      expectClose(await logitsOf(continued), cut, 1e-4);
      await continued.close();
      expect(() => openLoSparse(written.files, { ...OPTIONS, rank: 2 })).toThrow(/have rank 3/);
      expect(() => openLoSparse(written.files, { ...OPTIONS, targets: ['*'] })).toThrow(/compressed already/);
      written.files.store.close();
      model.files.store.close();
    },
  );

  it('takes apart what is named, and refuses what cannot be', () => {
    const files = openModelFiles(architecture('mixtral'), 1);
    const some = openLoSparse(files, { ...OPTIONS, rank: 2, targets: ['*.layers.1.*.w2.weight'] });
    expect(some.matrices).toHaveLength(4);
    expect(() => openLoSparse(files, { ...OPTIONS, rank: 33 })).toThrow(/its rank is at most 32/);
    expect(() => openLoSparse(files, { ...OPTIONS, rank: 2, targets: ['*.w9.*'] })).toThrow(/no tensor is named/);
    const dense = openModelFiles(architecture('llama-biases'), 1);
    expect(() => openLoSparse(dense, { ...OPTIONS, rank: 2 })).toThrow(/has no experts/);
    files.store.close();
    dense.store.close();
  });
});

describe('pruning behind every step', () => {
  const STEPS = 9;
  const schedule = { totalSteps: STEPS, warmupSteps: 1, finalShare: 0.25 };

  async function run(
    name: string,
    hooks: TrainHooks = {},
  ): Promise<{ values: Float64Array; rows: number; alive: number; result: TrainResult }> {
    const files = openModelFiles(architecture('mixtral'), 1);
    const parts = openLoSparse(files, { ...OPTIONS, rank: 3 });
    const student = await open(parts);
    const objective = createObjective<TokenBatch>([{ weight: 1, loss: createLoss('ce') }], {
      labels: ({ labels }) => labels,
    });
    const checkpoints = openCheckpoints(join(folder, name), { model: 'm', seed: 1, configuration: {} });
    const result = await train(
      student,
      { perEpoch: 3, batch: batchOf },
      objective,
      {
        steps: STEPS,
        optimizer: { method: 'adamw' },
        schedule: { learningRate: 1e-3 },
        checkpointEvery: 2,
        clipNorm: 0.5,
        threads: 1,
      },
      { ...hooks, checkpoints, follower: loSparseFollower(parts, student.parameters, schedule) },
    );
    const values = Float64Array.from(student.parameters.values);
    let [rows, alive] = [0, 0];
    for (const matrix of parts.matrices) {
      rows += matrix.rows;
      alive += survivors({ ...matrix, values: student.tensors.get(matrix.name)?.data ?? values }).length;
    }
    await student.close();
    files.store.close();
    return { values, rows, alive, result };
  }

  it('leaves the share that was asked for, and goes on from a checkpoint as if unbroken', async () => {
    const whole = await run('whole');
    // Matrices of 32 and 40 entries a row compete by entries: a row more may stay where the cut falls into it.
    expect(whole.alive / whole.rows).toBeGreaterThan(0.22);
    expect(whole.alive / whole.rows).toBeLessThan(0.3);
    let asked = 0;
    const part = await run('part', { stop: () => ++asked === 5 });
    expect(part.result).toMatchObject({ steps: 5, stopped: true });
    expect(part.alive).toBeGreaterThan(whole.alive);
    const resumed = await run('part');
    expect(resumed.result).toMatchObject({ steps: STEPS, resumedFrom: 5 });
    expect(resumed.values).toEqual(whole.values);
  });

  it('keeps rows that are zero without a schedule, and needs S to be trained', async () => {
    const files = openModelFiles(architecture('mixtral'), 1);
    const parts = openLoSparse(files, { ...OPTIONS, rank: 3 });
    const student = await open(parts);
    const [{ name, columns }] = parts.matrices;
    const sparse = student.tensors.get(name)?.data as Float64Array;
    sparse.fill(0, 0, 2 * columns);
    const follower = loSparseFollower(parts, student.parameters, undefined);
    sparse.fill(1);
    follower.moved(1, 1);
    expect(sparse.findIndex((value) => value !== 0)).toBe(2 * columns);
    expect(sparse.subarray(2 * columns).every((value) => value === 1)).toBe(true);
    await student.close();
    const frozen = await openDecoderStudent(parts.files, {
      ...{ precision: 'f64', threads: 1, batch: 2, length: 6 },
      adapters: parts.adapters,
    });
    expect(() => loSparseFollower(parts, frozen.parameters, schedule)).toThrow(/its sparse part is frozen/);
    await frozen.close();
    files.store.close();
  });
});
