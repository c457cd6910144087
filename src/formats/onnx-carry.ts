import { constants, copyFileSync, existsSync, linkSync, realpathSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { InputError, RunError } from '../errors.js';
import { createAtomicFile } from './atomic.js';

export const CARRY_MODES = ['copy', 'link', 'leave'] as const;
/** How files of weights come to a graph that is written into another directory. */
export type CarryMode = (typeof CARRY_MODES)[number];

/**
 * Brings the weights of the graph `source` beside the graph `target`. Nothing is done where both lie in one directory. A
 * copy shares its blocks with the original on file systems that can. Files of the same size that are there are kept.
 * @returns the files that were made
 * @throws InputError when a file is missing, or beyond the directory itself; RunError when it cannot be made
 */
export function carryExternalData(
  locations: readonly string[],
  source: string,
  target: string,
  mode: CarryMode,
): string[] {
  const from = dirname(source);
  const to = dirname(target);
  if (mode === 'leave' || realpathSync(from) === realpathSync(to)) return [];
  const made: string[] = [];
  for (const location of locations) {
    const original = join(from, location);
    if (!existsSync(original)) throw new InputError(`${original}: the weights of ${source} are missing`);
    const place = join(to, location);
    if (existsSync(place)) {
      if (statSync(place).size === statSync(original).size) continue;
      throw new InputError(
        `${place}: is there and is not the weights of ${source}; write the graph to another directory`,
      );
    }
    if (!existsSync(dirname(place))) {
      throw new InputError(`${place}: its directory does not exist; make it first`);
    }
    carry(original, place, mode);
    made.push(place);
  }
  return made;
}

function carry(original: string, place: string, mode: CarryMode): void {
  try {
    if (mode === 'link') {
      linkSync(realpathSync(original), place);
      return;
    }
    const file = createAtomicFile(place);
    copyFileSync(original, file.partialPath, constants.COPYFILE_FICLONE);
    file.commit();
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code ?? (error as Error).message;
    throw new RunError(`${place}: the weights could not be brought there (${reason}); choose another --external-data`);
  }
}
