import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../formats/collect.js';
import { resident } from './run-surprisal.js';

const folder = temporaryFolder();
const out = (name: string): string => join(folder, name);
const text = (name: string): string => readFileSync(out(name), 'utf8');
const run = (...argv: string[]) => resident(['analyze-policy', ...argv]);
const schema = (name: string): object => JSON.parse(readFileSync(`src/report/schemas/${name}.schema.json`, 'utf8'));
const ajv = new Ajv2020({ strict: true, allowUnionTypes: true });
ajv.addSchema(schema('envelope'));
const validate = ajv.compile(schema('policy-lab'));

const SMALL = ['--task', 'prompts=16,batch-prompts=16,responses=8', '--steps', '24', '--seeds', '2', '--draws', '100'];
const RULES = ['--method', 'grpo', '--method', 'KL=kl-cov:fraction=0.1,beta=4', '--method', 'steer:weight-min=0.1'];

interface Report {
  seeds: number[];
  dump: { method: string; seed: number; records: number; tokens: number };
  methods: {
    label: string;
    settings: Record<string, number | string>;
    table: { step: number; entropy_nats: { mean: number; standard_error: number } }[];
    laws: { early: { ceiling: number } | null }[];
  }[];
  notes: string[];
}

describe('analyze-policy lab', () => {
  it('trains, reports and dumps a run that the other views read', () => {
    const made = run(
      ...['lab', ...SMALL, ...RULES, '--seed', '7', '--threads', '2'],
      ...['--out', out('curves.csv'), '--table', out('table.csv'), '--report', out('lab.json')],
      ...['--plot', out('lab.svg'), '--dump', out('dump.jsonl'), '--dump-evaluations', out('evaluations.csv')],
      ...['--dump-method', 'KL', '--dump-seed', '8', '--dump-top', '8'],
    );
    expect(made.stderr).toBe('');
    expect(made.code).toBe(0);
    const report = JSON.parse(text('lab.json')) as Report;
    expect(validate(report), JSON.stringify(validate.errors)).toBe(true);
    expect(report.seeds).toEqual([7, 8]);
    expect(report.methods.map(({ label }) => label)).toEqual(['grpo', 'KL', 'steer:weight-min=0.1']);
    expect(report.methods[1].settings).toMatchObject({ fraction: 0.1, beta: 4, penalty: 'abs' });
    expect(report.dump).toEqual({ ...report.dump, method: 'KL', seed: 8, records: 24 * 16 * 8, tokens: 24 * 16 * 24 });
    expect(report.notes.join(' ')).toContain('not of the task');

    // Means of the table are those of the curves.
    const [head, ...lines] = text('curves.csv').trimEnd().split('\n');
    expect(lines).toHaveLength(3 * 2 * 24);
    const column = head.split(',').indexOf('entropy_nats');
    const last = lines.map((line) => line.split(',')).filter(([method, , step]) => method === 'grpo' && step === '23');
    const mean = last.reduce((sum, cells) => sum + Number(cells[column]), 0) / 2;
    expect(report.methods[0].table.at(-1)?.entropy_nats.mean).toBeCloseTo(mean, 12);

    const data = ['--data', out('dump.jsonl')];
    const views = [
      run('dynamics', ...data, '--report', out('dynamics.json')),
      run('law', ...data, '--evaluations', out('evaluations.csv'), '--draws', '100', '--report', out('law.json')),
      run('interventions', ...data, '--report', out('interventions.json')),
    ];
    for (const { code, stderr } of views) expect(code, stderr).toBe(0);
    const law = JSON.parse(text('law.json')) as { runs: { fit: { points: number } }[] };
    expect(law.runs[0].fit.points).toBe(24);
    const dynamics = JSON.parse(text('dynamics.json')) as { by_step: object[]; first_entropy_nats: number };
    expect(dynamics.by_step).toHaveLength(24);
    expect(dynamics.first_entropy_nats).toBeCloseTo(report.methods[1].table[0].entropy_nats.mean, 9);
    const { methods } = JSON.parse(text('interventions.json')) as { methods: { name: string }[] };
    expect(methods.length).toBeGreaterThan(5);
  });

  it('gives the same bytes on one thread, and another seed other ones', () => {
    const dumped = (name: string) => ['--dump', out(`${name}.jsonl`), '--dump-method', 'KL', '--dump-seed', '8'];
    const results = (name: string) => ['--out', out(`${name}.csv`), '--report', out(`${name}.json`), ...dumped(name)];
    const rules = ['lab', ...SMALL, ...RULES, '--dump-top', '8'];
    expect(run(...rules, '--seed', '7', '--threads', '1', ...results('one')).code).toBe(0);
    expect(text('one.csv')).toBe(text('curves.csv'));
    expect(text('one.json')).toBe(text('lab.json'));
    expect(text('one.jsonl')).toBe(text('dump.jsonl'));
    expect(run(...rules, '--seed', '8', ...results('other')).code).toBe(0);
    expect(text('other.csv')).not.toBe(text('curves.csv'));
  });

  it('says what is wrong before anything is trained', () => {
    const failing = (...argv: string[]): string => {
      const { code, stderr } = run('lab', ...argv, '--report', out('never.json'));
      expect(code).toBe(2);
      expect(existsSync(out('never.json'))).toBe(false);
      return stderr;
    };
    expect(failing('--engine', 'tabula')).toContain('tabular');
    expect(failing('--method', 'klcov')).toContain('kl-cov');
    expect(failing('--method', 'kl-cov:beto=1')).toContain('beta');
    expect(failing('--method', 'grpo', '--method', 'grpo')).toContain('twice');
    expect(failing('--method', 'pear')).toContain('cannot train under it');
    expect(failing('--task', 'prompt=3')).toContain('did you mean "prompts"');
    expect(failing('--task', 'batch-prompts=65')).toContain('without replacement');
    expect(failing('--dump-every', '5')).toContain('without --dump');
    expect(failing('--dump', out('x.jsonl'), '--dump-method', 'x')).toContain('--dump-method');
    expect(failing('--steps', '5', '--table-steps', '7')).toContain('--table-steps');
    expect(failing('--steps', '1', '--seeds', '1', '--probe-states', out('s.npy'))).toContain('finished policy');
  });
});
