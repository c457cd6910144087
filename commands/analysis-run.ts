import type { AtomicFile } from '../src/formats/atomic.js';
import { createInputLedger, type InputDigest, type InputLedger } from '../src/formats/inputs.js';
import type { ComputeReference } from '../src/kernels/compute-thread.js';
import type { Cell } from '../src/report/csv.js';
import { buildReport, writeReport } from '../src/report/json.js';
import type { Figure } from '../src/report/plots/figure.js';
import { createProgress, type Progress } from '../src/report/progress.js';
import { type SummaryCell, summaryTable } from '../src/report/summary-table.js';
import { type ReportValue, reportObject } from '../src/report/values.js';
import { prepareAsserts } from './edge-asserts.js';
import { type OwnOutput, openOutputs } from './edge-outputs.js';
import { toolVersion } from './edge-version.js';
import { noticeSlowKernels } from './kernel-notice.js';
import { runInThread } from './run-in-thread.js';
import { type RunTimings, startRunTimings } from './run-timings.js';
import type { ANALYSIS_OPTIONS, SharedOptions } from './shared-options.js';

/** The shared options that every analysis has, and where a second table goes. */
export type AnalysisOptions = Pick<SharedOptions, (typeof ANALYSIS_OPTIONS)[number] | 'config' | 'debug'> &
  Partial<Pick<SharedOptions, 'table'>>;

/** What a view is, before it has seen its input. */
export interface AnalysisView {
  /** Name of the view and of its schema. */
  readonly name: string;
  /** The command line's words; `analyze-entropy <name>` when absent. */
  readonly command?: string;
  /** Columns of `--out`. */
  readonly columns: readonly string[];
  /** Columns of `--table`, where the view has that option. */
  readonly tableColumns?: readonly string[];
  /** Files that the view's own options name for writing, by option. */
  readonly files?: ReadonlyMap<string, string>;
  /** Files and directories that the view writes by itself, by option: none may be, or hold, an input or another output. */
  readonly targets?: ReadonlyMap<string, string>;
  /** Unit of the progress bar. */
  readonly unit: string;
  /** Files that are read: none may be an output. Their digests come from the ledger. */
  readonly inputs: readonly string[];
  /** Options that decide the result, for the report. */
  readonly parameters: Readonly<Record<string, ReportValue>>;
  /** What the figure's subtitle says. */
  readonly subtitle: string;
}

/** What a view works with. */
export interface AnalysisContext {
  readonly ledger: InputLedger;
  readonly progress: Progress;
  readonly timings: RunTimings;
  /** Runs a job in a thread of its own, so that signals and progress are served meanwhile. */
  run<A, R>(reference: ComputeReference<A, R>, args: A, onProgress?: (value: unknown) => void): Promise<R>;
  /** Takes rows of `--table` while they arise, where it was given; a view writes so or by `tableRows`. */
  readonly writeTableRow?: (cells: readonly Cell[]) => void;
  /** The view's own output file of an option, for what is too large to be held until the end; undefined when not given. */
  file(flag: string): Pick<AtomicFile, 'write'> | undefined;
  /** Takes what the view has written to a target of its own: it appears with the other outputs, or not at all. */
  join(output: OwnOutput): void;
  /** A line on standard error; also listed under `warnings` of the outcome by the view where it belongs there. */
  warn(message: string): void;
}

/** What a view makes of a run. */
export interface AnalysisOutcome {
  /** Body of the report. */
  readonly body: object;
  rows(): Iterable<readonly Cell[]>;
  tableRows?(): Iterable<readonly Cell[]>;
  figure?(subtitle: string): Promise<Figure>;
  /** What standard output shows. */
  readonly summary: { readonly header: readonly string[]; readonly rows: readonly (readonly SummaryCell[])[] };
  /** Digests of inputs that did not pass through the ledger (a model's files); they come first. */
  digests?(): Promise<readonly InputDigest[]>;
  /** Mergeable statistics, called for a shard. */
  partial?(): object;
  /** Bytes of the view's own output files, by option. */
  files?(): ReadonlyMap<string, Uint8Array>;
}

/** The two ways a view is run. */
export interface AnalysisWork {
  measure(context: AnalysisContext): Promise<AnalysisOutcome>;
  /** Lines of `--dry-run`: what would be read, which path is taken, peak memory. */
  plan(context: AnalysisContext): Promise<readonly (readonly SummaryCell[])[]>;
}

/**
 * Runs a view from its parsed options to its exit code: opens and so checks all outputs before the long work, writes
 * table, report, figure and timings together at its end, then holds the asserts against the report.
 */
export async function runAnalysis(view: AnalysisView, options: AnalysisOptions, work: AnalysisWork): Promise<number> {
  const command = view.command ?? `analyze-entropy ${view.name}`;
  const asserts = await prepareAsserts(options.assert, options.baseline);
  const timings = startRunTimings(command);
  const outputs = openOutputs(view.inputs, { force: options.force });
  try {
    const table = outputs.table('--out', options.out, view.columns, options.format);
    const secondTable =
      view.tableColumns && options.table ? outputs.table('--table', options.table, view.tableColumns) : undefined;
    const reportFile = outputs.file('--report', options.report);
    const plotFile = outputs.file('--plot', options.plot);
    const timingsFile = outputs.file('--timings', options.timings);
    const ownFiles = [...(view.files ?? [])].map(([flag, path]) => [flag, outputs.file(flag, path)] as const);
    for (const [flag, path] of view.targets ?? []) outputs.claim(flag, path);
    if (plotFile) (await import('../src/report/plots/figure.js')).plotExtension(options.plot as string);
    noticeSlowKernels();
    const ledger = createInputLedger();
    const progress = await createProgress({
      stream: process.stderr,
      quiet: options.quiet || options.dryRun,
      unit: view.unit,
      now: () => performance.now(),
    });
    const context: AnalysisContext = {
      ledger,
      progress,
      timings,
      ...(secondTable && { writeTableRow: (cells: readonly Cell[]) => secondTable.write(cells) }),
      file: (flag) => ownFiles.find(([own]) => own === flag)?.[1],
      join: outputs.join,
      run: (reference, args, onProgress) => runInThread(reference, args, onProgress, options.threads),
      warn(message) {
        if (!options.quiet) process.stderr.write(`warning: ${message}\n`);
      },
    };
    if (options.dryRun) {
      process.stdout.write(summaryTable(['plan', 'value'], await work.plan(context)));
      outputs.abort();
      return 0;
    }
    timings.begin('measure');
    const outcome = await work.measure(context);
    progress.stop();

    timings.begin('hash the inputs');
    const digests = [...((await outcome.digests?.()) ?? []), ...(await ledger.digests())];

    timings.begin('summarise and write');
    if (table) for (const row of outcome.rows()) table.write(row);
    if (secondTable && outcome.tableRows) for (const row of outcome.tableRows()) secondTable.write(row);
    const body =
      options.shard && outcome.partial
        ? { ...outcome.body, shard: options.shard, partial: outcome.partial() }
        : outcome.body;
    const report = buildReport(
      {
        name: view.name,
        tool: { name: 'surprisal', version: toolVersion() },
        command,
        parameters: view.parameters,
        inputs: digests,
      },
      reportObject(body),
    );
    if (reportFile) writeReport(report, reportFile);
    if (plotFile) {
      if (!outcome.figure) throw new Error(`${command} draws no figure`);
      const { plotBytes } = await import('../src/report/plots/figure.js');
      plotFile.write(await plotBytes(await outcome.figure(view.subtitle), options.plot as string));
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
