import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openModelFiles } from '../../src/models/model-files.js';
import { readReport } from '../../src/report/json.js';
import { choose, quantise } from '../quantization/pvq-cases.js';
import { resident, surprisal } from './run-surprisal.js';

const SOURCE = 'fixtures/models/qwen2-moby';
const GGUF = 'fixtures/gguf/llama-llama3.f16.gguf';
const folder = mkdtempSync(join(tmpdir(), 'pvq-storage-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const at = (name: string): string => join(folder, name);
const run = (...argv: string[]): ReturnType<typeof surprisal> => resident(['quantize-pvq', ...argv]);

describe('quantised model directories', () => {
  beforeAll(() => {
    quantise(SOURCE, at('model'), choose(SOURCE, /layers\.[01]\..*proj\.weight/));
    quantise(GGUF, at('gguf'), choose(GGUF, /ffn_(up|down|gate)\.weight/));
  });

  it('are verified, against their source too, with a table and a report that fits its schema', () => {
    const reports = ['--report', at('v.json'), '--table', at('v.csv'), '--timings', at('t.json')];
    const ended = run('verify', at('model'), '--source', SOURCE, ...reports, '--assert', 'sqnr_db > 5');
    expect(ended.stderr).toBe('');
    expect(ended.code).toBe(0);
    const report = readReport(at('v.json'));
    expect(report).toMatchObject({ verified: true, problems: [], changed_files: [] });
    expect(report.bits_per_weight).toBe(report.reported_bits_per_weight);
    expect(ended.stdout).toMatch(/^tensor +D +K +gain bits +bits\/weight +SQNR dB +cosine +holds\n/);
    expect(readFileSync(at('v.csv'), 'utf8').trim().split('\n')).toHaveLength((report.tensors as []).length + 1);
    const again = run(
      'verify',
      at('model'),
      '--source',
      SOURCE,
      '--report',
      at('v2.json'),
      '--threads',
      '1',
      '--quiet',
    );
    expect(again).toEqual({ code: 0, stdout: '', stderr: '' });
    expect(readFileSync(at('v2.json'), 'utf8')).toBe(readFileSync(at('v.json'), 'utf8'));
    expect(run('verify', at('gguf'), '--source', GGUF).code).toBe(0);
    const failed = ['quantize-pvq', 'verify', join(at('gguf'), 'model.gguf'), '--assert', 'bits_per_weight < 1'];
    expect(surprisal(failed).code).toBe(3);
  });

  it('that are damaged end with exit 2, naming the tensor and the row, and a report', () => {
    cpSync(at('model'), at('bad'), { recursive: true });
    const file = join(at('bad'), 'model.safetensors');
    const files = openModelFiles(at('bad'));
    const info = files.store.tensors.get('model.layers.0.mlp.up_proj.weight');
    files.store.close();
    const bytes = readFileSync(file);
    // The first part of the tensor is its index; row 2 of it holds nothing that is a point.
    bytes.fill(0xff, (info?.offset ?? 0) + 2 * 35, (info?.offset ?? 0) + 3 * 35);
    writeFileSync(file, bytes);
    const ended = surprisal(['quantize-pvq', 'verify', at('bad'), '--report', at('bad.json')]);
    expect(ended.code).toBe(2);
    expect(ended.stderr).toMatch(
      /^error: .*bad: tensor "model.layers.0.mlp.up_proj.weight": its parts have CRC-32 .*; 2 more problems/,
    );
    expect(readReport(at('bad.json'))).toMatchObject({
      verified: false,
      changed_files: ['model.safetensors'],
      problems: [{}, { tensor: 'model.layers.0.mlp.up_proj.weight', row: 2 }, { tensor: null }],
    });
    expect(ended.stdout).toMatch(/up_proj.weight .* NO\n/);
    writeFileSync(file, bytes.subarray(0, 100_000));
    expect(run('verify', at('bad'))).toMatchObject({ code: 2, stderr: expect.stringMatching(/truncated/) });
    expect(run('verify', SOURCE)).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/there is nothing to verify/),
    });
    expect(run('verify', at('none'))).toMatchObject({ code: 2, stderr: expect.stringMatching(/no such file/) });
    expect(run('verify')).toMatchObject({ code: 2, stderr: expect.stringMatching(/missing required argument/) });
  });

  it('are written as plain ones, from which every figure is the same', () => {
    const dry = run('dequantize', '--model', at('model'), '--out', at('plain'), '--dtype', 'f32', '--dry-run');
    expect(dry.stdout).toMatch(/bytes written +\d/);
    expect(existsSync(at('plain'))).toBe(false);
    const ended = run('dequantize', '--model', at('model'), '--out', at('plain'), '--dtype', 'f32');
    expect(ended.stderr).toBe('');
    expect(ended.stdout).toMatch(/of them decoded +14\n/);
    expect(readdirSync(at('plain')).sort()).toEqual(readdirSync(at('model')).sort());
    readReport(join(at('plain'), 'manifest.json'));
    expect(run('dequantize', '--model', at('model'), '--out', at('plain'))).toMatchObject({ code: 2 });
    expect(
      run('dequantize', '--model', at('model'), '--out', at('plain'), '--force', '--quiet', '--dtype', 'f32').code,
    ).toBe(0);
    expect(run('dequantize', '--model', at('model'), '--out', at('x'), '--dtype', 'f8')).toMatchObject({ code: 2 });

    writeFileSync(at('text.txt'), 'Call me Ishmael. Some years ago, never mind how long precisely.');
    const tokens = (model: string, n: string): string => {
      const argv = ['analyze-entropy', 'tokens', '--model', model, '--data', at('text.txt'), '--out', at(`${n}.csv`)];
      expect(resident(argv)).toMatchObject({ code: 0, stderr: '' });
      return readFileSync(at(`${n}.csv`), 'utf8');
    };
    const quantised = tokens(at('model'), 'a');
    expect(tokens(at('plain'), 'b')).toBe(quantised);
    expect(tokens(SOURCE, 'c')).not.toBe(quantised);
  });
});
