import type { Command } from 'commander';
import type {
  WeightGradient,
  WeightGradients,
  WeightGradientsRequest,
} from '../src/distillation/weight-gradients-job.js';
import { InputError } from '../src/errors.js';
import { resolveModelPath } from '../src/formats/hub.js';
import { expandSources } from '../src/formats/inputs.js';
import type { Cell } from '../src/report/csv.js';
import { type AnalysisContext, type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import {
  addLearningTextOptions,
  describeWindows,
  type LearningTextOptions,
  learningTextParameters,
  readTokenWindows,
} from './distill-text.js';
import { parseInteger } from './edge-values.js';
import { modelDigests } from './model-digests.js';
import { DEFAULT_CONTEXT } from './model-session.js';
import { attachShared, requireOption, type SharedOptions } from './shared-options.js';

const SHARED = [
  'model',
  'data',
  'dataFormat',
  'textSplit',
  'textField',
  'limit',
  'context',
  'out',
  'report',
  'table',
  'threads',
  'maxMemory',
  'assert',
  'baseline',
  'timings',
  'quiet',
  'dryRun',
  'force',
] as const;

type Shared = Pick<SharedOptions, (typeof SHARED)[number] | 'config' | 'debug'>;

interface GradientsOptions extends LearningTextOptions {
  readonly loss?: string;
  readonly batchSize?: string;
  readonly fisher?: string;
}

const COMMAND = 'merge-moe gradients';
const SCHEMA = 'merge-moe-gradients';
const COLUMNS = ['tensor', 'elements', 'gradient_norm', 'fisher_trace'];
const MIB = 2 ** 20;

/** Declares `surprisal merge-moe gradients`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  addLearningTextOptions(command)
    .option('--loss <terms>', 'loss of the labels, by name (default ce)')
    .option('--batch-size <n>', 'windows of a micro-batch, over which squares are taken (default 1)')
    .option('--fisher <file.safetensors>', 'roots of the mean squares over micro-batches, for merge --combine fisher')
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<GradientsOptions>());
    });
}

async function run(options: Shared, own: GradientsOptions): Promise<number> {
  const spec = requireOption(options.model, '--model', 'a directory with experts');
  if (options.out === undefined && own.fisher === undefined) {
    throw new InputError('--out is missing: the file of mean gradients (or --fisher)');
  }
  const data = await expandSources(requireOption(options.data, '--data', 'text'));
  const batchSize = parseInteger('--batch-size', own.batchSize ?? '1', 1);
  const loss = own.loss ?? 'ce';
  const { path } = resolveModelPath(spec, process.env);
  const files = new Map<string, string>();
  if (options.out !== undefined) files.set('--out', options.out);
  if (own.fisher !== undefined) files.set('--fisher', own.fisher);
  const prepare = (context: AnalysisContext): Promise<WeightGradientsRequest> =>
    requestOf(options, own, { spec, path, data, loss, batchSize, context });
  return runAnalysis(
    {
      name: SCHEMA,
      command: COMMAND,
      columns: [],
      tableColumns: COLUMNS,
      files,
      unit: 'micro-batches',
      inputs: data,
      parameters: {
        model: spec,
        ...learningTextParameters(options, own),
        loss,
        batch_size: batchSize,
      },
      subtitle: spec,
    },
    // The table of an analysis is what --out names; here that is a file of tensors.
    { ...options, seed: 0, out: undefined, format: undefined, plot: undefined, shard: undefined },
    {
      async measure(context) {
        const request = await prepare(context);
        context.progress.setTotal(Math.ceil(request.windows.count / batchSize));
        const { weightGradients } = await import('../src/distillation/weight-gradients-job.js');
        const module = new URL('../src/distillation/weight-gradients-job.js', import.meta.url).href;
        const found = await context.run({ module, job: weightGradients }, request, (done) =>
          context.progress.update(done as number),
        );
        return outcomeOf(request, found, spec, [...files.values()]);
      },
      async plan(context) {
        const { windows } = await prepare(context);
        return [
          ['model', spec],
          ['windows', `${windows.count} of ${windows.length} positions`],
          ['tokens', windows.validLabels],
          ['micro-batches', Math.ceil(windows.count / batchSize)],
          ['limit of memory, MiB', Math.floor(options.maxMemory / MIB)],
        ];
      },
    },
  );
}

async function requestOf(
  options: Shared,
  own: GradientsOptions,
  subject: Pick<WeightGradientsRequest, 'path' | 'loss' | 'batchSize'> & {
    readonly spec: string;
    readonly data: readonly string[];
    readonly context: AnalysisContext;
  },
): Promise<WeightGradientsRequest> {
  const { openModelFiles } = await import('../src/models/model-files.js');
  const { openModelTokenizer } = await import('../src/models/model-tokenizer.js');
  const { spec, path, data, loss, batchSize, context } = subject;
  const { vocabularySize, maxPositions } = openModelFiles(path).description;
  const length = options.context ?? Math.min(maxPositions, DEFAULT_CONTEXT);
  if (length > maxPositions)
    throw new InputError(`--context ${length} is longer than the ${maxPositions} positions of ${spec}`);
  const reader = { name: spec, tokenizer: openModelTokenizer(path), vocabularySize };
  const windows = await readTokenWindows(data, options, own, reader, length, context.ledger);
  return { path, windows, loss, batchSize, threads: options.threads, maxMemoryBytes: options.maxMemory };
}

const sumOfSquares = (values: Float32Array): number => values.reduce((sum, value) => sum + value * value, 0);

async function outcomeOf(
  { windows }: WeightGradientsRequest,
  found: WeightGradients,
  spec: string,
  written: readonly string[],
): Promise<AnalysisOutcome> {
  const { encodeSafetensors } = await import('../src/formats/safetensors-writer.js');
  const { tensors, tokens, microBatches, lossNats } = found;
  const encode = (pick: (tensor: WeightGradient) => Float32Array): Uint8Array =>
    encodeSafetensors(tensors.map((tensor) => ({ ...tensor, dtype: 'F32' as const, data: pick(tensor) })));
  const rows = tensors.map(({ name, mean, rootMeanSquare }): Cell[] => [
    name,
    mean.length,
    Math.sqrt(sumOfSquares(mean)),
    sumOfSquares(rootMeanSquare),
  ]);
  const norm = Math.sqrt(tensors.reduce((sum, { mean }) => sum + sumOfSquares(mean), 0));
  const trace = tensors.reduce((sum, { rootMeanSquare }) => sum + sumOfSquares(rootMeanSquare), 0);
  return {
    body: {
      text: describeWindows(windows),
      tokens,
      micro_batches: microBatches,
      tensors: tensors.length,
      elements: tensors.reduce((sum, { mean }) => sum + mean.length, 0),
      loss_nats: lossNats,
      gradient_norm: norm,
      fisher_trace: trace,
    },
    rows: () => [],
    tableRows: () => rows,
    summary: {
      header: ['gradients', 'value'],
      rows: [
        ['tensors', tensors.length],
        ['tokens', tokens],
        ['micro-batches', microBatches],
        ['loss, nats', lossNats],
        ['norm of the mean gradient', norm],
        ['trace of the Fisher information', trace],
        ...written.map((file): [string, string] => ['written', file]),
      ],
    },
    digests: async () => (await modelDigests(spec, resolveModelPath(spec, process.env).path)).digests,
    files: () =>
      new Map([
        ['--out', encode(({ mean }) => mean)],
        ['--fisher', encode(({ rootMeanSquare }) => rootMeanSquare)],
      ]),
  };
}
