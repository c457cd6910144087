import { InputError } from '../errors.js';
import type { Engine } from '../models/engine.js';
import type { JobReference } from '../models/engine-host.js';
import type { LanguageModel } from '../models/language-model.js';
import type { LayerTap } from '../models/layer-parts.js';
import type { Floats, TapEvent } from '../models/layer-runner.js';
import type { LinearInput } from '../models/linear-inputs.js';
import { createMomentSums, type FinishedPanel, type MomentSums, type Panel } from './second-moments.js';
import { createStreamStore, type StreamStore } from './stream-store.js';

/** Rows that are multiplied at once; an expert has a buffer of its own, so its blocks are smaller. */
export const BLOCK_ROWS = 512;
export const EXPERT_BLOCK_ROWS = 256;
/** Tokens whose residual streams go through a layer together. */
const BATCH_TOKENS = 4096;

/** What a run of calibration keeps between the passes: the residual streams of all tokens. */
interface CalibrationState {
  readonly windows: readonly Int32Array[];
  readonly streams: StreamStore;
}

const states = new WeakMap<Engine, CalibrationState>();

export interface StartArguments {
  readonly windows: readonly Int32Array[];
  /** Residual streams over this many bytes lie in a file of `scratchDirectory`. */
  readonly streamBytes: number;
  readonly scratchDirectory: string;
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

/** Consecutive windows that go through a layer together. */
function* batches(
  windows: readonly Int32Array[],
): Generator<{ windows: readonly Int32Array[]; from: number; tokens: number }> {
  let from = 0;
  for (let first = 0; first < windows.length; ) {
    let last = first + 1;
    let tokens = windows[first].length;
    while (last < windows.length && tokens + windows[last].length <= BATCH_TOKENS) tokens += windows[last++].length;
    yield { windows: windows.slice(first, last), from, tokens };
    from += tokens;
    first = last;
  }
}

function engineOf({ engine, info }: LanguageModel): Engine {
  if (engine) return engine;
  throw new InputError(`${info.path}: activations are not reachable in an ONNX export; pass the model itself`);
}

function stateOf(engine: Engine): CalibrationState {
  const state = states.get(engine);
  if (!state) throw new RangeError('a pass of calibration before its start');
  return state;
}

/**
 * Embeds the windows. Their residual streams stay with the engine until `endCalibration`.
 * @throws InputError for an ONNX export, and for tokens outside of the vocabulary
 */
export async function startCalibration(model: LanguageModel, args: StartArguments): Promise<void> {
  const engine = engineOf(model);
  states.get(engine)?.streams.close();
  const { windows } = args;
  const tokens = windows.reduce((sum, window) => sum + window.length, 0);
  const hidden = engine.model.hiddenSize;
  const streams = createStreamStore(tokens * hidden, { ...args, precision: engine.precision });
  states.set(engine, { windows, streams });
  for (const batch of batches(windows)) {
    const buffer = streams.buffer(batch.tokens * hidden);
    await engine.forward({ windows: batch.windows, streams: buffer, layers: [0, 0] });
    streams.write(batch.from * hidden, buffer);
  }
}

/** Forgets the streams. */
export async function endCalibration(model: LanguageModel): Promise<void> {
  const engine = engineOf(model);
  states.get(engine)?.streams.close();
  states.delete(engine);
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
  const { windows, streams } = stateOf(engine);
  const { layer, requests } = args;
  const { hiddenSize, layers } = engine.model;
  const sums = requests.map(({ input, panels }) =>
    createMomentSums(input.columns, panels, {
      blockRows: input.expert === undefined ? BLOCK_ROWS : EXPERT_BLOCK_ROWS,
      precision: engine.precision,
      threads: engine.threads,
    }),
  );
  const taps = [...new Set(requests.flatMap(({ input }) => input.tap ?? []))];
  for (const batch of batches(windows)) {
    const buffer = streams.read(batch.from * hiddenSize, batch.tokens * hiddenSize);
    if (layer === layers.length) {
      await engine.normalize(buffer);
      for (const sum of sums) sum.add(buffer, batch.tokens);
    } else {
      const onTap = (event: TapEvent): void => collect(event, taps, requests, sums);
      const range = [layer, layer + 1] as const;
      await engine.forward({ windows: batch.windows, streams: buffer, continues: true, layers: range, taps, onTap });
      if (args.last) streams.write(batch.from * hiddenSize, buffer);
    }
    progress(batch.tokens);
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
