import { existsSync, readdirSync, rmSync, statSync } from 'node:fs';
import type { Command } from 'commander';
import { InputError, RunError } from '../src/errors.js';
import { createAtomicFile } from '../src/formats/atomic.js';
import { sha256File } from '../src/formats/hash.js';
import { CARRY_MODES, type CarryMode, carryExternalData } from '../src/formats/onnx-carry.js';
import { buildReport, writeReport } from '../src/report/json.js';
import { type SummaryCell, summaryTable } from '../src/report/summary-table.js';
import { type ReportValue, reportObject } from '../src/report/values.js';
import type { PatchArguments, PatchedModel, WeightedVectors } from '../src/steering/onnx/patch-job.js';
import {
  EXPOSED_POSITIONS,
  PATCH_MODES,
  type PatchMode,
  STEERING_RECIPES,
  type SteeringRecipe,
} from '../src/steering/onnx/patch-options.js';
import type { PatchProof } from '../src/steering/onnx/patch-proof.js';
import { prepareAsserts } from './edge-asserts.js';
import { openOutputs } from './edge-outputs.js';
import { parseChoice, parseIndices, parseInteger, parseNumber } from './edge-values.js';
import { toolVersion } from './edge-version.js';
import { modelDigests } from './model-digests.js';
import { runInThread } from './run-in-thread.js';
import { startRunTimings } from './run-timings.js';
import { attachShared, requireOption } from './shared-options.js';
import { DEFAULT_STRENGTH, parseVectorRequest } from './steer-options.js';

const COMMAND = 'steer patch';
const SHARED = [
  'out',
  'report',
  'seed',
  'threads',
  'maxMemory',
  'assert',
  'baseline',
  'timings',
  'quiet',
  'dryRun',
  'force',
] as const;

type Options = Awaited<ReturnType<ReturnType<typeof attachShared<(typeof SHARED)[number]>>>>;

interface OwnOptions {
  onnx?: string;
  layer?: string;
  tensor?: string[];
  mode?: string;
  vector?: string[];
  strength?: string;
  cvectorShift?: string;
  recipe?: string;
  expose?: string;
  requiredInputs?: boolean;
  externalData?: string;
  proofTokens?: string;
  proof: boolean;
}

const DEFAULT_PROOF_TOKENS = 12;

/** Declares `surprisal steer patch`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option('--onnx <file>', 'decoder exported by any tool')
    .option('--layer <list>', 'blocks from 0, -1 the embeddings, or all (default: those of the vectors, else all)')
    .option('--tensor <name...>', 'take these tensors as the residuals of --layer instead of looking for the stream')
    .option(
      '--mode <mode>',
      'input: graph inputs steer.N, zero by default; constant: the vectors; none (default input)',
    )
    .option('--vector <file...>', 'steering vectors, each file or file:strength; those of one layer add up')
    .option('--strength <beta>', `multiplier of vectors without one of their own (default ${DEFAULT_STRENGTH})`)
    .option('--cvector-shift <n>', 'added to the layer numbers of .gguf files; -1 for those of cvector-generator')
    .option('--recipe <name>', 'branch: one Add before the sum; sum: after it; bias: in a norm bias (default branch)')
    .option('--expose <positions>', 'outputs residual.N: all, last, last-attended, none (default all)')
    .option('--required-inputs', 'steering inputs without a default, for runtimes that do not feed inputs with one')
    .option('--external-data <how>', 'weights beside a graph in another directory: copy, link, leave (default copy)')
    .option('--proof-tokens <n>', `tokens of the proof run (default ${DEFAULT_PROOF_TOKENS})`)
    .option('--no-proof', 'do not run the original and the patched graph against each other');
  command.action(async () => {
    process.exitCode = await run(await read(), command.opts<OwnOptions>());
  });
}

interface Plan {
  readonly arguments: PatchArguments;
  readonly described: readonly ReportValue[];
  readonly assumptions: readonly string[];
  readonly files: readonly string[];
  readonly carry: CarryMode;
  readonly proofTokens: number | undefined;
}

async function readPlan(own: OwnOptions, dryRun: boolean): Promise<Plan> {
  const onnx = requireOption(own.onnx, '--onnx', 'the .onnx file of a decoder');
  checkGraphFile(onnx);
  const mode = parseChoice('--mode', own.mode ?? 'input', PATCH_MODES);
  const expose = parseChoice('--expose', own.expose ?? 'all', [...EXPOSED_POSITIONS, 'none']);
  const recipe = parseChoice('--recipe', own.recipe ?? 'branch', STEERING_RECIPES);
  refuseUnread(own, mode, expose);
  const { vectors, described, assumptions, files } = await readVectors(own, mode);
  return {
    arguments: {
      onnx,
      mode,
      recipe,
      expose: expose === 'none' ? null : expose,
      layers: parseLayers(own.layer),
      tensors: own.tensor ?? [],
      vectors,
      required: own.requiredInputs === true,
      witness: own.proof && mode !== 'none' && !dryRun,
    },
    described,
    assumptions,
    files,
    carry: parseChoice('--external-data', own.externalData ?? 'copy', CARRY_MODES),
    proofTokens: own.proof
      ? parseInteger('--proof-tokens', own.proofTokens ?? `${DEFAULT_PROOF_TOKENS}`, 2)
      : undefined,
  };
}

function checkGraphFile(onnx: string): void {
  if (!existsSync(onnx)) throw new InputError(`${onnx}: no such file`);
  if (!statSync(onnx).isDirectory()) return;
  const graphs = readdirSync(onnx).filter((name) => name.endsWith('.onnx'));
  throw new InputError(`${onnx}: is a directory; name one of its graphs: ${graphs.join(', ') || 'it has none'}`);
}

/** Options that a combination does not read are refused. */
function refuseUnread(own: OwnOptions, mode: PatchMode, expose: string): void {
  const vectors = own.vector ?? [];
  if (mode === 'constant' && vectors.length === 0) throw new InputError('--mode constant needs --vector');
  if (mode === 'none' && vectors.length > 0) throw new InputError('--vector has no meaning with --mode none');
  if (mode === 'none' && expose === 'none') throw new InputError('--mode none with --expose none changes nothing');
  if (mode === 'none' && own.recipe !== undefined) throw new InputError('--recipe has no meaning with --mode none');
  if (mode !== 'input' && own.requiredInputs)
    throw new InputError('--required-inputs has no meaning without --mode input');
  if (vectors.length === 0 && own.strength !== undefined)
    throw new InputError('--strength has no meaning without --vector');
  if (vectors.length === 0 && own.cvectorShift !== undefined) {
    throw new InputError('--cvector-shift has no meaning without --vector');
  }
  if (!own.proof && own.proofTokens !== undefined)
    throw new InputError('--proof-tokens has no meaning with --no-proof');
}

function parseLayers(text: string | undefined): PatchArguments['layers'] {
  if (text === undefined) return 'default';
  if (text === 'all') return 'all';
  const embeddings = text.split(',').some((part) => part.trim() === '-1');
  const rest = text.split(',').filter((part) => part.trim() !== '-1');
  return [...(embeddings ? [-1] : []), ...(rest.length > 0 ? parseIndices('--layer', rest.join(',')) : [])];
}

async function readVectors(own: OwnOptions, mode: PatchMode) {
  const vectors: WeightedVectors[] = [];
  const described: ReportValue[] = [];
  const assumptions: string[] = [];
  const files: string[] = [];
  if (!own.vector) return { vectors, described, assumptions, files };
  const { readSteeringVectors } = await import('../src/steering/vector-files/vector-files.js');
  const usual = own.strength === undefined ? DEFAULT_STRENGTH : parseNumber('--strength', own.strength);
  const shift = own.cvectorShift === undefined ? undefined : parseInteger('--cvector-shift', own.cvectorShift, -64, 64);
  for (const text of own.vector) {
    const { file, strength = usual, operator, layers } = parseVectorRequest(text);
    const read = readSteeringVectors(file, shift === undefined ? {} : { shift });
    const kind = operator ?? read.origin.operator ?? 'add';
    if (kind !== 'add') throw new InputError(`${file}: the operator ${kind} cannot be put in a graph; only add can`);
    assumptions.push(...read.assumptions.map((line) => `${file}: ${line}`));
    const { positions } = read.origin;
    if (mode === 'constant' && positions !== undefined && positions !== 'all') {
      assumptions.push(`${file}: meant for the positions ${positions}; a constant steers all`);
    }
    const wanted = layers ?? [...read.directions.keys()];
    const directions = new Map(wanted.map((layer) => [layer, directionAt(file, read.directions, layer)]));
    vectors.push({ vectors: { ...read, directions }, strength });
    described.push({ file, strength, layers: wanted });
    files.push(file);
  }
  return { vectors, described, assumptions, files };
}

function directionAt(file: string, directions: ReadonlyMap<number, Float32Array>, layer: number): Float32Array {
  const direction = directions.get(layer);
  if (direction) return direction;
  throw new InputError(`${file}: no vector for layer ${layer}; it holds ${[...directions.keys()].join(', ')}`);
}

async function run(options: Options, own: OwnOptions): Promise<number> {
  const plan = await readPlan(own, options.dryRun);
  const { onnx } = plan.arguments;
  const { PATCH_ONNX_FILE } = await import('../src/steering/onnx/patch-job.js');
  if (options.dryRun) {
    const patched = await runInThread(PATCH_ONNX_FILE, plan.arguments, undefined, options.threads);
    process.stdout.write(describePlan(plan, patched));
    return 0;
  }
  const out = requireOption(options.out, '--out', 'the .onnx file to write');
  const asserts = await prepareAsserts(options.assert, options.baseline);
  const timings = startRunTimings(COMMAND);
  const outputs = openOutputs([onnx, ...plan.files], { force: options.force });
  let carried: readonly string[] = [];
  try {
    const graphFile = outputs.file('--out', out);
    const reportFile = outputs.file('--report', options.report);
    const timingsFile = outputs.file('--timings', options.timings);
    if (!graphFile) throw new InputError('--out is missing; name the .onnx file to write');
    timings.begin('patch');
    const patched = await runInThread(PATCH_ONNX_FILE, plan.arguments, undefined, options.threads);
    graphFile.write(patched.patched);
    graphFile.finish();
    if (patched.external.length > 0) {
      timings.begin('carry the weights');
      carried = carryExternalData(patched.external, onnx, out, plan.carry);
    }
    timings.begin('prove');
    const proof = await prove(plan, patched, graphFile.partialPath, out, options);
    timings.begin('hash the inputs');
    const digests = await digestsOf(plan);
    const body = reportBody(plan, patched, proof);
    const report = buildReport(
      {
        name: 'steer-patch',
        tool: { name: 'surprisal', version: toolVersion() },
        command: COMMAND,
        parameters: parametersOf(plan, options, own),
        inputs: digests,
      },
      reportObject(body),
    );
    if (reportFile) writeReport(report, reportFile);
    if (timingsFile) timings.write(timingsFile, options);
    outputs.commit();
    carried = [];
    if (!options.quiet) process.stdout.write(describePatch(patched, proof, out));
    return asserts.check(report);
  } catch (error) {
    outputs.abort();
    for (const file of carried) rmSync(file, { force: true });
    throw error;
  }
}

/** The witness lies beside the graph, where its weights are, for as long as the proof runs. */
async function prove(
  plan: Plan,
  patched: PatchedModel,
  patchedPath: string,
  out: string,
  options: Options,
): Promise<PatchProof | null> {
  if (plan.proofTokens === undefined) return null;
  const { PROVE_PATCHED_FILE } = await import('../src/steering/onnx/patch-job.js');
  const witness = patched.witness ? createAtomicFile(`${out}.witness`, { force: true }) : undefined;
  try {
    if (patched.witness) witness?.write(patched.witness);
    witness?.finish();
    const proof = await runInThread(
      PROVE_PATCHED_FILE,
      {
        original: plan.arguments.onnx,
        patched: patchedPath,
        ...(witness && { witness: witness.partialPath }),
        layers: patched.proofLayers,
        constant: plan.arguments.mode === 'constant',
        length: plan.proofTokens,
        vocabularySize: patched.vocabularySize,
        seed: options.seed,
        threads: options.threads,
      },
      undefined,
      options.threads,
    );
    const failure = failureOf(proof, plan.arguments.recipe);
    if (failure) throw new RunError(`${plan.arguments.onnx}: the proof failed: ${failure}; nothing was written`);
    return proof;
  } catch (error) {
    const hint = (message: string): string => `${message}; --no-proof patches without running`;
    if (error instanceof InputError) throw new InputError(hint(error.message));
    if (error instanceof RunError && error.message.startsWith('ONNX Runtime')) throw new RunError(hint(error.message));
    throw error;
  } finally {
    witness?.abort();
  }
}

/** A steered residual off by more than rounding means that another tensor was taken for it. */
const MOST_ULP = 16;

function failureOf(proof: PatchProof, recipe: SteeringRecipe): string | undefined {
  const plain = proof.zero_steering?.unoptimised;
  // The recipe sum writes a fused norm as three nodes, which round differently.
  if (recipe !== 'sum' && plain && plain.max_abs_difference > 0) {
    return `zero steering changes ${plain.differs} by up to ${plain.max_abs_difference}`;
  }
  const off = proof.layers.find(({ max_error_ulp }) => !(max_error_ulp <= MOST_ULP));
  if (off) return `residual ${off.layer} moved by something else than the vector (off by ${off.max_abs_error})`;
  const early = proof.layers.find(({ earlier_positions_identical }) => !earlier_positions_identical);
  if (early) return `residual ${early.layer} changed before the steered positions`;
  const still = proof.layers.find(({ logits_max_abs_change }) => logits_max_abs_change === 0);
  return still ? `steering residual ${still.layer} does not reach the logits` : undefined;
}

async function digestsOf({ arguments: { onnx }, files }: Plan) {
  const { digests } = await modelDigests(onnx, onnx);
  const vectors = await Promise.all(
    files
      .filter((file) => statSync(file).isFile())
      .map(async (path) => ({ path, sha256: await sha256File(path), bytes: statSync(path).size })),
  );
  return [...digests, ...vectors];
}

function parametersOf(plan: Plan, options: Options, own: OwnOptions): Record<string, ReportValue> {
  const { onnx, mode, recipe, expose, layers, tensors, required } = plan.arguments;
  return {
    onnx,
    out: options.out ?? null,
    mode,
    recipe: mode === 'none' ? null : recipe,
    expose: expose ?? 'none',
    layers: typeof layers === 'string' ? layers : [...layers],
    tensors: [...tensors],
    vectors: [...plan.described],
    cvector_shift: own.cvectorShift === undefined ? null : Number(own.cvectorShift),
    required_inputs: required,
    external_data: plan.carry,
    proof_tokens: plan.proofTokens ?? null,
    seed: options.seed,
  };
}

function reportBody(plan: Plan, patched: PatchedModel, proof: PatchProof | null): object {
  return {
    ...patched.summary,
    external_files: patched.external,
    assumptions: plan.assumptions,
    proof,
  };
}

function layerRows({ summary }: PatchedModel): SummaryCell[][] {
  return summary.layers.map((layer) => [
    layer.layer,
    layer.tensor ?? `output 3 of ${layer.sum_node}`,
    layer.sum_operator ?? '',
    layer.branch ?? '',
    layer.type,
  ]);
}

function describePlan(plan: Plan, patched: PatchedModel): string {
  const { summary } = patched;
  const head = [
    ['blocks', summary.blocks ?? 'not counted: tensors were named'],
    ['layout', summary.layout ?? ''],
    ['blocks counted by', summary.counted_by ?? ''],
    ['embeddings', summary.embedding ?? ''],
    ['bytes written', patched.patched.length],
    ['files of weights', patched.external.join(', ')],
    ['mode', plan.arguments.mode],
  ];
  const table = summaryTable(['layer', 'residual', 'sum', 'branch', 'type'], layerRows(patched));
  return `${summaryTable(['plan', 'value'], head)}${table}`;
}

function describePatch(patched: PatchedModel, proof: PatchProof | null, out: string): string {
  const table = summaryTable(['layer', 'residual', 'sum', 'branch', 'type'], layerRows(patched));
  const rows: SummaryCell[][] = [['written', out]];
  if (proof?.zero_steering) {
    const { zero_steering: zero } = proof;
    rows.push(['zero steering bit-identical', identical(zero)]);
    if (zero.unoptimised) rows.push(['the same node by node, no fusion', identical(zero.unoptimised)]);
  }
  if (proof?.constant_steering) rows.push(['constant = fed vector', identical(proof.constant_steering)]);
  if (proof && proof.layers.length > 0) {
    const worst = Math.max(...proof.layers.map(({ max_error_ulp }) => max_error_ulp));
    rows.push(['residual moves by v, off by at most (ulp)', worst]);
  }
  if (proof?.cached_step) rows.push(['cached step against one pass, logits', proof.cached_step.max_abs_difference]);
  if (!proof) rows.push(['proof', 'not run']);
  return `${table}${summaryTable(['proof', 'value'], rows)}`;
}

const identical = (comparison: { bit_identical: boolean; max_abs_difference: number }): string =>
  comparison.bit_identical ? 'yes' : `no, largest difference ${comparison.max_abs_difference}`;
