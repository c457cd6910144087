import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { resolveModelPath } from '../src/formats/hub.js';
import { createInputLedger, expandSources, type InputDigest } from '../src/formats/inputs.js';
import { type ModelFiles, openModelFiles } from '../src/models/model-files.js';
import { hashModelFiles } from '../src/models/model-hash.js';
import { calibrateToFolder, expertLayers, statisticsBytes, statisticsReserve } from '../src/moe/calibrate.js';
import {
  CALIBRATE_SCHEMA,
  type CalibrateBody,
  calibrateBody,
  EXPERT_RECORD_COLUMNS,
  expertRow,
} from '../src/moe/calibrate-report.js';
import { openExpertModel } from '../src/moe/expert-layout.js';
import type { ExpertLayer } from '../src/moe/expert-model.js';
import type { WatchedOutputs } from '../src/moe/statistics-file.js';
import { CALIBRATE_STORED } from '../src/moe/stored-calibration.js';
import { buildReport, writeReport } from '../src/report/json.js';
import { createProgress, type Progress } from '../src/report/progress.js';
import { type SummaryCell, summaryTable } from '../src/report/summary-table.js';
import { type ReportObject, reportObject } from '../src/report/values.js';
import { MOST_CALIBRATION_TOKENS, readCalibrationWindows } from './calibration-text.js';
import { prepareAsserts } from './edge-asserts.js';
import { openOutputs } from './edge-outputs.js';
import { flagOf, parseChoice, parseInteger } from './edge-values.js';
import { toolVersion } from './edge-version.js';
import { noticeSlowKernels } from './kernel-notice.js';
import { modelDigests } from './model-digests.js';
import {
  DEFAULT_CONTEXT,
  openModelSession,
  PRECISION_OPTION,
  type Precision,
  parsePrecision,
} from './model-session.js';
import { runInThread } from './run-in-thread.js';
import { startRunTimings } from './run-timings.js';
import type { ScoredTextOptions } from './scored-text.js';
import { attachShared, requireOption, type SharedOptions } from './shared-options.js';

const SHARED = [
  'model',
  'data',
  'dataFormat',
  'textSplit',
  'textField',
  'limit',
  'out',
  'report',
  'table',
  'threads',
  'maxMemory',
  'device',
  'shard',
  'assert',
  'baseline',
  'timings',
  'quiet',
  'dryRun',
  'force',
  'resume',
] as const;

type Shared = Pick<SharedOptions, (typeof SHARED)[number] | 'config' | 'debug'>;

interface CalibrateOptions extends Pick<ScoredTextOptions, 'prefixToken' | 'chatTemplate'> {
  calibTokens?: string;
  calibLength?: string;
  outputs?: string;
  precision?: string;
  hiddenStates?: string;
  mask?: string;
  countPadding?: boolean;
}

const OUTPUTS = ['routed', 'all', 'none'] as const satisfies readonly WatchedOutputs[];
const COMMAND = 'merge-moe calibrate';

/** Declares `surprisal merge-moe calibrate`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option('--calib-tokens <n>', `tokens of the text (default: all, up to ${MOST_CALIBRATION_TOKENS})`)
    .option(
      '--calib-length <tokens>',
      `tokens of a window (default: the smaller of the model's and ${DEFAULT_CONTEXT})`,
    )
    .option(
      '--outputs <which>',
      'outputs of experts that are watched: routed (on their own tokens), all (every expert on every token), none ' +
        '(the router alone) (default routed)',
    )
    .option('--prefix-token <id>', 'token before each document (default BOS, else EOS)')
    .option('--chat-template', "render the field messages by the model's chat template")
    .option(...PRECISION_OPTION)
    .option(
      '--hidden-states <file>',
      'stored inputs of the experts [layers, tokens, hidden] instead of text, for models that do not run here: .npy, ' +
        '.npz, .safetensors',
    )
    .option('--mask <file>', 'with --hidden-states: tokens that count, [tokens]; a mask in the file itself is found')
    .option('--count-padding', 'with --hidden-states: count masked tokens too')
    .action(async () => {
      const options = await read();
      const own = command.opts<CalibrateOptions>();
      refuseOthers(command, own.hiddenStates === undefined ? STORED_ONLY : TEXT_ONLY, own);
      process.exitCode = await run(options, own);
    });
}

/** Options that mean something to stored hidden states alone, and to text alone. */
const STORED_ONLY = ['mask', 'countPadding'] as const;
const TEXT_ONLY = [
  'data',
  'dataFormat',
  'textSplit',
  'textField',
  'limit',
  'device',
  'shard',
  'shards',
  'calibTokens',
  'calibLength',
  'prefixToken',
  'chatTemplate',
  'precision',
] as const;

/** @throws InputError for an option that would have no effect */
function refuseOthers(command: Command, names: readonly string[], { hiddenStates }: CalibrateOptions): void {
  const given = names.find((name) => command.getOptionValueSource(name) !== undefined);
  if (given === undefined) return;
  const flag = flagOf(given);
  const source = hiddenStates === undefined ? 'text; it belongs to --hidden-states' : '--hidden-states; leave it out';
  throw new InputError(`${flag} has no meaning with ${source}`);
}

/** What is calibrated, and how. */
interface Subject {
  readonly spec: string;
  readonly path: string;
  readonly out: string;
  readonly outputs: WatchedOutputs;
  /** Text that goes through the model, or inputs of its experts. */
  readonly source: TextSource | StoredSource;
}

interface StoredSource {
  readonly kind: 'stored';
  readonly hiddenStates: string;
  readonly mask?: string;
  readonly countPadding: boolean;
  readonly layers: readonly ExpertLayer[];
  readonly family: string;
  close(): void;
}

interface TextSource {
  readonly kind: 'text';
  readonly files: ModelFiles;
  readonly data: readonly string[];
  readonly precision: Precision;
  readonly tokens?: number;
  readonly length?: number;
  /** Memory of the statistics beside the engine. */
  readonly memoryBytes: number;
  close(): void;
}

async function openSubject(options: Shared, own: CalibrateOptions): Promise<Subject> {
  const spec = requireOption(options.model, '--model', 'a model with experts');
  const out = requireOption(options.out, '--out', 'the folder of the statistics');
  if (existsSync(out) && !options.force && !options.resume) {
    throw new InputError(`${out}: exists; pass --force to replace it, --resume to continue it, or choose another path`);
  }
  const { path } = resolveModelPath(spec, process.env);
  if (path.toLowerCase().endsWith('.onnx')) {
    throw new InputError(`${spec}: routers and experts are not reachable in an ONNX export; pass the model itself`);
  }
  const outputs = parseChoice('--outputs', own.outputs ?? 'routed', OUTPUTS);
  const source =
    own.hiddenStates === undefined
      ? await openText({ spec, path, outputs }, options, own)
      : openStoredSource(path, own.hiddenStates, own);
  return { spec, path, out, outputs, source };
}

function openStoredSource(path: string, hiddenStates: string, own: CalibrateOptions): StoredSource {
  const model = openExpertModel(path);
  return {
    kind: 'stored',
    hiddenStates,
    ...(own.mask !== undefined && { mask: own.mask }),
    countPadding: own.countPadding === true,
    layers: model.layers,
    family: model.family,
    close: () => model.close(),
  };
}

/** @throws InputError for a model whose forward pass is not there, saying what else is possible */
function openRunning(path: string, spec: string, threads: number): ModelFiles {
  try {
    return openModelFiles(path, threads);
  } catch (error) {
    const family = familyWithoutPass(path);
    if (family === undefined) throw error;
    throw new InputError(
      `${spec}: the forward pass of ${family} is not there; give stored inputs of its experts with --hidden-states`,
    );
  }
}

/** The family of a model whose experts are known, but not its forward pass. */
function familyWithoutPass(path: string): string | undefined {
  try {
    const model = openExpertModel(path);
    model.close();
    return model.runs ? undefined : model.family;
  } catch {
    return undefined;
  }
}

async function openText(
  { spec, path, outputs }: Pick<Subject, 'spec' | 'path' | 'outputs'>,
  options: Shared,
  own: CalibrateOptions,
): Promise<TextSource> {
  const data = await expandSources(requireOption(options.data, '--data', 'a text, or give --hidden-states'));
  const precision = parsePrecision(own.precision);
  const tokens = own.calibTokens === undefined ? undefined : parseInteger('--calib-tokens', own.calibTokens, 1);
  const length = own.calibLength === undefined ? undefined : parseInteger('--calib-length', own.calibLength, 1);
  const files = openRunning(path, spec, options.threads);
  try {
    expertLayers(files.description, spec);
    const { maxPositions } = files.description;
    if (length !== undefined && length > maxPositions) {
      throw new InputError(
        `--calib-length ${length} is longer than the ${maxPositions} positions of ${spec}; lower it`,
      );
    }
  } catch (error) {
    files.store.close();
    throw error;
  }
  const memoryBytes = statisticsReserve(files.description, {
    tokens: tokens ?? MOST_CALIBRATION_TOKENS,
    outputs,
    maxMemoryBytes: options.maxMemory,
    precision,
  });
  return {
    kind: 'text',
    ...{ files, data, precision, memoryBytes },
    ...(tokens !== undefined && { tokens }),
    ...(length !== undefined && { length }),
    close: () => files.store.close(),
  };
}

async function run(options: Shared, own: CalibrateOptions): Promise<number> {
  const asserts = await prepareAsserts(options.assert, options.baseline);
  const timings = startRunTimings(COMMAND);
  const subject = await openSubject(options, own);
  const { source } = subject;
  const read = source.kind === 'text' ? source.data : [source.hiddenStates, ...(source.mask ? [source.mask] : [])];
  const outputs = openOutputs(read, { force: options.force, resume: options.resume });
  try {
    const table = outputs.table('--table', options.table, EXPERT_RECORD_COLUMNS);
    const reportFile = outputs.file('--report', options.report);
    const timingsFile = outputs.file('--timings', options.timings);
    if (options.dryRun) {
      process.stdout.write(summaryTable(['plan', 'value'], planRows(subject, options)));
      return 0;
    }
    timings.begin('hash the model');
    const { digests, modelSha256 } = await hashSubject(subject);
    const ledger = createInputLedger();
    const context = { modelSha256, ledger, timings };
    const body =
      source.kind === 'text'
        ? await calibrateText(subject, source, options, own, context)
        : await calibrateHiddenStates(subject, source, options, context);
    timings.begin('write');
    const report = buildReport(
      {
        name: CALIBRATE_SCHEMA,
        tool: { name: 'surprisal', version: toolVersion() },
        command: COMMAND,
        parameters: parametersOf(subject, options, own),
        inputs: [...digests, ...(await ledger.digests())],
      },
      reportObject(body),
    );
    if (table) for (const expert of body.by_expert) table.write(expertRow(expert));
    if (reportFile) writeReport(report, reportFile);
    if (timingsFile) timings.write(timingsFile, options);
    outputs.commit();
    if (!options.quiet) {
      for (const warning of body.warnings) process.stderr.write(`warning: ${warning}\n`);
      process.stdout.write(summary(body, subject.out));
    }
    return asserts.check(report);
  } finally {
    outputs.abort();
    source.close();
  }
}

async function hashSubject({ path, spec }: Subject): Promise<{ digests: InputDigest[]; modelSha256: string }> {
  const { digests, files } = await modelDigests(spec, path);
  return { digests, modelSha256: hashModelFiles(files) };
}

interface Context {
  readonly modelSha256: string;
  readonly ledger: ReturnType<typeof createInputLedger>;
  readonly timings: ReturnType<typeof startRunTimings>;
}

function progressOf({ quiet }: Shared): Promise<Progress> {
  const unit = 'tokens x layers';
  return createProgress({ stream: process.stderr, quiet, unit, now: () => performance.now() });
}

async function calibrateHiddenStates(
  { path, out, outputs }: Subject,
  { hiddenStates, mask, countPadding }: StoredSource,
  options: Shared,
  { modelSha256, ledger, timings }: Context,
): Promise<CalibrateBody> {
  timings.begin('calibrate');
  noticeSlowKernels();
  ledger.note(hiddenStates);
  if (mask !== undefined) ledger.note(mask);
  const progress = await progressOf(options);
  const { force, resume, threads } = options;
  const { statistics, files } = await runInThread(
    CALIBRATE_STORED,
    {
      ...{ model: path, modelSha256, hiddenStates, countPadding, outputs, folder: out, force, resume, threads },
      ...(mask !== undefined && { mask }),
      memoryBytes: options.maxMemory / 2,
    },
    (value) => {
      const { done, all } = value as { done: number; all: number };
      progress.setTotal(all);
      progress.update(done, 'calibrate');
    },
    threads,
  );
  progress.stop();
  timings.count('tokens', statistics.header.tokens);
  return calibrateBody(statistics, files);
}

async function calibrateText(
  { spec, out, outputs }: Subject,
  { data, files, precision, tokens, length, memoryBytes }: TextSource,
  options: Shared,
  own: CalibrateOptions,
  { modelSha256, ledger, timings }: Context,
): Promise<CalibrateBody> {
  timings.begin('open the model');
  const { threads, maxMemory, device, force, resume } = options;
  const engine = { threads, maxMemory, device, context: length, precision, reserveBytes: memoryBytes };
  const session = await openModelSession(spec, engine);
  try {
    const text = {
      spec,
      data,
      options: { ...options, stride: undefined, seed: 0 },
      text: own,
      ledger,
      ...(tokens !== undefined && { tokens }),
      ...(length !== undefined && { length }),
    };
    const { windows, length: windowTokens } = await readCalibrationWindows(text, session);
    const progress = await progressOf(options);
    timings.begin('calibrate');
    const { statistics, files: written } = await calibrateToFolder(session.host, files.description, {
      ...{ windows, windowTokens, modelSha256, outputs, precision, memoryBytes },
      ...(options.shard && { shard: options.shard }),
      folder: out,
      write: { force, resume },
      progress(done, all) {
        progress.setTotal(all);
        progress.update(done, 'calibrate');
      },
    });
    progress.stop();
    timings.count('tokens', statistics.header.tokens);
    return calibrateBody(statistics, written);
  } finally {
    await session.close();
  }
}

function planRows({ spec, out, outputs, source }: Subject, { maxMemory, shard }: Shared): SummaryCell[][] {
  const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  const common = [
    ['watched outputs', outputs],
    ['folder', out],
    ['memory limit', mebibytes(maxMemory)],
  ];
  if (source.kind === 'stored') {
    const { layers, family, hiddenStates, mask, countPadding } = source;
    return [
      ['model', `${spec} (${family})`],
      ['layers with experts', layers.length],
      ['experts', layers.reduce((sum, { experts }) => sum + experts, 0)],
      ['hidden states', hiddenStates],
      ['mask', countPadding ? 'padding counts' : (mask ?? 'that of the file, if any')],
      ...common,
    ];
  }
  const { description } = source.files;
  const layers = expertLayers(description, spec);
  const experts = layers.reduce((sum, layer) => {
    const { mlp } = description.layers[layer];
    return sum + (mlp.kind === 'moe' ? mlp.experts : 0);
  }, 0);
  return [
    ['model', `${spec} (${description.modelType})`],
    ['layers with experts', `${layers.length} of ${description.layers.length}`],
    ['experts', experts],
    ['text', source.data.join(', ')],
    ['tokens', source.tokens ?? `up to ${MOST_CALIBRATION_TOKENS}`],
    ['window', source.length ?? Math.min(description.maxPositions, DEFAULT_CONTEXT)],
    ['shard', shard ? `${shard.index}/${shard.count}, by windows` : 'none'],
    ['passes', `one a layer, up to layer ${layers[layers.length - 1]}`],
    ['folder size', mebibytes(statisticsBytes(description, outputs))],
    ['memory beside the engine', mebibytes(source.memoryBytes)],
    ...common,
  ];
}

function parametersOf({ spec, outputs, source }: Subject, options: Shared, own: CalibrateOptions): ReportObject {
  if (source.kind === 'stored') {
    const { hiddenStates, mask, countPadding } = source;
    return { model: spec, outputs, hidden_states: hiddenStates, mask: mask ?? null, count_padding: countPadding };
  }
  const { shard } = options;
  return {
    model: spec,
    outputs,
    data: [...source.data],
    data_format: options.dataFormat ?? null,
    text_split: options.textSplit,
    text_field: options.textField,
    limit: options.limit ?? null,
    chat_template: own.chatTemplate === true,
    prefix_token: own.prefixToken === undefined ? null : parseInteger('--prefix-token', own.prefixToken),
    calib_tokens: source.tokens ?? null,
    calib_length: source.length ?? null,
    precision: source.precision,
    device: options.device,
    shard: shard ? { index: shard.index, count: shard.count } : null,
  };
}

function summary({ by_layer, tokens, files }: CalibrateBody, out: string): string {
  const header = ['layer', 'experts', 'top-k', 'tokens', 'fewest', 'median', 'most', 'never chosen', 'tied'];
  const rows = by_layer.map((layer): SummaryCell[] => [
    layer.layer,
    layer.experts,
    layer.top_k,
    layer.tokens,
    layer.fewest_tokens,
    layer.median_tokens,
    layer.most_tokens,
    layer.unused_experts.length,
    layer.tied_tokens,
  ]);
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  return `${summaryTable(header, rows)}${out}: statistics of ${tokens} tokens, ${bytes} bytes\n`;
}
