import { describe, expect, it } from 'vitest';
import { updateCrc32, updateCrc32Reference } from '../../src/formats/crc32.js';
import {
  encodePvqMetadata,
  fileBitsPerWeight,
  fixedFileBytes,
  matrixOf,
  type PvqTensor,
  parsePayloadName,
  parsePvqMetadata,
  payloadName,
  payloadPlan,
  pvqTables,
  tensorFileBytes,
} from '../../src/formats/pvq.js';
import { layOutSafetensors } from '../../src/formats/safetensors-writer.js';
import { createRandom } from '../../src/random.js';

const SHA = '0123456789abcdef'.repeat(4);

function tensor(name: string, changes: Partial<PvqTensor> = {}): PvqTensor {
  return {
    name,
    shape: [12, 32],
    dtype: 'BF16',
    transposed: false,
    code: { groupLength: 16, pulses: 12, superGroup: 1, gainBits: 2 },
    wordBits: 32,
    gainPolicy: 'projection',
    levelPolicy: 'lloyd',
    rotation: { kind: 'sylvester', core: 1, blocks: 1, seed: '0' },
    crc32: 0x0a1b2c3d,
    sourceSha256: SHA,
    ...changes,
  };
}

const TENSORS: readonly PvqTensor[] = [
  tensor('a'),
  tensor('a "quoted" \\ name \u00e9\u{1f600}', { transposed: true, shape: [3, 4, 6], dtype: 'Q6_K', crc32: 0 }),
  tensor('c', { rotation: null, levelPolicy: 'data', crc32: 0xffffffff }),
  tensor('d', { rotation: { kind: 'blocks', core: 1, blocks: 107, seed: '18446744073709551615' } }),
  tensor('e', { rotation: { kind: 'paley1', core: 12, blocks: 1, seed: '0' } }),
];

describe('metadata of pvq-1', () => {
  it('come back as they were written', () => {
    const text = encodePvqMetadata({ seed: '42', tensors: TENSORS });
    expect(parsePvqMetadata(text, 'x')).toEqual({ seed: '42', tensors: TENSORS });
  });

  it('take the bytes that are foretold, whatever else is in the file', () => {
    const sizes = { indexRowBytes: 8, gainRowBytes: 1, wideScales: false, zeroGroups: true };
    const tables = pvqTables(TENSORS);
    for (const count of [1, 2, 5]) {
      const some = TENSORS.slice(0, count);
      const other = { name: 'copied', dtype: 'F32' as const, shape: [count, 1000] };
      const plan = [other, ...some.flatMap((one) => payloadPlan(one, sizes))];
      const pvq = encodePvqMetadata({ seed: '7', tensors: some }, tables);
      const length = (tensors: typeof plan, metadata: Record<string, string>): number => {
        const { header, byteLength } = layOutSafetensors(tensors, { format: 'pt', ...metadata }, 9);
        return byteLength - header.length + Buffer.from(header).toString().trimEnd().length;
      };
      // Lengths in characters: the one name that is longer in bytes adds them by hand.
      const extra = Buffer.byteLength(JSON.stringify(plan) + pvq) - (JSON.stringify(plan) + pvq).length;
      const bytes = some.map((one) => tensorFileBytes(one, sizes, 9, tables));
      const total = bytes.reduce((sum, { payload, metadata }) => sum + payload + metadata, fixedFileBytes('7', tables));
      expect(total).toBe(length(plan, { pvq }) + extra - length([other], {}));
    }
    expect(
      fileBitsPerWeight(
        [
          { bytes: 100, weights: 300 },
          { bytes: 50, weights: 100 },
        ],
        10,
      ),
    ).toBe((8 * 160) / 400);
  });

  it('name payloads', () => {
    expect(payloadName('x.weight', 'gain')).toBe('x.weight.pvq_gain');
    expect(parsePayloadName('x.pvq_index.pvq_sign')).toEqual({ tensor: 'x.pvq_index', part: 'sign' });
    expect(parsePayloadName('x.pvq_other')).toBeUndefined();
    expect(matrixOf([4, 10, 6], false)).toEqual({ matrices: 4, rows: 40, columns: 6 });
    expect(matrixOf([4, 10, 6], true)).toEqual({ matrices: 4, rows: 24, columns: 10 });
  });

  const good = encodePvqMetadata({ seed: '42', tensors: [TENSORS[0]] });
  const change = (edit: (value: Record<string, never>, row: unknown[]) => void): string => {
    const value = JSON.parse(good);
    edit(value, value.tensors.a);
    return JSON.stringify(value);
  };
  it.each([
    [good.slice(0, -1), /f: __metadata__.pvq is not JSON/],
    ['[]', /is not an object/],
    [change((v) => Object.assign(v, { version: 'pvq-2' })), /version "pvq-2" is not read, only pvq-1/],
    [change((v) => Object.assign(v, { extra: 1 })), /unknown key "extra"/],
    [change((v) => Object.assign(v, { seed: -1 })), /seed is not a decimal/],
    [change((v) => Object.assign(v, { columns: ['shape'] })), /its columns are not/],
    [change((v) => Object.assign(v, { kinds: [{ dtype: 'F99' }] })), /kind 0: unknown dtype "F99"/],
    [change((v) => Object.assign(v, { rotations: [{ kind: 'dft', core: 1, blocks: 1 }] })), /unknown kind "dft"/],
    [change((v) => Object.assign(v, { tensors: { a: 3 } })), /f: tensor "a": its metadata are not a row/],
    [change((_, row) => row.splice(0, 1, [12])), /tensor "a": its shape \[12\] is not that of a matrix/],
    [change((_, row) => row.splice(1, 1, 4)), /"kind" is 4, not a whole number of 0 to 0/],
    [change((_, row) => row.splice(2, 1, 0)), /"D" is 0/],
    [change((_, row) => row.splice(3, 1, 1e9)), /"K" is 1000000000, not a whole number of 1 to 32767/],
    [change((_, row) => row.splice(6, 1, 9)), /"gain_bits" is 9/],
    [change((_, row) => row.splice(7, 1, 1)), /"rotation" is 1/],
    [change((_, row) => row.splice(8, 1, 'xyz')), /"crc32" is not 8/],
    [change((_, row) => row.splice(9, 1, 'short')), /"sha256" is not 43/],
    [change((_, row) => row.push('5')), /a seed, which only rotations in blocks have/],
    [good.replace('"tensors":{', '"tensors":{"a":[],'), /holds the name "a" twice/],
  ])('are refused where damaged: %#', (text, message) => {
    expect(() => parsePvqMetadata(text, 'f')).toThrow(message);
  });
});

describe('updateCrc32', () => {
  it('is the checksum of ZIP, in pieces too, with and without the runtime', () => {
    const bytes = Buffer.from('123456789');
    for (const update of [updateCrc32, updateCrc32Reference]) {
      expect(update(0, bytes)).toBe(0xcbf43926);
      expect(update(update(0, bytes.subarray(0, 4)), bytes.subarray(4))).toBe(0xcbf43926);
      expect(update(0, new Uint8Array(0))).toBe(0);
    }
    const random = createRandom(1);
    const noise = Uint8Array.from({ length: 5000 }, () => random.integer(256));
    expect(updateCrc32(0, noise)).toBe(updateCrc32Reference(0, noise));
  });
});
