import { type Expression, isFeatured, OPERATOR_CLASSES, type OperatorName } from './expression.js';

/** A token of reverse Polish notation. */
export type Token =
  | { readonly kind: 'operator'; readonly operator: OperatorName }
  | { readonly kind: 'feature'; readonly name: string }
  | { readonly kind: 'constant'; readonly value: number }
  | { readonly kind: 'window'; readonly days: number }
  | { readonly kind: 'expression'; readonly expression: Expression }
  | { readonly kind: 'stop' };

/** What stands on the stack: a value, or the days of a window that waits for its operator. */
export type StackItem =
  | { readonly kind: 'value'; readonly expression: Expression; readonly featured: boolean }
  | { readonly kind: 'window'; readonly days: number };

export type Stack = readonly StackItem[];

/** Which kinds of token may come next. */
export interface TokenMask {
  readonly unary: boolean;
  readonly binary: boolean;
  readonly rolling: boolean;
  readonly pair: boolean;
  /** Also sub-expressions. */
  readonly feature: boolean;
  readonly constant: boolean;
  readonly window: boolean;
  readonly stop: boolean;
}

const isFeaturedValue = (item: StackItem | undefined): boolean => item?.kind === 'value' && item.featured;

/** What may follow on a stack (spec 10.3). A window waits for the operator that takes it and for nothing else. */
export function tokenMask(stack: Stack): TokenMask {
  const top = stack.at(-1);
  const second = stack.at(-2);
  const third = stack.at(-3);
  const windowOnTop = top?.kind === 'window';
  const featuredTop = isFeaturedValue(top);
  return {
    unary: featuredTop,
    binary: top?.kind === 'value' && second?.kind === 'value' && (top.featured || second.featured),
    rolling: windowOnTop && isFeaturedValue(second),
    pair: windowOnTop && second?.kind === 'value' && third?.kind === 'value' && (second.featured || third.featured),
    feature: !windowOnTop,
    constant: top === undefined || featuredTop,
    window: featuredTop,
    stop: stack.length === 1 && featuredTop,
  };
}

const value = (expression: Expression): StackItem => ({
  kind: 'value',
  expression,
  featured: isFeatured(expression),
});

/** Whether the mask lets a token follow. */
export function mayFollow(mask: TokenMask, token: Token): boolean {
  if (token.kind === 'operator') return mask[OPERATOR_CLASSES[token.operator]];
  if (token.kind === 'expression') return mask.feature;
  return mask[token.kind];
}

/**
 * The stack behind one more token. The stack given stays as it is.
 * @throws RangeError when the mask forbids the token
 */
export function pushToken(stack: Stack, token: Token): Stack {
  if (!mayFollow(tokenMask(stack), token)) throw new RangeError(`a token of kind ${token.kind} may not stand here`);
  if (token.kind === 'stop') return stack;
  if (token.kind === 'window') return [...stack, { kind: 'window', days: token.days }];
  if (token.kind === 'feature') return [...stack, value({ kind: 'feature', name: token.name })];
  if (token.kind === 'constant') return [...stack, value({ kind: 'constant', value: token.value })];
  if (token.kind === 'expression') return [...stack, value(token.expression)];
  const kind = OPERATOR_CLASSES[token.operator];
  const rolling = kind === 'rolling' || kind === 'pair';
  const taken = (kind === 'unary' || kind === 'rolling' ? 1 : 2) + (rolling ? 1 : 0);
  const rest = stack.slice(0, stack.length - taken);
  const operands: Expression[] = [];
  let window: number | undefined;
  for (const item of stack.slice(stack.length - taken)) {
    if (item.kind === 'window') window = item.days;
    else operands.push(item.expression);
  }
  const call: Expression = { kind: 'call', operator: token.operator, operands };
  return [...rest, value(window === undefined ? call : { ...call, window })];
}

/** The finished formula of a stack, undefined where it is not one featured value. */
export function finishedFormula(stack: Stack): Expression | undefined {
  const [only] = stack;
  return stack.length === 1 && only.kind === 'value' && only.featured ? only.expression : undefined;
}

/** Reverse Polish tokens of a formula, without begin and stop. */
export function tokensOf(expression: Expression, tokens: Token[] = []): Token[] {
  if (expression.kind === 'feature') tokens.push({ kind: 'feature', name: expression.name });
  else if (expression.kind === 'constant') tokens.push({ kind: 'constant', value: expression.value });
  else {
    for (const operand of expression.operands) tokensOf(operand, tokens);
    if (expression.window !== undefined) tokens.push({ kind: 'window', days: expression.window });
    tokens.push({ kind: 'operator', operator: expression.operator });
  }
  return tokens;
}
