import { InputError } from '../../errors.js';
import type { SteeringVectors } from '../types.js';
import { ascending, assembleVectors, type EncodedVectors, type VectorFormat } from './format.js';
import { encodeFloats, jsonDirections, objectIn, readJsonObject } from './json-object.js';
import { originEntries, originOf } from './origin.js';
import { STEERING_FORMAT } from './safetensors.js';
import { readSvec } from './svec.js';

/** The project's JSON: the same content as its safetensors, readable by eye. */
export const JSON_VECTORS: VectorFormat = {
  name: 'json',
  extensions: ['.json'],

  read(path, options) {
    const object = readJsonObject(path);
    if (object.format === undefined && object.model_type !== undefined) return readSvec(object, path, options);
    if (object.format !== STEERING_FORMAT) {
      throw new InputError(
        `${path}: "format" is ${JSON.stringify(object.format)}; expected "${STEERING_FORMAT}", or the keys of an .svec file`,
      );
    }
    if (object.version !== 1)
      throw new InputError(`${path}: version ${JSON.stringify(object.version)} is not read, only 1`);
    const rest = { origin: originOf(objectIn(object.origin ?? {}, `${path}: "origin"`), path), assumptions: [] };
    const vectors = assembleVectors(path, jsonDirections(object.directions, path), rest, options.shift);
    if (object.hidden_size !== vectors.hiddenSize) {
      throw new InputError(
        `${path}: hidden_size says ${JSON.stringify(object.hidden_size)}, its directions have ${vectors.hiddenSize} numbers`,
      );
    }
    return vectors;
  },

  encode(vectors: SteeringVectors): EncodedVectors {
    const head = {
      format: STEERING_FORMAT,
      version: 1,
      hidden_size: vectors.hiddenSize,
      layer_base: 0,
      injection: 'block output',
      origin: originEntries(vectors.origin),
    };
    const lines = [...ascending(vectors.directions)].map(([block, data]) => `    "${block}": ${encodeFloats(data)}`);
    const text = `${JSON.stringify(head, null, 2).slice(0, -2)},\n  "directions": {\n${lines.join(',\n')}\n  }\n}\n`;
    return { bytes: Buffer.from(text), notes: [] };
  },
};
