import { join } from 'node:path';
import { Tensor } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { encodeOnnxModel } from '../../src/formats/onnx.js';
import type { ModelProto } from '../../src/formats/onnx_pb.js';
import { openModelFiles } from '../../src/models/model-files.js';
import { createSession, floatsOf, runSession } from '../../src/models/sessions.js';
import { createRandom } from '../../src/random.js';
import { openDecoderStudent } from '../../src/training/decoder-student.js';
import { composeGradientGraph } from '../../src/training/gradient-graph.js';
import { floatTensor } from '../../src/training/graph-segment.js';
import { parseLosses } from '../../src/training/losses/loss-text.js';
import { createObjective } from '../../src/training/objective.js';
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
  await student.accumulate(batch, visit, { wholeBatch: objective.wholeBatch });
  const { sum, validRows } = totals();
  return { loss: sum / validRows, gradients: student.parameters.gradients.map((value) => value / validRows) };
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

function feedsOf({ tokens, labels, batch, length }: TokenBatch, teacher: Float64Array): Record<string, Tensor> {
  const integers = (values: Int32Array): Tensor =>
    new Tensor('int64', BigInt64Array.from(values, BigInt), [batch, length]);
  return {
    input_ids: integers(tokens),
    labels: integers(labels),
    teacher: floatTensor(teacher, [batch, length, teacher.length / tokens.length]),
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

describe('the gradient graph of a decoder', () => {
  // Softcaps and branch norms, patterns of windows, learned positions, parallel branches, stacks and maps of experts.
  const names = [
    ...['gemma2', 'gemma3-pattern', 'gpt2', 'gpt-neox-parallel', 'mixtral-fused-rows', 'phi3-longrope'],
    ...['qwen2-moe-merged-remap', 'qwen3-vl-moe', 'smollm3-window'],
  ];

  it.each(names)('%s: loss and gradients are those of the trainer', async (name) => {
    const files = openModelFiles(join(MODELS, name));
    const student = await openDecoderStudent(files, { precision: 'f64', threads: 1, batch: 2, length: LENGTH });
    const batch = batchOf(2, LENGTH, student.classes);
    const teacher = teacherOf(batch.tokens.length, student.classes);
    const loss = '0.5*ce + 0.25*pld(tau=2)';
    const own = await trainersOwn(student, batch, loss, teacher);
    const whole = student.wholeGraph();
    const graph = await composeGradientGraph({
      ...whole,
      wanted: student.parameters.parameters.map((parameter) => parameter.name),
      precision: 'f64',
      classes: student.classes,
      terms: parseLosses(loss),
    });
    expect(graph).toMatchObject({
      loss: 'inside',
      inputs: ['input_ids', 'labels', 'teacher'],
      outputs: ['logits', 'loss', 'grad_norm'],
    });
    const outputs = await outputsOf(graph.model, feedsOf(batch, teacher));
    expect(floatsOf(outputs.loss)[0]).toBeCloseTo(own.loss, 9);
    const { error, where } = worstError(student, own.gradients, outputs);
    expect(error, where).toBeLessThan(1e-8);
    expect(floatsOf(outputs.grad_norm)[0]).toBeCloseTo(Math.hypot(...own.gradients), 8);
    await student.close();
    files.store.close();
  });
});
