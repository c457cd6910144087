import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ModelReference, TokenSettings } from '../../../src/fusion/merge/types.js';
import {
  MEAN_ROW,
  PADDING_ROW,
  planVocabulary,
  type VocabularyRequest,
  ZERO_ROW,
} from '../../../src/fusion/merge/vocabulary-plan.js';

const reference = (text: string): ModelReference => ({ text, model: text });
const vocabulary = (name: string, tokens: readonly string[], rows = tokens.length) => ({
  reference: reference(name),
  tokens: new Map(tokens.map((token, id) => [token, id])),
  rows,
});
const ids = (tokens: readonly string[]): Map<string, number> => new Map(tokens.map((token, id) => [token, id]));
const noTokens = { tokens: new Map<string, TokenSettings>() };

/** The donor of a row in words. */
function described(request: VocabularyRequest, model: number): string[] {
  const { maps } = planVocabulary(request);
  const map = maps[model];
  return Array.from(map.donors, (donor, id) => {
    if (donor === ZERO_ROW) return 'zero';
    if (donor === PADDING_ROW) return 'padding';
    if (donor === MEAN_ROW)
      return `mean ${(map.means.get(id) ?? []).map((part) => `${request.models[part.donor].reference.text}${part.row}`).join(' ')}`;
    return `${request.models[donor].reference.text}${map.rows[id]}`;
  });
}

describe('rows of the models on the output vocabulary', () => {
  const models = [vocabulary('a', ['x', 'y']), vocabulary('b', ['y', 'z']), vocabulary('c', ['z', 'w', 'y'])];
  const output = ids(['x', 'y', 'z', 'w', 'new']);

  it('takes the own row, the only holder, the base, else the mean', () => {
    const request = { output, models, base: 1, settings: noTokens };
    expect(described(request, 0)).toEqual(['a0', 'a1', 'b1', 'c1', 'zero']);
    expect(described(request, 1)).toEqual(['a0', 'b0', 'b1', 'c1', 'zero']);
    expect(described({ ...request, base: undefined }, 0)).toEqual(['a0', 'a1', 'mean b1 c0', 'c1', 'zero']);
  });

  it('takes configured sources for models that lack a token, and for all where forced', () => {
    const settings = {
      tokens: new Map<string, TokenSettings>([
        ['x', { source: { kind: 'zero' }, force: true }],
        ['z', { source: { kind: 'model_token', model: reference('c'), token: 'w' }, force: false }],
        ['w', { source: { kind: 'model_token', model: reference('b'), tokenId: 1 }, force: true }],
        ['new', { source: { kind: 'model_token', model: reference('a'), token: 'y' }, force: false }],
        ['y', { force: true }],
      ]),
    };
    const request = { output, models, base: 0, settings };
    expect(described(request, 0)).toEqual(['zero', 'a1', 'c1', 'b1', 'a1']);
    expect(described(request, 1)).toEqual(['zero', 'a1', 'b1', 'b1', 'a1']);
    expect(described(request, 2)).toEqual(['zero', 'a1', 'c0', 'b1', 'a1']);
  });

  it('reports every row that is not the model’s own, and every token left behind', () => {
    const plan = planVocabulary({ output: ids(['y', 'z', 'w', 'new']), models, settings: noTokens });
    const rows = plan.origins.map(({ model, token, id, origin, donors }) =>
      [model, token, id, origin, ...donors.map((donor) => `${donor.model}${donor.id}`)].join(' '),
    );
    expect(rows).toEqual([
      'a z 1 averaged b1 c0',
      'a w 2 copied c1',
      'a new 3 zero',
      'a x 0 dropped',
      'b w 2 copied c1',
      'b new 3 zero',
      'c new 3 zero',
    ]);
    expect(plan.notes.join()).toContain('no model has a row of 1 token(s) of the output ("new")');
  });

  it('asks models that are not merged only where the settings say so', () => {
    const settings = {
      tokens: new Map<string, TokenSettings>([
        ['new', { source: { kind: 'model', model: reference('d') }, force: false }],
      ]),
    };
    const all = [...models, vocabulary('d', ['z', 'x', 'new'])];
    const request = { output, models: all, merged: 3, settings };
    expect(described(request, 0)).toEqual(['a0', 'a1', 'mean b1 c0', 'c1', 'd2']);
    expect(planVocabulary(request).origins.some(({ model }) => model === 'd')).toBe(false);
  });

  it('pads to a multiple, and keeps padding that is wanted', () => {
    const padded = { output: ids(['x', 'y', 'z']), models, base: 0, settings: { ...noTokens, padToMultipleOf: 4 } };
    expect(planVocabulary(padded).size).toBe(4);
    expect(described(padded, 0)).toEqual(['a0', 'a1', 'mean b1 c0', 'padding']);
    const wide = [vocabulary('a', ['x', 'y'], 5), vocabulary('b', ['y', 'x'], 4)];
    const cut = { output: ids(['x', 'y']), models: wide, base: 0, settings: noTokens };
    expect(planVocabulary(cut).size).toBe(2);
    expect(planVocabulary(cut).notes.join()).toMatch(
      /a: 3 of 5 embedding rows have no token and are cut.*--keep-padding/,
    );
    expect(described({ ...cut, leastRows: 5 }, 0)).toEqual(['a0', 'a1', 'a2', 'a3', 'a4']);
    expect(planVocabulary({ ...cut, leastRows: 5 }).maps[0].identity).toBe(true);
    expect(described({ ...cut, leastRows: 5 }, 1)).toEqual(['b1', 'b0', 'b2', 'b3', 'padding']);
  });

  it('names the token whose configured source is no row', () => {
    const wrong = (source: TokenSettings['source']) => () =>
      planVocabulary({ output, models, settings: { tokens: new Map([['x', { source, force: false }]]) } });
    expect(wrong({ kind: 'model', model: reference('b') })).toThrow(/"x": b has no token "x"/);
    expect(wrong({ kind: 'model', model: reference('q') })).toThrow(/from q, which is none of the models: a, b, c/);
    expect(wrong({ kind: 'model_token', model: reference('b'), tokenId: 2 })).toThrow(
      /token_id 2 is not in 0 \.\. 1 of b/,
    );
    expect(() => planVocabulary({ output, models, settings: { ...noTokens, padToMultipleOf: 0 } })).toThrow(
      /pad_to_multiple_of is 0/,
    );
    expect(() =>
      planVocabulary({
        output: new Map([
          ['x', 0],
          ['y', 0],
        ]),
        models,
        settings: noTokens,
      }),
    ).toThrow(/"x" and "y" share the id 0/);
  });

  it('gives every token of the output a row of a holder, and every lost one a report', () => {
    const token = fc.constantFrom(...'abcdefgh');
    const words = fc.uniqueArray(token, { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(words, words, words, fc.boolean(), (a, b, c, hasBase) => {
        const three = [vocabulary('a', a), vocabulary('b', b), vocabulary('c', c)];
        const request = { output: ids(a), models: three, base: hasBase ? 0 : undefined, settings: noTokens };
        const plan = planVocabulary(request);
        for (const [m, model] of three.entries())
          for (const [id, word] of a.entries()) {
            const own = model.tokens.get(word);
            const donor = plan.maps[m].donors[id];
            if (own !== undefined) expect([donor, plan.maps[m].rows[id]]).toEqual([m, own]);
            else if (donor >= 0) expect(three[donor].tokens.get(word)).toBe(plan.maps[m].rows[id]);
            else expect([donor, (plan.maps[m].means.get(id) ?? []).length > 1]).toEqual([MEAN_ROW, true]);
          }
        const dropped = plan.origins.filter(({ origin }) => origin === 'dropped').length;
        expect(dropped).toBe([b, c].flat().filter((word) => !a.includes(word)).length);
      }),
      { numRuns: 60 },
    );
  });
});
