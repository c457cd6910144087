import { InputError } from '../../errors.js';
import type { Loss } from '../types.js';
import { createLoss } from './index.js';

/** A term of a mixed loss. */
export interface WeightedLoss {
  readonly weight: number;
  readonly loss: Loss;
  /** The weight grows from 0 to its value over so many epochs (`warmup=20`); 0 for none. */
  readonly warmUpEpochs: number;
}

/** Weight of a term in an epoch, which may be a fraction: weight * min(epoch / warmUpEpochs, 1). */
export function termWeight({ weight, warmUpEpochs }: WeightedLoss, epoch: number): number {
  return warmUpEpochs > 0 ? weight * Math.min(epoch / warmUpEpochs, 1) : weight;
}

/** Splits at a separator that stands outside parentheses. */
function splitOutside(text: string, separator: RegExp): string[] {
  const parts: string[] = [];
  let depth = 0;
  let part = '';
  for (let i = 0; i < text.length; i++) {
    const character = text[i];
    if (character === '(') depth++;
    if (character === ')') depth--;
    // The sign of an exponent (1e+3) is no separator.
    const exponent = character === '+' && /\d[eE]$/.test(part);
    if (depth === 0 && separator.test(character) && !exponent) {
      parts.push(part);
      part = '';
    } else part += character;
  }
  parts.push(part);
  return parts.map((entry) => entry.trim());
}

function parseParameters(text: string, term: string): Record<string, number | string> {
  const parameters: Record<string, number | string> = {};
  if (text.trim() === '') return parameters;
  for (const entry of splitOutside(text, /,/)) {
    const match = /^([A-Za-z][\w-]*)\s*=\s*(\S+)$/.exec(entry);
    if (match === null) throw new InputError(`loss "${term}": "${entry}" is no parameter (write name=value)`);
    const [, key, value] = match;
    if (key in parameters) throw new InputError(`loss "${term}": ${key} is given twice`);
    parameters[key] = Number.isNaN(Number(value)) ? value : Number(value);
  }
  return parameters;
}

function parseTerm(term: string): WeightedLoss {
  const match = /^(?:([0-9.][\w.+-]*)\s*\*\s*)?([A-Za-z][\w-]*)\s*(?:\((.*)\))?$/.exec(term);
  if (match === null) {
    throw new InputError(`"${term}" is no loss (write weight*name(parameter=value), as in 0.1*ce + 0.9*kd(T=4))`);
  }
  const weight = Number(match[1] ?? 1);
  if (!Number.isFinite(weight)) throw new InputError(`loss "${term}": the weight is no number`);
  const { warmup = 0, ...parameters } = parseParameters(match[3] ?? '', term);
  if (typeof warmup !== 'number' || !(warmup >= 0 && Number.isFinite(warmup))) {
    throw new InputError(`loss "${term}": warmup must be a number of epochs; it is ${warmup}`);
  }
  return { weight, loss: createLoss(match[2], parameters), warmUpEpochs: warmup };
}

/**
 * Reads a sum of weighted losses: `pld`, `0.1*ce + 0.9*kd(T=4)`, `ce + dkd(beta=8,warmup=20)`. Every term takes
 * `warmup`, the epochs over which its weight grows.
 *
 * @throws InputError naming the term; unknown names and parameters with the nearest one
 */
export function parseLosses(text: string): WeightedLoss[] {
  if (text.trim() === '') throw new InputError('the loss is empty (write for instance pld or 0.1*ce + 0.9*kd(T=4))');
  return splitOutside(text, /\+/).map(parseTerm);
}

/** Splits a list of such sums at commas or semicolons outside parentheses. */
export function splitLossList(text: string): string[] {
  return splitOutside(text, /[,;]/).filter((entry) => entry !== '');
}
