import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { digests } from './digests.js';

const root = fileURLToPath(new URL('../../../', import.meta.url));

/** The plots compiled into a folder of their own, so that a second process can draw them. */
function compile(folder: string): string {
  const source = join(root, 'test/report/plots/digests.ts');
  const flags = ['--ignoreConfig', '--rootDir', root, '--outDir', folder, '--module', 'NodeNext', '--target', 'ES2022'];
  const types = [
    '--lib',
    'ES2023',
    '--types',
    'node',
    '--typeRoots',
    join(root, 'node_modules/@types'),
    '--skipLibCheck',
  ];
  execFileSync(process.execPath, [
    join(root, 'node_modules/typescript/bin/tsc'),
    ...flags,
    ...types,
    '--strict',
    source,
  ]);
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
  return join(folder, 'test/report/plots/digests.js');
}

describe('bytes of plot files', () => {
  it('are equal within a process, in another process, locale and time zone, and in any order', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'plots-'));
    try {
      const here = await digests();
      const module = JSON.stringify(compile(folder));
      const draw = `const { digests } = await import(${module}); console.log((await digests(${'NAMES'})).join('\\n'));`;
      const names = [...new Set(here.map((line) => line.replace(/^\w+ /, '').replace(/\.\w+$/, '')))].reverse();
      const there = execFileSync(
        process.execPath,
        ['--input-type=module', '-e', draw.replace('NAMES', JSON.stringify(names))],
        { env: { ...process.env, TZ: 'Asia/Tokyo', LC_ALL: 'de_DE.UTF-8', LANG: 'de_DE.UTF-8' }, encoding: 'utf8' },
      );
      expect(there.trim().split('\n').sort()).toEqual([...here].sort());
      expect((await digests()).join('\n')).toBe(here.join('\n'));
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }, 60_000);
});

describe('start-up', () => {
  it('loads neither Plot nor the DOM nor the rasteriser before a figure is drawn', () => {
    const folder = join(root, 'src/report/plots');
    const heavy = /^import (?!type\b)[^;]*from '(@observablehq\/plot|linkedom|@resvg\/resvg-js)'/m;
    for (const file of readdirSync(folder)) expect(readFileSync(join(folder, file), 'utf8'), file).not.toMatch(heavy);
  });
});
