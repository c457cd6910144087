import { kernelThreads, nativeKernels } from './native.js';

/** Elements of a tile; sums over them are in f64 either way. */
export type TileElements = Float32Array | Float64Array;

/** A tile `[rows, columns]`, row-major, at the start of `data`. */
export interface Tile<T extends TileElements = TileElements> {
  readonly data: T;
  readonly rows: number;
  readonly columns: number;
}

/** Entry j of a sum over a row goes to partial sum j mod 8, as in native/src/kernel_tiles.hpp. */
const SUM_LANES = 8;

type Round = (value: number) => number;
const identity: Round = (value) => value;
const roundingOf = (data: TileElements): Round => (data instanceof Float32Array ? Math.fround : identity);

function checkTile(tile: Tile): void {
  if (tile.rows < 0 || tile.columns < 0 || tile.rows * tile.columns > tile.data.length)
    throw new RangeError(`${tile.data.length} entries hold no tile of ${tile.rows} x ${tile.columns}`);
}

function checkLength(name: string, data: ArrayLike<number> | undefined, least: number): void {
  if (data !== undefined && data.length < least) throw new RangeError(`${data.length} ${name}, ${least} are needed`);
}

function laneSum(
  data: TileElements,
  from: number,
  count: number,
  weights: Float64Array | undefined,
  power: number,
): number {
  const lanes = new Float64Array(SUM_LANES);
  for (let j = 0; j < count; j++) {
    const x = data[from + j];
    const term = power === 1 ? x : power === 2 ? x * x : power === 3 ? x * x * x : x ** power;
    lanes[j % SUM_LANES] += (weights?.[j] ?? 1) * term;
  }
  return lanes[0] + lanes[1] + (lanes[2] + lanes[3]) + (lanes[4] + lanes[5] + (lanes[6] + lanes[7]));
}

function gaussianReference<T extends TileElements>(
  tile: Tile<T>,
  rowHalfNorms: T,
  columnHalfNorms: T,
  factor: number,
  sums: Float64Array | undefined,
): void {
  const { data, rows, columns } = tile;
  const round = roundingOf(data);
  const gamma = round(factor);
  for (let i = 0; i < rows; i++) {
    const from = i * columns;
    for (let j = 0; j < columns; j++) {
      const exponent = round(data[from + j] - round(rowHalfNorms[i] + columnHalfNorms[j]));
      data[from + j] = Math.exp(round(Math.min(exponent, 0) * gamma));
    }
    if (sums) sums[i] += laneSum(data, from, columns, undefined, 1);
  }
}

/**
 * In place: inner products `x_i·y_j` become `exp(-factor |x_i - y_j|² / 2)`, from half the squared norms of the rows
 * and columns. `factor` is 1/σ² (q/σ² for the q-th power of the kernel). f32 tiles are worked on in f32, to about 2e-7
 * relative plus the rounding of the exponent; f64 to 1e-15.
 * @param sums when given, sums[i] grows by the sum of row i
 */
export function gaussianTile<T extends TileElements>(
  tile: Tile<T>,
  rowHalfNorms: T,
  columnHalfNorms: T,
  factor: number,
  options: { readonly sums?: Float64Array; readonly threads?: number } = {},
): void {
  checkTile(tile);
  const { data, rows, columns } = tile;
  const { sums } = options;
  checkLength('row norms', rowHalfNorms, rows);
  checkLength('column norms', columnHalfNorms, columns);
  checkLength('sums', sums, rows);
  const native = nativeKernels();
  const threads = kernelThreads(options.threads);
  if (native === undefined) gaussianReference(tile, rowHalfNorms, columnHalfNorms, factor, sums);
  else if (data instanceof Float32Array) {
    const [a, b] = [rowHalfNorms as Float32Array, columnHalfNorms as Float32Array];
    native.gaussianTileF32(data, rows, columns, a, b, factor, sums ?? null, threads);
  } else {
    const [a, b] = [rowHalfNorms as Float64Array, columnHalfNorms as Float64Array];
    native.gaussianTileF64(data as Float64Array, rows, columns, a, b, factor, sums ?? null, threads);
  }
}

/** `sums[i] += Σ_j weights[j] tile[i, j]^power`; weights of 1 and power 1 when absent. */
export function addRowSums(
  tile: Tile,
  sums: Float64Array,
  options: { readonly weights?: Float64Array; readonly power?: number; readonly threads?: number } = {},
): void {
  checkTile(tile);
  const { data, rows, columns } = tile;
  const { weights, power = 1 } = options;
  checkLength('weights', weights, columns);
  checkLength('sums', sums, rows);
  const native = nativeKernels();
  const threads = kernelThreads(options.threads);
  if (native === undefined) {
    for (let i = 0; i < rows; i++) sums[i] += laneSum(data, i * columns, columns, weights, power);
  } else if (data instanceof Float32Array) {
    native.addRowSumsF32(data, rows, columns, weights ?? null, power, sums, threads);
  } else native.addRowSumsF64(data, rows, columns, weights ?? null, power, sums, threads);
}

/** `sums[j] += Σ_i weights[i] tile[i, j]`; weights of 1 when absent. */
export function addColumnSums(
  tile: Tile,
  sums: Float64Array,
  options: { readonly weights?: Float64Array; readonly threads?: number } = {},
): void {
  checkTile(tile);
  const { data, rows, columns } = tile;
  const { weights } = options;
  checkLength('weights', weights, rows);
  checkLength('sums', sums, columns);
  const native = nativeKernels();
  const threads = kernelThreads(options.threads);
  if (native === undefined) {
    for (let i = 0; i < rows; i++) {
      const weight = weights?.[i] ?? 1;
      for (let j = 0; j < columns; j++) sums[j] += weight * data[i * columns + j];
    }
  } else if (data instanceof Float32Array) {
    native.addColumnSumsF32(data, rows, columns, weights ?? null, sums, threads);
  } else native.addColumnSumsF64(data, rows, columns, weights ?? null, sums, threads);
}

function cosSinReference(tile: Tile, scale: number, columnScale: TileElements | undefined, target: TileElements): void {
  const { data, rows, columns } = tile;
  const round = roundingOf(data);
  const single = round(scale);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      const angle = data[i * columns + j];
      const factor = columnScale ? round(single * columnScale[j]) : single;
      target[i * columns + j] = round(Math.cos(angle)) * factor;
      target[(rows + i) * columns + j] = round(Math.sin(angle)) * factor;
    }
  }
}

/**
 * Random Fourier features: `target` `[2 rows, columns]` becomes `scale cos(angles)` over `scale sin(angles)`, each
 * column times `columnScale[column]` when given. The absolute error is a rounding of the element type for any angle.
 */
export function cosSinFeatures<T extends TileElements>(
  angles: Tile<T>,
  scale: number,
  target: T,
  options: { readonly columnScale?: T; readonly threads?: number } = {},
): void {
  checkTile(angles);
  const { data, rows, columns } = angles;
  const { columnScale } = options;
  checkLength('features', target, 2 * rows * columns);
  checkLength('column scales', columnScale, columns);
  const native = nativeKernels();
  const threads = kernelThreads(options.threads);
  if (native === undefined) cosSinReference(angles, scale, columnScale, target);
  else if (data instanceof Float32Array) {
    const factors = (columnScale ?? null) as Float32Array | null;
    native.cosSinFeaturesF32(data, rows, columns, scale, factors, target as Float32Array, threads);
  } else {
    const factors = (columnScale ?? null) as Float64Array | null;
    native.cosSinFeaturesF64(data as Float64Array, rows, columns, scale, factors, target as Float64Array, threads);
  }
}

/** `target[offset + i stride + j] += source[i, j]`. */
export function addTile(
  source: Tile,
  target: Float64Array,
  offset: number,
  stride: number,
  options: { readonly threads?: number } = {},
): void {
  checkTile(source);
  const { data, rows, columns } = source;
  if (offset < 0 || stride < columns) throw new RangeError(`rows of ${columns} do not fit a stride of ${stride}`);
  if (rows > 0) checkLength('entries of the target', target, offset + (rows - 1) * stride + columns);
  const native = nativeKernels();
  const threads = kernelThreads(options.threads);
  if (native === undefined) {
    for (let i = 0; i < rows; i++)
      for (let j = 0; j < columns; j++) target[offset + i * stride + j] += data[i * columns + j];
  } else if (data instanceof Float32Array) native.addTileF32(data, rows, columns, target, offset, stride, threads);
  else native.addTileF64(data, rows, columns, target, offset, stride, threads);
}

/** `target[i, j] = factors[i] source[i, j]`; `target` may be the source. */
export function scaleRows<T extends TileElements>(
  source: Tile<T>,
  factors: Float64Array,
  target: T,
  options: { readonly threads?: number } = {},
): void {
  checkTile(source);
  const { data, rows, columns } = source;
  checkLength('factors', factors, rows);
  checkLength('entries of the target', target, rows * columns);
  const native = nativeKernels();
  const threads = kernelThreads(options.threads);
  if (native === undefined) {
    for (let i = 0; i < rows; i++)
      for (let j = 0; j < columns; j++) target[i * columns + j] = data[i * columns + j] * factors[i];
  } else if (data instanceof Float32Array) {
    native.scaleRowsF32(data, rows, columns, factors, target as Float32Array, threads);
  } else native.scaleRowsF64(data as Float64Array, rows, columns, factors, target as Float64Array, threads);
}
