import { dirname, isAbsolute, join, normalize } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { InputError } from '../errors.js';
import { openRange } from './files.js';
import {
  type GraphProto,
  type ModelProto,
  type TensorProto,
  TensorProto_DataLocation,
  TensorProtoSchema,
} from './onnx_pb.js';

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
 * Brings the external data of a model's initializers into memory; other tensors are kept as they are.
 * @throws InputError when a file is missing or shorter than a tensor says
 */
export function loadExternalData(model: ModelProto, path: string): void {
  const graph = model.graph;
  if (!graph || externalLocations(model, path).length === 0) return;
  graph.initializer = graph.initializer.map((tensor) => {
    if (tensor.dataLocation !== TensorProto_DataLocation.EXTERNAL) return tensor;
    const entry = (key: string): string | undefined => tensor.externalData.find((item) => item.key === key)?.value;
    const file = openRange(join(dirname(path), normalize(entry('location') ?? '')));
    try {
      const offset = Number(entry('offset') ?? 0);
      const length = Number(entry('length') ?? file.size - offset);
      if (!(offset >= 0 && length >= 0 && offset + length <= file.size)) {
        throw new InputError(`${path}: tensor ${tensor.name}: its data reach past the end of ${entry('location')}`);
      }
      const rawData = new Uint8Array(length);
      file.readInto(offset, length, rawData);
      const dims = tensor.dims;
      return create(TensorProtoSchema, { name: tensor.name, dataType: tensor.dataType, dims, rawData });
    } finally {
      file.close();
    }
  });
}
