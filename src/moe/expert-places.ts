import { InputError } from '../errors.js';
import { quoted } from '../formats/files.js';
import type { DType, TensorStore } from '../formats/tensor.js';
import { type ConfigReader, readActivation } from '../models/config-reader.js';
import { createWeightReader } from '../models/weights.js';
import { COUNT_KEYS, type ExpertFamily, NAMINGS, type NamingKind, type SparseBlock } from './expert-families.js';
import {
  type ExpertArrangement,
  type ExpertLayer,
  type ExpertTensorNames,
  expertMapName,
  expertTensorNames,
} from './expert-model.js';
import { findNamings, nameList, namingOf, refuseOtherTypes } from './expert-tensors.js';
import type { ExpertShape, RouterRule } from './types.js';

/** What the config of a merged model says that no standard config can describe. */
export interface Extension {
  readonly router: 'remap' | 'reduced';
  readonly expertsPerLayer: readonly (number | null)[];
}

/** The refusal of a model without experts. */
export function denseModel(location: string, type: string): InputError {
  const tensors = [...new Set(Object.values(NAMINGS).map(({ gateUp, up }) => gateUp ?? up))].join(', ');
  return new InputError(
    `${location}: a dense model (${type || 'no model_type'}): it has no experts to merge; looked for ${COUNT_KEYS.join(', ')} in config.json and for tensors named ${tensors}`,
  );
}

/** Where the experts of a model lie. */
export interface Located {
  readonly layout: ExpertArrangement;
  readonly notes: readonly string[];
  readonly layers: readonly ExpertLayer[];
  readonly extraLayers: readonly string[];
}

export interface LocateArgs {
  readonly location: string;
  readonly reader: ConfigReader;
  readonly family: ExpertFamily;
  readonly store: TensorStore;
  readonly extension?: Extension;
  /** The model is only read: matrices may be of several types, and named as this tool names single ones. */
  readonly read: boolean;
}

function positive(reader: ConfigReader, key: string, value: number): number {
  if (Number.isSafeInteger(value) && value > 0) return value;
  throw new InputError(`${reader.path}: "${key}" is ${value}; expected a positive whole number`);
}

function firstNumber(reader: ConfigReader, keys: readonly string[]): number {
  const key = keys.find((each) => reader.optionalNumber(each) !== undefined) ?? keys[0];
  return positive(reader, key, reader.number(key));
}

/** Prefixes before "layers." that other exporters give the decoder. */
function prefixOf(store: TensorStore, block: SparseBlock | undefined): string {
  const first = block?.name.replace(/\d+$/, '') ?? 'layers.';
  for (const name of store.tensors.keys()) {
    const at = name.indexOf(first);
    if (at >= 0 && /^(|.*\.)$/.test(name.slice(0, at)) && !/vision|visual/.test(name)) return name.slice(0, at);
  }
  return '';
}

/**
 * Finds every expert and router of a model.
 * @throws InputError naming what is missing, unknown, or of another shape than config.json says
 */
export function locateExperts(args: LocateArgs): Located {
  const { location, reader, family, store, extension, read } = args;
  const layerCount = reader.number(family.hiddenKey === 'd_model' ? 'num_layers' : 'num_hidden_layers');
  const blocks = family.sparseBlocks(reader, layerCount);
  const found = findNamings(store);
  const experts = expertCount(args, found.size === 0, blocks.length);
  const naming = namingOf(location, family, found, read);
  const shape: ExpertShape = {
    hidden: firstNumber(reader, [family.hiddenKey]),
    width: firstNumber(reader, family.widthKeys),
    gated: family.gated,
    activation: readActivation(reader, family.activation.keys, family.activation.fallback),
  };
  const prefix = prefixOf(store, blocks[0]);
  const used = new Set<string>();
  const places = blocks.map((block) => placeOf(store, prefix, block, family, naming, used));
  const countOf = (block: SparseBlock): number => extension?.expertsPerLayer[block.layer] ?? experts;
  const missing = blocks.flatMap((block, i) => missingTensors(store, places[i], countOf(block), used));
  const extraLayers = layersBeyond(store, prefix, layerCount, family);
  refuseStrangers(location, family, store, used, missing, extraLayers, blocks.length * experts);

  const notes: string[] = family.caveat === undefined ? [] : [family.caveat];
  const arrangement = arrangementOf(store, places[0], shape, family, notes);
  const layers = places.map((place) => layerOf(args, place, experts, countOf(place.block), shape, arrangement));
  if (!family.runs)
    notes.push(
      `${family.types[0]} models are not run here: their experts are merged from weights and statistics from elsewhere`,
    );
  if (extraLayers.length > 0)
    notes.push(
      `${nameList(extraLayers)}: beyond num_hidden_layers (prediction of further tokens): no part of the model that is merged`,
    );
  return { layout: arrangement, notes, layers, extraLayers };
}

/** Experts of a layer as the config says. @throws InputError for a dense model, or one whose config does not say it */
function expertCount({ location, reader, family }: LocateArgs, noneStored: boolean, blocks: number): number {
  const key = family.countKeys.find((each) => reader.optionalNumber(each) !== undefined);
  const experts = key === undefined ? 0 : reader.number(key);
  if (noneStored && (experts === 0 || blocks === 0)) throw denseModel(location, family.types[0]);
  if (key === undefined)
    throw new InputError(`${reader.path}: the number of experts is missing: looked for ${family.countKeys.join(', ')}`);
  return positive(reader, key, experts);
}

/** One layer, its tensors checked; `experts` before a merge, of which `stored` are there. */
function layerOf(
  { reader, family, store, extension, read }: LocateArgs,
  place: Place,
  experts: number,
  stored: number,
  shape: ExpertShape,
  arrangement: ExpertArrangement,
): ExpertLayer {
  checkShapes(store, place, stored, shape, arrangement);
  if (!read) refuseOtherTypes(store, expertTensorNames(place.tensors, stored));
  const dtype = commonDtype(store, place, stored, read && arrangement === 'separate');
  const routerRows = extension?.router === 'reduced' ? stored : experts;
  checkRouter(store, place, routerRows, shape.hidden);
  const map = extension?.router === 'remap' ? readMap(store, place, routerRows, stored) : undefined;
  const groups = groupsOf(family, reader);
  const { block, tensors, router, routerBias, correctionBias } = place;
  return {
    layer: block.layer,
    name: block.name,
    experts: stored,
    routerRows,
    ...(map && { map }),
    rule: ruleOf(family, reader, store, place, routerRows),
    shape,
    dtype,
    tensors,
    router,
    ...(routerBias !== undefined && { routerBias }),
    ...(correctionBias !== undefined && { correctionBias }),
    ...(groups && { groups }),
  };
}

/** Where the tensors of one layer lie. */
interface Place {
  readonly block: SparseBlock;
  readonly tensors: ExpertTensorNames;
  readonly router: string;
  readonly routerBias?: string;
  readonly correctionBias?: string;
}

function placeOf(
  store: TensorStore,
  prefix: string,
  block: SparseBlock,
  family: ExpertFamily,
  kind: NamingKind,
  used: Set<string>,
): Place {
  const naming = NAMINGS[kind];
  const bases = block.blocks.map((name) => `${prefix}${block.name}.${name}.`);
  const has = (name: string): boolean => store.tensors.has(name) || store.tensors.has(`${name}.weight`);
  const first = (naming.gateUp ?? naming.up ?? '').replace('{e}', '0');
  const base = bases.find((each) => has(`${each}${first}`)) ?? bases[0];
  // Fused tensors are parameters of their own in transformers, and weights of a module elsewhere.
  const full = (name: string): string => {
    const own = `${base}${name}`;
    return kind === 'fused' && !store.tensors.has(own) && store.tensors.has(`${own}.weight`) ? `${own}.weight` : own;
  };
  const candidates = bases.flatMap((each) => family.router.map((name) => `${each}${name}`));
  const router = candidates.find((name) => store.tensors.has(name)) ?? `${base}${family.router[0]}`;
  const routerBias = router.replace(/\.weight$/, '.bias');
  const correctionBias = family.correctionBias && `${base}${family.correctionBias}`;
  const place: Place = {
    block,
    tensors: {
      ...(naming.gateUp !== undefined && { gateUp: full(naming.gateUp) }),
      ...(naming.gate !== undefined && { gate: full(naming.gate) }),
      ...(naming.up !== undefined && { up: full(naming.up) }),
      down: full(naming.down),
    },
    router,
    ...(store.tensors.has(routerBias) && { routerBias }),
    ...(correctionBias !== undefined && { correctionBias }),
  };
  for (const name of [router, routerBias, correctionBias]) if (name !== undefined) used.add(name);
  return place;
}

function missingTensors(store: TensorStore, place: Place, experts: number, used: Set<string>): string[] {
  const wanted = expertTensorNames(place.tensors, experts);
  for (const name of wanted) used.add(name);
  if (place.correctionBias !== undefined) wanted.push(place.correctionBias);
  return [place.router, ...wanted].filter((name) => !store.tensors.has(name));
}

/** Layers that follow the last: DeepSeek-V3 and GLM-4.5 store those that predict further tokens there. */
function layersBeyond(store: TensorStore, prefix: string, layers: number, family: ExpertFamily): string[] {
  if (family.extraLayers === undefined) return [];
  const found = new Set<number>();
  for (const name of store.tensors.keys()) {
    if (!name.startsWith(`${prefix}layers.`)) continue;
    const layer = Number(/^\d+/.exec(name.slice(prefix.length + 'layers.'.length))?.[0]);
    if (layer >= layers) found.add(layer);
  }
  return [...found].sort((a, b) => a - b).map((layer) => `${prefix}layers.${layer}.`);
}

function refuseStrangers(
  location: string,
  family: ExpertFamily,
  store: TensorStore,
  used: ReadonlySet<string>,
  missing: readonly string[],
  extraLayers: readonly string[],
  experts: number,
): void {
  const strange = [...store.tensors.keys()].filter(
    (name) =>
      /expert/i.test(name) &&
      !used.has(name) &&
      !family.shared.test(name) &&
      !name.endsWith('.expert_map') &&
      !extraLayers.some((layer) => name.startsWith(layer)),
  );
  if (missing.length === 0 && strange.length === 0) return;
  const type = family.types[0];
  const parts = [
    ...(missing.length > 0
      ? [`${missing.length} tensors of its ${experts} experts are missing: ${nameList(missing)}`]
      : []),
    ...(strange.length > 0
      ? [`${strange.length} tensors named after experts are unknown in a ${type} model: ${nameList(strange)}`]
      : []),
  ];
  throw new InputError(`${location}: ${parts.join('; ')}: config.json and weights must be those of one ${type} model`);
}

const same = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((n, i) => n === b[i]);

/** Shapes of one expert's part of the fused tensors, by arrangement. */
function fusedShapes({ hidden, width }: ExpertShape): Record<'fused-rows' | 'fused-columns', [number[], number[]]> {
  return {
    'fused-rows': [
      [2 * width, hidden],
      [hidden, width],
    ],
    'fused-columns': [
      [hidden, 2 * width],
      [width, hidden],
    ],
  };
}

/** Which way fused tensors lie: both tensors and both axes are compared with the config. */
function arrangementOf(
  store: TensorStore,
  { tensors }: Place,
  shape: ExpertShape,
  family: ExpertFamily,
  notes: string[],
): ExpertArrangement {
  if (tensors.gateUp === undefined) return 'separate';
  const gateUp = store.tensors.get(tensors.gateUp)?.shape.slice(1) ?? [];
  const down = store.tensors.get(tensors.down)?.shape.slice(1) ?? [];
  const shapes = fusedShapes(shape);
  const fits = (['fused-rows', 'fused-columns'] as const).filter(
    (each) => same(shapes[each][0], gateUp) && same(shapes[each][1], down),
  );
  if (2 * shape.width === shape.hidden) {
    notes.push(
      `gate and up together are as wide as the hidden size (${shape.hidden}): ${quoted(tensors.gateUp)} is square, and is read as ${family.types[0]} models store it (${family.fused})`,
    );
    if (fits.includes(family.fused)) return family.fused;
    throw new InputError(
      `${store.path}: ${quoted(tensors.gateUp)} is square and read as ${family.types[0]} models store it (${family.fused}), but ${quoted(tensors.down)} is [${down}] an expert and would be [${shapes[family.fused][1]}]: say which way the tensors lie by storing experts separately`,
    );
  }
  const [found] = fits;
  if (found !== undefined) return found;
  throw new InputError(
    `${store.path}: ${quoted(tensors.gateUp)} is [${gateUp}] and ${quoted(tensors.down)} [${down}] an expert; with hidden size ${shape.hidden} and expert width ${shape.width} they would be [${shapes['fused-rows'][0]}] and [${shapes['fused-rows'][1]}], or [${shapes['fused-columns'][0]}] and [${shapes['fused-columns'][1]}]`,
  );
}

function checkShape(store: TensorStore, name: string, wanted: readonly number[]): void {
  const info = store.tensors.get(name);
  if (info === undefined || same(info.shape, wanted)) return;
  throw new InputError(
    `${info.file}: tensor ${quoted(name)} has shape [${info.shape}] but config.json asks for [${wanted}]`,
  );
}

function checkShapes(
  store: TensorStore,
  { tensors }: Place,
  experts: number,
  shape: ExpertShape,
  arrangement: ExpertArrangement,
): void {
  const names = expertTensorNames(tensors, experts);
  if (arrangement === 'separate') {
    const down = tensors.down.replace(/^.*\{e\}/, '');
    for (const name of names)
      checkShape(store, name, name.endsWith(down) ? [shape.hidden, shape.width] : [shape.width, shape.hidden]);
  } else {
    const shapes = fusedShapes(shape)[arrangement];
    for (const [i, name] of names.entries()) checkShape(store, name, [experts, ...shapes[i]]);
  }
}

function commonDtype(store: TensorStore, { tensors, block }: Place, experts: number, mixed: boolean): DType {
  const names = expertTensorNames(tensors, experts);
  const types = new Set(names.map((name) => store.tensors.get(name)?.dtype));
  if (types.size === 1 || mixed) return [...types][0] as DType;
  throw new InputError(
    `${store.path}: the experts of ${block.name} are stored in several types (${[...types].join(', ')}): convert them to one`,
  );
}

function checkRouter(store: TensorStore, place: Place, rows: number, hidden: number): void {
  checkShape(store, place.router, [rows, hidden]);
  if (place.routerBias !== undefined) checkShape(store, place.routerBias, [rows]);
  if (place.correctionBias !== undefined) checkShape(store, place.correctionBias, [rows]);
  refuseOtherTypes(
    store,
    [place.router, place.routerBias, place.correctionBias].filter((name) => name !== undefined),
  );
}

function ruleOf(
  family: ExpertFamily,
  reader: ConfigReader,
  store: TensorStore,
  place: Place,
  experts: number,
): RouterRule {
  const named = family.score === 'scoring_func' ? reader.string('scoring_func', 'softmax') : family.score;
  if (named !== 'softmax' && named !== 'sigmoid')
    throw new InputError(`${reader.path}: "scoring_func" is ${quoted(named)}; known: softmax, sigmoid`);
  const topK = family.topKKey === undefined ? 1 : positive(reader, family.topKKey, reader.number(family.topKKey));
  if (topK > experts)
    throw new InputError(`${reader.path}: "${family.topKKey}" is ${topK}, but there are ${experts} experts`);
  const { normalize } = family;
  const normalizeTopK = 'fixed' in normalize ? normalize.fixed : reader.boolean('norm_topk_prob', normalize.fallback);
  return {
    score: named,
    topK,
    normalizeTopK,
    ...(place.correctionBias !== undefined && {
      correctionBias: readVector(store, place.correctionBias),
    }),
  };
}

function readVector(store: TensorStore, name: string): Float32Array | undefined {
  const tensor = store.tensors.get(name);
  if (tensor === undefined) return undefined;
  const values = new Float32Array(tensor.shape[0]);
  createWeightReader(1).read({ store, tensor, start: 0, byteLength: tensor.byteLength, shape: tensor.shape }, values);
  return values;
}

function groupsOf(family: ExpertFamily, reader: ConfigReader): ExpertLayer['groups'] | undefined {
  if (family.groups === undefined) return undefined;
  if (family.groups === 'by-method' && reader.string('topk_method', 'greedy') !== 'group_limited_greedy')
    return undefined;
  const nGroup = positive(reader, 'n_group', reader.number('n_group', 1));
  const topkGroup = positive(reader, 'topk_group', reader.number('topk_group', 1));
  return nGroup > 1 ? { nGroup, topkGroup } : undefined;
}

function readMap(store: TensorStore, place: Place, rows: number, experts: number): Int32Array {
  const name = expertMapName(place.router);
  const info = store.tensors.get(name);
  if (info === undefined || info.dtype !== 'I32' || !same(info.shape, [rows]))
    throw new InputError(`${store.path}: tensor ${quoted(name)} is missing or not I32 [${rows}]`);
  const map = new Int32Array(rows);
  store.readInto(info, 0, info.byteLength, new Uint8Array(map.buffer));
  const wrong = map.find((place_) => place_ < -1 || place_ >= experts);
  if (wrong !== undefined)
    throw new InputError(`${info.file}: tensor ${quoted(name)} names expert ${wrong} of ${experts}`);
  return map;
}
