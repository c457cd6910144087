import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../formats/collect.js';
import { resident } from './run-surprisal.js';

const folder = temporaryFolder();
const out = (name: string): string => join(folder, name);
const text = (name: string): string => readFileSync(out(name), 'utf8');
const json = <T>(name: string): T => JSON.parse(text(name)) as T;
const write = (name: string, content: string): string => {
  writeFileSync(out(name), content);
  return out(name);
};
const run = (...argv: string[]) => resident(['fuse', 'evidence', ...argv]);
const schema = (name: string): object => JSON.parse(readFileSync(`src/report/schemas/${name}.schema.json`, 'utf8'));
const ajv = new Ajv2020({ strict: true, allowUnionTypes: true });
ajv.addSchema(schema('envelope'));
const [validateMasses, validateAlloys] = ['fuse-evidence', 'fuse-evidence-alloys'].map((name) =>
  ajv.compile(schema(name)),
);

const TABLES = 'fixtures/tables';

interface MassReport {
  total_conflict: number;
  warnings: string[];
  cases: { case: string; total_conflict: number; results: { rule: string; undefined: string | null }[] }[];
}
interface AlloyReport {
  pieces_of_evidence: number;
  clusters: string[][];
  sources: { name: string; score: number; by: string }[];
  warnings: string[];
  evaluation: { methods: { name: string; pooled: { auc: number; rows: number } }[] } | null;
}

describe('fuse evidence on masses', () => {
  it('shows all rules side by side; files and schema fit together', () => {
    const files = ['--out', out('m.csv'), '--report', out('m.json'), '--plot', out('m.svg')];
    expect(run('--data', `${TABLES}/sensors.csv`, '--rule', 'all', ...files, '--quiet')).toEqual({
      ...{ code: 0, stdout: '', stderr: '' },
    });
    const report = json<MassReport>('m.json');
    expect(validateMasses(report), JSON.stringify(validateMasses.errors)).toBe(true);
    expect(report.cases[0].total_conflict).toBeCloseTo(0.9987148, 12);
    const row = (rule: string, set: string): number[] =>
      (
        text('m.csv')
          .split('\n')
          .find((line) => line.startsWith(`,${rule},${set},`)) ?? ''
      )
        .split(',')
        .slice(3)
        .map(Number);
    expect(row('dempster', 'C')[0]).toBeCloseTo(0.8578431372548659, 9);
    expect(row('murphy', 'A')[0]).toBeCloseTo(0.9620179949402694, 9);
    expect(row('smets', '')[0]).toBeCloseTo(0.9987148, 12);
    expect(text('m.svg')).toContain('Pignistic probability');
  });

  it('many cases at once, JSON, reliability; total conflict is named or, beside others, noted', () => {
    const cases = write(
      'cases.csv',
      'case,source,set,mass\none,x,A,1\none,y,B,1\ntwo,x,A,0.6\ntwo,x,*,0.4\ntwo,y,B|A,1\n',
    );
    const alone = run('--data', cases);
    expect(alone.code).toBe(2);
    expect(alone.stderr).toMatch(/case one: total conflict: sources x and y .*--rule pcr5/);
    const both = run('--data', cases, '--rule', 'dempster,pcr5', '--report', out('c.json'), '--plot', out('c.svg'));
    expect([both.code, both.stderr]).toEqual([
      0,
      expect.stringContaining('warning: dempster: case one: total conflict'),
    ]);
    const report = json<MassReport>('c.json');
    expect(validateMasses(report), JSON.stringify(validateMasses.errors)).toBe(true);
    expect(report.cases.map((found) => found.results[0].undefined === null)).toEqual([false, true]);
    expect(run('--data', cases, '--reliability', 'x=0.9', '--out', out('d.csv'), '--quiet').code).toBe(0);
    expect(text('d.csv')).toContain('one,dempster,B,1,1,1,1,1');
    const document = { sources: { x: { A: 0.5, 'A|B': 0.5 }, y: { B: 0.25, 'A|B': 0.75 } }, frame: ['A', 'B', 'C'] };
    const path = write('masses.json', JSON.stringify(document));
    expect(run('--data', path, '--rule', 'smets', '--all-subsets', '--out', out('j.csv'), '--quiet').code).toBe(0);
    expect(text('j.csv').trimEnd().split('\n').length).toBe(1 + 8);
    expect(text('j.csv')).toContain(',smets,C,0,0,0,0,0');
  });

  it('refuses what is wrong and says where', () => {
    const bad = write('bad.csv', 'source,set,mass\nx,A,0.5\nx,B,0.4\n');
    const said = (...argv: string[]): string => {
      const { code, stderr } = run(...argv);
      expect(code).toBe(2);
      return stderr;
    };
    expect(said('--data', bad)).toContain('masses of source x sum to 0.9');
    expect(said('--data', write('word.csv', 'source,set,mass\nx,A,much\n'))).toMatch(
      /word\.csv:2: column "mass" holds "much"/,
    );
    expect(said('--data', bad, '--rule', 'demster')).toContain('did you mean "dempster"');
    expect(said('--data', bad, '--renormalize', '--reliability', 'z=0.5')).toContain('"z", which is no source');
    expect(said('--data', bad, '--alpha', '0.1')).toContain('--alpha has no meaning without --alloys');
    expect(said('--alloys', `${TABLES}/alloys.csv`, '--rule', 'pcr5')).toContain('--rule is for mass functions');
    expect(said('--alloys', `${TABLES}/alloys.csv`, '--out', out('no.csv'))).toContain('name them with --candidates');
    expect(said('--alloys', `${TABLES}/alloys.csv`, '--scores', 'dataset=1')).toContain('without --experts');
    expect(said('--alloys', `${TABLES}/alloys.csv`, '--alpha', '1')).toContain('total conflict on');
    expect(said('--alloys', `${TABLES}/alloys.csv`, '--max-memory', '20KB')).toContain('raise --max-memory');
  });
});

describe('fuse evidence on alloys', () => {
  it('predicts candidates, evaluates every source, finds the groups; threads change nothing', () => {
    const words = (name: string) => [
      ...['--alloys', `${TABLES}/alloys.csv`, '--experts', `${TABLES}/alloy-experts.csv`],
      ...['--candidates', `${TABLES}/alloy-candidates.csv`, '--evaluate', 'leave-one-element-out', '--clusters', '3'],
      ...['--out', out(`${name}.csv`), '--table', out(`${name}-held.csv`), '--substitution', out(`${name}-sub.csv`)],
      ...['--report', out(`${name}.json`), '--plot', out(`${name}.svg`), '--quiet'],
    ];
    expect(run(...words('a'), '--threads', '1')).toEqual({ code: 0, stdout: '', stderr: '' });
    expect(run(...words('b'), '--threads', '2').code).toBe(0);
    for (const end of ['.csv', '-held.csv', '-sub.csv', '.json', '.svg']) expect(text(`b${end}`)).toBe(text(`a${end}`));
    const report = json<AlloyReport>('a.json');
    expect(validateAlloys(report), JSON.stringify(validateAlloys.errors)).toBe(true);
    expect(report.clusters.map((group) => new Set(group.map((name) => name[0])).size)).toEqual([1, 1, 1]);
    const auc = (name: string) => report.evaluation?.methods.find((method) => method.name === name)?.pooled.auc ?? 0;
    expect(auc('dataset')).toBe(0.5);
    for (const name of ['chemist', 'metallurgist']) expect(auc('fused')).toBeGreaterThan(auc(name));
    const [header, first] = text('a.csv').split('\n');
    expect(header).toMatch(/^set,m_High,m_Low,m_unknown,P_high,label,n_evidence,conflict,in_data,analogy_1/);
    const cells = first.split(',');
    expect(Number(cells[1]) + Number(cells[2]) + Number(cells[3])).toBeCloseTo(1, 12);
    expect(Number(cells[1]) + Number(cells[3]) / 2).toBeCloseTo(Number(cells[4]), 12);
    expect(cells[9]).toMatch(/^\S+ \((High|Low)\) \w+->\w+ 0\.\d+$/);
  });

  it('columns of 0 and 1, weights, three labels, given scores, elements that no alloy has', () => {
    const rows = ['a,b,c,d,length,Label,weight', '1,1,1,0,3,X,1', '1,1,0,1,3,Y,0.5', '0,1,1,1,3,Z,1', '1,0,1,1,3,X,2'];
    const alloys = write('wide.csv', `${rows.join('\n')}\n`);
    const candidates = write('ask.csv', 'set_name\na|b\nb|c|e\n');
    const experts = write('tutor.csv', 'element_1,element_2,sim,dissim\na,e,0.6,0.1\n');
    const ended = run(
      ...['--alloys', alloys, '--candidates', candidates, '--experts', experts, '--variant', 'v5', '--positive', 'Y'],
      ...['--scores', 'dataset=0.8,tutor=0.9', '--discount', 'each', '--baseline-prior', 'frequency'],
      ...['--evaluate', 'loo', '--report', out('w.json'), '--out', out('w.csv')],
    );
    expect([ended.code, ended.stderr]).toEqual([
      0,
      expect.stringContaining('e of the candidates is in no known alloy'),
    ]);
    const report = json<AlloyReport>('w.json');
    expect(validateAlloys(report), JSON.stringify(validateAlloys.errors)).toBe(true);
    expect(report.sources.map(({ name, score, by }) => [name, score, by])).toEqual([
      ['dataset', 0.8, 'given'],
      ['tutor', 0.9, 'given'],
    ]);
    expect(text('w.csv')).toMatch(/^set,m_Y,m_X,m_Z,m_unknown,P_y/);
    expect(text('w.csv').split('\n')[2]).toContain('a->e');
  });
});
