import type { Command } from 'commander';
import type { TokenisedDocument } from '../src/entropy/tokenised-document.js';
import type { WindowOptions } from '../src/entropy/windows.js';
import { InputError } from '../src/errors.js';
import { resolveModelPath } from '../src/formats/hub.js';
import { createInputLedger } from '../src/formats/inputs.js';
import type { ModelDescription } from '../src/models/description.js';
import type { EngineHost } from '../src/models/engine-host.js';
import { openModelFiles } from '../src/models/model-files.js';
import type { Cell } from '../src/report/csv.js';
import { buildReport, writeReport } from '../src/report/json.js';
import type { Figure } from '../src/report/plots/figure.js';
import { createProgress } from '../src/report/progress.js';
import { type SummaryCell, summaryTable } from '../src/report/summary-table.js';
import { type ReportObject, type ReportValue, reportObject } from '../src/report/values.js';
import { prepareAsserts } from './edge-asserts.js';
import { openOutputs } from './edge-outputs.js';
import { toolVersion } from './edge-version.js';
import {
  DEFAULT_CONTEXT,
  type ModelSession,
  openModelSession,
  PRECISION_OPTION,
  type Precision,
  parsePrecision,
} from './model-session.js';
import { startRunTimings } from './run-timings.js';
import { documentsOf, type ScoredTextOptions, windowOptions } from './scored-text.js';
import { attachShared, requireOption, type SharedOptions, TEXT_OPTIONS } from './shared-options.js';

const SHARED = ['model', ...TEXT_OPTIONS] as const;

export type WindowViewOptions = Pick<SharedOptions, (typeof SHARED)[number] | 'config' | 'debug'>;

/** Options that both views have beside the shared ones, as commander gives them. */
export interface WindowOwnOptions
  extends Pick<ScoredTextOptions, 'contextLen' | 'prefixToken' | 'chatTemplate' | 'idField'> {
  precision?: string;
}

/** What a view is given to work with. */
export interface WindowInputs {
  readonly host: EngineHost;
  readonly description: ModelDescription;
  readonly windows: WindowOptions;
  readonly documents: AsyncIterable<TokenisedDocument>;
  /** What the engine and all beside it may take. */
  readonly maxMemory: number;
  /** How the text was cut, for the report. */
  readonly convention: ReportObject;
  /** Takes rows of `--table`, where it was given. */
  readonly writeTableRow?: (cells: readonly Cell[]) => void;
  /** Tokens that went through the model since the last call. */
  onRows(rows: number): void;
}

/** What a view makes of a run. */
export interface WindowOutcome {
  readonly body: object;
  /** Mergeable statistics, called for a shard. */
  partial(): object;
  rows(): Iterable<readonly Cell[]>;
  figure(title: string): Promise<Figure>;
  /** What standard output shows. */
  readonly summary: { readonly header: readonly string[]; readonly rows: readonly (readonly SummaryCell[])[] };
  /** Positions that were measured; 0 is an error. */
  readonly measured: number;
  /** Bytes of the view's own output files, by option. */
  files?(): ReadonlyMap<string, Uint8Array>;
}

/** A view that sends windows of text through the layers of one model. */
export interface WindowView<O extends WindowOwnOptions> {
  readonly name: string;
  /** The command line's words; `analyze-entropy <name>` when absent. */
  readonly command?: string;
  readonly columns: readonly string[];
  readonly tableColumns: readonly string[];
  /** Checks the view's own options; what it returns goes into the report's parameters. Runs before anything is opened. */
  parameters(own: O, options: WindowViewOptions): Readonly<Record<string, ReportValue>>;
  /** Files that the view's own options name: what it reads, and what it writes by option. */
  files?(own: O): { readonly read: readonly string[]; readonly written: ReadonlyMap<string, string> };
  /** Memory that the view holds beside the engine. */
  reserveBytes(description: ModelDescription, context: number, precision: Precision): number;
  /** Lines of `--dry-run` beside those that every view has. */
  plan(description: ModelDescription, context: number, precision: Precision): readonly (readonly SummaryCell[])[];
  run(inputs: WindowInputs, own: O, options: WindowViewOptions): Promise<WindowOutcome>;
}

/** Declares the options of a view; the caller adds its own and the action. */
export function configureWindowView(command: Command): () => Promise<WindowViewOptions> {
  const read = attachShared(command, SHARED);
  command
    .option('--context-len <tokens>', 'tokens of context kept for every window after the first (default 1)')
    .option('--prefix-token <id>', 'token before the first one (default BOS, else EOS)')
    .option('--chat-template', "render the field messages by the model's chat template")
    .option('--id-field <name>', 'field that names a document (default id)')
    .option(...PRECISION_OPTION);
  return read;
}

/** Runs a view to its exit code. */
export async function runWindowView<O extends WindowOwnOptions>(
  view: WindowView<O>,
  options: WindowViewOptions,
  own: O,
): Promise<number> {
  const command = view.command ?? `analyze-entropy ${view.name}`;
  const model = requireOption(options.model, '--model', 'a model directory or a .gguf file');
  const data = requireOption(options.data, '--data', 'the text to read');
  const ownParameters = view.parameters(own, options);
  const asserts = await prepareAsserts(options.assert, options.baseline);
  const timings = startRunTimings(command);
  const files = view.files?.(own);
  const outputs = openOutputs([...data, ...(files?.read ?? [])], { force: options.force });
  try {
    const table = outputs.table('--out', options.out, view.columns, options.format);
    const secondTable = outputs.table('--table', options.table, view.tableColumns);
    const reportFile = outputs.file('--report', options.report);
    const plotFile = outputs.file('--plot', options.plot);
    const timingsFile = outputs.file('--timings', options.timings);
    const ownFiles = [...(files?.written ?? [])].map(([flag, path]) => [flag, outputs.file(flag, path)] as const);
    if (plotFile) (await import('../src/report/plots/figure.js')).plotExtension(options.plot as string);

    const precision = parsePrecision(own.precision);
    timings.begin('open the model');
    const description = describe(model);
    const longest = options.context ?? Math.min(description.maxPositions, DEFAULT_CONTEXT);
    const reserveBytes = view.reserveBytes(description, longest, precision);
    const session = await openModelSession(model, { ...options, precision, reserveBytes });
    const { host } = session;
    const { vocabularySize, maxPositions } = host.info;
    const subject = { ...session, name: model, vocabularySize, maxPositions };
    // lm-evaluation-harness's rolling windows: every token is predicted, and so every query counted, once.
    const windows = windowOptions(
      { stride: undefined },
      { contextLen: own.contextLen, prefixToken: own.prefixToken },
      subject,
    );
    if (options.dryRun) {
      process.stdout.write(
        describePlan(model, session, windows, reserveBytes, view.plan(description, longest, precision)),
      );
      await session.close();
      outputs.abort();
      return 0;
    }
    const ledger = createInputLedger();
    for (const path of files?.read ?? []) ledger.note(path);
    const progress = await createProgress({
      stream: process.stderr,
      quiet: options.quiet,
      unit: 'tokens',
      now: () => performance.now(),
    });

    timings.begin('measure');
    let fed = 0;
    const convention: ReportObject = {
      name: windows.convention,
      context_tokens: windows.context,
      context_len: windows.contextLength ?? 1,
      prefix_token: windows.prefixToken ?? null,
      model_type: host.info.modelType,
    };
    const inputs: WindowInputs = {
      host,
      description,
      windows,
      documents: documentsOf(data, { ...options, stride: undefined }, own, ledger, subject),
      maxMemory: options.maxMemory,
      convention,
      ...(secondTable && { writeTableRow: (cells: readonly Cell[]) => secondTable.write(cells) }),
      onRows(rows) {
        fed += rows;
        progress.update(fed);
      },
    };
    const outcome = await view.run(inputs, own, options);
    progress.stop();
    timings.count('tokens', fed);
    // A shard may be left without documents; the run as a whole may not.
    if (outcome.measured === 0 && !options.shard) {
      throw new InputError(`${data.join(', ')}: no token was read: the documents are empty`);
    }

    timings.begin('hash the inputs');
    const digests = [...(await session.digests()), ...(await ledger.digests())];
    await session.close();

    timings.begin('summarise and write');
    if (table) for (const row of outcome.rows()) table.write(row);
    const { body } = outcome;
    const report = buildReport(
      {
        name: view.name,
        tool: { name: 'surprisal', version: toolVersion() },
        command,
        parameters: {
          ...parametersOf(model, data, options, own, windows, precision),
          ...ownParameters,
        },
        inputs: digests,
      },
      reportObject(options.shard ? { ...body, shard: options.shard, partial: outcome.partial() } : body),
    );
    if (reportFile) writeReport(report, reportFile);
    if (plotFile) {
      const { plotBytes } = await import('../src/report/plots/figure.js');
      const figure = await outcome.figure(`${model}: ${data.join(', ')}`);
      plotFile.write(await plotBytes(figure, options.plot as string));
    }
    if (timingsFile) timings.write(timingsFile, options);
    const written = outcome.files?.();
    for (const [flag, file] of ownFiles) {
      const bytes = written?.get(flag);
      if (file && bytes) file.write(bytes);
    }
    outputs.commit();
    if (!options.quiet) process.stdout.write(summaryTable(outcome.summary.header, outcome.summary.rows));
    return asserts.check(report);
  } catch (error) {
    outputs.abort();
    throw error;
  }
}

/** The shape of the model, from its headers. */
function describe(model: string): ModelDescription {
  const { path } = resolveModelPath(model, process.env);
  if (path.toLowerCase().endsWith('.onnx')) {
    throw new InputError(
      `${model}: the layers inside an ONNX export are not reachable; pass the Hugging Face directory or the .gguf file`,
    );
  }
  const files = openModelFiles(path);
  files.store.close();
  return files.description;
}

function parametersOf(
  model: string,
  data: readonly string[],
  options: WindowViewOptions,
  own: WindowOwnOptions,
  windows: WindowOptions,
  precision: Precision,
): Record<string, ReportValue> {
  return {
    model,
    data: [...data],
    data_format: options.dataFormat ?? null,
    text_split: options.textSplit,
    text_field: options.textField,
    limit: options.limit ?? null,
    context: windows.context,
    context_len: windows.contextLength ?? null,
    prefix_token: windows.prefixToken ?? null,
    chat_template: own.chatTemplate === true,
    seed: options.seed,
    device: options.device,
    precision,
  };
}

function describePlan(
  model: string,
  session: ModelSession,
  windows: WindowOptions,
  reserveBytes: number,
  more: readonly (readonly SummaryCell[])[],
): string {
  const { info } = session.host;
  const mebibytes = (bytes: number): number => Math.ceil(bytes / 2 ** 20);
  return summaryTable(
    ['plan', 'value'],
    [
      ['model', `${model} (${info.modelType}, ${info.format})`],
      ['layers', info.layers ?? 'unknown'],
      ['windows', `${windows.convention}, ${windows.context} tokens a window`],
      ['weights', info.residence],
      ...more,
      ['memory beside the engine, MiB', mebibytes(reserveBytes)],
      ['peak memory, MiB', info.peakBytes === null ? 'unknown' : mebibytes(info.peakBytes)],
    ],
  );
}
