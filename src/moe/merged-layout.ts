import { layOutShards, MAX_SHARD_BYTES, type ShardLayout } from '../formats/safetensors-shards.js';
import type { PlannedTensor } from '../formats/safetensors-writer.js';
import type { DType, TensorInfo } from '../formats/tensor.js';
import { type ExpertLayer, type ExpertModel, expertMapName, expertTensorNames } from './expert-model.js';
import type { MergedLayerPlan, MergedPlan } from './merged-config.js';

/** The files of a merged model before a byte of it is written. */
export interface MergedLayout extends Omit<ShardLayout, 'tensorBytes'> {
  /** Tensors whose bytes are the source's. */
  readonly passThrough: readonly TensorInfo[];
  /** Small tensors that are known now: the maps of a remapped router. */
  readonly maps: ReadonlyMap<string, Int32Array>;
  /** Bytes of all tensors of the source, and of the output. */
  readonly bytesBefore: number;
  readonly bytesAfter: number;
}

/** What becomes of the tensors that are not the same in the output. */
interface Changes {
  /** New shape by name; null for tensors that are left out. */
  readonly shapes: ReadonlyMap<string, readonly number[] | null>;
  /** Map that follows a router. */
  readonly maps: ReadonlyMap<string, Int32Array>;
}

function identityMap(rows: number): Int32Array {
  return Int32Array.from({ length: rows }, (_, i) => i);
}

/** Tensors of a layer that are written anew. */
function changedShapes(
  source: ExpertModel,
  layer: ExpertLayer,
  { experts, routerRows }: MergedLayerPlan,
  reduced: boolean,
): [string, readonly number[] | null][] {
  const shapeOf = (name: string): readonly number[] => source.store.tensors.get(name)?.shape ?? [];
  const names = expertTensorNames(layer.tensors, layer.experts);
  const kept = expertTensorNames(layer.tensors, experts);
  const routers = [layer.router, layer.routerBias, layer.correctionBias].filter((name) => name !== undefined);
  return [
    ...names.map((name): [string, readonly number[] | null] => {
      if (source.layout !== 'separate') return [name, [experts, ...shapeOf(name).slice(1)]];
      return [name, kept.includes(name) ? shapeOf(name) : null];
    }),
    ...(reduced
      ? routers.map((name): [string, readonly number[]] => [name, [routerRows, ...shapeOf(name).slice(1)]])
      : []),
  ];
}

function changesOf(source: ExpertModel, plan: MergedPlan): Changes {
  const shapes = new Map<string, readonly number[] | null>();
  const maps = new Map<string, Int32Array>();
  for (const [i, layerPlan] of plan.layers.entries()) {
    const layer = source.layers[i];
    for (const [name, shape] of changedShapes(source, layer, layerPlan, plan.form === 'reduced'))
      shapes.set(name, shape);
    if (plan.form === 'remap') maps.set(layer.router, layerPlan.map ?? identityMap(layer.routerRows));
  }
  return { shapes, maps };
}

/** Tensors as they lie in the source's files. */
function inFileOrder(source: ExpertModel): TensorInfo[] {
  return [...source.store.tensors.values()].sort((a, b) =>
    a.file === b.file ? a.offset - b.offset : a.file < b.file ? -1 : 1,
  );
}

/**
 * Lays the merged model out: tensors in the order of the source's files, cut into shards of at most `maxShardBytes`, every
 * position known. Stored experts have the names of the source's first ones.
 */
export function layOutMerged(
  source: ExpertModel,
  plan: MergedPlan,
  { maxShardBytes = MAX_SHARD_BYTES, dropsExtraLayers = false },
): MergedLayout {
  const { shapes, maps } = changesOf(source, plan);
  const planned: PlannedTensor[] = [];
  const passThrough: TensorInfo[] = [];
  const mapTensors = new Map<string, Int32Array>();
  let bytesBefore = 0;
  for (const info of inFileOrder(source)) {
    bytesBefore += info.byteLength;
    const changed = shapes.get(info.name);
    const left = changed === null || (dropsExtraLayers && source.extraLayers.some((at) => info.name.startsWith(at)));
    if (!left) planned.push({ name: info.name, dtype: info.dtype as DType, shape: changed ?? info.shape });
    if (!left && changed === undefined) passThrough.push(info);
    const map = maps.get(info.name);
    if (map !== undefined) {
      const name = expertMapName(info.name);
      planned.push({ name, dtype: 'I32', shape: [map.length] });
      mapTensors.set(name, map);
    }
  }
  const metadata = { ...source.store.metadata, format: source.store.metadata.format ?? 'pt' };
  const { files, shards, slots, tensorBytes } = layOutShards(planned, maxShardBytes, metadata);
  return { files, shards, slots, passThrough, maps: mapTensors, bytesBefore, bytesAfter: tensorBytes };
}
