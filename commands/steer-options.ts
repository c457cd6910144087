import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import type {
  SteeringCondition,
  SteeringPlan,
  SteeringPositions,
  SteeringTerm,
} from '../src/decoding/steering-plan.js';
import { InputError } from '../src/errors.js';
import { readRecords } from '../src/formats/documents.js';
import type { InputLedger } from '../src/formats/inputs.js';
import { INTERVENTION_KINDS, type InterventionKind } from '../src/models/interventions.js';
import type { ModelInfo } from '../src/models/language-model.js';
import type { ReportValue } from '../src/report/values.js';
import { flagOf, parseChoice, parseIndices, parseInteger, parseNumber } from './edge-values.js';

/** Own options of a command that steers. */
export interface SteerOptions {
  vector?: string[];
  strength?: string;
  layer?: string;
  operator?: string;
  positions?: string;
  when?: string;
  whenVector?: string;
  whenLayer?: string;
  whenRead?: string;
  cvectorShift?: string;
  anyModel?: boolean;
}

/** Names of {@link SteerOptions} beside the vectors; without vectors they have no meaning. */
export const STEER_OPTIONS = [
  'strength',
  'layer',
  'operator',
  'positions',
  'when',
  'whenVector',
  'whenLayer',
  'whenRead',
  'cvectorShift',
  'anyModel',
] as const satisfies readonly (keyof SteerOptions)[];

/** EAST's multiplier (specification section 1.4). */
export const DEFAULT_STRENGTH = 2;
/** Where EAST steers (section 1.3). */
export const DEFAULT_POSITIONS = 'last';

/** Declares the options of {@link readSteering}. */
export function addSteerOptions(command: Command): Command {
  return command
    .option(
      '--vector <file...>',
      'steering vectors (.safetensors, .gguf, .json, .svec, .pt, .npy), each file or file:strength or ' +
        'file:strength=2,operator=ablate,layer=8-10; they act in this order',
    )
    .option('--strength <beta>', `multiplier of vectors without one of their own (default ${DEFAULT_STRENGTH})`)
    .option('--layer <list>', 'decoder blocks, from 0, whose outputs are steered (default: all that a file holds)')
    .option('--operator <name>', `${INTERVENTION_KINDS.join(', ')} (default: the file's, else add)`)
    .option(
      '--positions <which>',
      'last (the last prompt token and all that follow), generated, all, prompt, from:N, or a JSONL file with a list ' +
        `"mask" of 0 and 1 a prompt (default ${DEFAULT_POSITIONS})`,
    )
    .option('--when <test>', 'steer only prompts that pass, such as sim>0.04 or sim<0.1; needs --when-vector')
    .option('--when-vector <file>', 'condition vector: cos(x, tanh(P x)) with P its projection')
    .option('--when-layer <n>', "block whose output is tested (default: the only one of the condition's file)")
    .option('--when-read <tokens>', 'what is tested of a prompt: mean, last (default mean)')
    .option('--cvector-shift <n>', 'added to the layer numbers of .gguf files; -1 for those of cvector-generator')
    .option('--any-model', 'use vectors whose model has another hash, if hidden size and layers fit');
}

/** The options as they were given, for the parameters of a report. */
export const steerParameters = (own: SteerOptions): Record<string, ReportValue> => ({
  vector: [...(own.vector ?? [])],
  strength: own.strength ?? null,
  layer: own.layer ?? null,
  operator: own.operator ?? null,
  positions: own.positions ?? null,
  when: own.when ?? null,
  when_vector: own.whenVector ?? null,
  when_layer: own.whenLayer ?? null,
  when_read: own.whenRead ?? null,
  cvector_shift: own.cvectorShift ?? null,
});

/** Files that the options name, so that no output replaces one. */
export const steerFiles = (own: SteerOptions): string[] => [
  ...(own.vector ?? []).map((text) => parseVectorRequest(text).file),
  ...(own.whenVector === undefined ? [] : [own.whenVector]),
];

/** A plan and what a report says of it. */
export interface Steering {
  readonly plan: SteeringPlan;
  readonly parameters: Readonly<Record<string, ReportValue>>;
  /** What had to be assumed about the files. */
  readonly assumptions: readonly string[];
}

/** The model that vectors must fit. */
export interface SteeredModel {
  readonly spec: string;
  readonly info: ModelInfo;
  readonly sha256?: string;
}

interface VectorRequest {
  readonly file: string;
  readonly strength?: number;
  readonly operator?: InterventionKind;
  readonly layers?: readonly number[];
}

/** `file`, `file:2`, `file:strength=2,operator=ablate,layer=8-10`. A colon in a path is one where what follows is neither. */
export function parseVectorRequest(text: string): VectorRequest {
  const at = text.lastIndexOf(':');
  if (at < 0 || existsSync(text)) return { file: text };
  const file = text.slice(0, at);
  const rest = text.slice(at + 1);
  if (/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(rest)) return { file, strength: Number(rest) };
  if (!/^[a-z]+=/.test(rest)) return { file: text };
  let request: VectorRequest = { file };
  for (const part of rest.split(/,(?=[a-z]+=)/)) {
    const [key, value = ''] = part.split('=', 2);
    const option = `--vector ${text}: ${key}`;
    if (key === 'strength') request = { ...request, strength: parseNumber(option, value) };
    else if (key === 'operator') request = { ...request, operator: parseChoice(option, value, INTERVENTION_KINDS) };
    else if (key === 'layer') request = { ...request, layers: parseIndices(option, value) };
    else throw new InputError(`--vector ${text}: "${key}" is not known; strength, operator and layer are`);
  }
  return request;
}

/**
 * The plan of `--vector` and its companions, or undefined without a vector.
 * @throws InputError for a vector of another model, a layer that the model or the file lacks, options that need another
 */
export async function readSteering(
  own: SteerOptions,
  model: SteeredModel,
  prompts: number,
  ledger: InputLedger,
): Promise<Steering | undefined> {
  const names = own.vector ?? [];
  if (names.length === 0) {
    const stray = STEER_OPTIONS.find((name) => own[name] !== undefined);
    if (stray) throw new InputError(`${flagOf(stray)} has no meaning without --vector`);
    return undefined;
  }
  const terms: SteeringTerm[] = [];
  const assumptions: string[] = [];
  const described: ReportValue[] = [];
  const strength = own.strength === undefined ? DEFAULT_STRENGTH : parseNumber('--strength', own.strength);
  const layers = own.layer === undefined ? undefined : parseIndices('--layer', own.layer);
  const operator = own.operator === undefined ? undefined : parseChoice('--operator', own.operator, INTERVENTION_KINDS);
  for (const name of names) {
    const request = parseVectorRequest(name);
    const only = request.layers ?? layers;
    const vectors = await openVectors(request.file, own, model, ledger, only?.length === 1 ? only[0] : undefined);
    for (const line of vectors.assumptions) assumptions.push(`${request.file}: ${line}`);
    const wanted = request.layers ?? layers ?? [...vectors.directions.keys()];
    const kind = request.operator ?? operator ?? vectors.origin.operator ?? 'add';
    const scale = request.strength ?? strength;
    for (const layer of wanted) {
      const vector = vectors.directions.get(layer);
      if (!vector) {
        const held = [...vectors.directions.keys()].join(', ');
        throw new InputError(`${request.file}: no vector for layer ${layer}; it holds ${held}`);
      }
      terms.push({ layer, operator: kind, vector, scale });
    }
    described.push({ file: request.file, strength: scale, operator: kind, layers: [...wanted] });
  }
  const positions = await readPositions(own.positions ?? DEFAULT_POSITIONS, prompts, ledger);
  const condition = await readCondition(own, model, ledger);
  return {
    plan: { terms, positions, ...(condition && { condition }) },
    assumptions,
    parameters: {
      vectors: described,
      positions: own.positions ?? DEFAULT_POSITIONS,
      when: own.when ?? null,
      when_vector: own.whenVector ?? null,
      when_layer: condition?.layer ?? null,
      when_read: condition?.read ?? null,
      cvector_shift: own.cvectorShift === undefined ? null : Number(own.cvectorShift),
    },
  };
}

/**
 * A file of vectors, checked against the model.
 * @param layer where a file that names no layer (.npy, most .pt) is meant to act
 */
export async function openVectors(
  file: string,
  own: Pick<SteerOptions, 'cvectorShift' | 'anyModel'>,
  model: SteeredModel,
  ledger: InputLedger,
  layer?: number,
) {
  const { readSteeringVectors, checkVectorsFit } = await import('../src/steering/vector-files/vector-files.js');
  const shift = own.cvectorShift === undefined ? undefined : parseInteger('--cvector-shift', own.cvectorShift, -64, 64);
  ledger.note(file);
  const vectors = readSteeringVectors(file, {
    ...(shift !== undefined && { shift }),
    // Other formats name their layers.
    ...(layer !== undefined && /\.(npy|pt)$/i.test(file) && { layer }),
  });
  const { layers, hiddenSize, modelType } = model.info;
  if (layers === null || hiddenSize === null) {
    throw new InputError(`${model.spec}: the residual stream of an ONNX export is reached by steer patch`);
  }
  const sha256 = own.anyModel === true ? undefined : model.sha256;
  checkVectorsFit(vectors, {
    path: model.spec,
    modelType,
    layers,
    hiddenSize,
    ...(sha256 !== undefined && { sha256 }),
  });
  return vectors;
}

/** `--positions`. */
export async function readPositions(text: string, prompts: number, ledger: InputLedger): Promise<SteeringPositions> {
  if (text === 'last' || text === 'generated' || text === 'all' || text === 'prompt') return { kind: text };
  const from = /^from:(\d+)$/.exec(text);
  if (from) return { kind: 'from', position: Number(from[1]) };
  if (!existsSync(text)) {
    throw new InputError(`--positions ${text}: last, generated, all, prompt, from:N or a file of masks is needed`);
  }
  const masks: Uint8Array[] = [];
  for await (const { record, index } of readRecords([text], { ledger })) {
    const { mask } = record;
    if (!Array.isArray(mask) || mask.some((value) => value !== 0 && value !== 1)) {
      throw new InputError(`${text}: row ${index}: field "mask" must be a list of 0 and 1`);
    }
    masks.push(Uint8Array.from(mask));
  }
  if (masks.length !== prompts) {
    throw new InputError(`${text}: ${masks.length} masks for ${prompts} prompts; one a prompt is needed`);
  }
  return { kind: 'mask', masks };
}

async function readCondition(
  own: SteerOptions,
  model: SteeredModel,
  ledger: InputLedger,
): Promise<SteeringCondition | undefined> {
  if (own.when === undefined) {
    const stray = (['whenVector', 'whenLayer', 'whenRead'] as const).find((name) => own[name] !== undefined);
    if (stray) throw new InputError(`${flagOf(stray)} has no meaning without --when`);
    return undefined;
  }
  const test = /^sim\s*([<>])\s*(\S+)$/.exec(own.when);
  if (!test) throw new InputError(`--when ${own.when}: a test such as sim>0.04 is needed`);
  if (own.whenVector === undefined) throw new InputError('--when needs --when-vector, the condition vector');
  const given = own.whenLayer === undefined ? undefined : parseInteger('--when-layer', own.whenLayer);
  const vectors = await openVectors(own.whenVector, own, model, ledger, given);
  const held = [...vectors.directions.keys()];
  const layer = given ?? held[0];
  const vector = vectors.directions.get(layer);
  if (!vector || (given === undefined && held.length > 1)) {
    throw new InputError(`${own.whenVector}: holds layers ${held.join(', ')}; name one by --when-layer`);
  }
  return {
    layer,
    vector,
    threshold: parseNumber('--when', test[2]),
    comparison: test[1] === '>' ? '>' : '<',
    read: own.whenRead === undefined ? 'mean' : parseChoice('--when-read', own.whenRead, ['mean', 'last'] as const),
  };
}
