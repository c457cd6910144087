import { expect } from 'vitest';
import { createEngine } from '../../src/models/engine.js';
import { gatherRows } from '../../src/models/gather-rows.js';
import type { Floats } from '../../src/models/layer-runner.js';
import type { ModelFiles } from '../../src/models/model-files.js';

/** Token ids of a fixed window of 40. */
export function windowOf(vocabularySize: number): Int32Array {
  return Int32Array.from({ length: 40 }, (_, i) => (7 * i * i + 3 * i + 5) % vocabularySize);
}

/** Logits [40, vocabulary] of the fixed window. */
export async function logitsOf(files: ModelFiles, precision: 'f32' | 'f64'): Promise<Floats> {
  const options = { threads: 2, maxMemoryBytes: 2 ** 32, device: 'cpu', precision, context: 64 } as const;
  const engine = await createEngine(files, options);
  const ids = windowOf(engine.model.vocabularySize);
  const groups = await engine.forward({ windows: [ids] });
  const rows = gatherRows(groups, engine.model.hiddenSize, [[0, ids.length]]);
  await engine.normalize(rows);
  const logits = await engine.logits(rows);
  await engine.close();
  return logits;
}

/** Largest difference over the largest magnitude. */
export function relative(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  expect(actual.length).toBe(expected.length);
  let difference = 0;
  let scale = 0;
  for (let i = 0; i < expected.length; i++) {
    difference = Math.max(difference, Math.abs(actual[i] - expected[i]));
    scale = Math.max(scale, Math.abs(expected[i]));
  }
  return difference / scale;
}
