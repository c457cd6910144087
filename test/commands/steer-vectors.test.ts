import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { hashModel } from '../../src/models/model-hash.js';
import { readReport } from '../../src/report/json.js';
import { readSteeringVectors, writeSteeringVectors } from '../../src/steering/vector-files/vector-files.js';
import { temporaryFolder } from '../formats/collect.js';
import { surprisal } from './run-surprisal.js';

const folder = temporaryFolder();
const out = (name: string): string => join(folder, name);
const MODEL = 'fixtures/models/llama-sotu';
const GENERATED = 'fixtures/steering/cvector-generator.gguf';

describe('files of vectors', () => {
  it('imports a vector of llama.cpp, with what was assumed, for a model', async () => {
    const [file, report] = [out('v.safetensors'), out('import.json')];
    const where = ['--vector', GENERATED, '--cvector-shift', '-1', '--model', MODEL, '--out', file, '--report', report];
    const ended = surprisal(['steer', 'import', ...where]);
    expect(ended.stderr).toBe('');
    expect(ended.code).toBe(0);
    expect(ended.stdout).toMatch(/cvector-generator/);
    const vectors = readSteeringVectors(file);
    expect([...vectors.directions.keys()]).toEqual([0, 1, 2]);
    expect(vectors.origin).toEqual({ modelType: 'llama', layers: 4, modelSha256: await hashModel(MODEL) });
    const written = readReport(report) as unknown as { assumptions: string[]; sources: unknown[]; cosines: unknown };
    expect(written.assumptions.join('\n')).toMatch(/blocks moved by -1 as asked/);
    expect(written.sources).toHaveLength(1);
    expect(written.cosines).toMatchObject({ entries: [{ block: 0 }, { block: 1 }, { block: 2 }] });
  });

  it('combines, and refuses vectors of another model', () => {
    const [given, narrow] = [out('given.json'), out('narrow.json')];
    const direction = Float32Array.from({ length: 128 }, (_, i) => i - 64);
    const about = { hiddenSize: 128, origin: {}, assumptions: [] };
    writeSteeringVectors(given, { ...about, directions: new Map([[2, direction]]) });
    const file = out('sum.gguf');
    const ended = surprisal([
      'steer',
      'combine',
      '--vector',
      `${GENERATED}:2`,
      `${given}:-1`,
      '--layer',
      '2',
      '--out',
      file,
    ]);
    expect(ended.stderr).toBe('');
    const before = readSteeringVectors(GENERATED).directions.get(2) ?? new Float32Array();
    expect([...readSteeringVectors(file).directions]).toEqual([
      [2, before.map((value, i) => Math.fround(2 * value - direction[i]))],
    ]);
    writeSteeringVectors(narrow, { ...about, hiddenSize: 1, directions: new Map([[2, Float32Array.of(1)]]) });
    const refused = surprisal(['steer', 'export', '--vector', narrow, '--model', MODEL, '--out', out('no.gguf')]);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toMatch(/hidden size is 128, the vector has 1 numbers/);
    expect(existsSync(out('no.gguf'))).toBe(false);
  });
});

describe('steer bake', () => {
  it('writes a model, its proof and its manifest', () => {
    const target = out('baked');
    const text = ['--data', 'fixtures/text/heldout_text.jsonl', '--proof-tokens', '32'];
    const where = ['--model', MODEL, '--vector', `${GENERATED}:3`, '--layer', '1-2', '--out', target];
    const ended = surprisal(['steer', 'bake', ...where, ...text, '--threads', '1', '--assert', 'proof.tokens == 32']);
    expect(ended.stderr).toBe('');
    expect(ended.code).toBe(0);
    const manifest = readReport(join(target, 'manifest.json')) as unknown as {
      blocks: { block: number; shift_over_stream: number }[];
      proof: Record<'baked_to_injected' | 'original_to_injected', { max_abs_difference: number }>;
    };
    expect(manifest.blocks.map(({ block }) => block)).toEqual([1, 2]);
    expect(manifest.proof.baked_to_injected.max_abs_difference).toBeLessThan(1e-3);
    expect(manifest.proof.original_to_injected.max_abs_difference).toBeGreaterThan(0.1);
    expect(JSON.parse(readFileSync(join(target, 'config.json'), 'utf8'))).toMatchObject({ mlp_bias: true });
  });
});
