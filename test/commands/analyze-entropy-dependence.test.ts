import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createNpyWriter } from '../../src/formats/npy.js';
import { createRandom } from '../../src/random.js';
import { readReport } from '../../src/report/json.js';
import { type Ended, resident, surprisal } from './run-surprisal.js';

let folder: string;
const at = (name: string): string => join(folder, name);
const run = (...argv: string[]): Ended => resident(['analyze-entropy', 'dependence', ...argv]);

interface MeasureBody {
  measure: string;
  of: string;
  value_nats: number;
  value_bits: number;
  coverage: number;
  advice: string | null;
  estimates: { estimator: string; value_nats: number; value_bits: number }[];
  test: {
    p_value: number;
    method: string;
    exact: boolean;
    asymptotic: { p_value: number } | null;
    p_benjamini_hochberg?: number;
  };
  interval: { bca_low_nats: number; bca_high_nats: number; method: string } | null;
  convergence: { sizes: number[] } | null;
}
const measures = (path: string): MeasureBody[] => readReport(path).measures as MeasureBody[];

const ROWS = 400;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'dependence-'));
  const random = createRandom(1);
  const lines = ['a,b,c,u,v,word,n'];
  const matrix = new Float64Array(ROWS * 2);
  let past = 0;
  for (let i = 0; i < ROWS; i++) {
    const a = random.integer(3);
    const b = random.uniform() < 0.6 ? a : random.integer(3);
    const u = random.normal();
    const v = 0.7 * u + random.normal();
    matrix[2 * i] = u;
    matrix[2 * i + 1] = v;
    lines.push([a, b, past, u, v, ['red', 'green', '7'][b], 1 + (i % 3)].join(','));
    past = random.uniform() < 0.9 ? a : 0;
  }
  writeFileSync(at('rows.csv'), `${lines.join('\n')}\n`);
  writeFileSync(at('counts.csv'), 'symbol,n\nx,11\ny,7\nz,2\nw,1\nq,0\n');
  const npy = createNpyWriter(at('m.npy'), { dtype: 'F64', shape: [ROWS, 2] });
  npy.write(new Uint8Array(matrix.buffer));
  npy.commit();
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('analyze-entropy dependence', () => {
  it('measures two columns of symbols: report, table and picture', () => {
    const ended = run(
      ...['--data', at('rows.csv'), '--columns', 'a,word', '--bootstrap', '200', '--permutations', '199'],
      ...['--report', at('pair.json'), '--out', at('pair.csv'), '--plot', at('pair.svg')],
    );
    expect(ended.stderr).toBe('');
    expect(ended.code).toBe(0);
    const [ha, hw, mi] = measures(at('pair.json'));
    expect([ha.measure, hw.of, mi.of]).toEqual(['entropy', 'word', 'a; word']);
    expect(mi.test).toMatchObject({ p_value: 1 / 200, exact: false, method: 'tables' });
    expect(mi.test.asymptotic?.p_value).toBeLessThan(1e-9);
    expect(mi.interval?.bca_low_nats).toBeLessThan(mi.value_nats);
    expect(mi.interval?.bca_high_nats).toBeGreaterThan(mi.value_nats);
    expect(mi.convergence?.sizes.at(-1)).toBe(ROWS);
    const table = readFileSync(at('pair.csv'), 'utf8').trim().split('\n');
    expect(table[0]).toMatch(/^measure,of,estimator,chosen,value_nats,se_nats/);
    expect(table).toHaveLength(1 + 3 * 12);
    expect(readFileSync(at('pair.svg'), 'utf8')).toContain('I(a; word) against the number of samples');
  });

  it('gives the same bytes for any number of threads, and converts corrections with the rest to bits', () => {
    const shared = ['--data', at('rows.csv'), '--columns', 'u,v', '--permutations', '49'];
    expect(run(...shared, '--threads', '1', '--report', at('one.json')).code).toBe(0);
    expect(run(...shared, '--threads', '3', '--report', at('three.json')).code).toBe(0);
    expect(readFileSync(at('three.json'), 'utf8')).toBe(readFileSync(at('one.json'), 'utf8'));
    const counts = ['--data', at('counts.csv'), '--columns', 'symbol', '--counts', 'n', '--support', '5'];
    expect(run(...counts, '--report', at('nats.json')).code).toBe(0);
    expect(run(...counts, '--report', at('bits.json'), '--units', 'bits').code).toBe(0);
    const [nats] = measures(at('nats.json'));
    const [bits] = measures(at('bits.json'));
    expect(readFileSync(at('bits.json'), 'utf8')).not.toMatch(/"\w+_nats"/);
    for (const [i, { estimator, value_nats }] of nats.estimates.entries()) {
      expect(bits.estimates[i].value_bits).toBeCloseTo(value_nats / Math.LN2, 12);
      if (estimator === 'miller-madow') {
        const plugin = nats.estimates[0].value_nats;
        expect(value_nats - plugin).toBeCloseTo(3 / (2 * 21), 12);
      }
    }
    expect(nats.coverage).toBeCloseTo(1 - 1 / 21, 12);
  });

  it('conditions on a third variable and states the interaction', () => {
    const ended = run(
      '--data',
      at('rows.csv'),
      '--x',
      'a',
      '--y',
      'b',
      '--z',
      'c',
      '--permutations',
      '49',
      '--bootstrap',
      '0',
      '--report',
      at('given.json'),
      '--estimator',
      'plugin',
    );
    expect(ended.code).toBe(0);
    const found = new Map(measures(at('given.json')).map((measure) => [measure.measure, measure]));
    const [mi, cmi, interaction] = [
      'mutual_information',
      'conditional_mutual_information',
      'interaction_information',
    ].map((name) => found.get(name)?.value_nats ?? Number.NaN);
    expect(interaction).toBeCloseTo(cmi - mi, 12);
    expect(found.get('conditional_mutual_information')?.test.method).toBe('strata');
  });

  it('measures transfer both ways', () => {
    expect(
      run(
        '--data',
        at('rows.csv'),
        '--x',
        'a',
        '--y',
        'c',
        '--lag',
        '1',
        '--history',
        '1',
        '--permutations',
        '99',
        '--report',
        at('te.json'),
      ).code,
    ).toBe(0);
    const [there, back, storage] = measures(at('te.json'));
    expect([there.of, back.of, storage.measure]).toEqual(['a -> c', 'c -> a', 'active_information']);
    expect(there.test.p_value).toBe(0.01);
    expect(there.value_nats).toBeGreaterThan(0.4);
    expect(back.test.p_value).toBeGreaterThan(0.01);
    expect(there.interval).toBeNull();
  });

  it('compares all pairs of an array with adjusted p values', () => {
    expect(
      run(
        '--data',
        at('m.npy'),
        '--pairs',
        'all',
        '--permutations',
        '49',
        '--out',
        at('pairs.csv'),
        '--report',
        at('pairs.json'),
        '--plot',
        at('pairs.svg'),
      ).code,
    ).toBe(0);
    const [header, row, none] = readFileSync(at('pairs.csv'), 'utf8').trim().split('\n');
    expect(header).toBe(
      'x,y,estimator,value_nats,se_nats,null_mean_nats,excess_nats,z,p_value,p_holm,p_benjamini_hochberg,p_asymptotic,small_cells,test,samples',
    );
    expect(row.split(',').slice(0, 3)).toEqual(['0', '1', 'ksg1']);
    expect(none).toBeUndefined();
    expect(readReport(at('pairs.json'))).toMatchObject({ discoveries: 1, tests: 1, unit: 'nats' });
  });

  it('takes text with numbers by the mixed estimator, and many columns as one variable', () => {
    expect(
      run('--data', at('rows.csv'), '--x', 'word', '--y', 'u,v', '--permutations', '19', '--report', at('mixed.json'))
        .code,
    ).toBe(0);
    expect(measures(at('mixed.json'))[2].estimates.map(({ estimator }) => estimator)).toEqual(['mixed']);
  });

  it('warns of serial rows, and not when they are exchanged as such', () => {
    const lines = Array.from({ length: 200 }, (_, i) => `${Math.floor(i / 20) % 2},${Math.floor(i / 25) % 2}`);
    writeFileSync(at('serial.csv'), `a,b\n${lines.join('\n')}\n`);
    const shared = [
      '--data',
      at('serial.csv'),
      '--columns',
      'a,b',
      '--permutations',
      '49',
      '--bootstrap',
      '49',
      '--no-convergence',
      '--force',
      '--report',
      at('serial.json'),
    ];
    expect(run(...shared).stderr).toMatch(/^warning: rows depend on the row before them: a \(z = [\d.]+\), b/);
    const block = run(...shared, '--block', '40');
    expect(block.stderr).toBe('');
    expect(measures(at('serial.json'))[2]).toMatchObject({
      test: { method: 'block' },
      interval: { method: 'block' },
      convergence: null,
    });
    expect(run(...shared, '--null', 'shift').stderr).toBe('');
  });

  it('plans without reading', () => {
    const ended = run('--data', at('rows.csv'), '--columns', 'a,b', '--dry-run');
    expect(ended.code).toBe(0);
    expect(ended.stdout).toMatch(/permutations a test\s+999/);
  });

  it.each([
    [['--columns', 'wrod'], /did you mean "word"/],
    [['--columns', 'a,b,c,u'], /names 4 variables/],
    [['--columns', 'a,a'], /column "a" is named twice/],
    [[], /has 7 columns; name one to three/],
    [['--y', 'a'], /--y needs --x too/],
    [['--columns', 'a,b', '--support', '3'], /--support names 1 numbers for 2 variables/],
    [['--columns', 'a,b', '--estimator', 'ksg1'], /--estimator ksg1 is for continuous variables/],
    [['--columns', 'u,v', '--estimator', 'nsb'], /give --bins, or --as symbols/],
    [['--columns', 'a,b', '--as', 'numbers'], /lie on 3 others, which .* does not allow.*--jitter/],
    [['--columns', 'a,b', '--null', 'block'], /--null block needs the number of rows/],
    [['--x', 'a', '--y', 'u', '--z', 'v'], /"a" holds symbols, "u" numbers; bin the numbers/],
  ])('refuses %j', (argv, message) => {
    const ended = run('--data', at('rows.csv'), ...argv);
    expect(ended.stderr).toMatch(message);
    expect(ended.stderr.trim().split('\n')).toHaveLength(1);
    expect(ended.code).toBe(2);
  });

  it('ends its process as it does', () => {
    const argv = ['--data', at('rows.csv'), '--columns', 'a,a'];
    expect(surprisal(['analyze-entropy', 'dependence', ...argv])).toEqual(run(...argv));
  });

  it('refuses missing values with their number and first row, constant numbers and lone rows', () => {
    writeFileSync(at('holes.csv'), 'a,b\n1.5,2\nnan,3\n2.5,\ninf,1\n');
    expect(run('--data', at('holes.csv'), '--columns', 'a,b').stderr).toMatch(
      /3 of 4 rows hold NaN, an infinite number or nothing, the first is row 1, column "a" \(nan\)/,
    );
    writeFileSync(at('constant.csv'), 'a,b\n1.5,2.5\n1.5,3\n1.5,4\n1.5,4.5\n1.5,5\n1.5,6\n');
    expect(run('--data', at('constant.csv'), '--columns', 'a,b', '--as', 'numbers').stderr).toMatch(
      /column "a" is constant \(1.5 in all 6 rows\)/,
    );
    writeFileSync(at('lone.csv'), 'a,b\n1,2\n');
    expect(run('--data', at('lone.csv'), '--columns', 'a,b').stderr).toMatch(/has 1 rows; .* at least 2/);
    writeFileSync(at('long.jsonl'), '{"a": "x"}\n{"a": ["list"]}\n');
    expect(run('--data', at('long.jsonl'), '--columns', 'a').code).toBe(0);
  });
});
