import { createWriteStream, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { type Command, Option } from 'commander';
import { InputError } from '../src/errors.js';
import { fileError } from '../src/formats/files.js';
import { resolveModelPath } from '../src/formats/hub.js';
import { expandSources, type InputDigest, type InputLedger } from '../src/formats/inputs.js';
import { PROMPT_FORMATS, type RolloutRequest } from '../src/policy/rollouts/types.js';
import type { ReportValue } from '../src/report/values.js';
import { removeBeforeExit } from './edge-run.js';
import { parseChoice, parseInteger, parseNumber } from './edge-values.js';
import { modelDigests } from './model-digests.js';
import type { SharedOptions } from './shared-options.js';

/** Shared options that a view of rollout dumps has beside `ANALYSIS_OPTIONS`. */
export const ROLLOUT_OPTIONS = ['model', 'data', 'limit', 'context'] as const;

export type RolloutSharedOptions = Pick<SharedOptions, (typeof ROLLOUT_OPTIONS)[number] | 'threads' | 'maxMemory'>;

/** Options of every view that reads a dump, as commander gives them. */
export interface RolloutOwnOptions {
  map?: string[];
  advantage?: string;
  thinkMarker?: string;
  marker?: string;
  exactLimit?: string;
  vocab?: string;
  oldModel?: string;
  temperature?: string;
  promptFormat?: string;
  workDir?: string;
}

const ADVANTAGES = ['dump', 'grpo', 'no-std'] as const;
const MARKER_CHOICES = ['last', 'first'] as const;
export const DEFAULT_EXACT_LIMIT = 2e7;
/** Longest sequence for re-scoring: responses of reinforcement learning are longer than the 2,048 tokens of other commands. */
const DEFAULT_CONTEXT = 8192;
export const DEFAULT_MARKER = '</think>';

/** Declares how a dump is read. */
export function attachRollouts(command: Command): Command {
  return command
    .addOption(
      new Option('--map <field=column>', 'column of the dump that holds a field; repeatable').argParser(
        (value: string, before: string[] | undefined) => [...(before ?? []), value],
      ),
    )
    .option(
      '--advantage <how>',
      `${ADVANTAGES.join(', ')}: those of the dump (GRPO's where it has none), or from the rewards (default dump)`,
    )
    .option(
      '--think-marker <text>',
      `end of thinking: a text, or token ids separated by commas (default ${DEFAULT_MARKER})`,
    )
    .option('--marker <which>', 'first or last marker of a response (default last)')
    .option('--exact-limit <tokens>', `tokens that may be held in memory (default ${DEFAULT_EXACT_LIMIT})`)
    .option('--vocab <size>', 'size of the vocabulary (default that of --model)')
    .option('--old-model <model>', 'policy that sampled, for old log-probabilities')
    .option('--temperature <t>', 'temperature of the sampling, for re-scoring (default 1)')
    .option('--prompt-format <how>', `re-scoring: prompts are ${PROMPT_FORMATS.join(', ')} (default auto)`)
    .option('--work-dir <directory>', 'where a work file may lie (default the temporary directory)');
}

/** `--map` as columns by field. @throws InputError */
function parseMap(entries: readonly string[]): Record<string, string> {
  const map: Record<string, string> = {};
  for (const entry of entries) {
    const at = entry.indexOf('=');
    const [field, column] = [entry.slice(0, at).trim(), entry.slice(at + 1).trim()];
    if (at < 1 || field === '' || column === '')
      throw new InputError(`--map ${entry}: write field=column, for example --map logprob=log_probs`);
    if (Object.hasOwn(map, field)) throw new InputError(`--map names ${field} twice`);
    map[field] = column;
  }
  return map;
}

/** What the job needs to open the dump. @throws InputError for values that are not allowed */
export function rolloutRequest(shared: RolloutSharedOptions, own: RolloutOwnOptions): RolloutRequest {
  if (shared.data.length === 0) throw new InputError('no dump; name one with --data, or - for standard input');
  if (own.oldModel !== undefined && shared.model === undefined)
    throw new InputError('--old-model is the policy that sampled; give the policy that is updated with --model');
  const idle = { '--temperature': own.temperature, '--prompt-format': own.promptFormat, '--context': shared.context };
  for (const [flag, value] of Object.entries(idle)) {
    if (value !== undefined && shared.model === undefined)
      throw new InputError(`${flag} is for re-scoring; name the policy with --model`);
  }
  const temperature = own.temperature === undefined ? 1 : parseNumber('--temperature', own.temperature);
  if (!(temperature > 0)) throw new InputError(`--temperature ${own.temperature}: log-probabilities need one above 0`);
  return {
    paths: shared.data,
    map: parseMap(own.map ?? []),
    ...(shared.limit !== undefined && { limit: shared.limit }),
    ...(own.vocab !== undefined && { vocabularySize: parseInteger('--vocab', own.vocab, 2) }),
    exactLimit:
      own.exactLimit === undefined
        ? DEFAULT_EXACT_LIMIT
        : parseInteger('--exact-limit', String(Number(own.exactLimit)), 0),
    advantage: parseChoice('--advantage', own.advantage ?? 'dump', ADVANTAGES),
    marker: own.thinkMarker ?? DEFAULT_MARKER,
    markerChoice: parseChoice('--marker', own.marker ?? 'last', MARKER_CHOICES),
    ...(shared.model !== undefined && { model: shared.model }),
    ...(own.oldModel !== undefined && { oldModel: own.oldModel }),
    temperature,
    promptFormat: parseChoice('--prompt-format', own.promptFormat ?? 'auto', PROMPT_FORMATS),
    context: shared.context ?? DEFAULT_CONTEXT,
    threads: shared.threads,
    maxMemory: shared.maxMemory,
    workDirectory: own.workDir ?? tmpdir(),
  };
}

/** What decides how a dump is read, for a report's parameters. */
export function rolloutParameters(request: RolloutRequest): Record<string, ReportValue> {
  return {
    data: [...request.paths],
    map: { ...request.map },
    limit: request.limit ?? null,
    advantage: request.advantage,
    think_marker: request.marker ?? null,
    marker: request.markerChoice,
    exact_limit: request.exactLimit,
    vocab: request.vocabularySize ?? null,
    model: request.model ?? null,
    old_model: request.oldModel ?? null,
    temperature: request.temperature,
    prompt_format: request.promptFormat,
    context: request.context,
  };
}

/** The models of a request as they were named: outputs must not replace them either. */
export const rolloutModels = ({ model, oldModel }: RolloutRequest): string[] =>
  [model, oldModel].filter((name) => name !== undefined);

const locate = (name: string): string => resolveModelPath(name, process.env).path;

/** Hashes of the models of a request, for the inputs of a report. */
export async function rolloutModelDigests(request: RolloutRequest): Promise<InputDigest[]> {
  const digests = await Promise.all(rolloutModels(request).map((name) => modelDigests(name, locate(name))));
  return digests.flatMap((one) => one.digests);
}

/**
 * Runs the work of a view on its dump: names of models become paths, patterns become files, standard input is saved to a work
 * file first, and the files are hashed beside the work, so that `ledger.digests` need not read them again.
 */
export async function withRollouts<R>(
  ledger: InputLedger,
  request: RolloutRequest,
  work: (request: RolloutRequest) => Promise<R>,
): Promise<R> {
  const paths = await expandSources(request.paths);
  let folder: WorkFolder | undefined;
  const state = { over: false };
  try {
    let standardInput: string | undefined;
    if (paths.includes('-')) {
      folder = openWorkFolder(request.workDirectory, 'surprisal-input-');
      standardInput = join(folder.path, 'rollouts');
      await pipeline(ledger.read('-'), createWriteStream(standardInput));
    }
    for (const path of paths) ledger.note(path);
    const locations = Object.fromEntries(rolloutModels(request).map((name) => [name, locate(name)]));
    const hashed = hashFiles(ledger, paths, state);
    const result = await work({ ...request, paths, locations, ...(standardInput !== undefined && { standardInput }) });
    await hashed;
    return result;
  } finally {
    state.over = true;
    folder?.remove();
  }
}

/** A folder for what is needed during a run alone. */
export interface WorkFolder {
  readonly path: string;
  remove(): void;
}

/** Makes a work folder that goes with `remove`, or with the process, whatever ends it. @throws InputError, RunError */
export function openWorkFolder(directory: string, prefix: string): WorkFolder {
  try {
    const path = mkdtempSync(join(directory, prefix));
    return { path, remove: removeBeforeExit(path) };
  } catch (error) {
    throw fileError(error, directory, 'write');
  }
}

/** Reads files to their ends, which hashes them; an error is left to whoever reads them for their records. */
async function hashFiles(
  ledger: InputLedger,
  paths: readonly string[],
  state: { readonly over: boolean },
): Promise<void> {
  try {
    for (const path of paths) {
      if (path === '-') continue;
      for await (const _ of ledger.read(path)) if (state.over) return;
    }
  } catch {
    // `digests` reads them again, and says what is wrong.
  }
}
