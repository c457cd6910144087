import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { encodeSafetensors } from '../../../src/formats/safetensors-writer.js';
import { DTYPE_BYTES, elementCount } from '../../../src/formats/tensor.js';
import { withAdapter } from '../../../src/fusion/merge/adapter-source.js';
import { parseMergeDocuments } from '../../../src/fusion/merge/config-document.js';
import { referencedModels } from '../../../src/fusion/merge/document.js';
import { planMerge } from '../../../src/fusion/merge/plan.js';
import type { MergeSource } from '../../../src/fusion/merge/types.js';
import { widenToF64 } from '../../../src/kernels/dtypes.js';
import { createRandom } from '../../../src/random.js';
import { type MemoryTensor, memorySource } from './memory-source.js';

const root = mkdtempSync(join(tmpdir(), 'adapters-'));
afterAll(() => rmSync(root, { recursive: true }));

const random = createRandom(5);
/** Eighths, so that sums of products are exact in every order. */
const values = (count: number): Float32Array =>
  Float32Array.from({ length: count }, () => Math.round(8 * random.normal()) / 8);
const matrix = (...shape: number[]) => ({ shape, data: values(elementCount(shape)) });

interface Stored {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

let written = 0;

function adapter(config: Record<string, unknown>, tensors: Record<string, Stored>): string {
  const directory = join(root, String(written++));
  mkdirSync(directory);
  const head = { peft_type: 'LORA', r: 2, lora_alpha: 4, ...config };
  writeFileSync(join(directory, 'adapter_config.json'), JSON.stringify(head));
  const list = Object.entries(tensors).map(([name, { shape, data }]) => ({
    name: `base_model.model.${name}`,
    dtype: 'F32' as const,
    shape: [...shape],
    data,
  }));
  writeFileSync(join(directory, 'adapter_model.safetensors'), encodeSafetensors(list, { format: 'pt' }));
  return directory;
}

async function read(source: MergeSource, name: string, step = 3): Promise<Float64Array> {
  const info = source.tensors.get(name);
  if (info === undefined) throw new Error(`no ${name}`);
  const rowBytes = elementCount(info.shape.slice(1)) * DTYPE_BYTES[info.dtype];
  const bytes = new Uint8Array(info.shape[0] * rowBytes);
  for (let from = 0; from < info.shape[0]; from += step) {
    const to = Math.min(info.shape[0], from + step);
    await source.read(name, from, to, bytes.subarray(from * rowBytes, to * rowBytes));
  }
  const result = new Float64Array(elementCount(info.shape));
  widenToF64(bytes, info.dtype, result);
  return result;
}

/** scale B A, entry by entry. */
function product(a: Stored, b: Stored, scale: number, turned: boolean): Float64Array {
  const [rank, input] = a.shape;
  const [out] = b.shape;
  const [rows, columns] = turned ? [input, out] : [out, input];
  return Float64Array.from({ length: rows * columns }, (_, i) => {
    const [row, column] = [Math.floor(i / columns), i % columns];
    const [o, p] = turned ? [column, row] : [row, column];
    let sum = 0;
    for (let k = 0; k < rank; k++) sum += b.data[o * rank + k] * a.data[k * input + p];
    return scale * sum;
  });
}

const close = (actual: Float64Array, expected: Float64Array): void => {
  expect(actual).toHaveLength(expected.length);
  for (const [i, value] of expected.entries()) expect(actual[i]).toBeCloseTo(value, 5);
};

const MODULE = 'model.layers.0.self_attn.q_proj';
const model = {
  'model.embed_tokens.weight': matrix(7, 5),
  [`${MODULE}.weight`]: matrix(6, 5),
  [`${MODULE}.bias`]: matrix(6),
  'model.layers.0.square.weight': matrix(4, 4),
  'model.norm.weight': matrix(5),
} satisfies Record<string, MemoryTensor>;
const base = memorySource('base', model);
const term = (module: string, a: Stored, b: Stored) => ({
  [`${module}.lora_A.weight`]: a,
  [`${module}.lora_B.weight`]: b,
});

describe('withAdapter', () => {
  const [a, b] = [matrix(2, 5), matrix(6, 2)];
  const stored = model[`${MODULE}.weight`].data;

  it.each([
    ['alpha over rank', {}, 2],
    ['rank-stabilised', { use_rslora: true }, 4 / Math.SQRT2],
    ['an alpha of its own', { alpha_pattern: { 'layers.1.*': 7, 'self_attn.[kq]_proj': 1 } }, 0.5],
  ])('adds scale B A: %s', async (_, config, scale) => {
    const source = withAdapter(base, adapter(config, term(MODULE, a, b)));
    const delta = product(a, b, scale, false);
    close(
      await read(source, `${MODULE}.weight`),
      delta.map((value, i) => stored[i] + value),
    );
    expect(await read(source, 'model.norm.weight')).toEqual(Float64Array.from(model['model.norm.weight'].data));
  });

  it('turns the term where the matrix is stored the other way round', async () => {
    const [c, d] = [matrix(2, 6), matrix(5, 2)];
    const source = withAdapter(base, adapter({}, term(MODULE, c, d)));
    const delta = product(c, d, 2, true);
    close(
      await read(source, `${MODULE}.weight`),
      delta.map((value, i) => stored[i] + value),
    );
    const [e, f] = [matrix(2, 4), matrix(4, 2)];
    const square = withAdapter(base, adapter({ fan_in_fan_out: true }, term('model.layers.0.square', e, f)));
    const turned = product(e, f, 2, true);
    close(
      await read(square, 'model.layers.0.square.weight'),
      turned.map((value, i) => model['model.layers.0.square.weight'].data[i] + value),
    );
  });

  it('scales rows, or columns of embeddings, to the magnitudes of DoRA', async () => {
    const magnitude = { shape: [6], data: Float32Array.of(1, 2, 3, 4, 5, 6) };
    const named = { ...term(MODULE, a, b), [`${MODULE}.lora_magnitude_vector`]: magnitude };
    const rows = await read(withAdapter(base, adapter({ use_dora: true }, named)), `${MODULE}.weight`);
    const sum = product(a, b, 2, false).map((value, i) => stored[i] + value);
    for (let row = 0; row < 6; row++) {
      const length = Math.hypot(...sum.subarray(5 * row, 5 * row + 5));
      close(
        rows.subarray(5 * row, 5 * row + 5),
        sum.subarray(5 * row, 5 * row + 5).map((value) => (value / length) * (row + 1)),
      );
    }
    const [c, d] = [matrix(2, 7), matrix(5, 2)];
    const embedding = withAdapter(
      base,
      adapter(
        { use_dora: true },
        {
          'model.embed_tokens.lora_embedding_A': c,
          'model.embed_tokens.lora_embedding_B': d,
          'model.embed_tokens.lora_magnitude_vector.weight': { shape: [5], data: Float32Array.of(1, 2, 3, 4, 5) },
        },
      ),
    );
    const columns = await read(embedding, 'model.embed_tokens.weight');
    for (let column = 0; column < 5; column++) {
      const squares = Array.from({ length: 7 }, (_, row) => columns[5 * row + column] ** 2);
      expect(Math.sqrt(squares.reduce((x, y) => x + y))).toBeCloseTo(column + 1, 5);
    }
  });

  it('takes whole tensors from the adapter, and shifts biases', async () => {
    const norm = matrix(5);
    const shift = matrix(6);
    const named = { ...term(MODULE, a, b), [`${MODULE}.lora_B.bias`]: shift, 'model.norm.weight': norm };
    const source = withAdapter(base, adapter({ modules_to_save: ['norm'] }, named));
    expect(await read(source, 'model.norm.weight')).toEqual(Float64Array.from(norm.data));
    close(
      await read(source, `${MODULE}.bias`),
      Float64Array.from(model[`${MODULE}.bias`].data, (value, i) => value + 2 * shift.data[i]),
    );
  });

  it('adds the term of a table to the table that is saved beside it', async () => {
    const [a, b, saved] = [matrix(2, 6), matrix(4, 2), matrix(6, 4)];
    const stored: MemoryTensor = { dtype: 'F32', shape: [6, 4], data: values(24) };
    const directory = adapter(
      {},
      {
        'model.embed_tokens.base_layer.weight': saved,
        'model.embed_tokens.lora_embedding_A': a,
        'model.embed_tokens.lora_embedding_B': b,
      },
    );
    const source = withAdapter(memorySource('base', { 'model.embed_tokens.weight': stored }), directory);
    const expected = product(a, b, 2, true).map((value, i) => value + saved.data[i]);
    close(await read(source, 'model.embed_tokens.weight'), expected);
  });

  it('gives a head of its own to a model that has none', async () => {
    const [c, d] = [matrix(2, 5), matrix(7, 2)];
    const source = withAdapter(base, adapter({}, term('lm_head', c, d)));
    close(
      await read(source, 'lm_head.weight'),
      product(c, d, 2, false).map((value, i) => model['model.embed_tokens.weight'].data[i] + value),
    );
    expect(await read(source, 'model.embed_tokens.weight')).toEqual(
      Float64Array.from(model['model.embed_tokens.weight'].data),
    );
  });

  it('rounds once to the stored type', async () => {
    const half = memorySource('half', { [`${MODULE}.weight`]: { ...model[`${MODULE}.weight`], dtype: 'BF16' } });
    const source = withAdapter(half, adapter({}, term(MODULE, a, b)));
    const sums = product(a, b, 2, false).map((value, i) => stored[i] + value);
    const actual = await read(source, `${MODULE}.weight`);
    for (const [i, value] of actual.entries())
      expect(Math.abs(value - sums[i])).toBeLessThanOrEqual(Math.abs(sums[i]) / 256);
  });

  it.each([
    [{ peft_type: 'IA3' }, term(MODULE, a, b), 'only LORA adapters are read'],
    [{ init_lora_weights: 'pissa' }, term(MODULE, a, b), 'save them converted to plain LoRA'],
    [{ layer_replication: [[0, 1]] }, term(MODULE, a, b), 'repeat the layers'],
    [{}, term('model.layers.0.self_attn.p_proj', a, b), 'did you mean "model.layers.0.self_attn.q_proj"?'],
    [{}, term(MODULE, matrix(2, 4), b), 'is from 4 to 6, and model.layers.0.self_attn.q_proj.weight of base is [6, 5]'],
    [{}, term(MODULE, a, matrix(6, 3)), 'its ranks differ or are zero'],
    [{}, { [`${MODULE}.lora_A.weight`]: a }, 'has lora_A without lora_B'],
    [{ use_dora: true }, term(MODULE, a, b), 'has no lora_magnitude_vector'],
    [{ lora_alpha: 'x' }, term(MODULE, a, b), '"lora_alpha" is "x"'],
    [{}, { ...term(MODULE, a, b), 'model.nrom.weight': matrix(5) }, 'did you mean "model.norm.weight"?'],
  ])('refuses %j', (config, tensors, message) => {
    expect(() => withAdapter(base, adapter(config, tensors))).toThrow(message);
  });

  it('merges adapters of one base alone', () => {
    const yaml =
      'merge_method: ties\nbase_model: base\nparameters: {weight: 1}\nmodels: [{model: base+one}, {model: base+two}]';
    const [document] = parseMergeDocuments(yaml, 'c.yml');
    const sources = referencedModels(document).map((reference) => {
      const source = reference.lora === undefined ? base : withAdapter(base, adapter({}, term(MODULE, a, b)));
      return { ...source, reference };
    });
    const merge = planMerge(document, sources, [{}, {}, {}]);
    expect(merge.models.map(({ text }) => text)).toEqual(['base+one', 'base+two', 'base']);
    expect(merge.tensors).toHaveLength(5);
    expect(merge.tensors.every(({ inputs }) => inputs.length === 3)).toBe(true);
  });
});
