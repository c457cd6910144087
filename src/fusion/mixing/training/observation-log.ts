import fs from 'node:fs';
import { fileError } from '../../../formats/files.js';
import type { Observation } from './course.js';

/** Observations of a run, one JSON a line, in a file that grows with it. */
export interface ObservationLog {
  /** What a run measured up to the step at which it goes on. */
  readonly past: readonly Observation[];
  append(observation: Observation): void;
  close(): void;
}

/**
 * Opens the log of a run; lines behind step `resumeAt` are cut away, since the steps that led to them are made again. What a
 * checkpoint does not hold, the state of the method and its place in the data, follows from these lines.
 * @throws RunError when it cannot be read or written
 */
export function openObservationLog(path: string, resumeAt: number | undefined): ObservationLog {
  const past: Observation[] = [];
  let kept = '';
  try {
    if (resumeAt !== undefined && fs.existsSync(path)) {
      for (const text of fs.readFileSync(path, 'utf8').split('\n')) {
        const observation = parsed(text);
        if (observation === undefined || observation.step > resumeAt) break;
        past.push(observation);
        kept += `${text}\n`;
      }
    }
    fs.writeFileSync(path, kept);
  } catch (error) {
    throw fileError(error, path, 'write');
  }
  const fd = fs.openSync(path, 'a');
  return {
    past,
    append(observation) {
      try {
        fs.writeSync(fd, `${JSON.stringify(observation)}\n`);
      } catch (error) {
        throw fileError(error, path, 'write');
      }
    },
    close() {
      fs.fsyncSync(fd);
      fs.closeSync(fd);
    },
  };
}

/** A line that a kill cut off is none. */
function parsed(text: string): Observation | undefined {
  try {
    return JSON.parse(text) as Observation;
  } catch {
    return undefined;
  }
}
