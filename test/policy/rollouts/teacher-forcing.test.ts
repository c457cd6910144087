import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type LanguageModel, openLanguageModel } from '../../../src/models/language-model.js';
import { openModelTokenizer } from '../../../src/models/model-tokenizer.js';
import { createModelScorer } from '../../../src/policy/rollouts/model-scorer.js';
import { scoreResponses } from '../../../src/policy/rollouts/teacher-forcing.js';

const MODEL = 'fixtures/models/llama-sotu';
const PROMPT = 'My fellow Americans,';
const RESPONSE = ' tonight the state of our union is strong.';

let model: LanguageModel;
beforeAll(async () => {
  model = await openLanguageModel(MODEL, {
    threads: 2,
    maxMemoryBytes: 2 ** 33,
    device: 'cpu',
    precision: 'f32',
    context: 256,
  });
});
afterAll(() => model.close());

/** Log-probabilities and entropies from whole rows of logits, in double. */
async function bySoftmax(prompt: Int32Array, response: Int32Array, temperature: number) {
  const window = Int32Array.from([...prompt, ...response.subarray(0, response.length - 1)]);
  const { vocabularySize: v } = model.info;
  const logits = await model.logits([window], [[prompt.length - 1, prompt.length - 1 + response.length]]);
  return Array.from(response, (token, t) => {
    const row = Array.from(logits.subarray(t * v, (t + 1) * v), (logit) => logit / temperature);
    const most = Math.max(...row);
    const sum = row.reduce((total, logit) => total + Math.exp(logit - most), 0);
    const logProbs = row.map((logit) => logit - most - Math.log(sum));
    return { logProb: logProbs[token], entropy: -logProbs.reduce((total, l) => total + l * Math.exp(l), 0) };
  });
}

describe('responses scored by teacher forcing', () => {
  const tokenizer = openModelTokenizer(MODEL);
  const prompt = tokenizer.encode(PROMPT);
  const response = tokenizer.encode(RESPONSE, { addSpecialTokens: false });

  it.each([1, 0.7, 1.5])('are the softmax of logits / %d', async (temperature) => {
    const wanted = await bySoftmax(prompt, response, temperature);
    const short = response.subarray(0, 3);
    const [whole, part] = await scoreResponses(
      model,
      [
        { prompt, response },
        { prompt, response: short },
      ],
      { temperature, context: 256 },
    );
    expect(whole.scored).toBe(response.length);
    for (const [t, { logProb, entropy }] of wanted.entries()) {
      expect(whole.logProb[t]).toBeCloseTo(logProb, 4);
      expect(whole.entropy[t]).toBeCloseTo(entropy, 4);
      if (t < short.length) expect(part.logProb[t]).toBeCloseTo(logProb, 4);
    }
  });

  it('end where the context does', async () => {
    const [all] = await scoreResponses(model, [{ prompt, response }], { temperature: 1, context: 256 });
    const [cut] = await scoreResponses(model, [{ prompt, response }], { temperature: 1, context: prompt.length + 3 });
    expect(cut.scored).toBe(4);
    expect(cut.logProb).toEqual(all.logProb.slice(0, 4));
  });

  it('are scored for two checkpoints, with the entropies of the one that sampled', async () => {
    const OLD = 'fixtures/models/llama-sotu-ft-moby';
    const options = { temperature: 1, promptFormat: 'auto', context: 256, threads: 2, maxMemory: 2 ** 33 } as const;
    const record = { record: 0, place: 'dump.jsonl:1', prompt: PROMPT, response: RESPONSE };
    const wanted = new Set(['logProb', 'oldLogProb', 'entropy'] as const);
    const score = async (names: { model: string; oldModel?: string }) => {
      const scorer = await createModelScorer({ ...options, ...names });
      try {
        return {
          scored: (await scorer.score([record], wanted))[0],
          told: scorer.rescored(),
          warnings: scorer.warnings(),
        };
      } finally {
        await scorer.close();
      }
    };
    const both = await score({ model: MODEL, oldModel: OLD });
    const one = await score({ model: MODEL });
    const old = await score({ model: OLD });
    expect(both.scored.logProb).toEqual(one.scored.logProb);
    expect(both.scored.oldLogProb).toEqual(old.scored.logProb);
    expect(both.scored.entropy).toEqual(old.scored.entropy);
    expect(one.scored.oldLogProb).toBeUndefined();
    expect(both.told.map(({ model: name, columns }) => [name, columns])).toEqual([
      [MODEL, ['logProb']],
      [OLD, ['entropy', 'oldLogProb']],
    ]);
    expect(both.warnings.join('\n')).toMatch(/plain text/);
  });

  it('names the record that cannot be scored', async () => {
    const scorer = await createModelScorer({
      model: MODEL,
      temperature: 1,
      promptFormat: 'auto',
      context: 8,
      threads: 2,
      maxMemory: 2 ** 33,
    });
    const score = (fields: object) =>
      scorer.score([{ record: 0, place: 'd.jsonl:7', ...fields }], new Set(['logProb'] as const));
    await expect(score({ prompt: 'x' })).rejects.toThrow(/d\.jsonl:7: neither text nor token ids/);
    await expect(score({ prompt: PROMPT.repeat(20), response: 'x' })).rejects.toThrow(
      /the prompt has \d+ tokens, the context is 8/,
    );
    await expect(score({ tokens: Int32Array.of(5, 99_999) })).rejects.toThrow(/token 99999 is not of/);
    await expect(score({ response: '' })).rejects.toThrow(/no tokens/);
    await scorer.close();
  });
});
