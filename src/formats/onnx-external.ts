import { isAbsolute, normalize } from 'node:path';
import { InputError } from '../errors.js';
import { type GraphProto, type ModelProto, type TensorProto, TensorProto_DataLocation } from './onnx_pb.js';

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
