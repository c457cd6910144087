import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { entropyBounds } from '../../src/entropy/logprob-bounds.js';
import { parseLogProbRow, type TopLogProbs } from '../../src/formats/logprob-rows.js';
import { createRandom } from '../../src/random.js';

const row = (top: number[], more: Partial<TopLogProbs> = {}): TopLogProbs => ({
  position: 0,
  token: '',
  top: Float64Array.from(top),
  topTokens: [],
  ...more,
});

function distribution(seed: number, size: number, scale: number): number[] {
  const random = createRandom(seed);
  const weights = Array.from({ length: size }, () => Math.exp(scale * random.normal()));
  const total = weights.reduce((a, b) => a + b);
  return weights.map((weight) => weight / total).sort((a, b) => b - a);
}

const entropyOf = (p: number[]): number => -p.reduce((sum, x) => sum + (x > 0 ? x * Math.log(x) : 0), 0);

describe('entropy bounds', () => {
  it('hold the entropy of the whole distribution between them', () => {
    fc.assert(
      fc.property(
        fc.integer(),
        fc.integer({ min: 1, max: 12 }),
        fc.double({ min: 0, max: 4, noNaN: true }),
        (seed, k, scale) => {
          const p = distribution(seed, 30, scale);
          const bounds = entropyBounds(row(p.slice(0, k).map(Math.log)), 30);
          const truth = entropyOf(p);
          expect(bounds.lowerNats).toBeLessThanOrEqual(truth + 1e-12);
          expect(bounds.upperNats).toBeGreaterThanOrEqual(truth - 1e-12);
          expect(bounds.keptMass + bounds.tailMass).toBeCloseTo(1, 12);
          // A target among the unseen is never more surprising than the bound says it must be at least.
          expect(bounds.surprisalNats).toBeLessThanOrEqual(-Math.log(p[k]) + 1e-12);
          // A longer list tightens both.
          const more = entropyBounds(row(p.slice(0, k + 1).map(Math.log)), 30);
          expect(more.lowerNats).toBeGreaterThanOrEqual(bounds.lowerNats - 1e-12);
          expect(more.upperNats).toBeLessThanOrEqual(bounds.upperNats + 1e-12);
        },
      ),
    );
  });

  it('are tight: reached by a packed and by an even tail', () => {
    const packed = [0.3, 0.2, 0.2, 0.2, 0.1];
    expect(entropyBounds(row(packed.slice(0, 2).map(Math.log)), 40).lowerNats).toBeCloseTo(entropyOf(packed), 12);
    const even = [0.5, 0.2, 0.1, 0.1, 0.1];
    expect(entropyBounds(row(even.slice(0, 2).map(Math.log)), 5).upperNats).toBeCloseTo(entropyOf(even), 12);
    const uniform = new Array<number>(30).fill(1 / 30);
    expect(entropyBounds(row(uniform.slice(0, 5).map(Math.log)), 30).lowerNats).toBeCloseTo(Math.log(30), 9);
  });

  it('agree with the figures of an independent program', () => {
    const tops = [
      -0.19895507432991028, -2.3944245965296154, -2.493143786469106, -5.1879149515585885, -7.256520339297759,
    ];
    const bounds = entropyBounds(row(tops), 30);
    expect(bounds.lowerNats).toBeCloseTo(0.6237054337026382, 12);
    expect(bounds.upperNats).toBeCloseTo(0.6245076148083204, 12);
    expect(bounds.tailMass).toBeCloseTo(0.0002492115724019861, 12);
  });

  it('have no upper end without the vocabulary, unless nothing is missing', () => {
    expect(entropyBounds(row([Math.log(0.5)])).upperNats).toBe(Number.POSITIVE_INFINITY);
    const whole = entropyBounds(row([Math.log(0.25), Math.log(0.75)]));
    expect(whole.upperNats).toBeCloseTo(whole.lowerNats, 12);
  });

  it('take the target beside the largest, which caps nothing', () => {
    const top = [Math.log(0.4), Math.log(0.3)];
    const bounds = entropyBounds(row(top, { targetLogProb: Math.log(0.01), extra: Math.log(0.01) }), 100);
    expect(bounds.surprisalNats).toBeCloseTo(-Math.log(0.01), 12);
    expect(bounds.surprisalIsLowerBound).toBe(false);
    expect(bounds.tailMass).toBeCloseTo(0.29, 12);
    expect(bounds.lowerNats).toBeCloseTo(entropyOf([0.4, 0.3, 0.01, 0.29]), 12);
  });

  it('name what cannot be', () => {
    expect(() => entropyBounds(row([]))).toThrow(/no log-probabilities/);
    expect(() => entropyBounds(row([0.3]))).toThrow(/0.3 is no log-probability/);
    expect(() => entropyBounds(row([-0.1, -0.2]))).toThrow(/add up to 1.7/);
    expect(() => entropyBounds(row([-1, -1, -1]), 2)).toThrow(/vocabulary of 2/);
    expect(() => entropyBounds(row([-1, -1]), 2)).toThrow(/is missing/);
  });
});

describe('rows of inference servers', () => {
  const shape = (parsed: TopLogProbs[]) =>
    parsed.map(({ position, token, targetLogProb, top, extra }) => ({
      position,
      token,
      targetLogProb,
      top: [...top],
      extra,
    }));

  it("are read from OpenAI's chat format, alone or in its response", () => {
    const content = [
      {
        token: 'a',
        logprob: -0.1,
        top_logprobs: [
          { token: 'a', logprob: -0.1 },
          { token: 'b', logprob: -3 },
        ],
      },
      {
        token: 'z',
        logprob: -7,
        top_logprobs: [
          { token: 'a', logprob: -0.2 },
          { token: 'b', logprob: -2 },
        ],
      },
    ];
    const expected = [
      { position: 0, token: 'a', targetLogProb: -0.1, top: [-0.1, -3], extra: undefined },
      { position: 1, token: 'z', targetLogProb: -7, top: [-0.2, -2], extra: -7 },
    ];
    expect(shape(parseLogProbRow({ logprobs: { content } }, 'f:1'))).toEqual(expected);
    expect(shape(parseLogProbRow({ choices: [{ logprobs: { content } }] }, 'f:1'))).toEqual(expected);
    expect(shape(parseLogProbRow(content[1], 'f:1'))).toEqual([{ ...expected[1], position: 0 }]);
  });

  it('are read from legacy completions, the first echoed token without prediction', () => {
    const logprobs = {
      tokens: ['a', 'b', 'c'],
      token_logprobs: [null, -1, -4],
      top_logprobs: [null, { b: -1, x: -2 }, { x: -0.5, y: -2, c: -4 }],
    };
    expect(shape(parseLogProbRow({ logprobs }, 'f:2'))).toEqual([
      { position: 1, token: 'b', targetLogProb: -1, top: [-1, -2], extra: undefined },
      { position: 2, token: 'c', targetLogProb: -4, top: [-0.5, -2], extra: -4 },
    ]);
    expect(() => parseLogProbRow({ logprobs: { ...logprobs, tokens: ['a'] } }, 'f:2')).toThrow(/f:2: 1 tokens, 3/);
  });

  it("are read from vLLM's mappings by token id", () => {
    const prompt = {
      prompt_token_ids: [5, 9],
      prompt_logprobs: [
        null,
        {
          '3': { logprob: -0.5, rank: 1, decoded_token: 'x' },
          '9': { logprob: -6, rank: 40, decoded_token: 'nine' },
        },
      ],
    };
    const [parsed] = parseLogProbRow(prompt, 'f:3');
    expect([parsed.position, parsed.token, parsed.tokenId, parsed.targetLogProb, parsed.extra]).toEqual([
      1,
      'nine',
      9,
      -6,
      -6,
    ]);
    expect([...parsed.top]).toEqual([-0.5]);
    const unnamed = parseLogProbRow({ outputs: [{ logprobs: [prompt.prompt_logprobs[1]] }] }, 'f:3');
    expect(unnamed[0].targetLogProb).toBe(-6);
    const silent = parseLogProbRow(
      { logprobs: [{ '3': { logprob: -0.5, rank: 1 }, '4': { logprob: -2, rank: 2 } }] },
      'f',
    );
    expect([silent[0].targetLogProb, [...silent[0].top]]).toEqual([undefined, [-0.5, -2]]);
  });

  it("are read from llama.cpp's server, with log-probabilities, probabilities, and in its old form", () => {
    const rowOf = (entry: unknown): unknown => ({ content: 'text', completion_probabilities: [entry] });
    const modern = { id: 4, token: 'a', logprob: -0.5, top_logprobs: [{ id: 4, token: 'a', logprob: -0.5 }] };
    expect(shape(parseLogProbRow(rowOf(modern), 'f:4'))[0]).toMatchObject({ targetLogProb: -0.5, top: [-0.5] });
    const sampled = { id: 4, token: 'a', prob: 0.5, top_probs: [{ id: 7, token: 'a', prob: 0.25 }] };
    expect(shape(parseLogProbRow(rowOf(sampled), 'f:4'))[0]).toMatchObject({
      targetLogProb: Math.log(0.5),
      top: [Math.log(0.25)],
      extra: Math.log(0.5),
    });
    const old = {
      content: 'b',
      probs: [
        { tok_str: 'a', prob: 0.5 },
        { tok_str: 'b', prob: 0.25 },
      ],
    };
    expect(shape(parseLogProbRow(rowOf(old), 'f:4'))[0]).toMatchObject({ token: 'b', targetLogProb: Math.log(0.25) });
  });

  it('name the line when they are none of these', () => {
    for (const bad of [null, 3, 'x', {}, { logprobs: 3 }, { logprobs: {} }, { text: 'a', logprobs: null }]) {
      expect(() => parseLogProbRow(bad, 'rows.jsonl:12')).toThrow(/rows\.jsonl:12: no log-probabilities found/);
    }
    expect(() => parseLogProbRow({ logprobs: { content: [{ token: 'a', logprob: -1 }] } }, 'f:1')).toThrow(
      /f:1: token 0/,
    );
    expect(() => parseLogProbRow({ logprobs: { content: [{ top_logprobs: [{ logprob: 'x' }] }] } }, 'f:1')).toThrow(
      /expected a log-probability, got "x"/,
    );
    expect(() => parseLogProbRow({ choices: [{}, {}] }, 'f:1')).toThrow(/2 completions/);
  });
});
