import type { LayerDescription, ModelDescription } from './description.js';
import type { LayerTap } from './layer-parts.js';
import { GGUF_NAMES, huggingFaceNames, weightName } from './weight-names.js';
import type { ModelWeights, StoredWeight } from './weights.js';

/** Vectors that one or several linears of a model read. Linears that read the same vectors share an input. */
export interface LinearInput {
  /** `layers.3.mlp_hidden`, `layers.3.expert.5.hidden`, `head_input`. */
  readonly name: string;
  /** 0-based layer; the number of layers for the input of the LM head. */
  readonly layer: number;
  /** The tap that gives it; absent for the LM head, whose input is the normed residual stream. */
  readonly tap?: LayerTap;
  /** The expert whose rows of the tap these are. */
  readonly expert?: number;
  /** Width of the vectors: columns of every weight that reads them. */
  readonly columns: number;
  /** Roles of the weights in the layer; `head` for the LM head. */
  readonly roles: readonly string[];
}

/** Inputs of the linears of one layer, in the order in which they arise. */
function layerInputs(model: ModelDescription, layer: LayerDescription, index: number): LinearInput[] {
  const { hiddenSize } = model;
  const { attention, mlp } = layer;
  const make = (tap: LayerTap, columns: number, roles: readonly string[]): LinearInput => ({
    name: `layers.${index}.${tap}`,
    layer: index,
    tap,
    columns,
    roles,
  });
  const inputs = [
    make('attention_input', hiddenSize, attention.projection === 'separate' ? ['q', 'k', 'v'] : ['qkv']),
    make('attention_mixed', attention.heads * attention.headDim, ['o']),
  ];
  if (mlp.kind === 'dense') {
    const inward = mlp.gated ? (mlp.fusedGateUp ? ['gate_up'] : ['gate', 'up']) : ['up'];
    return [...inputs, make('mlp_input', hiddenSize, inward), make('mlp_hidden', mlp.width, ['down'])];
  }
  const shared = mlp.shared ? ['shared.gate', 'shared.up', ...(mlp.shared.gated ? ['shared.router'] : [])] : [];
  inputs.push(make('mlp_input', hiddenSize, ['router', ...shared]));
  if (mlp.shared) inputs.push(make('shared_hidden', mlp.shared.width, ['shared.down']));
  for (let expert = 0; expert < mlp.experts; expert++) {
    const role = `expert.${expert}`;
    const own = (tap: LayerTap, suffix: string, columns: number, roles: readonly string[]): LinearInput => ({
      ...make(tap, columns, roles),
      name: `layers.${index}.${role}.${suffix}`,
      expert,
    });
    inputs.push(own('expert_input', 'input', hiddenSize, [`${role}.gate`, `${role}.up`]));
    inputs.push(own('expert_hidden', 'hidden', mlp.width, [`${role}.down`]));
  }
  return inputs;
}

/** Inputs of all linears of a model, layer by layer, the LM head's last. */
export function linearInputs(model: ModelDescription): LinearInput[] {
  const inputs = model.layers.flatMap((layer, index) => layerInputs(model, layer, index));
  const head = { name: 'head_input', layer: model.layers.length, columns: model.hiddenSize, roles: ['head'] };
  return [...inputs, head];
}

/** The name of a stored weight; of a stack of experts `name#part`, where gate and up in one tensor are two parts each. */
function storedName({ tensor, start, byteLength }: StoredWeight): string {
  return byteLength < tensor.byteLength ? `${tensor.name}#${start / byteLength}` : tensor.name;
}

/**
 * Names of the weights that read an input: those of Hugging Face checkpoints of the model's type, those of GGUF files
 * (`blk.0.ffn_down_exps.weight#3` is expert 3 of a stack), and, where weights are given, the names as they are stored.
 */
export function weightsReading(model: ModelDescription, input: LinearInput, weights?: ModelWeights): string[] {
  const tables = [huggingFaceNames(model.modelType), GGUF_NAMES];
  const names = new Set<string>();
  for (const role of input.roles) {
    if (role === 'head') {
      for (const table of tables) {
        for (const name of [...table.head, ...(model.tiedHead ? table.embedding : [])]) names.add(name);
      }
      if (weights) names.add(storedName(weights.head));
      continue;
    }
    const expert = /^expert\.(\d+)\./.exec(role)?.[1] ?? '';
    const template = expert === '' ? role : role.replace(/^expert\.\d+/, 'expert.{e}');
    for (const table of tables) {
      for (const name of table.layer[template] ?? []) {
        const { tensor, part } = weightName(name, input.layer, expert);
        names.add(part === undefined ? tensor : `${tensor}#${part.index}`);
      }
    }
    const stored = weights?.layers[input.layer].get(role);
    if (stored) names.add(storedName(stored));
  }
  return [...names];
}
