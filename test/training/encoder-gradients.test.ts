import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openEncoder } from '../../src/models/encoder.js';
import { composeEncoder, LAST_HIDDEN_STATE } from '../../src/training/encoder-graph.js';
import { openOnnxStudent } from '../../src/training/onnx-student.js';
import { IGNORED, type TokenBatch } from '../../src/training/types.js';

const MODELS = 'fixtures/encoders';
/** Errors count against this where a gradient is smaller: that of the keys' biases is zero but for rounding. */
const LEAST_GRADIENT = { f64: 0.01, f32: 0.1 } as const;

interface Golden {
  readonly batch: number;
  readonly length: number;
  readonly models: Readonly<Record<string, GoldenModel>>;
}

interface GoldenModel {
  readonly tokens: readonly number[];
  readonly loss: number;
  readonly tensors: Readonly<Record<string, { norm: number; samples: readonly (readonly [number, number])[] }>>;
}

const golden = JSON.parse(readFileSync('fixtures/gradients/encoders.json', 'utf8')) as Golden;
const { batch, length, models } = golden;

describe('gradients of encoders', () => {
  const cases = Object.keys(models).flatMap((name) => [[name, 'f64', 1e-6] as const, [name, 'f32', 1e-4] as const]);

  it.each(cases)('%s agrees with PyTorch in %s', async (name, precision, tolerance) => {
    const { tokens, loss, tensors } = models[name];
    const texts: TokenBatch = {
      tokens: Int32Array.from(tokens),
      labels: new Int32Array(tokens.length).fill(IGNORED),
      batch,
      length,
      windows: new Int32Array(batch),
    };
    const path = join(MODELS, name);
    const student = await openOnnxStudent<TokenBatch>(composeEncoder(path, { precision, threads: 1 }), {
      precision,
      threads: 1,
      logits: LAST_HIDDEN_STATE,
      train: ['*'],
    });
    let sum = 0;
    let states: ArrayLike<number> = [];
    await student.accumulate(texts, ({ logits, gradient }) => {
      states = logits.slice();
      logits.forEach((value, i) => {
        sum += Math.cos(0.7 * i) * value;
        if (gradient) gradient[i] = Math.cos(0.7 * i);
      });
    });
    expect(Math.abs(sum - loss)).toBeLessThan(tolerance * tokens.length);

    const { parameters, gradients } = student.parameters;
    const missing = new Set(Object.keys(tensors));
    for (const parameter of parameters) {
      missing.delete(parameter.name);
      const { norm, samples } = tensors[parameter.name];
      const own = gradients.subarray(parameter.offset, parameter.offset + parameter.length);
      const least = LEAST_GRADIENT[precision];
      expect(Math.abs(Math.hypot(...own) - norm), parameter.name).toBeLessThan(tolerance * Math.max(norm, least));
      const scale = Math.max(least, ...samples.map(([, value]) => Math.abs(value)));
      for (const [place, value] of samples) {
        expect(Math.abs(own[place] - value), `${parameter.name}[${place}]`).toBeLessThan(tolerance * scale);
      }
    }
    expect([...missing]).toEqual([]);
    await student.close();

    const encoder = openEncoder(path, { threads: 1, precision });
    let last: ArrayLike<number> = [];
    await encoder.forward(texts.tokens, batch, length, (_, rows) => {
      last = rows.slice();
    });
    await encoder.close();
    for (let i = 0; i < last.length; i++) expect(Math.abs(last[i] - states[i])).toBeLessThan(tolerance);
  });
});
