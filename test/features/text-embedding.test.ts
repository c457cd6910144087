import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { addToPool, createPoolState, finishPool, POOLINGS, type Pooling } from '../../src/features/pooling.js';
import { readSentenceModules } from '../../src/features/sentence-modules.js';
import { type EmbeddedTexts, type EmbeddingArguments, embedTexts } from '../../src/features/text-embedding.js';
import { openTokenizer } from '../../src/tokenizers/tokenizer.js';

const SENTENCES = 'fixtures/encoders/sentences';
const golden = JSON.parse(readFileSync(`${SENTENCES}/golden.json`, 'utf8')) as {
  texts: string[];
  embeddings: number[][];
  means: number[][];
};
const tokenizer = openTokenizer(SENTENCES);
/** At most ten tokens, the last of them [SEP]. */
const texts = golden.texts.map((text) => {
  const ids = tokenizer.encode(text, { addSpecialTokens: true });
  return ids.length > 10 ? Int32Array.from([...ids.subarray(0, 9), 3]) : ids;
});

function embed(changes: Partial<EmbeddingArguments>): Promise<EmbeddedTexts> {
  const args: EmbeddingArguments = {
    path: SENTENCES,
    kind: 'encoder',
    threads: 2,
    precision: 'f32',
    texts,
    ids: golden.texts,
    layers: ['final'],
    pool: undefined,
    modules: undefined,
    tokensPerBatch: 64,
    ...changes,
  };
  return embedTexts(args, () => undefined);
}

function expectRows(actual: Float32Array, expected: readonly number[][]): void {
  expect(actual.length).toBe(expected.flat().length);
  for (const [i, value] of expected.flat().entries()) expect(actual[i]).toBeCloseTo(value, 5);
}

describe('embeddings of texts', () => {
  it('follow the modules of a sentence-transformers directory', async () => {
    const modules = readSentenceModules(SENTENCES);
    expect(modules).toMatchObject({ pool: 'mean', normalise: true, maxTokens: 10 });
    const { layers, textOfRow } = await embed({ modules });
    expect(layers[0].width).toBe(6);
    expect([...textOfRow]).toEqual([0, 1, 2, 3, 4]);
    expectRows(layers[0].data, golden.embeddings);
  });

  it('are means of hidden states without them, by the encoder and by its ONNX export', async () => {
    expectRows((await embed({})).layers[0].data, golden.means);
    const exported = await embed({ kind: 'onnx', path: 'fixtures/encoders/onnx/model.onnx' });
    expectRows(exported.layers[0].data, golden.means);
    expect(exported.pool).toBe('mean');
  });

  it('keep every token, or one, at any layer', async () => {
    const tokens = await embed({ pool: 'tokens', layers: [0, 2, 'final'] });
    const total = texts.reduce((sum, ids) => sum + ids.length, 0);
    expect(tokens.layers.map(({ rows }) => rows)).toEqual([total, total, total]);
    expect(tokens.layers[1].data).toEqual(tokens.layers[2].data);
    const first = await embed({ pool: 'cls' });
    expect(first.layers[0].data.subarray(0, 24)).toEqual(tokens.layers[2].data.subarray(0, 24));
  });

  it('do not depend on the other texts', async () => {
    const { layers } = await embed({});
    const alone = await embed({ texts: [texts[2]], ids: ['x'], threads: 1 });
    expect(alone.layers[0].data).toEqual(layers[0].data.slice(48, 72));
  });

  it('are refused for texts without tokens', async () => {
    await expect(embed({ texts: [new Int32Array(0)], ids: ['nothing'] })).rejects.toThrow(
      /document nothing: has no token/,
    );
  });
});

describe('pooling', () => {
  it('does not depend on how a text is cut into windows', () => {
    const rows = Float64Array.from({ length: 15 }, (_, i) => Math.sin(i * 7));
    for (const pool of POOLINGS.filter((name): name is Exclude<Pooling, 'tokens'> => name !== 'tokens')) {
      const whole = createPoolState(3);
      addToPool(whole, rows, pool);
      const cut = createPoolState(3);
      addToPool(cut, rows.subarray(0, 6), pool);
      addToPool(cut, rows.subarray(6), pool);
      const [a, b] = [finishPool(whole, pool), finishPool(cut, pool)];
      for (let i = 0; i < 3; i++) expect(b[i]).toBeCloseTo(a[i], 12);
    }
  });
});
