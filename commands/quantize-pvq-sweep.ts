import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { resolveModelPath } from '../src/formats/hub.js';
import { createInputLedger, expandSources } from '../src/formats/inputs.js';
import { parsePatterns } from '../src/formats/name-patterns.js';
import { elementCount } from '../src/formats/tensor.js';
import { type ModelFiles, openModelFiles } from '../src/models/model-files.js';
import { findMethod } from '../src/quantization/baselines/registry.js';
import { type SourceBits, sourceBits } from '../src/quantization/source-bits.js';
import { parseMethods, planSweep, type SweepCandidate, type SweepPlan } from '../src/quantization/sweep-plan.js';
import {
  SWEEP_COLUMNS,
  SWEEP_SCHEMA,
  SWEEP_TENSOR_COLUMNS,
  type SweepBody,
  type SweepRow,
  sweepTableRows,
  sweepTensorRows,
} from '../src/quantization/sweep-report.js';
import { selectedElements, selectTensors, type TensorSelection } from '../src/quantization/tensor-selection.js';
import { buildReport, writeReport } from '../src/report/json.js';
import { createProgress } from '../src/report/progress.js';
import { summaryTable } from '../src/report/summary-table.js';
import { type ReportValue, reportObject } from '../src/report/values.js';
import { prepareAsserts } from './edge-asserts.js';
import { openCheckpoint } from './edge-checkpoint.js';
import { openOutputs } from './edge-outputs.js';
import { parseInteger, parseNumber } from './edge-values.js';
import { toolVersion } from './edge-version.js';
import { PRECISION_OPTION, parsePrecision } from './model-session.js';
import { SHARED as QUANTIZE_SHARED } from './quantize-pvq-subject.js';
import { startRunTimings } from './run-timings.js';
import { addScoredTextOptions, type ScoredTextOptions } from './scored-text.js';
import { attachShared, requireOption, type SharedOptions } from './shared-options.js';
import { runSweep, type SweepOutcome, type SweepState } from './sweep-run.js';

const SHARED = [...QUANTIZE_SHARED, 'format'] as const satisfies readonly (keyof SharedOptions)[];

export type SweepShared = Pick<SharedOptions, (typeof SHARED)[number] | 'config' | 'debug'>;

/** Options of this command alone, as commander gives them. */
interface OwnOptions extends ScoredTextOptions {
  bpw?: string;
  methods?: string;
  evalData?: string[];
  evalTokens?: string;
  choices?: string[];
  tensors?: string[];
  keep?: string[];
  calibTokens?: string;
  calibLength?: string;
  hessians?: string;
  damping?: string;
  allowRequantize?: boolean;
  workDir?: string;
  precision?: string;
}

const DEFAULT_RATES = '2.25,2.5,3,3.25,4';
const DEFAULT_METHODS = 'pvq,rtn,rotated-rtn,nf4,lloyd-max';
const several = (text: string, previous?: string[]): string[] => [...(previous ?? []), text];

/** Declares `surprisal quantize-pvq sweep`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  addScoredTextOptions(command)
    .option('--bpw <rates>', `bits per quantised weight, everything counted (default ${DEFAULT_RATES})`)
    .option(
      '--methods <names>',
      `what is compared, such as pvq-hessian,rotated-rtn-feedback,rtn:bits=3:group=128,q4_k (default ${DEFAULT_METHODS})`,
    )
    .option(
      '--eval-data <file...>',
      'text on which quantised and original predict; without it, errors of weights alone',
    )
    .option('--eval-tokens <n>', 'use only the first n tokens of it')
    .option('--choices <file...>', 'questions with choices, answered by the original and by every quantised model')
    .option('--tensors <patterns>', "tensors to quantise, such as '*proj*' (* any characters); of any size", several)
    .option('--keep <patterns>', 'tensors to leave as they are', several)
    .option('--calib-tokens <n>', 'tokens of --data to calibrate on (default: all, at most 65536)')
    .option('--calib-length <n>', 'tokens of a calibration window (default --context)')
    .option('--hessians <file>', 'second moments of activations: read where the file exists, else kept there')
    .option('--damping <x>', 'first damping of a Hessian, relative to its mean diagonal (default 0.01)')
    .option('--allow-requantize', 'take a source that is quantised already; nothing at or above its bits is run')
    .option('--work-dir <dir>', 'where quantised weights lie while they are tried (default: the temporary directory)')
    .option(...PRECISION_OPTION)
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<OwnOptions>());
    });
}

/** Everything that is known before a tensor is read. */
export interface SweepSubject {
  readonly spec: string;
  readonly path: string;
  readonly files: ModelFiles;
  readonly patterns: { readonly tensors: readonly string[]; readonly keep: readonly string[] };
  readonly selection: TensorSelection;
  readonly source: SourceBits;
  readonly plan: SweepPlan;
  readonly modelBytes: number;
  readonly modelWeights: number;
  readonly kept: { readonly bytes: number; readonly weights: number };
}

function needsHessian(candidate: SweepCandidate): boolean {
  return candidate.run.kind === 'pvq' ? candidate.run.variant.hessian : findMethod(candidate.method).feedback;
}

function parseRates(text: string): number[] {
  return text.split(',').map((part) => parseNumber('--bpw', part.trim(), 0.1, 16));
}

function openSubject(spec: string, own: OwnOptions): SweepSubject {
  const location = resolveModelPath(spec, process.env);
  if (location.kind === 'onnx') {
    throw new InputError(
      `${spec}: the weights of an ONNX export cannot be exchanged; name a directory or a .gguf file`,
    );
  }
  const files = openModelFiles(location.path);
  const patterns = { tensors: parsePatterns(own.tensors ?? []), keep: parsePatterns(own.keep ?? []) };
  const selection = selectTensors(files, patterns);
  const source = sourceBits(files, selection.selected);
  if (source.quantized && own.allowRequantize !== true) {
    throw new InputError(
      `${spec}: is quantised already (${source.types.join(', ')}, ${source.bitsPerWeight.toFixed(3)} bits per weight): ` +
        'what is measured would be errors on errors; --allow-requantize takes it all the same',
    );
  }
  const plan = planSweep({
    methods: parseMethods([own.methods ?? DEFAULT_METHODS]),
    rates: parseRates(own.bpw ?? DEFAULT_RATES),
    tensors: selection.selected,
    ...(source.quantized && { sourceBitsPerWeight: source.bitsPerWeight }),
  });
  const kept = { bytes: 0, weights: 0 };
  for (const { tensor } of selection.kept) {
    kept.bytes += tensor.byteLength;
    kept.weights += elementCount(tensor.shape);
  }
  const modelBytes = kept.bytes + (source.bitsPerWeight * selectedElements(selection)) / 8;
  return {
    spec,
    path: location.path,
    files,
    patterns,
    selection,
    source,
    plan,
    modelBytes: Math.round(modelBytes),
    modelWeights: kept.weights + selectedElements(selection),
    kept,
  };
}

async function run(options: SweepShared, own: OwnOptions): Promise<number> {
  const spec = requireOption(options.model, '--model', 'a model directory or a .gguf file');
  const asserts = await prepareAsserts(options.assert, options.baseline);
  const timings = startRunTimings('quantize-pvq sweep');
  const evalData = own.evalData ? await expandSources(own.evalData) : [];
  const choices = own.choices ? await expandSources(own.choices) : [];
  const calibration = options.data.length > 0 ? await expandSources(options.data) : [];
  checkUsage(own, evalData, calibration);
  const outputs = openOutputs([...evalData, ...choices, ...calibration], {
    force: options.force,
    resume: options.resume,
  });
  let subject: SweepSubject | undefined;
  try {
    const table = outputs.table('--out', options.out, SWEEP_COLUMNS, options.format);
    const tensorTable = outputs.table('--table', options.table, SWEEP_TENSOR_COLUMNS);
    const reportFile = outputs.file('--report', options.report);
    const plotFile = outputs.file('--plot', options.plot);
    const timingsFile = outputs.file('--timings', options.timings);
    if (plotFile) (await import('../src/report/plots/figure.js')).plotExtension(options.plot as string);
    subject = openSubject(spec, own);
    const calibrated = subject.plan.candidates.some(needsHessian);
    if (calibrated && calibration.length === 0 && own.hessians === undefined) {
      const names = [...new Set(subject.plan.candidates.filter(needsHessian).map(({ method }) => method))];
      throw new InputError(`${names.join(', ')}: needs calibration text: name it with --data, or --hessians`);
    }
    if (options.dryRun) {
      process.stdout.write(describePlan(subject));
      return 0;
    }
    const parameters = parametersOf(spec, options, own, subject);
    const checkpoint = openCheckpoint<SweepState>(options.out ?? options.report, parameters, options.resume);
    const progress = await createProgress({
      stream: process.stderr,
      quiet: options.quiet,
      unit: 'weights',
      now: () => performance.now(),
    });
    const ledger = createInputLedger();
    const outcome = await runSweep({
      options,
      text: own,
      subject,
      calibration,
      calibrated,
      evalData,
      ...(own.evalTokens !== undefined && { evalTokens: parseInteger('--eval-tokens', own.evalTokens, 1) }),
      choices,
      ...(own.calibTokens !== undefined && { calibTokens: parseInteger('--calib-tokens', own.calibTokens, 1) }),
      ...(own.calibLength !== undefined && { calibLength: parseInteger('--calib-length', own.calibLength, 1) }),
      ...(own.hessians !== undefined && { hessians: own.hessians }),
      damping: own.damping === undefined ? 0.01 : parseNumber('--damping', own.damping, 1e-8, 1),
      ...(own.workDir !== undefined && { workDir: own.workDir }),
      precision: parsePrecision(own.precision),
      ledger,
      progress,
      timings,
      checkpoint,
      warn(message) {
        if (!options.quiet) process.stderr.write(`warning: ${message}\n`);
      },
    });
    progress.stop();
    timings.begin('summarise and write');
    const body = bodyOf(subject, outcome);
    if (table) for (const row of sweepTableRows(body)) table.write(row);
    if (tensorTable) for (const row of sweepTensorRows(body)) tensorTable.write(row);
    const report = buildReport(
      {
        name: SWEEP_SCHEMA,
        tool: { name: 'surprisal', version: toolVersion() },
        command: 'quantize-pvq sweep',
        parameters,
        inputs: [...outcome.digests, ...(await ledger.digests())],
      },
      reportObject(body),
    );
    if (reportFile) writeReport(report, reportFile);
    if (plotFile) {
      const { rateDistortionFigure } = await import('../src/quantization/rate-distortion-plot.js');
      const { plotBytes } = await import('../src/report/plots/figure.js');
      plotFile.write(await plotBytes(await rateDistortionFigure(body), options.plot as string));
    }
    if (timingsFile) timings.write(timingsFile, options);
    outputs.commit();
    checkpoint.remove();
    if (!options.quiet) process.stdout.write(summary(body));
    return asserts.check(report);
  } finally {
    outputs.abort();
    subject?.files.store.close();
  }
}

function checkUsage(own: OwnOptions, evalData: readonly string[], calibration: readonly string[]): void {
  if (evalData.length === 0 && own.evalTokens !== undefined) throw new InputError('--eval-tokens needs --eval-data');
  if (evalData.includes('-') || calibration.includes('-') || own.choices?.includes('-')) {
    throw new InputError('a sweep reads its texts several times: name files, not standard input (-)');
  }
  if (calibration.length === 0) {
    const useless = (['calibTokens', 'calibLength'] as const).find((name) => own[name] !== undefined);
    if (useless) throw new InputError(`--${useless === 'calibTokens' ? 'calib-tokens' : 'calib-length'} needs --data`);
  }
}

function parametersOf(
  spec: string,
  options: SweepShared,
  own: OwnOptions,
  { patterns, plan }: SweepSubject,
): Record<string, ReportValue> {
  return {
    model: spec,
    methods: plan.candidates.map(({ id }) => id),
    bpw: parseRates(own.bpw ?? DEFAULT_RATES),
    tensors: [...patterns.tensors],
    keep: [...patterns.keep],
    eval_data: [...(own.evalData ?? [])],
    eval_tokens: own.evalTokens === undefined ? null : Number(own.evalTokens),
    choices: [...(own.choices ?? [])],
    data: [...options.data],
    data_format: options.dataFormat ?? null,
    text_split: options.textSplit,
    text_field: options.textField,
    limit: options.limit ?? null,
    calib_tokens: own.calibTokens === undefined ? null : Number(own.calibTokens),
    calib_length: own.calibLength === undefined ? null : Number(own.calibLength),
    hessians: own.hessians ?? null,
    damping: own.damping === undefined ? 0.01 : Number(own.damping),
    context: options.context ?? null,
    stride: options.stride ?? null,
    convention: own.convention ?? null,
    precision: own.precision ?? 'f32',
    device: options.device,
    seed: options.seed,
  };
}

function bodyOf(subject: SweepSubject, { state, convention, calibrationTokens, modelType }: SweepOutcome): SweepBody {
  const { spec, files, source, selection, kept, plan } = subject;
  return {
    model: { path: spec, format: files.format, type: modelType },
    source: {
      quantized: source.quantized,
      types: source.types,
      bits_per_weight: source.bitsPerWeight,
      model_bytes: subject.modelBytes,
      model_weights: subject.modelWeights,
    },
    selected: {
      tensors: selection.selected.length,
      weights: selectedElements(selection),
      kept_tensors: selection.kept.length,
      kept_bytes: kept.bytes,
    },
    convention,
    documents: state.documents,
    scored_tokens: state.scoredTokens,
    base: state.base ?? null,
    base_choices: state.baseChoices ?? null,
    calibration_tokens: calibrationTokens,
    rows: plan.candidates.flatMap(({ id }) => state.rows.filter((row) => row.id === id)),
    left_out: [...plan.leftOut, ...state.leftOut],
  };
}

function describePlan({ plan, selection, source, kept, modelWeights }: SweepSubject): string {
  const weights = selectedElements(selection);
  const line = ({ id, askedBitsPerWeight, foreseenBits }: SweepCandidate): (string | number)[] => {
    const bytes = Math.ceil(foreseenBits / 8) + kept.bytes;
    return [id, askedBitsPerWeight.join(' '), foreseenBits / weights, bytes, (8 * bytes) / modelWeights];
  };
  const head =
    `${selection.selected.length} tensors, ${weights} weights are quantised; ${selection.kept.length} tensors, ` +
    `${kept.bytes} bytes are kept; the source has ${source.bitsPerWeight.toFixed(3)} bits (${source.types.join(', ')})\n`;
  const table = summaryTable(
    ['method', 'asked', 'bits per weight', 'bytes of the model', 'bits of the model'],
    plan.candidates.map(line),
  );
  const left = plan.leftOut.map(
    ({ method, asked_bits_per_weight: asked, reason }) =>
      `${method}${asked === null ? '' : ` at ${asked}`}: ${reason}\n`,
  );
  return `${head}${table}${left.length > 0 ? `left out:\n${left.join('')}` : ''}`;
}

function summary(body: SweepBody): string {
  const cells = (row: SweepRow): (string | number | undefined)[] => [
    row.id,
    row.bits_per_weight,
    row.model_bits_per_weight,
    row.sqnr_db,
    row.evaluation?.perplexity,
    row.evaluation?.mean_kl_nats,
    row.evaluation?.mean_kl_nats_se,
    row.evaluation?.top1_agreement,
    row.choices?.accuracy,
  ];
  const rows = body.rows.map(cells);
  if (body.base)
    rows.unshift([
      'original',
      undefined,
      undefined,
      undefined,
      body.base.perplexity,
      undefined,
      undefined,
      undefined,
      body.base_choices?.accuracy,
    ]);
  const header = [
    'setting',
    'bits',
    'model bits',
    'SQNR, dB',
    'perplexity',
    'mean KL, nats',
    'standard error',
    'same top-1',
    'accuracy',
  ];
  const used = header.map((_, c) => c === 0 || rows.some((row) => row[c] !== undefined));
  const only = <T>(row: readonly T[]): T[] => row.filter((_, c) => used[c]);
  const left = body.left_out.map(
    ({ method, asked_bits_per_weight: asked, reason }) =>
      `${method}${asked === null ? '' : ` at ${asked}`}: ${reason}\n`,
  );
  return summaryTable(only(header), rows.map(only)) + (left.length > 0 ? `left out:\n${left.join('')}` : '');
}
