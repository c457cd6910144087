import { existsSync, readdirSync } from 'node:fs';
import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { resolveModelPath } from '../src/formats/hub.js';
import { createInputLedger, type InputLedger } from '../src/formats/inputs.js';
import { createRandom } from '../src/random.js';
import { type SummaryCell, shownNumber, summaryTable } from '../src/report/summary-table.js';
import type { BakeProof } from '../src/steering/bake.js';
import type { ProofLogits } from '../src/steering/bake-proof.js';
import { combineVectors } from '../src/steering/vector-algebra.js';
import { prepareAsserts } from './edge-asserts.js';
import { openOutputs } from './edge-outputs.js';
import { parseInteger, parseNumber } from './edge-values.js';
import { toolVersion } from './edge-version.js';
import {
  type ModelSession,
  openModelSession,
  PRECISION_OPTION,
  type Precision,
  parsePrecision,
} from './model-session.js';
import { startRunTimings } from './run-timings.js';
import { documentsOf } from './scored-text.js';
import { attachShared, requireOption, type SharedOptions } from './shared-options.js';
import { vectorParameters } from './steer-export.js';
import { DEFAULT_STRENGTH } from './steer-options.js';
import {
  addVectorFileOptions,
  openVectorModel,
  readVectorSources,
  type VectorFileOptions,
  type VectorSource,
} from './vector-files.js';

const SHARED = [
  'model',
  'data',
  'dataFormat',
  'textSplit',
  'textField',
  'limit',
  'out',
  'seed',
  'threads',
  'maxMemory',
  'device',
  'assert',
  'baseline',
  'timings',
  'quiet',
  'dryRun',
  'force',
] as const satisfies readonly (keyof SharedOptions)[];

type Shared = Pick<SharedOptions, (typeof SHARED)[number] | 'config' | 'debug'>;

interface OwnOptions extends VectorFileOptions {
  untie?: boolean;
  proof?: boolean;
  proofTokens?: string;
  tolerance?: string;
  precision?: string;
}

const COMMAND = 'steer bake';
const DEFAULT_PROOF_TOKENS = 64;
/** Largest difference of logits that passes, relative to the largest: what rounding in another order makes of it. */
const DEFAULT_TOLERANCE: Readonly<Record<Precision, number>> = { f32: 1e-4, f64: 1e-6 };

/** Declares `surprisal steer bake`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  addVectorFileOptions(command, String(DEFAULT_STRENGTH))
    .option('--untie', 'for a vector before block 0 (block -1): give a model with shared embeddings a head of its own')
    .option('--no-proof', 'write without the run that compares baked and injected')
    .option('--proof-tokens <n>', `tokens of that run (default ${DEFAULT_PROOF_TOKENS}); of --data, else random ones`)
    .option('--tolerance <x>', 'difference of logits that passes, relative to the largest (default 1e-4; f64 1e-6)')
    .option(...PRECISION_OPTION)
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<OwnOptions>());
    });
}

interface ProofSettings {
  readonly tokens: number;
  readonly precision: Precision;
  readonly tolerance: number;
}

/** Undefined where `--no-proof` says so. */
function proofSettings(own: OwnOptions, options: Shared): ProofSettings | undefined {
  if (own.proof === false) {
    const given: readonly (readonly [string, boolean])[] = [
      ['--proof-tokens', own.proofTokens !== undefined],
      ['--tolerance', own.tolerance !== undefined],
      ['--precision', own.precision !== undefined],
      ['--data', options.data.length > 0],
    ];
    const stray = given.find(([, present]) => present);
    if (stray) throw new InputError(`${stray[0]} belongs to the proof, and --no-proof leaves it out`);
    return undefined;
  }
  const precision = parsePrecision(own.precision);
  return {
    precision,
    tokens: parseInteger('--proof-tokens', own.proofTokens ?? String(DEFAULT_PROOF_TOKENS), 2, 4096),
    tolerance:
      own.tolerance === undefined ? DEFAULT_TOLERANCE[precision] : parseNumber('--tolerance', own.tolerance, 0),
  };
}

async function run(options: Shared, own: OwnOptions): Promise<number> {
  const { bakeModel, openBakeSource } = await import('../src/steering/bake.js');
  const { planBake } = await import('../src/steering/bake-plan.js');
  const asserts = await prepareAsserts(options.assert, options.baseline);
  const spec = requireOption(options.model, '--model', 'the model directory that the vectors are folded into');
  const out = requireOption(options.out, '--out', 'the directory to write');
  const settings = proofSettings(own, options);
  const { path } = resolveModelPath(spec, process.env);
  const source = openBakeSource(path);
  source.store.close();
  if (existsSync(out) && readdirSync(out).length > 0 && !options.force) {
    throw new InputError(`${out}: already exists: pass --force to replace it, or choose another path`);
  }
  const timings = startRunTimings(COMMAND);
  const outputs = openOutputs(options.data, { force: options.force });
  try {
    const timingsFile = outputs.file('--timings', options.timings);
    const ledger = createInputLedger();
    timings.begin('hash the inputs');
    const model = await openVectorModel(spec);
    const sources = readVectorSources(own, DEFAULT_STRENGTH, ledger, model.fitted);
    const { directions } = combineVectors(sources);
    refuseOtherOperators(sources);
    const assumptions = assumptionsOf(sources);
    const plan = planBake(path, source.config, source.store.tensors, directions, own);
    if (options.dryRun) {
      process.stdout.write(
        summaryTable(
          ['plan', 'value'],
          [
            ['model type', plan.modelType],
            ['how', plan.mechanisms.join(', ')],
            ['tensors', plan.tensors.length],
            ['of them copied', plan.tensors.filter(({ kind }) => kind === 'copy').length],
            ...plan.blocks.map(({ block, tensor }): SummaryCell[] => [`block ${block}`, tensor]),
            ...Object.entries(plan.config).map(([key, value]): SummaryCell[] => [
              key,
              JSON.stringify(value) ?? 'removed',
            ]),
          ],
        ),
      );
      return 0;
    }
    const unproved =
      settings === undefined
        ? 'left out by --no-proof'
        : plan.description === undefined
          ? `the engine does not run ${plan.modelType} models; compare the directory in transformers`
          : undefined;
    timings.begin('bake and prove');
    // The proof reads the text, so that its digest is known when the manifest is made.
    const prepared =
      settings && unproved === undefined
        ? await injected({ ...options, spec }, settings, directions, ledger)
        : undefined;
    const manifest = await bakeModel({
      model: path,
      out,
      shifts: directions,
      assumptions,
      ...(options.force && { force: true }),
      ...(own.untie === true && { untie: true }),
      head: {
        tool: { name: 'surprisal', version: toolVersion() },
        command: COMMAND,
        parameters: parametersOf(spec, options, own, settings),
        inputs: [...model.digests, ...(await ledger.digests())],
      },
      ...(prepared && { prove: (directory: string) => compareBaked(directory, options, prepared) }),
      ...(unproved !== undefined && { unproved }),
    });
    if (timingsFile) timings.write(timingsFile, options);
    outputs.commit();
    if (unproved !== undefined && !options.quiet) process.stderr.write(`warning: no proof: ${unproved}\n`);
    if (!options.quiet) process.stdout.write(summary(manifest, out));
    return asserts.check(manifest);
  } finally {
    outputs.abort();
  }
}

/** A bias adds, at every position; other operators depend on the stream. */
function refuseOtherOperators(sources: readonly VectorSource[]): void {
  const other = sources.find(({ vectors }) => (vectors.origin.operator ?? 'add') !== 'add');
  if (other) {
    throw new InputError(
      `${other.name}: meant for ${other.vectors.origin.operator}, which no bias can do; only add can be baked`,
    );
  }
}

function assumptionsOf(sources: readonly VectorSource[]): string[] {
  return sources.flatMap(({ name, vectors }) => {
    const { positions } = vectors.origin;
    const meant =
      positions === undefined || positions === 'all'
        ? []
        : [`${name}: meant for positions "${positions}", baked for all`];
    return [...vectors.assumptions.map((line) => `${name}: ${line}`), ...meant];
  });
}

/** What the original model says, without and with the vectors. */
interface Prepared {
  readonly settings: ProofSettings;
  readonly tokens: Int32Array;
  readonly vocabularySize: number;
  readonly plain: ProofLogits;
  readonly steered: ProofLogits;
}

function openSession(spec: string, options: Shared, { precision, tokens }: ProofSettings): Promise<ModelSession> {
  return openModelSession(spec, { ...options, context: tokens, precision });
}

async function injected(
  options: Shared & { readonly spec: string },
  asked: ProofSettings,
  directions: ReadonlyMap<number, Float32Array>,
  ledger: InputLedger,
): Promise<Prepared> {
  const { PROOF_JOB } = await import('../src/steering/bake-proof.js');
  const session = await openSession(options.spec, options, asked);
  try {
    const { vocabularySize, maxPositions } = session.host.info;
    const settings = { ...asked, tokens: Math.min(asked.tokens, maxPositions ?? asked.tokens) };
    const tokens = await proofTokens(options, settings.tokens, session, ledger);
    const plain = await session.host.run(PROOF_JOB, { tokens, shifts: [] });
    const steered = await session.host.run(PROOF_JOB, { tokens, shifts: [...directions] });
    return { settings, tokens, vocabularySize, plain, steered };
  } finally {
    await session.close();
  }
}

async function compareBaked(directory: string, options: Shared, prepared: Prepared): Promise<BakeProof> {
  const { compareLogits, PROOF_JOB } = await import('../src/steering/bake-proof.js');
  const { settings, tokens, vocabularySize, plain, steered } = prepared;
  const session = await openSession(directory, options, settings);
  try {
    const baked = await session.host.run(PROOF_JOB, { tokens, shifts: [] });
    return {
      precision: settings.precision,
      tokens: tokens.length,
      tolerance: settings.tolerance,
      bakedToInjected: compareLogits(steered.logits, baked.logits, vocabularySize),
      originalToInjected: compareLogits(steered.logits, plain.logits, vocabularySize),
      streamNorms: plain.streamNorms,
    };
  } finally {
    await session.close();
  }
}

/** The first tokens of the text, or random ones: equal functions agree on any. */
async function proofTokens(
  options: Shared,
  count: number,
  { host, tokenizer }: ModelSession,
  ledger: InputLedger,
): Promise<Int32Array> {
  const { vocabularySize } = host.info;
  if (options.data.length === 0) {
    const random = createRandom(options.seed).fork(0);
    return Int32Array.from({ length: count }, () => random.integer(vocabularySize));
  }
  const found: number[] = [];
  const subject = { ...(tokenizer && { tokenizer }), vocabularySize };
  for await (const { tokens } of documentsOf(
    options.data,
    { ...options, shard: undefined, stride: undefined },
    {},
    ledger,
    subject,
  )) {
    found.push(...tokens);
    if (found.length >= count) break;
  }
  if (found.length < 2) throw new InputError(`${options.data.join(', ')}: fewer than two tokens of text for the proof`);
  return Int32Array.from(found.slice(0, count));
}

function parametersOf(spec: string, options: Shared, own: OwnOptions, settings: ProofSettings | undefined) {
  return {
    ...vectorParameters(own),
    model: spec,
    strength: own.strength === undefined ? DEFAULT_STRENGTH : Number(own.strength),
    any_model: own.anyModel === true,
    untie: own.untie === true,
    data: [...options.data],
    data_format: options.dataFormat ?? null,
    text_split: options.textSplit,
    text_field: options.textField,
    limit: options.limit ?? null,
    seed: options.seed,
    device: options.device,
    proof_tokens: settings?.tokens ?? null,
    precision: settings?.precision ?? null,
    tolerance: settings?.tolerance ?? null,
  };
}

function summary(
  manifest: Awaited<ReturnType<typeof import('../src/steering/bake.js').bakeModel>>,
  out: string,
): string {
  const { blocks, mechanisms, proof, assumptions } = manifest as unknown as {
    blocks: { block: number; tensor: string; shift_norm: number; shift_over_stream: number | null }[];
    mechanisms: string[];
    assumptions: string[];
    proof: { tolerance: number; baked_to_injected: Difference; original_to_injected: Difference } | null;
  };
  const rows = blocks.map(({ block, tensor, shift_norm, shift_over_stream }): SummaryCell[] => [
    `block ${block}`,
    `${tensor}: length ${shownNumber(shift_norm)}${shift_over_stream === null ? '' : `, ${shownNumber(shift_over_stream)} of the stream`}`,
  ]);
  for (const line of assumptions) rows.push(['assumed', line]);
  if (proof) {
    const { baked_to_injected: same, original_to_injected: moved } = proof;
    rows.push([
      'baked against injected',
      `${shownNumber(same.max_abs_difference)} of logits up to ${shownNumber(same.max_abs_logit)}`,
    ]);
    rows.push(['what the vectors move', shownNumber(moved.max_abs_difference)]);
  }
  rows.push(['written to', out]);
  return summaryTable(['baked', mechanisms.join(', ')], rows);
}

interface Difference {
  readonly max_abs_difference: number;
  readonly max_abs_logit: number;
}
