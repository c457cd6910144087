import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { sha256Files } from '../src/formats/hash.js';
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
import type { WatchedOutputs } from '../src/moe/statistics-file.js';
import { buildReport, writeReport } from '../src/report/json.js';
import { createProgress } from '../src/report/progress.js';
import { type SummaryCell, summaryTable } from '../src/report/summary-table.js';
import { type ReportValue, reportObject } from '../src/report/values.js';
import { MOST_CALIBRATION_TOKENS, readCalibrationWindows } from './calibration-text.js';
import { prepareAsserts } from './edge-asserts.js';
import { openOutputs } from './edge-outputs.js';
import { parseChoice, parseInteger } from './edge-values.js';
import { toolVersion } from './edge-version.js';
import {
  DEFAULT_CONTEXT,
  openModelSession,
  PRECISION_OPTION,
  type Precision,
  parsePrecision,
} from './model-session.js';
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
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<CalibrateOptions>());
    });
}

/** What is calibrated, and how. */
interface Subject {
  readonly spec: string;
  readonly path: string;
  readonly files: ModelFiles;
  readonly data: readonly string[];
  readonly out: string;
  readonly outputs: WatchedOutputs;
  readonly precision: Precision;
  readonly tokens?: number;
  readonly length?: number;
  /** Memory of the statistics beside the engine. */
  readonly memoryBytes: number;
}

async function openSubject(options: Shared, own: CalibrateOptions): Promise<Subject> {
  const spec = requireOption(options.model, '--model', 'a model with experts');
  const out = requireOption(options.out, '--out', 'the folder of the statistics');
  const data = await expandSources(requireOption(options.data, '--data', 'a text'));
  if (existsSync(out) && !options.force && !options.resume) {
    throw new InputError(`${out}: exists; pass --force to replace it, --resume to continue it, or choose another path`);
  }
  const { path } = resolveModelPath(spec, process.env);
  if (path.toLowerCase().endsWith('.onnx')) {
    throw new InputError(`${spec}: routers and experts are not reachable in an ONNX export; pass the model itself`);
  }
  const outputs = parseChoice('--outputs', own.outputs ?? 'routed', OUTPUTS);
  const precision = parsePrecision(own.precision);
  const tokens = own.calibTokens === undefined ? undefined : parseInteger('--calib-tokens', own.calibTokens, 1);
  const length = own.calibLength === undefined ? undefined : parseInteger('--calib-length', own.calibLength, 1);
  const files = openModelFiles(path, options.threads);
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
  const subject = { spec, path, files, data, out, outputs, precision, memoryBytes };
  return { ...subject, ...(tokens !== undefined && { tokens }), ...(length !== undefined && { length }) };
}

async function run(options: Shared, own: CalibrateOptions): Promise<number> {
  const asserts = await prepareAsserts(options.assert, options.baseline);
  const timings = startRunTimings(COMMAND);
  const subject = await openSubject(options, own);
  const outputs = openOutputs(subject.data, { force: options.force, resume: options.resume });
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
    const body = await calibrate(subject, options, own, { modelSha256, ledger, timings });
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
    subject.files.store.close();
  }
}

async function hashSubject({ path, spec }: Subject): Promise<{ digests: InputDigest[]; modelSha256: string }> {
  const files = await sha256Files(path);
  const digests = files.map(({ name, bytes, sha256 }) => ({
    path: path.endsWith(name) ? spec : `${spec.replace(/\/$/, '')}/${name}`,
    bytes,
    sha256,
  }));
  return { digests, modelSha256: hashModelFiles(files) };
}

interface Context {
  readonly modelSha256: string;
  readonly ledger: ReturnType<typeof createInputLedger>;
  readonly timings: ReturnType<typeof startRunTimings>;
}

async function calibrate(
  subject: Subject,
  options: Shared,
  own: CalibrateOptions,
  { modelSha256, ledger, timings }: Context,
): Promise<CalibrateBody> {
  const { spec, data, files, out, outputs, precision, tokens, length, memoryBytes } = subject;
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
    const progress = await createProgress({
      stream: process.stderr,
      quiet: options.quiet,
      unit: 'tokens x layers',
      now: () => performance.now(),
    });
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

function planRows({ spec, files, data, out, ...subject }: Subject, { maxMemory, shard }: Shared): SummaryCell[][] {
  const { description } = files;
  const layers = expertLayers(description, spec);
  const experts = layers.reduce((sum, layer) => {
    const { mlp } = description.layers[layer];
    return sum + (mlp.kind === 'moe' ? mlp.experts : 0);
  }, 0);
  const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  return [
    ['model', `${spec} (${description.modelType})`],
    ['layers with experts', `${layers.length} of ${description.layers.length}`],
    ['experts', experts],
    ['text', data.join(', ')],
    ['tokens', subject.tokens ?? `up to ${MOST_CALIBRATION_TOKENS}`],
    ['window', subject.length ?? Math.min(description.maxPositions, DEFAULT_CONTEXT)],
    ['shard', shard ? `${shard.index}/${shard.count}, by windows` : 'none'],
    ['watched outputs', subject.outputs],
    ['passes', `one a layer, up to layer ${layers[layers.length - 1]}`],
    ['folder', out],
    ['folder size', mebibytes(statisticsBytes(description, subject.outputs))],
    ['memory beside the engine', mebibytes(subject.memoryBytes)],
    ['memory limit', mebibytes(maxMemory)],
  ];
}

function parametersOf(subject: Subject, options: Shared, own: CalibrateOptions): Record<string, ReportValue> {
  const { shard } = options;
  return {
    model: subject.spec,
    data: [...subject.data],
    data_format: options.dataFormat ?? null,
    text_split: options.textSplit,
    text_field: options.textField,
    limit: options.limit ?? null,
    chat_template: own.chatTemplate === true,
    prefix_token: own.prefixToken === undefined ? null : parseInteger('--prefix-token', own.prefixToken),
    calib_tokens: subject.tokens ?? null,
    calib_length: subject.length ?? null,
    outputs: subject.outputs,
    precision: subject.precision,
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
