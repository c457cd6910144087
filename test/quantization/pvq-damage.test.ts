import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { PVQ_PARTS, type PvqPart } from '../../src/formats/pvq.js';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { openWeights } from '../../src/models/pvq-store.js';
import { verifyModel } from '../../src/quantization/verify.js';
import { createRandom } from '../../src/random.js';
import { choose, quantise } from './pvq-cases.js';

const SOURCE = 'fixtures/models/qwen2-moby';
const NAME = 'model.layers.0.self_attn.q_proj.weight';
const folder = mkdtempSync(join(tmpdir(), 'pvq-damage-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const good = join(folder, 'good');
const bad = join(folder, 'bad');
const file = join(bad, 'model.safetensors');

/** A copy of the model with its weights changed. */
function damaged(change: (bytes: Buffer) => Buffer | undefined): void {
  rmSync(bad, { recursive: true, force: true });
  cpSync(good, bad, { recursive: true });
  rmSync(join(bad, 'manifest.json'));
  const bytes = readFileSync(file);
  writeFileSync(file, change(bytes) ?? bytes);
}

/** A file with its header edited as text; the length field follows. */
function withHeader(bytes: Buffer, edit: (text: string) => string): Buffer {
  const length = Number(bytes.readBigUInt64LE(0));
  const text = edit(bytes.toString('utf8', 8, 8 + length));
  const header = Buffer.alloc(8 + Buffer.byteLength(text));
  header.writeBigUInt64LE(BigInt(header.length - 8));
  header.write(text, 8);
  return Buffer.concat([header, bytes.subarray(8 + length)]);
}

function partOf(part: PvqPart): { offset: number; byteLength: number } {
  const store = openSafetensors(good);
  const info = store.tensors.get(`${NAME}.pvq_${part}`);
  store.close();
  if (!info) throw new Error(part);
  return info;
}

describe('damage', () => {
  beforeAll(() => {
    quantise(SOURCE, good, choose(SOURCE, /layers\.0\..*(q|k)_proj\.weight/, { zeroGroups: true }));
  });

  it('is not found where there is none', async () => {
    const { problems, tensors, bits_per_weight, reported_bits_per_weight } = await verifyModel({
      model: good,
      source: SOURCE,
    });
    expect(problems).toEqual([]);
    expect(bits_per_weight).toBe(reported_bits_per_weight);
    for (const tensor of tensors) expect(tensor.error?.sqnr_db).toBeGreaterThan(5);
  });

  it.each(PVQ_PARTS.map((part) => [part]))('of any bit of %s is found, with its tensor', async (part) => {
    const { offset, byteLength } = partOf(part);
    const random = createRandom(PVQ_PARTS.indexOf(part));
    for (let i = 0; i < 6; i++) {
      const at = offset + random.integer(byteLength);
      damaged((bytes) => {
        bytes[at] ^= 1 << random.integer(8);
        return bytes;
      });
      const { problems } = await verifyModel({ model: bad });
      expect(problems[0]?.tensor).toBe(NAME);
      expect(problems[0]?.problem).toMatch(/CRC-32/);
    }
  });

  it('of an index beyond the pyramid, a scale or a level names the row, also on reading', async () => {
    const row = 3;
    const { offset, byteLength } = partOf('index');
    damaged((bytes) => bytes.fill(0xff, offset + row * (byteLength / 96), offset + (row + 1) * (byteLength / 96)));
    const { problems } = await verifyModel({ model: bad });
    expect(problems).toContainEqual({
      tensor: NAME,
      row,
      problem: expect.stringMatching(/group 0: index \d+ is outside/),
    });
    const store = openWeights(bad);
    const info = store.tensors.get(NAME);
    const read = (first: number): void => {
      if (info) store.readInto(info, 4 * 96 * first, 4 * 96 * 2, new Uint8Array(4 * 96 * 2));
    };
    expect(() => read(2)).toThrow(
      /model.safetensors: tensor "model.layers.0.self_attn.q_proj.weight", row 3, group 0: index/,
    );
    read(4);
    store.close();

    damaged((bytes) => void bytes.writeUInt16LE(0x7e00, partOf('scale').offset + 2 * row));
    expect((await verifyModel({ model: bad })).problems).toContainEqual({
      tensor: NAME,
      row,
      problem: expect.stringMatching(/its scale is NaN/),
    });
    damaged((bytes) => void bytes.writeFloatLE(9, partOf('levels').offset));
    expect((await verifyModel({ model: bad })).problems[1]?.problem).toMatch(
      /level 1 is .*levels are finite and ascend/,
    );
  });

  it.each<[string, (text: string) => string, RegExp]>([
    ['another version', (text) => text.replace('pvq-1', 'pvq-9'), /version "pvq-9" is not read/],
    [
      'a larger K',
      (text) => text.replace(/\],0,16,24,1/, '],0,16,25,1'),
      /tensor ".*": K = 25 overflows its index word/,
    ],
    ['a huge K', (text) => text.replace(/\],0,16,24,1/, '],0,16,32767,1'), /K = 32767 overflows/],
    ['another D', (text) => text.replace(/\],0,16,24,1/, '],0,8,24,1'), /overflows|where its metadata ask for/],
    [
      'another shape',
      (text) => text.replace('[[96,96]', '[[95,96]'),
      /is U8 \[96, 35\], 3360 bytes, where its metadata ask for U8 \[95/,
    ],
    [
      'another core',
      (text) => text.replace('\\"core\\":12', '\\"core\\":20'),
      /no rotation of width 96 is paley1 with core 20/,
    ],
    [
      'a part under another name',
      (text) => text.replace('q_proj.weight.pvq_gain', 'q_proj.weight.pvq_pain'),
      /pvq_gain" is missing/,
    ],
    ['no metadata', (text) => text.replace('"pvq":', '"other":'), /has no entry in __metadata__.pvq/],
    [
      'a part too many',
      (text) => text.replace(/gain_bits(.*?)\],0,16,24,1,(\d+),3/, 'gain_bits$1],0,16,24,1,$2,0'),
      /belongs to no part|where its metadata ask for/,
    ],
  ])('of the header is refused: %s', async (_, edit, message) => {
    damaged((bytes) => withHeader(bytes, edit));
    // A rotation is needed only to decode: its fault is a problem of the tensor, not of the file.
    await verifyModel({ model: bad }).then(
      ({ problems }) => expect(problems.map(({ problem }) => problem).join('\n')).toMatch(message),
      (error: Error) => expect(error.message).toMatch(message),
    );
  });

  it('never ends in anything but an InputError, or a problem that is named', async () => {
    const random = createRandom(11);
    const header = 8 + Number(readFileSync(join(good, 'model.safetensors')).readBigUInt64LE(0));
    for (let i = 0; i < 120; i++) {
      damaged((bytes) => {
        if (i % 6 === 0) return bytes.subarray(0, random.integer(bytes.length));
        for (let flips = 0; flips < 2; flips++) bytes[random.integer(header)] ^= 1 << random.integer(8);
        return bytes;
      });
      try {
        await verifyModel({ model: bad });
      } catch (error) {
        if (!(error instanceof InputError)) throw error;
        expect(error.message).not.toMatch(/\n/);
      }
    }
  });

  it('of what the manifest says is found', async () => {
    rmSync(bad, { recursive: true, force: true });
    cpSync(good, bad, { recursive: true });
    const manifest = readFileSync(join(bad, 'manifest.json'), 'utf8');
    const claim = JSON.parse(manifest);
    claim.bits_per_weight = 3.25;
    claim.tensors[0].record = { sqnr_db: 99, cosine: 0.5 };
    claim.tensors[1].payload_bytes -= 1;
    writeFileSync(join(bad, 'manifest.json'), JSON.stringify(claim));
    const text = (await verifyModel({ model: bad, source: SOURCE })).problems.map(({ problem }) => problem).join('\n');
    for (const expected of [
      /the manifest says 3.25/,
      /sqnr_db is .* says 99/,
      /cosine is .* says 0.5/,
      /takes \d+ \+ \d+ bytes/,
    ])
      expect(text).toMatch(expected);
    const other = await verifyModel({ model: good, source: 'fixtures/models/llama-sotu' });
    expect(other.problems[0]?.problem).toMatch(/has shape \[64, 128\] in the source/);
  });
});
