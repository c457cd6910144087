import { appendFileSync, existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { createAtomicDirectory } from '../../../src/formats/atomic.js';
import { layOutShards, openShards } from '../../../src/formats/safetensors-shards.js';
import { hashBytes } from '../../../src/formats/work-files.js';
import { openMergeJournal } from '../../../src/fusion/merge/journal.js';
import type { TensorRecord } from '../../../src/fusion/merge/tensor-record.js';
import { temporaryFolder } from '../../formats/collect.js';

const directory = temporaryFolder();
const out = join(directory, 'out');
const layout = layOutShards(
  ['a', 'b', 'c'].map((name) => ({ name, dtype: 'F32' as const, shape: [2] })),
  1e9,
  {},
);

const recordOf = (bytes: Uint8Array): TensorRecord => ({
  ...{ sha256: hashBytes(bytes), weights: null, kept_density: null, smallest_divisor: null, figures: {} },
  ...{ nonfinite_inputs: [], nonfinite_output: 0, measures: null, spectra: null, warnings: [] },
});

it('takes over the tensors whose bytes are there, and nothing else that a killed run left', () => {
  const options = { resume: true, resumable: true };
  const first = createAtomicDirectory(out, options);
  const journal = openMergeJournal(out, first, { seed: 1 }, layout);
  const files = openShards(first.path, layout);
  for (const [i, name] of ['a', 'b'].entries()) {
    const bytes = Uint8Array.from({ length: 8 }, (_, k) => 10 * i + k);
    files.write(name, 0, bytes);
    journal.note(name, recordOf(bytes));
  }
  files.write('b', 3, Uint8Array.of(99));
  files.close();
  journal.close();
  appendFileSync(join(first.path, '.merge', 'tensors.jsonl'), '{"sha256":"cut');
  writeFileSync(join(first.path, '.config.json.1.2.partial'), 'half');
  first.abort();

  const second = createAtomicDirectory(out, options);
  expect(() => openMergeJournal(out, second, { seed: 2 }, layout)).toThrow(/had another "run\.seed"/);
  expect(existsSync(join(second.path, 'model.safetensors'))).toBe(true);

  const third = createAtomicDirectory(out, options);
  const again = openMergeJournal(out, third, { seed: 1 }, layout);
  expect([...again.done.keys()]).toEqual(['a']);
  expect(readdirSync(third.path).sort()).toEqual(['.merge', 'model.safetensors']);
  again.remove();
  expect(readdirSync(third.path)).toEqual(['model.safetensors']);
  third.abort();
});
