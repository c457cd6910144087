import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { syntheticPanel } from '../../src/policy/alphas/synthetic-panel.js';
import { readReport, validateReport } from '../../src/report/json.js';
import { resident } from './run-surprisal.js';

const folder = mkdtempSync(join(tmpdir(), 'mine-alpha-'));
const file = (name: string): string => join(folder, name);

function writePanel(path: string): void {
  const { dates, symbols, features, values } = syntheticPanel({ days: 140, stocks: 15, seed: 6, strength: 0.2 });
  const lines = [`date,symbol,${features.join(',')}`];
  for (let t = 0; t < dates.length; t++) {
    for (let s = 0; s < symbols.length; s++) {
      lines.push([dates[t], symbols[s], ...values.map((one) => one[t * symbols.length + s])].join(','));
    }
  }
  writeFileSync(path, `${lines.join('\n')}\n`);
}

describe('surprisal analyze-policy mine-alpha', () => {
  const data = file('panel.csv');
  writePanel(data);
  const base = ['analyze-policy', 'mine-alpha', '--data', data, '--horizon', '2', '--backtrack', '20'];
  const search = [...base, '--windows', '1,5', '--evaluations', '30', '--capacity', '3', '--checkpoints', file('ck')];

  it('searches, judges and writes every output; goes on from checkpoints to the same bytes', () => {
    const outputs = (n: number): string[] => [
      ...['--out', file(`out${n}.csv`), '--report', file(`r${n}.json`), '--pool-out', file(`pool${n}.json`)],
      ...['--history', file(`h${n}.csv`), '--daily-ic', file(`d${n}.csv`), '--mutual-ic', file(`m${n}.csv`)],
      ...['--backtest', file(`b${n}.csv`)],
    ];
    const one = resident([...search, ...outputs(1), '--plot', file('p.svg'), '--threads', '2']);
    expect(one.stderr).toMatch(/survivorship/);
    expect(one.code).toBe(0);
    validateReport(readReport(file('r1.json')), file('r1.json'));
    const body = JSON.parse(readFileSync(file('r1.json'), 'utf8'));
    expect(body.searches.map(({ search: name }: { search: string }) => name)).toEqual(['policy', 'random', 'genetic']);
    expect(body.chosen.members.length).toBeLessThanOrEqual(3);
    expect(readFileSync(file('p.svg'), 'utf8')).toContain('Cumulative rank IC');
    const two = resident([...search, ...outputs(2), '--resume', '--threads', '1']);
    expect(two.code).toBe(0);
    for (const name of ['out', 'h', 'd', 'm', 'b']) {
      expect(readFileSync(file(`${name}2.csv`), 'utf8')).toBe(readFileSync(file(`${name}1.csv`), 'utf8'));
    }
    expect(readFileSync(file('r2.json'), 'utf8')).toBe(readFileSync(file('r1.json'), 'utf8'));
    const pool = resident([...base, '--pool', file('pool1.json'), '--report', file('r3.json')]);
    expect(pool.code).toBe(0);
    expect(JSON.parse(readFileSync(file('r3.json'), 'utf8')).parts).toHaveLength(1);
  });

  it('refuses look-ahead, options without use, and checkpoints of another run', () => {
    const refused = (args: string[], message: RegExp): void => {
      const { code, stderr } = resident(args);
      expect(stderr).toMatch(message);
      expect(code).toBe(2);
    };
    refused([...base, '--formula', 'Ref($close,-1d)'], /reads 1 days ahead; a formula may use past days only/);
    refused([...base, '--formula', 'Mean($close,40d)'], /reads 39 days back; raise --backtrack/);
    refused([...base, '--formula', '$volume', '--seeds', '2'], /--seeds is for searches/);
    refused([...base, '--gap', '1'], /a shorter gap lets parts see each other/);
    refused([...base, '--target', 'Delta($close,2d)'], /--target and --horizon|give --target or --horizon/);
    refused([...base, '--rule', 'pear'], /--rule/);
    refused([...search, '--seed', '0', '--capacity', '2', '--resume'], /was made with other options/);
  });

  it('evaluates given formulas', () => {
    const { code, stdout } = resident([...base, '--formula', 'Sub(0.0,Delta($close,5d))', '--formula', '$volume']);
    expect(code).toBe(0);
    expect(stdout).toMatch(/given/);
  });
});
