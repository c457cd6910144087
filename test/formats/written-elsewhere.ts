import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll } from 'vitest';
import type { TensorStore } from '../../src/formats/tensor.js';

const ROOT = path.join(import.meta.dirname, '../../fixtures/formats');

/** Path of a file that another tool wrote (fixtures/formats/README.md). */
export function fixture(name: string): string {
  return path.join(ROOT, name);
}

export interface ExpectedTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly hex: string;
}

/** Dtype, shape and bytes of every tensor, as the writing tool held them. */
export const expected: Readonly<Record<string, Readonly<Record<string, ExpectedTensor>>>> = JSON.parse(
  fs.readFileSync(fixture('expected.json'), 'utf8'),
);

/** The content of a store in the form of `expected`. */
export function contents(store: TensorStore): Record<string, ExpectedTensor> {
  return Object.fromEntries(
    [...store.tensors.values()].map((info) => {
      const bytes = Buffer.alloc(info.byteLength);
      store.readInto(info, 0, info.byteLength, bytes);
      return [info.name, { dtype: info.dtype, shape: info.shape, hex: bytes.toString('hex') }];
    }),
  );
}

/** A directory that is removed after the file's tests. */
export function temporaryDirectory(): string {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'surprisal-formats-'));
  afterAll(() => fs.rmSync(directory, { recursive: true, force: true }));
  return directory;
}
