import type { Command } from 'commander';
import {
  addCaptureRows,
  CAPTURE_SCHEMA,
  type CaptureBody,
  captureFigures,
  captureSummary,
  createCaptureStatistics,
} from '../src/distillation/capture-statistics.js';
import { InputError } from '../src/errors.js';
import { type AtomicFile, createAtomicFile } from '../src/formats/atomic.js';
import { withRange } from '../src/formats/files.js';
import { createInputLedger, expandSources, type InputDigest, type InputLedger } from '../src/formats/inputs.js';
import { buildReport, writeReport } from '../src/report/json.js';
import { createProgress } from '../src/report/progress.js';
import { summaryTable } from '../src/report/summary-table.js';
import { reportObject } from '../src/report/values.js';
import { type CaptureHeader, createCapture, windowsSha256 } from '../src/training/language/capture-file.js';
import type { CapturedRows } from '../src/training/language/capture-job.js';
import { CAPTURE_DTYPES, captureRowBytes } from '../src/training/language/capture-rows.js';
import type { TokenWindows } from '../src/training/language/token-data.js';
import {
  addLearningTextOptions,
  LEARNING_TEXT_SHARED,
  type LearningTextOptions,
  learningTextParameters,
} from './distill-text.js';
import { prepareAsserts } from './edge-asserts.js';
import { openOutputs } from './edge-outputs.js';
import { flagOf, parseChoice, parseInteger, parseNumber } from './edge-values.js';
import { toolVersion } from './edge-version.js';
import { PRECISION_OPTION } from './model-session.js';
import { startRunTimings } from './run-timings.js';
import { attachShared, requireOption, type SharedOptions } from './shared-options.js';

const COMMAND = 'distill-pld capture';
const DEFAULT_K = 64;
const DEFAULT_DTYPE = 'q8';

const SHARED = [
  ...LEARNING_TEXT_SHARED,
  'model',
  'out',
  'report',
  'shard',
  'threads',
  'maxMemory',
  'device',
  'assert',
  'baseline',
  'timings',
  'quiet',
  'dryRun',
  'force',
  'resume',
] as const;

export type CaptureShared = Pick<SharedOptions, (typeof SHARED)[number] | 'config' | 'debug'>;

/** Own options, as commander gives them. */
export interface CaptureOptions extends LearningTextOptions {
  readonly teacher?: string;
  readonly responses?: readonly string[];
  readonly texts?: string;
  readonly vocabularySize?: string;
  readonly topK?: string;
  readonly dtype?: string;
  readonly temperature?: string;
  readonly precision?: string;
}

/** Where the rows of a capture come from. */
export interface CaptureSource {
  readonly kind: CaptureBody['source'];
  readonly vocabulary: number;
  readonly tokenizerSha256: string;
  readonly modelSha256: string;
  readonly windows: TokenWindows;
  /** [windows, length]: 1 at the positions that are captured. */
  readonly wanted: Uint8Array;
  /** Windows that are asked for at once. */
  readonly windowsAtOnce: number;
  /** Entries of responses whose token is not known. */
  readonly unknownTokens: number | null;
  /** Rows of windows from..to-1. */
  rows(from: number, to: number): Promise<CapturedRows>;
  digests(): Promise<InputDigest[]>;
  close(): Promise<void>;
}

/** What decides the stored bytes beside the source. */
export interface CaptureSettings {
  readonly k: number;
  readonly dtype: CaptureHeader['dtype'];
  readonly temperature: number;
}

/** Declares `surprisal distill-pld capture`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  addLearningTextOptions(command)
    .option('--teacher <model>', 'whose predictions are kept (the same as --model)')
    .option('--responses <file...>', 'JSONL of an inference server with top log-probabilities, in place of --data')
    .option('--texts <file.jsonl>', 'token ids of the responses, to train on as --data')
    .option('--vocabulary-size <n>', "classes of the model behind --responses (default the teacher's configuration)")
    .option('--top-k <k>', `tokens that are kept of every distribution (default ${DEFAULT_K})`)
    .option('--dtype <type>', `how log-probabilities are stored: q8, f16 or f32 (default ${DEFAULT_DTYPE})`)
    .option('--temperature <t>', 'temperature of the stored distributions (default 1)')
    .option(...PRECISION_OPTION);
  command.action(async () => {
    process.exitCode = await run(await read(), command.opts<CaptureOptions>());
  });
}

function settingsOf(own: CaptureOptions): CaptureSettings {
  const temperature = parseNumber('--temperature', own.temperature ?? '1', 0);
  if (!(temperature > 0)) throw new InputError(`--temperature ${own.temperature}: must be above 0`);
  return {
    k: parseInteger('--top-k', own.topK ?? String(DEFAULT_K), 1),
    dtype: parseChoice('--dtype', own.dtype ?? DEFAULT_DTYPE, CAPTURE_DTYPES),
    temperature,
  };
}

/** The model whose predictions are kept, or whose tokenizer names the tokens of responses. */
export function teacherOf(options: CaptureShared, own: CaptureOptions): string {
  if (own.teacher !== undefined && options.model !== undefined && own.teacher !== options.model) {
    throw new InputError('--teacher and --model name the same thing; give one of them');
  }
  return requireOption(own.teacher ?? options.model, '--teacher', 'the model whose predictions are kept');
}

async function openSource(
  options: CaptureShared,
  own: CaptureOptions,
  settings: CaptureSettings,
  ledger: InputLedger,
): Promise<CaptureSource> {
  if (own.responses === undefined) {
    const stray = (['texts', 'vocabularySize'] as const).find((name) => own[name] !== undefined);
    if (stray) throw new InputError(`${flagOf(stray)} needs --responses`);
    const { openModelSource } = await import('./distill-capture-model.js');
    return openModelSource(options, own, settings, ledger);
  }
  const { openResponseSource } = await import('./distill-capture-responses.js');
  return openResponseSource(options, own, settings, ledger);
}

/** Windows of this shard: an equal share of all, in one piece. */
function shardOf({ shard }: CaptureShared, count: number): { first: number; end: number } {
  if (!shard) return { first: 0, end: count };
  const cut = (i: number): number => Math.floor((i * count) / shard.count);
  return { first: cut(shard.index), end: cut(shard.index + 1) };
}

async function run(options: CaptureShared, own: CaptureOptions): Promise<number> {
  const asserts = await prepareAsserts(options.assert, options.baseline);
  const timings = startRunTimings(COMMAND);
  const out = requireOption(options.out, '--out', 'the file to write');
  const settings = settingsOf(own);
  const inputs = await expandSources([...(options.data ?? []), ...(own.responses ?? [])]);
  const outputs = openOutputs([...inputs, out], { force: options.force, resume: options.resume });
  const ledger = createInputLedger();
  let capture: AtomicFile | undefined;
  let source: CaptureSource | undefined;
  try {
    const reportFile = outputs.file('--report', options.report);
    const textsFile = outputs.file('--texts', own.texts);
    const timingsFile = outputs.file('--timings', options.timings);
    timings.begin('open the source');
    source = await openSource(options, own, settings, ledger);
    const header = headerOf(options, settings, source);
    if (options.dryRun) {
      process.stdout.write(summaryTable(['plan', 'value'], planRows(header, source)));
      return 0;
    }
    capture = createAtomicFile(out, { force: options.force, resume: options.resume, resumable: true });
    timings.begin('capture');
    const { statistics, resumedRows, rows } = await writeCapture(options, capture, header, source);
    timings.count('tokens', rows - resumedRows);
    timings.begin('summarise');
    const bytes = capture.position;
    const body: CaptureBody = {
      source: source.kind,
      vocabulary: header.vocabulary,
      ...settings,
      k: header.k,
      windows: header.windows,
      positions_of_a_window: header.length,
      first_window: header.first,
      stored_windows: header.stored,
      rows,
      resumed_rows: resumedRows,
      bytes,
      bytes_per_row: captureRowBytes(header),
      ...captureFigures(statistics),
      tokenizer_sha256: header.tokenizerSha256,
      model_sha256: header.modelSha256,
      data_sha256: header.dataSha256,
      unknown_tokens: source.unknownTokens,
    };
    const report = buildReport(
      {
        name: CAPTURE_SCHEMA,
        tool: { name: 'surprisal', version: toolVersion() },
        command: COMMAND,
        parameters: parametersOf(options, own, settings),
        inputs: [...(await source.digests()), ...(await ledger.digests())],
      },
      reportObject(body),
    );
    if (reportFile) writeReport(report, reportFile);
    if (textsFile) {
      const { responseTextLines } = await import('./distill-capture-responses.js');
      textsFile.write(responseTextLines(source));
    }
    if (timingsFile) timings.write(timingsFile, options);
    capture.commit();
    outputs.commit();
    if (!options.quiet) process.stdout.write(summaryTable(['capture', 'value'], captureSummary(body)));
    return asserts.check(report);
  } finally {
    capture?.abort();
    outputs.abort();
    await source?.close();
  }
}

function headerOf(options: CaptureShared, settings: CaptureSettings, source: CaptureSource): CaptureHeader {
  const { windows, vocabulary, tokenizerSha256, modelSha256 } = source;
  const { first, end } = shardOf(options, windows.count);
  return {
    ...settings,
    k: Math.min(settings.k, vocabulary),
    vocabulary,
    tokenizerSha256,
    modelSha256,
    dataSha256: windowsSha256(windows),
    windows: windows.count,
    length: windows.length,
    first,
    stored: end - first,
  };
}

const countOf = (wanted: Uint8Array): number => wanted.reduce((sum, one) => sum + one, 0);

function wantedOf(header: CaptureHeader, source: CaptureSource): Uint8Array {
  const { first, stored, length } = header;
  return source.wanted.subarray(first * length, (first + stored) * length);
}

function planRows(header: CaptureHeader, source: CaptureSource): [string, string | number][] {
  const rows = countOf(wantedOf(header, source));
  return [
    ['windows', header.stored],
    ['tokens captured', rows],
    ['vocabulary', header.vocabulary],
    ['bytes a token', captureRowBytes(header)],
    ['bytes', rows * captureRowBytes(header)],
  ];
}

async function writeCapture(
  options: CaptureShared,
  file: AtomicFile,
  header: CaptureHeader,
  source: CaptureSource,
): Promise<{ statistics: ReturnType<typeof createCaptureStatistics>; resumedRows: number; rows: number }> {
  const { first, stored, length, k } = header;
  const wanted = wantedOf(header, source);
  const leftover = (count: number): Uint8Array =>
    withRange(file.partialPath, (range) => {
      const bytes = new Uint8Array(count);
      range.readInto(0, count, bytes);
      range.close();
      return bytes;
    });
  const writer = createCapture(file, header, wanted, leftover);
  const statistics = createCaptureStatistics();
  const total = countOf(wanted);
  const progress = await createProgress({
    stream: process.stderr,
    quiet: options.quiet,
    unit: 'tokens',
    total,
    now: () => performance.now(),
  });
  let rows = 0;
  for (let at = 0; at < stored; at += source.windowsAtOnce) {
    const end = Math.min(stored, at + source.windowsAtOnce);
    const asked = countOf(wanted.subarray(at * length, end * length));
    // Windows that an interrupted run has stored; of the one that it was in, the rest is written.
    const skipped = Math.min(asked, Math.max(0, writer.resumedRows - rows));
    rows += asked;
    if (skipped === asked) continue;
    const found = await source.rows(first + at, first + end);
    const teacher = {
      kind: 'top' as const,
      k,
      ids: found.ids.subarray(skipped * k),
      logProbs: found.logProbs.subarray(skipped * k),
      leftover: found.leftover.subarray(skipped),
    };
    writer.append(teacher, asked - skipped);
    addCaptureRows(statistics, teacher, asked - skipped, header);
    progress.update(rows);
  }
  progress.stop();
  writer.finish();
  return { statistics, resumedRows: writer.resumedRows, rows };
}

function parametersOf(
  options: CaptureShared,
  own: CaptureOptions,
  settings: CaptureSettings,
): Parameters<typeof buildReport>[0]['parameters'] {
  return {
    teacher: teacherOf(options, own),
    ...learningTextParameters(options, own),
    responses: own.responses ? [...own.responses] : null,
    top_k: settings.k,
    dtype: settings.dtype,
    temperature: settings.temperature,
    precision: own.precision ?? 'f32',
    shard: options.shard ? `${options.shard.index}/${options.shard.count}` : null,
  };
}
