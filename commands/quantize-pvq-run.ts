import { existsSync, rmSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { createInputLedger, expandSources, type InputDigest, type InputLedger } from '../src/formats/inputs.js';
import { type ModelFiles, openModelFiles } from '../src/models/model-files.js';
import { dequantizeModel } from '../src/quantization/dequantize.js';
import { exportQuantized } from '../src/quantization/export-quantized.js';
import { quantizingBytes } from '../src/quantization/foresee.js';
import { fuseIntoDirectory } from '../src/quantization/fuse-job.js';
import {
  type QuantizeModelArguments,
  type QuantizeProgress,
  quantizeModel,
} from '../src/quantization/quantize-model.js';
import {
  type EvaluationRecord,
  QUANTIZE_SCHEMA,
  type QuantizeBody,
  TENSOR_COLUMNS,
  tensorRow,
} from '../src/quantization/quantize-report.js';
import type { QuantizeSettings } from '../src/quantization/settings.js';
import { sourceRecord } from '../src/quantization/source-bits.js';
import { selectTensors } from '../src/quantization/tensor-selection.js';
import { buildReport, writeReport } from '../src/report/json.js';
import { createProgress, type Progress } from '../src/report/progress.js';
import { summaryTable } from '../src/report/summary-table.js';
import { reportObject } from '../src/report/values.js';
import { prepareAsserts } from './edge-asserts.js';
import { openOutputs } from './edge-outputs.js';
import { parseChoice, parseInteger } from './edge-values.js';
import { toolVersion } from './edge-version.js';
import { noticeSlowKernels } from './kernel-notice.js';
import { modelDigests } from './model-digests.js';
import { evaluateBesideOriginal } from './model-evaluation.js';
import { PRECISION_OPTION, parsePrecision } from './model-session.js';
import { type Calibration, type CalibrationRequest, prepareHessians } from './quantize-calibration.js';
import { addCodeOptions, addSubjectOptions } from './quantize-pvq-options.js';
import {
  DTYPES,
  FORMATS,
  isExport,
  openSubject,
  type QuantizeOptions,
  type QuantizeShared,
  SHARED,
  type Subject,
} from './quantize-pvq-subject.js';
import {
  calibrationBody,
  evaluationParameters,
  parametersOf,
  planRows,
  sensitivityTokens,
  summary,
} from './quantize-pvq-summary.js';
import { runInThread } from './run-in-thread.js';
import { type RunTimings, startRunTimings } from './run-timings.js';
import { addScoredTextOptions } from './scored-text.js';
import { attachShared } from './shared-options.js';

/** Declares `surprisal quantize-pvq`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  addCodeOptions(addSubjectOptions(command))
    .option('--format <kind>', `what is written: ${FORMATS.join(', ')} (default pvq)`)
    .option('--dtype <type>', `of --format dequantized: ${DTYPES.join(', ')} (default bf16)`)
    .option('--eval-data <file...>', 'text on which the quantised and the original model predict')
    .option('--eval-tokens <n>', 'use only the first n tokens of it')
    .option('--choices <file...>', 'questions with choices, answered before and after')
    .option('--activations <code>', 'evaluate with quantised activations: int8, int4:0.9:rotated, pvq:16:48:4:rotated');
  addScoredTextOptions(command)
    .option(...PRECISION_OPTION)
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<QuantizeOptions>());
    });
}

async function run(options: QuantizeShared, own: QuantizeOptions): Promise<number> {
  const asserts = await prepareAsserts(options.assert, options.baseline);
  const timings = startRunTimings('quantize-pvq');
  const subject = await openSubject(options, own);
  const evaluated = await evaluationSources(options, own);
  const outputs = openOutputs([...subject.data, ...evaluated.data, ...evaluated.choices], {
    force: options.force,
    resume: options.resume,
  });
  const folder = dirname(resolve(subject.out));
  const beside = (kind: string): string => join(folder, `.${basename(subject.out)}.${kind}`);
  try {
    const table = outputs.table('--table', options.table, TENSOR_COLUMNS);
    const reportFile = outputs.file('--report', options.report);
    const plotFile = outputs.file('--plot', options.plot);
    const timingsFile = outputs.file('--timings', options.timings);
    if (plotFile) (await import('../src/report/plots/figure.js')).plotExtension(options.plot as string);
    if (options.dryRun) {
      process.stdout.write(summaryTable(['plan', 'value'], planRows(subject, options, own)));
      return 0;
    }
    checkTarget(subject.out, options);
    checkMemory(subject, options);
    noticeSlowKernels();
    const ledger = createInputLedger();
    const progress = await createProgress({
      stream: process.stderr,
      quiet: options.quiet,
      unit: 'weights',
      now: () => performance.now(),
    });
    const context: RunContext = { options, own, subject, ledger, progress, timings, beside };
    timings.begin('hash the inputs');
    const { digests } = await modelDigests(subject.spec, subject.path);
    const { body, calibration } = await quantize(context, digests);
    const evaluation = await evaluate(context, evaluated);
    progress.stop();
    timings.begin('summarise and write');
    const whole: QuantizeBody = { ...body, ...calibrationBody(calibration), evaluation };
    const report = buildReport(
      {
        name: QUANTIZE_SCHEMA,
        tool: { name: 'surprisal', version: toolVersion() },
        command: 'quantize-pvq',
        parameters: { ...parametersOf(subject, options, own), ...evaluationParameters(own) },
        inputs: [...digests, ...(await ledger.digests())],
      },
      reportObject(whole),
    );
    if (table) for (const tensor of body.tensors) table.write(tensorRow(tensor));
    if (reportFile) writeReport(report, reportFile);
    if (plotFile) {
      const { quantizeFigure } = await import('../src/quantization/quantize-plot.js');
      const { plotBytes } = await import('../src/report/plots/figure.js');
      plotFile.write(await plotBytes(await quantizeFigure(whole), options.plot as string));
    }
    if (timingsFile) timings.write(timingsFile, options);
    outputs.commit();
    for (const kind of WORK_KINDS) rmSync(beside(kind), { recursive: true, force: true });
    if (!options.quiet) process.stdout.write(summary(whole, subject.out));
    return asserts.check(report);
  } finally {
    outputs.abort();
    subject.files.store.close();
  }
}

/** What a run leaves beside its output while it works. */
const WORK_KINDS = ['fused', 'hessians.safetensors', 'pvq'] as const;

function checkTarget(out: string, options: QuantizeShared): void {
  if (existsSync(out) && !options.force && !options.resume) {
    throw new InputError(`${out}: exists; pass --force to replace it, --resume to continue it, or choose another path`);
  }
}

/** @throws InputError when a band of rows and the widest Hessian do not fit */
function checkMemory({ selection, settings, calibrated }: Subject, { maxMemory }: QuantizeShared): void {
  const bits = settings.rate.kind === 'bpw' ? settings.rate.bitsPerWeight : 8;
  const needed = quantizingBytes(selection.selected, calibrated, bits);
  if (needed <= maxMemory) return;
  const mebibytes = Math.ceil(needed / 2 ** 20);
  const widest = selection.selected.reduce((most, item) => (item.columns > most.columns ? item : most));
  throw new InputError(
    `--max-memory: quantising tensor "${widest.name}" with ${widest.columns} inputs takes at least ${mebibytes}MiB` +
      `${calibrated ? '; without --data it takes less' : ''}`,
  );
}

/** What the steps of a run share. */
interface RunContext {
  readonly options: QuantizeShared;
  readonly own: QuantizeOptions;
  readonly subject: Subject;
  readonly ledger: InputLedger;
  readonly progress: Progress;
  readonly timings: RunTimings;
  /** A working file beside the output. */
  beside(kind: (typeof WORK_KINDS)[number]): string;
}

const job = <J>(file: string, run: J): { readonly module: string; readonly job: J } => ({
  module: new URL(`../src/quantization/${file}`, import.meta.url).href,
  job: run,
});

/** The source itself, or its rotated copy. */
async function fusedSource(
  context: RunContext,
): Promise<{ path: string; files: ModelFiles; notes: readonly string[] }> {
  const { subject, options, timings, beside } = context;
  if (subject.rotation !== 'fused') return { path: subject.path, files: subject.files, notes: [] };
  timings.begin('fuse rotations');
  const target = beside('fused');
  const reuse = options.resume && existsSync(join(target, 'config.json'));
  const notes = await runInThread(
    job('fuse-job.js', fuseIntoDirectory),
    { source: subject.path, target, seed: subject.settings.seed, reuse },
    undefined,
    options.threads,
  );
  return { path: target, files: openModelFiles(target), notes };
}

function sensitivityRequest(
  { allocation, rate, seed }: QuantizeSettings,
  own: QuantizeOptions,
): Pick<CalibrationRequest, 'sensitivity'> {
  if (allocation !== 'kl' || rate.kind !== 'bpw') return {};
  const tokens = sensitivityTokens(own);
  const explicit = own.sensitivityTokens !== undefined;
  return { sensitivity: { tokens, explicit, bitsPerWeight: rate.bitsPerWeight, seed } };
}

async function quantize(
  context: RunContext,
  digests: readonly InputDigest[],
): Promise<{ body: QuantizeBody; calibration: Calibration | undefined }> {
  const { options, own, subject, ledger, progress, timings, beside } = context;
  const source = await fusedSource(context);
  let calibration: Calibration | undefined;
  // What an interrupted run left of another text is of no use to this one.
  if (!options.resume) rmSync(beside('hessians.safetensors'), { force: true });
  try {
    if (subject.calibrated) {
      const selection =
        source.files === subject.files ? subject.selection : selectTensors(source.files, subject.patterns);
      calibration = await prepareHessians({
        spec: source.files === subject.files ? subject.spec : source.path,
        path: source.path,
        files: source.files,
        selected: selection.selected,
        data: subject.data,
        options,
        text: own,
        precision: parsePrecision(own.precision),
        ...(own.calibTokens !== undefined && { tokens: parseInteger('--calib-tokens', own.calibTokens, 1) }),
        ...(own.calibLength !== undefined && { length: parseInteger('--calib-length', own.calibLength, 1) }),
        file: own.hessians ?? beside('hessians.safetensors'),
        ...sensitivityRequest(subject.settings, own),
        ledger,
        progress,
        timings,
        warn(message) {
          if (!options.quiet) process.stderr.write(`warning: ${message}\n`);
        },
      });
      if (subject.data.length === 0) ledger.note(calibration.path);
    }
    if (own.imatrix !== undefined) ledger.note(own.imatrix);
  } finally {
    if (source.files !== subject.files) source.files.store.close();
  }
  timings.begin('quantise');
  const args: QuantizeModelArguments = {
    source: source.path,
    shown: subject.spec,
    out: subject.format === 'pvq' ? subject.out : beside('pvq'),
    selection: subject.patterns,
    settings: subject.settings,
    ...(calibration && { hessians: { path: calibration.path, modelSha256: calibration.modelSha256 } }),
    ...(calibration?.divergence && { divergence: calibration.divergence }),
    ...(own.imatrix !== undefined && { imatrix: own.imatrix }),
    head: {
      tool: { name: 'surprisal', version: toolVersion() },
      command: 'quantize-pvq',
      parameters: parametersOf(subject, options, own),
      inputs: [...digests, ...(await ledger.digests())],
    },
    force: subject.format === 'pvq' ? options.force : true,
    resume: options.resume,
    threads: options.threads,
  };
  const onProgress = (value: unknown): void => {
    const { phase, name, weights } = value as QuantizeProgress;
    progress.setTotal(subject.selection.selected.reduce((sum, { rows, columns }) => sum + rows * columns, 0));
    progress.update(weights, phase === 'measure' ? `measure ${name}` : name);
  };
  const { format } = subject;
  const result = isExport(format)
    ? await runInThread(
        job('export-quantized.js', exportQuantized),
        { ...args, target: subject.out, format, forceTarget: options.force },
        onProgress,
        options.threads,
      )
    : await runInThread(job('quantize-model.js', quantizeModel), args, onProgress, options.threads);
  timings.list(
    'tensors',
    result.seconds.map(({ name, seconds, weights }) => ({ name, seconds, weights_per_second: weights / seconds })),
  );
  timings.count('weights', result.body.quantized.weights);
  if (subject.format === 'dequantized') {
    timings.begin('dequantise');
    await dequantizeModel({
      model: args.out,
      out: subject.out,
      dtype: parseChoice('--dtype', own.dtype ?? 'bf16', DTYPES),
      threads: options.threads,
      force: options.force,
      head: args.head,
    });
  }
  const body: QuantizeBody = {
    ...result.body,
    source: sourceRecord(subject.files, subject.selection.selected),
    warnings: [...source.notes, ...result.body.warnings],
  };
  return { body, calibration };
}

interface EvaluationSources {
  readonly data: readonly string[];
  readonly choices: readonly string[];
}

async function evaluationSources(options: QuantizeShared, own: QuantizeOptions): Promise<EvaluationSources> {
  const data = own.evalData ? await expandSources(own.evalData) : [];
  const choices = own.choices ? await expandSources(own.choices) : [];
  if (own.evalTokens !== undefined && data.length === 0) throw new InputError('--eval-tokens needs --eval-data');
  if (own.activations !== undefined && data.length + choices.length === 0) {
    throw new InputError('--activations is evaluated, not stored: it needs --eval-data or --choices');
  }
  if ([...data, ...choices].includes('-') || options.data.includes('-')) {
    throw new InputError('texts are read more than once: name files, not standard input (-)');
  }
  return { data, choices };
}

async function evaluate(context: RunContext, sources: EvaluationSources): Promise<EvaluationRecord | null> {
  if (sources.data.length + sources.choices.length === 0) return null;
  const { options, own, subject, ledger, progress, timings } = context;
  timings.begin('evaluate');
  return evaluateBesideOriginal({
    spec: subject.spec,
    path: subject.out,
    options,
    text: own,
    data: sources.data,
    ...(own.evalTokens !== undefined && { tokens: parseInteger('--eval-tokens', own.evalTokens, 1) }),
    choices: sources.choices,
    ...(own.activations !== undefined && { activations: own.activations }),
    precision: parsePrecision(own.precision),
    ledger,
    onTokens: (tokens) => progress.update(tokens, 'evaluate'),
  });
}
