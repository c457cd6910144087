import { rmSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { createInputLedger, type InputDigest } from '../src/formats/inputs.js';
import {
  COMPARE_COLUMNS,
  COMPARE_SCHEMA,
  type CompareBody,
  type CompareRow,
  compareTableRow,
} from '../src/moe/compare-report.js';
import { greaterNeed, type StatisticsNeed } from '../src/moe/methods/method.js';
import { buildReport, writeReport } from '../src/report/json.js';
import { createProgress } from '../src/report/progress.js';
import { type SummaryCell, summaryTable } from '../src/report/summary-table.js';
import { type ReportValue, reportObject } from '../src/report/values.js';
import { compareOne, originalRecord } from './compare-candidates.js';
import { type PlannedRow, planRow } from './compare-rows.js';
import { prepareAsserts } from './edge-asserts.js';
import { type Checkpoint, openCheckpoint } from './edge-checkpoint.js';
import { openOutputs } from './edge-outputs.js';
import { removeBeforeExit } from './edge-run.js';
import { toolVersion } from './edge-version.js';
import { noticeSlowKernels } from './kernel-notice.js';
import {
  type Calibrated,
  calibrateSubject,
  hashSubject,
  MERGE_SHARED,
  type MergeContext,
  type MergeSubject,
  mergeMemory,
  openMergeSubject,
  type SubjectOptions,
} from './merge-moe-subject.js';
import { PRECISION_OPTION } from './model-session.js';
import { startRunTimings } from './run-timings.js';
import { addScoredTextOptions } from './scored-text.js';
import { attachShared, requireOption, type SharedOptions } from './shared-options.js';

const SHARED = [...MERGE_SHARED, 'format'] as const satisfies readonly (keyof SharedOptions)[];

type Shared = Pick<SharedOptions, (typeof SHARED)[number] | 'config' | 'debug'>;

interface OwnOptions extends SubjectOptions {
  experts?: string[];
  methods?: string[];
}

const COMMAND = 'merge-moe compare';
/** Without `--methods`. Every subset of many experts takes long, so `naee` is left out beyond this number. */
const DEFAULT_METHODS =
  'random average m-smoe:align=none m-smoe m-smoe:router-rows=mean,refit=group hc-smoe hc-smoe:align=weights sub-moe frequency reap naee compress m-smoe:router-rows=mean,refit=layer reap:refit=layer';
const MOST_EXPERTS_OF_NAEE = 16;

/** Declares `surprisal merge-moe compare`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option('--experts <n...>', 'experts kept in a layer; several sizes are compared')
    .option('--methods <rows...>', `rows, method or method:option=value,flag (default ${DEFAULT_METHODS})`)
    .option('--stats <folder...>', 'statistics of merge-moe calibrate; instead of taking them on --data')
    .option(
      '--gradients <file...>',
      'gradients of the experts (safetensors, named as the weights), for --combine fisher',
    )
    .option('--calib-tokens <n>', 'tokens of --data that are used (default: all, up to 65536)')
    .option('--calib-length <tokens>', 'tokens of a window (default: --context)')
    .option('--eval-data <file...>', 'unseen text that all models are judged by')
    .option('--eval-tokens <n>', 'use only the first n tokens of it');
  addScoredTextOptions(command)
    .option(...PRECISION_OPTION)
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<OwnOptions>());
    });
}

/** What a stopped comparison keeps. */
interface CompareState {
  readonly rows: CompareRow[];
}

async function run(options: Shared, own: OwnOptions): Promise<number> {
  const asserts = await prepareAsserts(options.assert, options.baseline);
  const timings = startRunTimings(COMMAND);
  const subject = await openMergeSubject(options, own);
  const outputs = openOutputs([...subject.data, ...subject.evalData], { force: options.force, resume: options.resume });
  try {
    if (!subject.description || subject.evalData.length === 0) {
      throw new InputError('--eval-data is missing: models are compared on unseen text');
    }
    const plan = planRows(subject, options, own);
    if (
      subject.gradients.length > 0 &&
      !plan.some((row) => row.kind === 'experts' && row.settings.combine === 'fisher')
    ) {
      throw new InputError('--gradients: no row combines by them; add one such as m-smoe:combine=fisher');
    }
    const table = outputs.table('--out', options.out, COMPARE_COLUMNS, options.format);
    const reportFile = outputs.file('--report', options.report);
    const plotFile = outputs.file('--plot', options.plot);
    const timingsFile = outputs.file('--timings', options.timings);
    if (plotFile) (await import('../src/report/plots/figure.js')).plotExtension(options.plot as string);
    if (options.dryRun) {
      const lines = plan.map(({ spec, experts, need }): SummaryCell[] => [spec.name, experts, need]);
      process.stdout.write(summaryTable(['row', 'experts', 'statistics'], lines));
      return 0;
    }
    noticeSlowKernels();
    const ledger = createInputLedger();
    const progress = await createProgress({
      stream: process.stderr,
      quiet: options.quiet,
      unit: '',
      now: () => performance.now(),
    });
    timings.begin('hash the inputs');
    const { digests, modelSha256 } = await hashSubject(subject);
    for (const folder of subject.stats) ledger.note(join(folder, 'statistics.safetensors'));
    for (const file of subject.gradients) ledger.note(file);
    const merges = plan.flatMap((row) => (row.kind === 'experts' ? [row.settings] : []));
    const memoryBytes = mergeMemory(subject, options, merges);
    const context: MergeContext = { subject, options, own, ledger, progress, timings, modelSha256, memoryBytes };
    const parameters = parametersOf(subject, plan, options, own);
    const anchor = options.out ?? options.report;
    const checkpoint = openCheckpoint<CompareState>(anchor, { ...parameters, model: modelSha256 }, options.resume);
    const body = await compare(context, plan, { anchor: anchor ?? 'compare', digests, parameters, checkpoint });
    progress.stop();
    timings.begin('summarise and write');
    const report = buildReport(
      {
        name: COMPARE_SCHEMA,
        tool: { name: 'surprisal', version: toolVersion() },
        command: COMMAND,
        parameters,
        inputs: [...digests, ...(await ledger.digests())],
      },
      reportObject(body),
    );
    if (table) for (const row of body.rows) table.write(compareTableRow(row));
    if (reportFile) writeReport(report, reportFile);
    if (plotFile) {
      const { compareFigure } = await import('../src/moe/compare-plot.js');
      const { plotBytes } = await import('../src/report/plots/figure.js');
      plotFile.write(await plotBytes(await compareFigure(body), options.plot as string));
    }
    if (timingsFile) timings.write(timingsFile, options);
    outputs.commit();
    checkpoint.remove();
    rmSync(scratch(anchor ?? 'compare', 'statistics'), { recursive: true, force: true });
    if (!options.quiet) process.stdout.write(summary(body));
    return asserts.check(report);
  } finally {
    outputs.abort();
    subject.model.close();
  }
}

/** Rows of all sizes, one size after the other. */
function planRows(subject: MergeSubject, options: Shared, own: OwnOptions): PlannedRow[] {
  const sizes = requireOption(own.experts, '--experts', 'how many experts of a layer stay; several sizes may stand');
  const most = Math.max(...subject.model.layers.map(({ experts }) => experts));
  const usual = DEFAULT_METHODS.split(' ').filter((name) => name !== 'naee' || most <= MOST_EXPERTS_OF_NAEE);
  const specs = (own.methods ?? usual).flatMap((text) => text.split(/\s+/)).filter((name) => name !== '');
  return sizes.flatMap((experts) => specs.map((name) => planRow(name, experts, subject.model, options.seed)));
}

/** A working folder beside the main output. */
const scratch = (anchor: string, kind: string): string =>
  join(dirname(resolve(anchor)), `.${basename(anchor)}.${kind}`);

async function compare(
  context: MergeContext,
  plan: readonly PlannedRow[],
  run: {
    readonly anchor: string;
    readonly digests: readonly InputDigest[];
    readonly parameters: Record<string, ReportValue>;
    readonly checkpoint: Checkpoint<CompareState>;
  },
): Promise<CompareBody> {
  const { anchor, checkpoint } = run;
  const need = plan.reduce<StatisticsNeed>((all, row) => greaterNeed(all, row.need), 'none');
  const folder = scratch(anchor, 'model');
  const forget = removeBeforeExit(folder);
  let calibrated: Calibrated | undefined;
  try {
    calibrated = await calibrateSubject(context, need, scratch(anchor, 'statistics'));
    const state: CompareState = { rows: [...(checkpoint.found?.rows ?? [])] };
    for (const planned of plan.slice(state.rows.length)) {
      const label = `${planned.spec.name}, ${planned.experts}`;
      context.timings.begin(label);
      state.rows.push(await compareOne(context, calibrated, planned, { out: folder, command: COMMAND }));
      checkpoint.save(state);
    }
    const { text, unseen } = calibrated;
    if (!unseen) throw new RangeError('a comparison without unseen text');
    return {
      ...originalRecord(context, state.rows[0]),
      texts: { calibration: text?.record ?? null, held_out: unseen.record },
      rows: state.rows,
    };
  } finally {
    await calibrated?.close();
    forget();
    rmSync(folder, { recursive: true, force: true });
    if (!context.options.resume) rmSync(scratch(anchor, 'statistics'), { recursive: true, force: true });
  }
}

function parametersOf(
  subject: MergeSubject,
  plan: readonly PlannedRow[],
  options: Shared,
  own: OwnOptions,
): Record<string, ReportValue> {
  return {
    model: subject.spec,
    rows: plan.map(({ spec, experts }) => `${spec.name} ${experts}`),
    stats: [...subject.stats],
    gradients: [...subject.gradients],
    data: [...options.data],
    data_format: options.dataFormat ?? null,
    text_split: options.textSplit,
    text_field: options.textField,
    limit: options.limit ?? null,
    calib_tokens: subject.tokens ?? null,
    calib_length: subject.length ?? null,
    eval_data: [...(own.evalData ?? [])],
    eval_tokens: subject.evalTokens ?? null,
    context: options.context ?? null,
    stride: options.stride ?? null,
    convention: own.convention ?? null,
    precision: subject.precision,
    device: options.device,
    seed: options.seed,
  };
}

function summary({ original, rows }: CompareBody): string {
  const header = ['method', 'experts', 'bytes', 'error', 'of experts', 'of routing', 'perplexity', 'KL, nats', 'top-1'];
  const lines = rows.map((row): SummaryCell[] => [
    row.name,
    row.experts ?? undefined,
    row.bytes,
    row.mean_relative_error,
    row.mean_expert_error ?? undefined,
    row.mean_routing_error ?? undefined,
    row.predictions.perplexity,
    row.predictions.mean_kl_nats,
    row.predictions.top1_agreement,
  ]);
  const first: SummaryCell[] = ['original', undefined, original.bytes, 0, 0, 0, original.perplexity, 0, 1];
  return summaryTable(header, [first, ...lines]);
}
