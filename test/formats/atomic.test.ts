import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { InputError, RunError } from '../../src/errors.js';
import { abortPendingWrites, createAtomicDirectory, createAtomicFile } from '../../src/formats/atomic.js';
import { fileError } from '../../src/formats/files.js';
import { temporaryDirectory } from './written-elsewhere.js';

const directory = temporaryDirectory();

function fresh(name: string): string {
  const made = path.join(directory, name);
  fs.mkdirSync(made);
  return made;
}

describe('createAtomicFile', () => {
  it('shows the file under its name only after commit', () => {
    const parent = fresh('commit');
    const target = path.join(parent, 'out.csv');
    const file = createAtomicFile(target);
    file.write('naïve\n');
    file.write(Uint8Array.of(65, 66));
    expect(fs.readdirSync(parent)).toEqual([path.basename(file.partialPath)]);
    expect(path.basename(file.partialPath)).toMatch(/^\.out\.csv\.\d+\.\d+\.partial$/);
    expect(file.position).toBe(9);
    file.writeAt(Uint8Array.of(78), 0);
    file.commit();
    expect(fs.readdirSync(parent)).toEqual(['out.csv']);
    expect(fs.readFileSync(target, 'utf8')).toBe('Naïve\nAB');
    file.abort();
    expect(fs.existsSync(target)).toBe(true);
    expect(() => file.write('x')).toThrow(RunError);
  });

  it('refuses an existing target without force, and keeps it until commit with it', () => {
    const target = path.join(fresh('existing'), 'out');
    fs.writeFileSync(target, 'old', { mode: 0o640 });
    expect(() => createAtomicFile(target)).toThrow(InputError);
    expect(() => createAtomicFile(target)).toThrow(/already exists: pass --force/);
    const file = createAtomicFile(target, { force: true });
    file.write('new');
    expect(fs.readFileSync(target, 'utf8')).toBe('old');
    file.commit();
    expect(fs.readFileSync(target, 'utf8')).toBe('new');
    expect(fs.statSync(target).mode & 0o777).toBe(0o640);
  });

  it('refuses a target that appeared meanwhile', () => {
    const target = path.join(fresh('race'), 'out');
    const file = createAtomicFile(target);
    fs.writeFileSync(target, 'theirs');
    expect(() => file.commit()).toThrow(/already exists/);
    file.abort();
    expect(fs.readFileSync(target, 'utf8')).toBe('theirs');
    expect(fs.readdirSync(path.dirname(target))).toEqual(['out']);
  });

  it('refuses directories, missing parents and parents that are files', () => {
    const parent = fresh('refused');
    expect(() => createAtomicFile(parent)).toThrow(/is a directory/);
    expect(() => createAtomicFile(path.join(parent, 'no/out'))).toThrow(/does not exist: make it first/);
    fs.writeFileSync(path.join(parent, 'plain'), '');
    expect(() => createAtomicFile(path.join(parent, 'plain/out'))).toThrow(InputError);
    expect(() => createAtomicFile(path.join(parent, 'x'.repeat(300)))).toThrow(/name is too long/);
  });

  it.skipIf(process.getuid?.() === 0)('refuses a directory that is not writable', () => {
    const parent = fresh('readonly');
    fs.chmodSync(parent, 0o500);
    expect(() => createAtomicFile(path.join(parent, 'out'))).toThrow(/permission denied/);
    fs.chmodSync(parent, 0o700);
  });

  it('replaces what a symbolic link names and keeps the link', () => {
    const parent = fresh('link');
    fs.writeFileSync(path.join(parent, 'real'), 'old');
    fs.symlinkSync('real', path.join(parent, 'link'));
    const file = createAtomicFile(path.join(parent, 'link'), { force: true });
    file.write('new');
    file.commit();
    expect(fs.lstatSync(path.join(parent, 'link')).isSymbolicLink()).toBe(true);
    expect(fs.readFileSync(path.join(parent, 'real'), 'utf8')).toBe('new');
  });

  it('writes straight to a device, and tells of a full one as a RunError', () => {
    const file = createAtomicFile('/dev/null');
    file.write('gone');
    file.commit();
    expect(fs.statSync('/dev/null').isCharacterDevice()).toBe(true);
    if (!fs.existsSync('/dev/full')) return;
    const full = createAtomicFile('/dev/full');
    expect(() => full.write('x')).toThrow(RunError);
    expect(() => full.write('x')).toThrow(/no space left/);
    full.abort();
  });

  it('removes everything pending at once, except what can be resumed', () => {
    const parent = fresh('abort');
    createAtomicFile(path.join(parent, 'a')).write('x');
    createAtomicFile(path.join(parent, 'b')).finish();
    createAtomicDirectory(path.join(parent, 'c'));
    createAtomicFile(path.join(parent, 'd'), { resumable: true }).write('kept');
    abortPendingWrites();
    expect(fs.readdirSync(parent)).toEqual([expect.stringMatching(/^\.d\..*\.partial$/)]);
    const again = createAtomicFile(path.join(parent, 'd'), { resumable: true, resume: true });
    expect(again.resumedBytes).toBe(4);
    again.truncate(2);
    again.write('pt');
    again.commit();
    expect(fs.readdirSync(parent)).toEqual(['d']);
    expect(fs.readFileSync(path.join(parent, 'd'), 'utf8')).toBe('kept');
  });

  it('does not take over what a living process writes', () => {
    const parent = fresh('living');
    fs.writeFileSync(path.join(parent, `.d.${process.ppid}.0.partial`), 'theirs');
    const mine = createAtomicFile(path.join(parent, 'd'), { resumable: true });
    const other = createAtomicFile(path.join(parent, 'd'), { resumable: true, resume: true });
    expect(other.resumedBytes).toBe(0);
    mine.abort();
    other.abort();
  });
});

describe('createAtomicDirectory', () => {
  it('appears whole, replaces with force, and cleans up', () => {
    const parent = fresh('directory');
    const target = path.join(parent, 'model');
    const fill = (text: string, options = {}): ReturnType<typeof createAtomicDirectory> => {
      const made = createAtomicDirectory(target, options);
      fs.mkdirSync(path.join(made.path, 'sub'));
      fs.writeFileSync(path.join(made.path, 'sub/weights'), text);
      const manifest = createAtomicFile(path.join(made.path, 'manifest.json'));
      manifest.write('{}');
      manifest.commit();
      return made;
    };
    const first = fill('one');
    expect(fs.existsSync(target)).toBe(false);
    first.commit();
    expect(fs.readdirSync(target)).toEqual(['manifest.json', 'sub']);
    expect(() => createAtomicDirectory(target)).toThrow(/already exists: pass --force/);
    fill('two', { force: true }).abort();
    expect(fs.readFileSync(path.join(target, 'sub/weights'), 'utf8')).toBe('one');
    fill('three', { force: true }).commit();
    expect(fs.readFileSync(path.join(target, 'sub/weights'), 'utf8')).toBe('three');
    expect(fs.readdirSync(parent)).toEqual(['model']);
  });

  it('resumes a leftover', () => {
    const target = path.join(fresh('resume-directory'), 'model');
    const first = createAtomicDirectory(target, { resumable: true });
    fs.writeFileSync(path.join(first.path, 'part-1'), 'done');
    abortPendingWrites();
    const second = createAtomicDirectory(target, { resumable: true, resume: true });
    expect(second.resumed).toBe(true);
    second.commit();
    expect(fs.readdirSync(target)).toEqual(['part-1']);
  });

  it('fills an empty directory and refuses a file', () => {
    const parent = fresh('empty-directory');
    const target = path.join(parent, 'out');
    fs.mkdirSync(target);
    createAtomicDirectory(`${target}/`).commit();
    expect(fs.readdirSync(parent)).toEqual(['out']);
    fs.writeFileSync(path.join(parent, 'file'), '');
    expect(() => createAtomicDirectory(path.join(parent, 'file'), { force: true })).toThrow(/not a directory/);
  });
});

describe('fileError', () => {
  const system = (code: string): Error => Object.assign(new Error(code), { code });

  it('tells wrong input from what a retry may mend', () => {
    for (const code of ['ENOSPC', 'EDQUOT', 'EIO', 'ENOMEM', 'EMFILE'])
      expect(fileError(system(code), 'p', 'write')).toBeInstanceOf(RunError);
    for (const code of ['EACCES', 'ENOENT', 'EROFS', 'ENOTDIR'])
      expect(fileError(system(code), 'p', 'write')).toBeInstanceOf(InputError);
    expect(fileError(system('ENOSPC'), 'p', 'write')).toHaveProperty(
      'message',
      expect.stringContaining('p: cannot write'),
    );
  });

  it('leaves a closed pipe and foreign errors alone', () => {
    const pipe = system('EPIPE');
    expect(fileError(pipe, 'p', 'write')).toBe(pipe);
    const range = new RangeError('x');
    expect(fileError(range, 'p', 'write')).toBe(range);
  });
});
