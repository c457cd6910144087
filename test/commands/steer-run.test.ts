import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseVectorRequest } from '../../commands/steer-options.js';
import { readReport, validateReport } from '../../src/report/json.js';
import { writeSteeringVectors } from '../../src/steering/vector-files/vector-files.js';
import { surprisal } from './run-surprisal.js';

const MODEL = 'fixtures/models/llama-sotu';
let folder: string;
const at = (name: string): string => join(folder, name);

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'steer-run-'));
  const direction = (scale: number): Float32Array =>
    Float32Array.from({ length: 128 }, (_, i) => scale * Math.sin(1 + i * i));
  const directions = new Map([
    [1, direction(0.5)],
    [2, direction(0.3)],
  ]);
  writeSteeringVectors(at('v.safetensors'), { hiddenSize: 128, directions, origin: {}, assumptions: [] });
  const rows = ['The state of our', 'My fellow citizens of', 'We will not'].map((prompt, i) =>
    JSON.stringify({ prompt, run: i % 2, id: `p${i}` }),
  );
  writeFileSync(at('prompts.jsonl'), `${rows.join('\n')}\n`);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('steer run', () => {
  it('writes text, tokens, report and figure; the strength for a target is found', () => {
    const ended = surprisal([
      ...[
        'steer',
        '--model',
        MODEL,
        '--data',
        at('prompts.jsonl'),
        '--vector',
        `${at('v.safetensors')}:strength=2,layer=2`,
      ],
      ...['--max-new-tokens', '6', '--samples', '2', '--target-entropy', '0.5', '--actions', ' people', ' nation'],
      ...[
        '--out',
        at('run.jsonl'),
        '--table',
        at('tokens.csv'),
        '--report',
        at('run.json'),
        '--plot',
        at('run.svg'),
        '--quiet',
      ],
    ]);
    expect(ended.stderr).toBe('');
    expect(ended.code).toBe(0);
    const report = readReport(at('run.json'));
    validateReport(report, 'run.json');
    expect(report).toMatchObject({ prompts: 3, continuations: 6, steered_prompts: 3, target: { target_nats: 0.5 } });
    const rows = readFileSync(at('run.jsonl'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(rows.map(({ prompt_id }) => prompt_id)).toEqual(['p0', 'p0', 'p1', 'p1', 'p2', 'p2']);
    const tokens = readFileSync(at('tokens.csv'), 'utf8').trim().split('\n');
    expect(tokens).toHaveLength(1 + rows.reduce((sum, { tokens: n }) => sum + n, 0));
    expect(existsSync(at('run.svg'))).toBe(true);
  });

  it('reads a strength, options of one vector, or a path with a colon', () => {
    expect(parseVectorRequest('a.gguf:-1.5')).toEqual({ file: 'a.gguf', strength: -1.5 });
    expect(parseVectorRequest('a:b/v.gguf')).toEqual({ file: 'a:b/v.gguf' });
    expect(parseVectorRequest('v:operator=clamp,layer=3-4')).toEqual({ file: 'v', operator: 'clamp', layers: [3, 4] });
    expect(() => parseVectorRequest('v:operator=clamb')).toThrow(/clamp/);
    expect(() => parseVectorRequest('v:force=2')).toThrow(/"force" is not known/);
  });
});

describe('steer sweep', () => {
  it('gives every cell, verdicts, the strength for a target and a search', () => {
    const ended = surprisal([
      ...['steer', 'sweep', '--model', MODEL, '--data', at('prompts.jsonl'), '--vector', at('v.safetensors')],
      ...['--strengths=-4,4', '--random', '1', '--temperatures', '1.5', '--actions', ' the', ' of'],
      ...['--thought', ' all', '--samples', '2', '--max-new-tokens', '12', '--search', '--search-rounds', '1'],
      ...['--search-samples', '2', '--target-entropy', '0.4', '--out', at('sweep.csv'), '--table', at('cells.csv')],
      ...['--report', at('sweep.json'), '--plot', at('sweep.svg'), '--quiet'],
    ]);
    expect(ended.stderr).toBe('');
    expect(ended.code).toBe(0);
    const report = readReport(at('sweep.json'));
    validateReport(report, 'sweep.json');
    expect(report).toMatchObject({ prompts: 3, runs: 2, layers: [{ layer: 1 }, { layer: 2 }] });
    // The unsteered model, one temperature, and two strengths of a vector and two controls on two layers.
    expect(readFileSync(at('sweep.csv'), 'utf8').trim().split('\n')).toHaveLength(1 + 2 + 2 * 3 * 2);
    expect(readFileSync(at('cells.csv'), 'utf8').trim().split('\n')).toHaveLength(1 + 14 * 3);
  });

  it('refuses one action, a target out of reach, and a vector of another size', () => {
    const base = ['steer', 'sweep', '--model', MODEL, '--data', at('prompts.jsonl'), '--vector', at('v.safetensors')];
    const one = surprisal([...base, '--actions', ' people']);
    expect(one).toMatchObject({ code: 2, stderr: expect.stringMatching(/only action.*entropy is zero/) });
    const high = surprisal([...base, '--actions', ' people', ' nation', '--target-entropy', '0.8']);
    expect(high).toMatchObject({ code: 2, stderr: expect.stringMatching(/at most 0\.6931 nats/) });
  });
});
