import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { mixingMethod } from '../../../src/fusion/mixing/rows/registry.js';
import { createAlignedStudent } from '../../../src/fusion/mixing/training/aligned-student.js';
import { createCourse } from '../../../src/fusion/mixing/training/course.js';
import {
  createGroupSource,
  drawCounts,
  type GroupBatch,
  groupParts,
  partOfBatch,
} from '../../../src/fusion/mixing/training/group-batches.js';
import { createGroupObjective } from '../../../src/fusion/mixing/training/group-objective.js';
import { type MixTraining, trainMixture } from '../../../src/fusion/mixing/training/mix-job.js';
import { splitWindows } from '../../../src/fusion/mixing/training/split-windows.js';
import { planStages } from '../../../src/fusion/mixing/training/stages.js';
import type { MixingParameters } from '../../../src/fusion/mixing/types.js';
import { openModelFiles } from '../../../src/models/model-files.js';
import { createRandom } from '../../../src/random.js';
import { openDecoderStudent } from '../../../src/training/decoder-student.js';
import { packTexts, type TokenWindows } from '../../../src/training/language/token-data.js';
import type { Student } from '../../../src/training/types.js';
import { temporaryFolder } from '../../formats/collect.js';

const folder = temporaryFolder();
const MODEL = 'fixtures/architectures/llama-biases';
const VOCABULARY = 67;

/** Windows of a group that prefers tokens of its own. */
function windowsOf(group: number, count: number): TokenWindows {
  const random = createRandom(100 + group);
  const tokens = Int32Array.from({ length: count * 8 + 1 }, () => (random.integer(12) + 17 * group) % VOCABULARY);
  return packTexts([{ tokens }], { length: 8 });
}

const GROUPS = ['a', 'b', 'c'];

function training(method: string, out: string, more: Partial<MixTraining> = {}): MixTraining {
  const steps = 16;
  const k = GROUPS.length;
  return {
    student: { kind: 'directory', path: MODEL },
    groups: GROUPS.map((name, j) => ({ name, windows: windowsOf(j, 9), heldOut: windowsOf(j, 2) })),
    method,
    parameters: { ...mixingMethod(method).parameters(k), floor: 0 } as MixingParameters,
    course: { updateEvery: 8, sweeps: 1, probeSteps: 2, priorSteps: 0 },
    stages: {
      ...{ groups: k, steps, budget: 'final', referenceSteps: 2, proxySteps: 4, graphSteps: 2, sweepSteps: 2 },
      sweepRuns: 5,
    },
    sweepAlpha: 1.5,
    settings: {
      steps,
      optimizer: { method: 'adamw' },
      schedule: { schedule: 'cosine', learningRate: 1e-2 },
      evaluateEvery: 8,
      checkpointEvery: 3,
      restoreBest: false,
      threads: 1,
    },
    batchSize: 4,
    precision: 'f32',
    seed: 5,
    threads: 1,
    maxMemoryBytes: 2 ** 32,
    checkpoints: join(folder, `${out}.work`),
    identity: { model: 'm', configuration: { method } },
    target: { path: join(folder, out), form: 'model', base: MODEL },
    ...more,
  };
}

const weights = (out: string): Buffer => readFileSync(join(folder, out, 'model.safetensors'));

describe('batches from groups', () => {
  it('draw the whole part of each share or one more, the share on average', () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 2, maxLength: 6 }),
        fc.integer({ min: 1, max: 40 }),
        fc.double({ min: 0, max: 0.999, noNaN: true }),
        (raw, size, uniform) => {
          const total = raw.reduce((a, b) => a + b, 1e-9);
          const p = Float64Array.from(raw, (x) => (x + 1e-9 / raw.length) / total);
          const counts = drawCounts(p, size, uniform);
          expect(counts.reduce((a, b) => a + b, 0)).toBe(size);
          counts.forEach((count, j) => {
            expect(Math.abs(count - size * p[j])).toBeLessThan(1 + 1e-6);
          });
        },
      ),
    );
    const p = Float64Array.of(0.12, 0.58, 0.3);
    const sums = new Float64Array(3);
    for (let n = 0; n < 1000; n++) {
      const counts = drawCounts(p, 4, n / 1000);
      for (let j = 0; j < 3; j++) sums[j] += counts[j] / 1000;
    }
    sums.forEach((sum, j) => {
      expect(sum).toBeCloseTo(4 * p[j], 2);
    });
  });

  it('take every window of a group once before one comes again, and go on behind skipped batches', () => {
    const source = (): ReturnType<typeof createGroupSource> =>
      createGroupSource({
        windows: [windowsOf(0, 6), windowsOf(1, 30)],
        batchSize: 4,
        accumulate: 1,
        seed: 1,
        proportions: () => Float64Array.of(0.5, 0.5),
      });
    const one = source();
    const seen = [0, 1, 2].flatMap((index) => [...one.batch(index).windows].filter((w) => w < 6));
    expect(new Set(seen).size).toBe(6);
    const other = source();
    for (const index of [0, 1, 2]) other.skip(index);
    expect([...other.batch(3).windows]).toEqual([...one.batch(3).windows]);
    expect([...other.drawn]).toEqual([...one.drawn]);
  });

  it('are split without overlap', () => {
    const windows = windowsOf(0, 10);
    const { rest, taken } = splitWindows(windows, 3, 'group a');
    expect([rest.count, taken.count]).toEqual([7, 3]);
    expect(rest.validLabels + taken.validLabels).toBe(windows.validLabels);
    expect(() => splitWindows(windows, 10, 'group a')).toThrow(/group a: 10 windows/);
  });
});

describe('the course of Aioli', () => {
  it('probes at the start of each whole round and trains on its proportions behind', () => {
    const method = mixingMethod('aioli');
    const parameters = { ...method.parameters(3), gamma: 0.6, eta: 1 } as MixingParameters;
    const start = { groups: GROUPS, parameters, seed: 3 };
    const course = createCourse(method, start, { steps: 23, updateEvery: 10, sweeps: 1, probeSteps: 2, priorSteps: 2 });
    const measured: number[] = [];
    const probed: string[] = [];
    for (let step = 0; step <= 23; step++) {
      if (course.measures(step)) {
        measured.push(step);
        course.observe({ step, losses: [5 - step * 0.1, 4 - step * 0.05, 6 - step * 0.2] });
      }
      if (step < 23) probed.push([...course.proportions(step + 1)].map((p) => p.toFixed(1)).join(' '));
    }
    expect(measured).toEqual([0, 2, 4, 6, 8, 12, 14, 16, 18, 22, 23]);
    const probes = probed.slice(2, 8).concat(probed.slice(12, 18));
    expect(probes.filter((text) => text.includes('0.6')).length).toBe(12);
    for (const round of [probes.slice(0, 6), probes.slice(6)]) expect(new Set(round).size).toBe(3);
    expect(probed[0]).toBe('0.3 0.3 0.3');
    expect(course.probeSteps).toBe(12);
    expect(course.rounds.map(({ step }) => step)).toEqual([0, 2, 12, 22, 23]);
    expect(course.rounds.filter(({ update }) => update).length).toBe(2);
  });

  it('refuses an evaluation without a group', () => {
    const method = mixingMethod('stratified');
    const start = { groups: GROUPS, parameters: method.parameters(3) as MixingParameters, seed: 3 };
    const course = createCourse(method, start, { steps: 4, updateEvery: 2, sweeps: 1, probeSteps: 1, priorSteps: 0 });
    expect(() => course.observe({ step: 0, losses: [1, 2] })).toThrow(/behind step 0: 2 losses for 3 groups/);
    expect(() => course.observe({ step: 0, losses: [1, Number.NaN, 2] })).toThrow(/the loss of b is NaN/);
  });
});

describe('the budget', () => {
  it('counts helper runs on top, or inside', () => {
    const settings = training('doremi', 'none').stages;
    const steps = (budget: 'final' | 'total'): readonly number[] =>
      planStages(mixingMethod('doremi'), { ...settings, budget }).map((stage) => stage.steps);
    expect(steps('final')).toEqual([2, 4, 16]);
    expect(steps('total')).toEqual([2, 4, 10]);
    expect(() => planStages(mixingMethod('dml'), { ...settings, budget: 'total', sweepSteps: 4 })).toThrow(
      /dml spends 20 steps .* of a budget of 16/,
    );
  });
});

describe('a student whose gradients are taken by group', () => {
  it('has the same gradient, and the inner products of separate runs', async () => {
    const student = (await openDecoderStudent(openModelFiles(MODEL), {
      precision: 'f64',
      threads: 1,
      batch: 6,
      length: 8,
    })) as Student<GroupBatch>;
    try {
      const draw = (seed: number): GroupBatch =>
        createGroupSource({
          windows: [0, 1, 2].map((j) => windowsOf(j, 5)),
          batchSize: 6,
          accumulate: 1,
          seed,
          proportions: () => Float64Array.of(0.5, 0, 0.5),
        }).batch(0);
      const [batch, validation] = [draw(1), draw(2)];
      const { gradients } = student.parameters;
      const objective = createGroupObjective(3);
      const visit = (of: GroupBatch) => objective.begin(of, { step: 1, epoch: 0 }).visit;
      const gradientOf = async (of: GroupBatch): Promise<Float64Array> => {
        gradients.fill(0);
        await student.accumulate(of, visit(of));
        return Float64Array.from(gradients);
      };
      const norm = (g: Float64Array): number => Math.sqrt(g.reduce((sum, x) => sum + x * x, 0));
      const shortened = (g: Float64Array, tokens: number): Float64Array => {
        const mean = g.map((x) => x / tokens);
        const length = Math.max(1, norm(mean));
        return mean.map((x) => x / length);
      };
      const whole = await gradientOf(batch);
      const target = shortened(await gradientOf(validation), 48);
      const parts = new Map<number, Float64Array>();
      for (const [group, from, to] of groupParts(batch)) {
        parts.set(group, shortened(await gradientOf(partOfBatch(batch, from, to)), 8 * (to - from)));
      }
      const aligned = createAlignedStudent(student, 3, 1);
      gradients.fill(0);
      await aligned.aim(validation, visit(validation));
      await aligned.accumulate(batch, visit(batch));
      const scale = Math.max(...whole.map(Math.abs));
      whole.forEach((entry, e) => {
        expect(Math.abs(gradients[e] - entry)).toBeLessThan(1e-10 * scale);
      });
      const { inner, norms } = aligned.taken();
      for (const [group, g] of parts) {
        expect(inner[group]).toBeCloseTo(
          g.reduce((sum, x, e) => sum + x * target[e], 0),
          10,
        );
        expect(norms[group]).toBeCloseTo(norm(g), 10);
      }
      expect([inner[1], norms[1]]).toEqual([0, 0]);
    } finally {
      await student.close();
    }
  });
});

describe('runs on the training engine', () => {
  it.each(['stratified', 'aioli', 'doremi', 'doge', 'skill-it', 'dml'])(
    '%s trains and writes a model',
    async (method) => {
      const result = await trainMixture(training(method, method), () => undefined);
      expect(existsSync(join(folder, method, 'config.json'))).toBe(true);
      expect(result.proportions.reduce((sum, p) => sum + p, 0)).toBeCloseTo(1, 10);
      const [first, last] = [result.runs.at(-1)?.rounds[0], result.losses];
      last.forEach(({ mean }, i) => {
        expect(mean).toBeLessThan(first?.losses[i] ?? 0);
      });
      expect(result.graph !== null).toBe(method === 'skill-it');
      expect(result.sweep !== null).toBe(method === 'dml');
      expect(result.reference !== null).toBe(method === 'doremi');
      if (method === 'aioli') expect(result.probeSteps).toBe(12);
      const drawn = result.runs.at(-1)?.drawn ?? [];
      expect([...drawn].reduce((a, b) => a + b, 0)).toBe(64);
    },
  );

  it.each([
    ['aioli', 13],
    ['doge', 9],
    ['doremi', 5],
  ])('%s ends with the same bytes when it was broken off at step %i', async (method, at) => {
    const out = `${method}-broken`;
    let steps = 0;
    const breaking = trainMixture(training(method, out), (event) => {
      if (event.kind === 'step' && ++steps === at) throw new Error('broken off');
    });
    await expect(breaking).rejects.toThrow('broken off');
    const resumed = await trainMixture(training(method, out), () => undefined);
    const whole = await trainMixture(training(method, `${method}-whole`), () => undefined);
    expect(weights(out).equals(weights(`${method}-whole`))).toBe(true);
    expect([...resumed.proportions]).toEqual([...whole.proportions]);
    expect(resumed.runs.map(({ rounds }) => rounds.length)).toEqual(whole.runs.map(({ rounds }) => rounds.length));
  });
});
