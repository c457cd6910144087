import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { createSafetensorsWriter } from '../src/formats/safetensors-writer.js';
import type { Denominator, Similarity } from '../src/koopman/coherence.js';
import type { FitSettings, KoopmanModel } from '../src/koopman/fit.js';
import { ANALYSE_KOOPMAN, type KoopmanArguments, type KoopmanResult } from '../src/koopman/koopman-job.js';
import {
  KOOPMAN_SCHEMA,
  koopmanBody,
  koopmanTableRows,
  LAG_COLUMNS,
  MODE_COLUMNS,
  modeRows,
  STEP_COLUMNS,
} from '../src/koopman/koopman-report.js';
import { KOOPMAN_VARIANTS, type LagrangianSettings } from '../src/koopman/lagrangian.js';
import type { NetworkFitSettings } from '../src/koopman/network-fit.js';
import { perceptronParts } from '../src/koopman/perceptron.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import type { ReportValue } from '../src/report/values.js';
import { type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import { flagOf, parseChoice, parseInteger, parseNumber } from './edge-values.js';
import { ANALYSIS_OPTIONS, attachShared, requireOption, type SharedOptions } from './shared-options.js';

const SHARED = [...ANALYSIS_OPTIONS.filter((name) => name !== 'shard'), 'data', 'table', 'variant'] as const;

type Options = Pick<SharedOptions, (typeof SHARED)[number] | 'config' | 'debug'>;

/** Options as commander gives them. */
interface OwnOptions {
  tensor?: string;
  nextTensor?: string;
  columns?: string;
  sequenceColumn?: string;
  system?: string;
  window?: string;
  temperature?: string;
  ridge?: string;
  noiseRidge?: string;
  similarity?: string;
  denominator?: string;
  lags?: string;
  horizons?: string;
  budget?: string;
  alpha?: string;
  beta?: string;
  gamma?: string;
  reconstruction?: string;
  fit?: boolean;
  latent?: string;
  hidden?: string;
  steps?: string;
  batch?: string;
  sequenceLength?: string;
  learningRate?: string;
  decayEvery?: string;
  clip?: string;
  saveModel?: string;
  network?: string;
  precision?: string;
  saveEncoder?: string;
  saveDecoder?: string;
}

/** Declares `surprisal analyze-entropy koopman`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option('--tensor <name>', 'array of an .npz or .safetensors file: [steps, width] or [sequences, steps, width]')
    .option('--next-tensor <name>', 'array with the rows one step later (default: the next row of the sequence)')
    .option('--columns <names>', 'columns of a table that are coordinates, separated by commas (default all)')
    .option('--sequence-column <name>', 'column of a table that names the sequence of a row')
    .option('--system <file>', '.npz or .safetensors with K, Sigma, C (D, R): evaluate this linear-Gaussian model')
    .option('--window <k>', 'neighbours on each side that count as coherent (default 3)')
    .option('--temperature <tau>', 'temperature of the similarities (default 0.1)')
    .option('--similarity <name>', 'cosine or inner-product (default cosine)')
    .option('--denominator <name>', "paper's estimate: sum over the sequence or the minibatch (default sequence)")
    .option('--ridge <lambda>', 'ridge of the least squares for the Koopman matrix (default 0.1)')
    .option(
      '--noise-ridge <variance>',
      'variance added to the residual covariance (default: only where it is singular)',
    )
    .option('--lags <list>', 'lags of the closed-form information, in steps (default 1,2,5,10)')
    .option('--horizons <list>', 'steps ahead that are predicted (default 5,20,50)')
    .option('--budget <variance>', 'variance that is allocated (default the trace of the covariance)')
    .option('--alpha <weight>', 'weight of the coherence (default 2)')
    .option('--beta <weight>', 'paper: weight of the consistency (default 1); code: of the entropy (default 0.1)')
    .option('--gamma <weight>', 'paper: weight of the von Neumann entropy (default 0.1)')
    .option('--reconstruction <weight>', 'code: weight of the reconstruction (default 0.1)')
    .option('--fit', 'learn encoder, decoder and linear dynamics; without it the rows are the latents')
    .option('--latent <width>', 'fit: latents (default 16)')
    .option('--hidden <width>', 'fit: hidden units of encoder and decoder (default 64)')
    .option('--steps <n>', 'fit: steps of the optimiser (default 1200)')
    .option('--batch <n>', 'fit: sequences of a batch (default 16)')
    .option('--sequence-length <n>', 'fit: observations of a sequence (default 16)')
    .option('--learning-rate <rate>', 'fit: of Adam (default 0.001)')
    .option('--decay-every <n>', 'fit: steps after which the rate falls by a fifth (default 0: never)')
    .option('--clip <norm>', 'fit: largest norm of the gradient (default 1)')
    .option('--save-model <file.safetensors>', 'fit: write encoder, decoder, standardisation and Koopman matrix')
    .option(
      '--network <text>',
      'fit: by the training engine, an encoder such as mlp:128-64,gelu; the decoder mirrors it',
    )
    .option('--precision <type>', 'fit with --network: f32 or f64 (default f32)')
    .option('--save-encoder <file.onnx>', 'fit with --network: observations to latents')
    .option('--save-decoder <file.onnx>', 'fit with --network: latents to standardised observations');
  command.action(async () => {
    process.exitCode = await run(await read(), command.opts<OwnOptions>());
  });
}

const list = (flag: string, text: string): number[] =>
  text.split(',').map((part) => parseInteger(flag, part.trim(), 1));

const positive = (flag: string, text: string): number => {
  const value = parseNumber(flag, text, 0);
  if (value > 0) return value;
  throw new InputError(`${flag} ${text}: a number above 0 is needed`);
};

function argumentsOf(options: Options, own: OwnOptions): KoopmanArguments {
  const data = requireOption(options.data, '--data', 'a file of trajectories');
  if (data.length > 1) throw new InputError(`--data names ${data.length} files; one file of trajectories is needed`);
  const variant = parseChoice('--variant', options.variant ?? 'paper', KOOPMAN_VARIANTS);
  const settings: LagrangianSettings = {
    variant,
    window: parseInteger('--window', own.window ?? '3', 1),
    temperature: positive('--temperature', own.temperature ?? '0.1'),
    similarity: parseChoice<Similarity>('--similarity', own.similarity ?? 'cosine', ['cosine', 'inner-product']),
    denominator: parseChoice<Denominator>('--denominator', own.denominator ?? 'sequence', ['sequence', 'minibatch']),
    ridge: parseNumber('--ridge', own.ridge ?? '0.1', 0),
    weights: {
      alpha: parseNumber('--alpha', own.alpha ?? '2', 0),
      beta: parseNumber('--beta', own.beta ?? (variant === 'paper' ? '1' : '0.1'), 0),
      gamma: parseNumber('--gamma', own.gamma ?? '0.1', 0),
      reconstruction: parseNumber('--reconstruction', own.reconstruction ?? '0.1', 0),
    },
  };
  if (variant === 'code' && own.gamma !== undefined) {
    throw new InputError(
      '--gamma: the released code weighs the entropy with --beta; leave --gamma out or use --variant paper',
    );
  }
  if (variant === 'paper' && own.reconstruction !== undefined) {
    throw new InputError('--reconstruction belongs to --variant code; the paper weighs the reconstruction with 1');
  }
  if (variant === 'code' && own.denominator !== undefined) {
    throw new InputError(
      '--denominator belongs to --variant paper; the released code sums over the sequence without the anchor',
    );
  }
  const fitting: readonly (keyof OwnOptions)[] = [
    'latent',
    'hidden',
    'steps',
    'batch',
    'sequenceLength',
    'learningRate',
    'decayEvery',
    'clip',
    'saveModel',
    'network',
    'precision',
    'saveEncoder',
    'saveDecoder',
  ];
  const stray = fitting.find((name) => own[name] !== undefined);
  if (!own.fit && stray !== undefined) {
    throw new InputError(`${flagOf(stray)} needs --fit`);
  }
  const ofNetworks = (['precision', 'saveEncoder', 'saveDecoder'] as const).find((name) => own[name] !== undefined);
  if (own.network === undefined && ofNetworks) throw new InputError(`${flagOf(ofNetworks)} needs --network`);
  const ofPerceptrons = (['hidden', 'decayEvery', 'saveModel'] as const).find((name) => own[name] !== undefined);
  if (own.network !== undefined && ofPerceptrons) {
    throw new InputError(`${flagOf(ofPerceptrons)} is not read with --network; its text says the layers`);
  }
  const columns = own.columns
    ?.split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '');
  return {
    path: data[0],
    options: {
      ...(own.tensor !== undefined && { tensor: own.tensor }),
      ...(columns && { columns }),
      ...(own.sequenceColumn !== undefined && { sequenceColumn: own.sequenceColumn }),
    },
    ...(own.nextTensor !== undefined && { nextTensor: own.nextTensor }),
    ...(own.system !== undefined && { system: own.system }),
    settings,
    maxMemoryBytes: options.maxMemory,
    lags: list('--lags', own.lags ?? '1,2,5,10'),
    horizons: list('--horizons', own.horizons ?? '5,20,50'),
    ...(own.budget !== undefined && { budget: positive('--budget', own.budget) }),
    ...(own.noiseRidge !== undefined && { noiseRidge: parseNumber('--noise-ridge', own.noiseRidge, 0) }),
    ...(own.fit && { fit: fitSettings(settings, own, options) }),
  };
}

function fitSettings(
  settings: LagrangianSettings,
  own: OwnOptions,
  { seed, threads }: Options,
): FitSettings | NetworkFitSettings {
  const steps = parseInteger('--steps', own.steps ?? '1200', 1);
  return {
    ...settings,
    latent: parseInteger('--latent', own.latent ?? '16', 1),
    hidden: parseInteger('--hidden', own.hidden ?? '64', 1),
    steps,
    batch: parseInteger('--batch', own.batch ?? '16', 1),
    windowLength: parseInteger('--sequence-length', own.sequenceLength ?? '16', 2),
    learningRate: positive('--learning-rate', own.learningRate ?? '0.001'),
    decayEvery: parseInteger('--decay-every', own.decayEvery ?? '0', 0),
    clip: positive('--clip', own.clip ?? '1'),
    seed,
    logEvery: Math.max(1, Math.floor(steps / 200)),
    ...(own.network !== undefined && {
      network: own.network,
      precision: parseChoice('--precision', own.precision ?? 'f32', ['f32', 'f64'] as const),
      threads,
    }),
  };
}

function parametersOf(args: KoopmanArguments, own: OwnOptions, seed: number): Record<string, ReportValue> {
  const { weights, ...settings } = args.settings;
  const { fit } = args;
  return {
    data: [args.path],
    tensor: own.tensor ?? null,
    next_tensor: own.nextTensor ?? null,
    columns: args.options.columns ? [...args.options.columns] : null,
    sequence_column: own.sequenceColumn ?? null,
    system: own.system ?? null,
    ...settings,
    ...weights,
    lags: [...args.lags],
    horizons: [...args.horizons],
    budget: args.budget ?? null,
    noise_ridge: args.noiseRidge ?? null,
    fit: fit !== undefined,
    latent: fit?.latent ?? null,
    hidden: own.network === undefined ? (fit?.hidden ?? null) : null,
    network: own.network ?? null,
    precision: own.network === undefined ? null : (own.precision ?? 'f32'),
    steps: fit?.steps ?? null,
    batch: fit?.batch ?? null,
    sequence_length: fit?.windowLength ?? null,
    learning_rate: fit?.learningRate ?? null,
    decay_every: fit?.decayEvery ?? null,
    clip: fit?.clip ?? null,
    seed,
  };
}

async function run(options: Options, own: OwnOptions): Promise<number> {
  const args = argumentsOf(options, own);
  const inputs = own.system === undefined ? [args.path] : [args.path, own.system];
  const view = {
    name: KOOPMAN_SCHEMA,
    columns: MODE_COLUMNS,
    tableColumns: own.fit ? STEP_COLUMNS : LAG_COLUMNS,
    unit: 'steps',
    inputs,
    parameters: parametersOf(args, own, options.seed),
    subtitle: args.path,
    files: new Map(
      [['--save-encoder', own.saveEncoder] as const, ['--save-decoder', own.saveDecoder] as const].flatMap(
        ([flag, path]) => (path === undefined ? [] : [[flag, path] as const]),
      ),
    ),
  };
  return runAnalysis(
    view,
    { ...options, shard: undefined },
    {
      async plan() {
        return [
          ['trajectories', args.path],
          ['variant', args.settings.variant],
          ['fit', args.fit ? `${args.fit.steps} steps, ${args.fit.latent} latents` : 'none: the rows are the latents'],
        ];
      },
      async measure(context): Promise<AnalysisOutcome> {
        refuseExisting(own.saveModel, options.force);
        for (const path of inputs) context.ledger.note(path);
        if (args.fit) context.progress.setTotal(args.fit.steps);
        const result = await context.run(ANALYSE_KOOPMAN, args, (step) => context.progress.update(Number(step)));
        for (const warning of result.warnings) context.warn(warning);
        if (own.saveModel !== undefined && result.model) saveModel(own.saveModel, result.model, options.force);
        return {
          body: koopmanBody(result, args),
          rows: () => modeRows(result),
          tableRows: () => koopmanTableRows(result),
          figure: async (subtitle) => (await import('../src/koopman/koopman-plot.js')).drawKoopman(result, subtitle),
          summary: { header: ['figure', 'value'], rows: summary(result) },
          files: () =>
            new Map(
              result.networks
                ? [
                    ['--save-encoder', result.networks.encoder],
                    ['--save-decoder', result.networks.decoder],
                  ]
                : [],
            ),
        };
      },
    },
  );
}

/** Known before the fit, so that no work is lost. */
function refuseExisting(path: string | undefined, force: boolean): void {
  if (path === undefined) return;
  if (!path.endsWith('.safetensors')) throw new InputError(`--save-model ${path}: the name must end in .safetensors`);
  if (!force && existsSync(path)) throw new InputError(`--save-model ${path}: exists; use --force to replace it`);
}

/** Encoder, decoder, standardisation and Koopman matrix as f64 tensors. */
function saveModel(path: string, model: KoopmanModel, force: boolean): void {
  const { encoder, decoder, koopman, mean, scale } = model;
  const tensors: [string, number[], Float64Array][] = [
    ['mean', [mean.length], mean],
    ['scale', [scale.length], scale],
    ['koopman', [encoder.shape.output, encoder.shape.output], koopman],
  ];
  for (const [name, { shape, parameters }] of Object.entries({ encoder, decoder })) {
    const parts = perceptronParts(shape, parameters);
    tensors.push([`${name}.first.weight`, [shape.input, shape.hidden], parts.first]);
    tensors.push([`${name}.first.bias`, [shape.hidden], parts.firstBias]);
    tensors.push([`${name}.second.weight`, [shape.hidden, shape.output], parts.second]);
    tensors.push([`${name}.second.bias`, [shape.output], parts.secondBias]);
  }
  const plan = tensors.map(([name, shape]) => ({ name, dtype: 'F64' as const, shape }));
  const writer = createSafetensorsWriter(path, { plan, force, metadata: { format: 'surprisal-koopman' } });
  for (const [name, , data] of tensors) writer.write(name, new Uint8Array(data.slice().buffer));
  writer.commit();
}

function summary(result: KoopmanResult): SummaryCell[][] {
  const { terms, gaussian, modes } = result;
  return [
    ['sequences', result.sequences],
    ['steps', result.steps],
    ['latent width', result.width],
    ['coherence, nats', terms.coherenceNats],
    ['consistency', terms.consistency],
    ['von Neumann entropy, nats', terms.entropyNats],
    ['effective dimension', terms.effectiveDimension],
    ['Lagrangian', terms.lagrangian],
    ['spectral radius', modes[0].modulus],
    ...gaussian.lags.map(({ lag, latentNats }): SummaryCell[] => [`I(z; z ${lag} later), nats`, latentNats]),
    ...result.rollout.map(({ horizon, nrmse }): SummaryCell[] => [`NRMSE ${horizon} steps ahead`, nrmse]),
  ];
}
