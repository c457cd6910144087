import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { calibrationWindows } from '../../src/models/calibration-windows.js';
import { createEngine } from '../../src/models/engine.js';
import { openInThread } from '../../src/models/engine-in-thread.js';
import { type LinearInput, linearInputs } from '../../src/models/linear-inputs.js';
import { openModelFiles } from '../../src/models/model-files.js';
import { hashModel } from '../../src/models/model-hash.js';
import { layerWeightShapes } from '../../src/models/weight-names.js';
import { calibrate, calibrationReserve } from '../../src/quantization/calibration.js';
import { type Hessians, openHessians } from '../../src/quantization/hessian-file.js';

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'calibration-'));
});
afterAll(() => rmSync(directory, { recursive: true }));

const MODELS = [
  'fixtures/models/llama-sotu',
  'fixtures/models/mixtral-sotu-moby',
  'fixtures/architectures/gpt2',
  'fixtures/architectures/qwen2-moe-shared',
  'fixtures/architectures/phi3',
  'fixtures/gguf/qwen2-moe.f32.gguf',
];
const ENGINE = { threads: 2, maxMemoryBytes: 2 ** 31, device: 'cpu', context: 64 } as const;

async function windowsOf(tokens: number, length: number): Promise<Int32Array[]> {
  const documents = [300, 500, 900].map((size, d) => Int32Array.from({ length: size }, (_, i) => (i * i + 7 * d) % 61));
  return calibrationWindows(documents, { tokens, length });
}

let counter = 0;
async function calibrated(
  path: string,
  windows: Int32Array[],
  own: {
    precision?: 'f32' | 'f64';
    stored?: 'F32' | 'F64';
    memoryBytes?: number;
    threads?: number;
    rowsPerRun?: number;
    include?: (input: LinearInput) => boolean;
  } = {},
): Promise<{ file: string; passes: number; unreached: readonly string[] }> {
  const { precision = 'f32', stored = 'F32', memoryBytes = 2 ** 30, threads = 2, rowsPerRun = 512, include } = own;
  const host = await openInThread(path, { ...ENGINE, threads, precision, plan: { rowsPerRun } });
  const file = join(directory, `${counter++}.safetensors`);
  const options = { windows, path: file, modelSha256: await hashModel(path), memoryBytes, precision, stored };
  const summary = await calibrate(host, openModelFiles(path), { ...options, ...(include && { include }) });
  await host.close();
  return { file, passes: summary.passes, unreached: summary.unreached };
}

/** (2 / N) sum x x^T of every input from the taps, one number after the other in f64. */
async function plainHessians(path: string, windows: Int32Array[]) {
  const files = openModelFiles(path);
  const engine = await createEngine(files, { ...ENGINE, precision: 'f64' });
  const inputs = linearInputs(files.description);
  const found = new Map(inputs.map(({ name, columns }) => [name, { tokens: 0, H: new Float64Array(columns ** 2) }]));
  const add = (input: LinearInput, rows: ArrayLike<number>, from: number, count: number): void => {
    const own = found.get(input.name);
    if (!own) throw new Error(input.name);
    const n = input.columns;
    own.tokens += count;
    for (let r = from; r < from + count; r++) {
      for (let i = 0; i < n; i++) {
        for (let j = 0; j < n; j++) own.H[i * n + j] += rows[r * n + i] * rows[r * n + j];
      }
    }
  };
  const groups = await engine.forward({
    windows,
    taps: [...new Set(inputs.flatMap((input) => input.tap ?? []))],
    onTap: (event) => {
      for (const input of inputs) {
        if (input.layer !== event.layer || !input.tap) continue;
        const rows = event.taps.get(input.tap);
        if (!rows) throw new Error(input.name);
        const { expert } = input;
        if (expert === undefined) add(input, rows, 0, rows.length / input.columns);
        else if (event.experts) {
          const { counts } = event.experts;
          add(
            input,
            rows,
            counts.subarray(0, expert).reduce((a, b) => a + b, 0),
            counts[expert],
          );
        }
      }
    },
  });
  const head = inputs[inputs.length - 1];
  for (const group of groups) {
    await engine.normalize(group.stream);
    add(head, group.stream, 0, group.stream.length / head.columns);
  }
  await engine.close();
  for (const own of found.values()) own.H = own.H.map((value) => (own.tokens === 0 ? 0 : (2 * value) / own.tokens));
  return found;
}

function expectHessians(
  hessians: Hessians,
  expected: Awaited<ReturnType<typeof plainHessians>>,
  tolerance: number,
): void {
  expect(hessians.inputs).toEqual([...expected.keys()]);
  for (const [name, own] of expected) {
    const { columns, tokens, H } = hessians.get(name);
    const { sumSquares } = hessians.moments(name);
    expect(tokens, name).toBe(own.tokens);
    let scale = 0;
    let difference = 0;
    for (let i = 0; i < H.length; i++) {
      scale = Math.max(scale, Math.abs(own.H[i]));
      difference = Math.max(difference, Math.abs(H[i] - own.H[i]));
    }
    expect(difference, name).toBeLessThanOrEqual(tolerance * scale);
    sumSquares.forEach((value, i) => {
      const squares = (own.H[i * columns + i] * tokens) / 2;
      expect(Math.abs(value - squares), name).toBeLessThanOrEqual(tolerance * scale * Math.max(tokens, 1));
    });
  }
}

describe.each(MODELS)('Hessians of %s', (path) => {
  it('are the second moments of the taps, expert by expert', async () => {
    // 525 tokens fill a block of rows and leave a rest; the last window is shorter.
    const windows = await windowsOf(525, 27);
    const expected = await plainHessians(path, windows);
    const exact = await calibrated(path, windows, { precision: 'f64', stored: 'F64' });
    expectHessians(openHessians(exact.file), expected, 1e-12);
    const single = await calibrated(path, windows);
    expectHessians(openHessians(single.file), expected, 2e-5);
  });

  it('have an input for every linear of every layer, under both families of names', async () => {
    const { file } = await calibrated(path, await windowsOf(50, 20));
    const hessians = openHessians(file, await hashModel(path));
    const { description: model, weights } = openModelFiles(path);
    model.layers.forEach((layer, index) => {
      for (const [role, shape] of layerWeightShapes(model, layer)) {
        if (shape.length < 2) continue;
        const stored = weights.layers[index].get(role);
        if (!stored) throw new Error(role);
        const slice = stored.byteLength < stored.tensor.byteLength ? `#${stored.start / stored.byteLength}` : '';
        const input = hessians.inputOf(stored.tensor.name + slice);
        expect(input, role).toBeDefined();
        const columns = model.linearLayout === 'out-in' ? shape[1] : shape[0];
        expect(hessians.moments(input ?? '').columns).toBe(columns);
      }
    });
    expect(hessians.inputOf('blk.0.attn_output.weight')).toBe('layers.0.attention_mixed');
    expect(hessians.inputOf('blk.0.attn_norm.weight')).toBeUndefined();
    expect(hessians.inputOf('lm_head.weight')).toBe('head_input');
    expect(hessians.inputOf('token_embd.weight')).toBe(model.tiedHead ? 'head_input' : undefined);
  });
});

describe('calibration', () => {
  const path = 'fixtures/models/mixtral-sotu-moby';

  it('gives the same bytes for any memory, number of threads and rows of a run', async () => {
    const windows = await windowsOf(600, 32);
    const reference = await calibrated(path, windows);
    const bytes = readFileSync(reference.file);
    expect(reference.passes).toBe(4);
    for (const own of [{ threads: 1 }, { rowsPerRun: 16 }, { memoryBytes: 4 << 20 }, { memoryBytes: 1 }]) {
      const other = await calibrated(path, windows, own);
      expect(readFileSync(other.file).equals(bytes), JSON.stringify(own)).toBe(true);
      if (own.memoryBytes !== undefined) expect(other.passes).toBeGreaterThan(10);
    }
    expect(readdirSync(directory).every((name) => name.endsWith('.safetensors') && !name.startsWith('.'))).toBe(true);
  });

  it('names experts that no token reached, and gives them a zero Hessian', async () => {
    const { file, unreached } = await calibrated(path, [Int32Array.of(5, 6)]);
    const hessians = openHessians(file);
    expect(unreached.length).toBeGreaterThan(3 * 2 * 4 - 1);
    for (const name of unreached) {
      const { tokens, H } = hessians.get(name);
      expect(tokens).toBe(0);
      expect(H.every((value) => value === 0)).toBe(true);
    }
  });

  it('sums the inputs that are asked for alone', async () => {
    const include = (input: LinearInput): boolean => input.layer === 1 && input.tap === 'attention_mixed';
    const windows = await windowsOf(100, 20);
    const { file, passes } = await calibrated(path, windows, { include });
    const whole = await calibrated(path, windows);
    const hessians = openHessians(file);
    expect(hessians.inputs).toEqual(['layers.1.attention_mixed']);
    expect(passes).toBe(2);
    expect(hessians.get('layers.1.attention_mixed')).toEqual(openHessians(whole.file).get('layers.1.attention_mixed'));
  });

  it('refuses a file of another model and inputs that are not there', async () => {
    const { file } = await calibrated(path, await windowsOf(40, 20));
    const other = await hashModel('fixtures/models/llama-sotu');
    expect(() => openHessians(file, other)).toThrow(/Hessians of another model \(mixtral/);
    expect(() => openHessians(file).get('layers.1.mlp_inputs')).toThrow(/did you mean "layers.1.mlp_input"/);
    expect(() => openHessians('fixtures/models/llama-sotu/model.safetensors')).toThrow(/not a file of Hessians/);
  });

  it('reserves what the largest layer needs, within half of the limit', () => {
    const model = openModelFiles(path).description;
    const request = { tokens: 1000, precision: 'f32' } as const;
    const whole = calibrationReserve(model, { ...request, maxMemoryBytes: 2 ** 40 });
    expect(whole).toBeGreaterThan(8 * (128 ** 2 + 128 ** 2) * 8);
    expect(calibrationReserve(model, { ...request, maxMemoryBytes: whole })).toBe(Math.ceil(whole / 2));
  });
});

describe('calibration windows', () => {
  it('are the documents in their order, cut without a draw', async () => {
    const documents = [Int32Array.of(1, 2, 3), Int32Array.of(4), Int32Array.of(5, 6, 7, 8)];
    expect(await calibrationWindows(documents, { tokens: 7, length: 3 })).toEqual([
      Int32Array.of(1, 2, 3),
      Int32Array.of(4, 5, 6),
      Int32Array.of(7),
    ]);
    await expect(calibrationWindows(documents, { tokens: 9, length: 3 })).rejects.toThrow(
      /calibration shorter than asked: the text gives 8 tokens, --calib-tokens asks for 9/,
    );
  });
});
