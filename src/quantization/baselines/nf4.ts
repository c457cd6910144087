import { normalQuantile } from '../../linalg/special-functions.js';
import { type Baseline, type FittedQuantizer, paddedBits, type RowMatrix } from './baseline.js';
import { forEachGroup, groupsOf, largestMagnitude } from './group-scales.js';
import { midpoints, nearestLevel } from './level-search.js';

const BLOCK = 64;

/**
 * The sixteen levels of NormalFloat4 (Dettmers et al. 2023, equation 4 and appendix E): quantiles of N(0, 1) at equal
 * steps of probability, eight above zero, seven below and zero, the largest scaled to 1.
 */
export function normalFloatLevels(): Float64Array {
  const outermost = (1 / 2) * (1 - 1 / 32 + (1 - 1 / 30));
  const quantiles = (count: number): number[] =>
    Array.from({ length: count }, (_, i) => normalQuantile(outermost + ((0.5 - outermost) * i) / count));
  const largest = normalQuantile(outermost);
  const levels = [...quantiles(8), 0, ...quantiles(7).map((value) => -value)].map((value) => value / largest);
  return Float64Array.from(levels.sort((a, b) => a - b));
}

/**
 * The 256 levels of the dynamic 8-bit code (Dettmers 2016) that store the block scales under double quantisation: seven
 * decades, the larger the finer, of both signs, with zero and one.
 */
export function dynamicLevels(): Float64Array {
  const levels = [0, 1];
  for (let decade = 0; decade < 7; decade++) {
    const cells = 2 ** decade;
    for (let i = 0; i < cells; i++) {
      const middle = 0.1 + (0.9 * (i + 0.5)) / cells;
      levels.push(middle * 10 ** (decade - 6), -middle * 10 ** (decade - 6));
    }
  }
  return Float64Array.from(levels.sort((a, b) => a - b));
}

/** Scales that share one f32 under double quantisation. */
const SCALE_BLOCK = 256;

/** Block scales less their mean in 8-bit codes, one f32 a block of 256 of them and one f32 for the mean. */
function quantizeScales(scales: Float64Array): Float64Array {
  const levels = dynamicLevels();
  const between = midpoints(levels);
  const mean = Math.fround(scales.reduce((sum, scale) => sum + scale, 0) / Math.max(1, scales.length));
  const stored = new Float64Array(scales.length);
  for (let first = 0; first < scales.length; first += SCALE_BLOCK) {
    const end = Math.min(first + SCALE_BLOCK, scales.length);
    let largest = 0;
    for (let i = first; i < end; i++) largest = Math.max(largest, Math.abs(scales[i] - mean));
    const unit = Math.fround(largest);
    for (let i = first; i < end; i++) {
      const level = unit === 0 ? 0 : levels[nearestLevel((scales[i] - mean) / unit, between)];
      stored[i] = Math.fround(level * unit + mean);
    }
  }
  return stored;
}

function nf4Bits(rows: number, columns: number, doubled: boolean): number {
  const blocks = rows * groupsOf(columns, BLOCK);
  const scaleBits = doubled ? 8 * blocks + 32 * Math.ceil(blocks / SCALE_BLOCK) + 32 : 32 * blocks;
  return rows * paddedBits(4, columns) + scaleBits;
}

function fitNf4({ weights, rows, columns }: RowMatrix, doubled: boolean): FittedQuantizer {
  const levels = normalFloatLevels();
  const between = midpoints(levels);
  const groups = groupsOf(columns, BLOCK);
  const exact = new Float64Array(rows * groups);
  forEachGroup(rows, columns, BLOCK, (index, from, to) => {
    exact[index] = largestMagnitude(weights, from, to);
  });
  const scales = doubled ? quantizeScales(exact) : exact;
  return {
    blockColumns: 1,
    storedBits: nf4Bits(rows, columns, doubled),
    quantize(target, count, column0, width, out) {
      for (let row = 0; row < count; row++) {
        for (let j = 0; j < width; j++) {
          const scale = scales[row * groups + Math.floor((column0 + j) / BLOCK)];
          const at = row * width + j;
          out[at] = scale === 0 ? 0 : levels[nearestLevel(target[at] / scale, between)] * scale;
        }
      }
    },
  };
}

/** NormalFloat4 in blocks of 64 with f32 scales: 4.5 bits a weight. */
export const NF4: Baseline = {
  name: 'nf4',
  title: 'NF4',
  settings: [{}],
  storedBits: (_settings, rows, columns) => nf4Bits(rows, columns, false),
  groupColumns: (_settings, columns) => (columns > BLOCK ? BLOCK : undefined),
  fit: (matrix) => fitNf4(matrix, false),
};

/** NormalFloat4 with its scales quantised in turn: 4.127 bits a weight. */
export const NF4_DOUBLE: Baseline = {
  name: 'nf4-double',
  title: 'NF4, double quantisation',
  settings: [{}],
  storedBits: (_settings, rows, columns) => nf4Bits(rows, columns, true),
  fit: (matrix) => fitNf4(matrix, true),
};
