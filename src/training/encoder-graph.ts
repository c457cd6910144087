import { join } from 'node:path';
import { decodeOnnxModel } from '../formats/onnx.js';
import type { ModelProto } from '../formats/onnx_pb.js';
import { onnxTensor, withGraph } from '../formats/onnx-edit.js';
import { type EncoderWeight, type EncoderWeights, readEncoderWeights, relativeBucket } from '../models/encoder.js';
import { describeEncoder, type EncoderDescription } from '../models/encoder-description.js';
import { embeddingNorm, encoderBlock } from '../models/encoder-graph.js';
import { bindInputs, composeGraph, type GraphComposer } from '../models/graph.js';
import { readJson } from '../models/model-files.js';
import { openWeights } from '../models/pvq-store.js';
import { elementTypeOf } from './autodiff/precision.js';
import type { Precision } from './types.js';

/** Name of the output with the hidden states of the last block. */
export const LAST_HIDDEN_STATE = 'last_hidden_state';

/**
 * An encoder directory as one ONNX graph of operators that have gradients, for `openOnnxStudent`, whose `logits` the hidden
 * states are. Inputs: `input_ids` [batch, length], texts of one length, special tokens included. Output:
 * `last_hidden_state` [batch, length, hidden]. Initializers have the names of the checkpoint.
 * @throws InputError for another kind of model, a missing tensor or one of another shape
 */
export function composeEncoder(path: string, options: { precision: Precision; threads: number }): ModelProto {
  const model = describeEncoder(readJson(join(path, 'config.json')), join(path, 'config.json'));
  const store = openWeights(path, options.threads);
  try {
    return encoderGraph(model, readEncoderWeights(model, store, options), options.precision);
  } finally {
    store.close();
  }
}

function encoderGraph(model: EncoderDescription, weights: EncoderWeights, precision: Precision): ModelProto {
  const { hiddenSize, heads } = model;
  const g = composeGraph('encoder', precision);
  const read = new Map<string, EncoderWeight>();
  const weightValue = (weight: EncoderWeight): string => {
    read.set(weight.name, weight);
    return weight.name;
  };
  const ids = g.input('input_ids', 'i64', ['batch', 'length']);
  const extents = g.node('Shape', [ids]);
  const length = g.node('Slice', [extents, g.integers([1]), g.integers([2])]);
  const first = g.integers([model.firstPosition]);
  const after = g.node('Add', [length, first]);

  const words = g.node('Gather', [weightValue(weights.words), ids], { attributes: { axis: { int: 0 } } });
  const places = g.node('Slice', [weightValue(weights.positions), first, after, g.integers([0])]);
  let embedded = g.node('Add', [words, places]);
  if (weights.types) {
    const type = g.node('Slice', [weightValue(weights.types), g.integers([0]), g.integers([1]), g.integers([0])]);
    embedded = g.node('Add', [embedded, type]);
  }
  const norm = new Map([
    ['weight', weights.norm],
    ['bias', weights.normBias],
  ]);
  const bound = (of: ReadonlyMap<string, EncoderWeight>, relative?: string): GraphComposer =>
    bindInputs(g, '', (name) => {
      if (name === 'relative') return relative;
      const weight = of.get(name);
      return weight && weightValue(weight);
    });
  let x = embeddingNorm(bound(norm), model, g.node('Reshape', [embedded, g.integers([-1, hiddenSize])]));
  const split = g.node('Concat', [extents, g.integers([heads, hiddenSize / heads])], {
    attributes: { axis: { int: 0 } },
  });
  const relative = weights.relative && relativeBias(g, model, weightValue(weights.relative), length);
  for (const block of weights.blocks) x = encoderBlock(bound(block, relative), model, x, split);
  const shape = g.node('Concat', [extents, g.integers([-1])], { attributes: { axis: { int: 0 } } });
  g.publish(g.node('Reshape', [x, shape]), LAST_HIDDEN_STATE, ['batch', 'length', hiddenSize]);

  const initializer = [...read.values()].map(({ name, data, shape: dims }) =>
    onnxTensor(name, elementTypeOf(precision), dims, new Uint8Array(data.buffer, data.byteOffset, data.byteLength)),
  );
  const composed = decodeOnnxModel(g.encode(), 'encoder');
  return withGraph(composed, { initializer: [...(composed.graph?.initializer ?? []), ...initializer] });
}

/** `[1, heads, length, length]` of the bias that a pair of positions has, from the table `[buckets, heads]`. */
function relativeBias(g: GraphComposer, model: EncoderDescription, table: string, length: string): string {
  const longest = model.positionRows - model.firstPosition;
  const buckets = g.integers(
    Array.from({ length: 2 * longest - 1 }, (_, i) => relativeBucket(i - longest + 1, model.relativeBuckets)),
  );
  const count = g.node('Squeeze', [length, g.integers([0])]);
  const places = g.node('Range', [g.integers([0], true), count, g.integers([1], true)]);
  const queries = g.node('Unsqueeze', [places, g.integers([1])]);
  const apart = g.node('Sub', [g.node('Unsqueeze', [places, g.integers([0])]), queries]);
  const bucket = g.node('Gather', [buckets, g.node('Add', [apart, g.integers([longest - 1], true)])]);
  const bias = g.node('Transpose', [g.node('Gather', [table, bucket])], { attributes: { perm: { ints: [2, 0, 1] } } });
  return g.node('Unsqueeze', [bias, g.integers([0])]);
}
