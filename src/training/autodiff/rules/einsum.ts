import type { RuleContext, RuleTable, VjpRule } from '../types.js';
import { refused, sumOver } from './shape-arithmetic.js';

interface Equation {
  /** Letters of each operand, an ellipsis spelled out. */
  readonly operands: readonly (readonly string[])[];
  readonly output: readonly string[];
}

const LETTERS = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ';

/** Letters in the order of an equation without "->": an ellipsis, then those that occur once, sorted. */
function implicitOutput(terms: readonly string[]): string {
  const letters = terms.join('').replaceAll('...', '');
  const once = [...new Set(letters)].filter((letter) => letters.split(letter).length === 2).sort();
  return (terms.some((term) => term.includes('...')) ? '...' : '') + once.join('');
}

/** Reads an equation. Axes of an ellipsis are aligned from the right. */
export function readEquation(equation: string, ranks: readonly number[]): Equation {
  const [left, right] = equation.replaceAll(' ', '').split('->');
  const terms = left.split(',');
  const free = [...LETTERS].filter((letter) => !equation.includes(letter));
  const lettersOf = (term: string): number => term.replace('...', '').length;
  const wide = Math.max(0, ...terms.map((term, i) => (term.includes('...') ? ranks[i] - lettersOf(term) : 0)));
  const spell = (term: string, axes: number): string[] => {
    const [before, after] = term.split('...');
    return after === undefined ? [...before] : [...before, ...free.slice(wide - axes, wide), ...after];
  };
  return {
    operands: terms.map((term, i) => spell(term, ranks[i] - lettersOf(term))),
    output: spell(right ?? implicitOutput(terms), wide),
  };
}

/** The gradient of one operand: the same equation with output and operand changed over. */
function operandGradient(g: RuleContext, cotangent: string, own: number, equation: Equation): string {
  const letters = equation.operands[own];
  if (new Set(letters).size !== letters.length) throw refused(g, 'an operand has a letter twice');
  const others = equation.operands.flatMap((operand, i) => (i === own ? [] : [{ operand, name: g.inputs[i] }]));
  const known = new Set([...equation.output, ...others.flatMap(({ operand }) => operand)]);
  const found = letters.filter((letter) => known.has(letter));
  const terms = [equation.output, ...others.map(({ operand }) => operand)].map((term) => term.join(''));
  const text = `${terms.join()}->${found.join('')}`;
  let gradient = g.emit('Einsum', [cotangent, ...others.map(({ name }) => name)], { equation: text });
  const dims = g.dims(g.inputs[own]);
  // A letter of extent 1 here that is longer elsewhere was repeated.
  const repeated = found.flatMap((letter, axis) => {
    const long = equation.operands.some((operand, i) =>
      operand.some((other, at) => other === letter && g.dims(g.inputs[i])[at] !== 1),
    );
    return dims[letters.indexOf(letter)] === 1 && long ? [axis] : [];
  });
  if (repeated.length > 0) gradient = sumOver(g, gradient, repeated);
  const missing = letters.flatMap((letter, axis) => (known.has(letter) ? [] : [axis]));
  if (missing.length === 0) return gradient;
  return g.emit('Expand', [g.emit('Unsqueeze', [gradient, g.integers(missing)]), g.shapeOf(g.inputs[own])]);
}

const einsum: VjpRule = (g) => {
  const [cotangent] = g.cotangents;
  if (cotangent === undefined) return [];
  const ranks = g.inputs.map((input) => g.dims(input).length);
  const equation = readEquation(g.stringAttribute('equation', ''), ranks);
  return g.inputs.map((_, i) => (g.needs(i) ? operandGradient(g, cotangent, i, equation) : undefined));
};

/** Einstein sums of any number of operands. */
export const EINSUM_RULES: RuleTable = { Einsum: einsum };
