import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { afterAll, describe, expect, it } from 'vitest';
import { METHOD_DETAILS } from '../../src/policy/interventions/details/method-details.js';
import { createRandom } from '../../src/random.js';
import { severally } from './run-surprisal.js';

const schema = (name: string): object => JSON.parse(readFileSync(`src/report/schemas/${name}.schema.json`, 'utf8'));
const ajv = new Ajv2020({ allErrors: true, allowUnionTypes: true });
ajv.addSchema(schema('envelope'));
const validate = ajv.compile(schema('policy-intervention-details'));

const folder = mkdtempSync(join(tmpdir(), 'surprisal-details-'));
afterAll(() => rmSync(folder, { recursive: true }));

const WORDS = ['wait', ' but', ' sum', '=', '</think>', ' so', ' two'];

/** Two steps of three prompts with four responses each; the first prompt always solved, the last never. */
function writeDump(path: string): void {
  const random = createRandom(8);
  const lines: string[] = [];
  for (let r = 0; r < 24; r++) {
    const prompt = Math.floor(r / 4) % 3;
    const length = 10 + random.integer(8);
    const tokens = Array.from({ length }, (_, t) => (t === 6 ? 4 : [0, 1, 2, 3, 5, 6][random.integer(6)]));
    lines.push(
      JSON.stringify({
        step: Math.floor(r / 12),
        prompt_id: `p${prompt}`,
        response_id: r === 23 ? 'r20/branch-1' : `r${r}`,
        prompt: 'What?',
        prompt_length: 5,
        tokens,
        token_text: tokens.map((id) => WORDS[id]),
        logprob: tokens.map(() => -0.1 - random.uniform()),
        entropy: tokens.map(() => 2 * random.uniform()),
        topk: tokens.map((id) => [
          [id, Math.log(0.6)],
          [(id + 1) % WORDS.length, Math.log(0.3)],
        ]),
        reward: prompt === 0 || (prompt === 1 && r % 2 === 0) ? 1 : 0,
        step_spans: [
          [0, 5],
          [5, length],
        ],
      }),
    );
  }
  writeFileSync(path, `${lines.join('\n')}\n`);
}

describe('analyze-policy interventions --details', () => {
  const dump = join(folder, 'dump.jsonl');
  writeDump(dump);
  const base = ['analyze-policy', 'interventions', '--data', dump, '--quiet'];
  const settings: Readonly<Record<string, string>> = {
    'clip-cov': ':lower=-1,ratio=0.1',
    'kl-cov': ':fraction=0.1',
    'recent-samples': ':batch=1',
    cure: ':top-k=3,prompt-budget=8',
  };
  const methods = Object.keys(METHOD_DETAILS);

  it('writes report, tables and prefixes of every method', { timeout: 30_000 }, () => {
    const ended = severally(
      methods.map((method) => [
        ...[...base, '--details', `${method}${settings[method] ?? ''}`, '--report', join(folder, `${method}.json`)],
        ...['--tables', join(folder, method), ...(method === 'ares' ? ['--plot', join(folder, 'ares.svg')] : [])],
      ]),
    );
    methods.forEach((method, m) => {
      expect(ended[m]).toMatchObject({ code: 0, stderr: '' });
      const report = JSON.parse(readFileSync(join(folder, `${method}.json`), 'utf8'));
      validate(report);
      expect(validate.errors ?? []).toEqual([]);
      expect(report.tables.map((table: { file: string }) => table.file).sort()).toEqual(
        readdirSync(join(folder, method)).sort(),
      );
      for (const { file, rows } of report.tables) {
        const lines = readFileSync(join(folder, method, file), 'utf8')
          .trimEnd()
          .split('\n');
        expect(lines).toHaveLength(file.endsWith('.csv') ? rows + 1 : rows);
      }
    });
    // Rows of tokens are in order of the metric; the chosen ones are as many as the report says.
    const metric = readFileSync(join(folder, 'steer', 'tokens.csv'), 'utf8')
      .trimEnd()
      .split('\n')
      .slice(1)
      .map((line) => Math.abs(Number(line.split(',')[5])));
    expect(metric).toEqual(metric.toSorted((a, b) => b - a));
    const steered = JSON.parse(readFileSync(join(folder, 'steer.json'), 'utf8')).figures;
    expect(steered.metric_largest).toBe(metric[0]);
    expect(steered.by_step[0].measured_next_change_nats).toBeCloseTo(
      steered.by_step[1].entropy_mean_nats - steered.by_step[0].entropy_mean_nats,
      14,
    );
    for (const method of ['kl-cov', 'clip-cov']) {
      const { figures, tables } = JSON.parse(readFileSync(join(folder, `${method}.json`), 'utf8'));
      expect(tables[0]).toMatchObject({ name: 'chosen', rows: figures.chosen });
    }
    const prefix = JSON.parse(readFileSync(join(folder, 'cure', 'prefixes.jsonl'), 'utf8').split('\n')[0]);
    expect(prefix).toMatchObject({ response_id: 'r0/branch-0', prompt_id: 'p0', prompt: 'What?' });
    expect(prefix.response_prefix_tokens.length).toBe(Math.min(prefix.position, 3));
    expect(prefix.truncated).toBe(prefix.position > 3);
    const cure = JSON.parse(readFileSync(join(folder, 'cure.json'), 'utf8')).figures;
    expect(cure.reward_by_origin).toEqual({
      originals: { responses: 23, mean: 12 / 23 },
      branches: { responses: 1, mean: 0 },
    });
    expect(readFileSync(join(folder, 'ares.svg'), 'utf8')).toContain('validated windows');
  });

  it('says in one line what does not go together', { timeout: 30_000 }, () => {
    const words = join(folder, 'words.txt');
    writeFileSync(words, '# none\n');
    const cases: (readonly [string[], RegExp])[] = [
      [['--details', 'grpo'], /--details grpo: .*there are details of clip-cov, kl-cov, steer, targeted-entropy, pear/],
      [['--details', 'pear', '--method', 'steer'], /--method belongs to the comparison/],
      [['--tables', join(folder, 'x')], /name a method with --details/],
      [['--details', 'ares', '--trigger-words', words], /words\.txt: the list of trigger words is empty/],
      [['--details', 'ares:window=0'], /window is 0/],
      [['--details', 'hardness-weights', '--map', 'reward=prompt_length'], /a reward of 5.*rescale=yes/],
    ];
    const ended = severally(cases.map(([own]) => [...base, ...own]));
    cases.forEach(([, message], i) => {
      expect(ended[i].code).toBe(2);
      expect(ended[i].stderr).toMatch(message);
      expect(ended[i].stderr.trimEnd().split('\n')).toHaveLength(1);
    });
  });
});
