import { InputError } from '../errors.js';
import type { JsonChanges } from '../formats/json-edit.js';
import { MERGED_MODEL_TYPE } from '../models/merged-experts.js';
import { changedConfig } from '../models/model-directory.js';
import { EXPERT_FAMILIES, type ExpertFamily } from './expert-families.js';
import type { ExpertLayer, ExpertModel } from './expert-model.js';
import type { LayerGrouping } from './types.js';

/**
 * What the merged model stores. `remap`: merged experts once, the router as it was and a map from its rows to experts.
 * `reduced`: as many router rows as experts. `expanded`: as many experts as before, some of them copies.
 */
export type MergedForm = 'remap' | 'reduced' | 'expanded';

export interface MergedLayerPlan {
  /** {@link ExpertLayer.layer} (not the place in the list of layers). */
  readonly layer: number;
  /** Experts that will be stored. */
  readonly experts: number;
  /** Rows of the new router: `experts` for reduced, the source's for remap and expanded. */
  readonly routerRows: number;
  /** remap: stored expert of each router row, -1 = dropped. Without it every expert keeps its place. */
  readonly map?: Int32Array;
}

/** Every layer with experts stands in `layers` once, in order, also those that stay as they are. */
export interface MergedPlan {
  readonly form: MergedForm;
  /** A new number of experts a token (`reduced` alone). */
  readonly topK?: number;
  readonly layers: readonly MergedLayerPlan[];
}

/** `standard`: loads wherever the source does. `surprisal_moe`: this tool's extension, read by it alone. */
export type ConfigForm = 'standard' | 'surprisal_moe';

export interface MergedConfig {
  readonly form: ConfigForm;
  /** Text of the new config.json. */
  readonly text: string;
  readonly notes: readonly string[];
  /** The layers beyond `num_hidden_layers` do not fit the new number of experts and are left out. */
  readonly dropsExtraLayers: boolean;
}

/** Config keys of the number of layers beyond the last that predict further tokens. */
const EXTRA_LAYER_KEYS: readonly string[] = ['num_nextn_predict_layers', 'num_mtp_layers'];

function familyOf(source: ExpertModel): ExpertFamily {
  const family = EXPERT_FAMILIES.find(({ types }) => types[0] === source.family);
  if (family === undefined) throw new RangeError(`${source.path}: no family named ${source.family}`);
  return family;
}

/** Whether every expert is a group of its own in all layers: then the model is copied file by file. */
export function keepsEveryExpert(groupings: readonly LayerGrouping[]): boolean {
  return groupings.every(({ labels, dominants }) => dominants.length === labels.length && !labels.includes(-1));
}

/** @throws RangeError for a plan that is no plan of this model */
function checkLayers(source: ExpertModel, { form, layers }: MergedPlan): void {
  if (layers.length !== source.layers.length)
    throw new RangeError(`${source.path}: a plan of ${layers.length} layers for ${source.layers.length} with experts`);
  for (const [i, { layer, experts, routerRows, map }] of layers.entries()) {
    const before = source.layers[i];
    const where = `layer ${layer}`;
    if (layer !== before.layer) throw new RangeError(`${source.path}: ${where} stands where ${before.layer} belongs`);
    if (!(Number.isSafeInteger(experts) && experts >= 1 && experts <= before.experts))
      throw new RangeError(`${where}: ${experts} experts of ${before.experts}`);
    const rows = form === 'reduced' ? experts : before.experts;
    if (routerRows !== rows) throw new RangeError(`${where}: ${routerRows} router rows, not ${rows}, for form ${form}`);
    if (form === 'expanded' && experts !== before.experts)
      throw new RangeError(`${where}: ${experts} experts, not ${before.experts}, for form expanded`);
    if (form === 'remap') checkMap(where, map, before.experts, experts);
    else if (map !== undefined) throw new RangeError(`${where}: a map is of form remap alone`);
  }
}

function checkMap(where: string, map: Int32Array | undefined, rows: number, experts: number): void {
  if (map === undefined) {
    if (rows !== experts) throw new RangeError(`${where}: a map of ${rows} rows to ${experts} experts is missing`);
    return;
  }
  if (map.length !== rows) throw new RangeError(`${where}: a map of ${map.length} entries for ${rows} router rows`);
  const used = new Set(map);
  used.delete(-1);
  for (const place of used)
    if (!(place >= 0 && place < experts)) throw new RangeError(`${where}: the map names expert ${place} of ${experts}`);
  if (used.size !== experts) throw new RangeError(`${where}: the map names ${used.size} of ${experts} stored experts`);
}

/** A router of `experts` rows must let a token choose `topK`. @throws InputError naming layer, number and constraint */
function checkReduced(source: ExpertModel, layer: ExpertLayer, experts: number, topK: number): void {
  const where = `${source.path}: ${layer.name} would keep ${experts} of ${layer.experts} experts`;
  if (experts < topK)
    throw new InputError(
      `${where}, but a token chooses ${topK}: keep at least ${topK}, pass a smaller --top-k, or keep the router as it is (--router remap)`,
    );
  if (layer.groups === undefined) return;
  const { nGroup, topkGroup } = layer.groups;
  if (experts % nGroup !== 0)
    throw new InputError(
      `${where}, but the router chooses among ${nGroup} groups of equal size (n_group): keep a multiple of ${nGroup}`,
    );
  const size = experts / nGroup;
  if (topkGroup * size < topK)
    throw new InputError(
      `${where}, ${size} a group, but a token chooses ${topK} from ${topkGroup} groups (topk_group): keep at least ${nGroup * Math.ceil(topK / topkGroup)}`,
    );
  // The score of a group is the sum of its two best experts.
  if (layer.rule.score === 'sigmoid' && size < 2)
    throw new InputError(
      `${where}, one a group, but groups are scored by their two best (n_group ${nGroup}): keep at least ${2 * nGroup}`,
    );
}

/** The source's config.json with keys replaced in the part that describes the decoder, and around it. */
function configText({ path, configKey }: ExpertModel, inner: JsonChanges, outer: JsonChanges = {}): string {
  const text =
    configKey === undefined
      ? changedConfig(path, { ...inner, ...outer })
      : changedConfig(path, outer, { [configKey]: inner });
  if (text === undefined) throw new InputError(`${path}: config.json is gone`);
  return text;
}

function decoderConfig({ config, configKey }: ExpertModel): Readonly<Record<string, unknown>> {
  return configKey === undefined ? config : (config[configKey] as Record<string, unknown>);
}

/**
 * The config of the model that a plan makes: the source's with a new number of experts where one number says it, else the
 * extension `surprisal_moe` (`router`, `experts_per_layer`).
 * @throws InputError for a plan that the form cannot hold: a router of fewer rows than a token chooses, groups that do not
 * come out even, an extension of a family that this tool does not run; RangeError for a plan of another model
 */
export function mergedConfig(source: ExpertModel, plan: MergedPlan): MergedConfig {
  checkLayers(source, plan);
  const { form, layers } = plan;
  const topK = checkTopK(source, plan);
  if (form === 'reduced')
    for (const [i, { experts }] of layers.entries())
      checkReduced(source, source.layers[i], experts, topK ?? source.layers[i].rule.topK);
  const family = familyOf(source);
  const topKChange = topK === undefined || family.topKKey === undefined ? {} : { [family.topKKey]: topK };
  const shrinks = layers.some(({ experts }, i) => experts !== source.layers[i].experts);
  const dropsExtraLayers = shrinks && source.extraLayers.length > 0;
  const uniform = form === 'reduced' && layers.every(({ experts }) => experts === layers[0].experts);
  const extra = dropsExtraLayers ? withoutExtraLayers(source) : {};
  const notes = dropsExtraLayers
    ? [
        `the layers beyond the last (${source.extraLayers.join(', ')}) have more experts than the config can say: left out`,
      ]
    : [];
  if (form === 'expanded') return { form: 'standard', text: configText(source, {}), notes, dropsExtraLayers };
  if (uniform) {
    const [{ experts }] = layers;
    const keys = family.countKeys.filter((key) => key in decoderConfig(source));
    const counts = Object.fromEntries(keys.map((key) => [key, experts]));
    if (experts % 2 === 1)
      notes.push(`an odd number of experts (${experts}) is not accepted by llama.cpp's converters`);
    return {
      form: 'standard',
      text: configText(source, { ...counts, ...topKChange, ...extra }),
      notes,
      dropsExtraLayers,
    };
  }
  if (!source.runs)
    throw new InputError(
      `${source.path}: ${form === 'remap' ? 'a router that keeps its rows' : 'different numbers of experts in different layers'} cannot be said in a ${source.family} config, and surprisal, which reads its own extension, does not run ${source.family} models: ask for equal numbers (--budget uniform) with --router reduced, or --router expanded`,
    );
  notes.push(
    `config.json has "model_type": "${MERGED_MODEL_TYPE}", which surprisal reads and other runtimes do not: ${form === 'remap' ? 'the router keeps a row for every expert of before' : 'layers keep different numbers of experts'}`,
  );
  const expertsPerLayer = expertsOfLayers(source, plan);
  const outer = {
    architectures: ['SurprisalMoeForCausalLM'],
    model_type: MERGED_MODEL_TYPE,
    base_model_type: source.config.model_type,
    [MERGED_MODEL_TYPE]: { version: 1, router: form, experts_per_layer: expertsPerLayer },
  };
  return {
    form: MERGED_MODEL_TYPE,
    text: configText(source, { ...topKChange, ...extra }, outer),
    notes,
    dropsExtraLayers,
  };
}

/** The new number of experts a token, where one is asked for. */
function checkTopK(source: ExpertModel, { form, topK }: MergedPlan): number | undefined {
  if (topK === undefined) return undefined;
  if (familyOf(source).topKKey === undefined)
    throw new InputError(`${source.path}: ${source.family} routers choose one expert: its number cannot be changed`);
  if (form !== 'reduced')
    throw new InputError(
      `${source.path}: the number of experts a token can be changed with --router reduced alone: ${form} keeps the router as it was`,
    );
  if (!(Number.isSafeInteger(topK) && topK >= 1))
    throw new InputError(`${source.path}: a token cannot choose ${topK} experts: pass a positive whole number`);
  return topK;
}

function withoutExtraLayers(source: ExpertModel): Record<string, number> {
  const config = decoderConfig(source);
  return Object.fromEntries(EXTRA_LAYER_KEYS.filter((key) => key in config).map((key) => [key, 0]));
}

/** Stored experts by decoder layer, null where there are none. */
function expertsOfLayers(source: ExpertModel, { layers }: MergedPlan): (number | null)[] {
  const count = Number(decoderConfig(source).num_hidden_layers);
  const byLayer = new Map(layers.map(({ layer, experts }) => [layer, experts]));
  return Array.from({ length: count }, (_, layer) => byLayer.get(layer) ?? null);
}
