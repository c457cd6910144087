import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { readTorchTensor } from '../../src/formats/torch-tensor.js';
import { temporaryFolder } from './collect.js';

const ROOT = path.join(import.meta.dirname, '../../fixtures/steering');
const folder = temporaryFolder();
const expected = JSON.parse(fs.readFileSync(path.join(ROOT, 'expected.json'), 'utf8')) as Record<string, number[]>;

describe('tensors that torch.save wrote', () => {
  it.each([
    ['vec_layer_3_tiny-llama.pt', 'F32', 'vector'],
    ['vec_layer_5_tiny-llama.pt', 'F32', 'next'],
    ['strided.pt', 'F32', 'strided'],
    ['parameter.pt', 'F32', 'vector'],
    ['protocol4.pt', 'F32', 'vector'],
  ])('%s is %s of the values that torch had', (name, dtype, key) => {
    const tensor = readTorchTensor(path.join(ROOT, name));
    expect([tensor.dtype, tensor.shape]).toEqual([dtype, [8]]);
    expect([...new Float32Array(tensor.bytes.slice().buffer)]).toEqual(expected[key]);
  });

  it('keeps the types of two bytes', () => {
    expect(readTorchTensor(path.join(ROOT, 'half.pt'))).toMatchObject({ dtype: 'F16', shape: [8] });
    expect(readTorchTensor(path.join(ROOT, 'bfloat16.pt')).bytes.length).toBe(16);
  });

  it('refuses a tensor that reaches beyond its storage, and files that are no archive', () => {
    const bytes = fs.readFileSync(path.join(ROOT, 'vec_layer_5_tiny-llama.pt'));
    // The offset of the view, 8, stands after the persistent id: BINPERSID, BININT1 8.
    const at = bytes.indexOf(Buffer.of(0x51, 0x4b, 8));
    expect(at).toBeGreaterThan(0);
    bytes[at + 2] = 9;
    const file = path.join(folder, 'beyond.pt');
    fs.writeFileSync(file, bytes);
    expect(() => readTorchTensor(file)).toThrow(/beyond its storage/);
    fs.writeFileSync(file, 'text');
    expect(() => readTorchTensor(file)).toThrow(/not a ZIP archive/);
    fs.writeFileSync(file, bytes.subarray(0, 600));
    expect(() => readTorchTensor(file)).toThrow(/ZIP directory/);
  });
});
