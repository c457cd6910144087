import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { DATA_FORMATS, type DataFormat, TEXT_SPLITS, type TextSplit } from '../src/formats/documents.js';
import type { Shard } from '../src/formats/rows.js';
import { TABLE_FORMATS, type TableFormat } from '../src/report/table-format.js';
import { applyConfig } from './edge-config.js';
import { defaultMaxMemoryBytes, memoryLimitBytes, usableThreads } from './edge-resources.js';
import { parseChoice, parseInteger, parseMemory, parseShard } from './edge-values.js';

export type Device = 'cpu' | 'webgpu' | 'cuda';

/** The options that mean the same in every command, after parsing. */
export interface SharedOptions {
  model: string | undefined;
  base: string | undefined;
  against: string[];
  data: string[];
  dataFormat: DataFormat | undefined;
  textSplit: TextSplit;
  textField: string;
  limit: number | undefined;
  out: string | undefined;
  format: TableFormat | undefined;
  report: string | undefined;
  table: string | undefined;
  plot: string | undefined;
  variant: string | undefined;
  seed: number;
  threads: number;
  /** Bytes of resident memory, weights included. */
  maxMemory: number;
  device: Device;
  /** Tokens a window may hold; undefined: the smaller of the model's and 2,048. */
  context: number | undefined;
  stride: number | undefined;
  shard: Shard | undefined;
  shards: number | undefined;
  assert: string[];
  baseline: string | undefined;
  timings: string | undefined;
  config: string | undefined;
  quiet: boolean;
  debug: boolean;
  dryRun: boolean;
  force: boolean;
  resume: boolean;
}

export type SharedOptionName = keyof SharedOptions;

/** The text of an option as the command line or the configuration gave it. */
interface RawValues {
  text(name: SharedOptionName): string | undefined;
  texts(name: SharedOptionName): string[];
  flag(name: SharedOptionName): boolean;
}

interface Definition<T> {
  readonly flags: string;
  readonly description: string;
  /** The option may be given several times, and the values add up. */
  readonly repeatable?: boolean;
  resolve(raw: RawValues): T;
}

const textOption = (name: SharedOptionName, flags: string, description: string): Definition<string | undefined> => ({
  flags,
  description,
  resolve: (raw) => raw.text(name),
});

const flagOption = (name: SharedOptionName, description: string, flags: string): Definition<boolean> => ({
  flags,
  description,
  resolve: (raw) => raw.flag(name),
});

const countOption = (name: SharedOptionName, flags: string, description: string): Definition<number | undefined> => ({
  flags,
  description,
  resolve(raw) {
    const text = raw.text(name);
    return text === undefined ? undefined : parseInteger(flags.split(' ')[0], text, 1);
  },
});

const choiceOption = <T extends string>(
  name: SharedOptionName,
  flags: string,
  description: string,
  choices: readonly T[],
): Definition<T | undefined> => ({
  flags,
  description: `${description} (${choices.join(', ')})`,
  resolve(raw) {
    const text = raw.text(name);
    return text === undefined ? undefined : parseChoice(flags.split(' ')[0], text, choices);
  },
});

/** A choice that has a default. */
const choiceOr = <T extends string>(definition: Definition<T | undefined>, fallback: T): Definition<T> => ({
  ...definition,
  description: `${definition.description} (default ${fallback})`,
  resolve: (raw) => definition.resolve(raw) ?? fallback,
});

const DEFINITIONS: { readonly [K in SharedOptionName]: Definition<SharedOptions[K]> } = {
  model: textOption(
    'model',
    '--model <model>',
    'Hugging Face directory, .gguf, .onnx, or org/name[@revision] in the local hub cache',
  ),
  base: textOption('base', '--base <model>', 'the reference model'),
  against: {
    flags: '--against <model...>',
    description: 'what the reference is compared with',
    resolve: (raw) => raw.texts('against'),
  },
  data: {
    flags: '--data <file...>',
    description: 'input files or globs, - for standard input: .txt .jsonl .csv .parquet, text formats also gzipped',
    resolve: (raw) => raw.texts('data'),
  },
  dataFormat: choiceOption(
    'dataFormat',
    '--data-format <format>',
    'format of the input, whatever its name',
    DATA_FORMATS,
  ),
  textSplit: choiceOr(
    choiceOption('textSplit', '--text-split <unit>', 'what one document of a .txt file is', TEXT_SPLITS),
    'file',
  ),
  textField: {
    flags: '--text-field <name>',
    description: 'field that holds the text (default text)',
    resolve: (raw) => raw.text('textField') ?? 'text',
  },
  limit: countOption('limit', '--limit <n>', 'use only the first n documents'),
  out: textOption('out', '--out <path>', 'main output'),
  format: choiceOption('format', '--format <format>', 'format of the table, whatever its name', TABLE_FORMATS),
  report: textOption('report', '--report <file.json>', 'JSON report with summary, parameters and input hashes'),
  table: textOption('table', '--table <file.csv>', 'table of the rows'),
  plot: textOption('plot', '--plot <file>', 'picture: .svg, .png or self-contained .html'),
  variant: textOption('variant', '--variant <name>', 'which reading, where published sources differ'),
  seed: {
    flags: '--seed <n>',
    description: 'seed of every random choice (default 0)',
    resolve: (raw) => parseInteger('--seed', raw.text('seed') ?? '0'),
  },
  threads: {
    flags: '--threads <n>',
    description: 'threads (default: what CPU affinity, control group and Slurm allow)',
    resolve(raw) {
      const text = raw.text('threads');
      return text === undefined ? usableThreads() : parseInteger('--threads', text, 1, 1024);
    },
  },
  maxMemory: {
    flags: '--max-memory <amount>',
    description: 'peak resident memory, such as 512MB, 2GiB or 75% (default 75% of the limit)',
    resolve(raw) {
      const text = raw.text('maxMemory');
      return text === undefined ? defaultMaxMemoryBytes() : parseMemory('--max-memory', text, memoryLimitBytes);
    },
  },
  device: choiceOr(choiceOption<Device>('device', '--device <name>', 'where to run', ['cpu', 'webgpu', 'cuda']), 'cpu'),
  context: countOption(
    'context',
    '--context <tokens>',
    "tokens of a window (default: the smaller of the model's and 2048)",
  ),
  stride: countOption('stride', '--stride <tokens>', 'tokens from one window to the next'),
  shard: {
    flags: '--shard <i/n>',
    description: 'do part i of n (from 0), or env for the part that Slurm or Kubernetes assigns',
    resolve(raw) {
      const text = raw.text('shard');
      const shards = raw.text('shards');
      const count = shards === undefined ? undefined : parseInteger('--shards', shards, 1);
      if (text !== undefined) return parseShard(text, count, process.env);
      if (count !== undefined) throw new InputError('--shards needs --shard (i/n or env)');
      return undefined;
    },
  },
  shards: countOption('shards', '--shards <n>', 'number of shards for --shard env'),
  assert: {
    flags: '--assert <comparison>',
    description: "exit 3 unless it holds on the report, such as 'perplexity < 40'; repeatable",
    repeatable: true,
    resolve: (raw) => raw.texts('assert'),
  },
  baseline: textOption('baseline', '--baseline <report.json>', 'earlier report that --assert calls baseline'),
  timings: textOption('timings', '--timings <file.json>', 'wall times and facts about the machine'),
  config: textOption('config', '--config <file.yaml>', 'take options from a file; the command line wins'),
  quiet: flagOption('quiet', 'no progress and no summary', '--quiet'),
  debug: flagOption('debug', 'show stack traces', '--debug'),
  dryRun: flagOption('dryRun', 'print the plan and stop', '--dry-run'),
  force: flagOption('force', 'replace existing outputs', '--force'),
  resume: flagOption('resume', 'continue an interrupted run', '--resume'),
};

function rawValues(command: Command): RawValues {
  const value = (name: SharedOptionName): unknown => command.getOptionValue(name);
  return {
    text(name) {
      const found = value(name);
      return typeof found === 'string' ? found : undefined;
    },
    texts(name) {
      const found = value(name);
      return Array.isArray(found) ? found.map(String) : [];
    },
    flag: (name) => value(name) === true,
  };
}

/**
 * Adds shared options to a command, and `--config` and `--debug`, which every command has. `shard` brings `shards`.
 * @returns reads the parsed values: applies `--config` (also to the command's own options), then converts and checks.
 *   Call it once, at the start of the command's action. Throws InputError.
 */
export function attachShared<const K extends SharedOptionName>(
  command: Command,
  names: readonly K[],
): () => Promise<Pick<SharedOptions, K | 'config' | 'debug'>> {
  const wanted = new Set<SharedOptionName>([...names, 'config', 'debug']);
  if (wanted.has('shard')) wanted.add('shards');
  for (const [name, definition] of Object.entries(DEFINITIONS)) {
    if (!wanted.has(name as SharedOptionName)) continue;
    const option = command.createOption(definition.flags, definition.description);
    if (definition.repeatable) option.argParser((text: string, previous?: string[]) => [...(previous ?? []), text]);
    command.addOption(option);
  }
  return async () => {
    const raw = rawValues(command);
    const config = raw.text('config');
    if (config !== undefined) await applyConfig(command, config);
    const read = {} as Record<SharedOptionName, unknown>;
    for (const name of wanted) read[name] = DEFINITIONS[name].resolve(raw);
    return read as Pick<SharedOptions, K | 'config' | 'debug'>;
  };
}

/** The value of an option that must be there, from the command line or the configuration. Throws InputError. */
export function requireOption<T>(value: T | undefined, flag: string, what: string): T {
  if (value !== undefined && !(Array.isArray(value) && value.length === 0)) return value;
  throw new InputError(`${flag} is missing; name ${what}`);
}

/** What every analysis has: where results go, how they are held to account, how the run behaves. */
export const ANALYSIS_OPTIONS = [
  'out',
  'format',
  'report',
  'plot',
  'seed',
  'threads',
  'maxMemory',
  'shard',
  'assert',
  'baseline',
  'timings',
  'quiet',
  'dryRun',
  'force',
] as const satisfies readonly SharedOptionName[];

/** What every analysis that runs a model on text has beside. */
export const TEXT_OPTIONS = [
  ...ANALYSIS_OPTIONS,
  'data',
  'dataFormat',
  'textSplit',
  'textField',
  'limit',
  'table',
  'device',
  'context',
] as const satisfies readonly SharedOptionName[];
