import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openSafetensors } from '../../../src/formats/safetensors.js';
import { encodeSafetensors } from '../../../src/formats/safetensors-writer.js';
import { type DType, elementCount } from '../../../src/formats/tensor.js';
import { mergeModels } from '../../../src/fusion/merge/merge-job.js';
import { widenToF64 } from '../../../src/kernels/dtypes.js';
import { openTokenizer } from '../../../src/tokenizers/tokenizer.js';
import { temporaryFolder } from '../../formats/collect.js';

/** Values of a tensor as base64 of f32. */
interface Packed {
  readonly shape: number[];
  readonly f32: string;
}

interface Model {
  readonly files: Readonly<Record<string, unknown>>;
  readonly tensors: Readonly<Record<string, Packed>>;
}

/** A configuration and what mergekit wrote for it (fixtures/fusion/make.py). */
interface Case {
  readonly name: string;
  readonly configuration: string;
  readonly config: Readonly<Record<string, number>>;
  readonly dtype: 'float32' | 'bfloat16';
  readonly shapes: Readonly<Record<string, number[]>>;
  /** Ids of the tokens where the configuration says something of the tokenizer. */
  readonly tokens: Readonly<Record<string, number>> | null;
  readonly tensors: Readonly<Record<string, Packed>>;
}

const fixture = <T>(name: string): T =>
  JSON.parse(readFileSync(new URL(`../../../fixtures/fusion/${name}`, import.meta.url), 'utf8')) as T;
const cases = fixture<Case[]>('mergekit-cases.json');
const folder = temporaryFolder();

function unpacked({ f32 }: Packed): Float32Array {
  const bytes = Buffer.from(f32, 'base64');
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(4 * i));
}

/** Writes the models of the fixture; their folders by name. */
function writeModels(): Map<string, string> {
  const directories = new Map<string, string>();
  for (const [name, { files, tensors }] of Object.entries(fixture<Record<string, Model>>('mergekit-models.json'))) {
    const directory = join(folder, name);
    mkdirSync(directory);
    for (const [file, content] of Object.entries(files)) writeFileSync(join(directory, file), JSON.stringify(content));
    const stored = Object.entries(tensors).map(([tensor, packed]) => ({
      name: tensor,
      dtype: 'F32' as const,
      shape: packed.shape,
      data: unpacked(packed),
    }));
    const file = name === 'lora' ? 'adapter_model.safetensors' : 'model.safetensors';
    writeFileSync(join(directory, file), encodeSafetensors(stored, { format: 'pt' }));
    directories.set(name, directory);
  }
  return directories;
}

function tensorsOf(directory: string): Map<string, { dtype: string; shape: readonly number[]; values: Float64Array }> {
  const store = openSafetensors(join(directory, 'model.safetensors'));
  try {
    return new Map(
      [...store.tensors.values()].map((info) => {
        const bytes = new Uint8Array(info.byteLength);
        store.readInto(info, 0, bytes.length, bytes);
        const values = new Float64Array(elementCount(info.shape));
        widenToF64(bytes, info.dtype as DType, values);
        return [info.name, { dtype: info.dtype, shape: info.shape, values }];
      }),
    );
  } finally {
    store.close();
  }
}

function tokensOf(directory: string): Map<string, number> {
  const tokenizer = openTokenizer(directory);
  return new Map(Array.from({ length: tokenizer.vocabularySize }, (_, id) => [tokenizer.tokenText(id), id]));
}

/** The tensor with its rows where mergekit has the same tokens; the same ids are padding in both. */
function inOrderOf(
  expected: Readonly<Record<string, number>>,
  ours: ReadonlyMap<string, number>,
  values: Float64Array,
  width: number,
): Float64Array {
  const ordered = values.slice();
  for (const [token, id] of Object.entries(expected)) {
    const row = ours.get(token);
    expect(row, token).toBeDefined();
    if (row !== undefined) ordered.set(values.subarray(row * width, (row + 1) * width), id * width);
  }
  return ordered;
}

describe('merges equal those of mergekit', () => {
  const directories = writeModels();

  it.each(cases.map((golden) => [golden.name, golden] as const))('%s', async (name, golden) => {
    const out = join(folder, `out-${name}`);
    const args: Parameters<typeof mergeModels>[0] = {
      configuration: golden.configuration,
      configurationName: `${name}.yml`,
      out,
      directories,
      settings: {
        seed: 0,
        variant: 'surprisal',
        maxShardBytes: 5e9,
        keepPadding: false,
        copyTokenizer: true,
        modelCard: false,
        allowCrimes: false,
        allowNonFinite: false,
        diagnostics: 'none',
      },
      memoryBytes: 1 << 30,
      threads: 2,
      write: {},
      head: { tool: { name: 'surprisal', version: '0' }, command: 'fuse merge', parameters: {} },
    };
    await mergeModels(args, () => undefined);
    const config = JSON.parse(readFileSync(join(out, 'config.json'), 'utf8')) as Record<string, unknown>;
    expect(config).toMatchObject(golden.config);
    const merged = tensorsOf(out);
    const shapes = Object.fromEntries([...merged].map(([tensor, { shape }]) => [tensor, shape]));
    expect(shapes).toEqual(golden.shapes);
    const tokens = golden.tokens === null ? undefined : tokensOf(out);
    if (golden.tokens !== null) expect(new Set(tokens?.keys())).toEqual(new Set(Object.keys(golden.tokens)));
    for (const [tensor, packed] of Object.entries(golden.tensors)) {
      const ours = merged.get(tensor);
      expect(ours?.dtype).toBe(golden.dtype === 'float32' ? 'F32' : 'BF16');
      if (ours === undefined) continue;
      const values =
        golden.tokens === null || tokens === undefined
          ? ours.values
          : inOrderOf(golden.tokens, tokens, ours.values, packed.shape[1]);
      const expected = unpacked(packed);
      // mergekit computes in f32: a few of its roundings beside ours, or one of BF16.
      const tolerance = golden.dtype === 'float32' ? 2e-6 : 2 ** -8;
      for (const [i, value] of expected.entries())
        expect(Math.abs(values[i] - value), `${tensor}[${i}]`).toBeLessThanOrEqual(
          tolerance * Math.max(1, Math.abs(value)),
        );
    }
  });
});
