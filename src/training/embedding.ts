import { InputError } from '../errors.js';
import type { ModelDescription } from '../models/description.js';
import type { DecoderWeights } from './decoder-weights.js';
import type { Floats, TokenBatch } from './types.js';

/** Rows of the embedding matrix for tokens, and of that of positions. */
export interface Embedding {
  /** Writes the stream [B * S, hidden]. @throws InputError for a token that the vocabulary does not have */
  gather(batch: TokenBatch, stream: Floats): void;
  /** Adds the gradient of the stream to those of the rows; tokens that come again add. */
  scatter(batch: TokenBatch, gradient: Floats): void;
}

/** The rows of token embeddings (and of positions, where the model learns them), read and given gradients in place. */
export function createEmbedding(model: ModelDescription, weights: DecoderWeights): Embedding {
  const { hiddenSize, vocabularySize, embeddingScale } = model;
  const { embedding, positions } = weights;
  return {
    gather({ tokens, length }, stream) {
      tokens.forEach((id, row) => {
        if (id < 0 || id >= vocabularySize) {
          throw new InputError(`token ${id} is not in the student's vocabulary of ${vocabularySize}`);
        }
        const at = row * hiddenSize;
        stream.set(embedding.values.subarray(id * hiddenSize, (id + 1) * hiddenSize), at);
        if (embeddingScale !== 1) for (let j = at; j < at + hiddenSize; j++) stream[j] *= embeddingScale;
        if (!positions) return;
        const from = (row % length) * hiddenSize;
        for (let j = 0; j < hiddenSize; j++) stream[at + j] += positions.values[from + j];
      });
    },

    scatter({ tokens, length }, gradient) {
      const rows = embedding.gradient;
      const places = positions?.gradient;
      for (let row = 0; row < tokens.length; row++) {
        const at = row * hiddenSize;
        if (rows) addScaled(rows, tokens[row] * hiddenSize, gradient, at, hiddenSize, embeddingScale);
        if (places) addScaled(places, (row % length) * hiddenSize, gradient, at, hiddenSize, 1);
      }
    },
  };
}

function addScaled(target: Floats, to: number, source: Floats, from: number, count: number, scale: number): void {
  for (let j = 0; j < count; j++) target[to + j] += scale * source[from + j];
}
