import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readReport } from '../../src/report/json.js';
import { temporaryFolder } from '../formats/collect.js';
import { readCheckpoint, readConfig, writeCheckpoint } from '../models/rewritten-checkpoint.js';
import { type Ended, interrupted, resident, surprisal } from './run-surprisal.js';

const directory = temporaryFolder();
const MIXTRAL = 'fixtures/models/mixtral-sotu-moby';
const at = (name: string): string => join(directory, name);
/** The beginnings of six documents, some 3,000 tokens. */
const TEXT = (() => {
  const rows = readFileSync('fixtures/text/heldout_text.jsonl', 'utf8').trimEnd().split('\n');
  const short = rows.map((row) => JSON.stringify({ text: (JSON.parse(row) as { text: string }).text.slice(0, 1500) }));
  writeFileSync(at('text.jsonl'), `${short.join('\n')}\n`);
  return at('text.jsonl');
})();
const few = ['--data', TEXT, '--calib-tokens', '300', '--calib-length', '64', '--context', '64'] as const;
const judged = ['--eval-data', TEXT, '--eval-tokens', '100'] as const;

const merge = (out: string, ...more: readonly string[]): Ended =>
  resident(['merge-moe', '--model', MIXTRAL, '--out', at(out), ...more]);

const filesOf = (name: string): Record<string, string> =>
  Object.fromEntries(readdirSync(at(name)).map((file) => [file, readFileSync(join(at(name), file), 'latin1')]));

describe('merge-moe merge', { timeout: 180_000 }, () => {
  it('writes a smaller model that every command reads, a report, a table and a figure', () => {
    const outputs = [
      '--report',
      at('a.json'),
      '--table',
      at('a.csv'),
      '--plot',
      at('a.svg'),
      '--timings',
      at('t.json'),
    ];
    const ended = merge(
      'a',
      '--experts',
      '4',
      ...few,
      ...judged,
      ...outputs,
      '--refit',
      'layer',
      '--refit-lambda',
      '0.01',
    );
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    expect(ended.stdout).toMatch(/layer +experts +kept.*\n(.+\n)+.*40\.6 % saved.*\nperplexity [\d.]+ to [\d.]+/);
    const report = readReport(at('a.json'));
    expect(report).toMatchObject({
      schema: 'surprisal/merge-moe-merge',
      model: { family: 'mixtral', experts: 8, experts_per_token: 2 },
      statistics: { tokens: 300, outputs: 'none' },
      result: { config_form: 'standard', expert_parameters_before: 2 * 884736, expert_parameters_after: 884736 },
    });
    const { errors, evaluation } = report as unknown as {
      errors: Record<
        string,
        { relative_error: number; expert_error: number; routing_error: number; cross_term: number }[]
      >;
      evaluation: { perplexity: number; mean_kl_nats: number };
    };
    for (const error of [...errors.calibration, ...errors.held_out]) {
      const parts = error.expert_error ** 2 + error.routing_error ** 2 + error.cross_term;
      expect(error.relative_error ** 2).toBeCloseTo(parts, 9);
    }
    const lines = readFileSync(at('a.csv'), 'utf8').trim().split('\n');
    expect(lines.length).toBe(25);
    expect(readdirSync(at('a'))).toContain('manifest.json');
    expect(JSON.parse(readFileSync(at('a/config.json'), 'utf8')).num_local_experts).toBe(4);
    const scored = resident([
      ...['analyze-entropy', '--model', at('a'), '--data', TEXT, '--context', '64', '--limit', '1'],
      ...['--report', at('scored.json'), '--quiet'],
    ]);
    expect(scored).toMatchObject({ code: 0, stderr: '' });
    expect(evaluation.mean_kl_nats).toBeGreaterThan(0);
  });

  it('gives the same from statistics on disk, and after a kill', async () => {
    const calibrated = resident([
      'merge-moe',
      'calibrate',
      '--model',
      MIXTRAL,
      ...few.slice(0, 6),
      '--out',
      at('stats'),
      '--outputs',
      'all',
      '--quiet',
    ]);
    expect(calibrated).toMatchObject({ code: 0, stderr: '' });
    const options = [
      '--method',
      'hc-smoe',
      '--keep-ratio',
      '0.5',
      '--align',
      'weights',
      '--stats',
      at('stats'),
      '--quiet',
    ];
    expect(merge('b', ...options)).toMatchObject({ code: 0, stderr: '' });
    const argv = ['merge-moe', 'merge', '--model', MIXTRAL, '--out', at('c'), ...options, '--threads', '1'];
    const started = (): boolean => readdirSync(directory).some((name) => name.startsWith('.c.'));
    await interrupted(argv, 'SIGKILL', started);
    expect(existsSync(at('c'))).toBe(false);
    expect(surprisal([...argv, '--resume'])).toMatchObject({ code: 0, stderr: '' });
    expect(filesOf('c')).toEqual(filesOf('b'));
    expect(readdirSync(directory).filter((name) => name.startsWith('.c.'))).toEqual([]);
    const whole = merge('d', '--experts', '8', '--stats', at('stats'));
    expect(whole.stdout).toContain('every expert is kept');
    expect(filesOf('d')['model.safetensors']).toBe(readFileSync(join(MIXTRAL, 'model.safetensors'), 'latin1'));
  });

  it('says what is wrong, in one line, and leaves nothing behind', () => {
    const tensors = readCheckpoint('fixtures/architectures/mixtral');
    tensors.delete('model.layers.0.block_sparse_moe.experts.1.w3.weight');
    writeCheckpoint(at('broken'), readConfig('fixtures/architectures/mixtral'), tensors);
    const some = ['--experts', '4', '--stats', at('stats')];
    const cases: [readonly string[], RegExp][] = [
      [['--model', 'fixtures/models/llama-sotu', '--experts', '4', ...few], /dense model/],
      [['--model', at('broken'), '--experts', '2', '--method', 'random'], /experts\.1\.w3/],
      [['--model', 'fixtures/architectures/olmoe', ...some], /statistics of another model/],
      [['--model', MIXTRAL, '--experts', '4'], /--data or --stats is missing/],
      [
        ['--model', MIXTRAL, ...some, '--refit', 'group'],
        /--refit group: the text runs through the model once more; give --data/,
      ],
      [
        ['--model', MIXTRAL, '--experts', '1', '--stats', at('stats')],
        /layer 0.*1 expert.*2 experts a token|top-k|num_experts_per_tok/,
      ],
      [['--model', MIXTRAL, '--experts', '9', '--stats', at('stats')], /--experts 9: the layers have 8/],
      [
        ['--model', MIXTRAL, ...some, '--method', 'reap', '--align', 'weights'],
        /--align has no meaning for --method reap/,
      ],
      [['--model', MIXTRAL, ...some, '--method', 'm-smo'], /did you mean "m-smoe"/],
      [
        ['--model', MIXTRAL, ...some, '--router', 'remap', '--router-rows', 'mean'],
        /--router-rows mean is of --router reduced/,
      ],
      [['--model', MIXTRAL, ...some, '--keep-layers', '7'], /layer 7 of .* has no experts/],
      [
        ['--model', MIXTRAL, '--experts', '4', '--data', TEXT, '--calib-tokens', '150', '--refit', 'group'],
        /--refit-lambda/,
      ],
      [['--model', MIXTRAL, '--experts', '4', '--data', TEXT, '--calib-tokens', '9000000'], /shorter than asked/],
    ];
    const before = readdirSync(directory).sort();
    for (const [argv, message] of cases) {
      const ended = resident(['merge-moe', 'merge', ...argv, '--out', at('never'), '--quiet']);
      expect(ended.stderr).toMatch(message);
      expect(ended.stderr.trim().split('\n').length).toBe(1);
      expect(ended.code).toBe(2);
    }
    const dense = surprisal(['merge-moe', 'merge', ...cases[0][0], '--out', at('never'), '--quiet']);
    expect(dense).toMatchObject({ code: 2, stderr: expect.stringMatching(/^error: .*dense model.*\n$/) });
    expect(readdirSync(directory).sort()).toEqual(before);
  });
});

describe('merge-moe compare', { timeout: 180_000 }, () => {
  it('puts methods of one size side by side, and goes on where it was stopped', async () => {
    const argv = [
      ...['merge-moe', 'compare', '--model', MIXTRAL, '--experts', '6', '4', ...few, ...judged, '--quiet'],
      ...['--methods', 'm-smoe:align=none reap'],
    ];
    const outputs = (name: string): string[] => ['--out', at(`${name}.csv`), '--report', at(`${name}.json`)];
    expect(resident([...argv, ...outputs('x'), '--plot', at('x.svg')])).toMatchObject({ code: 0, stderr: '' });
    const report = readReport(at('x.json'));
    const rows = report.rows as {
      name: string;
      experts: number;
      bytes: number;
      predictions: { mean_kl_nats: number };
    }[];
    expect(rows.map(({ name, experts }) => `${name} ${experts}`)).toEqual([
      'm-smoe:align=none 6',
      'reap 6',
      'm-smoe:align=none 4',
      'reap 4',
    ]);
    expect(rows[0].bytes).toBe(rows[1].bytes);
    expect(rows[2].predictions.mean_kl_nats).toBeGreaterThan(rows[0].predictions.mean_kl_nats);
    const again = [...argv, ...outputs('y'), '--resume', '--threads', '1'];
    await interrupted(again, 'SIGKILL', () => existsSync(at('.y.csv.checkpoint')));
    expect(resident(again)).toMatchObject({ code: 0, stderr: '' });
    for (const kind of ['csv', 'json']) {
      expect(readFileSync(at(`y.${kind}`), 'utf8')).toBe(readFileSync(at(`x.${kind}`), 'utf8'));
    }
    expect(readdirSync(directory).filter((name) => /^\.[xy]\./.test(name))).toEqual([]);
    const wrong = resident([...argv.slice(0, -1), 'm-smoe:lign=none', ...outputs('z')]);
    expect(wrong.stderr).toMatch(/--methods m-smoe:lign=none: unknown option/);
    expect(wrong.code).toBe(2);
  });
});
