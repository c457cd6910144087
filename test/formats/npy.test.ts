import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { InputError, RunError } from '../../src/errors.js';
import { createNpyWriter, npyStore, openNpy, readNpyBytes } from '../../src/formats/npy.js';
import type { DType } from '../../src/formats/tensor.js';
import { contents, expected, fixture, temporaryDirectory } from './written-elsewhere.js';

const directory = temporaryDirectory();

function write(name: string, bytes: Uint8Array): string {
  const file = path.join(directory, name);
  fs.writeFileSync(file, bytes);
  return file;
}

/** A file of version 1.0 with the given header text. */
function withHeader(name: string, header: string, dataBytes: number): string {
  const start = Buffer.from([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, 0, 0]);
  start.writeUInt16LE(header.length, 8);
  return write(name, Buffer.concat([start, Buffer.from(header, 'latin1'), Buffer.alloc(dataBytes)]));
}

const arrays = Object.keys(expected).filter((name) => name.endsWith('.npy') && name !== 'bf16_void.npy');

describe('openNpy', () => {
  it.each(arrays)('reads %s as row-major little-endian', (name) => {
    const array = openNpy(fixture(name));
    expect(contents(npyStore(array))).toEqual(expected[name]);
    array.close();
  });

  it('says how a file is stored', () => {
    const array = openNpy(fixture('f4_fortran.npy'));
    expect(array.fortranOrder).toBe(true);
    expect(array.shape).toEqual([3, 4]);
    array.close();
  });

  it('reads ranges of converted arrays by whole elements', () => {
    for (const name of ['f8_big.npy', 'i2_big_fortran3.npy']) {
      const array = openNpy(fixture(name));
      const { hex } = Object.values(expected[name])[0];
      const part = Buffer.alloc(16);
      array.readInto(8, 16, part);
      expect(part.toString('hex')).toBe(hex.slice(16, 48));
      expect(() => array.readInto(1, 16, part)).toThrow(RangeError);
      expect(() => array.readInto(array.byteLength, 8, part)).toThrow(RangeError);
      array.close();
    }
  });

  it('reads V2 as bfloat16 only when told so', () => {
    expect(() => openNpy(fixture('bf16_void.npy'))).toThrow(/does not say what it holds: say that it is bfloat16/);
    const array = openNpy(fixture('bf16_void.npy'), { voidAsBf16: true });
    expect(contents(npyStore(array))).toEqual(expected['bf16_void.npy']);
    array.close();
  });

  it('refuses what is not numbers', () => {
    expect(() => openNpy(fixture('object.npy'))).toThrow(/a Python pickle\) is not read/);
    expect(() => openNpy(fixture('text.npy'))).toThrow(/"<U2" \(text\) is not read/);
    expect(() => openNpy(fixture('record.npy'))).toThrow(/structured array/);
    expect(() => openNpy(fixture('complex.npy'))).toThrow(/complex numbers/);
    expect(() => openNpy(fixture('object.npy'))).toThrow(InputError);
  });

  const good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
  const cases: [string, string, number, RegExp][] = [
    ['truncated data', good, 7, /truncated: F32 \[2\] takes 8 bytes, 7 are there/],
    ['a second array behind', good, 9, /1 bytes follow the array/],
    ['no dictionary', '(1, 2)', 8, /not a dictionary/],
    ['an open dictionary', good.slice(0, -2), 8, /not what numpy writes/],
    ['a call instead of a literal', "{'descr': open('x')}", 8, /not what numpy writes/],
    ['no dtype', "{'fortran_order': False, 'shape': (2,)}", 8, /no "descr"/],
    ['no order', "{'descr': '<f4', 'shape': (2,)}", 8, /fortran_order/],
    ['a negative extent', good.replace('2', '-2'), 8, /shape/],
    ['a shape that overflows', good.replace('(2,)', '(9999999999, 9999999999)'), 8, /larger than any file/],
    ['an unknown dtype', good.replace('<f4', '<q7'), 8, /"<q7" is not read/],
    ['deep nesting', '('.repeat(5000), 8, /not what numpy writes/],
  ];
  it.each(cases)('refuses %s', (name, header, dataBytes, message) => {
    const file = withHeader(`${name}.npy`, header, dataBytes);
    expect(() => openNpy(file)).toThrow(InputError);
    expect(() => openNpy(file)).toThrow(message);
  });

  it('refuses an empty file, another format, and every truncation', () => {
    expect(() => openNpy(write('empty.npy', new Uint8Array(0)))).toThrow(/the file is empty/);
    expect(() => openNpy(fixture('types.gguf'))).toThrow(/not an .npy array/);
    const whole = fs.readFileSync(fixture('f8_v3.npy'));
    for (let length = 1; length < whole.length; length++)
      expect(() => openNpy(write('cut.npy', whole.subarray(0, length)))).toThrow(InputError);
  });
});

describe('createNpyWriter', () => {
  it.each(['f4', 'u8_scalar', 'b1', 'i1_empty', 'bf16_void'])('gives the bytes of numpy for %s', (name) => {
    const { dtype, shape, hex } = expected[`${name}.npy`][name];
    const target = path.join(directory, `written-${name}.npy`);
    const writer = createNpyWriter(target, { dtype: dtype as DType, shape });
    const bytes = Buffer.from(hex, 'hex');
    writer.write(bytes.subarray(0, 5));
    writer.write(bytes.subarray(5));
    writer.commit();
    expect(fs.readFileSync(target)).toEqual(fs.readFileSync(fixture(`${name}.npy`)));
  });

  it('counts the rows of an array whose length is not known beforehand', () => {
    const target = path.join(directory, 'growing.npy');
    const writer = createNpyWriter(target, { dtype: 'I16', shape: [-1, 3] });
    for (let row = 0; row < 5; row++) writer.write(Uint8Array.of(row, 0, row, 0, row, 0));
    writer.commit();
    const array = openNpy(target);
    expect(array.shape).toEqual([5, 3]);
    expect([...new Int16Array(readNpyBytes(array).buffer)]).toEqual([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]);
    array.close();
  });

  it('refuses to commit half an array, and dtypes that numpy lacks', () => {
    const target = path.join(directory, 'half.npy');
    const writer = createNpyWriter(target, { dtype: 'F32', shape: [2] });
    writer.write(new Uint8Array(4));
    expect(() => writer.write(new Uint8Array(8))).toThrow(RangeError);
    expect(() => writer.commit()).toThrow(RunError);
    writer.abort();
    expect(fs.existsSync(target)).toBe(false);
    expect(() => createNpyWriter(target, { dtype: 'F8_E5M2', shape: [2] })).toThrow(InputError);
  });
});
