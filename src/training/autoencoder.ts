import { create } from '@bufbuild/protobuf';
import { GraphProtoSchema, type ModelProto, ModelProtoSchema, type NodeProto } from '../formats/onnx_pb.js';
import { integerAttribute } from '../formats/onnx-attributes.js';
import { changedNode, graphOf, onnxNode, onnxTensor, onnxValueInfo } from '../formats/onnx-edit.js';
import type { NetworkDesign } from './network-text.js';
import { composeNetwork, NETWORK_INPUT, NETWORK_LOGITS } from './networks.js';
import { withParameters } from './onnx-export.js';
import type { ParameterSet, Precision } from './types.js';

export interface AutoencoderOptions {
  /** Columns of an observation, and of a latent. */
  readonly width: number;
  readonly latent: number;
  readonly seed: number;
  readonly precision: Precision;
  /** What the encoder does to observations first; the decoder gives observations on that scale. */
  readonly scale: { readonly mean: Float64Array; readonly inverse: Float64Array };
}

/** Encoder and decoder in one graph. */
export interface Autoencoder {
  /** Input `features` [rows, width]; output `logits` [rows, latent + width]: the latents, then what is decoded from them. */
  readonly model: ModelProto;
  readonly parameters: readonly string[];
  /** Observations to latents, with the weights of a parameter set. */
  encoder(set: ParameterSet): ModelProto;
  /** Latents to observations on the encoder's scale. */
  decoder(set: ParameterSet): ModelProto;
}

/** Nodes whose values and weights get a prefix, their input being another value. */
function prefixed(nodes: readonly NodeProto[], prefix: string, input: string): NodeProto[] {
  const named = (name: string): string => (name === NETWORK_INPUT ? input : name === '' ? '' : `${prefix}${name}`);
  return nodes.map((node) =>
    changedNode(node, {
      name: `${prefix}${node.name}`,
      input: node.input.map(named),
      output: node.output.map(named),
    }),
  );
}

/**
 * A network as encoder, and the same with its hidden layers in reverse order as decoder; weights are called
 * `encoder.layers.0.weight`, `decoder.head.bias`.
 */
export function composeAutoencoder(design: NetworkDesign, options: AutoencoderOptions): Autoencoder {
  const { width, latent, seed, precision, scale } = options;
  const encoder = composeNetwork(design, { dims: [width], classes: latent, seed, precision, scale });
  const mirrored = { ...design, hidden: [...design.hidden].reverse() };
  const decoder = composeNetwork(mirrored, { dims: [latent], classes: width, seed: seed + 1, precision });
  const parts = { 'encoder.': graphOf(encoder.model), 'decoder.': graphOf(decoder.model) };
  const initializer = Object.entries(parts).flatMap(([prefix, graph]) =>
    graph.initializer.map(({ name, dataType, dims, rawData }) =>
      onnxTensor(`${prefix}${name}`, dataType, dims.map(Number), rawData),
    ),
  );
  const latents = `encoder.${NETWORK_LOGITS}`;
  const node = [
    ...prefixed(parts['encoder.'].node, 'encoder.', NETWORK_INPUT),
    ...prefixed(parts['decoder.'].node, 'decoder.', latents),
    onnxNode('Concat', 'join', [latents, `decoder.${NETWORK_LOGITS}`], [NETWORK_LOGITS], [integerAttribute('axis', 1)]),
  ];
  const [{ type }] = parts['encoder.'].output;
  const elementType = type?.value.case === 'tensorType' ? type.value.value.elemType : 1;
  const graph = create(GraphProtoSchema, {
    name: 'autoencoder',
    input: parts['encoder.'].input,
    output: [onnxValueInfo(NETWORK_LOGITS, elementType, ['rows', latent + width])],
    node,
    initializer,
  });
  const part = (model: ModelProto, prefix: string, set: ParameterSet): ModelProto => {
    const own = set.parameters.filter(({ name }) => name.startsWith(prefix));
    const parameters = own.map((parameter) => ({ ...parameter, name: parameter.name.slice(prefix.length) }));
    return withParameters(model, { ...set, parameters });
  };
  return {
    model: create(ModelProtoSchema, {
      irVersion: encoder.model.irVersion,
      opsetImport: encoder.model.opsetImport,
      graph,
    }),
    parameters: [
      ...encoder.parameters.map((name) => `encoder.${name}`),
      ...decoder.parameters.map((name) => `decoder.${name}`),
    ],
    encoder: (set) => part(encoder.model, 'encoder.', set),
    decoder: (set) => part(decoder.model, 'decoder.', set),
  };
}
