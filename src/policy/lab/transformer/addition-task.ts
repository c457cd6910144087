import { InputError } from '../../../errors.js';
import type { Random } from '../../../random.js';
import { type Demonstration, type Grade, PADDING, type PolicyTask, type Prompt } from './task.js';

/**
 * Addition modulo m of two to `operands` numbers, with a scratch pad of free length:
 * `03 + 05 + 06 =` is answered `[words] +2 01 [words] +3 00 [words] </think> 00 <end>`. Words between the sums are idle.
 */
export interface AdditionSettings {
  readonly modulus: number;
  /** Most numbers of a prompt. */
  readonly operands: number;
  /** Probability that an idle word comes between two sums in a demonstration, and that another follows. */
  readonly idle: number;
  /** Share of the sums x + y that demonstrations get wrong. */
  readonly hardShare: number;
  /** Probability that a demonstration has a hard sum right; else any number stands there. */
  readonly hardRight: number;
}

const [END, EQUALS, PLUS, MARKER] = [1, 2, 3, 4];
/** Idle words; the list of trigger words of ARES has them, too. */
const WORDS = ['wait', 'maybe', 'however', 'perhaps', 'actually', 'alternatively', 'but', 'then'];
const FIRST_WORD = 5;
const FIRST_TAG = FIRST_WORD + WORDS.length;
/** Words are drawn with probabilities falling by this factor. */
const WORD_RATIO = 0.6;
/** Positions of a response beyond sums, marker, answer and end. */
const IDLE_ROOM = 16;

function drawWord(random: Random): number {
  let word = 0;
  while (word + 1 < WORDS.length && random.uniform() < WORD_RATIO) word++;
  return FIRST_WORD + word;
}

const twoDigits = (n: number): string => String(n).padStart(2, '0');

/**
 * The task with its hard sums drawn.
 * @throws InputError for sizes out of range
 */
export function additionTask(settings: AdditionSettings, random: Random): PolicyTask {
  const { modulus, operands, idle, hardShare, hardRight } = settings;
  if (!(Number.isInteger(modulus) && modulus >= 2 && modulus <= 100))
    throw new InputError(`--task modulus=${modulus}: must be a whole number from 2 to 100`);
  if (!(Number.isInteger(operands) && operands >= 2 && operands <= 9))
    throw new InputError(`--task operands=${operands}: must be a whole number from 2 to 9`);
  const firstNumber = FIRST_TAG + operands - 1;
  const vocabulary = [
    '<pad>',
    '<end>',
    '=',
    '+',
    '</think>',
    ...WORDS,
    ...Array.from({ length: operands - 1 }, (_, k) => `+${k + 2}`),
    ...Array.from({ length: modulus }, (_, n) => twoDigits(n)),
  ];
  const hard = new Uint8Array(modulus * modulus);
  const order = random.permutation(modulus * modulus);
  for (const pair of order.subarray(0, Math.round(hardShare * modulus * modulus))) hard[pair] = 1;

  const numbersOf = (tokens: Int32Array): number[] =>
    [...tokens].filter((token) => token >= firstNumber).map((token) => token - firstNumber);

  const prompt = (own: Random, number: number): Prompt => {
    const count = 2 + own.integer(operands - 1);
    const tokens: number[] = [];
    for (let k = 0; k < count; k++) tokens.push(firstNumber + own.integer(modulus), k + 1 < count ? PLUS : EQUALS);
    return { id: `sum-${number}`, tokens: Int32Array.from(tokens), difficulty: String(count - 1) };
  };

  const idleWords = (own: Random, into: number[]): void => {
    while (own.uniform() < idle) into.push(drawWord(own));
  };

  const responseLimit = 2 * (operands - 1) + 3 + IDLE_ROOM;

  return {
    name: 'addition',
    vocabulary,
    specialTokens: [PADDING, END],
    promptLimit: 2 * operands,
    responseLimit,
    prompt,

    demonstrate(own): Demonstration {
      const { tokens } = prompt(own, 0);
      const numbers = numbersOf(tokens);
      for (;;) {
        const response: number[] = [];
        let sum = numbers[0];
        for (let k = 1; k < numbers.length; k++) {
          idleWords(own, response);
          const right = hard[sum * modulus + numbers[k]] === 0 || own.uniform() < hardRight;
          sum = right ? (sum + numbers[k]) % modulus : own.integer(modulus);
          response.push(FIRST_TAG + k - 1, firstNumber + sum);
        }
        idleWords(own, response);
        response.push(MARKER, firstNumber + sum, END);
        if (response.length > responseLimit) continue;
        return { prompt: tokens, response: Int32Array.from(response), mask: new Uint8Array(response.length).fill(1) };
      }
    },

    begin: () => ({ take: (token) => ({ observation: [], over: token === END }) }),

    grade({ tokens }, response): Grade {
      const marker = response.lastIndexOf(MARKER);
      const sum = numbersOf(tokens).reduce((a, b) => a + b, 0) % modulus;
      const answered = marker >= 0 && marker + 3 === response.length && response[marker + 2] === END;
      const correct = answered && response[marker + 1] === firstNumber + sum;
      return { correct, reward: correct ? 1 : 0, ...(marker >= 0 && { thinkEnd: marker }) };
    },
  };
}
