import { didYouMean, InputError } from '../errors.js';
import { numberOfReport } from './values.js';

/** One comparison of a parsed assert. */
interface Comparison {
  readonly operator: string;
  readonly left: Expression;
  readonly right: Expression;
}

type Expression =
  | { readonly kind: 'number'; readonly value: number }
  | { readonly kind: 'key'; readonly path: readonly string[]; readonly text: string }
  | { readonly kind: 'negate'; readonly operand: Expression }
  | { readonly kind: 'binary'; readonly operator: string; readonly left: Expression; readonly right: Expression };

/** An assert ready to be held against a report. */
export interface Assertion {
  readonly text: string;
  readonly comparisons: readonly Comparison[];
  /** True when it speaks of `baseline.`. */
  readonly usesBaseline: boolean;
}

export interface AssertionResult {
  readonly text: string;
  readonly holds: boolean;
  /** One line: the assert and, where it does not hold, the two sides. */
  readonly line: string;
}

const TOKEN =
  /\s*(?:(?<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?<name>[A-Za-z_][A-Za-z0-9_]*)|(?<quoted>"(?:[^"\\]|\\.)*")|(?<operator>&&|<=|>=|==|!=|[<>+\-*/().[\]]))/y;

interface Token {
  readonly kind: 'number' | 'name' | 'quoted' | 'operator';
  readonly text: string;
  readonly column: number;
}

function tokenize(text: string): Token[] {
  const tokens: Token[] = [];
  TOKEN.lastIndex = 0;
  for (let at = 0; at < text.length; at = TOKEN.lastIndex) {
    TOKEN.lastIndex = at;
    const groups = TOKEN.exec(text)?.groups;
    if (!groups) {
      if (text.slice(at).trim() === '') break;
      const column = at + text.slice(at).search(/\S/) + 1;
      throw new InputError(`--assert '${text}': column ${column}: unexpected "${text[column - 1]}"`);
    }
    const [kind, found] = Object.entries(groups).find(([, value]) => value !== undefined)!;
    tokens.push({ kind: kind as Token['kind'], text: found, column: TOKEN.lastIndex - found.length + 1 });
  }
  return tokens;
}

/** The text between quotation marks; a backslash keeps the next character. */
function unquote(quoted: string): string {
  return quoted.slice(1, -1).replace(/\\(.)/g, '$1');
}

/** Nesting beyond this is no expression that anybody means, and would exhaust the stack. */
const MAX_DEPTH = 100;

/**
 * Recursive descent: assert = comparison {&& comparison}; comparison = sum op sum; sum = product {+|- product};
 * product = unary {*|/ unary}; unary = [-|+] unary | ( sum ) | number | key.
 */
function parseComparisons(text: string): Comparison[] {
  const tokens = tokenize(text);
  let position = 0;
  let depth = 0;

  const fail = (expected: string): never => {
    const token = tokens[position];
    const place = token
      ? `column ${token.column}: ${expected} expected, not "${token.text}"`
      : `${expected} expected at its end`;
    throw new InputError(`--assert '${text}': ${place}`);
  };
  const accept = (...operators: string[]): string | undefined => {
    const token = tokens[position];
    if (token?.kind !== 'operator' || !operators.includes(token.text)) return undefined;
    position++;
    return token.text;
  };

  /** `a.b`, `a[0]`, `a.0.b`, `a["any key"]`. */
  const key = (first: string): Expression => {
    const path = [first];
    for (;;) {
      const token = tokens[position];
      // The tokenizer takes ".0" for a number.
      if (token?.kind === 'number' && /^\.\d+$/.test(token.text)) {
        position++;
        path.push(token.text.slice(1));
      } else if (accept('.')) {
        const next = tokens[position];
        if (next?.kind !== 'name') return fail('a key');
        position++;
        path.push(next.text);
      } else if (accept('[')) {
        const next = tokens[position];
        if (next?.kind !== 'number' && next?.kind !== 'quoted') return fail('an index or a quoted key');
        position++;
        path.push(next.kind === 'quoted' ? unquote(next.text) : next.text);
        if (!accept(']')) fail('"]"');
      } else {
        return { kind: 'key', path, text: path.join('.') };
      }
    }
  };
  const primary = (): Expression => {
    const token = tokens[position];
    if (token?.kind === 'number') {
      position++;
      return { kind: 'number', value: Number(token.text) };
    }
    if (token?.kind !== 'name') return fail('a number or a key of the report');
    position++;
    return token.text === 'inf' ? { kind: 'number', value: Number.POSITIVE_INFINITY } : key(token.text);
  };
  const unary = (): Expression => {
    if (++depth > MAX_DEPTH) throw new InputError(`--assert '${text}': nested too deeply`);
    let result: Expression;
    if (accept('-')) result = { kind: 'negate', operand: unary() };
    else if (accept('+')) result = unary();
    else if (accept('(')) {
      result = sum();
      if (!accept(')')) fail('")"');
    } else result = primary();
    depth--;
    return result;
  };
  const chain = (operand: () => Expression, ...operators: string[]): Expression => {
    let left = operand();
    for (let operator = accept(...operators); operator; operator = accept(...operators)) {
      left = { kind: 'binary', operator, left, right: operand() };
    }
    return left;
  };
  const product = (): Expression => chain(unary, '*', '/');
  const sum = (): Expression => chain(product, '+', '-');

  const found: Comparison[] = [];
  do {
    const left = sum();
    const operator = accept('<', '<=', '>', '>=', '==', '!=') ?? fail('a comparison (< <= > >= == !=)');
    found.push({ operator, left, right: sum() });
  } while (accept('&&'));
  if (position < tokens.length) fail('&& or the end');
  return found;
}

function mentionsBaseline(expression: Expression): boolean {
  if (expression.kind === 'key') return expression.path[0] === 'baseline';
  if (expression.kind === 'negate') return mentionsBaseline(expression.operand);
  return expression.kind === 'binary' && (mentionsBaseline(expression.left) || mentionsBaseline(expression.right));
}

/**
 * Parses one `--assert`: comparisons (`< <= > >= == !=`) of sums and products of numbers and keys of the report, joined
 * by `&&`. `baseline.` opens a key of the baseline report.
 * @throws InputError with the column of the fault
 */
export function parseAssertion(text: string): Assertion {
  const comparisons = parseComparisons(text);
  const usesBaseline = comparisons.some(({ left, right }) => mentionsBaseline(left) || mentionsBaseline(right));
  return { text, comparisons, usesBaseline };
}

/** Names carry units at their end, so the beginning of a name is as near as a slip of the keyboard. */
function nearestKey(key: string, names: readonly string[]): string {
  const begun = names.find((name) => name.startsWith(key));
  return didYouMean(key, names) || (begun === undefined ? '' : `; did you mean "${begun}"?`);
}

/** The number at a path of a report. Throws InputError with the nearest key of the same object. */
function lookUp(path: readonly string[], text: string, report: unknown, assertion: string): number {
  let at: unknown = report;
  for (const [depth, key] of path.entries()) {
    if (typeof at !== 'object' || at === null || !Object.hasOwn(at, key)) {
      const names = typeof at === 'object' && at !== null && !Array.isArray(at) ? Object.keys(at) : [];
      const within = depth === 0 ? 'the report' : path.slice(0, depth).join('.');
      const length = Array.isArray(at) ? ` (it has ${at.length} entries)` : '';
      throw new InputError(`--assert '${assertion}': ${within} has no "${key}"${length}${nearestKey(key, names)}`);
    }
    at = (at as Record<string, unknown>)[key];
  }
  const value = numberOfReport(at);
  if (value === undefined) {
    const inner = typeof at === 'object' && at !== null ? `; its keys: ${Object.keys(at).slice(0, 8).join(', ')}` : '';
    throw new InputError(`--assert '${assertion}': "${text}" is not a number${inner}`);
  }
  return value;
}

function evaluate(expression: Expression, report: unknown, baseline: unknown, assertion: string): number {
  switch (expression.kind) {
    case 'number':
      return expression.value;
    case 'negate':
      return -evaluate(expression.operand, report, baseline, assertion);
    case 'key':
      return expression.path[0] === 'baseline'
        ? lookUp(expression.path, expression.text, { baseline }, assertion)
        : lookUp(expression.path, expression.text, report, assertion);
    case 'binary': {
      const left = evaluate(expression.left, report, baseline, assertion);
      const right = evaluate(expression.right, report, baseline, assertion);
      if (expression.operator === '+') return left + right;
      if (expression.operator === '-') return left - right;
      return expression.operator === '*' ? left * right : left / right;
    }
  }
}

function compare(operator: string, left: number, right: number): boolean {
  // A comparison with NaN does not hold, "!=" included.
  if (Number.isNaN(left) || Number.isNaN(right)) return false;
  switch (operator) {
    case '<':
      return left < right;
    case '<=':
      return left <= right;
    case '>':
      return left > right;
    case '>=':
      return left >= right;
    case '==':
      return left === right;
    default:
      return left !== right;
  }
}

/**
 * Holds an assert against a report (and a baseline).
 * @throws InputError for a key that the report has not, or that is no number
 */
export function checkAssertion(assertion: Assertion, report: unknown, baseline?: unknown): AssertionResult {
  const faults: string[] = [];
  for (const { operator, left, right } of assertion.comparisons) {
    const a = evaluate(left, report, baseline, assertion.text);
    const b = evaluate(right, report, baseline, assertion.text);
    if (!compare(operator, a, b)) faults.push(`${a} ${operator} ${b}`);
  }
  const holds = faults.length === 0;
  const line = holds
    ? `assert holds: ${assertion.text}`
    : `assert does not hold: ${assertion.text} (${faults.join('; ')})`;
  return { text: assertion.text, holds, line };
}
