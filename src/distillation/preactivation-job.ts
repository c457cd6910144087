import { InputError } from '../errors.js';
import type { JobReference } from '../models/engine-host.js';
import type { LanguageModel, PositionRange } from '../models/language-model.js';
import { createRandom } from '../random.js';

export interface PreactivationArguments {
  readonly windows: readonly Int32Array[];
  readonly wanted: readonly PositionRange[];
  /** 0-based block. */
  readonly layer: number;
  /** Share of the entries that is kept, drawn evenly over positions and units. */
  readonly share: number;
  readonly seed: number;
  /** Number of the batch: a stream of its own. */
  readonly batch: number;
}

/**
 * Runs beside the engine: inputs of the activation of one block's feed-forward layer on the wanted positions.
 * @throws InputError when the block has experts, or the layers of the model cannot be reached
 */
export async function recordPreactivations(
  { engine, info }: LanguageModel,
  args: PreactivationArguments,
): Promise<Float32Array> {
  if (!engine) throw new InputError(`${info.path}: layers are not reachable in an ONNX export; pass the model itself`);
  const { mlp } = engine.model.layers[args.layer];
  if (mlp.kind !== 'dense') {
    throw new InputError(
      `block ${args.layer} of ${info.path} has experts; name a block with a dense feed-forward layer`,
    );
  }
  const { width } = mlp;
  const { share } = args;
  const random = createRandom(args.seed).fork(args.batch);
  const kept: number[] = [];
  const byWindow = new Map<number, (readonly [number, Float32Array])[]>();
  await engine.forward({
    windows: args.windows,
    layers: [0, args.layer + 1],
    taps: ['mlp_preactivation'],
    tapLayers: [args.layer],
    onTap({ group, from, count, taps }) {
      const rows = taps.get('mlp_preactivation');
      if (!rows) return;
      group.windows.forEach((window, b) => {
        const [first, end] = args.wanted[window];
        const start = Math.max(from, first);
        const stop = Math.min(from + count, end);
        if (start >= stop) return;
        const at = (b * count + start - from) * width;
        const part = Float32Array.from(rows.subarray(at, at + (stop - start) * width));
        byWindow.set(window, [...(byWindow.get(window) ?? []), [start, part]]);
      });
    },
  });
  // In the order of windows and positions, whatever the engine's order.
  for (const window of [...byWindow.keys()].sort((a, b) => a - b)) {
    for (const [, part] of (byWindow.get(window) ?? []).sort(([a], [b]) => a - b)) {
      for (const value of part) if (share === 1 || random.uniform() < share) kept.push(value);
    }
  }
  return Float32Array.from(kept);
}

export const RECORD_PREACTIVATIONS: JobReference<PreactivationArguments, Float32Array> = {
  module: import.meta.url,
  job: recordPreactivations,
};
