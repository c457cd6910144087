import { describe, expect, it } from 'vitest';
import { formulaText } from '../../../src/policy/alphas/expression.js';
import { parseFormula } from '../../../src/policy/alphas/parse-formula.js';
import {
  type SearcherChoice,
  type SearchProgress,
  type SearchRequest,
  searchFormulas,
} from '../../../src/policy/alphas/search-job.js';
import {
  DEFAULT_CONSTANTS,
  DEFAULT_OPERATORS,
  isGrammatical,
  randomFormula,
  type SearchSpace,
} from '../../../src/policy/alphas/search-space.js';
import { syntheticPanel } from '../../../src/policy/alphas/synthetic-panel.js';
import { createRandom } from '../../../src/random.js';

const space: SearchSpace = {
  operators: DEFAULT_OPERATORS,
  windows: [1, 5, 10],
  constants: DEFAULT_CONSTANTS,
  features: ['open', 'close', 'high', 'low', 'volume', 'vwap'],
  maxTokens: 15,
};

const POLICY: SearcherChoice = {
  kind: 'policy',
  label: 'policy',
  settings: { episodes: 32, epochs: 2, learningRate: 1, rule: 'entropy-bonus', settings: { coefficient: 0.1 } },
};
const CHOICES: SearcherChoice[] = [{ kind: 'random', label: 'random' }, { kind: 'genetic', label: 'genetic' }, POLICY];

function request(searcher: SearcherChoice, more: Partial<SearchRequest> = {}): SearchRequest {
  return {
    panel: syntheticPanel({ days: 90, stocks: 20, seed: 3, strength: 0.3 }),
    target: 'Sub(Div(Ref($close,-1d),$close),1.0)',
    train: [40, 85],
    backtrack: 40,
    future: 1,
    space,
    pool: { capacity: 4, l1: 5e-3, iterate: 'last', objective: { kind: 'ic' } },
    searcher,
    seed: 5,
    budget: 100,
    singles: 5,
    cacheBytes: 1 << 25,
    threads: 1,
    checkpointEvery: 0,
    ...more,
  };
}

describe('searches', () => {
  it('writes random formulas that the grammar allows and the text keeps', () => {
    const random = createRandom(1);
    for (let i = 0; i < 300; i++) {
      const formula = randomFormula(random, space);
      expect(isGrammatical(formula, space)).toBe(true);
      expect(parseFormula(formulaText(formula))).toEqual(formula);
    }
  });

  it.each(CHOICES)('evaluates its budget, and the same whatever the threads: $label', (choice) => {
    const one = searchFormulas(request(choice), () => undefined);
    expect(one.evaluations).toBe(100);
    expect(one.formulas.length).toBe(4);
    expect(one.trainIc).toBeGreaterThan(0.05);
    expect(one.history.at(-1)?.evaluations).toBe(100);
    expect(searchFormulas(request(choice, { threads: 2 }), () => undefined)).toEqual(one);
  });

  it.each(CHOICES)('goes on from a checkpoint to the same result: $label', (choice) => {
    const states: NonNullable<SearchProgress['state']>[] = [];
    const whole = searchFormulas(request(choice, { checkpointEvery: 50 }), (value) => {
      const { state } = value as SearchProgress;
      if (state) states.push(structuredClone(state));
    });
    const from = JSON.parse(JSON.stringify(states[0]));
    expect(searchFormulas(request(choice, { from }), () => undefined)).toEqual(whole);
  });

  it('trains under every rule, and its tokens lose entropy', () => {
    for (const rule of ['grpo', 'clip-cov', 'kl-cov', 'steer', 'targeted-entropy']) {
      const settings = { episodes: 32, epochs: 2, learningRate: 10, rule, settings: {} };
      const choice: SearcherChoice = { kind: 'policy', label: rule, settings };
      const { history } = searchFormulas(request(choice, { budget: 40 }), () => undefined);
      expect(history.at(-1)?.entropyNats ?? Number.NaN, rule).toBeLessThan(history[0].entropyNats ?? 0);
    }
  });
});
