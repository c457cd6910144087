import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import {
  encodeOnnxModel,
  onnxDType,
  onnxElementType,
  onnxInputs,
  onnxOutputs,
  readOnnxModel,
} from '../../src/formats/onnx.js';
import { fixture, temporaryDirectory } from './written-elsewhere.js';

const directory = temporaryDirectory();

function write(name: string, bytes: Uint8Array): string {
  const file = path.join(directory, name);
  fs.writeFileSync(file, bytes);
  return file;
}

describe('readOnnxModel', () => {
  it('lists what has to be fed and what comes out', () => {
    const model = readOnnxModel(fixture('gemm.onnx'));
    expect(onnxInputs(model)).toEqual([
      { name: 'x', dtype: 'F32', shape: ['batch', 3] },
      { name: 'ids', dtype: 'I64', shape: ['?', 4] },
    ]);
    expect(onnxOutputs(model)).toEqual([
      { name: 'y', dtype: 'F16', shape: ['batch', 2] },
      { name: 'z', dtype: 'BOOL', shape: undefined },
    ]);
    expect(model.graph?.node.map(({ opType }) => opType)).toEqual(['Gemm']);
  });

  it('serialises to the bytes of the onnx package', () => {
    const bytes = fs.readFileSync(fixture('gemm.onnx'));
    expect(Buffer.from(encodeOnnxModel(readOnnxModel(fixture('gemm.onnx'))))).toEqual(bytes);
  });

  it('refuses what is no model', () => {
    expect(() => readOnnxModel(write('empty.onnx', new Uint8Array(0)))).toThrow(/the file is empty/);
    expect(() => readOnnxModel(path.join(directory, 'absent.onnx'))).toThrow(/no such file/);
    expect(() => readOnnxModel(write('text.onnx', Buffer.from('<html>not found</html>')))).toThrow(InputError);
    // A well-formed message of unknown fields only.
    expect(() => readOnnxModel(write('other.onnx', Uint8Array.of(0xf8, 0x07, 1)))).toThrow(/holds no ONNX graph/);
    const whole = fs.readFileSync(fixture('gemm.onnx'));
    for (let length = 1; length < whole.length; length++)
      expect(() => readOnnxModel(write('cut.onnx', whole.subarray(0, length)))).toThrow(InputError);
  });

  it('refuses a file over 2 GiB before reading it', () => {
    const file = path.join(directory, 'large.onnx');
    fs.closeSync(fs.openSync(file, 'w'));
    fs.truncateSync(file, 2 ** 31 + 1);
    expect(() => readOnnxModel(file)).toThrow(/over 2 GiB is invalid, save its weights as external data/);
    fs.rmSync(file);
  });

  it('refuses nesting without end', () => {
    let bytes: Uint8Array = new Uint8Array(0);
    const varint = (value: number): number[] => (value < 128 ? [value] : [(value & 127) | 128, ...varint(value >>> 7)]);
    // graph.node.attribute.g.node.attribute.g...
    for (let level = 0; level < 3000; level++) {
      const field = [0x32, 0x2a, 0x0a][level % 3];
      bytes = Uint8Array.from([field, ...varint(bytes.length), ...bytes]);
    }
    expect(() => readOnnxModel(write('deep.onnx', Uint8Array.from([0x3a, ...varint(bytes.length), ...bytes])))).toThrow(
      InputError,
    );
  });
});

describe('element types', () => {
  it('have the numbers of onnx.proto', () => {
    expect(
      ['F32', 'U8', 'I8', 'I32', 'I64', 'BOOL', 'F16', 'F64', 'BF16'].map((d) => onnxElementType(d as 'F32')),
    ).toEqual([1, 2, 3, 6, 7, 9, 10, 11, 16]);
    expect(onnxDType(17)).toBe('F8_E4M3');
    expect(onnxDType(19)).toBe('F8_E5M2');
    expect(onnxDType(8)).toBeUndefined();
  });
});
