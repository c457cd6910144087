import { InputError } from '../errors.js';
import type { Engine } from './engine.js';
import type { LanguageModel } from './language-model.js';
import type { LayerTap } from './layer-parts.js';
import type { Floats, TapEvent } from './layer-runner.js';
import { createStreamStore, type StreamStore } from './stream-store.js';

/** Tokens whose residual streams go through a layer together. */
const BATCH_TOKENS = 4096;

/** The residual streams of a text before one layer of a model, which go through the layers one at a time. */
export interface LayerStreams {
  readonly windows: readonly Int32Array[];
  readonly tokens: number;
  /**
   * Runs all windows through a layer and gives what its taps show, batch by batch in a fixed order. With `last` the
   * streams go on to the next layer; without, the layer can be run again.
   */
  pass(request: LayerPass): Promise<void>;
  /** Visits the normed residual streams after the last layer: what the LM head reads. Rows are reused. */
  visitHeadInput(visit: (rows: Floats, tokens: number) => void): Promise<void>;
  close(): void;
}

export interface LayerPass {
  readonly layer: number;
  readonly taps: readonly LayerTap[];
  readonly last: boolean;
  readonly onTap: (event: TapEvent) => void;
  /** Shown every weight of the layer as it is fed, before each batch; the data stay the engine's and must not be changed. */
  readonly onWeight?: (role: string, data: Floats) => void;
  /** Tokens that went through, batch by batch. */
  readonly progress?: (tokens: number) => void;
}

export interface LayerStreamOptions {
  /** Streams over this many bytes lie in a file of `scratchDirectory`. */
  readonly streamBytes: number;
  readonly scratchDirectory: string;
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

/** The engine of a model whose layers can be reached. @throws InputError for an ONNX export */
export function engineOf({ engine, info }: LanguageModel): Engine {
  if (engine) return engine;
  throw new InputError(`${info.path}: activations are not reachable in an ONNX export; pass the model itself`);
}

/**
 * Embeds the windows; memory holds the streams of all tokens once, or a file does.
 * @throws InputError for tokens outside of the vocabulary, or a scratch file that cannot be made
 */
export async function openLayerStreams(
  engine: Engine,
  windows: readonly Int32Array[],
  options: LayerStreamOptions,
): Promise<LayerStreams> {
  const tokens = windows.reduce((sum, window) => sum + window.length, 0);
  const hidden = engine.model.hiddenSize;
  const streams: StreamStore = createStreamStore(tokens * hidden, { ...options, precision: engine.precision });
  try {
    for (const batch of batches(windows)) {
      const buffer = streams.buffer(batch.tokens * hidden);
      await engine.forward({ windows: batch.windows, streams: buffer, layers: [0, 0] });
      streams.write(batch.from * hidden, buffer);
    }
  } catch (error) {
    streams.close();
    throw error;
  }
  return {
    windows,
    tokens,
    async pass({ layer, taps, last, onTap, onWeight, progress }) {
      const adjustWeights = (_: number, role: string, data: Floats): Floats => {
        onWeight?.(role, data);
        return data;
      };
      for (const batch of batches(windows)) {
        const buffer = streams.read(batch.from * hidden, batch.tokens * hidden);
        const layers = [layer, layer + 1] as const;
        const shown = onWeight && { adjustWeights };
        await engine.forward({
          windows: batch.windows,
          streams: buffer,
          continues: true,
          layers,
          taps,
          onTap,
          ...shown,
        });
        if (last) streams.write(batch.from * hidden, buffer);
        progress?.(batch.tokens);
      }
    },
    async visitHeadInput(visit) {
      for (const batch of batches(windows)) {
        const buffer = streams.read(batch.from * hidden, batch.tokens * hidden);
        await engine.normalize(buffer);
        visit(buffer, batch.tokens);
      }
    },
    close: () => streams.close(),
  };
}
