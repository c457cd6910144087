import { join } from 'node:path';
import { Tensor } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { decodeOnnxModel, encodeOnnxModel } from '../../src/formats/onnx.js';
import type { ModelProto } from '../../src/formats/onnx_pb.js';
import { composeGraph } from '../../src/models/graph.js';
import { type ModelFiles, openModelFiles } from '../../src/models/model-files.js';
import { createSession, floatsOf, runSession } from '../../src/models/sessions.js';
import { createRandom } from '../../src/random.js';
import { createEntropyAttention } from '../../src/training/attention-entropy.js';
import { type DecoderStudentOptions, openDecoderStudent } from '../../src/training/decoder-student.js';
import { composeGradientGraph, onnxGradientGraph } from '../../src/training/gradient-graph.js';
import { floatTensor } from '../../src/training/graph-segment.js';
import { createAdapters } from '../../src/training/lora.js';
import { parseLosses } from '../../src/training/losses/loss-text.js';
import { createObjective } from '../../src/training/objective.js';
import { openOnnxStudent } from '../../src/training/onnx-student.js';
import { IGNORED, type Student, type TokenBatch } from '../../src/training/types.js';

const MODELS = 'fixtures/architectures';
const LENGTH = 36;

/** Windows of random tokens, every fifth label ignored. */
function batchOf(batch: number, length: number, vocabulary: number): TokenBatch {
  const random = createRandom(3);
  const count = batch * length;
  const tokens = Int32Array.from({ length: count }, () => Math.floor(random.uniform() * vocabulary));
  const labels = tokens.map((_, i) => (i % 5 === 0 || i % length === length - 1 ? IGNORED : tokens[i + 1]));
  return { tokens, labels, batch, length, windows: new Int32Array(batch) };
}

function teacherOf(rows: number, classes: number): Float64Array {
  const random = createRandom(5);
  return Float64Array.from({ length: rows * classes }, () => 2 * random.normal());
}

/** Mean loss and its gradient, as the trainer has them. */
async function trainersOwn(student: Student<TokenBatch>, batch: TokenBatch, loss: string, teacher: Float64Array) {
  const { classes } = student;
  const terms = parseLosses(loss).map((term) => ({ loss: term.loss, weight: term.weight }));
  const objective = createObjective<TokenBatch>(terms, {
    labels: ({ labels }) => labels,
    teacher: (_, { firstRow, rows }) => ({
      kind: 'dense',
      logits: teacher.subarray(firstRow * classes, (firstRow + rows) * classes),
    }),
  });
  const { visit, totals } = objective.begin(batch, { step: 1, epoch: 0 });
  student.parameters.gradients.fill(0);
  const counted = batch.labels.filter((label) => label !== IGNORED).length;
  const own = await student.accumulate(batch, visit, { wholeBatch: objective.wholeBatch, ownTermScale: counted });
  const { sum, validRows } = totals();
  const penalty = own.reduce((total, { value }) => total + value, 0);
  return { loss: sum / validRows + penalty, gradients: student.parameters.gradients.map((value) => value / validRows) };
}

const options = { threads: 1, device: 'cpu', arena: false, precision: 'f64' } as const;

/** Outputs of a model in a session of its own; weights that nothing feeds have their defaults. */
async function outputsOf(model: ModelProto, feeds: Readonly<Record<string, Tensor>>): Promise<Record<string, Tensor>> {
  const session = await createSession(encodeOnnxModel(model), options);
  try {
    const given = Object.fromEntries(session.inputNames.flatMap((name) => (feeds[name] ? [[name, feeds[name]]] : [])));
    return (await runSession(
      session,
      given,
      Object.fromEntries(session.outputNames.map((name) => [name, null])),
    )) as Record<string, Tensor>;
  } finally {
    await session.release();
  }
}

/** 1 up to the last label of a window. */
function countedQueries(labels: Int32Array, batch: number, length: number): Float64Array {
  const counted = new Float64Array(batch * length);
  for (let b = 0; b < batch; b++) {
    const last = labels.subarray(b * length, (b + 1) * length).findLastIndex((label) => label !== IGNORED);
    counted.fill(1, b * length, b * length + last + 1);
  }
  return counted;
}

function feedsOf({ tokens, labels, batch, length }: TokenBatch, teacher: Float64Array): Record<string, Tensor> {
  const integers = (values: Int32Array): Tensor =>
    new Tensor('int64', BigInt64Array.from(values, BigInt), [batch, length]);
  return {
    input_ids: integers(tokens),
    labels: integers(labels),
    teacher: floatTensor(teacher, [batch, length, teacher.length / tokens.length]),
    counted: floatTensor(countedQueries(labels, batch, length), [batch, 1, length]),
  };
}

/** Largest error of a gradient over the largest entry of its tensor. */
function worstError(student: Student<TokenBatch>, own: ArrayLike<number>, outputs: Record<string, Tensor>) {
  let worst = { error: 0, where: '' };
  for (const { name, offset, length } of student.parameters.parameters) {
    const found = floatsOf(outputs[`grad.${name}`]);
    let scale = 0;
    let error = 0;
    for (let i = 0; i < length; i++) {
      scale = Math.max(scale, Math.abs(own[offset + i]));
      error = Math.max(error, Math.abs(own[offset + i] - found[i]));
    }
    const relative = error / Math.max(scale, 1e-12);
    if (!(relative <= worst.error)) worst = { error: relative, where: name };
  }
  return worst;
}

/** Holds the graph of a decoder to the trainer on a batch of two windows. */
async function compare(files: ModelFiles, loss: string, options: Partial<DecoderStudentOptions> = {}, length = LENGTH) {
  const student = await openDecoderStudent(files, {
    precision: 'f64',
    threads: 1,
    batch: 2,
    length: LENGTH,
    ...options,
  });
  const batch = batchOf(2, length, student.classes);
  const teacher = teacherOf(batch.tokens.length, student.classes);
  const own = await trainersOwn(student, batch, loss, teacher);
  const wanted = student.parameters.parameters.map((parameter) => parameter.name);
  const graph = await composeGradientGraph({
    ...student.wholeGraph(),
    wanted,
    precision: 'f64',
    classes: student.classes,
    terms: parseLosses(loss),
  });
  expect(graph).toMatchObject({ loss: 'inside', gradients: wanted.length });
  const outputs = await outputsOf(graph.model, feedsOf(batch, teacher));
  expect(floatsOf(outputs.loss)[0]).toBeCloseTo(own.loss, 9);
  const { error, where } = worstError(student, own.gradients, outputs);
  expect(error, where).toBeLessThan(1e-8);
  expect(floatsOf(outputs.grad_norm)[0]).toBeCloseTo(Math.hypot(...own.gradients), 8);
  await student.close();
  files.store.close();
  return graph;
}

describe('the gradient graph of a decoder has the loss and the gradients of the trainer', () => {
  // Softcaps and branch norms, patterns of windows, learned positions, parallel branches, stacks and maps of experts.
  it.each([
    ...['gemma2', 'gemma3-pattern', 'gpt2', 'gpt-neox-parallel', 'mixtral-fused-rows', 'phi3-longrope'],
    ...['qwen2-moe-merged-remap', 'qwen3-vl-moe', 'smollm3-window'],
  ])('%s', async (name) => {
    const { inputs, outputs } = await compare(openModelFiles(join(MODELS, name)), '0.5*ce + 0.25*pld(tau=2)');
    expect(inputs).toEqual(['input_ids', 'labels', 'teacher']);
    expect(outputs).toEqual(['logits', 'loss', 'grad_norm']);
  });

  it('for adapters, with the weights beside them frozen, and for shorter windows', async () => {
    const files = openModelFiles(join(MODELS, 'llama-biases'));
    const adapters = createAdapters(files, { rank: 2, alpha: 4, precision: 'f64' }, createRandom(4));
    for (const { b } of adapters) b.values.fill(0.05);
    const { inputs } = await compare(files, 'kd(T=2)', { adapters, train: ['*norm*'] }, 11);
    expect(inputs).toEqual(['input_ids', 'labels', 'teacher']);
  });

  it('for learnable temperatures and thresholds of attention', async () => {
    const files = openModelFiles(join(MODELS, 'qwen2'));
    const { layers } = files.description;
    const heads = layers[0].attention.heads;
    const each = layers.length * heads;
    const attention = createEntropyAttention(
      files.description,
      {
        temperatures: { start: new Float64Array(each * LENGTH).fill(1.2), positions: LENGTH },
        regulariser: {
          ...{ reduction: 'code', gamma: 0.05, lambda: 0.3, contextSize: LENGTH, learn: true },
          thresholds: new Float64Array(each).fill(0.4),
        },
      },
      LENGTH,
    );
    const { inputs, outputs } = await compare(files, 'ce', { attention });
    expect(inputs).toEqual(['input_ids', 'counted', 'labels']);
    expect(outputs).toEqual(['logits', 'penalty', 'loss', 'grad_norm']);
  });
});

/** Logits of a table of embeddings. */
function bigram(): ModelProto {
  const g = composeGraph('bigram', 'f64');
  const random = createRandom(6);
  const table = g.floats(
    'table',
    Float64Array.from({ length: 11 * 4 }, () => random.normal()),
    [11, 4],
  );
  const head = g.floats(
    'head',
    Float64Array.from({ length: 4 * 11 }, () => random.normal()),
    [4, 11],
  );
  const rows = g.node('Gather', [table, g.input('input_ids', 'i64', ['batch', 'length'])]);
  g.publish(g.node('MatMul', [rows, head]), 'logits', ['batch', 'length', 11]);
  return decodeOnnxModel(g.encode(), 'bigram');
}

describe('the gradient graph of an ONNX student', () => {
  it('computes the loss where it can, and takes its gradient elsewhere', async () => {
    const student = await openOnnxStudent<TokenBatch>(bigram(), { precision: 'f64', threads: 1 });
    const batch = batchOf(3, 4, student.classes);
    const teacher = teacherOf(12, student.classes);
    const own = await trainersOwn(student, batch, 'ce + kd', teacher);
    const inside = await onnxGradientGraph(student, { terms: parseLosses('ce + kd') });
    const outputs = await outputsOf(inside.model, feedsOf(batch, teacher));
    expect(floatsOf(outputs.loss)[0]).toBeCloseTo(own.loss, 10);
    expect(worstError(student, own.gradients, outputs).error).toBeLessThan(1e-9);

    for (const loss of ['dist', 'ce(warmup=2)']) {
      const outside = await onnxGradientGraph(student, { terms: parseLosses(loss) });
      expect(outside).toMatchObject({ loss: 'outside', inputs: ['input_ids', 'grad.logits'], gradients: 2 });
    }
    await student.close();
  });
});
