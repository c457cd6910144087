import { readdirSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { InputError } from '../../errors.js';
import { readTorchTensor } from '../../formats/torch-tensor.js';
import { widenToF32 } from '../../kernels/dtypes.js';
import { assembleVectors, type ReadVectorOptions, type VectorFormat } from './format.js';

const CAA_NAME = /^vec_layer_(\d{1,4})_(.+)\.pt$/;

/** Whether a directory holds CAA's files of a vector, one a layer. */
export function isCaaDirectory(path: string): boolean {
  return (
    statSync(path, { throwIfNoEntry: false })?.isDirectory() === true &&
    readdirSync(path).some((name) => CAA_NAME.test(name))
  );
}

function readOne(path: string): Float32Array {
  const { dtype, shape, bytes } = readTorchTensor(path);
  const extents = shape.filter((extent) => extent !== 1);
  if (extents.length > 1) {
    throw new InputError(`${path}: a tensor of shape [${shape.join(', ')}]; a vector of one layer has one axis`);
  }
  const values = new Float32Array(shape.reduce((product, extent) => product * extent, 1));
  widenToF32(bytes, dtype, values);
  return values;
}

/** The block of a file by its name or as asked, and the model by its name. */
function placeOf(path: string, layer: number | undefined): { block: number; model?: string } {
  const match = CAA_NAME.exec(basename(path));
  if (match) return { block: layer ?? Number(match[1]), model: match[2] };
  if (layer !== undefined) return { block: layer };
  throw new InputError(`${path}: its name is not vec_layer_N_MODEL.pt, so its block is not known: give it by --layer`);
}

/** `vec_layer_{l}_{model}.pt`: a tensor [hidden] of 0-based block l, added at its output; a directory holds several. */
export const CAA_VECTORS: VectorFormat = {
  name: 'caa',
  extensions: ['.pt', '.pth'],

  read(path, options: ReadVectorOptions) {
    const several = isCaaDirectory(path);
    if (several && options.layer !== undefined) {
      throw new InputError(`${path}: the names of its files say their layers; --layer is for a single file`);
    }
    const files = several
      ? readdirSync(path)
          .filter((name) => CAA_NAME.test(name))
          .sort()
          .map((name) => join(path, name))
      : [path];
    const places = files.map((file) => placeOf(file, options.layer));
    const models = [...new Set(places.flatMap(({ model }) => (model === undefined ? [] : [model])))];
    if (models.length > 1) {
      throw new InputError(`${path}: holds vectors of several models (${models.join(', ')}): name the files of one`);
    }
    const stored = files.map((file, i): [number, Float32Array] => [places[i].block, readOne(file)]);
    if (new Set(stored.map(([block]) => block)).size < stored.length) {
      throw new InputError(`${path}: two files are of one layer`);
    }
    const assumptions = [
      'layers counted from 0, each added at the output of its block',
      'length taken as stored',
      ...(models.length === 1 ? [`made for ${models[0]}, says the file's name; its architecture is not known`] : []),
    ];
    const origin = models.length === 1 ? { method: 'mean-difference' } : {};
    return assembleVectors(path, stored, { origin, assumptions }, options.shift);
  },
};
