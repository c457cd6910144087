import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openLogitSource } from '../../src/decoding/logit-source.js';
import { createLogitDump } from '../../src/formats/logit-dump.js';
import { createNpyWriter } from '../../src/formats/npy.js';
import { filterTokens } from '../../src/kernels/token-filter.js';
import { createRandom } from '../../src/random.js';

let folder: string;
const at = (name: string): string => join(folder, name);
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'logit-source-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const entropies = (logits: Float32Array | Float64Array, rows: number, vocabulary: number): Float64Array =>
  filterTokens({ logits, rows, vocabulary, pipelines: [[]] }).figures.entropyNats;

describe('stored logits as rows', () => {
  it('widens halves and knows the rows of a sequence', () => {
    const npy = createNpyWriter(at('half.npy'), { dtype: 'F16', shape: [2, 3, 4] });
    // 0x3c00 is 1, 0xc000 is -2, 0xfc00 is -Infinity.
    const bits = Uint16Array.from({ length: 24 }, (_, i) => [0x3c00, 0xc000, 0xfc00, 0][i % 4]);
    npy.write(new Uint8Array(bits.buffer));
    npy.commit();
    const source = openLogitSource(at('half.npy'));
    expect(source).toMatchObject({ kind: 'tensor', rows: 6, vocabulary: 4, sequenceRows: 3 });
    expect([...source.readRows(4, 1)]).toEqual([1, -2, Number.NEGATIVE_INFINITY, 0]);
    expect(source.readRows(1, 5)).toHaveLength(20);
    source.close();
  });

  it('gives clipped entries of a dump their exact mass', () => {
    const [rows, vocabulary] = [3, 400];
    const random = createRandom(6);
    const logits = Float32Array.from(
      { length: rows * vocabulary },
      (_, i) => (i % 4 === 0 ? 6 : -14) + random.normal(),
    );
    const chunks: Uint8Array[] = [];
    const header = { vocabulary, modelSha256: 'a', dataSha256: 'b', parameters: {} };
    const writer = createLogitDump({ write: (bytes) => chunks.push(bytes.slice()) }, header);
    const ids = Int32Array.of(0, 1, 2);
    writer.append(logits, ids, ids, ids);
    writer.finish();
    writeFileSync(at('rows.dump'), Buffer.concat(chunks));
    const source = openLogitSource(at('rows.dump'));
    expect(source).toMatchObject({ kind: 'dump', rows, vocabulary, sequenceRows: 1 });
    const exact = entropies(logits, rows, vocabulary);
    entropies(source.readRows(0, rows), rows, vocabulary).forEach((entropy, r) => {
      expect(Math.abs(entropy - exact[r])).toBeLessThan(1e-4);
    });
    source.close();
  });
});
