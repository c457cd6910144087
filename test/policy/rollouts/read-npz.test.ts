import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { encodeNpy } from '../../../src/formats/npy.js';
import { createNpzWriter } from '../../../src/formats/npz-writer.js';
import { openRollouts } from '../../../src/policy/rollouts/open-rollouts.js';
import { type RolloutRecord, rolloutLine } from '../../../src/policy/rollouts/rollout-line.js';
import { createRandom } from '../../../src/random.js';
import { folder, request } from './dumps.js';

const random = createRandom(1);
const numbers = (length: number): Float64Array => Float64Array.from({ length }, () => -random.uniform());

function records(): RolloutRecord[] {
  return Array.from({ length: 12 }, (_, r) => {
    const length = 3 + (r % 4);
    const k = 2;
    return {
      step: 1 + (r % 3),
      promptId: `p${r % 2}`,
      tokens: Int32Array.from({ length }, (_, t) => 10 * r + t),
      logProb: numbers(length),
      oldLogProb: numbers(length),
      referenceLogProb: numbers(length),
      entropy: numbers(length).map((x) => -x),
      mask: Uint8Array.from({ length }, (_, t) => (t === 1 ? 0 : 1)),
      topTokens: {
        k,
        ids: Int32Array.from({ length: length * k }, (_, i) => i),
        logProbs: Float64Array.from({ length: length * k }, (_, i) => -1 - (i % k)),
      },
      reward: r % 2,
      correct: r % 2 === 1,
      difficulty: r % 3,
      thinkEnd: r % 2 === 0 ? 2 : -1,
      numbers: { format_reward: r / 8 },
    };
  });
}

const texts: Partial<RolloutRecord> = {
  responseId: 'x',
  prompt: 'What?',
  stepSpans: Int32Array.of(0, 1, 1, 3),
  advantage: 0.25,
};

const written = records();

/** Records as lines of JSON. */
function jsonLines(name: string, lines: readonly RolloutRecord[]): string {
  const path = join(folder, name);
  writeFileSync(path, lines.map(rolloutLine).join(''));
  return path;
}

/** The same records as flat arrays with offsets. */
function flatArrays(name: string): string {
  const path = join(folder, name);
  const writer = createNpzWriter(path);
  const add = (array: string, values: Float64Array, shape = [values.length]): void =>
    writer.add(array, 'F64', shape, [new Uint8Array(values.buffer)]);
  const tokens = (of: (record: RolloutRecord) => ArrayLike<number> | undefined): Float64Array =>
    Float64Array.from(written.flatMap((record) => Array.from(of(record) ?? [])));
  const facts = (of: (record: RolloutRecord) => unknown): Float64Array =>
    Float64Array.from(written, (record) => Number(of(record)));
  const ends = [0];
  for (const { logProb } of written) ends.push(ends[ends.length - 1] + logProb.length);
  const count = ends[written.length];
  add('offsets', Float64Array.from(ends));
  add(
    'step',
    facts(({ step }) => step),
  );
  add(
    'prompt_id',
    facts(({ promptId }) => promptId.slice(1)),
  );
  for (const field of ['reward', 'correct', 'difficulty'] as const)
    add(
      field,
      facts((record) => record[field]),
    );
  add(
    'think_end',
    facts(({ thinkEnd }) => thinkEnd),
  );
  add(
    'format_reward',
    facts(({ numbers: others }) => others?.format_reward),
  );
  for (const field of ['tokens', 'entropy', 'mask'] as const)
    add(
      field,
      tokens((record) => record[field]),
    );
  add(
    'logprob',
    tokens(({ logProb }) => logProb),
  );
  add(
    'old_logprob',
    tokens(({ oldLogProb }) => oldLogProb),
  );
  add(
    'ref_logprob',
    tokens(({ referenceLogProb }) => referenceLogProb),
  );
  add(
    'topk_ids',
    tokens(({ topTokens }) => topTokens?.ids),
    [count, 2],
  );
  add(
    'topk_logprobs',
    tokens(({ topTokens }) => topTokens?.logProbs),
    [count, 2],
  );
  writer.finish();
  return path;
}

async function readBlocks(path: string) {
  const rollouts = await openRollouts(request(path));
  const blocks = rollouts.steps.map((step) => [...step.blocks()]);
  rollouts.close();
  return { rollouts, blocks };
}

describe('a dump', () => {
  it('is read the same from .jsonl and .npz', async () => {
    const json = await readBlocks(jsonLines('w.jsonl', written));
    const npz = await readBlocks(flatArrays('w.npz'));
    expect(npz.blocks).toEqual(json.blocks);
    const { promptIds: _, ...jsonIndex } = json.rollouts.index;
    const { promptIds: numbered, ...npzIndex } = npz.rollouts.index;
    expect({ ...npzIndex }).toEqual({ ...jsonIndex });
    expect(new Set(numbered)).toEqual(new Set(['0', '1']));
    expect(npz.rollouts.place(3)).toMatch(/w\.npz, row 4$/);
    const block = json.blocks[0][0];
    expect(block.records).toEqual(Int32Array.of(0, 3, 6, 9));
    expect(block.mask[1]).toBe(0);
    expect(block.logProb?.[1]).toBe(0);
  });

  it('keeps the bits of its numbers, and texts in .jsonl', async () => {
    const [one] = written;
    const path = jsonLines('one.jsonl', [{ ...one, ...texts, tokenText: ['a', 'b', 'c'] }]);
    const { rollouts, blocks } = await readBlocks(path);
    const kept = Float64Array.from(one.logProb, (value, t) => (t === 1 ? 0 : value));
    expect(blocks[0][0].logProb).toEqual(kept);
    expect(rollouts.index.stepSpans?.[0]).toEqual(Int32Array.of(0, 1, 1, 3));
    expect(rollouts.index.responseIds).toEqual(['x']);
    expect(rollouts.index.advantage).toEqual(Float64Array.of(0.25));
    expect(rollouts.promptOf?.(0)).toBe('What?');
    expect(rollouts.textOf?.(blocks[0][0].textIds?.[2] ?? -1)).toBe('c');
  });

  it('is not written with lists of different lengths', () => {
    expect(() => rolloutLine({ ...written[0], entropy: [1] }, 0)).toThrow(
      /record 0: entropy has 1 values and logprob 3/,
    );
  });
});

describe('an .npz dump', () => {
  const bytes = (values: Float64Array): Uint8Array[] => [new Uint8Array(values.buffer)];
  function archive(name: string, arrays: Readonly<Record<string, readonly [number[], number[]]>>): string {
    const path = join(folder, name);
    const writer = createNpzWriter(path);
    for (const [array, [shape, values]] of Object.entries(arrays))
      writer.add(array, 'F64', shape, bytes(Float64Array.from(values)));
    writer.finish();
    return path;
  }

  it('may be matrices whose padding the mask tells', async () => {
    const path = archive('m.npz', {
      logprob: [
        [2, 3],
        [-1, -2, Number.NaN, -3, -4, -5],
      ],
      mask: [
        [2, 3],
        [1, 1, 0, 1, 0, 1],
      ],
      reward: [[2], [1, 0]],
      prompt_id: [[2], [5, 5]],
    });
    const rollouts = await openRollouts(request(path));
    expect([...rollouts.index.length]).toEqual([2, 3]);
    expect([...(rollouts.steps[0].blocks()[Symbol.iterator]().next().value?.logProb ?? [])]).toEqual([
      -1, -2, -3, 0, -5,
    ]);
    expect(rollouts.index.groups).toBe(1);
  });

  it('may have lengths', async () => {
    const flat = await openRollouts(
      request(
        archive('l.npz', { logprob: [[5], [-1, -2, -3, -4, -5]], lengths: [[2], [2, 3]], reward: [[2], [1, 0]] }),
      ),
    );
    expect([...flat.index.length]).toEqual([2, 3]);
    const padded = await openRollouts(
      request(
        archive('p.npz', {
          logprob: [
            [2, 3],
            [-1, -2, 9, -3, -4, -5],
          ],
          response_length: [[2], [2, 3]],
        }),
      ),
    );
    expect([...padded.index.length]).toEqual([2, 3]);
  });

  it('is refused where its arrays do not fit', async () => {
    const refused = (name: string, arrays: Parameters<typeof archive>[1]) =>
      expect(openRollouts(request(archive(name, arrays)))).rejects;
    await refused('r1.npz', { logprob: [[5], [-1, -1, -1, -1, -1]] }).toThrow(
      /"logprob" \[5\] is flat; give "offsets"/,
    );
    await refused('r2.npz', {
      logprob: [[5], [-1, -1, -1, -1, -1]],
      entropy: [[4], [1, 1, 1, 1]],
      offsets: [[3], [0, 2, 5]],
    }).toThrow(/array "entropy" \[4\] does not fit 5 tokens \(the last offset\) or 2 records/);
    await refused('r3.npz', { logprob: [[5], [-1, -1, -1, -1, -1]], offsets: [[3], [0, 6, 5]] }).toThrow(
      /"offsets" at 2: 5 is no offset/,
    );
    await refused('r4.npz', { whatever: [[2], [1, 2]] }).toThrow(/no array of tokens among whatever/);
    const path = join(folder, 'not.npz');
    writeFileSync(path, Buffer.concat([Buffer.from('PK\x03\x04'), encodeNpy(new Float64Array(1), [1])]));
    await expect(openRollouts(request(path))).rejects.toThrow(/not\.npz/);
  });
});
