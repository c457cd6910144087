import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openModelFiles } from '../../src/models/model-files.js';
import { openDecoderStudent } from '../../src/training/decoder-student.js';
import { IGNORED, type LogitsVisitor, type TokenBatch } from '../../src/training/types.js';

const MODELS = 'fixtures/architectures';

interface Golden {
  readonly batch: number;
  readonly length: number;
  readonly models: Readonly<Record<string, GoldenModel>>;
}

interface GoldenModel {
  readonly tokens: readonly number[];
  readonly labels: readonly number[];
  readonly loss: number;
  readonly tensors: Readonly<Record<string, { norm: number; samples: readonly (readonly [number, number])[] }>>;
}

const golden = JSON.parse(readFileSync('fixtures/gradients/decoders.json', 'utf8')) as Golden;

function batchOf({ tokens, labels }: GoldenModel): TokenBatch {
  const { batch, length } = golden;
  return {
    tokens: Int32Array.from(tokens),
    labels: Int32Array.from(labels),
    batch,
    length,
    windows: new Int32Array(batch),
  };
}

/** Sum of cross-entropies over the rows that count. */
function crossEntropy(labels: Int32Array): { readonly visit: LogitsVisitor; sum(): number } {
  let sum = 0;
  return {
    sum: () => sum,
    visit({ firstRow, rows, classes, logits, gradient }) {
      for (let r = 0; r < rows; r++) {
        const label = labels[firstRow + r];
        if (label === IGNORED) continue;
        const row = Float64Array.from(logits.subarray(r * classes, (r + 1) * classes));
        const most = row.reduce((a, b) => Math.max(a, b));
        const total = row.reduce((a, b) => a + Math.exp(b - most), 0);
        sum += Math.log(total) + most - row[label];
        if (!gradient) continue;
        for (let c = 0; c < classes; c++) gradient[r * classes + c] += Math.exp(row[c] - most) / total;
        gradient[r * classes + label] -= 1;
      }
    },
  };
}

/** Largest error of a sampled gradient over the largest of its tensor, and of norms, with the tensor's name. */
async function worstError(
  name: string,
  precision: 'f32' | 'f64',
): Promise<{ error: number; where: string; loss: number }> {
  const files = openModelFiles(join(MODELS, name));
  const { batch, length, models } = golden;
  const student = await openDecoderStudent(files, { precision, threads: 2, batch, length });
  const tokens = batchOf(models[name]);
  const loss = crossEntropy(tokens.labels);
  await student.accumulate(tokens, loss.visit);
  let worst = { error: 0, where: '' };
  const see = (error: number, where: string): void => {
    if (!(error <= worst.error)) worst = { error, where };
  };
  const { parameters, gradients } = student.parameters;
  const missing = new Set(Object.keys(models[name].tensors));
  for (const parameter of parameters) {
    missing.delete(parameter.name);
    const { norm, samples } = models[name].tensors[parameter.name];
    const own = gradients.subarray(parameter.offset, parameter.offset + parameter.length);
    see(Math.abs(Math.hypot(...own) - norm) / norm, `${parameter.name} norm`);
    const scale = Math.max(...samples.map(([, value]) => Math.abs(value)));
    for (const [place, value] of samples) see(Math.abs(own[place] - value) / scale, `${parameter.name}[${place}]`);
  }
  expect([...missing]).toEqual([]);
  await student.close();
  files.store.close();
  return { ...worst, loss: Math.abs(loss.sum() - models[name].loss) / models[name].loss };
}

describe('gradients of decoders', () => {
  const names = readdirSync(MODELS, { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory() ? [entry.name] : [],
  );

  const single = ['gemma2', 'gemma3', 'gpt2', 'gpt-neox-parallel', 'llama-biases', 'phi3-longrope', 'smollm3-window'];
  const cases = [...names.map((name) => [name, 'f64'] as const), ...single.map((name) => [name, 'f32'] as const)];

  it.each(cases)('%s agrees with PyTorch in %s', async (name, precision) => {
    const { error, where, loss } = await worstError(name, precision);
    expect(loss).toBeLessThan(1e-5);
    expect(error, where).toBeLessThan(1e-4);
  });
});
