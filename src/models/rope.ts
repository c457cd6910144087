import type { RopeDescription } from './description.js';

/** Inverse frequencies per rotated pair, and the factor on cos and sin. */
export interface RopeFrequencies {
  readonly inverse: Float64Array;
  readonly attentionFactor: number;
}

/**
 * Inverse frequencies of a rotary embedding for sequences of `length` positions (only `dynamic` and `longrope` depend
 * on it). Types as transformers names them: default, linear, dynamic (NTK), llama3, yarn (Peng et al. 2023), longrope.
 */
export function ropeFrequencies(rope: RopeDescription, length: number): RopeFrequencies {
  const { theta, dims } = rope;
  const plain = (base: number): Float64Array =>
    Float64Array.from({ length: dims / 2 }, (_, i) => 1 / base ** ((2 * i) / dims));
  const factor = rope.factor ?? 1;
  switch (rope.type) {
    case 'default':
      return { inverse: divide(plain(theta), rope.frequencyFactors), attentionFactor: 1 };
    case 'linear':
      return { inverse: plain(theta).map((f) => f / factor), attentionFactor: 1 };
    case 'dynamic': {
      const reached = Math.max(length, rope.maxPositions);
      const base = theta * ((factor * reached) / rope.maxPositions - (factor - 1)) ** (dims / (dims - 2));
      return { inverse: plain(base), attentionFactor: 1 };
    }
    case 'llama3':
      return { inverse: plain(theta).map((f) => llama3(rope, f)), attentionFactor: 1 };
    case 'yarn':
      return yarn(rope, plain(theta));
    case 'longrope': {
      const original = rope.originalMaxPositions ?? rope.maxPositions;
      const scale = rope.factor ?? rope.maxPositions / original;
      const attentionFactor =
        rope.attentionFactor ?? (scale <= 1 ? 1 : Math.sqrt(1 + Math.log(scale) / Math.log(original)));
      const factors = length > original ? rope.longFactors : rope.shortFactors;
      return { inverse: divide(plain(theta), factors), attentionFactor };
    }
  }
}

function divide(frequencies: Float64Array, factors: readonly number[] | undefined): Float64Array {
  return factors ? frequencies.map((f, i) => f / factors[i]) : frequencies;
}

/** Llama 3's scaling: long wavelengths are divided, short ones kept, those between interpolated. */
function llama3(rope: RopeDescription, frequency: number): number {
  const factor = rope.factor ?? 8;
  const low = rope.lowFrequencyFactor ?? 1;
  const high = rope.highFrequencyFactor ?? 4;
  const original = rope.originalMaxPositions ?? 8192;
  const wavelength = (2 * Math.PI) / frequency;
  if (wavelength < original / high) return frequency;
  if (wavelength > original / low) return frequency / factor;
  const smooth = (original / wavelength - low) / (high - low);
  return ((1 - smooth) * frequency) / factor + smooth * frequency;
}

/** YaRN: a ramp over the dimensions between interpolated and original frequencies. */
function yarn(rope: RopeDescription, original: Float64Array): RopeFrequencies {
  const { dims, theta } = rope;
  const positions = rope.originalMaxPositions ?? rope.maxPositions;
  const factor = rope.factor ?? rope.maxPositions / positions;
  const dimensionOf = (rotations: number): number =>
    (dims * Math.log(positions / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
  let low = dimensionOf(rope.betaFast ?? 32);
  let high = dimensionOf(rope.betaSlow ?? 1);
  if (rope.truncate ?? true) {
    low = Math.floor(low);
    high = Math.ceil(high);
  }
  low = Math.max(low, 0);
  high = Math.min(high, dims - 1);
  if (low === high) high += 0.001;
  const inverse = original.map((f, i) => {
    const ramp = Math.min(1, Math.max(0, (i - low) / (high - low)));
    return (f / factor) * ramp + f * (1 - ramp);
  });
  const mscale = (m: number): number => (factor <= 1 ? 1 : 0.1 * m * Math.log(factor) + 1);
  const inferred = rope.mscale && rope.mscaleAllDims ? mscale(rope.mscale) / mscale(rope.mscaleAllDims) : mscale(1);
  return { inverse, attentionFactor: rope.attentionFactor ?? inferred };
}

/**
 * cos and sin [count, dims/2] of positions start..start+count-1.
 *
 * In single precision the angle is rounded as transformers rounds it (frequency and product in f32), so that long
 * contexts agree with it.
 */
export function ropeTables(
  frequencies: RopeFrequencies,
  start: number,
  count: number,
  precision: 'f32' | 'f64',
): { cos: Float32Array | Float64Array; sin: Float32Array | Float64Array } {
  const half = frequencies.inverse.length;
  const make = (): Float32Array | Float64Array =>
    precision === 'f32' ? new Float32Array(count * half) : new Float64Array(count * half);
  const cos = make();
  const sin = make();
  const single = precision === 'f32';
  const inverse = single ? frequencies.inverse.map(Math.fround) : frequencies.inverse;
  for (let p = 0; p < count; p++) {
    for (let i = 0; i < half; i++) {
      const exact = (start + p) * inverse[i];
      const angle = single ? Math.fround(exact) : exact;
      cos[p * half + i] = Math.cos(angle) * frequencies.attentionFactor;
      sin[p * half + i] = Math.sin(angle) * frequencies.attentionFactor;
    }
  }
  return { cos, sin };
}
