import { spawn } from 'node:child_process';
import { InputError, RunError } from '../src/errors.js';
import { isingLattice, isingScore, rosenbrockScore } from '../src/optimization/scores.js';
import { type SearchSpace, type SearchVariable, searchSpace } from '../src/optimization/search-space.js';

/** A space and what scores its points, [count, d] row-major. */
export interface ScoreSource {
  readonly name: string;
  readonly variables: readonly SearchVariable[];
  readonly space: SearchSpace;
  score(points: Float64Array, count: number): Promise<Float64Array>;
}

/** Options of scores as commander gives them. */
export interface ScoreOptions {
  readonly dimensions?: number;
  readonly glassSeed?: number;
  readonly variables: readonly string[];
  readonly components: number;
}

export const SCORE_NAMES = ['zeta', 'rosenbrock', 'ising', 'command:...'] as const;

/**
 * A variable as the command line writes it: `x=-2:2`, `rate=1e-4:1:log`, `layer=4|8|12`, `centred=flag`, `wait=exp:0.25`.
 * Throws InputError.
 */
export function parseVariable(text: string): SearchVariable {
  const match = /^([^=\s]+)=(.+)$/.exec(text);
  const [name, domain] = [match?.[1] ?? '', match?.[2] ?? ''];
  if (domain === 'flag') return { name, kind: 'flag' };
  if (domain.includes('|')) {
    const values = domain
      .split('|')
      .map((value) => (value.trim() !== '' && Number.isFinite(Number(value)) ? Number(value) : value));
    return { name, kind: 'choice', values };
  }
  const exponential = /^exp:(.+)$/.exec(domain);
  if (exponential) return { name, kind: 'exponential', mean: Number(exponential[1]) };
  const parts = domain.split(':');
  const [low, high] = parts.map(Number);
  const scale = parts[2];
  if (match && parts.length >= 2 && parts.length <= 3 && low < high && (scale === undefined || scale === 'log')) {
    return { name, kind: 'continuous', low, high, ...(scale === 'log' && { scale }) };
  }
  throw new InputError(
    `--variable ${text}: name=low:high, name=low:high:log, name=a|b|c, name=flag or name=exp:mean is needed`,
  );
}

const eachPoint =
  (score: (x: Float64Array) => number) =>
  async (points: Float64Array, count: number): Promise<Float64Array> => {
    const dimension = points.length / count;
    return Float64Array.from({ length: count }, (_, i) => score(points.subarray(i * dimension, (i + 1) * dimension)));
  };

/** The score of a name other than zeta. Throws InputError for options that do not belong to it. */
export function openScore(name: string, options: ScoreOptions): ScoreSource {
  const { components } = options;
  if (name.startsWith('command:')) {
    const words = name.slice('command:'.length).trim();
    if (words === '') throw new InputError('--score command: needs a command line');
    if (options.variables.length === 0) throw new InputError(`--score ${name} needs at least one --variable`);
    refuse(options, ['dimensions', 'glassSeed'], name);
    const variables = options.variables.map(parseVariable);
    const space = searchSpace(variables, components);
    return { name, variables, space, score: (points, count) => externalScores(words, space, points, count) };
  }
  if (options.variables.length > 0) throw new InputError(`--variable belongs to --score command:..., not to ${name}`);
  if (name === 'rosenbrock') {
    refuse(options, ['glassSeed'], name);
    const count = options.dimensions ?? 2;
    if (count < 2) throw new InputError('--dimensions of rosenbrock: at least 2 are needed');
    const variables = numbered(
      count,
      (label): SearchVariable => ({ name: label, kind: 'continuous', low: -2, high: 2 }),
    );
    return { name, variables, space: searchSpace(variables, components), score: eachPoint(rosenbrockScore) };
  }
  const side = options.dimensions ?? 6;
  if (side < 3) throw new InputError('--dimensions of ising is the side of the lattice: at least 3');
  const lattice = isingLattice(side, options.glassSeed);
  const variables = numbered(side * side, (label): SearchVariable => ({ name: label, kind: 'flag' }));
  return {
    name,
    variables,
    space: searchSpace(variables, components),
    score: eachPoint((x) => isingScore(lattice, x)),
  };
}

const numbered = (count: number, make: (name: string) => SearchVariable): SearchVariable[] =>
  Array.from({ length: count }, (_, i) => make(`x${i + 1}`));

function refuse(options: ScoreOptions, names: readonly ('dimensions' | 'glassSeed')[], score: string): void {
  for (const name of names) {
    if (options[name] === undefined) continue;
    const flag = name === 'dimensions' ? '--dimensions' : '--glass';
    throw new InputError(`${flag} does not belong to --score ${score}`);
  }
}

/**
 * Scores of another program: it is started once a batch, reads one JSON object a line (the variables by name) from standard input to its
 * end and writes one number a line. Throws InputError for an answer that is not that, RunError where it fails.
 */
async function externalScores(
  words: string,
  space: SearchSpace,
  points: Float64Array,
  count: number,
): Promise<Float64Array> {
  const dimension = points.length / count;
  const lines = Array.from({ length: count }, (_, i) =>
    JSON.stringify(space.assignment(points.subarray(i * dimension, (i + 1) * dimension))),
  );
  const answer = await runProgram(words, `${lines.join('\n')}\n`);
  const rows = answer.trim() === '' ? [] : answer.trim().split(/\r?\n/);
  if (rows.length !== count) throw new InputError(`--score: "${words}" wrote ${rows.length} lines for ${count} points`);
  return Float64Array.from(rows, (row, i) => {
    const text = row.trim().toLowerCase();
    const value = text === '-inf' ? Number.NEGATIVE_INFINITY : text === 'inf' ? Number.POSITIVE_INFINITY : Number(text);
    if (text === 'nan' || (text !== '' && !Number.isNaN(value))) return value;
    throw new InputError(`--score: line ${i + 1} of "${words}" is no number: ${row.slice(0, 60)}`);
  });
}

function runProgram(words: string, input: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(words, { shell: true, stdio: ['pipe', 'pipe', 'pipe'] });
    const output: Buffer[] = [];
    let complaint = '';
    child.stdout.on('data', (chunk: Buffer) => output.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => {
      complaint = (complaint + chunk.toString()).slice(-400);
    });
    child.on('error', (error) => reject(new RunError(`--score: "${words}" did not start: ${error.message}`)));
    child.on('close', (code) => {
      if (code === 0) resolve(Buffer.concat(output).toString('utf8'));
      else
        reject(
          new RunError(`--score: "${words}" ended with code ${code}: ${complaint.trim().split('\n').pop() ?? ''}`),
        );
    });
    // A program that does not read to the end closes its input; its answer says the rest.
    child.stdin.on('error', () => undefined);
    child.stdin.end(input);
  });
}
