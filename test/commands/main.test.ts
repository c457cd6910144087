import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../formats/collect.js';

const folder = temporaryFolder();

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function surprisal(argv: string[], env: Record<string, string> = {}): Ended {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['bin/surprisal.js', ...argv], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
  });
  return { code: status, stdout, stderr };
}

/** The files that a command line loads, from the coverage that Node writes. */
function loadedFiles(argv: string[]): string[] {
  const coverage = mkdtempSync(join(folder, 'coverage-'));
  surprisal(argv, { NODE_V8_COVERAGE: coverage });
  return readdirSync(coverage).flatMap((name) => {
    const { result } = JSON.parse(readFileSync(join(coverage, name), 'utf8')) as { result: { url: string }[] };
    return result.map(({ url }) => url).filter((url) => url.startsWith('file:'));
  });
}

const file = (name: string, content: string): string => {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
};

const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };

describe('surprisal', { timeout: 30_000 }, () => {
  it.each(['--version', '-V'])('%s prints the version and loads no library', (flag) => {
    expect(surprisal([flag])).toEqual({ code: 0, stdout: `${version}\n`, stderr: '' });
    expect(
      loadedFiles([flag]).filter((url) => url.includes('node_modules') || !/\/(bin|commands)\//.test(url)),
    ).toEqual([]);
  });

  it.each([['--help'], ['-h'], ['help']])('%s lists the commands and loads none of them', (flag) => {
    const { code, stdout, stderr } = surprisal([flag]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    for (const name of ['analyze-entropy', 'doctor', 'merge-reports']) expect(stdout).toContain(name);
    const loaded = loadedFiles([flag]);
    expect(loaded.some((url) => url.includes('/commander/'))).toBe(true);
    const heavy =
      /onnxruntime|observablehq|linkedom|resvg|\/ajv\/|tokenizers|commands\/(doctor|merge-reports|analyze-entropy)/;
    expect(loaded.filter((url) => heavy.test(url))).toEqual([]);
  });

  it.each([
    [[], /^Usage: surprisal/],
    [['docter'], /^error: unknown command 'docter' \(Did you mean doctor\?\)\n$/],
    [['doctor', '--jsn'], /^error: unknown option '--jsn' \(Did you mean --json\?\)\n$/],
    [['doctor', 'extra'], /^error: too many arguments for 'doctor'\..*\n$/],
    [['doctor', '--config', 'none.yaml'], /^error: none\.yaml: cannot read: .*\n$/],
    [['merge-reports'], /^error: nothing to unite; .*\n$/],
    [['merge-reports', '--out'], /^error: option '--out <path>' argument missing\n$/],
    [['merge-reports', 'a.json'], /^error: partial reports and --out belong together\n$/],
    [
      ['merge-reports', 'package.json', '--out', 'package.json'],
      /^error: --out package\.json: is already an input; .*\n$/,
    ],
    [
      ['merge-reports', 'package.json', '--out', 'none/x.json'],
      /^error: none\/x\.json: cannot write: directory none does not exist: make it first\n$/,
    ],
    [
      ['merge-reports', 'package.json', '--out', 'tsconfig.json'],
      /^error: tsconfig\.json: already exists: pass --force .*\n$/,
    ],
    [
      ['merge-reports', 'package.json', '--out', 'united.json'],
      /^error: package\.json: is no report of surprisal .*\n$/,
    ],
    [['merge-reports', 'package.json', '--out', 'united.json', '--assert', 'a <'], /^error: --assert 'a <': .*\n$/],
    [
      ['merge-reports', 'package.json', '--out', 'united.json', '--assert', 'a < baseline.a'],
      /^error: .* name an earlier report with --baseline\n$/,
    ],
  ])('%j is wrong usage: exit 2', (argv, stderr) => {
    expect(surprisal(argv)).toEqual({ code: 2, stdout: '', stderr: expect.stringMatching(stderr) });
    expect(readdirSync('.').filter((name) => name.includes('united'))).toEqual([]);
  });

  it('says how to build what is not built', () => {
    const clone = join(folder, 'clone');
    mkdirSync(join(clone, 'bin'), { recursive: true });
    copyFileSync('bin/surprisal.js', join(clone, 'bin/surprisal.js'));
    writeFileSync(join(clone, 'package.json'), '{"type":"module"}');
    const { status, stderr } = spawnSync(process.execPath, [join(clone, 'bin/surprisal.js'), '--version'], {
      encoding: 'utf8',
    });
    expect([status, stderr]).toEqual([2, 'error: surprisal is not built; run "npm run build" in its folder\n']);
  });
});

describe('doctor', { timeout: 30_000 }, () => {
  it('prints versions, kernels, threads, memory and backends', () => {
    const { code, stdout, stderr } = surprisal(['doctor']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    for (const name of [
      'surprisal',
      'node',
      'kernels',
      'simd',
      'threads',
      'memory',
      'onnxruntime',
      'backends',
      'plotting',
    ]) {
      expect(stdout).toMatch(new RegExp(`^${name} +\\S`, 'm'));
    }
  });

  it('prints the same as JSON, and why there are no native kernels', () => {
    const { code, stdout } = surprisal(['doctor', '--json'], { SURPRISAL_NO_NATIVE: '1', SLURM_CPUS_PER_TASK: '1' });
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      surprisal: version,
      node: process.versions.node,
      kernels: { native: false, simd: 'typescript', reason: 'SURPRISAL_NO_NATIVE=1' },
      threads: { usable: 1 },
      onnxruntime: {
        fault: '',
        backends: expect.arrayContaining([expect.objectContaining({ name: 'cpu', bundled: true })]),
      },
      plotting: { fault: '' },
    });
  });

  it('takes options from --config', () => {
    const config = file('doctor.yaml', 'json: true\n');
    expect(JSON.parse(surprisal(['doctor', '--config', config]).stdout)).toMatchObject({ surprisal: version });
  });
});

describe('merge-reports', { timeout: 30_000 }, () => {
  it('unites tables in document order', () => {
    const a = file('a.csv', 'document,position,token\n0,0,"a,b"\n0,1,c\n3,0,d\n');
    const b = file('b.csv', 'document,position,token\n1,0,e\n2,0,"f""g"\n');
    const c = file('c.csv', 'document,position,token\n');
    const out = join(folder, 'all.csv');
    expect(surprisal(['merge-reports', '--table-parts', b, c, a, '--table-out', out])).toEqual({
      code: 0,
      stdout: '',
      stderr: '',
    });
    expect(readFileSync(out, 'utf8')).toBe('document,position,token\n0,0,"a,b"\n0,1,c\n1,0,e\n2,0,"f""g"\n3,0,d\n');
    const again = surprisal(['merge-reports', '--table-parts', a, b, '--table-out', out]);
    expect(again).toMatchObject({ code: 2, stderr: expect.stringContaining('already exists') });
    const overlap = surprisal([
      'merge-reports',
      '--table-parts',
      a,
      file('d.csv', readFileSync(a, 'utf8')),
      '--table-out',
      out,
      '--force',
    ]);
    expect(overlap).toMatchObject({ code: 2, stderr: expect.stringContaining('both hold document 0') });
    expect(readFileSync(out, 'utf8')).toContain('2,0,"f""g"');
    expect(readdirSync(folder).filter((name) => name.includes('partial'))).toEqual([]);
  });

  it('says which kinds of report unite', () => {
    const part = file('part.json', JSON.stringify({ schema: 'surprisal/nothing' }));
    const { code, stderr } = surprisal(['merge-reports', part, '--out', join(folder, 'm.json')]);
    expect([code, stderr]).toEqual([2, 'error: no schema named "surprisal/nothing" in this version\n']);
  });
});
