import { InputError } from '../../errors.js';

/** What an operator takes: one value, two, one over a window of days, two over a window of days. */
export type OperatorClass = 'unary' | 'binary' | 'rolling' | 'pair';

/** The operators of spec 10.2, in the order of the authors' list. */
export const OPERATOR_CLASSES = {
  Abs: 'unary',
  Sign: 'unary',
  Log: 'unary',
  CSRank: 'unary',
  Add: 'binary',
  Sub: 'binary',
  Mul: 'binary',
  Div: 'binary',
  Pow: 'binary',
  Greater: 'binary',
  Less: 'binary',
  Ref: 'rolling',
  Mean: 'rolling',
  Sum: 'rolling',
  Std: 'rolling',
  Var: 'rolling',
  Skew: 'rolling',
  Kurt: 'rolling',
  Max: 'rolling',
  Min: 'rolling',
  Med: 'rolling',
  Mad: 'rolling',
  Rank: 'rolling',
  Delta: 'rolling',
  WMA: 'rolling',
  EMA: 'rolling',
  Cov: 'pair',
  Corr: 'pair',
} as const satisfies Readonly<Record<string, OperatorClass>>;

export type OperatorName = keyof typeof OPERATOR_CLASSES;
export const OPERATOR_NAMES = Object.keys(OPERATOR_CLASSES) as readonly OperatorName[];

/** A formula over a panel. Its value is one number a day and stock; a window is no value and stands with its operator. */
export type Expression =
  | { readonly kind: 'feature'; readonly name: string }
  | { readonly kind: 'constant'; readonly value: number }
  | {
      readonly kind: 'call';
      readonly operator: OperatorName;
      readonly operands: readonly Expression[];
      /** Days, for rolling and pair operators: the last `window` days; for Ref and Delta the distance. */
      readonly window?: number;
    };

/** Operators whose two operands may change places without a change of a bit. */
const COMMUTATIVE: ReadonlySet<OperatorName> = new Set(['Add', 'Mul', 'Greater', 'Less', 'Cov', 'Corr']);

/** A constant as the published code prints it: `2.0`, `-0.5`, `1e-05`. */
export function constantText(value: number): string {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e16)) {
    const [mantissa, exponent] = value.toExponential().split('e');
    const power = Math.abs(Number(exponent));
    return `${mantissa}e${exponent.startsWith('-') ? '-' : '+'}${power < 10 ? '0' : ''}${power}`;
  }
  const text = Object.is(value, -0) ? '-0' : String(value);
  return text.includes('.') ? text : `${text}.0`;
}

function textOf(expression: Expression, order: (operands: string[], operator: OperatorName) => string[]): string {
  if (expression.kind === 'feature') return `$${expression.name}`;
  if (expression.kind === 'constant') return constantText(expression.value);
  const operands = expression.operands.map((operand) => textOf(operand, order));
  const parts = order(operands, expression.operator);
  if (expression.window !== undefined) parts.push(`${expression.window}d`);
  return `${expression.operator}(${parts.join(',')})`;
}

/** `Name(arg,...,10d)`, without spaces. */
export function formulaText(expression: Expression): string {
  return textOf(expression, (operands) => operands);
}

/** The text with the operands of commutative operators in order: formulas with one canonical text have the same bits. */
export function canonicalText(expression: Expression): string {
  return textOf(expression, (operands, operator) => (COMMUTATIVE.has(operator) ? operands.sort() : operands));
}

/** Whether a feature takes part: a formula without one has no value worth scoring. */
export function isFeatured(expression: Expression): boolean {
  if (expression.kind === 'feature') return true;
  return expression.kind === 'call' && expression.operands.some(isFeatured);
}

/** Days that the value of day t may read, as offsets from t: `from` <= 0 of a formula without look-ahead, `to` = 0. */
export interface Reach {
  readonly from: number;
  readonly to: number;
}

/** Offsets of the days that a formula reads. A constant reads none, and counts as the day itself. */
export function reachOf(expression: Expression): Reach {
  if (expression.kind !== 'call') return { from: 0, to: 0 };
  let from = Number.POSITIVE_INFINITY;
  let to = Number.NEGATIVE_INFINITY;
  for (const operand of expression.operands) {
    const reach = reachOf(operand);
    from = Math.min(from, reach.from);
    to = Math.max(to, reach.to);
  }
  const { operator, window = 1 } = expression;
  if (operator === 'Ref') return { from: from - window, to: to - window };
  if (operator === 'Delta') return { from: Math.min(from, from - window), to: Math.max(to, to - window) };
  return { from: from - (window - 1), to };
}

/** The names of the features of a formula, each once, in the order of their first appearance. */
export function featuresOf(expression: Expression, found = new Set<string>()): ReadonlySet<string> {
  if (expression.kind === 'feature') found.add(expression.name);
  else if (expression.kind === 'call') for (const operand of expression.operands) featuresOf(operand, found);
  return found;
}

/** Tokens of a formula in reverse Polish notation, without begin and stop. */
export function tokenCount(expression: Expression): number {
  if (expression.kind !== 'call') return 1;
  let count = 1 + (expression.window === undefined ? 0 : 1);
  for (const operand of expression.operands) count += tokenCount(operand);
  return count;
}

/**
 * Refuses a formula that reads a day after its own. A negative distance is refused wherever it stands, also where a longer
 * one around it would take the sum back below zero.
 * @throws InputError naming the part and the number of days
 */
export function refuseLookAhead(expression: Expression, where: string): void {
  if (expression.kind !== 'call') return;
  const { operator, operands, window } = expression;
  if (window !== undefined && window < 0) {
    throw new InputError(
      `${where}: ${formulaText(expression)} reads ${-window} days ahead; a formula may use past days only ` +
        `(a negative distance is for the target, --target)`,
    );
  }
  if (window !== undefined && window < 1) {
    throw new InputError(`${where}: ${operator} needs a window of at least 1 day, not ${window}d`);
  }
  for (const operand of operands) refuseLookAhead(operand, where);
}
