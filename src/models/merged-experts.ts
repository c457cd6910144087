import { InputError } from '../errors.js';
import type { DType } from '../formats/tensor.js';
import { type ConfigReader, configReader } from './config-reader.js';
import { EXPERT_MAP, type LayerDescription, type ModelDescription } from './description.js';
import { createWeightReader, type ModelWeights } from './weights.js';

/**
 * `model_type` of a model whose experts were merged and which no standard config describes: layers with different numbers
 * of experts, or a router that still has an output for every expert of before. Its `config.json` is that of the model
 * before, with `base_model_type` and `surprisal_moe`:
 *
 * - `version`: 1.
 * - `router`: `reduced`, a row for every stored expert; or `remap`, the rows of before. With `remap` a tensor of integers
 *   [rows] beside the router, named as it is with `.expert_map` for `.weight`, holds the stored expert that runs for each
 *   row, -1 where none does.
 * - `experts_per_layer`: stored experts of each layer; null for layers without experts.
 */
export const MERGED_MODEL_TYPE = 'surprisal_moe';

const VERSION = 1;

/** The config of the model before its experts were merged. @throws InputError when it does not say its type */
export function baseConfig(reader: ConfigReader): ConfigReader {
  const base = reader.string('base_model_type', '');
  if (base === '' || base === MERGED_MODEL_TYPE) {
    throw new InputError(
      `${reader.path}: "base_model_type" must name the type of the model before its experts were merged`,
    );
  }
  return configReader({ ...reader.config, model_type: base }, reader.path);
}

/**
 * Applies the extension of a merged model's config to the description of the model before.
 * @throws InputError for an unknown version or key, or counts that do not belong to the model
 */
export function describeMerged(base: ModelDescription, reader: ConfigReader): ModelDescription {
  const extension = reader.object(MERGED_MODEL_TYPE);
  if (!extension) throw new InputError(`${reader.path}: "${MERGED_MODEL_TYPE}" is missing; it says what was merged`);
  const version = extension.number('version');
  if (version !== VERSION) {
    throw new InputError(
      `${extension.path}: version ${version} is not known; this surprisal reads version ${VERSION}: update it`,
    );
  }
  const router = extension.string('router', '');
  if (router !== 'remap' && router !== 'reduced') {
    throw new InputError(`${extension.path}: "router" is ${JSON.stringify(router)}; expected "remap" or "reduced"`);
  }
  const counts: unknown = extension.config.experts_per_layer;
  if (!Array.isArray(counts) || counts.length !== base.layers.length) {
    throw new InputError(
      `${extension.path}: "experts_per_layer" must list the experts of each of ${base.layers.length} layers, null where there are none`,
    );
  }
  const layers = base.layers.map((layer, i) => mergedLayer(layer, counts[i], router, `${extension.path}: layer ${i}`));
  return { ...base, modelType: MERGED_MODEL_TYPE, layers };
}

function mergedLayer(
  layer: LayerDescription,
  count: unknown,
  router: 'remap' | 'reduced',
  where: string,
): LayerDescription {
  const { mlp } = layer;
  if (mlp.kind === 'dense') {
    if (count !== null)
      throw new InputError(`${where} has no experts, but "experts_per_layer" has ${JSON.stringify(count)}`);
    return layer;
  }
  if (typeof count !== 'number' || !Number.isInteger(count) || count < 1 || count > mlp.experts) {
    throw new InputError(
      `${where}: "experts_per_layer" has ${JSON.stringify(count)}; expected an integer from 1 to ${mlp.experts}`,
    );
  }
  if (router === 'remap') return { ...layer, mlp: { ...mlp, experts: count, routerOutputs: mlp.experts } };
  if (count < mlp.expertsPerToken) {
    throw new InputError(`${where} has ${count} experts, of which a token chooses ${mlp.expertsPerToken}`);
  }
  return { ...layer, mlp: { ...mlp, experts: count } };
}

const INTEGERS: readonly string[] = ['I64', 'I32', 'I16', 'I8', 'U64', 'U32', 'U16', 'U8'] satisfies DType[];

/**
 * Checks the expert maps of a merged model's layers.
 * @throws InputError naming the tensor that is not of integers, or the entry that is no expert of its layer
 */
export function checkExpertMaps(model: ModelDescription, weights: ModelWeights): void {
  const reader = createWeightReader(1);
  model.layers.forEach(({ mlp }, i) => {
    const weight = weights.layers[i].get(EXPERT_MAP);
    if (!weight || mlp.kind !== 'moe') return;
    const { tensor } = weight;
    if (!INTEGERS.includes(tensor.dtype)) {
      throw new InputError(`${tensor.file}: tensor "${tensor.name}" is of ${tensor.dtype}; expected integers`);
    }
    const map = new Float64Array(weight.shape[0]);
    reader.read(weight, map);
    map.forEach((expert, e) => {
      if (expert >= -1 && expert < mlp.experts) return;
      throw new InputError(
        `${tensor.file}: tensor "${tensor.name}": entry ${e} is ${expert}; expected -1 (dropped) or an expert from 0 to ${mlp.experts - 1}`,
      );
    });
  });
}
