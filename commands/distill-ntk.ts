import type { Command } from 'commander';
import { type KernelScales, NTK_PARAMETRISATIONS, type NtkParametrisation } from '../src/distillation/ntk-kernels.js';
import { measureEnsemble, testInputs } from '../src/distillation/ntk-measurement.js';
import { modelsForAllInputs, modelsNeeded, permutationLaw } from '../src/distillation/ntk-permutations.js';
import {
  ACCURACY_COLUMNS,
  accuracyRows,
  kernelWords,
  LAW_COLUMNS,
  lawRows,
  NTK_SCHEMA,
  type NtkResult,
  type NtkSize,
  ntkBody,
} from '../src/distillation/ntk-report.js';
import {
  defaultLearningRate,
  type NetworkSettings,
  SIMULATE_NETWORKS,
  type SimulationResult,
} from '../src/distillation/ntk-simulation.js';
import { InputError } from '../src/errors.js';
import { createRandom } from '../src/random.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import { type AnalysisContext, type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import { flagOf, parseChoice, parseInteger, parseNumber } from './edge-values.js';
import { runInThread } from './run-in-thread.js';
import { ANALYSIS_OPTIONS, attachShared, type SharedOptions } from './shared-options.js';

const SHARED = [...ANALYSIS_OPTIONS.filter((name) => name !== 'shard'), 'table'] as const;
type Options = Pick<SharedOptions, (typeof SHARED)[number] | 'config' | 'debug'>;

/** Options as commander gives them. */
interface OwnOptions {
  k?: string;
  ones?: string;
  delta?: string;
  param?: string;
  sigmaW?: string;
  sigmaB?: string;
  nets?: string;
  width?: string;
  tests?: string;
  steps?: string;
  learningRate?: string;
  residual?: string;
}

/** Declares `surprisal distill-pld ntk`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option('--k <list>', 'numbers of bits (default 5,10,20,40,80)')
    .option('--ones <list>', 'numbers of ones in a test input (default 2)')
    .option('--delta <share>', 'error allowed at one input (default 0.1)')
    .option('--param <name>', 'parametrisation: ntk (theory by Theta) or standard (theory by Sigma) (default ntk)')
    .option('--sigma-w <deviation>', 'of the weights at the start (default 1)')
    .option('--sigma-b <deviation>', 'of the biases at the start (default 0: none)')
    .option('--nets <n>', 'networks that are trained for every k (default 0: theory alone)')
    .option('--width <n>', 'hidden units (default 2000 k)')
    .option('--tests <n>', 'different test inputs, all of them where there are fewer (default 1000)')
    .option('--steps <n>', 'steps of gradient descent at most (default 2500)')
    .option(
      '--learning-rate <rate>',
      'default k/2, over the width with --param standard, or less where that overshoots',
    )
    .option('--residual <error>', 'stop when no training output is farther from its target (default 1e-5)');
  command.action(async () => {
    process.exitCode = await run(await read(), command.opts<OwnOptions>());
  });
}

interface Settings {
  readonly sizes: readonly number[];
  readonly ones: readonly number[];
  readonly delta: number;
  readonly parametrisation: NtkParametrisation;
  readonly scales: KernelScales;
  readonly nets: number;
  readonly tests: number;
  readonly width: number | undefined;
  readonly steps: number;
  readonly learningRate: number | undefined;
  readonly residual: number;
}

const list = (flag: string, text: string): number[] => [
  ...new Set(text.split(',').map((part) => parseInteger(flag, part.trim(), 1, 100_000))),
];

const positive = (flag: string, text: string): number => {
  const value = parseNumber(flag, text, 0);
  if (value > 0) return value;
  throw new InputError(`${flag} ${text}: a number above 0 is needed`);
};

function settingsOf(own: OwnOptions): Settings {
  const nets = parseInteger('--nets', own.nets ?? '0', 0, 1_000_000);
  const simulating = ['width', 'tests', 'steps', 'learningRate', 'residual'] as const;
  const stray = simulating.find((name) => own[name] !== undefined);
  if (nets === 0 && stray) throw new InputError(`${flagOf(stray)} is of no use without --nets`);
  const delta = parseNumber('--delta', own.delta ?? '0.1', 0, 1);
  if (delta === 0 || delta === 1) throw new InputError(`--delta ${own.delta}: a number between 0 and 1 is needed`);
  return {
    sizes: list('--k', own.k ?? '5,10,20,40,80').sort((a, b) => a - b),
    ones: list('--ones', own.ones ?? '2').sort((a, b) => a - b),
    delta,
    parametrisation: parseChoice('--param', own.param ?? 'ntk', NTK_PARAMETRISATIONS),
    scales: {
      sigmaW: positive('--sigma-w', own.sigmaW ?? '1'),
      sigmaB: parseNumber('--sigma-b', own.sigmaB ?? '0', 0),
    },
    nets,
    tests: parseInteger('--tests', own.tests ?? '1000', 1),
    width: own.width === undefined ? undefined : parseInteger('--width', own.width, 1),
    steps: parseInteger('--steps', own.steps ?? '2500', 0),
    learningRate: own.learningRate === undefined ? undefined : positive('--learning-rate', own.learningRate),
    residual: positive('--residual', own.residual ?? '1e-5'),
  };
}

/** Streams of the seed: networks count from 0 in a stream of their own for every k. */
const PERMUTATIONS = 1;
const TESTS = 2;
const NETWORKS = 3;

const networkOf = (settings: Settings, k: number): NetworkSettings => {
  const { parametrisation, scales, steps, residual } = settings;
  const base = { k, width: settings.width ?? 2000 * k, parametrisation, scales };
  return { ...base, learningRate: settings.learningRate ?? defaultLearningRate(base), steps, residual };
};

/** Hidden layers that one training holds: weights, activations and their gradients. */
const HELD_LAYERS = 5;

function requireMemory(settings: Settings, options: Options): number {
  const { sizes, ones, nets, tests } = settings;
  const most = Math.max(...sizes);
  const width = settings.width ?? 2000 * most;
  const bytes = 8 * (2 * nets * tests * most * ones.length + options.threads * width * (HELD_LAYERS * most + 64));
  if (nets > 0 && bytes > options.maxMemory) {
    throw new InputError(
      `${nets} networks take some ${Math.ceil(bytes / 2 ** 20)} MiB, more than --max-memory; use fewer --nets, --tests or --threads`,
    );
  }
  return bytes;
}

/** Trains the networks of one k in ranges, one a thread; the networks are the same however they are dealt out. */
async function simulate(
  settings: Settings,
  options: Options,
  inputs: Float64Array,
  permutation: Int32Array,
  onNetwork: () => void,
): Promise<SimulationResult> {
  const { nets } = settings;
  const k = permutation.length;
  const seed = Number(createRandom(options.seed).fork(k).fork(NETWORKS).next64() >> 12n);
  const network = networkOf(settings, k);
  const parts = Math.min(options.threads, nets);
  const ends = Array.from({ length: parts + 1 }, (_, i) => Math.round((i * nets) / parts));
  const results = await Promise.all(
    Array.from({ length: parts }, (_, i) =>
      runInThread(
        SIMULATE_NETWORKS,
        { ...network, permutation, inputs, seed, from: ends[i], to: ends[i + 1] },
        onNetwork,
        1,
      ),
    ),
  );
  const joined: SimulationResult = {
    outputs: new Float64Array(nets * inputs.length),
    steps: new Int32Array(nets),
    residuals: new Float64Array(nets),
  };
  results.forEach((part, i) => {
    joined.outputs.set(part.outputs, ends[i] * inputs.length);
    joined.steps.set(part.steps, ends[i]);
    joined.residuals.set(part.residuals, ends[i]);
  });
  return joined;
}

async function sizeOf(k: number, settings: Settings, options: Options, onNetwork: () => void): Promise<NtkSize> {
  const { parametrisation, scales, delta, ones, nets, tests } = settings;
  const laws = ones.map((m) => permutationLaw(k, m, parametrisation, scales));
  const rows = laws.map((law) => ({ law, needed: modelsNeeded(law, delta) }));
  const allInputs = modelsForAllInputs(k, delta, parametrisation, scales);
  if (nets === 0) return { k, rows, allInputs };

  const root = createRandom(options.seed).fork(k);
  const permutation = root.fork(PERMUTATIONS).permutation(k);
  const blocks = ones.map((m) => testInputs(k, m, tests, root.fork(TESTS).fork(m)));
  const inputs = new Float64Array(blocks.reduce((sum, block) => sum + block.length, 0));
  const starts = blocks.map((_, b) => blocks.slice(0, b).reduce((sum, block) => sum + block.length, 0));
  for (const [b, block] of blocks.entries()) inputs.set(block, starts[b]);
  const found = await simulate(settings, options, inputs, permutation, onNetwork);
  const { width, learningRate } = networkOf(settings, k);
  return {
    k,
    allInputs,
    training: {
      width,
      learningRate,
      permutation,
      mostSteps: found.steps.reduce((most, value) => Math.max(most, value), 0),
      largestResidual: found.residuals.reduce((most, value) => Math.max(most, value), 0),
      unfinished: found.residuals.reduce((count, value) => count + (value > settings.residual ? 1 : 0), 0),
    },
    rows: rows.map((row, b) => {
      const block = blocks[b];
      const own = new Float64Array(nets * block.length);
      for (let n = 0; n < nets; n++) {
        const from = n * inputs.length + starts[b];
        own.set(found.outputs.subarray(from, from + block.length), n * block.length);
      }
      return { ...row, measured: measureEnsemble(own, block, permutation, row.law, delta) };
    }),
  };
}

async function measure(settings: Settings, options: Options, context: AnalysisContext): Promise<AnalysisOutcome> {
  let done = 0;
  context.progress.setTotal(Math.max(1, settings.sizes.length * settings.nets));
  const sizes: NtkSize[] = [];
  for (const k of settings.sizes) {
    sizes.push(await sizeOf(k, settings, options, () => context.progress.update(++done)));
  }
  const warnings = sizes.flatMap(({ k, training }) =>
    training && training.unfinished > 0
      ? [
          `k = ${k}: ${training.unfinished} of ${settings.nets} networks ended above the residual ${settings.residual} (largest ${training.largestResidual.toPrecision(3)}); raise --steps`,
        ]
      : [],
  );
  for (const warning of warnings) context.warn(warning);
  const { parametrisation, scales, delta } = settings;
  const result: NtkResult = { parametrisation, scales, delta, sizes, warnings };
  return {
    body: ntkBody(result),
    rows: () => lawRows(result),
    tableRows: () => accuracyRows(result),
    figure: async (subtitle) => (await import('../src/distillation/ntk-plot.js')).drawNtk(result, subtitle),
    summary: { header: SUMMARY, rows: summaryRows(result) },
  };
}

const SUMMARY = ['kernel', 'k', 'ones', 'mean on', 'mean off', 'std', 'networks', 'bound', 'measured', 'z on', 'z off'];

function summaryRows({ sizes, parametrisation }: NtkResult): SummaryCell[][] {
  const kernel = kernelWords(parametrisation).split(',')[0];
  return sizes.flatMap(({ k, rows }) =>
    rows.map(({ law, needed, measured }): SummaryCell[] => [
      kernel,
      k,
      law.ones,
      law.meanOn,
      law.meanOff,
      Math.sqrt(law.variance),
      needed.gaussianUnion,
      needed.tailBound,
      measured?.modelsMeasured,
      measured?.meanOn.z,
      measured?.meanOff?.z,
    ]),
  );
}

async function run(options: Options, own: OwnOptions): Promise<number> {
  const settings = settingsOf(own);
  if (settings.nets === 0 && options.table !== undefined) {
    throw new InputError('--table holds what networks reached: it needs --nets');
  }
  for (const k of settings.sizes) {
    for (const ones of settings.ones) permutationLaw(k, ones, settings.parametrisation, settings.scales);
  }
  const { sizes, ones, delta, parametrisation, scales, nets } = settings;
  const view = {
    name: NTK_SCHEMA,
    command: 'distill-pld ntk',
    columns: LAW_COLUMNS,
    tableColumns: ACCURACY_COLUMNS,
    unit: 'networks',
    inputs: [],
    parameters: {
      k: [...sizes],
      ones: [...ones],
      delta,
      param: parametrisation,
      sigma_w: scales.sigmaW,
      sigma_b: scales.sigmaB,
      nets,
      width: settings.width ?? null,
      tests: nets > 0 ? settings.tests : null,
      steps: nets > 0 ? settings.steps : null,
      learning_rate: settings.learningRate ?? null,
      residual: nets > 0 ? settings.residual : null,
      seed: options.seed,
    },
    subtitle: nets > 0 ? `${nets} networks for every k` : 'no networks trained',
  };
  return runAnalysis(
    view,
    { ...options, shard: undefined },
    {
      async plan() {
        return [
          ['theory', kernelWords(parametrisation)],
          ['k', sizes.join(', ')],
          ['networks for every k', nets],
          ['peak memory, MiB', Math.ceil(requireMemory(settings, options) / 2 ** 20)],
        ];
      },
      measure(context) {
        requireMemory(settings, options);
        return measure(settings, options, context);
      },
    },
  );
}
