import { didYouMean, InputError } from '../src/errors.js';
import type { Shard } from '../src/formats/rows.js';

/** The environment variables that the edge may read; tests give their own. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** The option that a property of the parsed options holds: `--max-new-tokens` of `maxNewTokens`. */
export const flagOf = (name: string): string => `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

/** `\n` and `\t` of a shell's argument as the characters that they mean. */
export const unescaped = (text: string): string => text.replace(/\\n/g, '\n').replace(/\\t/g, '\t');

/** Parts separated by commas, without the spaces around them; empty ones are left out. */
export const parseList = (text: string): string[] =>
  text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');

/** An integer of `min` to `max`. Throws InputError that names the option. */
export function parseInteger(option: string, text: string, min = 0, max = Number.MAX_SAFE_INTEGER): number {
  const value = /^[+-]?\d+$/.test(text.trim()) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(value) && value >= min && value <= max) return value;
  const range = max === Number.MAX_SAFE_INTEGER ? `an integer of at least ${min}` : `an integer of ${min} to ${max}`;
  throw new InputError(`${option} ${text}: ${range} is needed`);
}

/** A finite number of `min` to `max`. Throws InputError that names the option. */
export function parseNumber(
  option: string,
  text: string,
  min = Number.NEGATIVE_INFINITY,
  max = Number.POSITIVE_INFINITY,
): number {
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (Number.isFinite(value) && value >= min && value <= max) return value;
  const [low, high] = [min > Number.NEGATIVE_INFINITY, max < Number.POSITIVE_INFINITY];
  const range = [low && `at least ${min}`, high && `at most ${max}`].filter(Boolean).join(' and ');
  throw new InputError(`${option} ${text}: a number${range === '' ? '' : ` of ${range}`} is needed`);
}

/** Whole numbers and ranges separated by commas, such as `0,5-7`: ascending, each once. Throws InputError that names the option. */
export function parseIndices(option: string, text: string): number[] {
  const found = new Set<number>();
  for (const part of text.split(',')) {
    const range = /^(\d+)(?:-(\d+))?$/.exec(part.trim());
    const [first, last] = [Number(range?.[1]), Number(range?.[2] ?? range?.[1])];
    if (!(first <= last)) throw new InputError(`${option} ${text}: "${part}" is no number and no range such as 5-7`);
    for (let index = first; index <= last; index++) found.add(index);
  }
  return [...found].sort((a, b) => a - b);
}

/** One of the choices. Throws InputError with the nearest and all of them. */
export function parseChoice<T extends string>(option: string, text: string, choices: readonly T[]): T {
  const found = choices.find((choice) => choice === text);
  if (found !== undefined) return found;
  throw new InputError(
    `${option} ${text}: unknown${didYouMean(text, choices)}; one of ${choices.join(', ')} is needed`,
  );
}

const UNIT_BYTES: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  k: 1e3,
  kb: 1e3,
  kib: 2 ** 10,
  m: 1e6,
  mb: 1e6,
  mib: 2 ** 20,
  g: 1e9,
  gb: 1e9,
  gib: 2 ** 30,
  t: 1e12,
  tb: 1e12,
  tib: 2 ** 40,
};

/**
 * An amount of memory in bytes: `512MB` (10^6), `2GiB` (2^30), a plain number of bytes, or a share of the limit (`75%`).
 * @param limitBytes what 100% means
 */
export function parseMemory(option: string, text: string, limitBytes: () => number): number {
  const match = /^(\d+(?:\.\d+)?)\s*(%|[a-z]*)$/i.exec(text.trim());
  const unit = match?.[2].toLowerCase();
  const factor = unit === undefined ? undefined : unit === '%' ? limitBytes() / 100 : UNIT_BYTES[unit];
  const bytes = match && factor ? Math.floor(Number(match[1]) * factor) : 0;
  if (bytes > 0 && (unit !== '%' || Number(match?.[1]) <= 100)) return bytes;
  throw new InputError(`${option} ${text}: an amount of memory is needed, such as 512MB, 2GiB or 75%`);
}

const shardOf = (index: number, count: number, origin: string): Shard => {
  if (count >= 1 && index >= 0 && index < count) return { index, count };
  throw new InputError(`${origin}: shard ${index} of ${count} does not exist; shards count from 0`);
};

const integerOf = (name: string, env: Environment): number | undefined =>
  env[name] === undefined || env[name] === '' ? undefined : parseInteger(name, env[name]);

/** The shard that a cluster's scheduler assigned: a Slurm array task, or an indexed Kubernetes job with `--shards n`. */
function shardFromEnvironment(shards: number | undefined, env: Environment): Shard {
  const task = integerOf('SLURM_ARRAY_TASK_ID', env);
  if (task !== undefined) {
    const first = integerOf('SLURM_ARRAY_TASK_MIN', env) ?? 0;
    const count = shards ?? integerOf('SLURM_ARRAY_TASK_COUNT', env);
    if (count === undefined)
      throw new InputError('--shard env: SLURM_ARRAY_TASK_COUNT is not set; name it with --shards');
    return shardOf(task - first, count, `--shard env (SLURM_ARRAY_TASK_ID=${task}, from ${first})`);
  }
  const completion = integerOf('JOB_COMPLETION_INDEX', env);
  if (completion !== undefined) {
    if (shards === undefined)
      throw new InputError('--shard env: JOB_COMPLETION_INDEX is set; name the number of shards with --shards');
    return shardOf(completion, shards, `--shard env (JOB_COMPLETION_INDEX=${completion})`);
  }
  throw new InputError('--shard env: neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set; use --shard i/n');
}

/** `i/n` (0-based), or `env`. `shards` is the value of `--shards`. */
export function parseShard(text: string, shards: number | undefined, env: Environment): Shard {
  if (text === 'env') return shardFromEnvironment(shards, env);
  const match = /^(\d+)\/(\d+)$/.exec(text);
  if (!match) throw new InputError(`--shard ${text}: i/n (from 0, such as 0/4) or env is needed`);
  const shard = shardOf(Number(match[1]), Number(match[2]), `--shard ${text}`);
  if (shards !== undefined && shards !== shard.count)
    throw new InputError(`--shard ${text} and --shards ${shards} disagree`);
  return shard;
}
