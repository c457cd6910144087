import { InputError } from '../../errors.js';
import { decodeUtf8, quoted, readWhole } from '../../formats/files.js';
import { duplicateKey } from '../../formats/json-keys.js';
import { floatsOf, parseBlock } from './format.js';

/** No file of vectors is larger; JSON is read as a whole. */
const MAX_JSON_BYTES = 1 << 28;

export type JsonObject = Readonly<Record<string, unknown>>;

export function objectIn(value: unknown, where: string): JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new InputError(`${where}: expected a JSON object`);
  }
  return value as JsonObject;
}

/** A file that holds one JSON object. */
export function readJsonObject(path: string): JsonObject {
  const text = decodeUtf8(readWhole(path, MAX_JSON_BYTES), path);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new InputError(`${path}: not valid JSON (${quoted((error as Error).message)})`);
  }
  const object = objectIn(value, path);
  const twice = duplicateKey(text);
  if (twice !== undefined) throw new InputError(`${path}: holds the key ${quoted(twice)} twice`);
  return object;
}

/** `directions` of a file: lists of numbers by block. */
export function jsonDirections(value: unknown, path: string): [number, Float32Array][] {
  return Object.entries(objectIn(value, `${path}: "directions"`)).map(([key, list]) => {
    const block = parseBlock(key);
    if (block === undefined)
      throw new InputError(`${path}: "directions": key ${quoted(key)} is not the number of a block`);
    return [block, floatsOf(list, `${path}: "directions", block ${key}`)];
  });
}

/** The shortest decimal of the value; JSON.stringify would lose the sign of -0. */
function decimal(value: number): string {
  return Object.is(value, -0) ? '-0' : String(value);
}

/** `[1,2]` with every bit of the f32 values kept. */
export function encodeFloats(values: Float32Array): string {
  return `[${Array.from(values, decimal).join(',')}]`;
}
