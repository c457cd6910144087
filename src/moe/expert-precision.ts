import type { Floats } from '../models/layer-runner.js';
import type { ExpertMatrices } from './types.js';

/** Numbers in the arithmetic of the engine, as they are where they fit. */
export function inFloats(values: Floats, precision: 'f32' | 'f64'): Floats {
  if (precision === 'f32') return values instanceof Float32Array ? values : Float32Array.from(values);
  return values instanceof Float64Array ? values : Float64Array.from(values);
}

/** The matrices of an expert in the arithmetic of the engine, so that they run on its activations; as they are where they fit. */
export function inPrecision(expert: ExpertMatrices, precision: 'f32' | 'f64'): ExpertMatrices {
  const convert = (matrix: Floats): Floats => inFloats(matrix, precision);
  const { gate, up, down } = expert;
  return { ...(gate && { gate: convert(gate) }), up: convert(up), down: convert(down) };
}
