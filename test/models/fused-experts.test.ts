import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { type ModelFiles, openModelFiles } from '../../src/models/model-files.js';
import { createRandom } from '../../src/random.js';
import { logitsOf } from '../quantization/model-logits.js';
import {
  type Checkpoint,
  type RawTensor,
  readCheckpoint,
  readConfig,
  writeCheckpoint,
} from './rewritten-checkpoint.js';

const ROOT = 'fixtures/architectures';
const folder = mkdtempSync(join(tmpdir(), 'surprisal-fused-'));
afterAll(() => rmSync(folder, { recursive: true }));

const PARTS: Readonly<Record<string, 'gate' | 'up' | 'down'>> = {
  w1: 'gate',
  w3: 'up',
  w2: 'down',
  gate_proj: 'gate',
  up_proj: 'up',
  down_proj: 'down',
};
const EXPERT = /^(model\.layers\.\d+\.(?:block_sparse_moe|mlp)\.)experts\.\d+\.(\w+)\.weight$/;

/** [rows, columns] as [columns, rows]. */
function turned({ dtype, shape: [rows, columns], bytes }: RawTensor): RawTensor {
  const size = bytes.length / (rows * columns);
  const target = new Uint8Array(bytes.length);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      target.set(bytes.subarray((r * columns + c) * size, (r * columns + c + 1) * size), (c * rows + r) * size);
    }
  }
  return { dtype, shape: [columns, rows], bytes: target };
}

function stacked(matrices: readonly RawTensor[]): RawTensor {
  const [{ dtype, shape }] = matrices;
  return { dtype, shape: [matrices.length, ...shape], bytes: Buffer.concat(matrices.map(({ bytes }) => bytes)) };
}

/** The checkpoint with all experts of a layer in two tensors. */
function fused(tensors: Checkpoint, orientation: 'rows' | 'columns', suffix = ''): Checkpoint {
  const result: Checkpoint = new Map();
  const layers = new Map<string, Record<'gate' | 'up' | 'down', RawTensor[]>>();
  for (const [name, tensor] of tensors) {
    const [, prefix, part] = EXPERT.exec(name) ?? [];
    if (prefix === undefined) {
      result.set(name, tensor);
      continue;
    }
    const parts = layers.get(prefix) ?? { gate: [], up: [], down: [] };
    parts[PARTS[part]].push(tensor);
    layers.set(prefix, parts);
  }
  for (const [prefix, { gate, up, down }] of layers) {
    const both = gate.map(({ dtype, shape, bytes }, e) => ({
      dtype,
      shape: [2 * shape[0], shape[1]],
      bytes: Buffer.concat([bytes, up[e].bytes]),
    }));
    const lay = (matrix: RawTensor): RawTensor => (orientation === 'columns' ? turned(matrix) : matrix);
    result.set(`${prefix}experts.gate_up_proj${suffix}`, stacked(both.map(lay)));
    result.set(`${prefix}experts.down_proj${suffix}`, stacked(down.map(lay)));
  }
  return result;
}

let made = 0;
function write(name: string, tensors: Checkpoint): string {
  return writeCheckpoint(join(folder, `${name}-${made++}`), readConfig(join(ROOT, name)), tensors);
}

/** Bytes of a stored tensor in pieces. */
function piecewise(files: ModelFiles, name: string, step: number): Uint8Array {
  const info = files.store.tensors.get(name);
  if (!info) throw new Error(name);
  const bytes = new Uint8Array(info.byteLength);
  for (let at = 0; at < bytes.length; at += step) {
    const length = Math.min(step, bytes.length - at);
    files.store.readInto(info, at, length, bytes.subarray(at, at + length));
  }
  return bytes;
}

describe('experts of a layer in one tensor', () => {
  it.each([
    ['mixtral', '.weight'],
    ['qwen2-moe-shared', ''],
    ['qwen3-moe', '.weight'],
    ['olmoe', ''],
  ])('%s with names that end in "%s" gives the bits of experts apart', async (name, suffix) => {
    const wanted = await logitsOf(openModelFiles(join(ROOT, name)), 'f32');
    for (const orientation of ['rows', 'columns'] as const) {
      const path = write(name, fused(readCheckpoint(join(ROOT, name)), orientation, suffix));
      expect(await logitsOf(openModelFiles(path), 'f32'), orientation).toEqual(wanted);
    }
  });

  it('by columns is shown by rows, whatever ranges are read', () => {
    const rows = openModelFiles(write('olmoe', fused(readCheckpoint(join(ROOT, 'olmoe')), 'rows')));
    const columns = openModelFiles(write('olmoe', fused(readCheckpoint(join(ROOT, 'olmoe')), 'columns')));
    const random = createRandom(3n);
    for (const name of ['gate_up_proj', 'down_proj'].map((part) => `model.layers.1.mlp.experts.${part}`)) {
      expect(columns.store.tensors.get(name)?.shape).toEqual(rows.store.tensors.get(name)?.shape);
      const wanted = piecewise(rows, name, 1 << 20);
      for (const step of [3, 64, 5000, 1 << 20]) expect(piecewise(columns, name, step)).toEqual(wanted);
      const info = columns.store.tensors.get(name);
      if (!info) throw new Error(name);
      for (let i = 0; i < 40; i++) {
        const start = random.integer(info.byteLength);
        const length = random.integer(info.byteLength - start + 1);
        const bytes = new Uint8Array(length);
        columns.store.readInto(info, start, length, bytes);
        expect(bytes).toEqual(wanted.slice(start, start + length));
      }
      expect(() => columns.store.readInto(info, 1, info.byteLength, new Uint8Array(info.byteLength))).toThrow(
        RangeError,
      );
    }
    rows.store.close();
    columns.store.close();
  });

  const prefix = 'model.layers.1.mlp.experts.';
  const resized = ({ dtype, bytes }: RawTensor, shape: number[]): RawTensor => ({ dtype, shape, bytes });
  const broken: [string, (tensors: Checkpoint) => void, RegExp][] = [
    [
      'one is missing',
      (t) => t.delete(`${prefix}down_proj`),
      /: tensor "model\.layers\.1\.mlp\.experts\.down_proj" or "model\.layers\.1\.mlp\.experts\.down_proj\.weight" is missing/,
    ],
    [
      'there are too few experts',
      (t) => t.set(`${prefix}gate_up_proj`, resized(need(t, `${prefix}gate_up_proj`), [4, 160, 32])),
      /gate_up_proj" has shape \[4,160,32\] but the config asks for \[8,80,32\] or \[8,32,80\]/,
    ],
    [
      'the width is another',
      (t) => t.set(`${prefix}down_proj`, resized(need(t, `${prefix}down_proj`), [8, 20, 64])),
      /down_proj" has shape \[8,20,64\] but the config asks for \[8,32,40\] or \[8,40,32\]/,
    ],
    [
      'they do not lie alike',
      (t) => t.set(`${prefix}down_proj`, resized(need(t, `${prefix}down_proj`), [8, 40, 32])),
      /do not lie alike/,
    ],
    [
      'biases are beside them',
      (t) => t.set(`${prefix}down_proj_bias`, need(t, 'model.norm.weight')),
      /unexpected tensor.*_bias/,
    ],
  ];
  it.each(broken)('is refused where %s', (_, change, message) => {
    const tensors = fused(readCheckpoint(join(ROOT, 'olmoe')), 'rows');
    change(tensors);
    const path = write('olmoe', tensors);
    expect(() => openModelFiles(path)).toThrow(InputError);
    expect(() => openModelFiles(path)).toThrow(message);
  });
});

function need(tensors: Checkpoint, name: string): RawTensor {
  const tensor = tensors.get(name);
  if (!tensor) throw new Error(name);
  return tensor;
}
