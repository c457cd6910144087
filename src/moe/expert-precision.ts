import type { Floats } from '../models/layer-runner.js';
import type { ExpertMatrices } from './types.js';

/** The matrices of an expert in the arithmetic of the engine, so that they run on its activations; as they are where they fit. */
export function inPrecision(expert: ExpertMatrices, precision: 'f32' | 'f64'): ExpertMatrices {
  const convert = (matrix: Floats): Floats => {
    if (precision === 'f32') return matrix instanceof Float32Array ? matrix : Float32Array.from(matrix);
    return matrix instanceof Float64Array ? matrix : Float64Array.from(matrix);
  };
  const { gate, up, down } = expert;
  return { ...(gate && { gate: convert(gate) }), up: convert(up), down: convert(down) };
}
