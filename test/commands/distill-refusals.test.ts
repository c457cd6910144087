import { describe, expect, it } from 'vitest';
import { severally } from './run-surprisal.js';

const MODEL = 'fixtures/models/llama-sotu';
const TEXT = 'fixtures/text/heldout_text.jsonl';
const ROWS = ['--data', 'fixtures/tables/digits.csv', '--out', 'never'];
const TEXTS = ['--data', TEXT, '--context', '32', '--limit', '1', '--dry-run'];
const CLASSES = ['train', ...ROWS, '--student', 'mlp:4', '--loss', 'ce'];
const LANGUAGE = ['train', ...TEXTS, '--out', 'never', '--student', MODEL, '--loss', 'ce'];
const STORED = ['score', '--student-logits', 'never.npy'];
const RESPONSES = ['capture', '--responses', TEXT, '--teacher', MODEL, '--out', 'never'];

/** A command line and the options that it has no use for, with what is said of them. */
const REFUSED: readonly (readonly [readonly string[], string])[] = [
  [[...CLASSES, '--schedule', 'constant', '--final-rate', '0.1'], '--final-rate has no meaning'],
  [[...CLASSES, '--optimizer', 'sgld'], '--optimizer'],
  [[...CLASSES, '--data-format', 'csv'], '--data-format has no meaning for the task classes'],
  [[...CLASSES, '--logits-output', 'logits'], '--logits-output is for .onnx files'],
  [['train', ...ROWS, '--student', 'x.onnx', '--loss', 'ce', '--standardize', 'all'], '--standardize is for networks'],
  [[...CLASSES, '--eval-teacher', 'x.npy'], '--eval-teacher needs --eval-data'],
  [[...LANGUAGE, '--prompt-field', 'question'], '--prompt-field needs --loss-on answers'],
  [[...LANGUAGE, '--vocab-align', 'truncate'], '--vocab-align needs --teacher'],
  [['compare', ...ROWS, '--student', 'mlp:4', '--losses', 'ce', '--choose', 'nll'], '--choose: no loss has values'],
  [[...STORED, '--context', '32'], '--context is of no use with --student-logits'],
  [[...STORED, '--no-end-token'], '--no-end-token is of no use with --student-logits'],
  [[...STORED, '--precision', 'f64'], '--precision is of no use with --student-logits'],
  [[...STORED, '--teacher-tensor', 'logits'], '--teacher-tensor is of no use without --teacher-logits'],
  [[...STORED, '--label-column', 'y'], '--label-column is of no use without --labels'],
  [
    ['capture', ...TEXTS, '--model', MODEL, '--out', 'never', '--vocabulary-size', '9'],
    '--vocabulary-size needs --resp',
  ],
  [[...RESPONSES, '--answer-field', 'reply'], '--answer-field: responses hold'],
  [[...RESPONSES, '--text-split', 'line'], '--text-split: responses hold'],
  [['activations', '--text-field', 'body'], '--text-field needs --model'],
  [['activations', '--limit', '3'], '--limit needs --compare or --model'],
  [['ntk', '--table', 'never.csv'], '--table holds what networks reached'],
];

describe('options that a run has no use for', () => {
  it('are refused by name', () => {
    const runs = severally(REFUSED.map(([line]) => ['distill-pld', ...line]));
    for (const [i, { code, stderr }] of runs.entries()) {
      const [line, said] = REFUSED[i];
      expect([line.join(' '), code, stderr]).toEqual([line.join(' '), 2, expect.stringContaining(said)]);
    }
  });
});
