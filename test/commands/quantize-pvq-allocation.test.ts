import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { readReport } from '../../src/report/json.js';
import { temporaryFolder } from '../formats/collect.js';
import { interrupted, resident, surprisal } from './run-surprisal.js';

const folder = temporaryFolder();
const at = (name: string): string => join(folder, name);
const MODEL = 'fixtures/models/qwen2-moby';
const TEXT = at('text.jsonl');
const CALIBRATED = ['--data', TEXT, '--calib-tokens', '256', '--calib-length', '128', '--sensitivity-tokens', '200'];
const quantize = (...argv: string[]) => resident(['quantize-pvq', '--model', MODEL, '--quiet', ...argv]);

interface AllocationReport {
  readonly parameters: { readonly allocation: string; readonly sensitivity_tokens: number | null };
  readonly allocation: {
    readonly mode: string | null;
    readonly sensitivity_tokens: number | null;
    readonly noise_relative_energy: number | null;
  };
  readonly quantized: { readonly bits_per_weight: number };
  readonly tensors: readonly {
    name: string;
    sensitivity: number | null;
    rows: number;
    columns: number;
    bytes: number;
  }[];
  readonly warnings: readonly string[];
}
const reportOf = (name: string): AllocationReport => readReport(at(name)) as unknown as AllocationReport;

beforeAll(() => {
  const rows = readFileSync('fixtures/text/heldout_text.jsonl', 'utf8').trimEnd().split('\n');
  writeFileSync(
    TEXT,
    `${rows.map((row) => JSON.stringify({ text: JSON.parse(row).text.slice(0, 2000) })).join('\n')}\n`,
  );
});

describe('quantize-pvq --allocation kl', { timeout: 120_000 }, () => {
  it('is what a run with text does: sensitive tensors get more bits, the same ones however often it is stopped', async () => {
    const argv = (name: string): string[] => [
      ...[
        'quantize-pvq',
        '--model',
        MODEL,
        '--quiet',
        '--tensors',
        '*layers.0.self*proj*,*layers.2.self*proj*',
        '--bpw',
        '3',
        ...CALIBRATED,
      ],
      ...['--passes', '0', '--out', at(name), '--report', at(`${name}.json`)],
    ];
    expect(resident([...argv('whole'), '--table', at('whole.csv')])).toEqual({ code: 0, stdout: '', stderr: '' });
    const { allocation, parameters, quantized, tensors } = reportOf('whole.json');
    expect(parameters).toMatchObject({ allocation: 'kl', sensitivity_tokens: 200 });
    expect(allocation).toMatchObject({ mode: 'kl', sensitivity_tokens: 200 });
    expect(allocation.noise_relative_energy).toBe(4 ** -3);
    expect(quantized.bits_per_weight).toBeLessThanOrEqual(3);
    expect(readFileSync(at('whole.csv'), 'utf8')).toMatch(/^[^\n]*,bytes,sensitivity,/);
    // Among tensors of one shape, the more sensitive a weight is, the more bits it has.
    for (const a of tensors) {
      for (const b of tensors.filter(({ rows, columns }) => rows === a.rows && columns === a.columns)) {
        if ((a.sensitivity ?? 0) > 2 * (b.sensitivity ?? 0)) expect(a.bytes, a.name).toBeGreaterThanOrEqual(b.bytes);
      }
    }
    expect(new Set(tensors.map(({ sensitivity }) => sensitivity)).size).toBe(tensors.length);

    const started = (): boolean =>
      readdirSync(folder).some((name) => {
        const work = join(folder, name, '.pvq');
        return name.includes('cut') && existsSync(work) && readdirSync(work).some((entry) => /^\d+\.json$/.test(entry));
      });
    await interrupted(argv('cut'), 'SIGKILL', started);
    expect(surprisal([...argv('cut'), '--resume', '--threads', '1'])).toEqual({ code: 0, stdout: '', stderr: '' });
    const weights = (name: string): string => readFileSync(join(at(name), 'model.safetensors')).toString('base64');
    expect(weights('cut')).toBe(weights('whole'));
    expect(readFileSync(at('cut.json'), 'utf8')).toBe(readFileSync(at('whole.json'), 'utf8'));
  });

  it('gives the embedding what the others have on average, and says so', () => {
    const own = [
      '--tensors',
      '*embed*,*layers.0.mlp*',
      '--passes',
      '0',
      ...CALIBRATED,
      '--hessians',
      at('h.safetensors'),
    ];
    expect(quantize(...own, '--out', at('embed'), '--report', at('embed.json')).code).toBe(0);
    const { warnings, tensors } = reportOf('embed.json');
    expect(warnings.join()).toMatch(/embed_tokens.weight: its effect on predictions is not measured/);
    const each = tensors.map(({ sensitivity, rows, columns }) => (sensitivity ?? 0) / (rows * columns));
    const embedding = tensors.findIndex(({ name }) => name.includes('embed'));
    expect(each[embedding]).toBeGreaterThan(Math.min(...each));
    expect(each[embedding]).toBeLessThan(Math.max(...each));
    // Without text there is nothing to predict.
    const read = [
      '--tensors',
      '*embed*,*layers.0.mlp*',
      '--passes',
      '0',
      '--hessians',
      at('h.safetensors'),
      '--out',
      at('read'),
    ];
    expect(quantize(...read, '--report', at('read.json')).code).toBe(0);
    expect(reportOf('read.json').allocation).toEqual({
      mode: 'uniform',
      sensitivity_tokens: null,
      noise_relative_energy: null,
    });
    expect(reportOf('read.json').tensors.every(({ sensitivity }) => sensitivity === null)).toBe(true);
  });

  it('refuses what it cannot measure', () => {
    const refused = (pattern: RegExp, ...argv: string[]): void => {
      const { code, stderr } = quantize('--tensors', '*layers.0*proj*', '--out', at('none'), ...argv);
      expect(stderr).toMatch(pattern);
      expect(code).toBe(2);
    };
    refused(/--allocation kl measures predictions: give text with --data/, '--allocation', 'kl');
    refused(/--sensitivity-tokens needs --allocation kl/, '--sensitivity-tokens', '100');
    refused(/--sensitivity-tokens 900: there are 256 calibration tokens/, ...CALIBRATED.slice(0, -1), '900');
    expect(existsSync(at('none'))).toBe(false);
  });
});
