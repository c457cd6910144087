import { afterAll, describe, expect, it } from 'vitest';
import { createEngine, type Engine, gatherRows } from '../../src/models/engine.js';
import { openModelFiles } from '../../src/models/model-files.js';
import { equalBitThreads } from '../../src/models/product-threads.js';

/** Token ids that differ by `salt`, within every vocabulary here. */
const window = (length: number, salt: number): Int32Array =>
  Int32Array.from({ length }, (_, i) => (i * 37 + salt * 11 + 5) % 60);

const engines: Engine[] = [];
afterAll(async () => {
  for (const engine of engines) await engine.close();
});

async function engineOf(path: string, threads: number, precision: 'f32' | 'f64'): Promise<Engine> {
  const engine = await createEngine(openModelFiles(path), {
    threads,
    maxMemoryBytes: 2 ** 31,
    device: 'cpu',
    precision,
    context: 256,
  });
  engines.push(engine);
  return engine;
}

/** Entropy, surprisal and rank of the first window, whatever runs beside it. */
async function firstWindow(engine: Engine, windows: readonly Int32Array[]): Promise<number[]> {
  const groups = await engine.forward({ windows });
  const rows = gatherRows(
    groups,
    engine.model.hiddenSize,
    windows.map((ids) => [0, ids.length] as const),
  );
  await engine.normalize(rows);
  const targets = Int32Array.from({ length: rows.length / engine.model.hiddenSize }, (_, i) => i % 50);
  const found = await engine.statistics(rows, targets, { topK: 3, renyiOrders: [2] });
  const count = windows[0].length;
  return [found.entropyNats, found.surprisalNats, found.rank].flatMap((values) => [...values.slice(0, count)]);
}

const CASES = [
  ['fixtures/models/llama-sotu', [1, 2, 17, 64, 127, 128, 256]],
  ['fixtures/models/qwen2-moby', [1, 3, 65, 100]],
  ['fixtures/models/mixtral-sotu-moby', [1, 2, 40, 129, 256]],
  ['fixtures/architectures/qwen2-moe-shared', [1, 5, 33]],
  ['fixtures/architectures/gemma3', [1, 6, 50]],
  ['fixtures/architectures/gpt-neox-parallel', [1, 6, 50]],
] as const;

describe.each(CASES)('%s: the bits of a window', (path, lengths) => {
  it.each(['f32', 'f64'] as const)('do not depend on threads or on what runs beside it, in %s', async (precision) => {
    const reference = await engineOf(path, 1, precision);
    for (const threads of [2, 3, 4]) {
      const engine = await engineOf(path, threads, precision);
      for (const length of lengths) {
        const alone = await firstWindow(reference, [window(length, 0)]);
        expect(await firstWindow(engine, [window(length, 0)]), `length ${length}, ${threads} threads`).toEqual(alone);
        const beside = [window(length, 0), window(length, 1), window(9, 4), window(31, 2)];
        expect(await firstWindow(engine, beside), `length ${length}, ${threads} threads, in a batch`).toEqual(alone);
      }
    }
  });
});

describe('equalBitThreads', () => {
  it('leaves every thread five panels where columns are split and the depth takes several pieces', () => {
    expect(equalBitThreads([{ columns: 4096, depth: 4096 }], 1024, 8)).toBe(8);
    expect(equalBitThreads([{ columns: 4096, depth: 4096 }], 1024, 128)).toBe(51);
    expect(equalBitThreads([{ columns: 128, depth: 384 }], 100, 8)).toBe(1);
    expect(equalBitThreads([{ columns: 128, depth: 384 }], 128, 8)).toBe(8);
    expect(equalBitThreads([{ columns: 128, depth: 128 }], 1, 8)).toBe(8);
  });
});
