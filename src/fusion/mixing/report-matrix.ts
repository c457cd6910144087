import fs from 'node:fs';
import { InputError } from '../../errors.js';
import { fileError } from '../../formats/files.js';

/** The part of a report of `fuse mix` that holds matrices. */
interface RoundsOfReport {
  readonly groups?: readonly string[];
  readonly rounds?: readonly { readonly A: readonly (readonly number[])[] | null }[];
  readonly runs?: readonly { readonly rounds: RoundsOfReport['rounds'] }[];
}

/**
 * The mean of the matrices A over the rounds of a report of `fuse mix`, [k, k], row = evaluated group.
 * @throws InputError for a file that is no such report, holds no matrix, or is of other groups
 */
export function readJsonInput(path: string, groups: readonly string[], note: (path: string) => void): Float64Array {
  const report = parsed(path);
  note(path);
  if (report.groups?.join() !== groups.join()) {
    throw new InputError(
      `${path}: a report of the groups ${report.groups?.join(', ') ?? 'of nothing'}, not of ${groups.join(', ')}`,
    );
  }
  const rounds = report.rounds ?? report.runs?.flatMap((run) => run.rounds ?? []) ?? [];
  const matrices = rounds.flatMap(({ A }) => (A ? [A] : []));
  if (matrices.length === 0) throw new InputError(`${path}: the report holds no matrix A`);
  const k = groups.length;
  const mean = new Float64Array(k * k);
  for (const matrix of matrices) {
    for (let i = 0; i < k; i++) for (let j = 0; j < k; j++) mean[i * k + j] += matrix[i][j] / matrices.length;
  }
  return mean;
}

function parsed(path: string): RoundsOfReport {
  let text: string;
  try {
    text = fs.readFileSync(path, 'utf8');
  } catch (error) {
    throw fileError(error, path, 'read');
  }
  try {
    return JSON.parse(text) as RoundsOfReport;
  } catch {
    throw new InputError(`${path}: not readable as JSON`);
  }
}
