import path from 'node:path';
import { InputError } from '../errors.js';
import type { AtomicOptions } from '../formats/atomic.js';
import { hashWindows } from '../models/calibration-windows.js';
import type { ModelDescription } from '../models/description.js';
import type { EngineHost } from '../models/engine-host.js';
import { type LinearInput, linearInputs, weightsReading } from '../models/linear-inputs.js';
import type { ModelFiles } from '../models/model-files.js';
import {
  BLOCK_ROWS,
  CALIBRATION_PASS,
  END_CALIBRATION,
  EXPERT_BLOCK_ROWS,
  type PanelRequest,
  START_CALIBRATION,
} from './calibration-job.js';
import { createHessianWriter, type HessianWriter } from './hessian-file.js';
import { panelBytes, panelsOf } from './second-moments.js';

export interface CalibrationOptions {
  /** Token ids, see `calibrationWindows`. */
  readonly windows: readonly Int32Array[];
  /** Tokens of a window, for the header; the longest window when absent. */
  readonly windowTokens?: number;
  /** The file of Hessians to write. */
  readonly path: string;
  readonly write?: AtomicOptions;
  /** See `hashModel`. */
  readonly modelSha256: string;
  /** Memory of Hessians and residual streams in the engine's thread, beside what the engine's plan takes. */
  readonly memoryBytes: number;
  readonly precision: 'f32' | 'f64';
  /** Type of the stored triangles; default F32, which a damped Hessian does not feel. */
  readonly stored?: 'F32' | 'F64';
  /** Inputs that are wanted; all when absent. */
  readonly include?: (input: LinearInput) => boolean;
  /** Called with the work that is done and all of it, in tokens times passes. */
  readonly progress?: (done: number, all: number) => void;
}

/** What a calibration did. */
export interface CalibrationSummary {
  readonly tokens: number;
  readonly windows: number;
  /** Passes over the text in all, one a layer at least; more where `memoryBytes` does not hold a layer's Hessians. */
  readonly passes: number;
  readonly inputs: readonly { readonly name: string; readonly columns: number; readonly tokens: number }[];
  /** Inputs (of experts) that no token reached: their Hessians are zero. */
  readonly unreached: readonly string[];
}

/** Passes over one layer: which panels each of them sums. */
interface LayerPlan {
  readonly layer: number;
  readonly passes: readonly (readonly PanelRequest[])[];
}

interface MemoryRequest {
  readonly memoryBytes: number;
  /** Bytes of an activation. */
  readonly width: number;
  readonly stored: 'F32' | 'F64';
}

/** Bytes of the rows of an input that wait to be multiplied. */
function blockBytes(input: LinearInput, width: number): number {
  return input.columns * (input.expert === undefined ? BLOCK_ROWS : EXPERT_BLOCK_ROWS) * width;
}

/** Fills passes with panels in the order of the model until their memory is full; a pass has one panel at least. */
function planLayer(layer: number, inputs: readonly LinearInput[], memory: MemoryRequest): LayerPlan {
  const { memoryBytes, width, stored } = memory;
  const passes: PanelRequest[][] = [[]];
  let used = 0;
  for (const input of inputs) {
    for (const panel of panelsOf(input.columns)) {
      let pass = passes[passes.length - 1];
      const request = pass.find((other) => other.input === input);
      const needed = panelBytes(panel, stored) + (request ? 0 : blockBytes(input, width));
      if (pass.length > 0 && used + needed > memoryBytes) {
        pass = [{ input, panels: [panel] }];
        passes.push(pass);
        used = panelBytes(panel, stored) + blockBytes(input, width);
        continue;
      }
      if (request) pass[pass.indexOf(request)] = { input, panels: [...request.panels, panel] };
      else pass.push({ input, panels: [panel] });
      used += needed;
    }
  }
  return { layer, passes };
}

/** Share of the memory that residual streams may take before they go to a file. */
const STREAM_SHARE = 0.25;

function planModel(model: ModelDescription, inputs: readonly LinearInput[], memory: MemoryRequest): LayerPlan[] {
  const last = Math.max(-1, ...inputs.map((input) => input.layer));
  return Array.from({ length: Math.min(last, model.layers.length) + 1 }, (_, layer) => {
    const own = inputs.filter((input) => input.layer === layer);
    return planLayer(layer, own, { ...memory, memoryBytes: (1 - STREAM_SHARE) * memory.memoryBytes });
  });
}

/**
 * Memory that calibration asks for beside the engine (`EngineOptions.reserveBytes`, and then `memoryBytes` here): enough
 * for all Hessians of the largest layer and the residual streams, but no more than half of the limit; with less, layers
 * are passed several times.
 */
export function calibrationReserve(
  model: ModelDescription,
  request: { readonly tokens: number; readonly maxMemoryBytes: number; readonly precision: 'f32' | 'f64' },
): number {
  const width = request.precision === 'f32' ? 4 : 8;
  const byLayer = new Map<number, number>();
  for (const input of linearInputs(model)) {
    const bytes = panelsOf(input.columns).reduce(
      (sum, panel) => sum + panelBytes(panel, 'F32'),
      blockBytes(input, width),
    );
    byLayer.set(input.layer, (byLayer.get(input.layer) ?? 0) + bytes);
  }
  const hessians = Math.max(...byLayer.values()) / (1 - STREAM_SHARE);
  const streams = (request.tokens * model.hiddenSize * width) / STREAM_SHARE;
  return Math.ceil(Math.min(Math.max(hessians, streams), request.maxMemoryBytes / 2));
}

/**
 * Runs windows through the model, layer by layer, and writes the Hessian `H = (2 / N) sum x x^T` of the input of every
 * linear (Frantar et al. 2023, GPTQ, equation 2, here per token): one for q, k and v, one for gate and up, one for every
 * expert over the N tokens that chose it. Memory is that of one layer's Hessians, or of `memoryBytes`, whichever is
 * less; the figures are the same bits for any memory, number of threads and batch.
 *
 * @throws InputError for an ONNX export, windows that are empty or longer than the model's positions, and activations
 * that are not finite
 */
export async function calibrate(
  host: EngineHost,
  files: ModelFiles,
  options: CalibrationOptions,
): Promise<CalibrationSummary> {
  const { windows, memoryBytes, precision, stored = 'F32' } = options;
  const model = files.description;
  const tokens = windows.reduce((sum, window) => sum + window.length, 0);
  if (tokens === 0) throw new InputError('calibration without tokens: give --data with text, and --calib-tokens');
  const inputs = linearInputs(model).filter(options.include ?? (() => true));
  const plans = planModel(model, inputs, { memoryBytes, stored, width: precision === 'f32' ? 4 : 8 });
  const passes = plans.reduce((sum, plan) => sum + plan.passes.length, 0);
  let done = 0;
  const step = (value: unknown): void => {
    done += Number(value);
    options.progress?.(done, passes * tokens);
  };

  const writer = createHessianWriter(
    options.path,
    {
      modelType: model.modelType,
      modelSha256: options.modelSha256,
      tokens,
      windowTokens: options.windowTokens ?? Math.max(...windows.map((window) => window.length)),
      textSha256: hashWindows(windows),
      precision,
      stored,
      inputs: inputs.map((input) => ({
        name: input.name,
        columns: input.columns,
        weights: weightsReading(model, input, files.weights),
      })),
    },
    options.write,
  );
  try {
    const scratchDirectory = path.dirname(path.resolve(options.path));
    await host.run(START_CALIBRATION, { windows, streamBytes: STREAM_SHARE * memoryBytes, scratchDirectory });
    const reached = new Map<string, number>();
    for (const plan of plans) {
      const finish = createInputFinisher(writer, reached);
      for (const [p, requests] of plan.passes.entries()) {
        const last = p === plan.passes.length - 1;
        const { results } = await host.run(CALIBRATION_PASS, { layer: plan.layer, requests, stored, last }, step);
        results.forEach((result, r) => {
          finish(requests[r].input, result);
        });
      }
    }
    await host.run(END_CALIBRATION, undefined);
    writer.commit();
    const summary = inputs.map(({ name, columns }) => ({ name, columns, tokens: reached.get(name) ?? 0 }));
    const unreached = summary.filter((input) => input.tokens === 0).map((input) => input.name);
    return { tokens, windows: windows.length, passes, inputs: summary, unreached };
  } catch (error) {
    writer.abort();
    await host.run(END_CALIBRATION, undefined).catch(() => undefined);
    throw error;
  }
}

/** Writes panels as they come, and what belongs to an input after its last panel. */
function createInputFinisher(writer: HessianWriter, reached: Map<string, number>) {
  const squares = new Map<string, Float64Array>();
  const filled = new Map<string, number>();
  return (
    input: LinearInput,
    result: {
      readonly tokens: number;
      readonly panels: readonly { packed: Float32Array | Float64Array; squares: Float64Array }[];
    },
  ): void => {
    const { name, columns } = input;
    const all = squares.get(name) ?? new Float64Array(columns);
    squares.set(name, all);
    let at = filled.get(name) ?? 0;
    for (const panel of result.panels) {
      writer.writeRows(name, panel.packed);
      all.set(panel.squares, at);
      at += panel.squares.length;
    }
    filled.set(name, at);
    if (at < columns) return;
    writer.finishInput(name, result.tokens, all);
    reached.set(name, result.tokens);
  };
}
