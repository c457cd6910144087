import { describe, expect, it } from 'vitest';
import { createEngine } from '../../src/models/engine.js';
import { openModelFiles } from '../../src/models/model-files.js';
import { createRandom } from '../../src/random.js';
import type { AttentionExtension } from '../../src/training/attention-composition.js';
import { createEntropyAttention } from '../../src/training/attention-entropy.js';
import { type DecoderStudentOptions, openDecoderStudent } from '../../src/training/decoder-student.js';
import type { LowRankAdapter } from '../../src/training/decoder-weights.js';
import type { LogitsVisitor, OwnTerm, TokenBatch } from '../../src/training/types.js';

const model = (name: string): ReturnType<typeof openModelFiles> => openModelFiles(`fixtures/architectures/${name}`);
const OPTIONS: DecoderStudentOptions = { precision: 'f64', threads: 1, batch: 2, length: 6 };

function tokensOf(batch = 2, length = 6): TokenBatch {
  const random = createRandom(5);
  const tokens = Int32Array.from({ length: batch * length }, () => random.integer(67));
  return { tokens, labels: tokens, batch, length, windows: new Int32Array(batch) };
}

/** A smooth function of all logits with fixed random weights, so that every gradient is asked for. */
function wavy(rows: number, classes: number): { readonly visit: LogitsVisitor; take(): number } {
  const random = createRandom(11);
  const weights = Float64Array.from({ length: rows * classes }, () => random.normal());
  let sum = 0;
  return {
    take() {
      const total = sum;
      sum = 0;
      return total;
    },
    visit({ firstRow, rows: count, logits, gradient }) {
      for (let i = 0; i < count * classes; i++) {
        const weight = weights[firstRow * classes + i];
        sum += weight * Math.sin(logits[i]);
        if (gradient) gradient[i] += weight * Math.cos(logits[i]);
      }
    },
  };
}

const OWN_SCALE = 0.7;

/** Largest relative error of central differences at a few places of every parameter. */
async function differences(
  name: string,
  options: Partial<DecoderStudentOptions>,
): Promise<{ worst: number; names: string[] }> {
  const student = await openDecoderStudent(model(name), { ...OPTIONS, ...options });
  const batch = tokensOf();
  const loss = wavy(student.rowsOf(batch), student.classes);
  const { parameters, values, gradients } = student.parameters;
  const own = (terms: readonly OwnTerm[]): number => terms.reduce((sum, term) => sum + OWN_SCALE * term.value, 0);
  const at = async (): Promise<number> => {
    const terms = await student.accumulate(batch, loss.visit, { ownTermScale: OWN_SCALE });
    return loss.take() + own(terms);
  };
  await at();
  const exact = gradients.slice();
  const random = createRandom(3);
  let worst = 0;
  for (const { offset, length } of parameters) {
    const place = offset + random.integer(length);
    const value = values[place];
    const step = 1e-5;
    values[place] = value + step;
    const above = await at();
    values[place] = value - step;
    const below = await at();
    values[place] = value;
    const estimate = (above - below) / (2 * step);
    worst = Math.max(worst, Math.abs(estimate - exact[place]) / (1 + Math.abs(estimate)));
  }
  await student.close();
  return { worst, names: parameters.map((parameter) => parameter.name) };
}

/** Gradients and the sum of the loss of one pass. */
async function pass(name: string, options: Partial<DecoderStudentOptions>, batch = tokensOf()) {
  const student = await openDecoderStudent(model(name), { ...OPTIONS, ...options });
  const loss = wavy(student.rowsOf(batch), student.classes);
  await student.accumulate(batch, loss.visit);
  const result = {
    sum: loss.take(),
    gradients: student.parameters.gradients.slice(),
    plan: student.plan,
    parameters: student.parameters.parameters,
  };
  await student.close();
  return result;
}

function adaptersOf(names: readonly string[], width: number, out: number): LowRankAdapter[] {
  const random = createRandom(9);
  const normal = (length: number): Float64Array => Float64Array.from({ length }, () => 0.3 * random.normal());
  return names.map((tensor) => ({
    tensor,
    rank: 2,
    scale: 1.5,
    a: { name: `${tensor}.A`, values: normal(2 * width) },
    b: { name: `${tensor}.B`, values: normal(out * 2) },
  }));
}

/** Scores times a trained temperature a head, and a penalty on the mean square of the probabilities. */
const TEMPERED: AttentionExtension = {
  penalty: 'concentration',
  inputs: (layer, { heads }) => [
    {
      role: 'temperature',
      name: `model.layers.${layer}.self_attn.temperature`,
      dims: [heads, 1, 1],
      initial: Float64Array.from({ length: heads }, (_, h) => 0.8 + 0.1 * h),
    },
  ],
  compose({ g, scores, mask, input }) {
    const warmed = g.node('Add', [g.node('Mul', [scores, input('temperature')]), mask]);
    const probabilities = g.node('Softmax', [warmed], { attributes: { axis: { int: -1 } } });
    const squares = g.node('Mul', [probabilities, probabilities]);
    return { probabilities, penalty: g.node('ReduceMean', [squares], { attributes: { keepdims: { int: 0 } } }) };
  },
};

/** Learnable temperatures and thresholds with a penalty that is felt. */
function entropyAttention(name: string, positions: number): AttentionExtension {
  const { description } = model(name);
  const random = createRandom(8);
  const count = description.layers.length * description.layers[0].attention.heads;
  return createEntropyAttention(
    description,
    {
      temperatures: {
        start: Float64Array.from({ length: count * positions }, () => 0.5 + random.uniform()),
        positions,
      },
      regulariser: {
        ...{
          reduction: positions === 1 ? 'algorithm1' : 'code',
          gamma: 0.05,
          lambda: 0.5,
          contextSize: 6,
          learn: true,
        },
        thresholds: Float64Array.from({ length: count }, () => random.uniform()),
      },
    },
    6,
  );
}

describe('decoder students', () => {
  it.each([
    ['llama-biases', {}],
    ['gemma2', {}],
    ['llama-biases', { attention: TEMPERED }],
    ['mistral-window', { attention: entropyAttention('mistral-window', 6) }],
    ['gpt2', { attention: entropyAttention('gpt2', 1), train: ['*mlp*'] }],
    ['gpt2', { adapters: adaptersOf(['transformer.h.1.mlp.c_fc.weight'], 32, 128) }],
    ['qwen2', { train: ['*layers.1.mlp*', '*norm*'], freeze: ['*layers.0.post*'] }],
  ] as const)('%s: gradients agree with central differences (case %#)', async (name, options) => {
    const { worst } = await differences(name, options);
    expect(worst).toBeLessThan(1e-7);
  });

  it('adds the gradients of several passes, in any blocks of rows, with and without recomputation', async () => {
    const whole = await pass('llama-tied-linear', { wholeBatch: true });
    const files = model('llama-tied-linear');
    const tight = await pass('llama-tied-linear', { recomputedLayers: 1 });
    expect(tight.plan.recomputedLayers).toBe(1);
    expect(tight.sum).toBeCloseTo(whole.sum, 10);
    for (let i = 0; i < whole.gradients.length; i++)
      expect(Math.abs(tight.gradients[i] - whole.gradients[i])).toBeLessThan(1e-10);
    const student = await openDecoderStudent(files, OPTIONS);
    const loss = wavy(12, student.classes);
    await student.accumulate(tokensOf(), loss.visit);
    await student.accumulate(tokensOf(), loss.visit);
    const twice = student.parameters.gradients;
    for (let i = 0; i < twice.length; i++) expect(Math.abs(twice[i] - 2 * whole.gradients[i])).toBeLessThan(1e-10);
    await student.close();
  });

  it('takes batches of other shapes in turn', async () => {
    const student = await openDecoderStudent(model('qwen3-moe'), OPTIONS);
    const run = async (batch: TokenBatch): Promise<Float64Array> => {
      student.parameters.gradients.fill(0);
      await student.accumulate(batch, wavy(student.rowsOf(batch), student.classes).visit);
      return Float64Array.from(student.parameters.gradients);
    };
    const first = await run(tokensOf(2, 6));
    await run(tokensOf(1, 4));
    expect(await run(tokensOf(2, 6))).toEqual(first);
    await student.close();
  });

  it('trains adapters alone and gives a model with them added', async () => {
    const adapters = adaptersOf(['model.layers.0.self_attn.q_proj.weight'], 32, 64);
    const student = await openDecoderStudent(model('qwen3'), { ...OPTIONS, adapters });
    expect(student.parameters.parameters.map(({ name, dims }) => [name, [...dims]])).toEqual([
      ['model.layers.0.self_attn.q_proj.weight.A', [2, 32]],
      ['model.layers.0.self_attn.q_proj.weight.B', [64, 2]],
    ]);
    const batch = tokensOf(1, 6);
    const seen: number[] = [];
    await student.evaluate(batch, ({ logits }) => {
      seen.push(...logits);
    });
    const engine = await createEngine(student.currentModel(), {
      threads: 1,
      maxMemoryBytes: 4e9,
      device: 'cpu',
      precision: 'f64',
      context: 6,
    });
    const [group] = await engine.forward({ windows: [batch.tokens] });
    await engine.normalize(group.stream);
    const logits = await engine.logits(group.stream);
    expect(seen.length).toBe(logits.length);
    seen.forEach((value, i) => {
      expect(value).toBeCloseTo(logits[i], 9);
    });
    await engine.close();
    await student.close();
  });

  it('names what is wrong', async () => {
    const files = model('qwen3');
    await expect(openDecoderStudent(files, { ...OPTIONS, train: ['*q_projj*'] })).rejects.toThrow(
      'no tensor is named "*q_projj*"',
    );
    await expect(openDecoderStudent(files, { ...OPTIONS, maxMemoryBytes: 1 << 20 })).rejects.toThrow(
      'training on 2 windows',
    );
    const student = await openDecoderStudent(files, OPTIONS);
    const wrong = { ...tokensOf(), tokens: new Int32Array(12).fill(99) };
    await expect(student.accumulate(wrong, () => undefined)).rejects.toThrow('token 99 is not in');
    await student.close();
  });
});
