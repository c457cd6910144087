import type { Tensor } from 'onnxruntime-node';
import type { ModelDescription } from './description.js';
import type { Floats } from './layer-runner.js';
import { type RopeFrequencies, ropeFrequencies, ropeTables } from './rope.js';
import { tensorOf } from './sessions.js';

/** Tables of rotary embeddings for rows of positions, kept from run to run. */
export interface RopeFeeds {
  /**
   * cos and sin [batch, count, dims / 2] of rope `rope`: window b has the positions starts[b] and the `count` - 1 after it.
   * @param length tokens of the whole sequences, on which some ropes depend
   */
  feeds(rope: number, starts: ArrayLike<number>, count: number, length: number): [Tensor, Tensor];
  /** The same for single positions, [1, positions, dims / 2]. */
  rows(rope: number, positions: Int32Array, length: number): [Tensor, Tensor];
}

interface RopeTables {
  readonly cos: Floats;
  readonly sin: Floats;
}

/** Whether frequencies of a rope depend on the length of the sequence. */
export function dependsOnLength(model: ModelDescription, rope: number): boolean {
  const { type } = model.ropes[rope];
  return type === 'dynamic' || type === 'longrope';
}

export function createRopeFeeds(model: ModelDescription, precision: 'f32' | 'f64'): RopeFeeds {
  const frequencyCache = new Map<number, { length: number; frequencies: RopeFrequencies }>();
  const tableCache = new WeakMap<RopeFrequencies, RopeTables>();
  const scratchBuffers = new Map<string, Floats>();
  const make = (length: number): Floats => (precision === 'f32' ? new Float32Array(length) : new Float64Array(length));

  /** A buffer that is used anew by every run. */
  const scratch = (name: string, length: number): Floats => {
    let buffer = scratchBuffers.get(name);
    if (!buffer || buffer.length < length) {
      buffer = make(length);
      scratchBuffers.set(name, buffer);
    }
    return buffer.subarray(0, length);
  };

  const frequencies = (rope: number, length: number): RopeFrequencies => {
    // Where frequencies depend on the length, only those of the last length are kept.
    const asked = dependsOnLength(model, rope) ? length : 0;
    const kept = frequencyCache.get(rope);
    if (kept?.length === asked) return kept.frequencies;
    const made = ropeFrequencies(model.ropes[rope], length);
    frequencyCache.set(rope, { length: asked, frequencies: made });
    return made;
  };

  /** cos and sin of positions 0..count-1, grown as longer windows come. */
  const tablesFor = (rope: number, count: number): RopeTables => {
    const frequency = frequencies(rope, count);
    const half = model.ropes[rope].dims / 2;
    const found = tableCache.get(frequency);
    if (found && found.cos.length >= count * half) return found;
    const made = ropeTables(frequency, 0, Math.max(count, (2 * (found?.cos.length ?? 0)) / half), precision);
    tableCache.set(frequency, made);
    return made;
  };

  return {
    feeds(rope, starts, count, length) {
      const half = model.ropes[rope].dims / 2;
      const tables = tablesFor(rope, length);
      const dims = [starts.length, count, half];
      const laidOut = (table: Floats, name: string): Tensor => {
        const row = (start: number): Floats => table.subarray(start * half, (start + count) * half);
        if (starts.length === 1) return tensorOf(row(starts[0]), dims);
        const all = scratch(name, starts.length * count * half);
        for (let b = 0; b < starts.length; b++) all.set(row(starts[b]), b * count * half);
        return tensorOf(all, dims);
      };
      return [laidOut(tables.cos, 'cos'), laidOut(tables.sin, 'sin')];
    },

    rows(rope, positions, length) {
      const [cos, sin] = this.feeds(rope, positions, 1, length);
      const dims = [1, positions.length, model.ropes[rope].dims / 2];
      return [cos.reshape(dims), sin.reshape(dims)];
    },
  };
}
