import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createRandom } from '../../src/random.js';
import { readReport, validateReport } from '../../src/report/json.js';
import { resident } from './run-surprisal.js';

const folder = mkdtempSync(join(tmpdir(), 'policy-difficulty-'));
const file = (name: string): string => join(folder, name);

/** 60 questions of six levels; entropy falls and rises again with the level, accuracy falls. */
function writeDump(path: string, cut = 1): void {
  const random = createRandom(5);
  const lines: string[] = [];
  for (let q = 0; q < 60; q++) {
    const level = 1 + (q % 6);
    for (let sample = 0; sample < 4; sample++) {
      const right = random.uniform() < 1.1 - level / 6 ? 1 : 0;
      const length = Math.round((8 + level + 4 * random.uniform()) * cut);
      const entropy = Array.from({ length }, () => 0.3 + 0.05 * (level - 3.5) ** 2 + 0.05 * random.uniform());
      lines.push(
        JSON.stringify({
          ...{ prompt_id: `q${q}`, prompt: `My fellow Americans, ${q}`, difficulty: `Level ${level}`, correct: right },
          ...{ tokens: entropy.map(() => 7), logprob: entropy.map((e) => -e), entropy },
        }),
      );
    }
  }
  writeFileSync(path, `${lines.join('\n')}\n`);
}

describe('surprisal analyze-policy difficulty', () => {
  const dump = file('dump.jsonl');
  writeDump(dump);
  const base = ['analyze-policy', 'difficulty', '--data', dump];

  it('labels, fits the curve, trains a probe on states of the model, and routes', () => {
    const report = file('report.json');
    const outputs = ['--out', file('q.csv'), '--table', file('curve.csv'), '--report', report, '--plot', file('p.svg')];
    const ran = resident([
      ...base,
      ...['--model', 'fixtures/models/llama-sotu', '--epochs', '5', '--probe-out', file('probe.safetensors')],
      ...outputs,
      ...['--assert', 'curve.vertex_level > 3', '--assert', 'questions == 60'],
    ]);
    expect(ran.stderr).toMatch(/savings are those of budgets alone/);
    expect(ran.code).toBe(0);
    const body = JSON.parse(readFileSync(report, 'utf8'));
    validateReport(readReport(report), report);
    expect(body.curve).toMatchObject({ u_shaped: true });
    expect(body.probe).toMatchObject({ features: 128, training: { questions: 42 } });
    expect(readFileSync(file('q.csv'), 'utf8').trim().split('\n')).toHaveLength(61);
    expect(readFileSync(file('curve.csv'), 'utf8').trim().split('\n')).toHaveLength(7);

    // A stored probe gives the same probabilities; dumps of the strategies take the place of cut samples.
    writeDump(file('short.jsonl'), 0.5);
    const again = resident([
      ...base,
      ...['--model', 'fixtures/models/llama-sotu', '--probe', file('probe.safetensors'), '--out', file('again.csv')],
      ...['--strategy', `easy=${file('short.jsonl')}`, '--strategy', `normal=${dump}`, '--strategy', `hard=${dump}`],
      ...['--report', report, '--force'],
    ]);
    expect(again.code).toBe(0);
    const columns = (path: string): string[] =>
      readFileSync(path, 'utf8')
        .split('\n')
        .map((line) => line.split(',').slice(9, 12).join());
    expect(columns(file('again.csv'))).toEqual(columns(file('q.csv')));
    const { routing } = JSON.parse(readFileSync(report, 'utf8'));
    expect(routing.basis).toBe('measured');
    expect(routing.policies[0].token_saving).toBeGreaterThan(0.4);
  });

  it.each([
    { name: 'an empty class', argv: ['--gamma', '0'], message: /no question is hard/ },
    {
      name: 'a probe without states',
      argv: ['--probe-out', file('x.st')],
      message: /--probe-out: a probe needs hidden states/,
    },
    { name: 'a step that is not there', argv: ['--step', '9'], message: /--step 9: the dump has the steps 0 to 0/ },
    { name: 'one strategy', argv: ['--strategy', `easy=${dump}`], message: /no dump for normal/ },
    {
      name: 'states of other questions',
      argv: ['--hidden', file('h.csv')],
      message: /2 rows of hidden states for 60 questions/,
    },
  ])('refuses $name', ({ argv, message }) => {
    writeFileSync(file('h.csv'), 'a,b\n1,2\n3,4\n');
    const { code, stderr } = resident([...base, ...argv]);
    expect(stderr).toMatch(message);
    expect(stderr.trim().split('\n')).toHaveLength(1);
    expect(code).toBe(2);
  });
});
