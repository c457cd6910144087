import { afterEach, describe, expect, it } from 'vitest';
import { configureKernels, nativeKernels } from '../../src/kernels/native.js';
import {
  LIST_FIGURES,
  LIST_WEIGHTS,
  type PlackettLuceRequest,
  type PlackettLuceRows,
  plackettLuceRows,
} from '../../src/kernels/plackett-luce.js';
import { topLogProbs } from '../../src/kernels/top-log-probs.js';
import { createRandom } from '../../src/random.js';

const LOWEST = Number.NEGATIVE_INFINITY;

afterEach(() => {
  configureKernels({ native: true });
  nativeKernels()?.limitSimd(2);
});

interface Shape {
  readonly rows: number;
  readonly classes: number;
  readonly seed: number;
  /** Standard deviation of the logits. */
  readonly spread?: number;
  /** Logits are rounded to so many parts of 1, so that there are ties. */
  readonly grid?: number;
}

function requestOf({ rows, classes, seed, spread = 3, grid }: Shape, changes: Partial<PlackettLuceRequest> = {}) {
  const random = createRandom(seed);
  const draw = (): number => {
    const x = spread * random.normal();
    return grid === undefined ? x : Math.round(x * grid) / grid;
  };
  const request: PlackettLuceRequest = {
    rows,
    classes,
    student: Float32Array.from({ length: rows * classes }, draw),
    teacher: { logits: Float32Array.from({ length: rows * classes }, draw) },
    labels: Int32Array.from({ length: rows }, (_, r) => (r % 5 === 3 ? -100 : Math.floor(random.uniform() * classes))),
    labelFirst: true,
    weights: 'teacher',
    temperature: 1,
    listed: classes,
    tail: 'partial',
    missingLabel: 'tail-share',
    ranks: 3,
    ...changes,
  };
  return request;
}

interface Answer {
  readonly rows: PlackettLuceRows;
  readonly gradient: Float32Array;
}

function answer(request: PlackettLuceRequest, native: boolean, threads = 2): Answer {
  configureKernels({ native });
  const gradient = Float32Array.from(request.student, (_, i) => (i % 7) / 8);
  return { rows: plackettLuceRows({ ...request, gradient, scale: 0.5, threads }), gradient };
}

function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void {
  expect(actual.length).toBe(expected.length);
  for (let i = 0; i < actual.length; i++) {
    const apart = Math.abs(actual[i] - expected[i]);
    if (!(apart <= tolerance * (1 + Math.abs(expected[i])) || Object.is(actual[i], expected[i]))) {
      throw new Error(`entry ${i}: ${actual[i]} and ${expected[i]}`);
    }
  }
}

function expectSame(request: PlackettLuceRequest, tolerance = 3e-7): void {
  const [fast, plain] = [answer(request, true), answer(request, false)];
  for (const name of LIST_FIGURES) expectClose(fast.rows.figures[name], plain.rows.figures[name], tolerance);
  expectClose(fast.rows.contributions, plain.rows.contributions, tolerance);
  expectClose(fast.gradient, plain.gradient, tolerance);
}

const CASES: readonly (readonly [string, Shape, Partial<PlackettLuceRequest>])[] = [
  ['all classes', { rows: 11, classes: 700, seed: 1 }, {}],
  ['a class alone', { rows: 3, classes: 1, seed: 2 }, {}],
  ['blocks that are filled', { rows: 2, classes: 1024, seed: 3 }, {}],
  ['ties', { rows: 6, classes: 300, seed: 4, grid: 1 }, { temperature: 3 }],
  ['equal logits', { rows: 2, classes: 67, seed: 5, spread: 0 }, {}],
  ['no rule for the label', { rows: 6, classes: 90, seed: 6 }, { labelFirst: false, weights: 'uniform' }],
  ['the label alone', { rows: 6, classes: 90, seed: 7 }, { weights: 'label' }],
  ['weights of positions', { rows: 6, classes: 30, seed: 8 }, { weights: 'position' }],
  ['logits far apart', { rows: 6, classes: 130, seed: 9, spread: 400 }, {}],
  ['a list with its tail', { rows: 11, classes: 700, seed: 10 }, { listed: 20 }],
  ['a list of one', { rows: 6, classes: 70, seed: 11 }, { listed: 1 }],
  ['a list with ties', { rows: 11, classes: 700, seed: 12, grid: 1 }, { listed: 20, temperature: 0.5 }],
  ['a list of more than a row holds', { rows: 6, classes: 70, seed: 13 }, { listed: 500 }],
  ['a list without its tail', { rows: 11, classes: 5000, seed: 14 }, { listed: 64, tail: 'truncated' }],
  ['a list far apart', { rows: 6, classes: 130, seed: 15, spread: 400 }, { listed: 10 }],
  ['weights of positions of a list', { rows: 6, classes: 300, seed: 16 }, { listed: 10, weights: 'position' }],
];

describe('Plackett-Luce rows', () => {
  it.each(CASES)('native and reference agree on %s', (_, shape, changes) => {
    expectSame(requestOf(shape, changes));
  });

  it.each(LIST_WEIGHTS)('native and reference agree on stored lists, weights %s', (weights) => {
    const base = requestOf({ rows: 9, classes: 400, seed: 20 });
    if (!('logits' in base.teacher)) throw new Error('logits are expected');
    const stored = topLogProbs(base.teacher.logits, 9, 400, 12);
    stored.ids.fill(-1, 12 * 4 + 5, 12 * 5);
    for (const [temperature, listed, missingLabel] of [
      [1, 12, 'tail-share'],
      [2, 8, 'zero'],
      [0.7, 400, 'tail-share'],
    ] as const) {
      // Weights of positions reach 2^13, and what is left of them is their difference.
      const tolerance = weights === 'position' ? 3e-6 : 3e-7;
      expectSame({ ...base, teacher: stored, weights, temperature, listed, missingLabel }, tolerance);
    }
  });

  it.each([0, 1])('agree at instruction set %i', (level) => {
    nativeKernels()?.limitSimd(level);
    for (const [, shape, changes] of CASES) expectSame(requestOf(shape, changes), 1e-6);
  });

  it('give the same bits whatever the number of threads, and in place', () => {
    for (const listed of [3000, 40]) {
      const request = requestOf({ rows: 12, classes: 3000, seed: 30 }, { listed });
      expect(answer(request, true, 1)).toEqual(answer(request, true, 2));
      const gradient = new Float32Array(request.student.length);
      plackettLuceRows({ ...request, gradient, overwrite: true });
      const student = Float32Array.from(request.student);
      plackettLuceRows({ ...request, student, gradient: student, overwrite: true });
      expect(student).toEqual(gradient);
    }
  });

  it('take masked classes that have no weight, and refuse those that have one', () => {
    for (const listed of [4, 2]) {
      const masked: PlackettLuceRequest = {
        ...requestOf({ rows: 1, classes: 4, seed: 1 }),
        student: Float32Array.of(1, LOWEST, 2, LOWEST),
        teacher: { logits: Float32Array.of(3, LOWEST, 1, LOWEST) },
        labels: Int32Array.of(2),
        listed,
      };
      expectSame(masked);
      const weighed = { ...masked, teacher: { logits: Float32Array.of(3, 2, 1, LOWEST) } };
      for (const native of [true, false]) {
        expect(() => answer(weighed, native)).toThrow(/class 1 has teacher weight 0\.2\d+ but student logit -Infinity/);
      }
    }
  });

  it('name what is wrong, and where', () => {
    const good = requestOf({ rows: 3, classes: 5, seed: 40 }, { firstRow: 100, labels: Int32Array.of(0, 1, 2) });
    const spoilt = (value: number): Float32Array => {
      const logits = Float32Array.from(good.student);
      logits[5 + 2] = value;
      return logits;
    };
    for (const native of [true, false]) {
      const run = (changes: Partial<PlackettLuceRequest>) => () => answer({ ...good, ...changes }, native);
      expect(run({ student: spoilt(Number.NaN) })).toThrow('student logits: row 101, column 2 is NaN');
      expect(run({ teacher: { logits: spoilt(Infinity) } })).toThrow('teacher logits: row 101, column 2 is Infinity');
      expect(run({ teacher: { logits: new Float32Array(15).fill(LOWEST) } })).toThrow('row 100 has no finite logit');
      expect(run({ labels: Int32Array.of(0, 1, 5) })).toThrow('row 102: label 5 is outside [0, 5)');
      expect(run({ labels: Int32Array.of(0, -1, 1) })).toThrow('row 101: label -1');
      expect(run({ temperature: 0 })).toThrow('must be above 0');
      expect(run({ teacher: { logits: new Float32Array(18) } })).toThrow('6 classes and the student');
      const list = {
        k: 1,
        ids: Int32Array.of(1, 7, 2),
        logProbs: Float32Array.of(0, 0, 0),
        leftover: new Float32Array(3),
      };
      expect(run({ teacher: list })).toThrow('row 101 holds class 7, but the student has 5 classes');
      const known = { ...list, ids: Int32Array.of(1, 1, 2) };
      expect(run({ teacher: known, missingLabel: 'error' })).toThrow(
        "row 100: the teacher's list does not hold label 0",
      );
    }
    const many = requestOf({ rows: 1, classes: 2000, seed: 41 }, { weights: 'position' });
    expect(() => plackettLuceRows(many)).toThrow('more than 1024 classes');
  });

  it('give nothing for no rows and for ignored ones', () => {
    const none = requestOf({ rows: 0, classes: 5, seed: 50 });
    expect(plackettLuceRows(none).validRows).toBe(0);
    const ignored = requestOf({ rows: 2, classes: 5, seed: 51 }, { labels: Int32Array.of(-100, -100) });
    const { rows, gradient } = answer(ignored, true);
    expect([rows.validRows, ...rows.figures.loss]).toEqual([0, 0, 0]);
    expect(gradient).toEqual(Float32Array.from(ignored.student, (_, i) => (i % 7) / 8));
  });
});

describe('likeliest classes', () => {
  it.each([
    [9, 5000, 64, 1],
    [3, 40, 40, 2],
    [5, 3000, 1, 0.5],
  ])('native and reference agree on %i rows of %i, k = %i', (rows, classes, k, temperature) => {
    const { student } = requestOf({ rows, classes, seed: classes, grid: 8 });
    student.fill(LOWEST, 0, classes - 20);
    const both = [true, false].map((native) => {
      configureKernels({ native });
      return topLogProbs(student, rows, classes, k, { temperature });
    });
    expect(both[0].ids).toEqual(both[1].ids);
    expectClose(both[0].logProbs, both[1].logProbs, 2e-7);
    expectClose(both[0].leftover, both[1].leftover, 2e-7);
  });

  it('refuse rows that are no logits', () => {
    for (const native of [true, false]) {
      configureKernels({ native });
      expect(() => topLogProbs(Float32Array.of(0, 1, 2, Number.NaN), 2, 2, 1, { firstRow: 8 })).toThrow(
        'logits: row 9, column 1 is NaN',
      );
      expect(() => topLogProbs(Float32Array.of(LOWEST, LOWEST), 1, 2, 1)).toThrow('row 0 has no finite logit');
    }
  });
});
