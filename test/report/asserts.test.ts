import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { checkAssertion, parseAssertion } from '../../src/report/asserts.js';

const report = {
  perplexity: 20.5,
  tokens: 100,
  infinite: 'inf',
  unknown: 'nan',
  text: 'abc',
  nested: { mean_nll_nats: 3, 'odd key': 7, quantiles: { '0.5': 2 } },
  list: [1, { value: 4 }, [5, 6]],
};
const holds = (text: string, baseline?: unknown): boolean =>
  checkAssertion(parseAssertion(text), report, baseline).holds;

describe('asserts', () => {
  it.each([
    ['perplexity < 40', true],
    ['perplexity>=20.5', true],
    ['perplexity == 20.5 && tokens != 99', true],
    ['perplexity < 40 && tokens > 100', false],
    ['perplexity <= 1.02 * baseline.perplexity', true],
    ['perplexity <= 1.01 * baseline.perplexity', false],
    ['2 + 3 * 4 == 14', true],
    ['(2 + 3) * 4 == 20', true],
    ['10 - 4 - 3 == 3', true],
    ['16 / 4 / 2 == 2', true],
    ['-2 * -3 == 6', true],
    ['- (1 + 1) < -1.5e0', true],
    ['nested.mean_nll_nats == .3e1', true],
    ['nested["odd key"] == 7', true],
    ['nested.quantiles["0.5"] == 2', true],
    ['list[0] + list[1].value + list[2][1] == 11', true],
    ['list.1.value == 4', true],
    ['infinite > 1e308', true],
    ['infinite == inf', true],
    ['-infinite < -1e308', true],
    // What is not a number is neither equal nor unequal to anything.
    ['unknown < 1', false],
    ['unknown != 1', false],
    ['unknown == unknown', false],
    ['infinite - infinite != 0', false],
    ['1 / 0 == inf', true],
  ])('%s: %s', (text, expected) => {
    expect(holds(text, { perplexity: 20.2 })).toBe(expected);
  });

  it('says both sides in one line', () => {
    const result = checkAssertion(parseAssertion('perplexity < 2 * 10 && tokens > 1'), report);
    expect(result.line).toBe('assert does not hold: perplexity < 2 * 10 && tokens > 1 (20.5 < 20)');
  });

  it.each([
    ['perplexty < 40', 'the report has no "perplexty"; did you mean "perplexity"?'],
    ['nested.mean_nll < 1', 'nested has no "mean_nll"; did you mean "mean_nll_nats"?'],
    ['list[9] < 1', 'list has no "9" (it has 3 entries)'],
    ['nested < 1', '"nested" is not a number; its keys: mean_nll_nats'],
    ['text < 1', '"text" is not a number'],
    ['baseline.perplexiti < 1', 'baseline has no "perplexiti"; did you mean "perplexity"?'],
    ['constructor < 1', 'the report has no "constructor"'],
  ])('names what %s lacks', (text, message) => {
    expect(() => holds(text, { perplexity: 1 })).toThrow(message);
    expect(() => holds(text, { perplexity: 1 })).toThrow(InputError);
  });

  it.each([
    ['', 'a number or a key of the report expected at its end'],
    ['perplexity', 'a comparison (< <= > >= == !=) expected at its end'],
    ['perplexity < ', 'a number or a key of the report expected at its end'],
    ['perplexity = 3', 'column 12: unexpected "="'],
    ['a < 1 < 2', 'column 7: && or the end expected, not "<"'],
    ['(a < 1', 'column 4: ")" expected, not "<"'],
    ['a < 1 & b < 2', 'column 7: unexpected "&"'],
    ['a < 1 || b < 2', 'column 7: unexpected "|"'],
    ['a. < 1', 'column 4: a key expected'],
    ['a[b] < 1', 'an index or a quoted key expected'],
    [`${'('.repeat(5000)}1 < 2`, 'nested too deeply'],
  ])('refuses %j', (text, message) => {
    expect(() => parseAssertion(text)).toThrow(message);
  });

  it('knows whether a baseline is spoken of', () => {
    expect(parseAssertion('a < 1 + -(2 * baseline.a)').usesBaseline).toBe(true);
    expect(parseAssertion('baseline_a < 1').usesBaseline).toBe(false);
  });

  it('computes as JavaScript does', () => {
    const number = fc.double({ min: 1e-3, max: 1e3, noNaN: true });
    const operator = fc.constantFrom('+', '-', '*', '/');
    fc.assert(
      fc.property(number, fc.array(fc.tuple(operator, number, fc.boolean()), { maxLength: 6 }), (first, rest) => {
        let text = String(first);
        for (const [sign, value, wrap] of rest) text = wrap ? `(${text}) ${sign} ${value}` : `${text} ${sign} ${value}`;
        const value = Function(`return ${text}`)() as number;
        if (Number.isNaN(value)) return;
        expect(checkAssertion(parseAssertion(`${text} == x.y[0]`), { x: { y: [value] } }).holds).toBe(
          Number.isFinite(value),
        );
      }),
    );
  });

  it('answers any text with a result or one line of error', () => {
    fc.assert(
      fc.property(
        fc.string({
          unit: fc.constantFrom('a', '.', '[', ']', '0', '(', ')', '<', '=', '&&', '"', '-', '*', ' ', 'é'),
        }),
        (text) => {
          try {
            expect(typeof holds(text)).toBe('boolean');
          } catch (error) {
            expect(error).toBeInstanceOf(InputError);
          }
        },
      ),
      { numRuns: 500 },
    );
  });
});
