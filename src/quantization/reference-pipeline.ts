/**
 * The whole path of one matrix in f64: rotate, encode, decode, rotate back. What files hold goes through f32 where
 * weights are read and decoded; this does not, and is what the fast path is held against.
 */
import { rotateRows } from '../kernels/hadamard.js';
import { type PyramidCode, rowGroups, wordBits } from '../kernels/pyramid.js';
import { unpackCodes, unpackPulses } from '../kernels/pyramid-index.js';
import type { Rotation } from '../linalg/hadamard.js';
import { type EncodedMatrix, type EncodeOptions, encodeRows } from './encode-rows.js';

export interface PipelineResult extends EncodedMatrix {
  /** [rows, groups, D] and [rows, groups]. */
  readonly pulses: Int16Array;
  readonly gainCodes: Uint8Array;
  /** What the matrix decodes to, rotated back, [rows, columns]. */
  readonly decoded: Float64Array;
  /** Mean of (w - what)^2. */
  readonly meanSquaredError: number;
  /** 10 log10(sum w^2 / sum (w - what)^2), dB. */
  readonly sqnrDb: number;
  /** Cosine of the matrices, as vectors. */
  readonly cosine: number;
  /** (bits of index and gain of a group) / D + 16 / columns: what is stored, but for padding and metadata. */
  readonly nominalBitsPerWeight: number;
}

/** Encodes w [rows, columns] by `code` after `rotation` (kind `none` for none), and decodes it again. */
export function referencePipeline(
  w: Float64Array,
  rows: number,
  rotation: Rotation,
  code: PyramidCode,
  levels: Float32Array,
  options: EncodeOptions = {},
): PipelineResult {
  const columns = rotation.length;
  const D = code.groupLength;
  const groups = rowGroups(columns, D);
  const rotated = w.slice();
  rotateRows(rotated, rows, rotation, 'forward');
  const matrix = encodeRows(rotated, rows, columns, code, levels, options);
  const { encoded } = matrix;
  const pulses = new Int16Array(rows * groups * D);
  unpackPulses(encoded.index, rows, groups, code, pulses);
  const gainCodes = new Uint8Array(rows * groups);
  if (code.gainBits > 0) unpackCodes(encoded.gain, rows, groups, code.gainBits, gainCodes);
  const zeros = new Uint8Array(rows * groups);
  if (encoded.zeroGroups !== undefined) unpackCodes(encoded.zeroGroups, rows, groups, 1, zeros);
  const decoded = new Float64Array(rows * columns);
  for (let at = 0; at < rows * groups; at++) {
    if (zeros[at] === 1) continue;
    const y = pulses.subarray(at * D, (at + 1) * D);
    const norm = Math.sqrt(y.reduce((sum, value) => sum + value * value, 0));
    const row = Math.floor(at / groups);
    const factor = (encoded.scales[row] * levels[gainCodes[at]]) / norm;
    const start = (at % groups) * D;
    for (let j = start; j < Math.min(start + D, columns); j++) decoded[row * columns + j] = factor * y[j - start];
  }
  rotateRows(decoded, rows, rotation, 'inverse');
  let [error, energy, cross, decodedEnergy] = [0, 0, 0, 0];
  for (let i = 0; i < w.length; i++) {
    error += (w[i] - decoded[i]) ** 2;
    energy += w[i] * w[i];
    cross += w[i] * decoded[i];
    decodedEnergy += decoded[i] * decoded[i];
  }
  return {
    ...matrix,
    pulses,
    gainCodes,
    decoded,
    meanSquaredError: error / w.length,
    sqnrDb: 10 * Math.log10(energy / error),
    cosine: cross / Math.sqrt(energy * decodedEnergy),
    nominalBitsPerWeight: (wordBits(code) / code.superGroup + code.gainBits) / D + 16 / columns,
  };
}
