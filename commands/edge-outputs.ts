import { realpathSync, statSync } from 'node:fs';
import { basename, dirname, join, resolve, sep } from 'node:path';
import { InputError } from '../src/errors.js';
import { type AtomicFile, type AtomicOptions, createAtomicFile } from '../src/formats/atomic.js';
import { createTable, type TablePosition, type TableWriter } from '../src/report/csv.js';
import type { TableFormat } from '../src/report/table-format.js';

/** The outputs of one run. All are opened, and so checked, before the long work; all appear together at its end. */
export interface Outputs {
  /** Opens `path` for the option `flag`; undefined when the option was not given. */
  file(flag: string, path: string | undefined): AtomicFile | undefined;
  /** The same for a table; with `resumeFrom` it survives a kill and is taken up there. */
  table(
    flag: string,
    path: string | undefined,
    columns: readonly string[],
    format?: TableFormat,
    resumeFrom?: TablePosition,
  ): TableWriter | undefined;
  /**
   * Takes a path that the run writes by itself: a file, or a directory that is replaced as a whole, in which there must
   * then be no input and no other output.
   */
  claim(flag: string, path: string): void;
  /** Takes over what the run has written by itself: it appears, or is removed, together with the others. */
  join(output: OwnOutput): void;
  /** Completes all outputs, then gives them their names. When one cannot be completed, none appears. */
  commit(): void;
  abort(): void;
}

/** A file or directory that a run writes by itself, complete but for its name. */
export type OwnOutput = Pick<AtomicFile, 'commit' | 'abort'>;

/** The real place of a path whose last part may not exist yet. */
function placeOf(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    try {
      return join(realpathSync(dirname(path)), basename(path));
    } catch {
      return resolve(path);
    }
  }
}

/** Pipes and devices may serve several options at once. */
function isSpecial(path: string): boolean {
  const info = statSync(path, { throwIfNoEntry: false });
  return info !== undefined && !info.isFile() && !info.isDirectory();
}

/**
 * @param inputs files that the run reads: none of them may be an output
 * @param options what `--force` and `--resume` say
 */
export function openOutputs(inputs: readonly string[], options: AtomicOptions): Outputs {
  const taken = new Map<string, string>(
    inputs.filter((path) => path !== '-').map((path) => [placeOf(path), 'an input']),
  );
  const tables: TableWriter[] = [];
  const files: AtomicFile[] = [];
  const own: OwnOutput[] = [];
  const claim = (flag: string, path: string): void => {
    if (isSpecial(path)) return;
    const place = placeOf(path);
    const owner = taken.get(place);
    if (owner !== undefined) throw new InputError(`${flag} ${path}: is already ${owner}; choose another path`);
    const within = [...taken].find(([other]) => other.startsWith(place + sep));
    if (within !== undefined)
      throw new InputError(`${flag} ${path}: would replace ${within[0]}, which is ${within[1]}; choose another path`);
    taken.set(place, `the output of ${flag}`);
  };
  return {
    claim,
    join(output) {
      own.push(output);
    },
    file(flag, path) {
      if (path === undefined) return undefined;
      claim(flag, path);
      const file = createAtomicFile(path, options);
      files.push(file);
      return file;
    },
    table(flag, path, columns, format, resumeFrom) {
      if (path === undefined) return undefined;
      claim(flag, path);
      const table = createTable(path, columns, {
        ...options,
        format,
        ...(resumeFrom && { from: resumeFrom, resumable: true }),
      });
      tables.push(table);
      files.push(table.file);
      return table;
    },
    commit() {
      for (const table of tables) table.finish();
      for (const file of files) file.finish();
      for (const output of [...own, ...files]) output.commit();
    },
    abort() {
      for (const output of [...own, ...files]) output.abort();
    },
  };
}
