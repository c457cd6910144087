import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { encodeSafetensors } from '../../src/formats/safetensors-writer.js';
import { thinSvd } from '../../src/linalg/svd.js';
import { openModelFiles } from '../../src/models/model-files.js';
import { openWeights } from '../../src/models/pvq-store.js';
import { createWeightReader } from '../../src/models/weights.js';
import { type CompressOptions, compressModel } from '../../src/moe/compress-model.js';
import { type CompressSettings, openCompressible, planCompression } from '../../src/moe/compress-plan.js';
import { readExpert } from '../../src/moe/expert-reader.js';
import { activationWeights, gradientWeights, MAGNITUDES, type RowWeightSource } from '../../src/moe/row-weights.js';
import type { MoeStatistics } from '../../src/moe/statistics-file.js';
import { createRandom } from '../../src/random.js';
import { logitsOf } from '../quantization/model-logits.js';

const folder = mkdtempSync(join(tmpdir(), 'surprisal-compress-'));
afterAll(() => rmSync(folder, { recursive: true }));

const SETTINGS: CompressSettings = {
  form: 'factorised',
  rank: 3,
  keepRows: 0.25,
  scope: 'matrix',
  score: 'magnitude',
  oversamples: 8,
  powerIterations: 2,
  spectra: false,
  seed: 0,
};

const HEAD = { tool: { name: 'surprisal', version: '0' }, command: 'merge-moe compress', parameters: {}, inputs: [] };

let made = 0;
async function compress(
  model: string,
  changes: Partial<CompressSettings> = {},
  more: Partial<CompressOptions> = {},
  weights?: (model: ReturnType<typeof openCompressible>) => RowWeightSource,
) {
  const source = openCompressible(model);
  const out = more.out ?? join(folder, `out-${made++}`);
  const settings = { ...SETTINGS, ...changes };
  try {
    const options = { settings, out, head: { ...HEAD, parameters: { rank: settings.rank } }, ...more };
    return { out, ...(await compressModel(source, { weights: weights?.(source) ?? MAGNITUDES, ...options })) };
  } finally {
    source.close();
  }
}

/** A matrix of the output as this tool reads it. */
function readMatrix(out: string, name: string): Float32Array {
  const store = openWeights(out);
  const tensor = store.tensors.get(name);
  if (tensor === undefined) throw new Error(`no ${name}`);
  const values = new Float32Array(tensor.shape.reduce((a, b) => a * b, 1));
  const { byteLength, shape } = tensor;
  createWeightReader(1).read({ store, tensor, start: 0, byteLength, shape }, values);
  store.close();
  return values;
}

const distance = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Math.sqrt(Array.from(a).reduce((sum, value, i) => sum + (value - b[i]) ** 2, 0));

const LAYOUTS = [
  'mixtral',
  'mixtral-fused-rows',
  'mixtral-fused-columns',
  'olmoe',
  'olmoe-merged-reduced',
  'qwen2-moe-merged-remap',
  'qwen2-moe-fused-rows',
  'qwen3-moe-fused-square',
  'qwen3-vl-moe',
].map((name) => `fixtures/architectures/${name}`);

describe('compressed experts', () => {
  it.each(LAYOUTS)('%s: low rank plus the worst rows, in either form', async (model) => {
    const { out, matrices } = await compress(model);
    const source = openCompressible(model);
    const dense = await compress(model, { form: 'dense' });
    const { matrices: planned } = planCompression(source, SETTINGS);
    const target = openCompressible(dense.out);
    for (const [place, { index, expert, role, name, rows, columns, rank }] of planned.entries()) {
      const weight = readExpert(source, index, expert)[role] ?? new Float32Array(0);
      const { left, values, right } = thinSvd(weight, rows, columns);
      const full = values.length;
      const product = Float64Array.from({ length: rows * columns }, (_, at) => {
        const [r, c] = [Math.floor(at / columns), at % columns];
        let sum = 0;
        for (let k = 0; k < rank; k++) sum += left[r * full + k] * values[k] * right[c * full + k];
        return sum;
      });
      const norms = Array.from({ length: rows }, (_, r) =>
        distance(weight.subarray(r * columns, (r + 1) * columns), product.subarray(r * columns, (r + 1) * columns)),
      );
      const kept = [...norms.keys()].sort((a, b) => norms[b] - norms[a]).slice(0, Math.floor(rows / 4));
      for (const row of kept) product.set(weight.subarray(row * columns, (row + 1) * columns), row * columns);
      const norm = Math.hypot(...weight);
      // Rows that are equally bad up to the rounding of the factors may change places: the error tells.
      const best = distance(product, weight);
      for (const values of [readMatrix(out, name), readExpert(target, index, expert)[role] ?? []]) {
        expect(distance(values, weight) / best).toBeGreaterThan(1 - 1e-3);
        expect(distance(values, weight) / best).toBeLessThan(1.002);
      }
      expect(matrices[place]).toMatchObject({ name, rank, sparse_rows: kept.length, path: 'exact', compressed: true });
      expect(matrices[place].relative_error).toBeCloseTo(distance(readMatrix(out, name), weight) / norm, 6);
      expect(matrices[place].stable_rank).toBeCloseTo((norm / values[0]) ** 2, 4);
    }
    expect(matrices).toHaveLength(planned.length);
    expect([...target.store.tensors.values()].map(({ name, dtype, shape }) => ({ name, dtype, shape }))).toEqual(
      [...source.store.tensors.values()].map(({ name, dtype, shape }) => ({ name, dtype, shape })),
    );
    source.close();
    target.close();
  });

  it.each(LAYOUTS.filter((_, i) => i !== 1 && i !== 3 && i !== 6))('%s: both forms predict the same', async (model) => {
    // Without rows, of which rounding may choose others.
    const factorised = await compress(model, { keepRows: 0 });
    const dense = await compress(model, { keepRows: 0, form: 'dense' });
    const [a, b] = [
      await logitsOf(openModelFiles(factorised.out), 'f32'),
      await logitsOf(openModelFiles(dense.out), 'f32'),
    ];
    expect(distance(a, b) / Math.hypot(...b)).toBeLessThan(0.03);
    expect(factorised.report.model_bytes_after).toBeLessThan(factorised.report.model_bytes_before as number);
  });

  it('copies everything else, and refuses to be read by others', async () => {
    const model = LAYOUTS[0];
    const { out, report } = await compress(model);
    const [source, target] = [openSafetensors(model), openSafetensors(out)];
    for (const info of source.tensors.values()) {
      if (info.name.includes('.experts.')) continue;
      const copy = target.tensors.get(info.name);
      const bytes = [new Uint8Array(info.byteLength), new Uint8Array(info.byteLength)];
      source.readInto(info, 0, info.byteLength, bytes[0]);
      if (copy) target.readInto(copy, 0, info.byteLength, bytes[1]);
      expect(bytes[1]).toEqual(bytes[0]);
    }
    source.close();
    target.close();
    const config = JSON.parse(readFileSync(join(out, 'config.json'), 'utf8')) as Record<string, unknown>;
    expect(config.quantization_config).toEqual({ format: 'surprisal_factorised', reader: 'surprisal' });
    expect(existsSync(join(out, '.compress'))).toBe(false);
    expect(JSON.parse(readFileSync(join(out, 'manifest.json'), 'utf8'))).toEqual(report);
    expect(() => openCompressible(out)).toThrow(/compressed by surprisal/);
  });

  it('writes the same bytes for any number of threads, in shards too', async () => {
    const model = 'fixtures/models/mixtral-sotu-moby';
    const settings = { rank: 6, spectra: true, tensors: ['*.layers.1.*'] };
    const one = await compress(model, settings, { threads: 1 });
    const two = await compress(model, settings, { threads: 2 });
    expect(two.report).toEqual(one.report);
    expect(one.matrices[0]).toMatchObject({ path: 'randomised', rank: 6 });
    const { effective_rank: effective, stable_rank: stable } = one.matrices[0];
    expect(effective).toBeGreaterThan(stable);
    const sharded = await compress(model, settings, { maxShardBytes: 2e5 });
    expect((sharded.report.files as { name: string }[]).map(({ name }) => name)).toContain(
      'model.safetensors.index.json',
    );
    const name = one.matrices[7].name;
    expect(readMatrix(sharded.out, name)).toEqual(readMatrix(one.out, name));
  });

  it('leaves matrices alone that would not become smaller, and those that are not named', async () => {
    const [model] = LAYOUTS;
    const whole = await compress(model, { rank: 1000 });
    expect(whole.matrices.every(({ compressed, relative_error: error }) => !compressed && error === 0)).toBe(true);
    expect(whole.report.model_bytes_after).toBe(whole.report.model_bytes_before);
    const some = await compress(model, { tensors: ['*.w1.weight'], excluded: [0] });
    expect(new Set(some.matrices.map(({ layer, matrix }) => `${layer} ${matrix}`))).toEqual(new Set(['1 gate']));
    const fused = await compress('fixtures/architectures/qwen3-moe-fused-columns', { tensors: ['*.up_proj.weight'] });
    const dense = await compress('fixtures/architectures/qwen3-moe-fused-columns', {
      tensors: ['*.up_proj.weight'],
      form: 'dense',
    });
    const [a, b] = [await logitsOf(openModelFiles(fused.out), 'f32'), await logitsOf(openModelFiles(dense.out), 'f32')];
    expect(distance(a, b) / Math.hypot(...b)).toBeLessThan(0.03);
    await expect(compress(model, { tensors: ['*.w9.weight'] })).rejects.toThrow(/--tensors \*\.w9\.weight: matches no/);
    await expect(compress(model, { excluded: [9] })).rejects.toThrow(/layer 9/);
    await expect(compress(model, { excluded: [0, 1] })).rejects.toThrow(/nothing to compress/);
  });

  it('lets rows compete over matrices within one share', async () => {
    const model = 'fixtures/models/mixtral-sotu-moby';
    const rowsOf = async (scope: CompressSettings['scope']): Promise<number[]> =>
      (
        await compress(model, { scope, keepRows: 0.1, rank: 4, tensors: ['*.experts.0.*', '*.experts.5.*'] })
      ).matrices.map(({ sparse_rows: rows }) => rows);
    const [matrix, layer, all] = [await rowsOf('matrix'), await rowsOf('layer'), await rowsOf('model')];
    expect(new Set(matrix)).toEqual(new Set([19, 12]));
    for (const rows of [layer, all]) {
      expect(new Set(rows).size).toBeGreaterThan(2);
      const entries = rows.reduce((sum, count, i) => sum + count * (i % 3 === 2 ? 192 : 128), 0);
      expect(entries / (18 * 128 * 192)).toBeGreaterThan(0.099);
      expect(entries / (18 * 128 * 192)).toBeLessThanOrEqual(0.1);
    }
    const perLayer = [0, 1, 2].map((l) => all.slice(6 * l, 6 * l + 6).reduce((a, b) => a + b, 0));
    expect(new Set(perLayer).size).toBeGreaterThan(1);
  });
});

describe('weights of rows', () => {
  const [model] = LAYOUTS;

  it('norms of inputs decide which rows stay; an expert without tokens goes by magnitude', async () => {
    const source = openCompressible(model);
    const [{ experts, shape, layer }] = source.layers;
    const { hidden, width } = shape;
    const square = (length: number, hot: number): Float64Array =>
      Float64Array.from({ length }, (_, at) => (at % hot === 0 ? 1e6 : 0));
    const outputs = {
      inputSquareSum: square(experts * hidden, hidden),
      hiddenSquareSum: square(experts * width, width),
    };
    const counts = Float64Array.from({ length: experts }, (_, e) => e);
    const layers = source.layers.map((each) => ({ routing: { layer: each.layer, counts }, outputs }));
    const statistics = { header: {}, layers } as unknown as MoeStatistics;
    const { matrices, out } = await compress(model, { score: 'activations', rank: 1, keepRows: 0.1 }, {}, (opened) =>
      activationWeights(opened, statistics),
    );
    const found = matrices.find((each) => each.layer === layer && each.expert === 1 && each.matrix === 'up');
    const { name = '', rows = 0, columns = 0 } = found ?? {};
    const weight = readExpert(source, 0, 1).up;
    const { left, values, right } = thinSvd(weight, rows, columns);
    // Input 0 is all there is: rows stay by the error in its column.
    const errors = Array.from({ length: rows }, (_, r) =>
      Math.abs(weight[r * columns] - left[r * values.length] * values[0] * right[0]),
    );
    const order = [...errors.keys()].sort((a, b) => errors[b] - errors[a]).slice(0, Math.floor(rows / 10));
    const after = readMatrix(out, name);
    for (const row of order) {
      const [a, b] = [after, weight].map((each) => each.subarray(row * columns, (row + 1) * columns));
      expect(distance(a, b) / Math.hypot(...b)).toBeLessThan(0.01);
    }
    expect(matrices.filter((each) => each.unused_expert).every(({ expert }) => expert === 0)).toBe(true);
    const none = { header: {}, layers: [{ routing: { layer, counts } }] } as unknown as MoeStatistics;
    expect(() => activationWeights(source, none)).toThrow(/--outputs routed or all/);
    const other = { header: {}, layers: [] } as unknown as MoeStatistics;
    expect(() => activationWeights(source, other)).toThrow(/no such layer/);
    source.close();
  });

  it('gradients decide, and must be those of the model', async () => {
    const source = openCompressible(model);
    const random = createRandom(8);
    const names = [...source.store.tensors.values()].filter(({ name }) => name.includes('.experts.'));
    const gradients = names.map(({ name, shape }) => {
      const [rows, columns] = shape;
      // Row 2 alone matters.
      const data = Float32Array.from({ length: rows * columns }, (_, at) =>
        Math.floor(at / columns) === 2 ? random.normal() : 0,
      );
      return { name, dtype: 'F32' as const, shape, data };
    });
    const file = join(folder, 'gradients.safetensors');
    writeFileSync(file, encodeSafetensors(gradients));
    const settings = { score: 'gradients', scope: 'matrix', keepRows: 0.1, rank: 1 } as const;
    const { matrices, out } = await compress(model, settings, {}, (opened) => gradientWeights(opened, [file, file]));
    for (const { name, expert, matrix, columns } of matrices.filter(({ layer }) => layer === 0)) {
      const weight = readExpert(source, 0, expert)[matrix] ?? new Float32Array(0);
      const [a, b] = [readMatrix(out, name), weight].map((each) => each.subarray(2 * columns, 3 * columns));
      expect(distance(a, b) / Math.hypot(...b)).toBeLessThan(0.01);
    }
    const fewer = join(folder, 'fewer.safetensors');
    writeFileSync(fewer, encodeSafetensors(gradients.slice(1)));
    expect(() => gradientWeights(source, [fewer])).toThrow(InputError);
    expect(() => gradientWeights(source, [fewer])).toThrow(/no gradient of tensor/);
    const wrong = join(folder, 'wrong.safetensors');
    const turned = gradients.map((each, i) => (i > 0 ? each : { ...each, shape: [...each.shape].reverse() }));
    writeFileSync(wrong, encodeSafetensors(turned));
    expect(() => gradientWeights(source, [wrong])).toThrow(/its weight has/);
    source.close();
  });
});

describe('an interrupted run', () => {
  const model = 'fixtures/architectures/olmoe';

  /** Stops at a matrix, as a full disk would. */
  async function stopAt(out: string, matrix: number): Promise<void> {
    const progress = async (done: number): Promise<void> => {
      if (done === matrix) throw new Error('stop');
    };
    await expect(compress(model, {}, { out, progress })).rejects.toThrow('stop');
    expect(existsSync(out)).toBe(false);
  }

  it.each([30, 70])('goes on where it stopped (step %i of 96)', async (step) => {
    const plain = await compress(model);
    const out = join(folder, `resumed-${step}`);
    await stopAt(out, step);
    const seen: number[] = [];
    const progress = async (done: number): Promise<void> => {
      seen.push(done);
    };
    const { report } = await compress(model, {}, { out, resume: true, progress });
    expect(seen[0]).toBe(Math.min(step, 48));
    expect(report).toEqual(plain.report);
    const [a, b] = [out, plain.out].map((each) => readFileSync(join(each, 'model.safetensors')));
    expect(a.equals(b)).toBe(true);
    const again = await compress(model, {}, { out, resume: true });
    expect(again.report).toEqual(plain.report);
    await expect(compress(model, { rank: 5 }, { out, resume: true })).rejects.toThrow(/made with another "parameters/);
  });

  it('is not continued with other options', async () => {
    const out = join(folder, 'other');
    await stopAt(out, 10);
    await expect(compress(model, { rank: 4 }, { out, resume: true })).rejects.toThrow(/had another "parameters.rank"/);
    await expect(compress(model, {}, { out, force: true })).resolves.toMatchObject({ out });
    await expect(compress(model, {}, { out })).rejects.toThrow(/already exists/);
  });
});
