import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openOutputs } from '../../commands/edge-outputs.js';
import { temporaryFolder } from '../formats/collect.js';

const folder = temporaryFolder();
const at = (name: string): string => join(folder, name);

describe('openOutputs', () => {
  it('gives all outputs their names together', () => {
    const outputs = openOutputs([], {});
    const table = outputs.table('--out', at('rows.csv'), ['a', 'b']);
    const report = outputs.file('--report', at('report.json'));
    expect(outputs.file('--plot', undefined)).toBeUndefined();
    table?.write([1, 'x']);
    report?.write('{}\n');
    expect(readdirSync(folder).filter((name) => !name.startsWith('.'))).toEqual([]);
    outputs.commit();
    expect(readFileSync(at('rows.csv'), 'utf8')).toBe('a,b\n1,x\n');
    expect(readFileSync(at('report.json'), 'utf8')).toBe('{}\n');
    expect(readdirSync(folder)).toHaveLength(2);
  });

  it.runIf(process.platform === 'linux')('leaves nothing when one of them cannot be completed', () => {
    const outputs = openOutputs([], {});
    outputs.file('--report', at('first.json'))?.write('{}');
    outputs.table('--out', at('second.csv'), ['a'])?.write([1]);
    outputs.table('--table', '/dev/full', ['a'], 'csv')?.write([1]);
    expect(() => outputs.commit()).toThrow(/no space left/);
    outputs.abort();
    expect(readdirSync(folder).filter((name) => /first|second/.test(name))).toEqual([]);
  });

  it('refuses one path for two outputs, and an input as an output, whatever the spelling', () => {
    const input = at('data.jsonl');
    writeFileSync(input, '{}\n');
    symlinkSync(input, at('link.jsonl'));
    const outputs = openOutputs([input, '-'], { force: true });
    expect(() => outputs.file('--out', join(folder, '.', 'data.jsonl'))).toThrow(/--out .*: is already an input/);
    expect(() => outputs.file('--out', at('link.jsonl'))).toThrow(/is already an input/);
    outputs.file('--out', at('x.json'));
    mkdirSync(at('sub'));
    expect(() => outputs.file('--report', join(folder, 'sub', '..', 'x.json'))).toThrow(
      /is already the output of --out/,
    );
    outputs.file('--report', '/dev/null');
    outputs.file('--plot', '/dev/null');
    outputs.abort();
    expect(existsSync(at('x.json'))).toBe(false);
  });

  it('refuses what would replace an input or an output, or a directory that holds one', () => {
    mkdirSync(at('inputs'));
    writeFileSync(join(at('inputs'), 'dump.jsonl'), '{}\n');
    const outputs = openOutputs([join(at('inputs'), 'dump.jsonl')], { force: true });
    outputs.file('--report', at('r.json'));
    expect(() => outputs.claim('--weights', join(at('inputs'), 'dump.jsonl'))).toThrow(/is already an input/);
    expect(() => outputs.claim('--weights', at('inputs'))).toThrow(
      /--weights .*inputs: would replace .*dump.jsonl, which is an input/,
    );
    expect(() => outputs.claim('--weights', at('r.json'))).toThrow(/is already the output of --report/);
    outputs.claim('--weights', at('fresh'));
    outputs.abort();
  });

  it('refuses what is there, unless forced', () => {
    writeFileSync(at('old.csv'), 'old\n');
    expect(() => openOutputs([], {}).table('--out', at('old.csv'), ['a'])).toThrow(/already exists: pass --force/);
    const outputs = openOutputs([], { force: true });
    outputs.table('--out', at('old.csv'), ['new']);
    expect(readFileSync(at('old.csv'), 'utf8')).toBe('old\n');
    outputs.commit();
    expect(readFileSync(at('old.csv'), 'utf8')).toBe('new\n');
  });
});
