import type { Random } from '../../random.js';
import { type Expression, OPERATOR_CLASSES, type OperatorName, tokenCount } from './expression.js';
import {
  finishedFormula,
  mayFollow,
  pushToken,
  type Stack,
  type Token,
  type TokenMask,
  tokenMask,
  tokensOf,
} from './grammar.js';

export const DEFAULT_OPERATORS: readonly OperatorName[] = [
  'Abs',
  'Log',
  'Add',
  'Sub',
  'Mul',
  'Div',
  'Greater',
  'Less',
  'Ref',
  'Mean',
  'Sum',
  'Std',
  'Var',
  'Max',
  'Min',
  'Med',
  'Mad',
  'Delta',
  'WMA',
  'EMA',
  'Cov',
  'Corr',
];
export const DEFAULT_WINDOWS: readonly number[] = [1, 5, 10, 20, 40];
export const DEFAULT_CONSTANTS: readonly number[] = [-30, -10, -5, -2, -1, -0.5, -0.01, 0.01, 0.5, 1, 2, 5, 10, 30];

/** What formulas are made of. */
export interface SearchSpace {
  readonly operators: readonly OperatorName[];
  readonly windows: readonly number[];
  readonly constants: readonly number[];
  readonly features: readonly string[];
  /** Tokens of a formula in reverse Polish notation, the begin token included (15). */
  readonly maxTokens: number;
}

/** All tokens of a space, the stop token last. */
export function tokensOfSpace(space: SearchSpace): readonly Token[] {
  return [
    ...space.operators.map((operator): Token => ({ kind: 'operator', operator })),
    ...space.features.map((name): Token => ({ kind: 'feature', name })),
    ...space.constants.map((value): Token => ({ kind: 'constant', value })),
    ...space.windows.map((days): Token => ({ kind: 'window', days })),
    { kind: 'stop' },
  ];
}

/** The kind of a token as masks name it. */
export function maskKind(token: Token): keyof TokenMask {
  if (token.kind === 'operator') return OPERATOR_CLASSES[token.operator];
  return token.kind === 'expression' ? 'feature' : token.kind;
}

/** Whether a formula can be written token by token within the space's grammar and length. */
export function isGrammatical(expression: Expression, space: SearchSpace): boolean {
  if (tokenCount(expression) > space.maxTokens - 1) return false;
  let stack: Stack = [];
  for (const token of tokensOf(expression)) {
    if (!mayFollow(tokenMask(stack), token)) return false;
    stack = pushToken(stack, token);
  }
  return finishedFormula(stack) !== undefined;
}

const pick = <T>(random: Random, list: readonly T[]): T => list[random.integer(list.length)];

/**
 * A random valid formula of at most `maxTokens`: the kind of every token uniformly among those that the mask allows, then the
 * token within its kind; what cannot be finished in time is thrown away.
 */
export function randomFormula(random: Random, space: SearchSpace, maxTokens = space.maxTokens): Expression {
  const byKind = new Map<keyof TokenMask, Token[]>();
  for (const token of tokensOfSpace(space)) {
    const kind = maskKind(token);
    byKind.set(kind, [...(byKind.get(kind) ?? []), token]);
  }
  for (;;) {
    let stack: Stack = [];
    for (let length = 1; length <= maxTokens; length++) {
      const mask = tokenMask(stack);
      const kinds = [...byKind.keys()].filter((kind) => mask[kind]);
      if (kinds.length === 0) break;
      const token = pick(random, byKind.get(pick(random, kinds)) ?? []);
      const formula = finishedFormula(stack);
      if (formula !== undefined && (token.kind === 'stop' || length === maxTokens)) return formula;
      if (token.kind === 'stop') break;
      stack = pushToken(stack, token);
    }
  }
}
