import type { RowStatistics } from '../kernels/row-statistics.js';
import { createEngine, type Engine, type EngineOptions } from './engine.js';
import { gatherRows } from './gather-rows.js';
import type { StatisticsRequest } from './head-runner.js';
import type { Floats } from './layer-runner.js';
import type { MemoryPlan } from './memory-plan.js';
import { type ModelFiles, openModelFiles } from './model-files.js';
import { openOnnxModel } from './onnx-model.js';
import { replaceWeights } from './replaced-weights.js';

/** Positions from..to-1 of a window; the model's prediction at position p is for token p + 1. */
export type PositionRange = readonly [from: number, to: number];

/** What can be said of a model before it runs. */
export interface ModelInfo {
  readonly path: string;
  readonly format: 'huggingface' | 'gguf' | 'onnx';
  readonly modelType: string;
  readonly vocabularySize: number;
  readonly maxPositions: number | null;
  readonly layers: number | null;
  readonly hiddenSize: number | null;
  readonly heads: number | null;
  readonly windows: readonly (number | null)[];
  readonly bosId: number | null;
  readonly eosIds: readonly number[];
  /** Tokens that a caller should hand over at once. */
  readonly rowsPerBatch: number;
  /** Where the weights stay: in memory, read layer by layer, or with the runtime. */
  readonly residence: 'resident' | 'head streamed' | 'layers streamed' | 'runtime';
  /** Estimated peak resident memory. */
  readonly peakBytes: number | null;
}

/** A language model of any format. `engine` is there when its layers can be reached. */
export interface LanguageModel {
  readonly info: ModelInfo;
  readonly engine?: Engine;
  /** Next-token statistics at the wanted positions of each window; rows in the order of the windows. */
  statistics(
    windows: readonly Int32Array[],
    wanted: readonly PositionRange[],
    targets: Int32Array,
    request: StatisticsRequest,
  ): Promise<RowStatistics>;
  /** Logits [rows, vocabulary] at the wanted positions. The caller bounds the number of rows. */
  logits(windows: readonly Int32Array[], wanted: readonly PositionRange[]): Promise<Floats>;
  close(): Promise<void>;
}

function residenceOf(plan: MemoryPlan): ModelInfo['residence'] {
  if (!plan.layersResident) return 'layers streamed';
  return plan.headResident ? 'resident' : 'head streamed';
}

/**
 * Opens a model directory, a GGUF file or an ONNX file.
 * @throws InputError naming what is wrong with the files, or the memory that is needed.
 */
export async function openLanguageModel(path: string, options: EngineOptions): Promise<LanguageModel> {
  if (path.toLowerCase().endsWith('.onnx')) return openOnnxModel(path, options);
  const stored = openModelFiles(path, options.threads);
  const files = options.replacements === undefined ? stored : replaceWeights(stored, options.replacements);
  return modelOfEngine(files, await createEngine(files, options));
}

/** A language model over an engine and its files, which it closes. */
export function modelOfEngine(files: ModelFiles, engine: Engine): LanguageModel {
  const { description: model } = files;

  // Batches reuse these: fresh buffers of this size would wait for the garbage collector, beyond the memory limit.
  const buffers = new Map<string, Floats>();
  const bufferOf = (name: string, rows: number): Floats => {
    const length = rows * model.hiddenSize;
    let buffer = buffers.get(name);
    if (!buffer || buffer.length < length) {
      buffer = engine.precision === 'f32' ? new Float32Array(length) : new Float64Array(length);
      buffers.set(name, buffer);
    }
    return buffer;
  };

  const rowsAt = async (windows: readonly Int32Array[], wanted: readonly PositionRange[]): Promise<Floats> => {
    const tokens = windows.reduce((sum, window) => sum + window.length, 0);
    const scored = wanted.reduce((sum, [from, to]) => sum + to - from, 0);
    const groups = await engine.forward({ windows, streams: bufferOf('streams', tokens) });
    const rows = gatherRows(groups, model.hiddenSize, wanted, bufferOf('rows', scored));
    await engine.normalize(rows);
    return rows;
  };

  return {
    engine,
    info: {
      path: files.path,
      format: files.format,
      modelType: model.modelType,
      vocabularySize: model.vocabularySize,
      maxPositions: model.maxPositions,
      layers: model.layers.length,
      hiddenSize: model.hiddenSize,
      heads: model.layers[0].attention.heads,
      windows: model.layers.map((layer) => layer.attention.window ?? null),
      bosId: model.bosId ?? null,
      eosIds: model.eosIds,
      rowsPerBatch: engine.plan.rowsPerBatch,
      residence: residenceOf(engine.plan),
      peakBytes: engine.plan.peakBytes,
    },
    async statistics(windows, wanted, targets, request) {
      return engine.statistics(await rowsAt(windows, wanted), targets, request);
    },
    async logits(windows, wanted) {
      return engine.logits(await rowsAt(windows, wanted));
    },
    async close() {
      await engine.close();
      files.store.close();
    },
  };
}
