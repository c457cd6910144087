import { didYouMean, InputError } from '../errors.js';
import {
  addJets,
  composeJets,
  constantJet,
  JET_FUNCTIONS,
  type Jet,
  multiplyJets,
  powerJet,
  scaleJet,
  variableJet,
} from './jets.js';

/** A function of one number with three derivatives. */
export type JetFunction = (x: number) => Jet;

const CONSTANTS: Readonly<Record<string, number>> = { pi: Math.PI, e: Math.E };
const BINARY_FUNCTIONS: Readonly<Record<string, (a: Jet, b: Jet) => Jet>> = {
  max: (a, b) => (a[0] >= b[0] ? a : b),
  min: (a, b) => (a[0] < b[0] ? a : b),
};

/** How expressions are written, for help and messages. */
export const EXPRESSION_GRAMMAR = `x, numbers, pi, e, + - * / ^, max(a, b), min(a, b), ${Object.keys(JET_FUNCTIONS).join(', ')}`;

type Node = (x: Jet) => Jet;

/**
 * Reads an activation such as `x * sigmoid(1.702 * x)` and gives it with its derivatives.
 * @throws InputError with the place of what cannot be read
 */
export function parseActivation(text: string): JetFunction {
  const parser = createParser(text);
  const node = parser.sum();
  parser.end();
  return (x) => node(variableJet(x));
}

interface Parser {
  sum(): Node;
  end(): void;
}

/** Recursive descent: sums of products of signed powers. */
function createParser(text: string): Parser {
  let at = 0;
  const refuse = (what: string): never => {
    throw new InputError(`activation "${text}", character ${at + 1}: ${what}; it may hold ${EXPRESSION_GRAMMAR}`);
  };
  const skip = (): void => {
    while (text[at] === ' ') at++;
  };
  const take = (symbol: string): boolean => {
    skip();
    if (text[at] !== symbol) return false;
    at++;
    return true;
  };
  const need = (symbol: string): void => {
    if (!take(symbol)) refuse(`"${symbol}" is missing`);
  };
  const word = (pattern: RegExp): string | undefined => {
    skip();
    const found = pattern.exec(text.slice(at))?.[0];
    if (found !== undefined) at += found.length;
    return found;
  };

  function sum(): Node {
    let left = product();
    for (;;) {
      const sign = take('+') ? 1 : take('-') ? -1 : 0;
      if (sign === 0) return left;
      const [a, b] = [left, product()];
      left = (x) => addJets(a(x), scaleJet(b(x), sign));
    }
  }

  function product(): Node {
    let left = signed();
    for (;;) {
      const divide = take('/');
      if (!divide && !take('*')) return left;
      const [a, b] = [left, signed()];
      left = (x) => multiplyJets(a(x), divide ? powerJet(b(x), -1) : b(x));
    }
  }

  function signed(): Node {
    if (take('+')) return signed();
    if (!take('-')) return power();
    const inner = signed();
    return (x) => scaleJet(inner(x), -1);
  }

  function power(): Node {
    const base = atom();
    if (!take('^')) return base;
    const exponent = signed();
    return (x) => {
      const [a, b] = [base(x), exponent(x)];
      if (b[1] === 0 && b[2] === 0 && b[3] === 0) return powerJet(a, b[0]);
      const { exp, log } = JET_FUNCTIONS;
      const product = multiplyJets(b, composeJets(log(a[0]), a));
      return composeJets(exp(product[0]), product);
    };
  }

  function atom(): Node {
    if (take('(')) {
      const inner = sum();
      need(')');
      return inner;
    }
    const number = word(/^(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?/);
    if (number !== undefined) {
      const value = constantJet(Number(number));
      return () => value;
    }
    const start = at;
    const name = word(/^[A-Za-z_]\w*/);
    if (name === undefined)
      return refuse(at < text.length ? `"${text[at]}" is not expected` : 'the expression ends here');
    if (name === 'x') return (x) => x;
    if (Object.hasOwn(CONSTANTS, name)) return () => constantJet(CONSTANTS[name]);
    const unary = Object.hasOwn(JET_FUNCTIONS, name) ? JET_FUNCTIONS[name] : undefined;
    const binary = Object.hasOwn(BINARY_FUNCTIONS, name) ? BINARY_FUNCTIONS[name] : undefined;
    if (!unary && !binary) {
      at = start;
      const known = ['x', ...Object.keys(CONSTANTS), ...Object.keys(BINARY_FUNCTIONS), ...Object.keys(JET_FUNCTIONS)];
      return refuse(`"${name}" is unknown${didYouMean(name, known)}`);
    }
    need('(');
    const first = sum();
    if (unary) {
      need(')');
      return (x) => {
        const inner = first(x);
        return composeJets(unary(inner[0]), inner);
      };
    }
    need(',');
    const second = sum();
    need(')');
    return (x) => (binary as (a: Jet, b: Jet) => Jet)(first(x), second(x));
  }

  return {
    sum,
    end() {
      skip();
      if (at < text.length) refuse(`"${text[at]}" is not expected`);
    },
  };
}
