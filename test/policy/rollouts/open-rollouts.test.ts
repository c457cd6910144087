import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { configureKernels } from '../../../src/kernels/native.js';
import { openRollouts } from '../../../src/policy/rollouts/open-rollouts.js';
import { requireColumns } from '../../../src/policy/rollouts/require-columns.js';
import { dump, first, folder, open, record, request } from './dumps.js';

afterEach(() => configureKernels({ native: true }));

describe('a JSON Lines dump', () => {
  it('gives columns, groups, advantages and steps in order', async () => {
    const rollouts = await open([
      record({ step: 2 }),
      record({ step: 1, prompt_id: 'q', reward: 0, mask: [1, 1, 0], entropy: [1, 2, null] }),
      record({ step: 2, reward: 0 }),
      record({ step: 1, prompt_id: 'q' }),
    ]);
    expect(rollouts.steps.map(({ step, tokens, counted }) => [step, tokens, counted])).toEqual([
      [1, 6, 5],
      [2, 6, 6],
    ]);
    expect([...rollouts.steps[0].records]).toEqual([1, 3]);
    expect([...rollouts.index.group]).toEqual([0, 1, 0, 1]);
    expect(rollouts.index.promptIds).toEqual(['p', 'q']);
    const block = first(rollouts);
    const a = Math.SQRT1_2 / (1 + Math.SQRT2 * 1e-6);
    expect([...(block.advantage ?? [])].map((x) => x.toFixed(9))).toEqual(
      [-a, -a, 0, a, a, a].map((x) => x.toFixed(9)),
    );
    expect([...(block.entropy ?? [])]).toEqual([1, 2, 0, 1, 0.5, 0.25]);
    expect(block.oldLogProb).toBe(block.logProb);
    expect([...(rollouts.index.correct ?? [])]).toEqual([1, 0, 0, 1]);
    expect(rollouts.provenance).toMatchObject({ oldLogProb: 'equal to logprob', advantage: 'grpo from rewards' });
    expect(rollouts.place(2)).toMatch(/dump\d+\.jsonl:3$/);
    rollouts.close();
  });
});

describe('rules of a dump', () => {
  const refusals: [string, object, RegExp][] = [
    [
      'lists of two lengths',
      { entropy: [1, 2] },
      /dump\d+\.jsonl:2: record 1: "entropy" has 2 values and "logprob" 3;/,
    ],
    [
      'a positive log-probability',
      { logprob: [-1, 0.3, -1] },
      /:2: "logprob" at record 1 token 1: log-probability must be <= 0; got 0\.3: are these logits or probabilities\?/,
    ],
    ['a sampled token of probability 0', { logprob: [-1, '-inf', -1] }, /token 1 is -inf/],
    [
      'NaN where the mask counts',
      { logprob: [null, -1, -1], mask: [1, 1, 0] },
      /:2: "logprob" at record 1 token 0 is NaN/,
    ],
    ['a negative entropy', { entropy: [1, -0.1, 1] }, /an entropy is not negative; got -0\.1/],
    ['an entropy above ln V', { entropy: [1, 3, 1] }, /token 1 is 3, above ln 8 = 2\.08/],
    ['a mask of zeros', { mask: [0, 0, 0] }, /:2: record 1: the mask is 0 at all 3 tokens/],
    ['a mask of other numbers', { mask: [1, 0.5, 0] }, /"mask" holds 0\.5 at token 1/],
    ['a token that is none', { tokens: [1, -2, 3] }, /"tokens" holds -2 at token 1/],
    ['a list of texts', { logprob: ['a', 'b', 'c'] }, /"logprob" holds a list, a list of numbers/],
    ['an infinite reward', { reward: 'inf' }, /"reward" is Infinity; rewards are finite/],
    ['correct of 2', { correct: 2 }, /"correct" is 2; it is true or false/],
    ['a marker beyond the end', { think_end: 3 }, /"think_end" is 3, which is no position of the 3 tokens/],
    [
      'turns out of order',
      {
        step_spans: [
          [1, 3],
          [0, 1],
        ],
      },
      /has the span \[0, 1\)/,
    ],
    ['an empty response', { tokens: [], logprob: [], entropy: [] }, /record 1 has no tokens/],
  ];
  it.each(refusals)('refuse %s', async (_name, fault, message) => {
    await expect(open([record(), record(fault)], { vocabularySize: 8 })).rejects.toThrow(message);
  });

  it('never let a NaN under the mask out', async () => {
    const rollouts = await open([
      '{"prompt_id": 1, "logprob": [-1, NaN, -2], "entropy": [0.5, -Infinity, 1], "mask": [true, false, true], "advantage": [1, NaN, 2], "old_logprob": [-1, 7, -2], "reward": [1, NaN, 2]}',
    ]);
    const block = first(rollouts);
    expect([...(block.logProb ?? [])]).toEqual([-1, 0, -2]);
    expect([...(block.oldLogProb ?? [])]).toEqual([-1, 0, -2]);
    expect([...(block.entropy ?? [])]).toEqual([0.5, 0, 1]);
    expect([...(block.advantage ?? [])]).toEqual([1, 0, 2]);
    expect([...(rollouts.index.reward ?? [])]).toEqual([3]);
    expect(rollouts.counted).toBe(2);
  });

  it('count groups of one, constant rewards and columns that some records lack', async () => {
    const rollouts = await open([
      record({ prompt_id: 'a' }),
      record({ prompt_id: 'b', entropy: undefined }),
      record({ prompt_id: 'b', ref_logprob: [-1, -1, -1] }),
    ]);
    expect(rollouts.warnings.join('\n')).toMatch(
      /1 of 3 records have no entropy \(first .*:2\): the column is not used\n2 of 3 records have no referenceLogProb \(first .*:1\).*\n1 of 2 groups have one record.*\n1 of 2 groups have equal rewards/,
    );
    expect(rollouts.columns.has('entropy')).toBe(false);
    expect(first(rollouts).entropy).toBeUndefined();
  });

  it('name bounds from the likeliest tokens, and say what remains possible', async () => {
    const top = [
      [
        [4, -0.7],
        [5, -0.9],
      ],
      [[1, -0.1]],
      [
        [9, -3],
        [2, -0.2],
      ],
    ];
    const rollouts = await open([record({ entropy: undefined, topk: top })], { vocabularySize: 100 });
    expect([...rollouts.columns].sort()).toEqual(
      ['advantage', 'entropyLower', 'entropyUpper', 'logProb', 'oldLogProb', 'tokens', 'topTokens'].sort(),
    );
    const block = first(rollouts);
    expect(block.topTokens?.k).toBe(2);
    expect([...(block.topTokens?.ids ?? [])]).toEqual([4, 5, 1, -1, 2, 9]);
    for (const [t, low] of [...(block.entropyLower ?? [])].entries())
      expect(low).toBeLessThanOrEqual(block.entropyUpper?.[t] ?? 0);
    expect(() => requireColumns(rollouts, ['entropy'], 'pear')).toThrow(
      /pear needs entropies over the whole vocabulary \(entropy\), which the dump lacks: its top-k log-probabilities give bounds on the entropy, not the entropy; possible with it: dynamics \(covariance, sampled negative log-likelihood\), dynamics \(bounds on the entropy\)/,
    );
    expect(() => requireColumns(rollouts, ['logProb', 'entropyBounds'], 'dynamics')).not.toThrow();
  });

  it('read every form of the likeliest tokens', async () => {
    const forms = [
      {
        topk: [
          [
            [3, -0.5],
            [4, -1],
          ],
          [
            [5, -0.25],
            [6, -2],
          ],
          [
            [7, -1],
            [8, -1],
          ],
        ],
      },
      {
        topk: [
          { 3: -0.5, 4: -1 },
          { 5: { logprob: -0.25 }, 6: { logprob: -2 } },
          { 7: -1, 8: -1 },
        ],
      },
      {
        top_logprobs: [
          [
            { id: 3, logprob: -0.5 },
            { token_id: 4, logprob: -1 },
          ],
          [
            { id: 6, logprob: -2 },
            { id: 5, logprob: -0.25 },
          ],
          [
            { id: 7, logprob: -1 },
            { id: 8, logprob: -1 },
          ],
        ],
      },
      {
        topk_ids: [
          [4, 3],
          [5, 6],
          [7, 8],
        ],
        topk_logprobs: [
          [-1, -0.5],
          [-0.25, -2],
          [-1, -1],
        ],
      },
    ];
    for (const form of forms) {
      const { topTokens } = first(await open([record({ entropy: undefined, ...form })]));
      expect([...(topTokens?.ids ?? [])]).toEqual([3, 4, 5, 6, 7, 8]);
      expect([...(topTokens?.logProbs ?? [])]).toEqual([-0.5, -1, -0.25, -2, -1, -1]);
    }
    await expect(
      open([
        record({
          topk: [
            [
              [1, -0.1],
              [2, -0.1],
            ],
            [],
            [],
          ],
        }),
      ]),
    ).rejects.toThrow(/have probability 1\.8097 together/);
  });
});

describe('fields of a dump', () => {
  it('have the names that trainers use, and those of --map', async () => {
    const rollouts = await open(
      [
        {
          uid: 7,
          response_ids: [1, 2],
          log_probs: [-1, -2],
          old_log_probs: [-1, -2.5],
          entropys: [1, 1],
          response_mask: [1, 1],
          token_level_scores: [0, 2],
          mine: 'hard',
        },
      ],
      { map: { difficulty: 'mine' } },
    );
    expect(rollouts.index.promptIds).toEqual(['7']);
    expect([...(rollouts.index.reward ?? [])]).toEqual([2]);
    expect(rollouts.index.difficulty).toEqual(['hard']);
    expect(rollouts.provenance).toMatchObject({
      logProb: 'log_probs',
      oldLogProb: 'old_log_probs',
      reward: 'sum of token_level_scores over tokens',
    });
    await expect(open([record()], { map: { logprob: 'logprop' } })).rejects.toThrow(
      /:1: no column "logprop", which --map gives to logprob; did you mean "logprob"\?/,
    );
    await expect(open([record()], { map: { entorpy: 'entropy' } })).rejects.toThrow(
      /no field "entorpy"; did you mean "entropy"\?/,
    );
  });

  it('find the end of thinking by ids and by text, the first or the last', async () => {
    const records = [
      record({ tokens: [5, 9, 8, 6, 9, 8], logprob: Array(6).fill(-1), entropy: undefined }),
      record({ entropy: undefined }),
    ];
    const last = await open(records, { marker: '9, 8' });
    expect([...(last.index.thinkEnd ?? [])]).toEqual([5, -1]);
    expect([...(last.index.thinkMarkerStart ?? [])]).toEqual([4, -1]);
    expect(last.warnings.join()).toMatch(/1 of 2 records have no end-of-thinking marker/);
    const one = await open(records, { marker: '9,8', markerChoice: 'first' });
    expect([...(one.index.thinkEnd ?? [])]).toEqual([2, -1]);
    const text = await open([record({ token_text: ['\u0120a</', 'thi', 'nk>b'] })], { marker: '</think>' });
    expect([...(text.index.thinkEnd ?? [])]).toEqual([2]);
    expect([...(text.index.thinkMarkerStart ?? [])]).toEqual([0]);
    expect(text.textOf?.(first(text).textIds?.[0] ?? -1)).toBe(' a</');
    expect((await open([record()], { marker: '</think>' })).index.thinkEnd).toBeUndefined();
  });

  it('take advantages of the dump, or compute them', async () => {
    const records = [record({ advantage: 2 }), record({ advantage: -2, reward: 0 })];
    expect([...((await open(records)).index.advantage ?? [])]).toEqual([2, -2]);
    expect([...((await open(records, { advantage: 'no-std' })).index.advantage ?? [])]).toEqual([0.5, -0.5]);
    await expect(open([record({ reward: undefined })], { advantage: 'grpo' })).rejects.toThrow(
      /needs the reward of every record, which the dump lacks/,
    );
  });

  it('compute no advantages where a reward is missing', async () => {
    const rollouts = await open([record(), record({ reward: null })]);
    expect(rollouts.index.advantage).toBeUndefined();
    expect(rollouts.columns.has('advantage')).toBe(false);
    expect(rollouts.warnings.join()).toMatch(/1 of 2 records have no reward: advantages are not computed/);
  });

  it('tell dumps of text, with what remains possible', async () => {
    const verl = { input: 'What is 1 + 1?', output: '2', score: 1, step: 3, gts: '2' };
    await expect(open([verl])).rejects.toThrow(/:1: a dump of text \("output"\), without log-probabilities: .*--model/);
    const trl = [
      {
        step: 1,
        prompt: 'a',
        completion: [{ role: 'assistant', content: 'x' }],
        accuracy_reward: 1,
        format_reward: 0.5,
        advantage: 0.7,
      },
      {
        step: 1,
        prompt: 'a',
        completion: [{ role: 'assistant', content: 'y' }],
        accuracy_reward: 0,
        format_reward: 0.5,
        advantage: -0.7,
      },
    ];
    const rollouts = await open(trl, { recordsOnly: true });
    expect(rollouts.index.groups).toBe(1);
    expect([...(rollouts.index.components?.keys() ?? [])]).toEqual(['accuracy_reward', 'format_reward']);
    expect([...(rollouts.index.reward ?? [])]).toEqual([1.5, 0.5]);
    const other = await open(
      [
        { prompt: 'a', completion: 'x', accuracy: 1, style: null },
        { prompt: 'a', completion: 'y', accuracy: 0, style: 2 },
      ],
      { recordsOnly: true },
    );
    expect([...(other.index.reward ?? [])]).toEqual([1, 2]);
    expect(rollouts.promptOf?.(0)).toBe('a');
  });
});

describe('files of a dump', () => {
  it('are read in order, also gzipped, up to a limit, natively or not', async () => {
    const paths = [
      dump([record({ step: 2 }), '', record()]),
      dump([record({ step: 3 }), record({ step: 1 })], 'b.jsonl.gz'),
    ];
    for (const native of [true, false]) {
      configureKernels({ native });
      const rollouts = await openRollouts(request(paths));
      expect([...rollouts.index.step]).toEqual([2, 1, 3, 1]);
      expect(rollouts.place(1)).toMatch(/:3$/);
      expect(rollouts.steps.map(({ step, records }) => [step, ...records])).toEqual([
        [1, 1, 3],
        [2, 0],
        [3, 2],
      ]);
      expect((await openRollouts(request(paths, { limit: 3 }))).index.records).toBe(3);
    }
  });

  it('are refused with the place of the fault', async () => {
    await expect(open([record(), '{"logprob": [1,}'])).rejects.toThrow(/dump\d+\.jsonl:2: this line is not JSON/);
    await expect(open([record(), '[1]'])).rejects.toThrow(
      /:2: this line holds an array; each line must be one JSON object/,
    );
    const bad = join(folder, 'bad.jsonl');
    writeFileSync(bad, Buffer.concat([Buffer.from('{"a": "'), Buffer.from([0xff]), Buffer.from('"}')]));
    await expect(openRollouts(request(bad))).rejects.toThrow(/bad\.jsonl: invalid UTF-8 at byte 7/);
    writeFileSync(bad, '');
    await expect(openRollouts(request(bad))).rejects.toThrow(/is empty/);
    writeFileSync(bad, '\n\n');
    await expect(openRollouts(request(bad))).rejects.toThrow(/holds no record/);
    await expect(openRollouts(request(join(folder, 'nothing.jsonl')))).rejects.toThrow(/no such file/);
  });

  it('give the same blocks from memory and from a work file', async () => {
    const records = Array.from({ length: 60 }, (_, r) => {
      const length = 1 + ((r * 7) % 11);
      const list = (f: (t: number) => number): number[] => Array.from({ length }, (_, t) => f(t));
      return record({
        step: r % 3,
        prompt_id: `p${r % 4}`,
        reward: r % 2,
        tokens: list((t) => r + t),
        token_text: list((t) => t).map((t) => `w${t}`),
        logprob: list((t) => -1 / (1 + r + t)),
        entropy: list((t) => t / 10),
        mask: list((t) => (t === 0 || (r + t) % 3 > 0 ? 1 : 0)),
        topk: list((t) => t).map((t) =>
          [
            [t, -0.5],
            [t + 1, -1.5],
          ].slice(0, 1 + (r % 2)),
        ),
      });
    });
    const all = async (exactLimit: number) => {
      const rollouts = await open(records, { exactLimit });
      const blocks = rollouts.steps.map((step) => [...step.blocks()]);
      const again = rollouts.steps.map((step) => [...step.blocks()]);
      expect(again).toEqual(blocks);
      rollouts.close();
      return { held: rollouts.held, blocks };
    };
    const [memory, file] = [await all(1e6), await all(100)];
    expect([memory.held, file.held]).toEqual(['memory', 'file']);
    expect(file.blocks).toEqual(memory.blocks);
    expect((await all(0)).blocks).toEqual(memory.blocks);
  });
});
