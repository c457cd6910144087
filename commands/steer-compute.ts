import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { resolveModelPath } from '../src/formats/hub.js';
import type { Shard } from '../src/formats/rows.js';
import type { ReadToken } from '../src/steering/collect-job.js';
import {
  COMPUTE_COLUMNS,
  COMPUTE_SCHEMA,
  type ComputeBody,
  computeSummary,
  computeTable,
} from '../src/steering/compute-report.js';
import type { ComputeSettings } from '../src/steering/compute-vectors.js';
import { CENTRINGS, type Centring } from '../src/steering/east-sums.js';
import type { LayerVector } from '../src/steering/layer-figures.js';
import { SIGN_RULES } from '../src/steering/methods/contrast.js';
import { EAST, findMethod, METHOD_NAMES } from '../src/steering/methods/registry.js';
import { formatVectorScale, parseVectorScale } from '../src/steering/scaling.js';
import type { SteeringVectors } from '../src/steering/types.js';
import { encodeSteeringVectors, vectorFormat } from '../src/steering/vector-files/vector-files.js';
import { addActionOptions } from './action-options.js';
import { type AnalysisContext, type AnalysisOutcome, type AnalysisView, runAnalysis } from './analysis-run.js';
import {
  type Collected,
  type ComputeOptions,
  type ComputePlan,
  type ComputeShared,
  collect,
  ENTROPIES,
  parseLayers,
} from './compute-collect.js';
import { arePairs, readRows } from './compute-inputs.js';
import { flagOf, parseChoice, parseInteger, parseNumber } from './edge-values.js';
import { PRECISION_OPTION, parsePrecision } from './model-session.js';
import { addPromptOptions, promptParameters } from './prompt-inputs.js';
import { ANALYSIS_OPTIONS, attachShared, requireOption } from './shared-options.js';

const SHARED = [
  ...ANALYSIS_OPTIONS.filter((name) => name !== 'format'),
  'model',
  'data',
  'dataFormat',
  'textSplit',
  'limit',
  'table',
  'device',
  'context',
] as const;

const COMMAND = 'steer compute';
/** Declares `surprisal steer compute`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option('--method <name>', `${METHOD_NAMES.join(', ')} (default ${EAST}; pca is pca-pairwise)`)
    .option('--layer <list>', 'decoder blocks, from 0, such as 8, 4-12 or all (default: the middle one)')
    .option(
      '--entropy <source>',
      'counts: of the rows (counts, or completions with --actions); logged: entropy_nats of the rows; exact: forced choice ' +
        'between --actions; sampled: --samples replies (default: what the rows have, else exact)',
    )
    .option('--read-token <which>', 'token whose activation is read: -1 (last), -2, an index, or mean (default -1)')
    .option(
      '--scale <how>',
      'length: raw, unit, mean-projection, residual-fraction:f of the mean residual norm (default raw)',
    )
    .option('--sign <rule>', `sign of principal components: ${SIGN_RULES.join(', ')} (default majority)`)
    .option('--centre <how>', `east: activations relative to ${CENTRINGS.join(', ')} (default run, as in the paper)`)
    .option('--multiplier <beta>', 'strength for which the report states the effective strength (default 2)')
    .option(
      '--permutations <n>',
      'east: permuted copies of the entropies that the correlation is set against (default 99)',
    )
    .option('--run-field <name>', 'field that says which run a prompt is of (default run; without it all are one run)')
    .option('--step-field <name>', 'field with the number of the step (default step)')
    .option('--activations-out <file>', 'keep the activations (.safetensors), for other methods or to unite shards')
    .option('--activations <file...>', 'kept activations instead of --model and --data; parts of --shard are united');
  addActionOptions(command);
  addPromptOptions(command)
    .option(...PRECISION_OPTION)
    .action(async () => {
      process.exitCode = await run((await read()) as ComputeShared, command.opts<ComputeOptions>(), command);
    });
}

function parseReadToken(text: string | undefined): ReadToken {
  if (text === undefined) return -1;
  if (text === 'mean') return 'mean';
  if (/^-?\d+$/.test(text)) return Number(text);
  throw new InputError(`--read-token ${text}: expected a whole number (-1 is the last token) or mean`);
}

function parseCentring(text: string | undefined): Centring {
  if (text === 'prompt') {
    throw new InputError(
      '--centre prompt: an activation minus itself is zero, so nothing is left; EAST takes activations relative to the ' +
        'mean of their run. Rows without a run field are one run',
    );
  }
  return text === undefined ? 'run' : parseChoice('--centre', text, CENTRINGS);
}

function planOf(options: ComputeShared, own: ComputeOptions): ComputePlan {
  const method = findMethod(own.method ?? EAST);
  const flags = { centre: own.centre, permutations: own.permutations };
  const stray = Object.entries(flags).find(([, value]) => value !== undefined)?.[0];
  if (method !== EAST && stray !== undefined)
    throw new InputError(`--${stray} has no meaning with --method ${method.name}`);
  if (own.sign !== undefined && (method === EAST || !/^pca|^lat/.test(method.name))) {
    throw new InputError(`--sign has no meaning with --method ${own.method ?? EAST}: its sign is its own`);
  }
  const sampled = own.entropy === 'sampled' || (own.samples !== undefined && own.samples !== '0');
  if (sampled && own.thought !== undefined) {
    throw new InputError(
      '--thought has no meaning with sampled replies, which bring their own; --entropy exact reads it',
    );
  }
  return {
    read: parseReadToken(own.readToken),
    entropy: own.entropy === undefined ? undefined : parseChoice('--entropy', own.entropy, ENTROPIES),
    settings: {
      method,
      centring: parseCentring(own.centre),
      permutations: own.permutations === undefined ? 99 : parseInteger('--permutations', own.permutations, 0, 100_000),
      sign: own.sign === undefined ? 'majority' : parseChoice('--sign', own.sign, SIGN_RULES),
      scale: parseVectorScale(own.scale ?? 'raw'),
      multiplier: own.multiplier === undefined ? 2 : parseNumber('--multiplier', own.multiplier),
      seed: options.seed,
      threads: options.threads,
    },
  };
}

/** Options that kept activations have answered already. */
const COLLECTING = [
  'data',
  'dataFormat',
  'textSplit',
  'limit',
  'context',
  'device',
  'model',
  'shard',
  'shards',
  'entropy',
  'readToken',
  'runField',
  'stepField',
  'activationsOut',
  'actions',
  'thought',
  'samples',
  'actionPattern',
  'sampler',
  'maxNewTokens',
  'promptField',
  'chatTemplate',
  'idField',
  'precision',
] as const;

/** Options of what is made of activations, which a part of `--shard` leaves to others. */
const VECTOR_OPTIONS = ['scale', 'sign', 'centre', 'multiplier', 'permutations'] as const;

function checkOptions(options: ComputeShared, own: ComputeOptions, command: Command): void {
  if (own.activations) {
    const given = COLLECTING.find((name) => command.getOptionValueSource(name) !== undefined);
    if (given) throw new InputError(`${flagOf(given)} has no meaning with --activations, which were collected already`);
  } else {
    requireOption(options.model, '--model', 'the model whose activations are read');
    requireOption(options.data, '--data', 'prompts with their runs and entropies, or contrast pairs');
  }
  if (options.shard) {
    requireOption(
      own.activationsOut,
      '--activations-out',
      'where the part of --shard goes; --activations unites the parts',
    );
    const given = (['out', 'report', 'table', 'plot'] as const).find((name) => options[name] !== undefined);
    if (given) {
      throw new InputError(
        `--${given}: a part of --shard has no vector of its own; unite the parts with --activations`,
      );
    }
    const stray = VECTOR_OPTIONS.find((name) => own[name] !== undefined);
    if (stray)
      throw new InputError(`${flagOf(stray)} has no meaning with --shard; give it where --activations unite the parts`);
  }
  if (options.out !== undefined) vectorFormat(options.out);
}

async function run(options: ComputeShared, own: ComputeOptions, command: Command): Promise<number> {
  checkOptions(options, own, command);
  const plan = planOf(options, own);
  const view: AnalysisView = {
    name: COMPUTE_SCHEMA,
    command: COMMAND,
    columns: [],
    tableColumns: COMPUTE_COLUMNS,
    files: new Map(options.out === undefined ? [] : [['--out', options.out]]),
    unit: 'prompts',
    inputs: own.activations ?? options.data,
    parameters: parametersOf(options, own, plan),
    subtitle: (own.activations ?? [options.model ?? '', ...options.data]).join(', '),
  };
  return runAnalysis(
    view,
    { ...options, out: undefined, format: undefined, shard: undefined },
    {
      measure: (context) => measure(context, options, own, plan),
      plan: (context) => dryRun(context, options, own, plan),
    },
  );
}

function parametersOf(
  options: ComputeShared,
  own: ComputeOptions,
  { settings, read }: ComputePlan,
): AnalysisView['parameters'] {
  const { method } = settings;
  return {
    model: options.model ?? null,
    data: [...options.data],
    activations: own.activations ?? null,
    method: method === EAST ? EAST : method.name,
    layer: own.layer ?? null,
    entropy: own.entropy ?? null,
    read_token: read,
    scale: formatVectorScale(settings.scale),
    sign: settings.sign,
    centre: settings.centring,
    multiplier: settings.multiplier,
    permutations: method === EAST ? settings.permutations : null,
    run_field: own.runField ?? 'run',
    step_field: own.stepField ?? 'step',
    actions: own.actions ?? null,
    thought: own.thought ?? null,
    samples: own.samples === undefined ? null : Number(own.samples),
    action_pattern: own.actionPattern ?? null,
    sampler: own.sampler ?? null,
    max_new_tokens: own.maxNewTokens === undefined ? null : Number(own.maxNewTokens),
    ...promptParameters(own),
    limit: options.limit ?? null,
    precision: own.activations ? null : parsePrecision(own.precision),
    seed: options.seed,
  };
}

async function measure(
  context: AnalysisContext,
  options: ComputeShared,
  own: ComputeOptions,
  plan: ComputePlan,
): Promise<AnalysisOutcome> {
  const collected = own.activations
    ? await openKept(context, options, own, own.activations)
    : await collect(context, options, own, plan);
  try {
    if (options.shard) return partOutcome(collected, options.shard);
    return await outcome(context, collected, options, plan);
  } finally {
    collected.store.close();
  }
}

async function openKept(
  { ledger, warn }: AnalysisContext,
  options: ComputeShared,
  own: ComputeOptions,
  paths: readonly string[],
): Promise<Collected> {
  const { readActivations } = await import('../src/steering/activation-file.js');
  for (const path of paths) ledger.note(path);
  const { header, rows, store } = readActivations(paths);
  const held = store.layers.join(', ');
  const layers =
    own.layer === undefined
      ? store.layers.filter((layer) => layer > 0 || options.out === undefined || vectorFormat(options.out) !== 'gguf')
      : parseLayers(own.layer, header.modelLayers, options.out, warn);
  const missing = layers.find((layer) => !store.layers.includes(layer));
  if (missing !== undefined && own.layer !== 'all') {
    throw new InputError(`--layer ${missing}: ${paths.join(', ')} holds layers ${held}`);
  }
  return {
    header,
    rows,
    store,
    layers: layers.filter((layer) => store.layers.includes(layer)),
    stepsLeftOut: 0,
    tokensRead: 0,
    warnings: [],
    digests: [],
  };
}

/** A part of `--shard` leaves its activations and nothing else. */
function partOutcome({ rows, layers, digests }: Collected, shard: Shard): AnalysisOutcome {
  return {
    body: {},
    rows: () => [],
    summary: {
      header: ['part', 'rows', 'layers'],
      rows: [[`${shard.index}/${shard.count}`, rows.length, layers.join(', ')]],
    },
    digests: async () => digests,
  };
}

async function outcome(
  { timings, progress, warn }: AnalysisContext,
  collected: Collected,
  options: ComputeShared,
  { settings }: ComputePlan,
): Promise<AnalysisOutcome> {
  const { header, rows, store, layers: wanted, digests } = collected;
  const { checkSteps, computeLayer, stepTable } = await import('../src/steering/compute-vectors.js');
  if (header.kind === 'pairs' && settings.method === EAST) {
    throw new InputError(
      '--method east: the activations are of contrast pairs; use --method mean-difference, pca or logistic',
    );
  }
  const table = header.kind === 'steps' ? stepTable(rows) : undefined;
  if (table) checkSteps(table, settings.method === EAST ? settings.centring : 'run');
  timings.begin('vectors');
  const vectors: LayerVector[] = [];
  for (const layer of wanted) {
    vectors.push(computeLayer(store, store.layers.indexOf(layer), table, settings));
    progress.update(vectors.length, 'layers');
    // Signals are served between layers.
    await new Promise((resolve) => setImmediate(resolve));
  }
  const made = steeringVectors(collected, vectors, settings);
  const encoded = options.out === undefined ? undefined : encodeSteeringVectors(options.out, made);
  for (const note of encoded?.notes ?? []) warn(note);
  const body = await bodyOf(collected, vectors, settings, encoded?.notes ?? []);
  const files = new Map<string, Uint8Array>();
  if (encoded) files.set('--out', encoded.bytes);
  return {
    body,
    rows: () => [],
    tableRows: () => computeTable(vectors, rows, header.kind),
    figure: async (subtitle) => (await import('../src/steering/compute-plot.js')).drawVectors(body, subtitle),
    summary: computeSummary(body),
    files: () => files,
    digests: async () => digests,
  };
}

function steeringVectors(
  { header, store }: Collected,
  vectors: readonly LayerVector[],
  { method, scale }: ComputeSettings,
): SteeringVectors {
  return {
    hiddenSize: store.width,
    directions: new Map(vectors.map(({ layer, vector }) => [layer, Float32Array.from(vector)])),
    origin: {
      modelType: header.modelType,
      layers: header.modelLayers,
      modelSha256: header.modelSha256,
      method: method === EAST ? EAST : method.name,
      scale: formatVectorScale(scale),
      operator: 'add',
      ...(method === EAST && { positions: 'last' }),
    },
    assumptions: [],
  };
}

async function bodyOf(
  { header, rows, store, stepsLeftOut, tokensRead, warnings }: Collected,
  vectors: readonly LayerVector[],
  settings: ComputeSettings,
  notes: readonly string[],
): Promise<ComputeBody> {
  const { moments, neighbourCosines } = await import('../src/steering/compute-vectors.js');
  const steps = header.kind === 'steps';
  const entropies = Float64Array.from(steps ? rows : [], ({ entropyNats }) => entropyNats ?? Number.NaN);
  const { mean, sd } = moments(entropies);
  const { method } = settings;
  const completions = rows.map(({ counts }) => counts?.reduce((sum, count) => sum + count, 0) ?? 0);
  return {
    method: method === EAST ? EAST : method.name,
    kind: header.kind,
    centring: steps ? (method === EAST ? settings.centring : 'run') : 'pair',
    scale: formatVectorScale(settings.scale),
    sign: settings.sign,
    read_token: header.read,
    entropy_source: header.entropy,
    model_type: header.modelType,
    model_sha256: header.modelSha256,
    model_layers: header.modelLayers,
    hidden_size: store.width,
    multiplier: settings.multiplier,
    runs: steps ? new Set(rows.map(({ run }) => run)).size : 0,
    steps: steps ? rows.length : 0,
    steps_left_out: stepsLeftOut,
    pairs: steps ? 0 : rows.length / 2,
    completions: Math.max(0, ...completions),
    total_entropy_nats: entropies.reduce((sum, h) => sum + h, 0),
    mean_entropy_nats: mean,
    entropy_sd_nats: sd,
    tokens_read: tokensRead,
    by_layer: vectors.map(({ figures }) => figures),
    cosine_to_next_layer: neighbourCosines(vectors),
    warnings,
    notes,
  };
}

/** What `--dry-run` says: nothing is read but the data's rows. */
async function dryRun(
  { ledger, warn }: AnalysisContext,
  options: ComputeShared,
  own: ComputeOptions,
  { settings, read }: ComputePlan,
): Promise<(readonly [string, string | number])[]> {
  const method = settings.method === EAST ? EAST : settings.method.name;
  if (own.activations)
    return [
      ['activations', own.activations.join(', ')],
      ['method', method],
    ];
  const model = requireOption(options.model, '--model', 'the model whose activations are read');
  const documents = await readRows(options, ledger);
  const { openModelFiles } = await import('../src/models/model-files.js');
  const files = openModelFiles(resolveModelPath(model, process.env).path);
  files.store.close();
  const { layers: blocks, hiddenSize } = files.description;
  const layers = parseLayers(own.layer, blocks.length, options.out, warn);
  const rows = documents.length * (arePairs(documents) ? 2 : 1);
  return [
    ['method', method],
    ['rows', rows],
    ['layers', layers.join(', ')],
    ['token that is read', read],
    ['passes', `one, through blocks 0 to ${Math.max(...layers)}`],
    ['activations', `${4 * rows * layers.length * hiddenSize} bytes`],
  ];
}
