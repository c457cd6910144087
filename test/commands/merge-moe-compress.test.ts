import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readReport, validateReport } from '../../src/report/json.js';
import { temporaryFolder } from '../formats/collect.js';
import { type Ended, interrupted, resident, surprisal } from './run-surprisal.js';

const directory = temporaryFolder();
const MIXTRAL = 'fixtures/models/mixtral-sotu-moby';
const at = (name: string): string => join(directory, name);
/** The beginnings of six documents, some 1,600 tokens. */
const TEXT = (() => {
  const rows = readFileSync('fixtures/text/heldout_text.jsonl', 'utf8').trimEnd().split('\n');
  const short = rows.map((row) => JSON.stringify({ text: (JSON.parse(row) as { text: string }).text.slice(0, 800) }));
  writeFileSync(at('text.jsonl'), `${short.join('\n')}\n`);
  return at('text.jsonl');
})();

function compress(out: string, ...more: readonly string[]): Ended {
  return resident(['merge-moe', 'compress', '--model', MIXTRAL, '--out', at(out), ...more]);
}

function perplexity(model: string): number {
  const argv = ['analyze-entropy', 'tokens', '--model', model, '--data', TEXT, '--force', '--quiet'];
  expect(resident([...argv, '--report', at('t.json')])).toMatchObject({ code: 0 });
  return readReport(at('t.json')).perplexity as number;
}

describe('merge-moe compress', { timeout: 120_000 }, () => {
  it('writes a smaller model that runs, with report, table and manifest that agree', () => {
    const outputs = ['--report', at('a.json'), '--table', at('a.csv'), '--timings', at('times.json')];
    const ended = compress('a', '--rank', '40', '--keep-rows', '0.3', ...outputs, '--assert', 'relative_error < 0.5');
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    expect(ended.stdout).toMatch(/matrices +72 of 72\n/);
    const report = readReport(at('a.json'));
    validateReport(report, 'a.json');
    expect(report).toMatchObject({
      schema: 'surprisal/merge-moe-compress',
      form: 'factorised',
      rank: 40,
      rows_scope: 'matrix',
      row_score: 'magnitude',
      matrices: 72,
      notes: [],
    });
    expect(readReport(join(at('a'), 'manifest.json'))).toEqual(report);
    const lines = readFileSync(at('a.csv'), 'utf8').trim().split('\n');
    expect(lines).toHaveLength(73);
    expect(lines[0]).toMatch(/^layer,expert,matrix,name,rows,columns,compressed,rank,sparse_rows,path,/);
    const bytesAt = lines[0].split(',').indexOf('bytes_after');
    const bytes = lines.slice(1).reduce((sum, line) => sum + Number(line.split(',')[bytesAt]), 0);
    expect(bytes).toBe(report.bytes_after);
    expect(bytes).toBeLessThan(report.bytes_before as number);
    const [before, after] = [perplexity(MIXTRAL), perplexity(at('a'))];
    expect(after).toBeGreaterThan(before);
    expect(after).toBeLessThan(1.5 * before);
    expect(compress('a')).toMatchObject({ code: 2, stderr: expect.stringMatching(/already exists/) });
    const failing = ['--rank', '1', '--force', '--quiet', '--assert', 'relative_error < 0.1'];
    const failed = surprisal(['merge-moe', 'compress', '--model', MIXTRAL, '--out', at('a'), ...failing]);
    expect(failed).toMatchObject({ code: 3, stdout: '' });
  });

  it('weighs rows by statistics of the very model', () => {
    const stats = ['--calib-tokens', '400', '--calib-length', '64', '--quiet'];
    const calibrate = ['merge-moe', 'calibrate', '--model', MIXTRAL, '--data', TEXT];
    expect(resident([...calibrate, '--out', at('stats'), ...stats])).toMatchObject({ code: 0 });
    const ended = compress(
      'b',
      '--rank',
      '8',
      '--stats',
      at('stats'),
      '--rows-scope',
      'layer',
      '--form',
      'dense',
      '--quiet',
    );
    expect(ended).toMatchObject({ code: 0, stderr: '', stdout: '' });
    const report = readReport(join(at('b'), 'manifest.json'));
    expect(report).toMatchObject({ row_score: 'activations', rows_scope: 'layer', form: 'dense' });
    expect(report.bytes_after).toBe(report.bytes_before);
    const inputs = report.inputs.map(({ path }) => path);
    expect(inputs).toContain(join(at('stats'), 'statistics.safetensors'));
    const argv = ['merge-moe', 'compress', '--model', 'fixtures/architectures/mixtral', '--out', at('c')];
    const other = resident([...argv, '--stats', at('stats')]);
    expect(other).toMatchObject({ code: 2, stderr: expect.stringMatching(/statistics of another model/) });
    expect(resident([...calibrate, '--out', at('none'), ...stats, '--outputs', 'none'])).toMatchObject({ code: 0 });
    const bare = compress('c', '--stats', at('none'));
    expect(bare).toMatchObject({ code: 2, stderr: expect.stringMatching(/--outputs routed or all/) });
    expect(existsSync(at('c'))).toBe(false);
  });

  it('goes on after a kill', async () => {
    const argv = ['merge-moe', 'compress', '--model', MIXTRAL, '--rank', '12', '--spectra', '--quiet'];
    const journal = (): boolean =>
      readdirSync(directory).some(
        (name) => name.startsWith('.killed.') && existsSync(join(directory, name, '.compress', 'factors.bin')),
      );
    const killed = await interrupted([...argv, '--out', at('killed')], 'SIGKILL', journal);
    expect(killed.signal).toBe('SIGKILL');
    expect(existsSync(at('killed'))).toBe(false);
    expect(surprisal([...argv, '--out', at('killed'), '--resume'])).toMatchObject({ code: 0 });
    expect(resident([...argv, '--out', at('whole')])).toMatchObject({ code: 0 });
    const [a, b] = ['killed', 'whole'].map((name) => readFileSync(join(at(name), 'model.safetensors')));
    expect(a.equals(b)).toBe(true);
    expect(readdirSync(directory).filter((name) => name.endsWith('.partial'))).toEqual([]);
  });

  it('plans without writing', () => {
    const ended = compress('planned', '--dry-run', '--rank', '4', '--keep-layers', '0,2');
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    expect(ended.stdout).toMatch(/matrices +24\n/);
    expect(existsSync(at('planned'))).toBe(false);
  });

  it.each([
    [['--rank', '0', '--keep-rows', '0'], /nothing would be left/],
    [['--stats', 'a', '--gradients', 'b'], /pass one of them/],
    [['--rows-scope', 'modle'], /did you mean "model"/],
    [['--keep-rows', '1.5'], /at most 1/],
    [['--keep-layers', '7'], /layer 7 has no experts/],
    [['--keep-layers', '3-1'], /no range such as 5-7/],
    [['--tensors', 'lm_head*'], /matches no matrix of an expert/],
    [['--gradients', 'nowhere.safetensors'], /nowhere\.safetensors/],
  ])('refuses %j', (more, message) => {
    const ended = compress('refused', ...more);
    expect(ended.code).toBe(2);
    expect(ended.stderr).toMatch(message);
    expect(existsSync(at('refused'))).toBe(false);
  });

  it('refuses models without experts, and what is compressed already', () => {
    const of = (model: string): Ended => resident(['merge-moe', 'compress', '--model', model, '--out', at('d')]);
    expect(of('fixtures/architectures/qwen2')).toMatchObject({ code: 2, stderr: expect.stringMatching(/dense model/) });
    expect(compress('e', '--rank', '2', '--quiet')).toMatchObject({ code: 0 });
    expect(of(at('e'))).toMatchObject({ code: 2, stderr: expect.stringMatching(/already compressed by surprisal/) });
  });
});
