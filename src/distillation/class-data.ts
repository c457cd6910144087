import { InputError } from '../errors.js';
import { openFeatures } from '../features/open-features.js';
import { eachBlock, type FeatureMatrix } from '../formats/feature-matrix.js';
import { checkLabelCount, type Labels, readLabels } from '../formats/labels.js';
import { isTensorFile, openTensorFile } from '../formats/tensor-file.js';
import { IGNORED } from '../training/types.js';

/** Where rows of features with class labels come from. */
export interface ClassDataSource {
  /** A table (.csv .tsv .jsonl .parquet), or an array [rows, ...] (.npy .npz .safetensors). */
  readonly path: string;
  /** Array of features of an .npz or .safetensors file; found by its usual names when absent. */
  readonly tensor?: string;
  /** Columns of a table that are features; all but the labels when absent. */
  readonly columns?: readonly string[];
  /** A file of labels; they lie in `path` when absent. */
  readonly labels?: string;
  /** Column or array of the labels; found by its usual names when absent. */
  readonly labelColumn?: string;
  /** Extents of an image whose pixels are the features of a row, row-major: [height, width] or [channels, height, width]. */
  readonly image?: readonly number[];
  /** Where the channels of an array [rows, a, b, c] lie; decided by its extents when absent. */
  readonly channels?: 'first' | 'last';
  readonly limit?: number;
}

/** Rows of features with class labels, in memory. */
export interface ClassData {
  readonly name: string;
  readonly rows: number;
  /** Extents of one row: [features], or [channels, height, width]. */
  readonly dims: readonly number[];
  /** [rows, ...dims] */
  readonly features: Float32Array;
  /** [rows]: class of each row, or `IGNORED`. */
  readonly labels: Int32Array;
  /** Names of the classes, by class. */
  readonly classes: readonly string[];
  readonly columnNames?: readonly string[];
  readonly warnings: readonly string[];
}

const LABEL_NAMES = /^(label|labels|class|classes|target|targets|y)$/i;
const FEATURE_NAMES = /^(x|features?|images?|data|pixels)$/i;
const MOST_CHANNELS = 4;

/** Names of the arrays of an .npz or .safetensors file that hold features and labels. */
function chooseArrays(source: ClassDataSource): { tensor: string; labelColumn: string | undefined } {
  const store = openTensorFile(source.path);
  const names = [...store.tensors.keys()];
  store.close();
  const inside = source.labels === undefined;
  const labelColumn = inside
    ? (source.labelColumn ?? names.find((name) => LABEL_NAMES.test(name)))
    : source.labelColumn;
  if (inside && labelColumn === undefined) {
    throw new InputError(
      `${source.path}: holds ${names.join(', ')}; name the array of the labels with --label-column, or give --labels`,
    );
  }
  const rest = inside ? names.filter((name) => name !== labelColumn) : names;
  const tensor = source.tensor ?? (rest.length === 1 ? rest[0] : rest.find((name) => FEATURE_NAMES.test(name)));
  if (tensor === undefined) {
    throw new InputError(`${source.path}: holds ${names.join(', ')}; name the array of the features with --tensor`);
  }
  return { tensor, labelColumn };
}

/** Header of a table: its columns without reading its rows. */
async function columnsOfTable(source: ClassDataSource): Promise<string[]> {
  const { readRecords } = await import('../formats/documents.js');
  for await (const { record } of readRecords([source.path], { limit: 1 })) return Object.keys(record);
  throw new InputError(`${source.path}: holds no row`);
}

async function openMatrix(
  source: ClassDataSource,
): Promise<{ matrix: FeatureMatrix; labelColumn: string | undefined }> {
  const limited = source.limit === undefined ? {} : { limit: source.limit };
  if (isTensorFile(source.path)) {
    const single = /\.npy$/i.test(source.path);
    if (single && source.labels === undefined) {
      throw new InputError(`${source.path}: an .npy file has no labels; give them with --labels`);
    }
    const chosen = single ? { labelColumn: source.labelColumn } : chooseArrays(source);
    const matrix = await openFeatures({ kind: 'file', path: source.path, ...chosen, ...limited, flatten: true });
    return { matrix, labelColumn: chosen.labelColumn };
  }
  let labelColumn = source.labelColumn;
  if (source.labels === undefined && labelColumn === undefined) {
    labelColumn = (await columnsOfTable(source)).find((name) => LABEL_NAMES.test(name));
    if (labelColumn === undefined) {
      throw new InputError(
        `${source.path}: name the column that holds the labels with --label-column, or give --labels`,
      );
    }
  }
  const matrix = await openFeatures({
    kind: 'file',
    path: source.path,
    ...(source.columns && { columns: source.columns }),
    ...(source.labels === undefined && labelColumn !== undefined && { except: [labelColumn] }),
    ...limited,
  });
  return { matrix, labelColumn };
}

/** Whole numbers are classes themselves; other labels are classes in the order of their names. */
function classesOf(
  labels: Labels,
  where: string,
  known: readonly string[] | undefined,
): { codes: Int32Array; names: readonly string[]; warnings: string[] } {
  if (labels.kind === 'numbers') throw new InputError(`${where}: labels are amounts; classes are needed`);
  const numbers = labels.names.map(Number);
  const whole = labels.names.every((name, i) => name.trim() !== '' && Number.isInteger(numbers[i]));
  if (!whole || (known && !known.every((name, i) => name === String(i)))) return namedClasses(labels, where, known);
  const codes = Int32Array.from(labels.codes, (code) => numbers[code]);
  codes.forEach((label, row) => {
    if (label >= 0 || label === IGNORED) return;
    throw new InputError(
      `${where}: row ${row} has the label ${label}; classes count from 0, and ${IGNORED} is ignored`,
    );
  });
  const count = Math.max(known?.length ?? 0, codes.reduce((most, label) => Math.max(most, label), -1) + 1);
  if (known && count > known.length) {
    const row = codes.findIndex((label) => label >= known.length);
    throw new InputError(
      `${where}: row ${row} has the label ${codes[row]}, but there are ${known.length} classes (0 to ${known.length - 1})`,
    );
  }
  const present = new Set(codes);
  const missing = known
    ? []
    : Array.from({ length: count }, (_, label) => label).filter((label) => !present.has(label));
  return {
    codes,
    names: known ?? Array.from({ length: count }, (_, label) => String(label)),
    warnings:
      missing.length === 0
        ? []
        : [`${where}: no row has the label ${missing.slice(0, 5).join(', ')}; labels count from 0 to ${count - 1}`],
  };
}

function namedClasses(
  labels: Labels & { kind: 'classes' },
  where: string,
  known: readonly string[] | undefined,
): { codes: Int32Array; names: readonly string[]; warnings: string[] } {
  if (!known) return { codes: labels.codes, names: labels.names, warnings: [] };
  const place = new Map(known.map((name, code) => [name, code]));
  const codes = Int32Array.from(labels.codes, (code, row) => {
    const found = place.get(labels.names[code]);
    if (found !== undefined) return found;
    throw new InputError(
      `${where}: row ${row} has the label "${labels.names[code]}", which no training row has (${known.slice(0, 8).join(', ')}${known.length > 8 ? ', ...' : ''})`,
    );
  });
  return { codes, names: known, warnings: [] };
}

/** Extents of one example, and whether its channels lie last in the file. */
function exampleDims(source: ClassDataSource, matrix: FeatureMatrix): { dims: number[]; channelsLast: boolean } {
  const { image, path } = source;
  const stored = image ?? matrix.rowDims ?? [matrix.columns];
  if (stored.reduce((product, extent) => product * extent, 1) !== matrix.columns) {
    throw new InputError(
      `${path}: an image of ${stored.join(' x ')} has ${stored.reduce((p, e) => p * e, 1)} values, but a row has ${matrix.columns}`,
    );
  }
  if (stored.length === 1) return { dims: [matrix.columns], channelsLast: false };
  if (stored.length === 2) return { dims: [1, ...stored], channelsLast: false };
  if (stored.length > 3) {
    throw new InputError(`${path}: rows are [${stored.join(', ')}]; images of 2 or 3 axes are read`);
  }
  const [first, , last] = stored;
  const channelsLast = source.channels ? source.channels === 'last' : last <= MOST_CHANNELS && first > MOST_CHANNELS;
  return { dims: channelsLast ? [last, first, stored[1]] : [...stored], channelsLast };
}

/** Pixels of one image from [height, width, channels] to [channels, height, width]. */
function channelsFirst(row: Float32Array, channels: number): void {
  const pixels = row.length / channels;
  const copy = row.slice();
  for (let p = 0; p < pixels; p++) for (let c = 0; c < channels; c++) row[c * pixels + p] = copy[p * channels + c];
}

/**
 * Reads features and labels into memory. Whole numbers as labels are the classes themselves (0, 1, ...; -100 counts
 * nowhere); other labels are classes in the order of their names. Arrays [rows, height, width] become one channel, and
 * channels that lie last are moved first: when the last of three extents is at most 4 and the first is not, unless the
 * source says where they lie.
 * @param known classes of the training rows, for rows that are tested
 * @throws InputError for a missing array, column or label, a cell that is no number, NaN (row and column named), an image
 *   that does not fit the columns, labels out of range
 */
export async function readClassData(source: ClassDataSource, known?: readonly string[]): Promise<ClassData> {
  const { matrix, labelColumn } = await openMatrix(source);
  try {
    const where = source.labels ?? source.path;
    const labels = await readLabels(where, {
      kind: 'classes',
      ...(labelColumn !== undefined && { column: labelColumn }),
      ...(source.limit !== undefined && { limit: source.limit }),
    });
    checkLabelCount(labels, matrix.rows, where, source.path);
    const { codes, names, warnings } = classesOf(labels, where, known);
    const { dims, channelsLast } = exampleDims(source, matrix);
    const { rows, columns } = matrix;
    const features = new Float32Array(rows * columns);
    await eachBlock(matrix, 1024, 'f32', (block, start) => {
      features.set(block, start * columns);
    });
    if (channelsLast) {
      for (let r = 0; r < rows; r++) channelsFirst(features.subarray(r * columns, (r + 1) * columns), dims[0]);
    }
    return {
      name: source.path,
      rows,
      dims,
      features,
      labels: codes,
      classes: names,
      ...(matrix.columnNames && { columnNames: matrix.columnNames }),
      warnings,
    };
  } finally {
    matrix.close();
  }
}

/** The rows `indices`, in that order. */
export function takeRows(data: ClassData, indices: Int32Array): ClassData {
  const width = data.features.length / data.rows;
  const features = new Float32Array(indices.length * width);
  indices.forEach((row, i) => {
    features.set(data.features.subarray(row * width, (row + 1) * width), i * width);
  });
  return { ...data, rows: indices.length, features, labels: Int32Array.from(indices, (row) => data.labels[row]) };
}

/** Mean and standard deviation of the features, to be taken away inside a network. */
export interface FeatureScale {
  /** [features], row-major over the extents of one row. */
  readonly mean: Float64Array;
  /** [features]: 1 / standard deviation, and 0 for a feature that does not vary. */
  readonly inverse: Float64Array;
}

/**
 * Means and standard deviations (divisor n) over training rows: of every feature (`columns`) or of all together (`all`).
 */
export function featureScale(data: ClassData, by: 'columns' | 'all'): FeatureScale {
  const width = data.features.length / data.rows;
  const sums = new Float64Array(width);
  const squares = new Float64Array(width);
  const { features, rows } = data;
  const mean = new Float64Array(width);
  for (let i = 0; i < features.length; i++) sums[i % width] += features[i];
  const total = sums.reduce((sum, value) => sum + value, 0) / features.length;
  for (let j = 0; j < width; j++) mean[j] = by === 'all' ? total : sums[j] / rows;
  for (let i = 0; i < features.length; i++) squares[i % width] += (features[i] - mean[i % width]) ** 2;
  const variance = squares.reduce((sum, value) => sum + value, 0) / features.length;
  const inverse = Float64Array.from(squares, (square) => {
    const own = by === 'all' ? variance : square / rows;
    return own > 0 ? 1 / Math.sqrt(own) : 0;
  });
  return { mean, inverse };
}
