import type { Engine } from '../models/engine.js';
import type { LayerTap } from '../models/layer-parts.js';
import type { TapEvent } from '../models/layer-runner.js';
import { type LayerStreamOptions, type LayerStreams, openLayerStreams } from '../models/layer-streams.js';

/** Runs a text through single layers of the model, in any order; ascending order costs no layer twice. */
export interface StreamCursor {
  readonly tokens: number;
  /** Runs all windows through a layer of the original model and gives what its taps show. */
  visit(layer: number, taps: readonly LayerTap[], onTap: (event: TapEvent) => void): Promise<void>;
  close(): void;
}

/** The text of a merge whose settings need one; the command has seen to it. */
export function present(cursor: StreamCursor | undefined): StreamCursor {
  if (cursor) return cursor;
  throw new RangeError('a merge that needs text has none');
}

/** @param windows token ids of the text */
export function createStreamCursor(
  engine: Engine,
  windows: readonly Int32Array[],
  options: LayerStreamOptions,
): StreamCursor {
  let streams: LayerStreams | undefined;
  let next = 0;
  return {
    tokens: windows.reduce((sum, window) => sum + window.length, 0),
    async visit(layer, taps, onTap) {
      if (streams === undefined || layer < next) {
        streams?.close();
        streams = await openLayerStreams(engine, windows, options);
        next = 0;
      }
      for (; next < layer; next++) await streams.pass({ layer: next, taps: [], last: true, onTap: () => undefined });
      await streams.pass({ layer, taps, last: false, onTap });
    },
    close() {
      streams?.close();
      streams = undefined;
    },
  };
}
