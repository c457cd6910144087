import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { contents, expected, fixture, temporaryDirectory } from './written-elsewhere.js';

const directory = temporaryDirectory();

/** Writes a file from a header text and data bytes; `declared` overrides the length field. */
function write(name: string, header: string | Uint8Array, dataBytes: number, declared?: bigint): string {
  const json = Buffer.from(header as string);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(declared ?? BigInt(json.length));
  const file = path.join(directory, name);
  fs.writeFileSync(file, Buffer.concat([length, json, Buffer.alloc(dataBytes)]));
  return file;
}

const entry = (dtype: unknown, shape: unknown, begin: number, end: number): string =>
  JSON.stringify({ dtype, shape, data_offsets: [begin, end] });

describe('openSafetensors', () => {
  it('reads every dtype that the safetensors library wrote', () => {
    const store = openSafetensors(fixture('dtypes.safetensors'));
    expect(contents(store)).toEqual(expected['dtypes.safetensors']);
    expect(store.metadata).toEqual({ format: 'pt', 'made by': 'safetensors' });
    store.close();
    store.close();
    expect(() => contents(store)).toThrow(RangeError);
  });

  it('reads shards from a directory and from the index, and names each tensor’s file', () => {
    for (const location of ['sharded', 'sharded/model.safetensors.index.json']) {
      const store = openSafetensors(fixture(location));
      expect(contents(store)).toEqual(expected.sharded);
      expect(store.path).toBe(fixture(location));
      expect(store.tensors.get('layer.4.weight')?.file).toBe(fixture('sharded/model-00003-of-00003.safetensors'));
      store.close();
    }
  });

  it('reads a range within a tensor and refuses one outside', () => {
    const store = openSafetensors(fixture('uniform.safetensors'));
    const info = store.tensors.get('layer.2.weight')!;
    const part = new Uint8Array(12);
    store.readInto(info, 20, 8, part);
    const whole = expected['uniform.safetensors']['layer.2.weight'].hex;
    expect(Buffer.from(part).toString('hex')).toBe(`${whole.slice(40, 56)}00000000`);
    expect(() => store.readInto(info, 124, 8, part)).toThrow(RangeError);
    expect(() => store.readInto(info, -1, 2, part)).toThrow(RangeError);
    store.close();
  });

  it('follows the symbolic links of the hub cache', () => {
    const snapshot = path.join(directory, 'snapshots');
    fs.mkdirSync(snapshot);
    for (const name of fs.readdirSync(fixture('sharded')))
      fs.symlinkSync(fixture(`sharded/${name}`), path.join(snapshot, name));
    const store = openSafetensors(snapshot);
    expect(contents(store)).toEqual(expected.sharded);
    store.close();
  });

  it('reads a tensor that lies beyond 4 GiB', () => {
    const big = 5 * 2 ** 30;
    const json = `{"a":${entry('U8', [big], 0, big)},"b":${entry('U8', [4], big, big + 4)}}`;
    const file = write('sparse.safetensors', json, 0);
    const fd = fs.openSync(file, 'r+');
    fs.writeSync(fd, Uint8Array.of(1, 2, 3, 4), 0, 4, 8 + json.length + big);
    fs.closeSync(fd);
    const store = openSafetensors(file);
    const bytes = new Uint8Array(4);
    store.readInto(store.tensors.get('b')!, 0, 4, bytes);
    expect([...bytes]).toEqual([1, 2, 3, 4]);
    store.close();
    fs.rmSync(file);
  });
});

describe('safetensors that are refused', () => {
  const a = (e: string): string => `{"a":${e}}`;
  const cases: [string, string | Uint8Array, number, RegExp, bigint?][] = [
    ['shorter than its header', '{}', 0, /truncated: its header takes 999 bytes/, 999n],
    ['an oversized header', '{}', 0, /not a safetensors file/, 100_000_001n],
    ['an absurd header length', '{}', 0, /not a safetensors file/, 2n ** 64n - 1n],
    ['a header that is a list', '[]', 0, /not a JSON object/],
    ['a header that is no JSON', '{"a":', 0, /not valid JSON/],
    ['invalid UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d]), 0, /not valid UTF-8/],
    ['a name that stands twice', `{"a":${entry('U8', [1], 0, 1)},"\\u0061":${entry('U8', [1], 1, 2)}}`, 2, /"a" twice/],
    ['an entry that is no object', a('3'), 0, /tensor "a": its header entry/],
    ['an unknown dtype', a(entry('F31', [1], 0, 4)), 4, /unknown dtype "F31"; did you mean/],
    ['a prototype name as dtype', a(entry('toString', [1], 0, 4)), 4, /unknown dtype/],
    ['a fractional shape', a(entry('F32', [1.5], 0, 6)), 6, /whole numbers/],
    ['a negative shape', a(entry('F32', [-1], 0, 4)), 4, /whole numbers/],
    ['a shape that overflows', a(entry('F32', [2 ** 40, 2 ** 40], 0, 4)), 4, /larger than any file/],
    ['offsets that run backwards', a(entry('F32', [1], 4, 0)), 4, /backwards/],
    ['offsets past the end', a(entry('F32', [2], 0, 8)), 4, /tensor "a": ends at byte 8.*truncated/],
    ['a length that disagrees', a(entry('F32', [2], 0, 4)), 4, /4 bytes stored, but F32 \[2\] takes 8/],
    ['overlaps', `{"a":${entry('U8', [4], 0, 4)},"b":${entry('U8', [4], 2, 6)}}`, 6, /"a" and "b" overlap/],
    ['a hole', `{"a":${entry('U8', [2], 0, 2)},"b":${entry('U8', [2], 4, 6)}}`, 6, /2 bytes before tensor "b"/],
    ['a rest', a(entry('U8', [2], 0, 2)), 3, /1 bytes after the last tensor/],
    ['metadata that are no strings', '{"__metadata__":{"n":1}}', 0, /"n" is not a string/],
    ['metadata that are no object', '{"__metadata__":[]}', 0, /__metadata__ is not an object/],
  ];
  it.each(cases)('%s', (name, header, dataBytes, message, declared) => {
    const file = write(`${name.replaceAll(' ', '-')}.safetensors`, header, dataBytes, declared);
    expect(() => openSafetensors(file)).toThrow(InputError);
    expect(() => openSafetensors(file)).toThrow(message);
    expect(() => openSafetensors(file)).toThrow(file);
  });

  it('an empty, a missing and a truncated file', () => {
    const empty = path.join(directory, 'empty.safetensors');
    fs.writeFileSync(empty, '');
    expect(() => openSafetensors(empty)).toThrow(/the file is empty/);
    expect(() => openSafetensors(path.join(directory, 'absent.safetensors'))).toThrow(/no such file/);
    const whole = fs.readFileSync(fixture('dtypes.safetensors'));
    const cut = path.join(directory, 'cut.safetensors');
    for (let length = 1; length < whole.length; length += 7) {
      fs.writeFileSync(cut, whole.subarray(0, length));
      expect(() => openSafetensors(cut)).toThrow(InputError);
    }
  });

  it('an index that disagrees with its shards', () => {
    const copy = path.join(directory, 'index');
    fs.cpSync(fixture('sharded'), copy, { recursive: true });
    const indexPath = path.join(copy, 'model.safetensors.index.json');
    const index = JSON.parse(fs.readFileSync(indexPath, 'utf8')) as { weight_map: Record<string, string> };
    const rewrite = (change: (map: Record<string, string>) => void): void => {
      const map = { ...index.weight_map };
      change(map);
      fs.writeFileSync(indexPath, JSON.stringify({ weight_map: map }));
    };
    rewrite((map) => {
      map['layer.9.weight'] = 'model-00001-of-00003.safetensors';
    });
    expect(() => openSafetensors(copy)).toThrow(/lacks tensor "layer.9.weight"/);
    rewrite((map) => {
      map['layer.0.weight'] = 'model-00002-of-00003.safetensors';
    });
    expect(() => openSafetensors(copy)).toThrow(/lacks tensor "layer.0.weight"/);
    rewrite((map) => {
      map['layer.0.weight'] = '../model-00002-of-00003.safetensors';
    });
    expect(() => openSafetensors(copy)).toThrow(/outside of the directory/);
    rewrite(() => undefined);
    fs.copyFileSync(
      path.join(copy, 'model-00001-of-00003.safetensors'),
      path.join(copy, 'model-00002-of-00003.safetensors'),
    );
    expect(() => openSafetensors(copy)).toThrow(/"layer.0.weight" is both in/);
    fs.rmSync(path.join(copy, 'model-00002-of-00003.safetensors'));
    expect(() => openSafetensors(copy)).toThrow(/shard "model-00002-of-00003.safetensors" is missing/);
    fs.writeFileSync(indexPath, '{"weight_map":{"a":"x","a":"y"}}');
    expect(() => openSafetensors(copy)).toThrow(/"a" twice/);
    fs.rmSync(indexPath);
    expect(() => openSafetensors(copy)).toThrow(/no model.safetensors.index.json/);
  });

  it('a directory of PyTorch pickles', () => {
    const torch = path.join(directory, 'torch');
    fs.mkdirSync(torch);
    expect(() => openSafetensors(torch)).toThrow(/holds no model.safetensors/);
    fs.writeFileSync(path.join(torch, 'pytorch_model.bin'), '');
    expect(() => openSafetensors(torch)).toThrow(/PyTorch pickles are not read/);
  });
});
