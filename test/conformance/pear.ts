import { type PearRecord, pearRecord } from '../../src/policy/pear.js';
import type { Json } from './harness.js';
import { float64, keysOf, number } from './tensors.js';

const FIGURES: Readonly<Record<string, (record: PearRecord) => unknown>> = {
  h_think: ({ think }) => think,
  h_answer: ({ answer }) => answer,
  penalty: ({ penalty }) => penalty,
  reward: ({ reward }) => reward,
  n_think: ({ thinkTokens }) => thinkTokens,
  n_answer: ({ answerTokens }) => answerTokens,
};

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  if (!Array.isArray(inputs.rows)) throw new TypeError('rows is not a list');
  if (wanted === null || typeof wanted !== 'object' || Array.isArray(wanted) || !Array.isArray(wanted.rows))
    throw new TypeError('expected.rows is not a list');
  const shapes = wanted.rows;
  const rows = inputs.rows.map((row, r) => {
    if (row === null || typeof row !== 'object' || Array.isArray(row)) throw new TypeError('a row is not an object');
    const entropy = float64(row.entropy, 'entropy');
    const end = row.think_end === null || row.think_end === undefined ? -1 : number(row.think_end, 'think_end');
    const start = row.think_start === undefined || row.think_start === null ? end : number(row.think_start, 'start');
    const span = { from: 0, to: entropy.length, markerStart: start, markerEnd: end };
    const record = pearRecord(entropy, undefined, span, row.correct === true || row.correct === 1, {
      alpha: number(inputs.alpha, 'alpha'),
      baseScore: number(inputs.base_score, 'base_score'),
      formatScore: number(inputs.format_score, 'format_score'),
      ...(typeof inputs.floor === 'number' && { floor: inputs.floor }),
    });
    return Object.fromEntries(
      keysOf(shapes[r]).map((key) => {
        if (!Object.hasOwn(FIGURES, key)) throw new Error(`unknown figure ${key}`);
        return [key, FIGURES[key](record)];
      }),
    );
  });
  return { rows };
}
