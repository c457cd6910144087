import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { readReport } from '../../src/report/json.js';
import { surprisal } from './run-surprisal.js';

const folder = mkdtempSync(join(tmpdir(), 'embedding-'));
afterAll(() => rmSync(folder, { recursive: true }));
const at = (name: string): string => join(folder, name);
const golden = JSON.parse(readFileSync('fixtures/encoders/sentences/golden.json', 'utf8')) as {
  texts: string[];
  embeddings: number[][];
};
const texts = at('texts.jsonl');
writeFileSync(texts, golden.texts.map((text, i) => `${JSON.stringify({ text, kind: i % 2 })}\n`).join(''));

const run = (view: string, ...argv: string[]): ReturnType<typeof surprisal> =>
  surprisal(['analyze-entropy', view, '--data', texts, '--quiet', ...argv]);

/** The score of order 2 of unit rows: n² over the sum of their squared inner products. */
function order2(rows: readonly number[][]): number {
  let sum = 0;
  for (const a of rows) {
    for (const b of rows) sum += a.reduce((total, value, i) => total + value * b[i], 0) ** 2;
  }
  return rows.length ** 2 / sum;
}

describe('texts through embedding models', () => {
  it('scores what a sentence-transformers directory makes of them', () => {
    const ended = run('diversity', '--model', 'fixtures/encoders/sentences', '--report', at('s.json'), '--q', '2');
    expect(ended.stderr).toBe('');
    const { scores } = readReport(at('s.json')) as unknown as { scores: { vendi_q2: number } };
    expect(scores.vendi_q2).toBeCloseTo(order2(golden.embeddings), 5);
  });

  it('reads ONNX exports, layers of encoders, and labels of documents', () => {
    expect(run('diversity', '--model', 'fixtures/encoders/onnx', '--out', at('o.csv')).code).toBe(0);
    const layers = ['--layer', 'all', '--pool', 'mean', '--label-column', 'kind', '--repetitions', '2'];
    const ended = run('representations', '--model', 'fixtures/encoders/sentences', ...layers, '--out', at('l.csv'));
    expect(ended.stderr).not.toMatch(/error/);
    expect(ended.code).toBe(0);
    expect(readFileSync(at('l.csv'), 'utf8').trim().split('\n')).toHaveLength(4);
  });

  it('says what an ONNX export cannot give, and how long a text may be', () => {
    const layer = run('representations', '--model', 'fixtures/encoders/onnx', '--layer', '1');
    expect(layer.stderr).toMatch(/--layer 1: an ONNX export gives its final layer alone/);
    expect(layer.code).toBe(2);
    const cut = surprisal([
      ...['analyze-entropy', 'diversity', '--model', 'fixtures/encoders/sentences', '--data', texts],
      ...['--context', '4', '--out', at('c.csv')],
    ]);
    expect(cut.stderr).toMatch(/texts are longer than 4 tokens; their ends were left out/);
    expect(cut.code).toBe(0);
    const stray = surprisal([
      'analyze-entropy',
      'representations',
      '--data',
      'fixtures/tables/diabetes.csv',
      '--layer',
      '1',
    ]);
    expect(stray.stderr).toMatch(/--layer needs --model/);
  });
});
