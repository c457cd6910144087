import { InputError } from '../errors.js';
import type { Engine } from '../models/engine.js';
import type { JobReference } from '../models/engine-host.js';
import type { LanguageModel } from '../models/language-model.js';
import type { LayerTap } from '../models/layer-parts.js';
import type { Floats, TapEvent } from '../models/layer-runner.js';
import { engineOf, type LayerStreamOptions, type LayerStreams, openLayerStreams } from '../models/layer-streams.js';
import type { LinearInput } from '../models/linear-inputs.js';
import { createMomentSums, type FinishedPanel, type MomentSums, type Panel } from './second-moments.js';

/** Rows that are multiplied at once; an expert has a buffer of its own, so its blocks are smaller. */
export const BLOCK_ROWS = 512;
export const EXPERT_BLOCK_ROWS = 256;
/** Streams of a run of calibration, which lie with the engine between the passes. */
const streams = new WeakMap<Engine, LayerStreams>();

export interface StartArguments extends LayerStreamOptions {
  readonly windows: readonly Int32Array[];
}

/** Some panels of the Hessian of one input. */
export interface PanelRequest {
  readonly input: LinearInput;
  readonly panels: readonly Panel[];
}

export interface PassArguments {
  /** 0-based layer; the number of layers stands for the LM head. */
  readonly layer: number;
  readonly requests: readonly PanelRequest[];
  readonly stored: 'F32' | 'F64';
  /** The streams go on to the next layer: the last pass over this one. */
  readonly last: boolean;
}

export interface PassResult {
  /** By request: rows that reached the input, and its panels. */
  readonly results: readonly { readonly tokens: number; readonly panels: readonly FinishedPanel[] }[];
}

function streamsOf(engine: Engine): LayerStreams {
  const found = streams.get(engine);
  if (!found) throw new RangeError('a pass of calibration before its start');
  return found;
}

/**
 * Embeds the windows. Their residual streams stay with the engine until `endCalibration`.
 * @throws InputError for an ONNX export, and for tokens outside of the vocabulary
 */
export async function startCalibration(model: LanguageModel, args: StartArguments): Promise<void> {
  const engine = engineOf(model);
  streams.get(engine)?.close();
  streams.set(engine, await openLayerStreams(engine, args.windows, args));
}

/** Forgets the streams. */
export async function endCalibration(model: LanguageModel): Promise<void> {
  const engine = engineOf(model);
  streams.get(engine)?.close();
  streams.delete(engine);
}

/**
 * Runs all windows through one layer and sums the second moments that are asked for.
 * @throws InputError when an activation is not finite
 */
export async function calibrationPass(
  model: LanguageModel,
  args: PassArguments,
  progress: (tokens: unknown) => void,
): Promise<PassResult> {
  const engine = engineOf(model);
  const { layer, requests } = args;
  const { layers } = engine.model;
  const sums = requests.map(({ input, panels }) =>
    createMomentSums(input.columns, panels, {
      blockRows: input.expert === undefined ? BLOCK_ROWS : EXPERT_BLOCK_ROWS,
      precision: engine.precision,
      threads: engine.threads,
    }),
  );
  const taps = [...new Set(requests.flatMap(({ input }) => input.tap ?? []))];
  if (layer === layers.length) {
    await streamsOf(engine).visitHeadInput((rows, tokens) => {
      for (const sum of sums) sum.add(rows, tokens);
      progress(tokens);
    });
  } else {
    const onTap = (event: TapEvent): void => collect(event, taps, requests, sums);
    await streamsOf(engine).pass({ layer, taps, last: args.last, onTap, progress });
  }
  const results = sums.map((sum) => ({ tokens: sum.rows, panels: sum.finish(args.stored) }));
  results.forEach(({ panels }, r) => {
    for (const [p, { squares }] of panels.entries()) {
      const bad = squares.findIndex((value) => !Number.isFinite(value));
      if (bad < 0) continue;
      const { input, panels: asked } = requests[r];
      throw new InputError(
        `calibration: column ${asked[p].from + bad} of ${input.name} is not finite (its squares sum to ${squares[bad]}); ` +
          'look at the weights, or try --precision f64',
      );
    }
  });
  return { results };
}

/** Hands the rows of an event to the sums that want them. */
function collect(
  event: TapEvent,
  taps: readonly LayerTap[],
  requests: readonly PanelRequest[],
  sums: readonly MomentSums[],
): void {
  const starts = event.experts && firstRows(event.experts.counts);
  for (const tap of taps) {
    const data = event.taps.get(tap);
    if (!data) continue;
    requests.forEach(({ input }, r) => {
      if (input.tap !== tap) return;
      const [from, count] =
        input.expert === undefined || !event.experts || !starts
          ? [0, data.length / input.columns]
          : [starts[input.expert], event.experts.counts[input.expert]];
      if (count > 0) sums[r].add(rowsOf(data, from, count, input.columns), count);
    });
  }
}

function rowsOf(data: Floats, from: number, count: number, columns: number): Floats {
  return data.subarray(from * columns, (from + count) * columns);
}

/** First row of every expert. */
function firstRows(counts: Int32Array): Int32Array {
  const starts = new Int32Array(counts.length);
  for (let expert = 1; expert < counts.length; expert++) starts[expert] = starts[expert - 1] + counts[expert - 1];
  return starts;
}

const module = import.meta.url;
export const START_CALIBRATION: JobReference<StartArguments, void> = { module, job: startCalibration };
export const CALIBRATION_PASS: JobReference<PassArguments, PassResult> = { module, job: calibrationPass };
export const END_CALIBRATION: JobReference<undefined, void> = { module, job: endCalibration };
