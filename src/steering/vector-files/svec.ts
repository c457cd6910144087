import { InputError } from '../../errors.js';
import type { SteeringVectors } from '../types.js';
import {
  ascending,
  assembleVectors,
  type EncodedVectors,
  type ReadVectorOptions,
  type VectorFormat,
} from './format.js';
import { encodeFloats, type JsonObject, jsonDirections, readJsonObject } from './json-object.js';
import { requireAdd } from './origin.js';

/**
 * IBM's library learns the direction of layer l from the output of block l, and adds it to the INPUT of block l, which
 * is the output of block l - 1 (specification of steering, section 6.2).
 */
export function readSvec(object: JsonObject, path: string, options: ReadVectorOptions): SteeringVectors {
  const modelType = object.model_type;
  if (typeof modelType !== 'string') throw new InputError(`${path}: "model_type" is missing: not an .svec file`);
  const applied = options.point !== 'learnt';
  const stored = jsonDirections(object.directions, path).map(([layer, vector]): [number, Float32Array] => [
    applied ? layer - 1 : layer,
    vector,
  ]);
  const where = applied
    ? 'the direction of layer l acts on the input of block l, the output of block l - 1, as in the library that wrote it (it was learnt at the output of l)'
    : 'the direction of layer l acts where it was learnt, at the output of block l; the library that wrote it adds it one block earlier';
  const rest = { origin: { modelType }, assumptions: [where, 'layers counted from 0', 'length taken as stored'] };
  return assembleVectors(path, stored, rest, options.shift);
}

/** `{model_type, directions: {"layer": [..]}, explained_variances}`. */
export const SVEC_VECTORS: VectorFormat = {
  name: 'svec',
  extensions: ['.svec'],
  read: (path, options) => readSvec(readJsonObject(path), path, options),

  encode(vectors): EncodedVectors {
    requireAdd(vectors.origin, '.svec');
    const { modelType, layers } = vectors.origin;
    if (modelType === undefined) {
      throw new InputError('.svec: names the type of its model, which these vectors do not know: give --model');
    }
    const last = Math.max(...vectors.directions.keys());
    if (layers !== undefined && last >= layers - 1) {
      throw new InputError(
        `.svec: its reader adds to the input of a block, and there is none after block ${last}: choose an earlier block or another format`,
      );
    }
    const lines = [...ascending(vectors.directions)].map(([block, data]) => `"${block + 1}": ${encodeFloats(data)}`);
    const text = `{"model_type": ${JSON.stringify(modelType)}, "directions": {${lines.join(', ')}}, "explained_variances": {}}\n`;
    const notes = ['the vector of block l is written as layer l + 1, whose input its reader changes'];
    return { bytes: Buffer.from(text), notes };
  },
};
