import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { encodeSafetensors } from '../../src/formats/safetensors-writer.js';
import { readStatistics } from '../../src/moe/statistics-file.js';
import { readReport } from '../../src/report/json.js';
import { writeCheckpoint } from '../models/rewritten-checkpoint.js';
import { deepseekV3 } from '../moe/expert-checkpoint.js';
import { type Ended, interrupted, resident, surprisal } from './run-surprisal.js';

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'merge-moe-calibrate-'));
});
afterAll(() => rmSync(directory, { recursive: true }));

const MIXTRAL = 'fixtures/models/mixtral-sotu-moby';
const TEXT = 'fixtures/text/heldout_text.jsonl';
const at = (name: string): string => join(directory, name);
const few = ['--calib-tokens', '600', '--calib-length', '64'] as const;

function calibrate(model: string, out: string, ...more: readonly string[]): Ended {
  return resident(['merge-moe', 'calibrate', '--model', model, '--data', TEXT, '--out', at(out), ...more]);
}

describe('merge-moe calibrate', { timeout: 120_000 }, () => {
  it('writes statistics, report and table that agree, the same bytes for any number of threads', () => {
    const outputs = (name: string): string[] => ['--report', at(`${name}.json`), '--table', at(`${name}.csv`)];
    const ended = calibrate(
      MIXTRAL,
      'stats',
      ...few,
      ...outputs('a'),
      '--outputs',
      'all',
      '--timings',
      at('times.json'),
    );
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    expect(ended.stdout).toMatch(/^layer +experts +top-k +tokens.*\n(.+\n)+.*statistics of 600 tokens/);
    const { header, layers } = readStatistics([at('stats')]);
    expect(header).toMatchObject({ modelType: 'mixtral', tokens: 600, outputs: 'all', precision: 'f32' });
    const report = readReport(at('a.json'));
    expect(report).toMatchObject({
      schema: 'surprisal/merge-moe-calibrate',
      tokens: 600,
      window_tokens: 64,
      layers: 3,
      experts: 24,
      shard: null,
      model_sha256: header.modelSha256,
    });
    const records = report.by_expert as { layer: number; expert: number; tokens: number; reap: number }[];
    for (const { layer, expert, tokens, reap } of records) {
      const { routing, outputs: sums } = layers[layer];
      expect(tokens).toBe(routing.counts[expert]);
      expect(reap).toBeCloseTo((sums?.renormalizedNormSum[expert] ?? 0) / tokens, 12);
    }
    const lines = readFileSync(at('a.csv'), 'utf8').trim().split('\n');
    expect(lines.length).toBe(25);
    expect(lines[0]).toMatch(/^layer,expert,tokens,usage,gate_mass,/);
    const again = calibrate(MIXTRAL, 'again', ...few, ...outputs('b'), '--outputs', 'all', '--threads', '1', '--quiet');
    expect(again).toMatchObject({ code: 0, stdout: '' });
    for (const [one, other] of [
      ['stats/statistics.safetensors', 'again/statistics.safetensors'],
      ['stats/manifest.json', 'again/manifest.json'],
      ['a.json', 'b.json'],
      ['a.csv', 'b.csv'],
    ]) {
      expect(readFileSync(at(one)).equals(readFileSync(at(other))), one).toBe(true);
    }
  });

  it('divides the windows among shards', () => {
    for (const shard of ['0/2', '1/2']) {
      const argv = [...few, '--shard', shard, '--quiet', '--outputs', 'none'];
      expect(calibrate(MIXTRAL, `shard-${shard[0]}`, ...argv).code).toBe(0);
    }
    const counts = (...folders: string[]): unknown =>
      readStatistics(folders.map(at)).layers.map(({ routing }) => routing.counts);
    expect(counts('shard-1', 'shard-0')).toEqual(counts('stats'));
  });

  it('warns of experts with few tokens or none, and holds asserts', () => {
    const model = 'fixtures/architectures/olmoe';
    writeFileSync(at('ids.jsonl'), `{"input_ids": [${Array.from({ length: 30 }, (_, i) => (i % 3) + 3)}]}\n`);
    const argv = ['merge-moe', 'calibrate', '--model', model, '--data', at('ids.jsonl'), '--prefix-token', '1'];
    const ended = surprisal([...argv, '--out', at('few'), '--assert', 'unused_experts == 0', '--outputs', 'none']);
    expect(ended.code).toBe(3);
    expect(ended.stderr).toMatch(/warning: \d+ of \d+ experts were never chosen: layer \d+ expert \d+ \(0\)/);
    expect(ended.stderr).toMatch(/have fewer than 32 tokens/);
    expect(existsSync(at('few/manifest.json'))).toBe(true);
    const { layers } = readStatistics([at('few')]);
    expect(layers[0].routing.tokens).toBe(31);
    expect(layers[0].outputs).toBeUndefined();
  });

  it('prints its plan and writes nothing with --dry-run', () => {
    const ended = calibrate(MIXTRAL, 'dry', '--dry-run', '--shard', '1/4', '--outputs', 'all');
    expect(ended.code).toBe(0);
    expect(ended.stdout).toMatch(/layers with experts +3 of 3/);
    expect(ended.stdout).toMatch(/shard +1\/4, by windows/);
    expect(readdirSync(directory).filter((name) => name.includes('dry'))).toEqual([]);
  });

  it('says in one line what is wrong', () => {
    const refused = (pattern: RegExp, ended: Ended): void => {
      expect(ended.stderr).toMatch(pattern);
      expect(ended.stderr.trim().split('\n').length).toBe(1);
      expect(ended.code).toBe(2);
    };
    refused(
      /llama-sotu: a dense model \(llama\): none of its \d+ layers/,
      calibrate('fixtures/models/llama-sotu', 'x'),
    );
    refused(/shorter than asked: the text gives \d+ tokens/, calibrate(MIXTRAL, 'x', '--calib-tokens', '99999999'));
    refused(/--outputs some: unknown.*routed, all, none/, calibrate(MIXTRAL, 'x', '--outputs', 'some'));
    refused(/--calib-length 4096 is longer than the \d+ positions/, calibrate(MIXTRAL, 'x', '--calib-length', '4096'));
    refused(/--shard 700\/800: the text has only 10 windows/, calibrate(MIXTRAL, 'x', ...few, '--shard', '700/800'));
    refused(/ONNX export/, calibrate('fixtures/formats/gemm.onnx', 'x'));
    expect(existsSync(at('x'))).toBe(false);
    refused(/again: exists; pass --force to replace it/, calibrate(MIXTRAL, 'again', ...few));
  });

  it('reads stored inputs of experts for a model whose forward pass is not there', () => {
    const made = deepseekV3();
    const model = writeCheckpoint(at('deepseek'), made.config, made.tensors);
    const data = Float32Array.from({ length: 2 * 40 * 8 }, (_, i) => Math.sin(i));
    const tensors = [{ name: 'hidden_states', dtype: 'F32' as const, shape: [2, 40, 8], data }];
    writeFileSync(at('states.safetensors'), encodeSafetensors(tensors));
    const argv = ['merge-moe', 'calibrate', '--model', model, '--out', at('deep')];
    const stored = [...argv, '--hidden-states', at('states.safetensors')];
    const text = resident([...argv, '--data', TEXT]);
    expect(text.stderr).toMatch(/the forward pass of deepseek_v3 is not there; .*--hidden-states/);
    expect(text.code).toBe(2);
    const both = resident([...stored, '--data', TEXT]);
    expect(both.stderr).toMatch(/--data has no meaning with --hidden-states/);
    expect(resident([...argv, '--mask', 'x']).stderr).toMatch(/--mask has no meaning with text/);
    expect(resident([...stored, '--dry-run']).stdout).toMatch(/hidden states +.*states\.safetensors/);
    expect(resident([...stored, '--report', at('deep.json'), '--quiet'])).toMatchObject({ code: 0, stderr: '' });
    const { header, layers } = readStatistics([at('deep')]);
    expect(header).toMatchObject({ modelType: 'deepseek_v3', tokens: 40, outputs: 'routed' });
    expect(layers.map(({ routing }) => routing.layer)).toEqual([1, 2]);
    expect(readReport(at('deep.json'))).toMatchObject({ tokens: 40, parameters: { count_padding: false } });
  });

  it('is taken up again after a kill', async () => {
    const long = ['--calib-tokens', '4000', '--outputs', 'all'];
    const argv = ['merge-moe', 'calibrate', '--model', MIXTRAL, '--data', TEXT, '--out', at('killed'), ...long];
    const partial = (): string | undefined => readdirSync(directory).find((name) => /^\.killed\..*partial$/.test(name));
    const ended = await interrupted(argv, 'SIGTERM', () => {
      const folder = partial();
      return folder !== undefined && existsSync(join(directory, folder, 'layer-00000.safetensors'));
    });
    expect(ended.code).toBe(143);
    expect(existsSync(at('killed'))).toBe(false);
    expect(surprisal([...argv, '--resume', '--quiet']).code).toBe(0);
    expect(partial()).toBeUndefined();
    expect(calibrate(MIXTRAL, 'straight', ...long, '--quiet').code).toBe(0);
    const file = 'statistics.safetensors';
    expect(readFileSync(join(at('killed'), file)).equals(readFileSync(join(at('straight'), file)))).toBe(true);
  });
});
