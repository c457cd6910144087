import { fastLength, type ImageConvolver, imageConvolver } from '../linalg/fft.js';
import { type ColumnSpread, type GridPlaces, KERNEL_SUPPORT } from './column-scale.js';

/** How a binned sample is smoothed: cell by cell, or through Fourier transforms; `auto` takes what costs less. */
export type Smoothing = 'auto' | 'direct' | 'fft';

/** Sides of kernels of the same grid repeat from column to column; plans are kept by size. */
const convolvers = new Map<number, ImageConvolver>();

function convolverOf(side: number): ImageConvolver {
  let convolver = convolvers.get(side);
  if (convolver === undefined) {
    convolver = imageConvolver(side, side);
    convolvers.set(side, convolver);
  }
  return convolver;
}

/**
 * Linear binning: every point gives its unit mass to the four grid points around it. `order[i]` is the observation of
 * b that stands beside observation i of a (absent: i itself).
 */
export function binPairs(a: GridPlaces, b: GridPlaces, order: Int32Array | undefined, counts: Float64Array): void {
  const { points } = b;
  counts.fill(0, 0, a.points * points);
  for (let i = 0; i < a.index.length; i++) {
    const j = order === undefined ? i : order[i];
    const at = a.index[i] * points + b.index[j];
    const u = a.fraction[i];
    const v = b.fraction[j];
    counts[at] += (1 - u) * (1 - v);
    counts[at + 1] += (1 - u) * v;
    counts[at + points] += u * (1 - v);
    counts[at + points + 1] += u * v;
  }
}

/** The radial kernel 1 - r^2 / 5 on offsets `[2 rows + 1, 2 columns + 1]`, unnormalised. */
interface RadialKernel {
  readonly rows: number;
  readonly columns: number;
  /** Offsets -half..half of each row are positive; -1 where none is. */
  readonly half: Int32Array;
  readonly values: Float64Array;
  readonly cells: number;
}

function radialKernel(stepA: number, stepB: number): RadialKernel {
  const rows = Math.floor(KERNEL_SUPPORT / stepA);
  const columns = Math.floor(KERNEL_SUPPORT / stepB);
  const width = 2 * columns + 1;
  const half = new Int32Array(2 * rows + 1).fill(-1);
  const values = new Float64Array((2 * rows + 1) * width);
  let cells = 0;
  for (let r = -rows; r <= rows; r++) {
    for (let c = -columns; c <= columns; c++) {
      const value = 1 - ((r * stepA) ** 2 + (c * stepB) ** 2) / 5;
      if (!(value > 0)) continue;
      values[(r + rows) * width + c + columns] = value;
      half[r + rows] = Math.max(half[r + rows], c);
      cells++;
    }
  }
  return { rows, columns, half, values, cells };
}

function smoothDirectly(counts: Float64Array, a: GridPlaces, b: GridPlaces, kernel: RadialKernel, out: Float64Array) {
  const { points } = b;
  const width = 2 * kernel.columns + 1;
  out.fill(0, 0, a.points * points);
  for (let row = 0; row < a.points; row++) {
    const first = Math.max(0, row - kernel.rows);
    const last = Math.min(a.points - 1, row + kernel.rows);
    for (let column = 0; column < points; column++) {
      const mass = counts[row * points + column];
      if (mass === 0) continue;
      for (let to = first; to <= last; to++) {
        const kernelRow = to - row + kernel.rows;
        const half = kernel.half[kernelRow];
        const low = Math.max(0, column - half);
        const high = Math.min(points - 1, column + half);
        const offset = kernelRow * width + kernel.columns - column;
        for (let c = low; c <= high; c++) out[to * points + c] += mass * kernel.values[offset + c];
      }
    }
  }
}

function smoothByTransform(
  counts: Float64Array,
  a: GridPlaces,
  b: GridPlaces,
  kernel: RadialKernel,
  out: Float64Array,
) {
  const side = fastLength(Math.max(a.points + kernel.rows, b.points + kernel.columns), true);
  const convolver = convolverOf(side);
  const image = new Float64Array(side * side);
  const width = 2 * kernel.columns + 1;
  for (let r = -kernel.rows; r <= kernel.rows; r++) {
    for (let c = -kernel.columns; c <= kernel.columns; c++) {
      const value = kernel.values[(r + kernel.rows) * width + c + kernel.columns];
      image[((r + side) % side) * side + ((c + side) % side)] = value;
    }
  }
  convolver.setKernel(image);
  image.fill(0);
  for (let r = 0; r < a.points; r++) image.set(counts.subarray(r * b.points, (r + 1) * b.points), r * side);
  convolver.convolve(image);
  // Rounding of the transforms leaves small negative values where the density is 0.
  for (let r = 0; r < a.points; r++) {
    for (let c = 0; c < b.points; c++) out[r * b.points + c] = Math.max(0, image[r * side + c]);
  }
}

/** Multiplications of the two transforms of an image of `side` squared, in those of the direct sum (measured). */
const TRANSFORM_COST = 90;

/**
 * The joint density of two variables on the grid `[a.points, b.points]`, up to a constant factor: linear binning, then
 * convolution with the radial Epanechnikov kernel of unit width.
 */
export function pairDensity(
  a: GridPlaces,
  b: GridPlaces,
  order: Int32Array | undefined,
  counts: Float64Array,
  out: Float64Array,
  smoothing: Smoothing = 'auto',
): void {
  binPairs(a, b, order, counts);
  const kernel = radialKernel(a.step, b.step);
  let filled = 0;
  for (let i = 0; i < a.points * b.points; i++) if (counts[i] > 0) filled++;
  const side = Math.max(a.points + kernel.rows, b.points + kernel.columns);
  const direct = smoothing === 'auto' ? filled * kernel.cells <= TRANSFORM_COST * side * side : smoothing === 'direct';
  if (direct) smoothDirectly(counts, a, b, kernel, out);
  else smoothByTransform(counts, a, b, kernel, out);
}

/**
 * Adds `share` times the Epanechnikov density of the values `x[members]` to `out` `[points]`, on the grid of `points`
 * points that starts at `low` with distance `step`. Linear binning; mass beyond the ends of the grid is lost.
 */
export function addClassDensity(
  sorted: Float64Array,
  bandwidth: number,
  share: number,
  low: number,
  step: number,
  out: Float64Array,
): void {
  const points = out.length;
  const counts = new Float64Array(points);
  for (let i = 0; i < sorted.length; i++) {
    const at = (sorted[i] - low) / step;
    const below = Math.min(points - 2, Math.floor(at));
    counts[below] += 1 - (at - below);
    counts[below + 1] += at - below;
  }
  const support = KERNEL_SUPPORT * bandwidth;
  const reach = Math.min(points, Math.floor(support / step));
  const scale = (share * 0.75) / (support * sorted.length);
  const values = Float64Array.from({ length: reach + 1 }, (_, k) => Math.max(0, 1 - ((k * step) / support) ** 2));
  for (let g = 0; g < points; g++) {
    const mass = counts[g] * scale;
    if (mass === 0) continue;
    const high = Math.min(points - 1, g + reach);
    for (let to = Math.max(0, g - reach); to <= high; to++) out[to] += mass * values[Math.abs(to - g)];
  }
}

/** The common grid of a variable whose classes are compared: 5 % or the kernel's support beyond the values. */
export function classGrid(spread: ColumnSpread, points: number): { low: number; step: number } {
  const range = spread.maximum - spread.minimum;
  const margin = Math.max(0.05 * range, KERNEL_SUPPORT * spread.silverman);
  return { low: spread.minimum - margin, step: (range + 2 * margin) / (points - 1) };
}
