import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { encodeSafetensors } from '../../src/formats/safetensors-writer.js';
import type { DType } from '../../src/formats/tensor.js';

/** A stored tensor with its bytes. */
export interface RawTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

export type Checkpoint = Map<string, RawTensor>;

/** All tensors of a model directory's `model.safetensors`. */
export function readCheckpoint(path: string): Checkpoint {
  const store = openSafetensors(join(path, 'model.safetensors'));
  const tensors: Checkpoint = new Map();
  for (const info of store.tensors.values()) {
    const bytes = new Uint8Array(info.byteLength);
    store.readInto(info, 0, info.byteLength, bytes);
    tensors.set(info.name, { dtype: info.dtype as DType, shape: info.shape, bytes });
  }
  store.close();
  return tensors;
}

/** The parsed `config.json` of a model directory. */
export function readConfig(path: string): Record<string, unknown> {
  return JSON.parse(readFileSync(join(path, 'config.json'), 'utf8'));
}

/** A model directory of these tensors. */
export function writeCheckpoint(path: string, config: unknown, tensors: Checkpoint): string {
  mkdirSync(path, { recursive: true });
  writeFileSync(join(path, 'config.json'), JSON.stringify(config));
  const plan = [...tensors].map(([name, { dtype, shape, bytes }]) => ({ name, dtype, shape, data: bytes }));
  writeFileSync(join(path, 'model.safetensors'), encodeSafetensors(plan));
  return path;
}

/** A tensor of 32-bit integers. */
export function integerTensor(values: readonly number[]): RawTensor {
  return { dtype: 'I32', shape: [values.length], bytes: new Uint8Array(Int32Array.from(values).buffer) };
}
