import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createNpyWriter } from '../../src/formats/npy.js';
import { createRandom } from '../../src/random.js';
import { readReport } from '../../src/report/json.js';
import type { DecodeBody } from '../../src/steering/decode-report.js';
import { type Ended, surprisal } from './run-surprisal.js';

let folder: string;
const at = (name: string): string => join(folder, name);
const run = (...argv: string[]): Ended => surprisal(['steer', 'decode', ...argv]);
const bodyOf = (path: string): DecodeBody => readReport(path) as unknown as DecodeBody;
const tableOf = (path: string): string[][] =>
  readFileSync(path, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => line.replace(/"[^"]*"/g, (quoted) => quoted.replaceAll(',', ';')).split(','));

const ROWS = 40;
const VOCABULARY = 90;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'decode-'));
  const prompts = ['The state of our union is', 'We must', 'Congress'];
  writeFileSync(at('prompts.jsonl'), prompts.map((prompt) => `${JSON.stringify({ prompt })}\n`).join(''));
  const random = createRandom(8);
  const logits = Float32Array.from({ length: ROWS * VOCABULARY }, () => 2 * random.normal());
  const write = (name: string): void => {
    const npy = createNpyWriter(at(name), { dtype: 'F32', shape: [ROWS, VOCABULARY] });
    npy.write(new Uint8Array(logits.buffer));
    npy.commit();
  };
  write('rows.npy');
  logits[7 * VOCABULARY + 3] = Number.NaN;
  write('bad.npy');
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('steer decode', () => {
  it('compares samplers and path nucleus on the same prompts', () => {
    const argv = ['--model', 'fixtures/models/llama-sotu', '--data', at('prompts.jsonl'), '--samples', '2'];
    argv.push('--max-new-tokens', '8', '--sampler', 'temperature=1.5,top-h=0.4', 'top-p=0.9', '--exact', '10');
    argv.push('--path-nucleus', 'k=2,select=sample', '--path-steps', at('paths.csv'), '--out', at('out.csv'));
    argv.push('--table', at('steps.csv'), '--generations', at('texts.jsonl'), '--plot', at('plot.svg'));
    const { code, stderr } = run(...argv, '--report', at('model.json'), '--seed', '5');
    expect(stderr).toBe('');
    expect(code).toBe(0);
    const body = bodyOf(at('model.json'));
    expect(body.samplers.map(({ name }) => name)).toEqual(['temperature=1.5,top-h=0.4', 'top-p=0.9']);
    expect(body.rows).toBe(2 * 3 * 2 * 8);
    expect(body.jaccard?.[0][0]).toBe(1);
    expect(body.jaccard?.[0][1]).toBeGreaterThan(0);
    expect(body.jaccard?.[0][1]).toBeLessThan(1);
    expect(body.samplers[0].kept?.bound_held_share).toBe(1);
    expect(body.samplers[0].exact?.mean_ratio.mean).toBeGreaterThan(0.5);
    expect(body.top_h_rules.map(({ alpha, temperature }) => [alpha, temperature])).toEqual([[0.4, 1.5]]);
    expect(body.path_nucleus?.settings).toMatchObject({ k: 2, select: 'sample', top_p_path: 0.9 });
    expect(body.samplers[0].text?.by_step).toHaveLength(8);

    const [header, ...steps] = tableOf(at('steps.csv'));
    expect(steps).toHaveLength(body.rows ?? 0);
    const column = (name: string): number => header.indexOf(name);
    const surprisals = steps
      .filter(([name]) => name === 'top-p=0.9')
      .map((row) => Number(row[column('surprisal_nats')]));
    const mean = surprisals.reduce((sum, value) => sum + value, 0) / surprisals.length;
    expect(body.samplers[1].text?.mean_surprisal_nats.mean).toBeCloseTo(mean, 12);
    expect(body.samplers[1].text?.perplexity).toBeCloseTo(Math.exp(mean), 10);
    const bounded = steps.filter((row) => row[column('top_h_bound_nats')] !== '');
    expect(bounded).toHaveLength(48);
    expect(tableOf(at('paths.csv'))).toHaveLength(1 + 3 * 8);
    const texts = readFileSync(at('texts.jsonl'), 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(texts).toHaveLength(2 * 3 * 2 + 3 * 2);
    expect(texts.filter(({ sampler }) => sampler === 'path-nucleus').every(({ weight }) => weight > 0)).toBe(true);
    expect(readFileSync(at('plot.svg'), 'utf8')).toContain('Entropy before the cut');
  });

  it('runs samplers over stored logits', () => {
    const argv = ['--logits', at('rows.npy'), '--sampler', 'top-h=0.4', 'top-h=0.4:transformers', 'min-p=0.1'];
    const { code, stderr } = run(
      ...argv,
      '--alphas',
      '0.3,0.5',
      '--report',
      at('logits.json'),
      '--table',
      at('rows.csv'),
    );
    expect(stderr).toBe('');
    expect(code).toBe(0);
    const body = bodyOf(at('logits.json'));
    expect(body).toMatchObject({ source: 'logits', rows: ROWS, vocabulary_size: VOCABULARY, path_nucleus: null });
    expect(body.samplers[0].kept?.bound_held_share).toBe(1);
    expect(body.samplers[1].kept?.bound_held_share).toBeLessThan(1);
    expect(body.top_h_rules.map(({ alpha }) => alpha)).toEqual([0.3, 0.5]);
    const [header, ...rows] = tableOf(at('rows.csv'));
    expect(rows).toHaveLength(3 * ROWS);
    const kept = rows.filter(([name]) => name === 'min-p=0.1').map((row) => Number(row[header.indexOf('kept_count')]));
    const mean = kept.reduce((sum, value) => sum + value, 0) / ROWS;
    expect(body.samplers[2].kept?.mean_kept_count.mean).toBeCloseTo(mean, 10);
  });

  it('names the row that is not a distribution, and leaves nothing behind', () => {
    const { code, stderr } = run('--logits', at('bad.npy'), '--sampler', 'top-h', '--report', at('bad.json'));
    expect(code).toBe(2);
    expect(stderr).toMatch(/bad\.npy: tensor "bad": row 7, column 3 is NaN/);
    expect(() => readFileSync(at('bad.json'))).toThrow();
  });
});
