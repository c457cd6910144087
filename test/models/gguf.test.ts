import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { createEngine, type EngineOptions } from '../../src/models/engine.js';
import { gatherRows } from '../../src/models/gather-rows.js';
import type { Floats } from '../../src/models/layer-runner.js';
import { openModelFiles } from '../../src/models/model-files.js';

const ROOT = 'fixtures/gguf';
const FILES = readdirSync(ROOT).filter((name) => name.endsWith('.gguf'));
const OPTIONS = { threads: 2, maxMemoryBytes: 2 ** 32, device: 'cpu', precision: 'f32', context: 64 } as const;

async function logitsOf(path: string, options: EngineOptions): Promise<Floats> {
  const engine = await createEngine(openModelFiles(path), options);
  const ids = Int32Array.from({ length: 40 }, (_, i) => (7 * i * i + 3 * i + 5) % engine.model.vocabularySize);
  const groups = await engine.forward({ windows: [ids] });
  const rows = gatherRows(groups, engine.model.hiddenSize, [[0, ids.length]]);
  await engine.normalize(rows);
  const logits = await engine.logits(rows);
  await engine.close();
  return logits;
}

function relative(actual: Floats, expected: Floats): number {
  expect(actual.length).toBe(expected.length);
  let difference = 0;
  let scale = 0;
  expected.forEach((value, i) => {
    difference = Math.max(difference, Math.abs(actual[i] - value));
    scale = Math.max(scale, Math.abs(value));
  });
  return difference / scale;
}

// Converted by llama.cpp: interleaved rotary rows, Gemma's 1 + w, fused and sorted rows, rotary factors, expert stacks.
describe.each(FILES)('%s', (name) => {
  const directory = join('fixtures/architectures', name.split('.')[0]);

  it('gives the logits of the directory it was made from', async () => {
    const expected = await logitsOf(directory, OPTIONS);
    expect(relative(await logitsOf(join(ROOT, name), OPTIONS), expected)).toBeLessThan(1e-5);
    const double = { ...OPTIONS, precision: 'f64' } as const;
    expect(relative(await logitsOf(join(ROOT, name), double), expected)).toBeLessThan(1e-5);
  });

  it('gives the same bits streamed and resident', async () => {
    const streamed = { ...OPTIONS, plan: { layersResident: false, headResident: false, rowsPerRun: 16 } };
    expect(await logitsOf(join(ROOT, name), streamed)).toEqual(await logitsOf(join(ROOT, name), OPTIONS));
  });
});

describe('a GGUF file that is no model this engine knows', () => {
  const folder = mkdtempSync(join(tmpdir(), 'surprisal-gguf-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const changed = (name: string, from: string, to: string): string => {
    const bytes = readFileSync(join(ROOT, name));
    const at = bytes.indexOf(from);
    expect(at).toBeGreaterThan(0);
    expect(to.length).toBe(from.length);
    bytes.write(to, at, 'latin1');
    const path = join(folder, `${to.replace(/\W/g, '_')}.gguf`);
    writeFileSync(path, bytes);
    return path;
  };
  const refusal = (path: string): string => {
    try {
      openModelFiles(path);
    } catch (error) {
      expect(error).toBeInstanceOf(InputError);
      expect((error as Error).message).not.toContain('\n');
      return (error as Error).message;
    }
    throw new Error('it was accepted');
  };

  it('names the architecture and the known ones', () => {
    const path = changed('qwen2-moe.f32.gguf', 'qwen2moe', 'qwen9moe');
    expect(refusal(path)).toMatch(/"qwen9moe" is not supported; known: llama, .*olmoe/);
  });
  it('names a missing tensor', () => {
    const path = changed('qwen2-moe.f32.gguf', 'blk.1.ffn_gate_inp.weight', 'blk.1.ffn_gate_xxx.weight');
    expect(refusal(path)).toContain('tensor "blk.1.ffn_gate_inp.weight" is missing');
  });
  it('names an unexpected tensor', () => {
    const path = changed('phi3-longrope.f32.gguf', 'rope_factors_long.weight', 'rope_factors_lung.weight');
    expect(refusal(path)).toContain('unexpected tensor "rope_factors_lung.weight"');
  });
  it('names a missing metadata key', () => {
    const path = changed('gemma3-pattern.f32.gguf', 'gemma3.embedding_length', 'gemma3.embedding_lingth');
    expect(refusal(path)).toMatch(/hidden_size|embedding_length/);
  });
});
