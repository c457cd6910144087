import { Tensor } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { decodeOnnxModel } from '../../../src/formats/onnx.js';
import { LIST_WEIGHTS, type PlackettLuceRequest } from '../../../src/kernels/plackett-luce.js';
import { topLogProbs } from '../../../src/kernels/top-log-probs.js';
import { floatsOf } from '../../../src/models/sessions.js';
import { createRandom } from '../../../src/random.js';
import { differentiate } from '../../../src/training/autodiff/differentiate.js';
import { createLoss } from '../../../src/training/losses/index.js';
import { plackettLuceHessian, plackettLuceHessianVector } from '../../../src/training/losses/pld-curvature.js';
import { pldGraph } from '../../../src/training/losses/pld-graph.js';
import { IGNORED, type LossInput } from '../../../src/training/types.js';
import { runDifferentiated } from '../autodiff/graph-gradients.js';

function inputOf(
  rows: number,
  classes: number,
  seed: number,
  spread = 2,
): Required<Pick<LossInput, 'teacher' | 'labels'>> & LossInput {
  const random = createRandom(seed);
  const draw = (): Float64Array => Float64Array.from({ length: rows * classes }, () => spread * random.normal());
  const labels = Int32Array.from({ length: rows }, () => Math.floor(random.uniform() * classes));
  return { rows, classes, student: draw(), teacher: { kind: 'dense', logits: draw() }, labels };
}

const lossOf = (text: string, parameters: Record<string, number | string>, input: LossInput): number =>
  createLoss(text, parameters).evaluate(input).sum;

describe('Plackett-Luce losses', () => {
  it('are the likelihood of a ranking: all weights 1, by sums of exponentials', () => {
    const input = inputOf(1, 6, 1);
    if (input.teacher.kind !== 'dense') throw new Error('logits are expected');
    const order = [0, 1, 2, 3, 4, 5].sort((a, b) =>
      input.teacher.kind === 'dense' ? input.teacher.logits[b] - input.teacher.logits[a] : 0,
    );
    let likelihood = 1;
    order.forEach((id, k) => {
      const rest = order.slice(k).reduce((sum, other) => sum + Math.exp(input.student[other]), 0);
      likelihood *= Math.exp(input.student[id]) / rest;
    });
    expect(lossOf('listmle', {}, input)).toBeCloseTo(-Math.log(likelihood), 12);
    expect(lossOf('listmle', { over: 'positions' }, input)).toBeCloseTo(-Math.log(likelihood) / 6, 12);
  });

  it('reduce to cross-entropy for the label alone, and for two classes up to the first weight', () => {
    const input = inputOf(5, 7, 2);
    expect(lossOf('pld', { weights: 'label' }, input)).toBeCloseTo(lossOf('ce', {}, input), 12);
    const pair = inputOf(1, 2, 3);
    const { sum, diagnostics } = createLoss('pld').evaluate(pair);
    expect(sum).toBeCloseTo((diagnostics?.w1 ?? 0) * lossOf('ce', {}, pair), 12);
  });

  it('of a list lie below that of all classes, by no more than the tail can hold', () => {
    const input = inputOf(1, 40, 4);
    const full = lossOf('pld', {}, input);
    let before = 0;
    for (const K of [1, 4, 16, 39, 40]) {
      const partial = createLoss('pld-partial', { K }).evaluate(input);
      const gap = full - partial.sum;
      const tail = partial.diagnostics?.tail_weight ?? 0;
      const spread = Math.max(...input.student) - Math.min(...input.student);
      expect(gap).toBeGreaterThanOrEqual(-1e-12);
      expect(gap).toBeLessThanOrEqual(tail * (Math.log(40) + spread) + 1e-12);
      expect(partial.sum).toBeGreaterThanOrEqual(before - 1e-12);
      before = partial.sum;
    }
    expect(before).toBeCloseTo(full, 12);
    expect(lossOf('pld-partial', { form: 'exact' }, input)).toBe(full);
  });

  it('take stored lists for logits where all weights are known', () => {
    const input = inputOf(6, 50, 5);
    if (input.teacher.kind !== 'dense') throw new Error('logits are expected');
    // Labels that the lists hold.
    const stored = topLogProbs(input.teacher.logits, 6, 50, 12);
    const labels = Int32Array.from({ length: 6 }, (_, r) => stored.ids[r * 12 + r]);
    for (const K of [12, 8]) {
      const dense = createLoss('pld-partial', { K }).evaluate({ ...input, labels });
      const top = createLoss('pld-partial', { K }).evaluate({ ...input, labels, teacher: { kind: 'top', ...stored } });
      expect(top.sum).toBeCloseTo(dense.sum, 6);
      expect(top.diagnostics?.tail_weight).toBeCloseTo(dense.diagnostics?.tail_weight ?? 0, 6);
    }
  });

  it('weigh a label that a stored list lacks as asked', () => {
    const list = {
      kind: 'top' as const,
      k: 2,
      ids: Int32Array.of(3, 1),
      logProbs: Float64Array.of(Math.log(0.6), Math.log(0.2)),
      leftover: Float64Array.of(0.2),
    };
    const input = { rows: 1, classes: 6, student: new Float64Array(6), teacher: list, labels: Int32Array.of(0) };
    const first = (label: string, tau = 1) => createLoss('pld-partial', { label, tau }).evaluate(input).diagnostics?.w1;
    expect(first('tail-share')).toBeCloseTo(0.05, 12);
    expect(first('zero')).toBe(0);
    const softened = [0.6, 0.2, 0.2].map((p) => Math.sqrt(p));
    expect(first('tail-share', 2)).toBeCloseTo(softened[2] / (softened[0] + softened[1] + softened[2]) / 4, 12);
    expect(() => first('error')).toThrow("row 0: the teacher's list does not hold label 0");
  });

  it('say what a silenced label means', () => {
    const input = {
      rows: 2,
      classes: 3,
      student: new Float64Array(6),
      teacher: { kind: 'dense' as const, logits: Float64Array.of(9, 0, 0, 1, 0, 0) },
      labels: Int32Array.of(2, 0),
    };
    const { diagnostics } = createLoss('pld').evaluate(input);
    expect(diagnostics?.w1_silenced).toBe(1);
    expect(diagnostics?.label_rank).toBe(2);
  });

  it('count no ignored row, and are 0 where there is no other', () => {
    const input = inputOf(3, 5, 7);
    const labels = Int32Array.of(1, IGNORED, 2);
    const gradient = new Float64Array(15);
    const { validRows, perRow } = createLoss('pld').evaluate({ ...input, labels }, { logits: gradient });
    expect([validRows, perRow?.[1], ...gradient.subarray(5, 10)]).toEqual([2, 0, 0, 0, 0, 0, 0]);
    const none = createLoss('pld').evaluate({ ...input, labels: new Int32Array(3).fill(IGNORED) });
    expect([none.sum, none.validRows]).toEqual([0, 0]);
  });

  it.each([
    ['pld', { tau: 0 }, 'tau must be'],
    ['pld', { weights: 'teecher' }, 'did you mean "teacher"'],
    ['pld-partial', { K: 0 }, 'K must be'],
    ['pld-partial', { K: 1.5 }, 'whole number'],
    ['listmle', { tau: 2 }, 'no parameter "tau"'],
  ])('refuse %s(%o)', (name, parameters, message) => {
    expect(() => createLoss(name, parameters)).toThrow(message);
  });

  it('need logits of all classes where they say so', () => {
    const input = inputOf(2, 5, 8);
    if (input.teacher.kind !== 'dense') throw new Error('logits are expected');
    const teacher = { kind: 'top' as const, ...topLogProbs(input.teacher.logits, 2, 5, 3) };
    expect(() => lossOf('pld', {}, { ...input, teacher })).toThrow('use pld-partial with stored lists');
    expect(() => lossOf('pld', {}, { ...input, teacher: undefined })).toThrow('needs a teacher');
  });
});

describe('Plackett-Luce curvature', () => {
  const requestOf = (input: LossInput, student = input.student): PlackettLuceRequest => ({
    rows: 1,
    classes: input.classes,
    student,
    teacher: { logits: input.teacher?.kind === 'dense' ? input.teacher.logits : new Float64Array(0) },
    labels: input.labels,
    labelFirst: true,
    weights: 'teacher',
    temperature: 1,
    listed: input.classes,
    tail: 'partial',
    missingLabel: 'error',
  });

  it.each([2, 250])('is the difference of gradients, logits of spread %i', (spread) => {
    const input = inputOf(1, 9, 9, spread);
    const random = createRandom(10);
    const vector = Float64Array.from({ length: 9 }, () => random.normal());
    const gradientAt = (h: number): Float64Array => {
      const gradient = new Float64Array(9);
      createLoss('pld').evaluate(
        { ...input, student: input.student.map((s, j) => s + h * vector[j]) },
        { logits: gradient },
      );
      return gradient;
    };
    const [up, down] = [gradientAt(1e-5), gradientAt(-1e-5)];
    const product = plackettLuceHessianVector(requestOf(input), 0, vector);
    for (let j = 0; j < 9; j++) expect(product[j]).toBeCloseTo((up[j] - down[j]) / 2e-5, 8);
  });

  it('is symmetric and does not see a constant', () => {
    const input = inputOf(1, 8, 11);
    const hessian = plackettLuceHessian(requestOf(input), 0);
    for (let i = 0; i < 8; i++) {
      let sum = 0;
      for (let j = 0; j < 8; j++) {
        sum += hessian[i * 8 + j];
        expect(hessian[i * 8 + j]).toBeCloseTo(hessian[j * 8 + i], 14);
      }
      expect(sum).toBeCloseTo(0, 14);
    }
  });
});

describe('Plackett-Luce in a graph', () => {
  const cases = [
    ...LIST_WEIGHTS.filter((weights) => weights !== 'position').map((weights) => ({
      weights,
      tau: 1,
      K: 0,
      spread: 2,
    })),
    { weights: 'teacher' as const, tau: 3, K: 0, spread: 100 },
    { weights: 'teacher' as const, tau: 1, K: 4, spread: 2 },
    { weights: 'uniform' as const, tau: 1, K: 1, spread: 2 },
    { weights: 'teacher' as const, tau: 2, K: 12, spread: 100 },
  ];
  it.each(cases)('has the value and the gradient of the kernel: %o', async ({ weights, tau, K, spread }) => {
    const [rows, classes] = [7, 13];
    const input = inputOf(rows, classes, 20 + K, spread);
    if (input.teacher.kind !== 'dense') throw new Error('logits are expected');
    input.labels[2] = IGNORED;
    const gradient = new Float64Array(rows * classes);
    const [name, list] = K === 0 ? ['pld', {}] : ['pld-partial', { K }];
    const { perRow } = createLoss(name, { ...list, tau, weights }).evaluate(input, { logits: gradient });
    const model = decodeOnnxModel(
      pldGraph(classes, { weights, temperature: tau, ...(K > 0 && { listed: K }) }, 'f64'),
      'pld',
    );
    const feeds = {
      logits: new Tensor('float64', Float64Array.from(input.student), [rows, classes]),
      teacher: new Tensor('float64', Float64Array.from(input.teacher.logits), [rows, classes]),
      labels: new Tensor('int64', BigInt64Array.from(input.labels, BigInt), [rows]),
    };
    const made = await differentiate({ model, wanted: ['logits'], seeds: ['loss'], precision: 'f64' }, feeds);
    const ones = (output: Tensor): Tensor => new Tensor('float64', new Float64Array(rows).fill(1), output.dims);
    const { outputs, gradients } = await runDifferentiated(made, feeds, ones, ['loss']);
    const own = floatsOf(outputs.loss);
    const ownGradient = floatsOf(gradients['grad.logits']);
    for (let r = 0; r < rows; r++) expect(own[r]).toBeCloseTo(perRow?.[r] ?? Number.NaN, 9);
    for (let i = 0; i < gradient.length; i++) expect(ownGradient[i]).toBeCloseTo(gradient[i], 9);
  });
});
