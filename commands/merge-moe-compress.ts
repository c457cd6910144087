import { setImmediate } from 'node:timers/promises';
import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { resolveModelPath } from '../src/formats/hub.js';
import { createInputLedger, type InputDigest } from '../src/formats/inputs.js';
import { parsePatterns } from '../src/formats/name-patterns.js';
import { hashModelFiles } from '../src/models/model-hash.js';
import { compressModel } from '../src/moe/compress-model.js';
import {
  COMPRESSED_FORMS,
  type CompressSettings,
  denseBytes,
  factorisedBytes,
  openCompressible,
  planCompression,
  ROW_SCOPES,
} from '../src/moe/compress-plan.js';
import { MATRIX_COLUMNS, matrixRow } from '../src/moe/compress-report.js';
import type { ExpertModel } from '../src/moe/expert-model.js';
import type { RowScore } from '../src/moe/losparse.js';
import { activationWeights, gradientWeights, MAGNITUDES, type RowWeightSource } from '../src/moe/row-weights.js';
import { readStatistics } from '../src/moe/statistics-file.js';
import { type Report, writeReport } from '../src/report/json.js';
import { createProgress } from '../src/report/progress.js';
import { type SummaryCell, summaryTable } from '../src/report/summary-table.js';
import type { ReportValue } from '../src/report/values.js';
import { prepareAsserts } from './edge-asserts.js';
import { openOutputs } from './edge-outputs.js';
import { defaultMaxMemoryBytes } from './edge-resources.js';
import { parseChoice, parseIndices, parseInteger, parseMemory, parseNumber } from './edge-values.js';
import { toolVersion } from './edge-version.js';
import { noticeSlowKernels } from './kernel-notice.js';
import { modelDigests } from './model-digests.js';
import { startRunTimings } from './run-timings.js';
import { attachShared, requireOption, type SharedOptions } from './shared-options.js';

const SHARED = [
  'model',
  'out',
  'report',
  'table',
  'seed',
  'threads',
  'assert',
  'baseline',
  'timings',
  'quiet',
  'dryRun',
  'force',
  'resume',
] as const;

type Shared = Pick<SharedOptions, (typeof SHARED)[number] | 'config' | 'debug'>;

interface OwnOptions {
  readonly form?: string;
  readonly rank?: string;
  readonly keepRows?: string;
  readonly rowsScope?: string;
  readonly stats?: readonly string[];
  readonly gradients?: readonly string[];
  readonly tensors?: readonly string[];
  readonly keepLayers?: string;
  readonly oversamples?: string;
  readonly powerIterations?: string;
  readonly spectra?: boolean;
  readonly maxShardSize?: string;
}

const COMMAND = 'merge-moe compress';

/** Declares `surprisal merge-moe compress`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option('--form <form>', `what is written: ${COMPRESSED_FORMS.join(', ')} (default factorised)`)
    .option('--rank <r>', 'rank of the low-rank part of each matrix (default 32)')
    .option('--keep-rows <share>', 'share of the entries beside it that stay, as whole rows (default 0.1)')
    .option(
      '--rows-scope <scope>',
      `matrices among which rows compete: ${ROW_SCOPES.join(', ')} (default matrix; with --gradients model)`,
    )
    .option('--stats <folder...>', 'statistics of calibrate: rows are weighed by the norms of their inputs')
    .option('--gradients <file...>', 'safetensors of dLoss/dW by name: rows are weighed by |S dLoss/dS|')
    .option('--tensors <pattern...>', 'matrices to compress, by name with * and ? (default all of the experts)')
    .option('--keep-layers <list>', 'layers whose experts stay as they are, such as 0,5-7')
    .option('--oversamples <n>', 'directions beyond the rank that the range finder takes (default 8)')
    .option('--power-iterations <n>', 'of the range finder (default 2)')
    .option('--spectra', 'effective rank of every matrix, from all of its singular values')
    .option('--max-shard-size <size>', 'largest file of weights, such as 2GB (default 5GB)')
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<OwnOptions>());
    });
}

function settingsOf(options: Shared, own: OwnOptions): CompressSettings {
  if (own.stats && own.gradients) throw new InputError('--stats and --gradients both weigh rows: pass one of them');
  const score: RowScore = own.gradients ? 'gradients' : own.stats ? 'activations' : 'magnitude';
  const scope = own.gradients ? 'model' : 'matrix';
  const form = parseChoice('--form', own.form ?? 'factorised', COMPRESSED_FORMS);
  const rank = parseInteger('--rank', own.rank ?? '32');
  const keepRows = parseNumber('--keep-rows', own.keepRows ?? '0.1', 0, 1);
  if (rank === 0 && keepRows === 0)
    throw new InputError('--rank 0 --keep-rows 0: nothing would be left of the experts');
  return {
    form,
    rank,
    keepRows,
    scope: parseChoice('--rows-scope', own.rowsScope ?? scope, ROW_SCOPES),
    score,
    ...(own.tensors && { tensors: parsePatterns(own.tensors) }),
    ...(own.keepLayers !== undefined && { excluded: parseIndices('--keep-layers', own.keepLayers) }),
    oversamples: parseInteger('--oversamples', own.oversamples ?? '8'),
    powerIterations: parseInteger('--power-iterations', own.powerIterations ?? '2'),
    spectra: own.spectra === true,
    seed: options.seed,
  };
}

function parametersOf(model: string, settings: CompressSettings, own: OwnOptions): Record<string, ReportValue> {
  const { form, rank, keepRows, scope, score, tensors, excluded, oversamples, powerIterations, spectra, seed } =
    settings;
  return {
    model,
    form,
    rank,
    keep_rows: keepRows,
    rows_scope: scope,
    row_score: score,
    stats: own.stats ? [...own.stats] : null,
    gradients: own.gradients ? [...own.gradients] : null,
    tensors: tensors ? [...tensors] : null,
    keep_layers: excluded ? [...excluded] : null,
    oversamples,
    power_iterations: powerIterations,
    spectra,
    max_shard_size: own.maxShardSize ?? null,
    seed,
  };
}

async function run(options: Shared, own: OwnOptions): Promise<number> {
  const asserts = await prepareAsserts(options.assert, options.baseline);
  const timings = startRunTimings(COMMAND);
  const spec = requireOption(options.model, '--model', 'a directory with experts');
  const out = requireOption(options.out, '--out', 'the directory to write');
  const settings = settingsOf(options, own);
  const maxShardBytes =
    own.maxShardSize === undefined
      ? undefined
      : parseMemory('--max-shard-size', own.maxShardSize, () => Number.MAX_SAFE_INTEGER);
  const { path } = resolveModelPath(spec, process.env);
  const model = openCompressible(path);
  const outputs = openOutputs(own.gradients ?? [], { force: options.force, resume: options.resume });
  const progress = await createProgress({
    stream: process.stderr,
    quiet: options.quiet,
    unit: 'steps',
    now: () => performance.now(),
  });
  let weights: RowWeightSource = MAGNITUDES;
  try {
    if (options.dryRun) {
      process.stdout.write(summaryTable(['plan', 'value'], planRows(model, settings)));
      return 0;
    }
    const table = outputs.table('--table', options.table, MATRIX_COLUMNS);
    const reportFile = outputs.file('--report', options.report);
    const timingsFile = outputs.file('--timings', options.timings);
    noticeSlowKernels();
    timings.begin('hash the inputs');
    const { digests, modelSha256 } = await hashInputs(spec, path, own);
    weights = openWeights(model, settings, own, modelSha256, options.threads);
    timings.begin('factorise and write');
    const { report, matrices } = await compressModel(model, {
      settings,
      weights,
      out,
      head: {
        tool: { name: 'surprisal', version: toolVersion() },
        command: COMMAND,
        parameters: parametersOf(spec, settings, own),
        inputs: digests,
      },
      ...(maxShardBytes !== undefined && { maxShardBytes }),
      threads: options.threads,
      force: options.force,
      resume: options.resume,
      progress: async (done, total, name) => {
        progress.setTotal(total);
        progress.update(done, name);
        await setImmediate();
      },
    });
    progress.stop();
    if (table && matrices.length === 0) {
      throw new InputError(
        `${out}: was complete before, and --table comes from the run itself: pass --force, or leave it out`,
      );
    }
    if (table) for (const matrix of matrices) table.write(matrixRow(matrix));
    if (reportFile) writeReport(report, reportFile);
    if (timingsFile) timings.write(timingsFile, { ...options, maxMemory: defaultMaxMemoryBytes() });
    outputs.commit();
    if (!options.quiet) process.stdout.write(summary(report, out));
    return asserts.check(report);
  } finally {
    progress.stop();
    outputs.abort();
    weights.close();
    model.close();
  }
}

async function hashInputs(
  spec: string,
  path: string,
  own: OwnOptions,
): Promise<{ digests: InputDigest[]; modelSha256: string }> {
  const { digests, files } = await modelDigests(spec, path);
  for (const folder of own.stats ?? []) digests.push(...(await modelDigests(folder, folder)).digests);
  const ledger = createInputLedger();
  for (const file of own.gradients ?? []) ledger.note(file);
  return { digests: [...digests, ...(await ledger.digests())], modelSha256: hashModelFiles(files) };
}

function openWeights(
  model: ExpertModel,
  settings: CompressSettings,
  { stats = [], gradients = [] }: OwnOptions,
  modelSha256: string,
  threads: number,
): RowWeightSource {
  if (settings.score === 'gradients') return gradientWeights(model, gradients, threads);
  if (settings.score === 'activations') return activationWeights(model, readStatistics(stats, modelSha256));
  return MAGNITUDES;
}

const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

function planRows(model: ExpertModel, settings: CompressSettings): SummaryCell[][] {
  const { matrices } = planCompression(model, settings);
  const before = matrices.reduce((sum, matrix) => sum + denseBytes(matrix), 0);
  const after = matrices.reduce((sum, matrix) => {
    const parts = factorisedBytes(matrix, Math.floor(settings.keepRows * matrix.rows));
    return sum + (settings.form === 'dense' ? denseBytes(matrix) : Math.min(denseBytes(matrix), parts));
  }, 0);
  const all = [...model.store.tensors.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
  const largest = Math.max(...model.layers.map(({ shape }) => shape.hidden * shape.width));
  // An expert with its three matrices, and of one of them the product, the residual and a copy.
  const peak = 4 * largest * (settings.score === 'gradients' ? 12 : 6);
  return [
    ['model', `${model.path} (${model.family})`],
    ['matrices', matrices.length],
    ['form', settings.form],
    ['rows weighed by', settings.score],
    ['experts before', mebibytes(before)],
    ['experts after, about', mebibytes(after)],
    ['bytes read', 2 * all],
    ['bytes written, about', all - before + after],
    ['peak memory, about', mebibytes(peak)],
  ];
}

interface Figures {
  readonly matrices: number;
  readonly compressed_matrices: number;
  readonly sparse_rows: number;
  readonly rows: number;
  readonly low_rank_error: number;
  readonly relative_error: number;
  readonly bytes_before: number;
  readonly bytes_after: number;
  readonly model_bytes_before: number;
  readonly model_bytes_after: number;
  readonly notes: readonly string[];
}

function summary(report: Report, out: string): string {
  const figures = report as unknown as Figures;
  const rows: SummaryCell[][] = [
    ['matrices', `${figures.compressed_matrices} of ${figures.matrices}`],
    ['rows that stay', `${figures.sparse_rows} of ${figures.rows}`],
    ['error of the low rank', figures.low_rank_error],
    ['error', figures.relative_error],
    ['experts', `${mebibytes(figures.bytes_before)} to ${mebibytes(figures.bytes_after)}`],
    ['model', `${mebibytes(figures.model_bytes_before)} to ${mebibytes(figures.model_bytes_after)}`],
    ['written to', out],
  ];
  return `${summaryTable(['compressed experts', ''], rows)}${figures.notes.map((note) => `note: ${note}\n`).join('')}`;
}
