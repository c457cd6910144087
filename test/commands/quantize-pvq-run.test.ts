import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { type CodeOptions, parseSettings } from '../../commands/quantize-pvq-options.js';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { readReport } from '../../src/report/json.js';
import { temporaryFolder } from '../formats/collect.js';
import { interrupted, resident, surprisal } from './run-surprisal.js';

const folder = temporaryFolder();
const at = (name: string): string => join(folder, name);
const MODEL = 'fixtures/models/llama-sotu';
const ONE_LAYER = ['--tensors', '*layers.1.*proj*'];
const FEW = ['--tensors', '*layers.1.self_attn*'];
const TEXT = at('text.jsonl');
const quantize = (...argv: string[]) => resident(['quantize-pvq', '--model', MODEL, ...argv]);
const bytesOf = (directory: string): string => readFileSync(join(directory, 'model.safetensors')).toString('base64');

interface TensorOfReport {
  readonly name: string;
  readonly group_length: number;
  readonly pulses: number;
  readonly bpw_file: number;
  readonly bytes: number;
  readonly sqnr_db: number;
  readonly hessian_loss_relative: number | null;
  readonly hessian_loss_relative_plain: number | null;
  readonly dead_inputs: number | null;
}

interface QuantizeReport {
  readonly quantized: { bytes: number; weights: number; bits_per_weight: number; tensors: number };
  readonly parts: { bytes: number }[];
  readonly kept: { tensors: number; bytes: number };
  readonly whole_model: { bytes: number };
  readonly sqnr_db: number;
  readonly expected_sqnr_db: number;
  readonly hessian_loss_relative: number | null;
  readonly calibration: { tokens: number } | null;
  readonly evaluation: {
    predictions: { mean_kl_nats: number; base_perplexity: number; perplexity: number };
    activations: string;
  } | null;
  readonly exported: { format: string; tensors: { largest_relative_error: number }[] } | null;
  readonly warnings: string[];
  readonly tensors: TensorOfReport[];
}
const reportOf = (path: string): QuantizeReport => readReport(path) as unknown as QuantizeReport;

beforeAll(() => {
  const rows = readFileSync('fixtures/text/heldout_text.jsonl', 'utf8').trimEnd().split('\n');
  writeFileSync(
    TEXT,
    `${rows.map((row) => JSON.stringify({ text: JSON.parse(row).text.slice(0, 1500) })).join('\n')}\n`,
  );
});

describe('quantize-pvq', { timeout: 120_000 }, () => {
  it('keeps to the bits that were asked for, counts every byte, and is read like any model', () => {
    const outputs = [
      '--report',
      at('a.json'),
      '--table',
      at('a.csv'),
      '--plot',
      at('a.svg'),
      '--timings',
      at('a-t.json'),
    ];
    const all = ['--tensors', '*proj*', '--bpw', '3.25'];
    const ended = surprisal(['quantize-pvq', '--model', MODEL, ...all, '--out', at('a'), ...outputs]);
    expect(ended.stderr).toBe('');
    expect(ended.code).toBe(0);
    const report = reportOf(at('a.json'));
    const { quantized, kept, whole_model: whole } = report;
    expect(quantized.tensors).toBe(28);
    expect(quantized.bits_per_weight).toBeLessThanOrEqual(3.25);
    expect(quantized.bits_per_weight).toBeGreaterThan(3.23);
    expect(report.parts.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(quantized.bytes);
    expect(whole.bytes).toBe(quantized.bytes + kept.bytes);
    expect(Math.abs(report.sqnr_db - report.expected_sqnr_db)).toBeLessThan(0.2);
    // The files hold what the report claims: the kept tensors, and the quantised ones with their share of the header.
    const file = readFileSync(join(at('a'), 'model.safetensors'));
    expect(Math.abs(file.length - whole.bytes)).toBeLessThan(2500);
    expect(readFileSync(at('a.csv'), 'utf8').trimEnd().split('\n')).toHaveLength(29);
    expect(readFileSync(at('a.svg'), 'utf8')).toContain('Shannon bound');
    const timings = JSON.parse(readFileSync(at('a-t.json'), 'utf8')) as { tensors: { weights_per_second: number }[] };
    expect(timings.tensors).toHaveLength(28);
    const tokens = [
      'analyze-entropy',
      'tokens',
      '--model',
      at('a'),
      '--data',
      TEXT,
      '--limit',
      '1',
      '--context',
      '128',
    ];
    expect(resident([...tokens, '--assert', 'perplexity < 60', '--quiet'])).toMatchObject({ code: 0, stderr: '' });
    expect(resident(['quantize-pvq', 'verify', at('a'), '--source', MODEL, '--quiet']).code).toBe(0);
  });

  it('writes the same bytes for any number of threads, without native kernels, and when an assert fails', () => {
    const own = [...FEW, '--bpw', '3.2', '--data', TEXT, '--calib-tokens', '256', '--calib-length', '128'];
    const run = (name: string, threads: string): QuantizeReport => {
      const argv = [
        'quantize-pvq',
        '--model',
        MODEL,
        ...own,
        '--threads',
        threads,
        '--quiet',
        '--allocation',
        'uniform',
      ];
      const ended = resident([...argv, '--out', at(name), '--report', at(`${name}.json`)]);
      expect(ended.code).toBe(0);
      return reportOf(at(`${name}.json`));
    };
    const one = run('threads-1', '1');
    run('threads-3', '3');
    expect(bytesOf(at('threads-3'))).toBe(bytesOf(at('threads-1')));
    expect(readFileSync(at('threads-3.json'), 'utf8')).toBe(readFileSync(at('threads-1.json'), 'utf8'));
    expect(one.calibration?.tokens).toBe(256);
    for (const tensor of one.tensors) {
      expect(tensor.hessian_loss_relative).toBeLessThan(tensor.hessian_loss_relative_plain ?? 0);
    }
    const plain = ['quantize-pvq', '--model', MODEL, '--tensors', '*layers.1.*k_proj*'];
    // An assert that does not hold keeps the model.
    expect(surprisal([...plain, '--out', at('fast'), '--quiet', '--assert', 'sqnr_db > 60']).code).toBe(3);
    expect(existsSync(join(at('fast'), 'manifest.json'))).toBe(true);
    const slow = surprisal([...plain, '--out', at('slow'), '--quiet'], { SURPRISAL_NO_NATIVE: '1' });
    expect(slow.code).toBe(0);
    expect(bytesOf(at('slow'))).toBe(bytesOf(at('fast')));
  });

  it('evaluates against the original, with quantised activations too', () => {
    const evaluation = ['--eval-data', TEXT, '--eval-tokens', '100', '--context', '128'];
    const run = (name: string, ...own: string[]): QuantizeReport => {
      const argv = [...FEW, '--bpw', '4', ...evaluation, ...own, '--quiet'];
      expect(quantize(...argv, '--out', at(name), '--report', at(`${name}.json`))).toMatchObject({
        code: 0,
        stderr: '',
      });
      return reportOf(at(`${name}.json`));
    };
    const plain = run('eval');
    const coarse = run('eval-int4', '--activations', 'int4:0.9:rotated');
    expect(plain.evaluation?.predictions.mean_kl_nats).toBeGreaterThan(0);
    expect(plain.evaluation?.predictions.mean_kl_nats).toBeLessThan(0.05);
    expect(coarse.evaluation?.activations).toBe('int4:0.9:rotated');
    expect(coarse.evaluation?.predictions.mean_kl_nats).toBeGreaterThan(
      plain.evaluation?.predictions.mean_kl_nats ?? Number.POSITIVE_INFINITY,
    );
  });

  it('is continued after a kill, to the same bytes', async () => {
    const where = at('killed');
    mkdirSync(where);
    const argv = (name: string): string[] => [
      'quantize-pvq',
      '--model',
      MODEL,
      '--tensors',
      '*layers.1.*proj*',
      '--search',
      'exact',
      '--quiet',
      '--out',
      join(where, name),
      '--report',
      join(where, `${name}.json`),
    ];
    expect(resident(argv('whole')).code).toBe(0);
    const finished = (): boolean =>
      readdirSync(where).some((name) => {
        const work = join(where, name, '.pvq');
        return name.startsWith('.') && existsSync(work) && readdirSync(work).some((entry) => /^\d+\.json$/.test(entry));
      });
    await interrupted(argv('cut'), 'SIGKILL', finished);
    expect(existsSync(join(where, 'cut'))).toBe(false);
    expect(surprisal([...argv('cut'), '--resume'])).toEqual({ code: 0, stdout: '', stderr: '' });
    expect(bytesOf(join(where, 'cut'))).toBe(bytesOf(join(where, 'whole')));
    expect(readFileSync(join(where, 'cut.json'), 'utf8')).toBe(readFileSync(join(where, 'whole.json'), 'utf8'));
    expect(readdirSync(where).sort()).toEqual(['cut', 'cut.json', 'whole', 'whole.json']);
  });

  it('fuses rotations, dequantises, and exports to blocks that hold the codes', () => {
    const evaluation = ['--eval-data', TEXT, '--eval-tokens', '100', '--context', '128'];
    const run = (name: string, ...own: string[]): QuantizeReport => {
      const argv = [
        ...ONE_LAYER,
        ...evaluation,
        ...own,
        '--quiet',
        '--out',
        at(name),
        '--report',
        at('f.json'),
        '--force',
      ];
      expect(quantize(...argv)).toEqual({ code: 0, stdout: '', stderr: '' });
      return reportOf(at('f.json'));
    };
    expect(run('fused', '--rotation', 'fused', '--bpw', '4').evaluation?.predictions.mean_kl_nats).toBeLessThan(0.02);
    expect(run('plain', '--format', 'dequantized').evaluation?.predictions.mean_kl_nats).toBeLessThan(0.05);
    const store = openSafetensors(at('plain'));
    expect(store.tensors.get('model.layers.1.mlp.up_proj.weight')?.dtype).toBe('BF16');
    store.close();
    for (const [format, name] of [
      ['gguf-q4_0', 'm.gguf'],
      ['onnx-nbits', 'onnx'],
    ]) {
      const report = run(name, '--format', format);
      expect(report.exported?.format).toBe(format);
      expect(report.evaluation?.predictions.mean_kl_nats).toBeLessThan(0.05);
      for (const tensor of report.exported?.tensors ?? []) expect(tensor.largest_relative_error).toBeLessThan(2 ** -10);
    }
    expect(readdirSync(folder).filter((name) => /\.(pvq|fused|hessians)/.test(name))).toEqual([]);
  });
});

describe('what quantize-pvq refuses', { timeout: 60_000 }, () => {
  const refused = (...argv: string[]): string => {
    const ended = quantize('--out', at('never'), ...argv);
    expect(ended).toMatchObject({ code: 2, stdout: '' });
    expect(ended.stderr).toMatch(/^error: [^\n]+\n$/);
    expect(existsSync(at('never'))).toBe(false);
    return ended.stderr;
  };

  it('rates out of reach and codes that do not fit, before anything is written', () => {
    expect(refused(...FEW, '--bpw', '0.1')).toMatch(/--bpw 0.1 cannot be reached.*between \d\.\d+ and \d/);
    expect(refused(...FEW, '--group-length', '256', '--pulses', '20')).toMatch(/longer than its rows of 128/);
    expect(refused('--bpw', '3')).toMatch(/--tensors '\*proj\*'/);
    expect(refused(...FEW, '--format', 'gguf-q3_k')).toMatch(/q3_k/);
    expect(refused(...FEW, '--activations', 'int8')).toMatch(/needs --eval-data/);
  });

  it('options that contradict each other or lack what they need', () => {
    const settings = (own: CodeOptions, run: Partial<Parameters<typeof parseSettings>[1]> = {}) =>
      parseSettings(own, { seed: 0, calibrated: false, text: false, weighted: false, ...run });
    expect(() => settings({ bpw: '3', pulses: '4' })).toThrow(/exclude each other/);
    expect(() => settings({ pulses: '40000' })).toThrow(/--pulses 40000/);
    expect(() => settings({ gainBits: '2' })).toThrow(/needs --pulses/);
    expect(() => settings({ passes: '3' })).toThrow(/--passes needs a Hessian/);
    expect(() => settings({ rotation: 'folded' })).toThrow(/unknown/);
    expect(() => settings({ actOrder: true, rotation: 'stored' }, { calibrated: true })).toThrow(/--act-order needs/);
    expect(() => settings({ zeroGroups: 'bitmap' }, { calibrated: true })).toThrow(/goes without a Hessian/);
    expect(() => settings({ rotation: 'stored' }, { weighted: true })).toThrow(/--imatrix weighs columns/);
    expect(() => settings({ rotation: 'stored' }, { exported: 'gguf-q4_0' })).toThrow(/no place for a stored rotation/);
    expect(() => settings({ bpw: '3' }, { exported: 'gguf-q4_0' })).toThrow(/blocks of one size/);
    expect(settings({}).settings).toMatchObject({ rotation: 'stored', levels: 'lloyd', allocation: 'uniform' });
    expect(settings({ rotation: 'none' }).settings).toMatchObject({ rotation: 'none', levels: 'data' });
  });

  it('text that is shorter than asked, and a file of Hessians of another model', () => {
    const own = [...FEW, '--data', TEXT, '--calib-tokens', '1000000', '--quiet'];
    expect(refused(...own)).toMatch(/calibration shorter than asked: the text gives \d+ tokens/);
    const hessians = ['--hessians', at('h.safetensors'), '--quiet'];
    const made = quantize(
      ...FEW,
      '--allocation',
      'uniform',
      '--data',
      TEXT,
      '--calib-tokens',
      '128',
      ...hessians,
      '--out',
      at('made'),
    );
    expect(made.code).toBe(0);
    const other = ['quantize-pvq', '--model', 'fixtures/models/llama-sotu-ft-moby', '--out', at('never')];
    const ended = surprisal([...other, ...FEW, '--hessians', at('h.safetensors')]);
    expect(ended).toMatchObject({ code: 2, stderr: expect.stringMatching(/Hessians of another model/) });
    expect(refused('--tensors', '*layers.2.*proj*', ...hessians)).toMatch(/no Hessian of layers\.2\.attention_input/);
  });

  it('weights that are not finite, a source that is quantised already, and outputs that exist', () => {
    cpSync(MODEL, at('nan'), { recursive: true });
    const file = join(at('nan'), 'model.safetensors');
    const store = openSafetensors(at('nan'));
    const tensor = store.tensors.get('model.layers.1.mlp.down_proj.weight');
    store.close();
    const bytes = readFileSync(file);
    bytes.writeUInt16LE(0x7fc0, (tensor?.offset ?? 0) + 2 * (384 * 5 + 7));
    writeFileSync(file, bytes);
    const broken = surprisal(['quantize-pvq', '--model', at('nan'), ...ONE_LAYER, '--out', at('never'), '--quiet']);
    expect(broken.code).toBe(2);
    expect(broken.stderr).toMatch(/down_proj.weight": 1 of 49152 weights are not finite.*row 5, column 7/);
    const again = resident(['quantize-pvq', '--model', at('made'), ...FEW, '--out', at('never')]);
    expect(again.stderr).toMatch(/is quantised already \(PVQ, .*--allow-requantize/);
    const below = ['--allow-requantize', '--bpw', '3.9', '--out', at('never')];
    const above = resident(['quantize-pvq', '--model', at('made'), ...FEW, ...below]);
    expect(above).toMatchObject({ code: 2, stderr: expect.stringMatching(/3\.9 bits are not below that/) });
    expect(quantize(...FEW, '--out', at('made'))).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/made: exists; pass --force/),
    });
  });
});
