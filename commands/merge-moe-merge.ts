import { existsSync, rmSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { createInputLedger } from '../src/formats/inputs.js';
import { mergeBytes } from '../src/moe/merge-memory.js';
import { statisticsNeed, textUses } from '../src/moe/merge-needs.js';
import {
  budgetNotes,
  MERGE_COLUMNS,
  MERGE_SCHEMA,
  type MergeBody,
  type MergePredictions,
  mergeRows,
  parameterTotals,
  usageWarnings,
} from '../src/moe/merge-report.js';
import type { MergeSettings } from '../src/moe/merge-settings.js';
import { expertMethod, METHOD_NAMES } from '../src/moe/methods/registry.js';
import { buildReport, writeReport } from '../src/report/json.js';
import { createProgress } from '../src/report/progress.js';
import { type SummaryCell, summaryTable } from '../src/report/summary-table.js';
import { type ReportValue, reportObject } from '../src/report/values.js';
import { prepareAsserts } from './edge-asserts.js';
import { openOutputs } from './edge-outputs.js';
import { parseMemory } from './edge-values.js';
import { toolVersion } from './edge-version.js';
import { noticeSlowKernels } from './kernel-notice.js';
import { addMergeOptions, type MergeOptions, parseMergeSettings, settingsRecord } from './merge-moe-options.js';
import {
  calibrateSubject,
  hashSubject,
  layerErrors,
  MERGE_SHARED,
  type MergeContext,
  type MergeSubject,
  mergeMemory,
  openMergeSubject,
  runMerge,
  type SubjectOptions,
} from './merge-moe-subject.js';
import { evaluateBesideOriginal } from './model-evaluation.js';
import { PRECISION_OPTION } from './model-session.js';
import { startRunTimings } from './run-timings.js';
import { addScoredTextOptions } from './scored-text.js';
import { attachShared, requireOption, type SharedOptions } from './shared-options.js';

const SHARED = [...MERGE_SHARED, 'table', 'variant'] as const satisfies readonly (keyof SharedOptions)[];

type Shared = Pick<SharedOptions, (typeof SHARED)[number] | 'config' | 'debug'>;

interface OwnOptions extends MergeOptions, SubjectOptions {
  method?: string;
  maxShardSize?: string;
}

const COMMAND = 'merge-moe merge';
const DEFAULT_METHOD = 'm-smoe';
/** Kept beside the output while a run lasts. */
const STATISTICS = 'statistics';

/** Declares `surprisal merge-moe merge`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option('--method <name>', `${METHOD_NAMES.join(', ')} (default ${DEFAULT_METHOD})`)
    .option('--stats <folder...>', 'statistics of merge-moe calibrate, shards together; instead of --data')
    .option(
      '--gradients <file...>',
      'gradients of the experts (safetensors, named as the weights), for --combine fisher',
    )
    .option('--calib-tokens <n>', 'tokens of --data that are used (default: all, up to 65536)')
    .option('--calib-length <tokens>', 'tokens of a window (default: --context)')
    .option('--eval-data <file...>', 'text that the merged and the original model are judged by')
    .option('--eval-tokens <n>', 'use only the first n tokens of it')
    .option('--max-shard-size <size>', 'largest file of weights (default 5GB)');
  addMergeOptions(command);
  addScoredTextOptions(command)
    .option(...PRECISION_OPTION)
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<OwnOptions>());
    });
}

async function run(options: Shared, own: OwnOptions): Promise<number> {
  const asserts = await prepareAsserts(options.assert, options.baseline);
  const timings = startRunTimings(COMMAND);
  const out = requireOption(options.out, '--out', 'the directory to write');
  const subject = await openMergeSubject(options, own);
  const outputs = openOutputs([...subject.data, ...subject.evalData], { force: options.force, resume: options.resume });
  try {
    const request = { method: own.method ?? DEFAULT_METHOD, variant: options.variant, seed: options.seed };
    const settings = parseMergeSettings(own, subject.model, request);
    if (subject.gradients.length > 0 && settings.combine !== 'fisher') {
      throw new InputError('--gradients needs --combine fisher');
    }
    const table = outputs.table('--table', options.table, MERGE_COLUMNS);
    const reportFile = outputs.file('--report', options.report);
    const plotFile = outputs.file('--plot', options.plot);
    const timingsFile = outputs.file('--timings', options.timings);
    if (plotFile) (await import('../src/report/plots/figure.js')).plotExtension(options.plot as string);
    if (options.dryRun) {
      process.stdout.write(summaryTable(['plan', 'value'], planRows(subject, settings, options, out)));
      return 0;
    }
    checkTarget(out, options);
    checkMemory(subject, options);
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
    const memoryBytes = mergeMemory(subject, options, [settings]);
    const context: MergeContext = { subject, options, own, ledger, progress, timings, modelSha256, memoryBytes };
    const parameters = parametersOf(subject, settings, options, own);
    const body = await merge(context, settings, parameters, { out, digests, maxShardSize: own.maxShardSize, options });
    const evaluation = await evaluate(context, out);
    progress.stop();
    timings.begin('summarise and write');
    const whole: MergeBody = { ...body, evaluation };
    const report = buildReport(
      {
        name: MERGE_SCHEMA,
        tool: { name: 'surprisal', version: toolVersion() },
        command: COMMAND,
        parameters: { ...parameters, ...evaluationParameters(own) },
        inputs: [...digests, ...(await ledger.digests())],
      },
      reportObject(whole),
    );
    if (table) for (const layer of whole.layers) for (const row of mergeRows(layer)) table.write(row);
    if (reportFile) writeReport(report, reportFile);
    if (plotFile) {
      const { mergeFigure } = await import('../src/moe/merge-plot.js');
      const { plotBytes } = await import('../src/report/plots/figure.js');
      plotFile.write(await plotBytes(await mergeFigure(whole), options.plot as string));
    }
    if (timingsFile) timings.write(timingsFile, options);
    outputs.commit();
    rmSync(beside(out), { recursive: true, force: true });
    if (!options.quiet) {
      for (const warning of whole.warnings) process.stderr.write(`warning: ${warning}\n`);
      process.stdout.write(summary(whole, out));
    }
    return asserts.check(report);
  } catch (error) {
    // What was taken on the text is of use to a run that resumes, and to no other.
    if (!options.resume) rmSync(beside(out), { recursive: true, force: true });
    throw error;
  } finally {
    outputs.abort();
    subject.model.close();
  }
}

const beside = (out: string): string => join(dirname(resolve(out)), `.${basename(out)}.${STATISTICS}`);

function checkTarget(out: string, options: Shared): void {
  if (existsSync(out) && !options.force && !options.resume) {
    throw new InputError(`${out}: exists; pass --force to replace it, --resume to continue it, or choose another path`);
  }
}

/** @throws InputError when a group of the widest layer does not fit */
function checkMemory(subject: MergeSubject, options: Shared): void {
  const needed = mergeBytes(subject.model);
  const factor = subject.data.length + subject.evalData.length > 0 ? 2 : 1;
  if (needed * factor <= options.maxMemory) return;
  throw new InputError(
    `--max-memory: merging experts of this size takes ${Math.ceil((needed * factor) / 2 ** 20)} MiB` +
      (factor === 2 ? ', half of it beside the engine; statistics taken before (--stats) and no text take half' : ''),
  );
}

async function merge(
  context: MergeContext,
  settings: MergeSettings,
  parameters: Record<string, ReportValue>,
  run: {
    readonly out: string;
    readonly digests: Awaited<ReturnType<typeof hashSubject>>['digests'];
    readonly maxShardSize: string | undefined;
    readonly options: Shared;
  },
): Promise<Omit<MergeBody, 'evaluation'>> {
  const { subject, timings, ledger } = context;
  const { out, options } = run;
  const method = expertMethod(settings.method);
  const calibrated = await calibrateSubject(context, statisticsNeed(method, settings), beside(out));
  try {
    timings.begin('merge');
    const tool = { name: 'surprisal', version: toolVersion() };
    const inputs = [...run.digests, ...(await ledger.digests())];
    const result = await runMerge(
      context,
      calibrated,
      {
        out,
        settings,
        head: { tool, command: COMMAND, parameters, inputs },
        write: { force: options.force, resume: options.resume },
        ...(run.maxShardSize !== undefined && {
          maxShardBytes: parseMemory('--max-shard-size', run.maxShardSize, () => Number.MAX_SAFE_INTEGER),
        }),
      },
      'merge',
    );
    timings.begin('measure errors of layers');
    const { session, text, unseen, statistics } = calibrated;
    const errorsOn = async (part: typeof text) =>
      session && part ? (await layerErrors(context, session, part.windows, [out]))[0] : null;
    const { before, after } = parameterTotals(result.layers);
    const [first] = subject.model.layers;
    return {
      model: {
        family: subject.model.family,
        layout: subject.model.layout,
        layers_with_experts: subject.model.layers.length,
        experts: Math.max(...subject.model.layers.map(({ experts }) => experts)),
        experts_per_token: first.rule.topK,
        runs_here: subject.model.runs,
      },
      method: { name: method.name, kind: method.kind, reference: method.reference },
      statistics: statistics
        ? {
            tokens: statistics.header.tokens,
            parts: statistics.header.parts.length,
            outputs: statistics.header.outputs,
          }
        : null,
      result: {
        config_form: result.config_form,
        bytes_before: result.bytes_before,
        bytes_after: result.bytes_after,
        saved_share: 1 - result.bytes_after / result.bytes_before,
        budget: result.budget,
        expert_parameters_before: before,
        expert_parameters_after: after,
      },
      texts: { calibration: text?.record ?? null, held_out: unseen?.record ?? null },
      layers: result.layers,
      errors: { calibration: await errorsOn(text), held_out: await errorsOn(unseen) },
      notes: [...result.notes, ...budgetNotes(settings.budget)],
      warnings: [...result.warnings, ...usageWarnings(result.layers)],
    };
  } finally {
    await calibrated.close();
  }
}

async function evaluate(context: MergeContext, out: string): Promise<MergePredictions | null> {
  const { subject, options, own, ledger, progress, timings } = context;
  if (subject.evalData.length === 0) return null;
  timings.begin('evaluate');
  const record = await evaluateBesideOriginal({
    spec: subject.spec,
    path: out,
    options,
    text: own,
    data: subject.evalData,
    ...(subject.evalTokens !== undefined && { tokens: subject.evalTokens }),
    choices: [],
    precision: subject.precision,
    ledger,
    onTokens: (tokens) => progress.update(tokens, 'evaluate'),
  });
  return record.predictions ? { documents: record.documents, ...record.predictions } : null;
}

function parametersOf(
  subject: MergeSubject,
  settings: MergeSettings,
  options: Shared,
  own: OwnOptions,
): Record<string, ReportValue> {
  return {
    model: subject.spec,
    ...settingsRecord(settings),
    variant: options.variant ?? null,
    stats: [...subject.stats],
    gradients: [...subject.gradients],
    data: [...options.data],
    data_format: options.dataFormat ?? null,
    text_split: options.textSplit,
    text_field: options.textField,
    limit: options.limit ?? null,
    calib_tokens: subject.tokens ?? null,
    calib_length: subject.length ?? null,
    context: options.context ?? null,
    stride: options.stride ?? null,
    precision: subject.precision,
    device: options.device,
    max_shard_size: own.maxShardSize ?? null,
  };
}

function evaluationParameters(own: OwnOptions): Record<string, ReportValue> {
  return {
    eval_data: [...(own.evalData ?? [])],
    eval_tokens: own.evalTokens === undefined ? null : Number(own.evalTokens),
    convention: own.convention ?? null,
  };
}

/** Lines of `--dry-run`. */
function planRows(subject: MergeSubject, settings: MergeSettings, options: Shared, out: string): SummaryCell[][] {
  const { model } = subject;
  const method = expertMethod(settings.method);
  const merged = model.layers.filter(({ layer }) => !settings.excluded.includes(layer));
  const bytes = [...model.store.tensors.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
  const uses = textUses(method, settings);
  return [
    ['model', `${subject.spec} (${model.family}, ${model.layout})`],
    ['layers with experts', `${model.layers.length}, ${merged.length} of them merged`],
    ['method', `${method.name}: ${method.summary}`],
    ['experts kept in a layer', `${settings.experts} (${settings.budget})`],
    ['statistics needed', statisticsNeed(method, settings)],
    ['text runs once more for', uses.length > 0 ? uses.join(', ') : 'nothing'],
    ['router', settings.router],
    ['bytes read', bytes],
    ['directory', out],
    ['peak memory of merging in bytes, about', mergeMemory(subject, options, [settings])],
    ['memory limit in bytes', options.maxMemory],
  ];
}

function summary(body: MergeBody, out: string): string {
  const held = body.errors.held_out;
  const errors = held ?? body.errors.calibration;
  const rows = body.layers.map((layer): SummaryCell[] => {
    const error = errors?.find((record) => record.layer === layer.layer);
    return [
      layer.layer,
      layer.experts_before,
      layer.experts_after,
      layer.effective_experts_before ?? undefined,
      layer.effective_experts_after ?? undefined,
      error?.relative_error,
      error?.expert_error ?? undefined,
      error?.routing_error ?? undefined,
    ];
  });
  const text = held ? 'held out' : 'calibration';
  const header = [
    'layer',
    'experts',
    'kept',
    'effective before',
    'after',
    `error (${text})`,
    'of experts',
    'of routing',
  ];
  const { result, evaluation } = body;
  const lines = [
    `${out}: ${result.bytes_before} bytes to ${result.bytes_after} (${(100 * result.saved_share).toFixed(1)} % saved), ` +
      `config ${result.config_form}`,
    ...(evaluation
      ? [
          `perplexity ${evaluation.base_perplexity.toPrecision(6)} to ${evaluation.perplexity.toPrecision(6)}, KL ` +
            `${evaluation.mean_kl_nats.toPrecision(4)} +- ${evaluation.mean_kl_nats_se.toPrecision(2)} nats`,
        ]
      : []),
    ...body.notes,
  ];
  return `${summaryTable(header, rows)}${lines.join('\n')}\n`;
}
