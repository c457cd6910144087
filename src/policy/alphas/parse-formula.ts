import { didYouMean, InputError } from '../../errors.js';
import { type Expression, isFeatured, OPERATOR_CLASSES, OPERATOR_NAMES, type OperatorName } from './expression.js';

const OPERANDS = { unary: 1, binary: 2, rolling: 1, pair: 2 } as const;

/** An argument of a call: a value, or the number of days of a window. */
type Argument = { readonly value: Expression } | { readonly days: number };

/** Whether a word names an operator. */
export function isOperatorName(name: string): name is OperatorName {
  return Object.hasOwn(OPERATOR_CLASSES, name);
}

/**
 * Reads `Name(arg,...,10d)`: features `$close`, numbers, operator calls. Names of operators are as in `OPERATOR_NAMES`,
 * names of features in lower or upper case. What may stand where (a feature in every operation, windows for rolling
 * operators only) is checked; look-ahead is not, because targets use it (`refuseLookAhead`).
 * @param features names that may stand behind `$`; any when absent
 * @throws InputError with the character at which the text goes wrong
 */
export function parseFormula(text: string, features?: readonly string[]): Expression {
  let at = 0;
  const fail = (message: string, place = at): never => {
    throw new InputError(`formula "${text}", character ${place + 1}: ${message}`);
  };
  const skip = (): void => {
    while (/\s/.test(text.charAt(at))) at++;
  };
  const take = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    const found = pattern.exec(text)?.[0];
    if (found !== undefined) at += found.length;
    return found;
  };
  const feature = (): Expression => {
    const start = at++;
    const name = take(/[A-Za-z_][\w.]*/y) ?? fail('a name is needed behind $', start);
    if (features === undefined) return { kind: 'feature', name: name.toLowerCase() };
    const known = features.find((one) => one === name) ?? features.find((one) => one === name.toLowerCase());
    if (known === undefined) {
      fail(`the panel has no feature "${name}"${didYouMean(name, features)} (it has ${features.join(', ')})`, start);
    }
    return { kind: 'feature', name: known as string };
  };
  const call = (name: string, start: number): Expression => {
    if (!isOperatorName(name)) fail(`no operator is called "${name}"${didYouMean(name, OPERATOR_NAMES)}`, start);
    const operator = name as OperatorName;
    skip();
    if (text.charAt(at) !== '(') fail(`"(" is needed behind ${operator}`);
    at++;
    const operands: Expression[] = [];
    let window: number | undefined;
    for (;;) {
      const place = at;
      const one = argument();
      if (window !== undefined) fail('a window must be the last argument', place);
      if ('days' in one) window = one.days;
      else operands.push(one.value);
      skip();
      const mark = text.charAt(at++);
      if (mark === ')') break;
      if (mark !== ',') fail('"," or ")" is needed', at - 1);
    }
    const kind = OPERATOR_CLASSES[operator];
    const wanted = OPERANDS[kind];
    const rolling = kind === 'rolling' || kind === 'pair';
    if (operands.length !== wanted || rolling !== (window !== undefined)) {
      const words = `${wanted} value${wanted === 1 ? '' : 's'}${rolling ? ' and a window such as 10d' : ''}`;
      const got = `${operands.length}${window === undefined ? '' : ' and a window'}`;
      fail(`${operator} takes ${words}, not ${got}`, start);
    }
    if (!operands.some(isFeatured)) fail(`${operator} needs a feature among its operands`, start);
    return window === undefined ? { kind: 'call', operator, operands } : { kind: 'call', operator, operands, window };
  };
  const argument = (): Argument => {
    skip();
    const start = at;
    if (text.charAt(at) === '$') return { value: feature() };
    const days = take(/[+-]?\d+d(?![\w.])/y);
    if (days !== undefined) return { days: Number(days.slice(0, -1)) };
    const number = take(/[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.])/y);
    if (number !== undefined) return { value: { kind: 'constant', value: Number(number) } };
    const name = take(/[A-Za-z_]\w*/y) ?? fail('a feature, a number or an operator is needed', start);
    return { value: call(name, start) };
  };
  const whole = argument();
  if ('days' in whole) return fail('a window alone is no formula', 0);
  skip();
  if (at < text.length) fail(`"${text.slice(at)}" stands behind the end of the formula`);
  return whole.value;
}
