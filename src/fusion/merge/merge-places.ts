import fs from 'node:fs';
import path from 'node:path';
import { InputError } from '../../errors.js';
import { isAlive } from '../../formats/atomic.js';
import { fileError } from '../../formats/files.js';
import type { MergeDocument } from './document.js';

/** Where the documents of a configuration go. */
export interface MergePlaces {
  readonly out: string;
  /** Where named documents of a configuration of several go; beside `out` and removed at the end when absent. */
  readonly intermediate?: string;
}

const workFolderOf = (out: string): string => path.join(path.dirname(path.resolve(out)), `.${path.basename(out)}.work`);

/** The folder of named documents. */
const stagesOf = ({ out, intermediate }: MergePlaces): string => intermediate ?? workFolderOf(out);

/** The document without a name, else the last one, is the output; others are stages. */
export function targetOf(document: MergeDocument, documents: readonly MergeDocument[], places: MergePlaces): string {
  const output = documents.find(({ name }) => name === undefined) ?? documents.at(-1);
  return document === output ? places.out : path.join(stagesOf(places), document.name ?? '');
}

/** What a run reads: a directory or file, and what it is called in messages. */
export interface ReadPlace {
  readonly what: string;
  readonly path: string;
}

/**
 * Checks before any work that what is written destroys nothing that is read, also with `--force`.
 * @param read models, adapters, configuration and texts
 * @throws InputError for a name of a document that is no folder name, and for a directory to write that is, holds or lies in
 * something that is read or another directory to write
 */
export function checkPlaces(
  documents: readonly MergeDocument[],
  places: MergePlaces,
  read: readonly ReadPlace[],
  replace: { readonly force: boolean; readonly resume: boolean },
): void {
  for (const { name, place } of documents)
    if (name !== undefined && !/^[^./\\][^/\\]*$/.test(name))
      throw new InputError(
        `${place}: "name: ${name}" is the folder of a result: choose a name without slashes that begins with no dot`,
      );
  checkReplaced(places.out, replace);
  const taken = read.map(({ what, path: file }) => ({ what, place: realPlace(file) }));
  for (const document of documents) {
    const target = targetOf(document, documents, places);
    const place = realPlace(target);
    for (const other of taken) {
      const how = relation(place, other.place);
      if (how !== undefined)
        throw new InputError(`${target}: ${how} ${other.what}, which would be damaged: choose another path to write`);
    }
    taken.push({ what: `${target}, which is also written`, place });
  }
}

/** @throws InputError for a path that is there and may not be replaced */
function checkReplaced(out: string, { force, resume }: { readonly force: boolean; readonly resume: boolean }): void {
  if (out === '') throw new InputError('the directory to write has an empty name');
  const found = fs.statSync(out, { throwIfNoEntry: false });
  if (found !== undefined && !found.isDirectory())
    throw new InputError(`${out}: exists and is not a directory: choose another path`);
  if (found !== undefined && fs.readdirSync(out).length > 0 && !force && !resume)
    throw new InputError(`${out}: exists; pass --force to replace it, --resume to continue it, or choose another path`);
}

/** @throws InputError when a file beside the merge is or lies in the directory that the merge puts in its place as a whole */
export function checkBeside(flag: string, file: string | undefined, out: string): void {
  const how = file === undefined ? undefined : relation(realPlace(file), realPlace(out));
  if (how === 'is' || how === 'lies in')
    throw new InputError(`${flag} ${file}: ${how} ${out}, which is written as a whole; choose another path`);
}

function relation(written: string, other: string): 'is' | 'lies in' | 'holds' | undefined {
  if (written === other) return 'is';
  if (written.startsWith(asFolder(other))) return 'lies in';
  return other.startsWith(asFolder(written)) ? 'holds' : undefined;
}

const asFolder = (place: string): string => (place.endsWith(path.sep) ? place : place + path.sep);

/** The real place of a path of which the last parts may not exist yet. */
function realPlace(file: string): string {
  const place = path.resolve(file);
  try {
    return fs.realpathSync(place);
  } catch {
    const parent = path.dirname(place);
    return parent === place ? place : path.join(realPlace(parent), path.basename(place));
  }
}

const OWNER_FILE = '.process';

/** A folder beside the output for what a run keeps until its end, taken by this process. */
export interface WorkFolder {
  readonly path: string;
  /** The output is there. */
  remove(): void;
  /** The run has ended: after a failure, what a run that resumes can use stays. */
  leave(): void;
}

/**
 * Takes the folder of stages and searched candidates beside `out`; it is empty unless the run resumes.
 * @throws InputError while another process writes the same output
 */
export function claimWorkFolder(out: string, resume: boolean): WorkFolder {
  const folder = workFolderOf(out);
  const file = path.join(folder, OWNER_FILE);
  try {
    fs.mkdirSync(folder, { recursive: true });
    const owner = takeOwnership(file);
    if (owner !== undefined)
      throw new InputError(
        `${out}: process ${owner} is writing it (${folder}): wait for it, choose another path, or ` +
          'remove that folder if the process is another program',
      );
    if (!resume)
      for (const name of fs.readdirSync(folder))
        if (name !== OWNER_FILE) fs.rmSync(path.join(folder, name), { recursive: true, force: true });
  } catch (error) {
    throw fileError(error, out, 'write');
  }
  const remove = (): void => fs.rmSync(folder, { recursive: true, force: true });
  return {
    path: folder,
    remove,
    leave(): void {
      if (!fs.existsSync(folder)) return;
      if (fs.readdirSync(folder).every((name) => name === OWNER_FILE)) remove();
      else fs.rmSync(file, { force: true });
    },
  };
}

/** Writes this process into `file`. @returns the living process that stands there already */
function takeOwnership(file: string): number | undefined {
  try {
    fs.writeFileSync(file, String(process.pid), { flag: 'wx' });
    return undefined;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  const owner = Number(fs.readFileSync(file, 'utf8'));
  if (owner > 0 && owner !== process.pid && isAlive(owner)) return owner;
  fs.writeFileSync(file, String(process.pid));
  return undefined;
}
