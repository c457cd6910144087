import { existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseMergeDocuments } from '../../../src/fusion/merge/config-document.js';
import { checkBeside, checkPlaces, claimWorkFolder, targetOf } from '../../../src/fusion/merge/merge-places.js';
import { temporaryFolder } from '../../formats/collect.js';

const directory = temporaryFolder();
const at = (...names: string[]): string => join(directory, ...names);

const documentsNamed = (...names: string[]) =>
  parseMergeDocuments(
    [...names.map((name) => `name: ${name}\n`), '']
      .map((name) => `${name}merge_method: linear\nmodels: [{ model: a, parameters: { weight: 1 } }]\n`)
      .join('---\n'),
    'c.yml',
  );

describe('places of a merge', () => {
  mkdirSync(at('models', 'a'), { recursive: true });
  mkdirSync(at('full'));
  mkdirSync(at('empty'));
  writeFileSync(at('full', 'x'), '');
  writeFileSync(at('file'), '');
  symlinkSync('models', at('link'));
  const read = [{ what: 'the model a', path: at('models', 'a') }];
  const check =
    (out: string, names: string[] = [], intermediate?: string, force = true) =>
    () =>
      checkPlaces(documentsNamed(...names), { out, ...(intermediate !== undefined && { intermediate }) }, read, {
        force,
        resume: false,
      });

  it('never puts a result in the place of what is read, even with --force', () => {
    expect(check(at('models', 'a'))).toThrow(/is the model a, which would be damaged/);
    expect(check(at('models'))).toThrow(/holds the model a/);
    expect(check(at('link'))).toThrow(/holds the model a/);
    expect(check(at('link', 'a', 'new', 'deep'))).toThrow(/lies in the model a/);
    expect(check(at('models', 'ab'))).not.toThrow();
    expect(check(at('out'), ['a'], at('models'))).toThrow(/is the model a/);
    expect(check(at('out'), ['one'], at('out'))).toThrow(/out: holds .*one, which is also written/);
    expect(check(at('out'), ['one'])).not.toThrow();
  });

  it('wants names of documents that are folders, and outputs that may be replaced', () => {
    for (const name of ['../up', '/root', 'a/b', '.hidden', '..'])
      expect(check(at('out'), [`"${name}"`])).toThrow(/c\.yml:1:1: .*folder of a result/);
    expect(check(at('file'))).toThrow(/is not a directory/);
    expect(check(at('full'), [], undefined, false)).toThrow(/exists; pass --force/);
    expect(check(at('empty'), [], undefined, false)).not.toThrow();
    expect(check('')).toThrow(/empty name/);
    expect(() => checkBeside('--report', at('full', 'r.json'), at('full'))).toThrow(/--report .*lies in/);
    expect(() => checkBeside('--report', at('full.json'), at('full'))).not.toThrow();
  });

  it('keeps the work of one run at a time beside the output', () => {
    const [first, last] = documentsNamed('one');
    expect(targetOf(last, [first, last], { out: at('o') })).toBe(at('o'));
    expect(targetOf(first, [first, last], { out: at('o') })).toBe(at('.o.work', 'one'));
    const work = claimWorkFolder(at('o'), false);
    work.leave();
    expect(existsSync(at('.o.work'))).toBe(false);
    claimWorkFolder(at('o'), false);
    writeFileSync(at('.o.work', 'kept'), '');
    claimWorkFolder(at('o'), true).leave();
    expect(readdirSync(at('.o.work'))).toEqual(['kept']);
    // The parent of this process lives as long as this test.
    writeFileSync(at('.o.work', '.process'), String(process.ppid));
    expect(() => claimWorkFolder(at('o'), true)).toThrow(new RegExp(`process ${process.ppid} is writing it`));
    writeFileSync(at('.o.work', '.process'), '999999999');
    claimWorkFolder(at('o'), false).remove();
    expect(existsSync(at('.o.work'))).toBe(false);
  });
});
