import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createNpyWriter } from '../../src/formats/npy.js';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { createRandom } from '../../src/random.js';
import { readReport } from '../../src/report/json.js';
import { resident, type surprisal } from './run-surprisal.js';

const folder = mkdtempSync(join(tmpdir(), 'koopman-'));
afterAll(() => rmSync(folder, { recursive: true }));
const at = (name: string): string => join(folder, name);
const run = (...argv: string[]): ReturnType<typeof surprisal> => resident(['analyze-entropy', 'koopman', ...argv]);

function writeArray(name: string, shape: number[], data: Float64Array): string {
  const writer = createNpyWriter(at(name), { dtype: 'F64', shape }, { force: true });
  writer.write(new Uint8Array(data.buffer));
  writer.commit();
  return at(name);
}

/** A rotating, slowly dying pair of coordinates with noise, in three sequences of 60 steps. */
function spiral(): Float64Array {
  const random = createRandom(1);
  const data = new Float64Array(3 * 60 * 2);
  for (let s = 0; s < 3; s++) {
    let [x, y] = [1 + s, 0];
    for (let t = 0; t < 60; t++) {
      data.set([x, y], (s * 60 + t) * 2);
      [x, y] = [
        0.97 * (x * Math.cos(0.2) - y * Math.sin(0.2)) + 0.01 * random.normal(),
        0.97 * (x * Math.sin(0.2) + y * Math.cos(0.2)) + 0.01 * random.normal(),
      ];
    }
  }
  return data;
}

describe('analyze-entropy koopman', () => {
  let file = '';
  beforeAll(() => {
    file = writeArray('spiral.npy', [3, 60, 2], spiral());
  });

  it('reports every term, reproducibly, and draws it', () => {
    const outputs = (n: number): string[] => [
      '--out',
      at(`m${n}.csv`),
      '--report',
      at(`r${n}.json`),
      '--table',
      at(`t${n}.csv`),
    ];
    const first = run('--data', file, ...outputs(1), '--threads', '1', '--plot', at('k.svg'), '--ridge', '0.0001');
    expect(first.stderr).toBe('');
    expect(first.code).toBe(0);
    expect(run('--data', file, ...outputs(2), '--threads', '2', '--ridge', '0.0001').code).toBe(0);
    for (const name of ['m', 'r', 't']) {
      const type = name === 'r' ? 'json' : 'csv';
      expect(readFileSync(at(`${name}1.${type}`), 'utf8')).toBe(readFileSync(at(`${name}2.${type}`), 'utf8'));
    }
    const report = readReport(at('r1.json'));
    expect(report.spectral_radius).toBeCloseTo(0.97, 2);
    expect(report.near_unit_modes).toBe(2);
    expect(report.sequences).toBe(3);
    expect(readFileSync(at('m1.csv'), 'utf8').trim().split('\n')).toHaveLength(3);
    expect(readFileSync(at('k.svg'), 'utf8')).toContain('Koopman');
  });

  it('reads tables by sequence, and gives the same figures', () => {
    const data = spiral();
    const lines = ['run,x,y'];
    for (let row = 0; row < 180; row++) lines.push(`s${Math.floor(row / 60)},${data[2 * row]},${data[2 * row + 1]}`);
    writeFileSync(at('spiral.csv'), `${lines.join('\n')}\n`);
    expect(run('--data', at('spiral.csv'), '--sequence-column', 'run', '--report', at('c.json')).code).toBe(0);
    expect(run('--data', file, '--report', at('n.json')).code).toBe(0);
    const [table, array] = [readReport(at('c.json')), readReport(at('n.json'))];
    expect(table.lagrangian).toBe(array.lagrangian);
    expect(table.modes).toEqual(array.modes);
  });

  it('minimises the entropy under the released code, and maximises it under the paper', () => {
    expect(run('--data', file, '--report', at('paper.json')).code).toBe(0);
    expect(run('--data', file, '--variant', 'code', '--report', at('code.json')).code).toBe(0);
    const [paper, code] = [readReport(at('paper.json')), readReport(at('code.json'))];
    const nats = (report: typeof paper): number => (report.coherence as { nats: number }).nats;
    expect(paper.lagrangian).toBeCloseTo(
      -2 * nats(paper) + Number(paper.consistency) - 0.1 * Number(paper.von_neumann_entropy_nats),
      12,
    );
    expect(code.lagrangian).toBeCloseTo(2 * nats(code) + 0.1 * Number(code.von_neumann_entropy_nats), 12);
  });

  it('fits a representation that predicts, and saves it', () => {
    const options = ['--fit', '--latent', '4', '--hidden', '16', '--steps', '300', '--batch', '4'];
    const more = ['--sequence-length', '12', '--learning-rate', '0.01', '--save-model', at('fit.safetensors')];
    const ended = run(
      '--data',
      file,
      ...options,
      ...more,
      '--table',
      at('fit.csv'),
      '--report',
      at('fit.json'),
      '--ridge',
      '0.001',
    );
    expect(ended.stderr).toBe('');
    expect(ended.code).toBe(0);
    const rows = readFileSync(at('fit.csv'), 'utf8').trim().split('\n').slice(1);
    const reconstruction = rows.map((row) => Number(row.split(',')[2]));
    expect(reconstruction[reconstruction.length - 1]).toBeLessThan(0.2 * reconstruction[0]);
    const store = openSafetensors(at('fit.safetensors'));
    expect(store.tensors.get('koopman')?.shape).toEqual([4, 4]);
    store.close();
    const again = run('--data', file, ...options, ...more);
    expect(again.code).toBe(2);
    expect(again.stderr).toContain('--force');
  });

  it('fits deeper networks by the training engine, and saves them', () => {
    const words = ['--fit', '--network', 'mlp:12-12,tanh', '--latent', '4', '--steps', '40', '--sequence-length', '12'];
    const saved = ['--save-encoder', at('encoder.onnx'), '--save-decoder', at('decoder.onnx')];
    const ended = run(
      '--data',
      file,
      ...words,
      '--learning-rate',
      '0.01',
      ...saved,
      '--report',
      at('n.json'),
      '--force',
    );
    expect([ended.stderr, ended.code]).toEqual(['', 0]);
    const report = readReport(at('n.json'));
    expect(report.latent_width).toBe(4);
    // Weights and biases of 2-12-12-4 and 4-12-12-2.
    expect(report.network_weights).toBe(2 * 12 + 12 + 2 * (12 * 12 + 12) + 12 * 4 + 4 + 4 * 12 + 12 + 12 * 2 + 2);
    expect(readFileSync(at('encoder.onnx')).length).toBeGreaterThan(500);
    expect(run('--data', file, ...words, '--variant', 'code').stderr).toContain("paper's objective");
    expect(run('--data', file, ...words, '--hidden', '8').stderr).toContain('--hidden is not read with --network');
  });

  it('refuses what it cannot use, in one line', () => {
    const broken = spiral();
    broken[7] = Number.NaN;
    const faults: [string[], RegExp][] = [
      [['--data', writeArray('nan.npy', [3, 60, 2], broken)], /1 steps hold NaN.*step 3 of sequence 0/],
      [['--data', writeArray('one.npy', [2, 1, 3], new Float64Array(6))], /sequence 0 has 1 step; at least 2/],
      [['--data', writeArray('four.npy', [1, 1, 2, 3], new Float64Array(6))], /must be \[steps, width\]/],
      [['--data', file, '--variant', 'cod'], /did you mean "code"/],
      [['--data', file, '--latent', '4'], /--latent needs --fit/],
      [['--data', file, '--variant', 'code', '--gamma', '1'], /--gamma.*released code/],
      [['--data', file, '--fit', '--sequence-length', '100'], /no trajectory has 100 steps \(the longest has 60\)/],
      [['--data', at('nothing.npy')], /no such file/i],
    ];
    for (const [argv, message] of faults) {
      const { code, stderr } = run(...argv);
      expect(stderr).toMatch(message);
      expect(stderr.trim().split('\n')).toHaveLength(1);
      expect(code).toBe(2);
    }
  });

  it('warns where no sequence is longer than twice the window', () => {
    const { code, stderr } = run('--data', file, '--window', '40');
    expect(stderr).toMatch(/more than 2 k = 80 steps \(the longest has 59\)/);
    expect(code).toBe(0);
  });
});
