import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { countBytes, countCodePoints, countWords, trimTrailingWhitespace } from '../../src/entropy/text-counts.js';
import { windowRow } from '../../src/entropy/window-table.js';
import {
  contextLengthOf,
  effectiveContext,
  restrictToSpan,
  type ScoringWindow,
  scoringWindows,
  validateWindowOptions,
  type WindowOptions,
} from '../../src/entropy/windows.js';
import { InputError } from '../../src/errors.js';

const PREFIX = 99_999;
const count = (n: number): Int32Array => Int32Array.from({ length: n }, (_, i) => i);
const windowsOf = (n: number, options: WindowOptions): ScoringWindow[] => [...scoringWindows(count(n), 3, options)];

/** Every scored prediction as [target, inputs before it]: what decides a window's figures. */
function predictions(windows: readonly ScoringWindow[]): { target: number; seen: number[] }[] {
  return windows.flatMap((window) =>
    Array.from(window.targets, (target, i) => ({
      target,
      seen: [...window.inputs.subarray(0, window.scoreFrom + i + 1)],
    })),
  );
}

describe('lm-eval windows', () => {
  it('are those of the example in the harness', () => {
    const windows = windowsOf(10, { convention: 'lm-eval', context: 4, prefixToken: PREFIX });
    expect(windows.map((w) => [...w.inputs])).toEqual([
      [PREFIX, 0, 1, 2],
      [3, 4, 5, 6],
      [5, 6, 7, 8],
    ]);
    expect(windows.map((w) => [...w.targets])).toEqual([
      [0, 1, 2, 3],
      [4, 5, 6, 7],
      [8, 9],
    ]);
    expect(windows.map((w) => w.scoreFrom)).toEqual([0, 0, 2]);
  });

  it('score every token once, with the tokens right before it, and feed at most the context', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 200 }), fc.integer({ min: 1, max: 40 }), fc.nat(), (n, context, pick) => {
        const contextLength = 1 + (pick % context);
        const windows = windowsOf(n, { convention: 'lm-eval', context, contextLength, prefixToken: PREFIX });
        const all = predictions(windows);
        expect(all.map(({ target }) => target)).toEqual([...count(n)]);
        for (const { target, seen } of all) {
          const expected = Array.from({ length: seen.length }, (_, i) => target - seen.length + i);
          expect(seen).toEqual(expected.map((token) => (token < 0 ? PREFIX : token)));
          if (target >= context) expect(seen.length).toBeGreaterThanOrEqual(contextLength);
        }
        for (const window of windows) expect(window.inputs.length).toBeLessThanOrEqual(context);
      }),
    );
  });

  it('need 1 <= c <= L and a prefix', () => {
    const base = { convention: 'lm-eval', context: 8, prefixToken: 0 } as const;
    expect(() => windowsOf(9, { ...base, contextLength: 9 })).toThrow(/c=9, context=8/);
    expect(() => windowsOf(9, { ...base, contextLength: 0 })).toThrow(InputError);
    expect(() => windowsOf(9, { convention: 'lm-eval', context: 8 })).toThrow(/prefix token/);
    expect(() => windowsOf(9, { ...base, stride: 4 })).toThrow(/--stride/);
  });
});

describe('hf windows', () => {
  it('never score the first token, and lose the first of every window when stride = context', () => {
    const all = predictions(windowsOf(20, { convention: 'hf', context: 5, stride: 5 })).map(({ target }) => target);
    expect(all).toEqual([...count(20)].filter((token) => token % 5 !== 0));
  });

  it('score every other token once with contexts inside their window', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 120 }), fc.integer({ min: 3, max: 30 }), fc.nat(), (n, context, pick) => {
        const stride = 1 + (pick % (context - 1));
        const all = predictions(windowsOf(n, { convention: 'hf', context, stride }));
        expect(all.map(({ target }) => target)).toEqual([...count(n)].slice(1));
        for (const { target, seen } of all) {
          expect(seen).toEqual(Array.from({ length: seen.length }, (_, i) => target - seen.length + i));
          expect(seen.length).toBeLessThan(context);
        }
      }),
    );
  });

  it('put a prefix before the document once, or before every window', () => {
    const once = windowsOf(9, { convention: 'hf', context: 4, stride: 2, prefixToken: PREFIX });
    expect(once.map((w) => [...w.inputs])).toEqual([
      [PREFIX, 0, 1],
      [1, 2, 3],
      [3, 4, 5],
      [5, 6, 7],
    ]);
    expect(predictions(once).map(({ target }) => target)).toEqual([...count(9)]);
    const each = windowsOf(9, { convention: 'hf', context: 4, stride: 2, prefixToken: PREFIX, prefixEachWindow: true });
    for (const window of each) {
      expect(window.inputs[0]).toBe(PREFIX);
      expect(window.inputs.length).toBeLessThanOrEqual(4);
    }
    expect(predictions(each).map(({ target }) => target)).toEqual([...count(9)]);
  });

  it('may hold nothing to score, and then feed nothing', () => {
    const [, last] = windowsOf(17, { convention: 'hf', context: 16, stride: 16 });
    expect([last.targets.length, last.inputs.length, last.validLabels]).toEqual([0, 0, 1]);
  });
});

describe('llama.cpp windows', () => {
  it('score the second half of whole chunks behind BOS', () => {
    const windows = windowsOf(26, { convention: 'llama.cpp', context: 8, prefixToken: PREFIX });
    expect(windows.map((w) => [...w.targets])).toEqual([
      [5, 6, 7],
      [13, 14, 15],
      [21, 22, 23],
    ]);
    expect([...windows[1].inputs]).toEqual([PREFIX, 9, 10, 11, 12, 13, 14]);
  });

  it('refuse short inputs with both numbers', () => {
    expect(() => windowsOf(613, { convention: 'llama.cpp', context: 512 })).toThrow(/2\*n_ctx = 1024 tokens.*613/);
  });

  it('enlarge the context by half of the stride', () => {
    const options = { convention: 'llama.cpp', context: 8, stride: 5, prefixToken: PREFIX } as const;
    expect(effectiveContext(options)).toBe(10);
    const windows = windowsOf(26, options);
    expect(windows.map((w) => w.inputStart)).toEqual([0, 5, 10, 15]);
    expect(windows.map((w) => w.targets.length)).toEqual([5, 5, 5, 5]);
    expect(windows[0].inputs[0]).toBe(0);
  });
});

describe('full windows', () => {
  it('give every token all the context there is room for', () => {
    const all = predictions(windowsOf(30, { convention: 'full', context: 6, prefixToken: PREFIX }));
    expect(all.map(({ target }) => target)).toEqual([...count(30)]);
    for (const { target, seen } of all) expect(seen.length).toBe(Math.min(target + 1, 5));
  });
});

describe('window checks', () => {
  it('name the model context', () => {
    expect(() => validateWindowOptions({ convention: 'hf', context: 512 }, 256)).toThrow(/512 tokens.*256/);
    expect(() => validateWindowOptions({ convention: 'llama.cpp', context: 250, stride: 20 }, 256)).toThrow(/260/);
  });

  it('refuse fractions, strides beyond the context and options of other conventions', () => {
    expect(() => validateWindowOptions({ convention: 'hf', context: 12.5 })).toThrow(InputError);
    expect(() => validateWindowOptions({ convention: 'hf', context: 12, stride: 13 })).toThrow(/13.*12/);
    expect(() => validateWindowOptions({ convention: 'hf', context: 12, contextLength: 2 })).toThrow(/lm-eval/);
    expect(() => validateWindowOptions({ convention: 'full', context: 12, prefixEachWindow: true })).toThrow(/hf/);
  });

  it('an empty document has no window', () => {
    expect(windowsOf(0, { convention: 'hf', context: 4 })).toEqual([]);
    expect(windowsOf(0, { convention: 'full', context: 4, prefixToken: 0 })).toEqual([]);
  });

  it('restrict to a span without changing what the kept predictions see', () => {
    const options = { convention: 'lm-eval', context: 7, contextLength: 3, prefixToken: PREFIX } as const;
    const windows = windowsOf(40, options);
    const kept = windows.flatMap((window) => restrictToSpan(window, 11, 23) ?? []);
    const wanted = predictions(windows).filter(({ target }) => target >= 11 && target < 23);
    expect(predictions(kept)).toEqual(wanted);
    for (const window of kept) expect(window.inputs.length).toBe(window.scoreFrom + window.targets.length);
    expect(contextLengthOf(kept[0], 0)).toBe(wanted[0].seen.length);
  });

  it('tabulate a window', () => {
    const [, , last] = windowsOf(10, { convention: 'lm-eval', context: 4, prefixToken: PREFIX });
    expect(windowRow(last, [1, 2])).toMatchObject({
      context_tokens: 3,
      context_first: 5,
      context_last: 7,
      score_start: 8,
      score_end: 10,
      nll_nats: 3,
    });
  });
});

describe('text counts', () => {
  // Counts of Python: len(re.split(r"\s+", text)), len(text.encode()), len(text), text.rstrip().
  it.each([
    ['', 1, 0, 0],
    ['a', 1, 1, 1],
    [' a  b\n', 4, 6, 6],
    ['a\u0085b\u001cc\u00a0d', 4, 9, 7],
    ['\ufeffa b', 2, 6, 4],
    ['😀 é', 2, 7, 3],
  ])('%j', (text, words, bytes, points) => {
    expect([countWords(text), countBytes(text), countCodePoints(text)]).toEqual([words, bytes, points]);
  });

  it('trims what Python trims', () => {
    expect(trimTrailingWhitespace('a \t\u0085\u3000')).toBe('a');
    expect(trimTrailingWhitespace('a\ufeff')).toBe('a\ufeff');
    expect(trimTrailingWhitespace(' \n')).toBe('');
  });
});
