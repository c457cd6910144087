import { constants, copyFileSync, existsSync, linkSync, realpathSync, statSync } from 'node:fs';
import { dirname, isAbsolute, join, normalize } from 'node:path';
import { InputError, RunError } from '../errors.js';
import { createAtomicFile } from './atomic.js';
import { type GraphProto, type ModelProto, type TensorProto, TensorProto_DataLocation } from './onnx_pb.js';

/** How files of weights come to a graph that is written into another directory. */
export type CarryMode = 'copy' | 'link' | 'leave';
export const CARRY_MODES: readonly CarryMode[] = ['copy', 'link', 'leave'];

/** Files of external weights by their location, relative to the graph. @throws InputError for a path outside its directory */
export function externalLocations(model: ModelProto, where: string): string[] {
  const found = new Set<string>();
  const add = (tensor: TensorProto): void => {
    if (tensor.dataLocation !== TensorProto_DataLocation.EXTERNAL) return;
    const location = tensor.externalData.find(({ key }) => key === 'location')?.value;
    if (location === undefined)
      throw new InputError(`${where}: tensor ${tensor.name}: external data without a location`);
    const plain = normalize(location);
    if (isAbsolute(plain) || plain === '..' || plain.startsWith('../')) {
      throw new InputError(
        `${where}: tensor ${tensor.name}: its data lies outside the directory of the graph: ${location}`,
      );
    }
    found.add(plain);
  };
  const visit = (graph: GraphProto): void => {
    for (const tensor of graph.initializer) add(tensor);
    for (const { attribute } of graph.node) {
      for (const { t, tensors, g, graphs } of attribute) {
        if (t) add(t);
        for (const tensor of tensors) add(tensor);
        for (const inner of g ? [g, ...graphs] : graphs) visit(inner);
      }
    }
  };
  if (model.graph) visit(model.graph);
  return [...found];
}

/**
 * Brings the weights of the graph `source` beside the graph `target`. Nothing is done where both lie in one directory. A
 * copy shares its blocks with the original on file systems that can. Files of the same size that are there are kept.
 * @returns the files that were made
 * @throws InputError when a file is missing, or beyond the directory itself; RunError when it cannot be made
 */
export function carryExternalData(
  locations: readonly string[],
  source: string,
  target: string,
  mode: CarryMode,
): string[] {
  const from = dirname(source);
  const to = dirname(target);
  if (mode === 'leave' || realpathSync(from) === realpathSync(to)) return [];
  const made: string[] = [];
  for (const location of locations) {
    const original = join(from, location);
    if (!existsSync(original)) throw new InputError(`${original}: the weights of ${source} are missing`);
    const place = join(to, location);
    if (existsSync(place)) {
      if (statSync(place).size === statSync(original).size) continue;
      throw new InputError(
        `${place}: is there and is not the weights of ${source}; write the graph to another directory`,
      );
    }
    if (!existsSync(dirname(place))) {
      throw new InputError(`${place}: its directory does not exist; make it first`);
    }
    carry(original, place, mode);
    made.push(place);
  }
  return made;
}

function carry(original: string, place: string, mode: CarryMode): void {
  try {
    if (mode === 'link') {
      linkSync(realpathSync(original), place);
      return;
    }
    const file = createAtomicFile(place);
    copyFileSync(original, file.partialPath, constants.COPYFILE_FICLONE);
    file.commit();
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code ?? (error as Error).message;
    throw new RunError(`${place}: the weights could not be brought there (${reason}); choose another --external-data`);
  }
}
