import { basename } from 'node:path';
import type { Command } from 'commander';
import type { SteeringPositions } from '../src/decoding/steering-plan.js';
import { InputError } from '../src/errors.js';
import { resolveModelPath } from '../src/formats/hub.js';
import { INTERVENTION_KINDS, type InterventionKind } from '../src/models/interventions.js';
import { hashModelFiles } from '../src/models/model-hash.js';
import { createRandom } from '../src/random.js';
import type { Cell } from '../src/report/csv.js';
import type { ReportValue } from '../src/report/values.js';
import type { EvaluationRequest } from '../src/steering/evaluate-prompts.js';
import { type SweepCell, sweepCells, UNSTEERED } from '../src/steering/sweep-cells.js';
import { EVALUATE_SWEEP, RESIDUAL_NORMS, type SweepSteering } from '../src/steering/sweep-job.js';
import {
  type CellMeasures,
  type LayerNorms,
  layerVerdict,
  MEASURES,
  type SearchResult,
  SWEEP_COLUMNS,
  SWEEP_SCHEMA,
  type SweepBody,
  type SweepClusters,
  type SweepRow,
  sweepRow,
  sweepTableRow,
  type TargetResult,
} from '../src/steering/sweep-report.js';
import { searchStrength } from '../src/steering/sweep-search.js';
import { strengthForEntropy } from '../src/steering/target-strength.js';
import type { SteeringVectors } from '../src/steering/types.js';
import {
  type ActionOptions,
  addActionOptions,
  encodeActions,
  type NamedChoice,
  namedChoice,
  readSampling,
} from './action-options.js';
import { type AnalysisContext, type AnalysisOutcome, type AnalysisView, runAnalysis } from './analysis-run.js';
import { parseChoice, parseIndices, parseInteger, parseNumber } from './edge-values.js';
import { modelDigests } from './model-digests.js';
import { type ModelSession, openModelSession, PRECISION_OPTION, parsePrecision } from './model-session.js';
import {
  addPromptOptions,
  PROMPT_SHARED,
  type Prompt,
  type PromptOptions,
  type PromptShared,
  promptParameters,
  readPrompts,
} from './prompt-inputs.js';
import { attachShared, requireOption } from './shared-options.js';
import { DEFAULT_POSITIONS, openVectors, readPositions } from './steer-options.js';

interface OwnOptions extends ActionOptions, PromptOptions {
  vector?: string;
  layer?: string;
  operator?: string;
  positions?: string;
  strengths?: string;
  strengthUnit?: string;
  random?: string;
  shuffled?: string;
  temperatures?: string;
  prompts?: string;
  runField?: string;
  targetEntropy?: string;
  search?: boolean;
  searchSamples?: string;
  searchRounds?: string;
  leastMass?: string;
  cvectorShift?: string;
  anyModel?: boolean;
  precision?: string;
}

const COMMAND = 'steer sweep';
const DEFAULT_STRENGTHS = '-2,-1,0,1,2,4';
const DEFAULT_TEMPERATURES = '1.1,1.3,1.5';
const PROMPT_STREAM = 0x70726f6d;
/** Prompts over which norms of the residual stream are averaged. */
const NORM_PROMPTS = 32;
/** Columns of `--table`: one row a prompt and cell. */
const TABLE_COLUMNS = [
  'prompt',
  'run',
  'kind',
  'layer',
  'control',
  'strength',
  'temperature',
  'action_entropy_nats',
  'action_mass',
  'thought_nats',
  'first_token_kl_nats',
  'sampled_entropy_nats',
  'sampled_entropy_miller_madow_nats',
  'valid_share',
  'reply_nats',
  'distinct_2',
] as const;

/** Declares `surprisal steer sweep`. */
export function configure(command: Command): void {
  const read = attachShared(command, PROMPT_SHARED);
  command
    .option('--vector <file>', 'steering vectors; one layer at a time is steered')
    .option('--layer <list>', 'decoder blocks, from 0, such as 8 or 4-12 (default: all that the file holds)')
    .option('--operator <name>', `${INTERVENTION_KINDS.join(', ')} (default: the file's, else add)`)
    .option('--positions <which>', `which positions are steered (default ${DEFAULT_POSITIONS})`)
    .option('--strengths <list>', `multipliers of the vector (default ${DEFAULT_STRENGTHS})`)
    .option(
      '--strength-unit <unit>',
      'vector: multiples of the stored vector; residual: shares of the mean norm of the residual stream (default vector)',
    )
    .option('--random <n>', 'random vectors of equal norm a layer (default 3)')
    .option('--shuffled <n>', 'copies of the vector with shuffled coordinates a layer (default 1)')
    .option('--temperatures <list>', `temperatures of the unsteered model (default ${DEFAULT_TEMPERATURES})`)
    .option('--prompts <n>', 'take so many prompts of --data at random (default: all)')
    .option(
      '--run-field <name>',
      'field that says which run a prompt is of; runs are what intervals draw (default run)',
    )
    .option('--target-entropy <nats>', 'find for each layer the strength that reaches this mean action entropy')
    .option('--search', 'search layer and strength together by the cross-entropy method')
    .option('--search-samples <n>', 'points of a round of the search (default 20)')
    .option('--search-rounds <n>', 'rounds of the search at most (default 8)')
    .option('--least-mass <share>', 'the search wants at least this probability of naming an action (default 0.9)')
    .option('--cvector-shift <n>', 'added to the layer numbers of .gguf files')
    .option('--any-model', 'use vectors whose model has another hash, if hidden size and layers fit');
  addActionOptions(command);
  addPromptOptions(command)
    .option(...PRECISION_OPTION)
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<OwnOptions>());
    });
}

/** Numbers separated by commas, ascending, each once. */
function parseNumbers(option: string, text: string, min?: number): number[] {
  const values = text.split(',').filter((part) => part.trim() !== '');
  return [...new Set(values.map((part) => parseNumber(option, part, min)))].sort((a, b) => a - b);
}

interface Settings {
  readonly strengths: readonly number[];
  readonly unit: 'vector' | 'residual';
  readonly random: number;
  readonly shuffled: number;
  readonly temperatures: readonly number[];
  readonly target?: number;
  readonly search?: { readonly samples: number; readonly rounds: number; readonly leastMass: number };
}

function settingsOf(own: OwnOptions): Settings {
  const strengths = parseNumbers('--strengths', own.strengths ?? DEFAULT_STRENGTHS);
  if (!strengths.some((strength) => strength !== 0))
    throw new InputError('--strengths: one that is not zero is needed');
  const target = own.targetEntropy === undefined ? undefined : parseNumber('--target-entropy', own.targetEntropy, 0);
  const stray = (['searchSamples', 'searchRounds', 'leastMass'] as const).find((name) => own[name] !== undefined);
  if (!own.search && stray) throw new InputError('--search-samples, --search-rounds and --least-mass need --search');
  return {
    strengths,
    unit:
      own.strengthUnit === undefined
        ? 'vector'
        : parseChoice('--strength-unit', own.strengthUnit, ['vector', 'residual'] as const),
    random: parseInteger('--random', own.random ?? '3'),
    shuffled: parseInteger('--shuffled', own.shuffled ?? '1'),
    temperatures: parseNumbers('--temperatures', own.temperatures ?? DEFAULT_TEMPERATURES, 1e-3),
    ...(target !== undefined && { target }),
    ...(own.search && {
      search: {
        samples: parseInteger('--search-samples', own.searchSamples ?? '20', 2),
        rounds: parseInteger('--search-rounds', own.searchRounds ?? '8', 1),
        leastMass: parseNumber('--least-mass', own.leastMass ?? '0.9', 0, 1),
      },
    }),
  };
}

async function run(options: PromptShared, own: OwnOptions): Promise<number> {
  const model = requireOption(options.model, '--model', 'the model that is steered');
  const vector = requireOption(own.vector, '--vector', 'the file of steering vectors');
  requireOption(options.data, '--data', 'the prompts, such as the log of steer bandit');
  const settings = settingsOf(own);
  const view: AnalysisView = {
    name: SWEEP_SCHEMA,
    command: COMMAND,
    columns: SWEEP_COLUMNS,
    tableColumns: TABLE_COLUMNS,
    unit: 'cells',
    inputs: [...options.data, vector],
    parameters: parametersOf(model, vector, options, own, settings),
    subtitle: `${model}, ${basename(vector)}`,
  };
  return runAnalysis(
    view,
    { ...options, shard: undefined },
    {
      measure: (context) => measure(context, model, vector, options, own, settings),
      plan: async () => [
        ['strengths', settings.strengths.join(', ')],
        ['controls a layer', settings.random + settings.shuffled],
        ['temperatures', settings.temperatures.join(', ')],
        ['reads', 'each prompt once, then for every cell what follows its last token'],
      ],
    },
  );
}

function parametersOf(
  model: string,
  vector: string,
  options: PromptShared,
  own: OwnOptions,
  settings: Settings,
): Record<string, ReportValue> {
  return {
    model,
    vector,
    data: [...options.data],
    layer: own.layer ?? null,
    operator: own.operator ?? null,
    positions: own.positions ?? DEFAULT_POSITIONS,
    strengths: [...settings.strengths],
    strength_unit: settings.unit,
    random: settings.random,
    shuffled: settings.shuffled,
    temperatures: [...settings.temperatures],
    prompts: own.prompts === undefined ? null : Number(own.prompts),
    run_field: own.runField ?? 'run',
    actions: own.actions ?? null,
    thought: own.thought ?? null,
    samples: Number(own.samples ?? 0),
    action_pattern: own.actionPattern ?? null,
    sampler: own.sampler ?? null,
    max_new_tokens: own.maxNewTokens === undefined ? null : Number(own.maxNewTokens),
    target_entropy_nats: settings.target ?? null,
    search: settings.search ? { ...settings.search } : null,
    ...promptParameters(own),
    limit: options.limit ?? null,
    precision: parsePrecision(own.precision),
    seed: options.seed,
  };
}

/** Everything that cells are evaluated with. */
interface Sweep {
  readonly context: AnalysisContext;
  readonly session: ModelSession;
  readonly settings: Settings;
  readonly request: EvaluationRequest;
  readonly steering: SweepSteering;
  readonly layers: readonly number[];
  readonly norms: LayerNorms;
  readonly clusters: SweepClusters;
}

async function measure(
  context: AnalysisContext,
  model: string,
  vectorFile: string,
  options: PromptShared,
  own: OwnOptions,
  settings: Settings,
): Promise<AnalysisOutcome> {
  const { path } = resolveModelPath(model, process.env);
  context.timings.begin('hash the model');
  const { digests, files } = await modelDigests(model, path);
  const sha256 = hashModelFiles(files);
  context.timings.begin('open the model');
  const session = await openModelSession(model, { ...options, precision: parsePrecision(own.precision) });
  try {
    const { tokenizer, host } = session;
    if (!tokenizer) throw new InputError(`${model}: has no tokenizer, which actions need`);
    const only = own.layer !== undefined && /^\d+$/.test(own.layer) ? Number(own.layer) : undefined;
    const subject = { spec: model, info: host.info, sha256 };
    const vectors = await openVectors(vectorFile, own, subject, context.ledger, only);
    const prompts = choosePrompts(await readPrompts(options, own, tokenizer, context.ledger), own, options.seed);
    const named = namedChoice(own, prompts[0].record);
    checkTarget(settings.target, named.actions.length);
    const choice = encodeActions(named, tokenizer);
    checkFits(prompts, choice, session, own);
    const sampling = readSampling(own, named, options.seed);
    const operator = operatorOf(own, vectors);
    const positions = await sweepPositions(own, context, prompts.length);
    const layers = layersOf(own, vectors, vectorFile);
    context.timings.begin('norms of the residual stream');
    const tokens = prompts.map((prompt) => prompt.tokens);
    const residual = await host.run(RESIDUAL_NORMS, { prompts: tokens.slice(0, NORM_PROMPTS) });
    const sweep: Sweep = {
      context,
      session,
      settings,
      request: { prompts: tokens, choice, ...(sampling && { sampling }) },
      steering: { directions: vectors.directions, operator, positions, seed: options.seed },
      layers,
      norms: new Map(layers.map((layer) => [layer, { vector: normOf(vectors, layer), residual: residual[layer] }])),
      clusters: clustersOf(prompts, own, options.seed),
    };
    const body = await sweepBody(sweep, named, prompts, vectors);
    return {
      body: body.body,
      rows: () => [body.body.unsteered, ...body.body.rows].map(sweepTableRow),
      tableRows: () => promptRows(body.cells, body.measures, prompts, sweep.clusters),
      figure: async (subtitle) => (await import('../src/steering/sweep-plot.js')).sweepFigure(body.body, subtitle),
      summary: summary(body.body),
      digests: async () => digests,
    };
  } finally {
    await session.close();
  }
}

async function sweepPositions(own: OwnOptions, context: AnalysisContext, prompts: number): Promise<SteeringPositions> {
  return readPositions(own.positions ?? DEFAULT_POSITIONS, prompts, context.ledger);
}

function operatorOf(own: OwnOptions, vectors: SteeringVectors): InterventionKind {
  if (own.operator !== undefined) return parseChoice('--operator', own.operator, INTERVENTION_KINDS);
  return vectors.origin.operator ?? 'add';
}

function layersOf(own: OwnOptions, vectors: SteeringVectors, file: string): number[] {
  const held = [...vectors.directions.keys()].sort((a, b) => a - b);
  if (own.layer === undefined) return held;
  const layers = parseIndices('--layer', own.layer);
  const missing = layers.find((layer) => !held.includes(layer));
  if (missing !== undefined)
    throw new InputError(`${file}: no vector for layer ${missing}; it holds ${held.join(', ')}`);
  return layers;
}

function normOf(vectors: SteeringVectors, layer: number): number {
  let squares = 0;
  for (const x of vectors.directions.get(layer) ?? []) squares += x * x;
  return Math.sqrt(squares);
}

/** `--prompts` of them at random, in the order of the data. */
function choosePrompts(prompts: readonly Prompt[], own: OwnOptions, seed: number): readonly Prompt[] {
  if (own.prompts === undefined) return prompts;
  const wanted = parseInteger('--prompts', own.prompts, 1);
  if (wanted >= prompts.length) return prompts;
  const order = createRandom(seed).fork(PROMPT_STREAM).permutation(prompts.length);
  return [...order.subarray(0, wanted)].sort((a, b) => a - b).map((index) => prompts[index]);
}

function checkTarget(target: number | undefined, actions: number): void {
  const most = Math.log(actions);
  if (target === undefined || target <= most) return;
  throw new InputError(`--target-entropy ${target}: ${actions} actions have at most ${most.toFixed(4)} nats`);
}

function checkFits(
  prompts: readonly Prompt[],
  choice: { thought: Int32Array; actions: readonly Int32Array[] },
  { context, host }: ModelSession,
  own: OwnOptions,
): void {
  const limit = host.info.maxPositions ?? context;
  const reply = choice.thought.length + Math.max(...choice.actions.map(({ length }) => length));
  const sampled = own.samples !== undefined && own.samples !== '0' ? Number(own.maxNewTokens ?? 100) : 0;
  const longest = prompts.find(({ tokens }) => tokens.length + Math.max(reply, sampled) > limit);
  if (!longest) return;
  throw new InputError(
    `${longest.place}: a prompt of ${longest.tokens.length} tokens with a reply of ${Math.max(reply, sampled)} is longer ` +
      `than the ${limit} positions of the model; shorten it`,
  );
}

/** Which run each prompt is of; every prompt its own where the data do not say. */
function clustersOf(prompts: readonly Prompt[], own: OwnOptions, seed: number): SweepClusters {
  const field = own.runField ?? 'run';
  const known = new Map<string, number>();
  const runOf = Int32Array.from(prompts, ({ record, index }) => {
    const name = Object.hasOwn(record, field) ? `run ${String(record[field])}` : `prompt ${index}`;
    const found = known.get(name) ?? known.size;
    known.set(name, found);
    return found;
  });
  if (own.runField !== undefined && !prompts.some(({ record }) => Object.hasOwn(record, field))) {
    throw new InputError(`--run-field ${field}: no row has that field`);
  }
  return { runOf, runs: known.size, seed };
}

interface Measured {
  readonly body: SweepBody;
  readonly cells: readonly SweepCell[];
  readonly measures: readonly CellMeasures[];
}

async function sweepBody(
  sweep: Sweep,
  { actions, thought }: NamedChoice,
  prompts: readonly Prompt[],
  vectors: SteeringVectors,
): Promise<Measured> {
  const { settings, layers, norms, clusters } = sweep;
  const scaled = new Map(layers.map((layer) => [layer, settings.strengths.map((s) => s * unitOf(sweep, layer))]));
  const { random, shuffled, temperatures } = settings;
  const cells = sweepCells({ layers, strengths: scaled, random, shuffled, temperatures });
  sweep.context.timings.begin('sweep');
  const measures = await evaluate(sweep, cells);
  const [unsteered, ...rows] = cells.map((cell, i) => sweepRow(cell, measures[i], measures[0], norms, clusters));
  sweep.context.timings.begin('search');
  const body: SweepBody = {
    prompts: prompts.length,
    runs: clusters.runs,
    thought,
    actions,
    max_entropy_nats: Math.log(actions.length),
    layers: layers.map((layer) => ({
      layer,
      vector_norm: norms.get(layer)?.vector ?? Number.NaN,
      residual_norm: norms.get(layer)?.residual ?? Number.NaN,
    })),
    unsteered,
    rows,
    verdicts: layers.map((layer) => layerVerdict(layer, cells, measures, clusters)),
    targets: settings.target === undefined ? [] : await findTargets(sweep, settings.target, unsteered, rows),
    search: settings.search ? await search(sweep, settings.search) : null,
    assumptions: [...vectors.assumptions],
  };
  return { body, cells, measures };
}

/** What a strength of one means in multiples of the stored vector. */
function unitOf({ settings, norms }: Sweep, layer: number): number {
  const norm = norms.get(layer);
  return settings.unit === 'vector' || !norm ? 1 : norm.residual / norm.vector;
}

async function evaluate(sweep: Sweep, cells: readonly SweepCell[], exactOnly = false): Promise<CellMeasures[]> {
  const { sampling, ...exact } = sweep.request;
  const { progress } = sweep.context;
  const request = exactOnly || !sampling ? exact : { ...exact, sampling };
  const total = cells.length * request.prompts.length;
  return sweep.session.host.run(EVALUATE_SWEEP, { request, steering: sweep.steering, cells }, (done) =>
    progress.update(Number(done), `of ${total} cells`),
  );
}

/** The strength of each layer that reaches the target: the grid brackets it, false position finds it. */
async function findTargets(
  sweep: Sweep,
  target: number,
  unsteered: SweepRow,
  rows: readonly SweepRow[],
): Promise<TargetResult[]> {
  const results: TargetResult[] = [];
  for (const layer of sweep.layers) {
    const own = rows.filter((row) => row.kind === 'vector' && row.layer === layer);
    const points = [unsteered, ...own].map((row) => ({
      strength: row.strength,
      entropyNats: row.action_entropy_nats,
    }));
    const { found, evaluations } = await strengthForEntropy(target, points, async (strength) => {
      const [measures] = await evaluate(sweep, [{ ...UNSTEERED, kind: 'vector', layer, strength }], true);
      return measures.entropyNats.reduce((sum, value) => sum + value, 0) / measures.entropyNats.length;
    });
    results.push({
      layer,
      target_nats: target,
      strength: found?.strength ?? null,
      action_entropy_nats: found?.entropyNats ?? null,
      evaluations,
    });
  }
  return results;
}

function search(sweep: Sweep, wanted: NonNullable<Settings['search']>): Promise<SearchResult> {
  const { settings, layers, steering } = sweep;
  return searchStrength(
    {
      targetNats: settings.target ?? null,
      leastMass: wanted.leastMass,
      layers,
      low: Math.min(0, ...settings.strengths),
      high: Math.max(0, ...settings.strengths),
      unitOf: (layer) => unitOf(sweep, layer),
      samples: wanted.samples,
      rounds: wanted.rounds,
      seed: steering.seed,
    },
    (cells) => evaluate(sweep, cells, true),
  );
}

function* promptRows(
  cells: readonly SweepCell[],
  measures: readonly CellMeasures[],
  prompts: readonly Prompt[],
  clusters: SweepClusters,
): Generator<Cell[]> {
  for (const [c, { kind, layer, control, strength, temperature }] of cells.entries()) {
    for (const [p, { id }] of prompts.entries()) {
      const values = MEASURES.map((name) => measures[c][name][p]);
      yield [id, clusters.runOf[p], kind, layer, control, strength, temperature, ...values];
    }
  }
}

function summary({ unsteered, verdicts, layers, targets }: SweepBody): AnalysisOutcome['summary'] {
  return {
    header: [
      'layer',
      '|v|/|x|',
      'entropy, nats',
      'grows from',
      'to',
      'growth, nats',
      'low',
      'high',
      'random',
      'shuffled',
      'controls flat',
      ...(targets.length > 0 ? ['strength for target'] : []),
    ],
    rows: verdicts.map((verdict, i) => [
      verdict.layer,
      layers[i].vector_norm / layers[i].residual_norm,
      unsteered.action_entropy_nats,
      verdict.rising_from,
      verdict.rising_to,
      verdict.growth_nats,
      verdict.growth_low_nats,
      verdict.growth_high_nats,
      verdict.random_growth_nats ?? undefined,
      verdict.shuffled_growth_nats ?? undefined,
      verdict.controls_flat === null ? undefined : verdict.controls_flat ? 'yes' : 'no',
      ...(targets.length > 0 ? [targets[i].strength ?? 'not in range'] : []),
    ]),
  };
}
