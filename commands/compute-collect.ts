import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InputError } from '../src/errors.js';
import { resolveModelPath } from '../src/formats/hub.js';
import type { InputDigest } from '../src/formats/inputs.js';
import type { Shard } from '../src/formats/rows.js';
import { hashModelFiles } from '../src/models/model-hash.js';
import type { ActivationHeader, ActivationRow } from '../src/steering/activation-file.js';
import type { ActivationStore, GrowingStore } from '../src/steering/activation-store.js';
import type { ReadToken } from '../src/steering/collect-job.js';
import type { ComputeSettings } from '../src/steering/compute-vectors.js';
import { EAST } from '../src/steering/methods/registry.js';
import { vectorFormat } from '../src/steering/vector-files/vector-files.js';
import { encodeActions, namedChoice, readSampling } from './action-options.js';
import type { AnalysisContext } from './analysis-run.js';
import {
  arePairs,
  type PairInput,
  pairMembers,
  readRows,
  requireEntropies,
  type StepInput,
  type StepOptions,
  type StepRun,
  stepRuns,
} from './compute-inputs.js';
import { removeBeforeExit } from './edge-run.js';
import { flagOf, parseIndices } from './edge-values.js';
import { modelDigests } from './model-digests.js';
import { type ModelSession, openModelSession, parsePrecision } from './model-session.js';
import { type ANALYSIS_OPTIONS, requireOption, type SharedOptions } from './shared-options.js';

/** ComputeShared options of `steer compute`. */
export type ComputeShared = Pick<
  SharedOptions,
  | Exclude<(typeof ANALYSIS_OPTIONS)[number], 'format'>
  | 'model'
  | 'data'
  | 'dataFormat'
  | 'textSplit'
  | 'limit'
  | 'table'
  | 'device'
  | 'context'
  | 'config'
  | 'debug'
>;

/** Own options of `steer compute`. */
export interface ComputeOptions extends StepOptions {
  method?: string;
  layer?: string;
  entropy?: string;
  readToken?: string;
  scale?: string;
  sign?: string;
  centre?: string;
  multiplier?: string;
  permutations?: string;
  activations?: string[];
  activationsOut?: string;
  precision?: string;
}

/** Where the entropies of steps come from. */
export const ENTROPIES = ['counts', 'logged', 'exact', 'sampled'] as const;

/** What the options say, apart from the data. */
export interface ComputePlan {
  readonly settings: ComputeSettings;
  readonly read: ReadToken;
  readonly entropy: (typeof ENTROPIES)[number] | undefined;
}

/** Activations beyond this lie in a working file. */
const MOST_HELD_BYTES = 2 ** 29;

/** Layers of `--layer`, in a model of `depth` blocks. */
export function parseLayers(
  text: string | undefined,
  depth: number,
  out: string | undefined,
  warn: (text: string) => void,
): number[] {
  const all = Array.from({ length: depth }, (_, layer) => layer);
  const gguf = out !== undefined && vectorFormat(out) === 'gguf';
  if (text === 'all') {
    if (!gguf) return all;
    warn('a GGUF control vector cannot hold layer 0; the others are computed');
    return all.slice(1);
  }
  const layers = text === undefined ? [Math.floor(depth / 2)] : parseIndices('--layer', text);
  const beyond = layers.find((layer) => layer >= depth);
  if (beyond !== undefined) throw new InputError(`--layer ${beyond}: the model has ${depth} blocks, 0 to ${depth - 1}`);
  if (gguf && layers.includes(0)) {
    throw new InputError(
      '--layer 0: a GGUF control vector cannot hold it; write .safetensors or .json, or leave it out',
    );
  }
  return layers;
}

/** What vectors are computed from. */
export interface Collected {
  readonly header: ActivationHeader;
  readonly rows: readonly ActivationRow[];
  readonly store: ActivationStore;
  /** Blocks that are wanted, all of them in the store. */
  readonly layers: readonly number[];
  readonly stepsLeftOut: number;
  readonly tokensRead: number;
  readonly warnings: readonly string[];
  readonly digests: readonly InputDigest[];
}

/** Steps or pairs with all that decides what is read. */
interface Inputs {
  readonly kind: 'steps' | 'pairs';
  readonly runs: readonly StepRun[];
  readonly pairs: readonly PairInput[];
  readonly entropySource: string;
  readonly stepsLeftOut: number;
  readonly warnings: readonly string[];
}

/** Reads the activations that `--data` and `--model` give. */
export async function collect(
  context: AnalysisContext,
  options: ComputeShared,
  own: ComputeOptions,
  plan: ComputePlan,
): Promise<Collected> {
  const model = requireOption(options.model, '--model', 'the model whose activations are read');
  const documents = await readRows(options, context.ledger);
  context.timings.begin('hash the model');
  const { path } = resolveModelPath(model, process.env);
  const { digests, files } = await modelDigests(model, path);
  context.timings.begin('open the model');
  const precision = parsePrecision(own.precision);
  const reserveBytes = Math.min(MOST_HELD_BYTES, Math.floor(options.maxMemory / 8));
  const session = await openModelSession(model, { ...options, precision, reserveBytes });
  try {
    const { info } = session.host;
    if (info.layers === null || info.hiddenSize === null) {
      throw new InputError(`${model}: layers are not reachable in an ONNX export; pass the model itself`);
    }
    const layers = parseLayers(own.layer, info.layers, options.out, context.warn);
    const inputs = await readInputs(documents, options, own, plan, session, context);
    if (inputs.kind === 'steps' && !options.shard) await refuseWithoutDirection(inputs, plan);
    const header: ActivationHeader = {
      kind: inputs.kind,
      modelType: info.modelType,
      modelLayers: info.layers,
      modelSha256: hashModelFiles(files),
      read: String(plan.read),
      precision,
      entropy: inputs.entropySource,
    };
    const members = inputs.kind === 'pairs' ? inputs.pairs : inputs.runs.flatMap(({ steps }) => steps);
    // Rows of the store stand in the order of the data, so that parts unite to the same bytes.
    const places = members.map((_, i) => i).sort((a, b) => members[a].row.index - members[b].row.index);
    const rowOf = new Int32Array(members.length);
    places.forEach((member, row) => {
      rowOf[member] = row;
    });
    const rows = places.map((member) => members[member].row);
    const store = await openStore(layers, info.hiddenSize, rows.length, reserveBytes);
    try {
      const writer = own.activationsOut
        ? await openWriter(own.activationsOut, store, header, rows, options.force)
        : undefined;
      try {
        context.timings.begin('activations');
        const tokensRead = await fillStore(context, session, inputs, plan, store, rowOf);
        writer?.finish();
        const { stepsLeftOut, warnings } = inputs;
        return { header, rows, store, layers, stepsLeftOut, tokensRead, warnings, digests };
      } catch (error) {
        writer?.abort();
        throw error;
      }
    } catch (error) {
      store.close();
      throw error;
    }
  } finally {
    await session.close();
  }
}

/** What no direction follows from is said before the long work. */
async function refuseWithoutDirection({ runs }: Inputs, { settings }: ComputePlan): Promise<void> {
  const { checkSteps, stepTable } = await import('../src/steering/compute-vectors.js');
  const table = stepTable(runs.flatMap(({ steps }) => steps.map(({ row }) => row)));
  checkSteps(table, settings.method === EAST ? settings.centring : 'run');
}

async function openWriter(
  path: string,
  store: GrowingStore,
  header: ActivationHeader,
  rows: readonly ActivationRow[],
  force: boolean,
): Promise<{ finish(): void; abort(): void }> {
  const { openActivationWriter, writeActivations } = await import('../src/steering/activation-file.js');
  const writer = openActivationWriter(path, store, header, rows, force);
  return {
    finish() {
      writeActivations(writer, store);
      writer.commit();
    },
    abort: () => writer.abort(),
  };
}

/** A store in memory, or in a working file where it would be large. */
async function openStore(
  layers: readonly number[],
  width: number,
  rows: number,
  mostBytes: number,
): Promise<GrowingStore> {
  const { fileStore, memoryStore, storeBytes } = await import('../src/steering/activation-store.js');
  if (storeBytes(layers.length, width, rows) <= mostBytes) return memoryStore(layers, width, rows);
  const folder = mkdtempSync(join(tmpdir(), 'surprisal-activations-'));
  const forget = removeBeforeExit(folder);
  const store = fileStore(join(folder, 'rows'), layers, width, rows);
  return {
    ...store,
    close() {
      store.close();
      forget();
    },
  };
}

/** Parts of `--shard` are made of whole runs, or of pairs. */
const inShard = <T>(all: readonly T[], shard: Shard | undefined): readonly T[] =>
  shard ? all.filter((_, i) => i % shard.count === shard.index) : all;

async function readInputs(
  documents: Awaited<ReturnType<typeof readRows>>,
  options: ComputeShared,
  own: ComputeOptions,
  plan: ComputePlan,
  session: ModelSession,
  context: AnalysisContext,
): Promise<Inputs> {
  const { method } = plan.settings;
  if (arePairs(documents)) {
    if (method === EAST) {
      throw new InputError(
        `${options.data.join(', ')}: holds contrast pairs, and east learns from runs with entropies; use --method mean-difference, pca or logistic`,
      );
    }
    refuseActions(own, 'contrast pairs');
    const pairs = pairMembers(inShard(documents, options.shard), own, session.tokenizer);
    return { kind: 'pairs', runs: [], pairs, entropySource: 'none', stepsLeftOut: 0, warnings: [] };
  }
  const measured = plan.entropy === 'exact' || plan.entropy === 'sampled';
  const prefer = measured ? undefined : (plan.entropy ?? 'counts');
  const found = stepRuns(documents, own, session.tokenizer, prefer);
  const warnings: string[] = [];
  if (found.single) warnings.push('rows have no field "run": all are one run, and nothing can be held out');
  const runs = inShard(found.runs, options.shard);
  const unknown = runs.some(({ steps }) => steps.some(({ logged }) => !logged));
  if (unknown && !measured && own.actions === undefined) requireEntropies(runs);
  const known = unknown ? await measureRuns(runs, options, own, plan, session, context) : checkedRuns(runs, own);
  const kept = known
    .map(({ name, steps }) => ({ name, steps: steps.filter(({ row }) => Number.isFinite(row.entropyNats)) }))
    .filter(({ steps }) => steps.length > 0);
  const count = (all: readonly StepRun[]): number => all.reduce((sum, { steps }) => sum + steps.length, 0);
  const stepsLeftOut = count(known) - count(kept);
  if (stepsLeftOut > 0)
    warnings.push(`${stepsLeftOut} of ${count(known)} steps have no parsed action and are left out`);
  for (const warning of warnings) context.warn(warning);
  const sources = [...new Set(known.flatMap(({ steps }) => steps.map(({ logged }) => logged?.source ?? 'none')))];
  return { kind: 'steps', runs: kept, pairs: [], entropySource: sources.sort().join(', '), stepsLeftOut, warnings };
}

function refuseActions(own: ComputeOptions, what: string): void {
  const names = [
    'actions',
    'thought',
    'samples',
    'actionPattern',
    'sampler',
    'maxNewTokens',
    'entropy',
    'runField',
    'stepField',
  ] as const;
  const given = names.find((name) => own[name] !== undefined);
  if (given) throw new InputError(`${flagOf(given)} has no meaning with ${what}`);
}

const withEntropy = (step: StepInput): StepInput => ({
  ...step,
  row: {
    ...step.row,
    entropyNats: step.logged?.entropyNats ?? Number.NaN,
    ...(step.logged?.counts && { counts: step.logged.counts }),
  },
});

/** Runs whose rows hold their entropies; options of another source have no meaning then. */
function checkedRuns(runs: readonly StepRun[], own: ComputeOptions): StepRun[] {
  const parsed = runs.some(({ steps }) => steps.some(({ logged }) => logged?.source === 'completions'));
  const names = ['thought', 'samples', 'sampler', 'maxNewTokens', ...(parsed ? [] : ['actions', 'actionPattern'])];
  const given = names.find((name) => own[name as keyof ComputeOptions] !== undefined);
  if (given) {
    throw new InputError(
      `${flagOf(given)} has no meaning: the rows hold their own entropies; add --entropy exact or --entropy sampled to measure them anew`,
    );
  }
  return runs.map(({ name, steps }) => ({ name, steps: steps.map(withEntropy) }));
}

/** Lets the model say how sure it is of each step's action. */
async function measureRuns(
  runs: readonly StepRun[],
  options: ComputeShared,
  own: ComputeOptions,
  plan: ComputePlan,
  { host, tokenizer }: ModelSession,
  { timings, progress }: AnalysisContext,
): Promise<StepRun[]> {
  if (!tokenizer) throw new InputError(`${options.model}: has no tokenizer, which actions need`);
  const named = namedChoice(own, runs[0].steps[0].prompt.record);
  const sampling = readSampling(own, named, options.seed);
  const how = plan.entropy === 'exact' || (plan.entropy === undefined && !sampling) ? 'exact' : 'sampled';
  if (how === 'sampled' && !sampling) throw new InputError('--entropy sampled needs --samples, such as --samples 25');
  if (how === 'exact' && sampling) throw new InputError('--samples has no meaning with --entropy exact');
  const choice = how === 'exact' ? encodeActions(named, tokenizer) : undefined;
  const { MEASURE_CHOICES } = await import('../src/steering/collect-job.js');
  timings.begin('entropies of actions');
  const result: StepRun[] = [];
  const unparsed: string[] = [];
  let done = 0;
  for (const { name, steps } of runs) {
    const found = await host.run(MEASURE_CHOICES, {
      prompts: steps.map(({ prompt }) => prompt.tokens),
      places: steps.map(({ row }) => row.index),
      ...(choice ? { choice } : { ...(sampling && { sampling }) }),
    });
    result.push({
      name,
      steps: steps.map((step, i) => withEntropy({ ...step, logged: { source: how, ...found[i] } })),
    });
    steps.forEach(({ prompt }, i) => {
      if (Number.isNaN(found[i].entropyNats)) unparsed.push(prompt.place);
    });
    done += steps.length;
    progress.update(done, 'prompts');
  }
  if (sampling && how === 'sampled') {
    (await import('../src/steering/action-pattern.js')).checkParsed(sampling.pattern, unparsed, done);
  }
  return result;
}

/** Reads the activations run by run, or pairs in batches. Returns the tokens that went through the layers. */
async function fillStore(
  { progress, timings }: AnalysisContext,
  { host }: ModelSession,
  inputs: Inputs,
  plan: ComputePlan,
  store: GrowingStore,
  rowOf: Int32Array,
): Promise<number> {
  const { COLLECT_ACTIVATIONS } = await import('../src/steering/collect-job.js');
  const { requireFinite } = await import('../src/steering/activation-store.js');
  const size = store.layers.length * store.width;
  let [done, tokensRead] = [0, 0];
  const take = async (
    members: readonly (StepInput | PairInput)[],
    names: readonly string[],
    run: boolean,
  ): Promise<void> => {
    const prompts = members.map(({ prompt }) => prompt.tokens);
    const found = await host.run(COLLECT_ACTIVATIONS, { prompts, names, layers: store.layers, read: plan.read, run });
    names.forEach((name, i) => {
      const values = found.rows.subarray(i * size, (i + 1) * size);
      requireFinite(values, store.width, store.layers, name);
      store.write(rowOf[done + i], values);
    });
    done += members.length;
    tokensRead += found.tokensRead;
    progress.update(done, 'prompts');
  };
  for (const { name, steps } of inputs.runs) {
    await take(
      steps,
      steps.map(({ row, prompt }) => `run ${name}, step ${row.step} (${prompt.place})`),
      true,
    );
  }
  for (const batch of batchesOf(inputs.pairs, host.info.rowsPerBatch)) {
    await take(
      batch,
      batch.map(({ prompt }) => prompt.place),
      false,
    );
  }
  timings.count('tokens', tokensRead);
  return tokensRead;
}

function batchesOf(members: readonly PairInput[], tokens: number): PairInput[][] {
  const batches: PairInput[][] = [];
  let held = Number.POSITIVE_INFINITY;
  for (const member of members) {
    held += member.prompt.tokens.length;
    if (held > tokens) {
      batches.push([]);
      held = member.prompt.tokens.length;
    }
    batches[batches.length - 1].push(member);
  }
  return batches;
}
