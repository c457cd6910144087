import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createNpzWriter } from '../../../src/formats/npz-writer.js';
import { openRollouts } from '../../../src/policy/rollouts/open-rollouts.js';
import type { Rollouts } from '../../../src/policy/rollouts/types.js';
import { createRandom } from '../../../src/random.js';
import { folder, request } from './dumps.js';

const bytes = (values: ArrayBufferView): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/** Flat arrays of records whose steps alternate; NaN stands under the mask. */
function archive(name: string, seed: number, change: { readonly logProb?: number } = {}): string {
  const random = createRandom(seed);
  const lengths = Array.from({ length: 40 }, () => 1 + random.integer(30));
  const count = lengths.reduce((sum, length) => sum + length, 0);
  const mask = Uint8Array.from({ length: count }, () => Number(random.uniform() < 0.9));
  const ends = [0];
  for (const length of lengths) {
    mask[ends[ends.length - 1]] = 1;
    ends.push(ends[ends.length - 1] + length);
  }
  const column = (sign: number): Float32Array =>
    Float32Array.from(mask, (one) => (one === 1 ? sign * random.uniform() : Number.NaN));
  const [logProb, oldLogProb, entropy] = [column(-1), column(-1), column(1)];
  if (change.logProb !== undefined) logProb[ends[7]] = change.logProb;
  const path = join(folder, name);
  const writer = createNpzWriter(path);
  const add = (
    array: string,
    dtype: 'F32' | 'F64' | 'I32' | 'U8',
    values: Float32Array | Float64Array | Int32Array | Uint8Array,
  ) => writer.add(array, dtype, [values.length], [bytes(values)]);
  add('offsets', 'F64', Float64Array.from(ends));
  add(
    'step',
    'F64',
    Float64Array.from(lengths, (_, r) => r % 3),
  );
  add(
    'prompt_id',
    'F64',
    Float64Array.from(lengths, (_, r) => Math.floor(r / 6)),
  );
  add(
    'reward',
    'F64',
    Float64Array.from(lengths, () => Number(random.uniform() < 0.5)),
  );
  add('logprob', 'F32', logProb);
  add('old_logprob', 'F32', oldLogProb);
  add('entropy', 'F32', entropy);
  add('mask', 'U8', mask);
  add(
    'tokens',
    'I32',
    Int32Array.from(mask, (one) => (one === 1 ? random.integer(100) : 0)),
  );
  writer.finish();
  return path;
}

/** Everything that blocks and index say. */
function contents(rollouts: Rollouts): unknown {
  const steps = rollouts.steps.map((step) => {
    const all = [...step.blocks()];
    const joined = (of: (block: (typeof all)[number]) => ArrayLike<number> | undefined): number[] =>
      all.flatMap((block) => Array.from(of(block) ?? []));
    return {
      ...{ step: step.step, records: [...step.records], tokens: step.tokens, counted: step.counted },
      logProb: joined(({ logProb }) => logProb),
      oldLogProb: joined(({ oldLogProb }) => oldLogProb),
      entropy: joined(({ entropy }) => entropy),
      advantage: joined(({ advantage }) => advantage),
      ids: joined(({ tokens }) => tokens),
      mask: joined(({ mask }) => mask),
      places: [...step.records].map(rollouts.place),
    };
  });
  return { steps, columns: [...rollouts.columns].sort(), warnings: rollouts.warnings, provenance: rollouts.provenance };
}

describe('archives that stay in their files', () => {
  const paths = [archive('one.npz', 1), archive('two.npz', 2)];

  it('say what the general reader says, over several of them', async () => {
    // A limit sends a dump through the general reader.
    const general = await openRollouts({ ...request(paths), limit: 1000 });
    const flat = await openRollouts(request(paths));
    expect(contents(flat)).toEqual(contents(general));
    for (const rollouts of [flat, general]) rollouts.close();
  });

  it('may share memory between blocks where that is asked for', async () => {
    const rollouts = await openRollouts(request(paths));
    for (const step of rollouts.steps) {
      const own = [...step.blocks()].flatMap(({ logProb }) => Array.from(logProb ?? []));
      const shared: number[] = [];
      for (const { logProb } of step.blocks({ transient: true })) shared.push(...(logProb ?? []));
      expect(shared).toEqual(own);
    }
    rollouts.close();
  });

  it.each([0.5, Number.NaN, Number.NEGATIVE_INFINITY])(
    'name the record of a log-probability of %d',
    async (logProb) => {
      await expect(openRollouts(request([archive('bad.npz', 3, { logProb })]))).rejects.toThrow(/bad\.npz, row 8/);
    },
  );
});
