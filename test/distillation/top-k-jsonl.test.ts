import { describe, expect, it } from 'vitest';
import { readResponse, rowsOfLists, type TokenNames } from '../../src/distillation/top-k-jsonl.js';
import { openModelTokenizer } from '../../src/models/model-tokenizer.js';

const tokenizer = openModelTokenizer('fixtures/models/llama-sotu');
const names = (): TokenNames => ({ tokenizer, vocabulary: 1024, unknown: 0 });
const prompt = [...tokenizer.encode('The people', { addSpecialTokens: false })];
const bytesOf = (id: number): number[] => [...tokenizer.tokenBytes(id)];

/** Two tokens of text, and lists of two for each. */
const first = { ids: [300, 301], logProbs: [-0.5, -1.25] };
const second = { ids: [410, 300], logProbs: [-0.25, -2] };
const chosen = [301, 410];

function expectLists(row: Record<string, unknown>, known: TokenNames = names()): void {
  const { tokens, lists } = readResponse(row, known, 'rows.jsonl:1');
  expect([...tokens]).toEqual([...prompt, ...chosen]);
  expect(lists.slice(0, prompt.length).every((list) => list === undefined)).toBe(true);
  const shown = lists
    .slice(prompt.length)
    .map((list) => ({ ids: [...(list?.ids ?? [])], logProbs: [...(list?.logProbs ?? [])] }));
  expect(shown).toEqual([first, second]);
}

const both = [first, second];

describe('responses of inference servers', () => {
  it("are read from OpenAI's chat form, tokens named by bytes", () => {
    const entry = (id: number, logprob: number) => ({ token: '?', bytes: bytesOf(id), logprob });
    const content = both.map(({ ids, logProbs }, i) => ({
      ...entry(chosen[i], logProbs[ids.indexOf(chosen[i])]),
      top_logprobs: ids.map((id, j) => entry(id, logProbs[j])),
    }));
    expectLists({ choices: [{ prompt_token_ids: prompt, logprobs: { content } }] });
  });

  it('are read from the form of completions, tokens named by id in their text', () => {
    const named = (id: number): string => `token_id:${id}`;
    expectLists({
      prompt: 'The people',
      logprobs: {
        tokens: chosen.map(named),
        token_logprobs: [-1.25, -0.25],
        top_logprobs: both.map(({ ids, logProbs }) => Object.fromEntries(ids.map((id, j) => [named(id), logProbs[j]]))),
      },
    });
  });

  it("are read from vLLM's own form and from text-generation-inference", () => {
    const mapped = both.map(({ ids, logProbs }) =>
      Object.fromEntries(ids.map((id, j) => [id, { logprob: logProbs[j] }])),
    );
    expectLists({ prompt_token_ids: prompt, token_ids: chosen, logprobs: mapped });
    const listed = both.map(({ ids, logProbs }) => ids.map((id, j) => ({ id, text: '', logprob: logProbs[j] })));
    const tokens = chosen.map((id, i) => ({ id, text: '', logprob: i === 0 ? -1.25 : -0.25 }));
    expectLists({ prompt_token_ids: prompt, details: { tokens, top_tokens: listed } });
  });

  it('are read where the server talks about its prompt', () => {
    const row = {
      prompt_token_ids: [...prompt, ...chosen],
      prompt_logprobs: [
        ...prompt.map(() => null),
        ...both.map(({ ids, logProbs }) => Object.fromEntries(ids.map((id, j) => [id, { logprob: logProbs[j] }]))),
      ],
    };
    expectLists(row);
    const { prompt_token_ids: _, ...unnamed } = row;
    expect(() => readResponse(unnamed, names(), 'rows.jsonl:3')).toThrow('rows.jsonl:3: "prompt_logprobs" need');
  });

  it('keep the token that was sampled from outside the list, and count names that are none', () => {
    const known = names();
    const row = {
      prompt_token_ids: prompt,
      completion_probabilities: [
        {
          id: 9,
          token: 'x',
          logprob: -3,
          top_logprobs: [
            { id: 300, logprob: -0.5 },
            { token: 'no such token', logprob: -2 },
          ],
        },
      ],
    };
    const { lists } = readResponse(row, known, 'here');
    expect([...(lists.at(-1)?.ids ?? [])]).toEqual([300, 9]);
    expect(known.unknown).toBe(1);
  });

  it('name what is wrong', () => {
    const row = (entry: object) => ({ completion_probabilities: [entry] });
    const read = (entry: object) => () => readResponse(row(entry), names(), 'rows.jsonl:7');
    expect(read({ id: 5000, logprob: -1, top_logprobs: [] })).toThrow(
      'rows.jsonl:7: token 0: token id 5000 is outside',
    );
    expect(read({ token: 'no such token', logprob: -1, top_logprobs: [] })).toThrow('ask the server for token ids');
    expect(
      read({
        id: 1,
        logprob: -0.1,
        top_logprobs: [
          { id: 1, logprob: -0.1 },
          { id: 2, logprob: -0.1 },
        ],
      }),
    ).toThrow('add up to 1.8');
  });

  it('become rows of k', () => {
    const lists = both.map(({ ids, logProbs }) => ({
      ids: Int32Array.from(ids),
      logProbs: Float64Array.from(logProbs),
    }));
    const rows = rowsOfLists(lists, 3);
    expect([...rows.ids]).toEqual([300, 301, -1, 410, 300, -1]);
    expect(rows.leftover[1]).toBeCloseTo(1 - Math.exp(-0.25) - Math.exp(-2), 6);
    expect(rowsOfLists(lists, 1).leftover[0]).toBeCloseTo(1 - Math.exp(-0.5), 6);
  });
});
