import { InputError } from '../errors.js';
import { carveRows } from '../linalg/carve-rows.js';
import { createRandom } from '../random.js';
import { type ClassData, type ClassDataSource, readClassData, takeRows } from './class-data.js';

/** Rows that one purpose takes, by their numbers in the data they come from. */
export interface RowSet {
  readonly data: ClassData;
  /** Ascending, or the whole of the data when absent. */
  readonly rows?: Int32Array;
}

export const allRows = (count: number): Int32Array => Int32Array.from({ length: count }, (_, row) => row);

/** Rows of a set as data of their own. */
export const rowsOfSet = ({ data, rows }: RowSet): ClassData => (rows ? takeRows(data, rows) : data);

/**
 * All files as one, in their order; classes are those of the first file.
 * @param known classes of the training rows
 * @throws InputError for files whose rows differ in their extents, and as `readClassData`
 */
export async function readClassFiles(
  sources: readonly ClassDataSource[],
  known?: readonly string[],
): Promise<ClassData> {
  const parts: ClassData[] = [];
  for (const source of sources) parts.push(await readClassData(source, known ?? namesOf(parts[0])));
  const [first] = parts;
  if (!first) throw new InputError('--data names no file');
  if (parts.length === 1) return first;
  const wrong = parts.find(({ dims }) => dims.join() !== first.dims.join());
  if (wrong) {
    throw new InputError(
      `${wrong.name}: rows of [${wrong.dims.join(', ')}], those of ${first.name} are [${first.dims.join(', ')}]`,
    );
  }
  const rows = parts.reduce((sum, part) => sum + part.rows, 0);
  const features = new Float32Array(rows * (first.features.length / first.rows));
  const labels = new Int32Array(rows);
  let at = 0;
  for (const part of parts) {
    features.set(part.features, at * (features.length / rows));
    labels.set(part.labels, at);
    at += part.rows;
  }
  const longest = parts.reduce((best, { classes }) => (classes.length > best.length ? classes : best), first.classes);
  const name = `${first.name} and ${parts.length - 1} more`;
  return {
    ...first,
    name,
    rows,
    features,
    labels,
    classes: longest,
    warnings: parts.flatMap(({ warnings }) => warnings),
  };
}

/** Names that later files must keep to: numbered classes may grow from file to file. */
function namesOf(first: ClassData | undefined): readonly string[] | undefined {
  if (!first || first.classes.every((name, code) => name === String(code))) return undefined;
  return first.classes;
}

/**
 * Takes shares of the rows away, by class, so that each keeps its share.
 * @returns what is left, then a set a share
 * @throws InputError when a set would be empty
 */
export function splitRows(data: ClassData, shares: readonly { name: string; share: number }[], seed: number): RowSet[] {
  const carved = carveRows(
    data.rows,
    data.labels,
    shares.map(({ share }) => share),
    seed,
  );
  shares.forEach(({ name }, s) => {
    if (carved.parts[s].length > 0) return;
    throw new InputError(`${data.name}: ${data.rows} rows are too few to take ${name} rows from; give a larger share`);
  });
  if (carved.rest.length === 0) throw new InputError(`${data.name}: no row is left to train on; hold fewer out`);
  return [carved.rest, ...carved.parts].map((rows) => ({ data, rows }));
}

/**
 * The first `count` rows of a permutation by the seed, ascending.
 * @throws InputError when there are not as many
 */
export function drawRows(rows: Int32Array, count: number, seed: number): Int32Array {
  if (count > rows.length) {
    throw new InputError(`--student-rows ${count}: there are ${rows.length} training rows`);
  }
  const order = createRandom(seed).fork(0x73747564).permutation(rows.length);
  return Int32Array.from(order.subarray(0, count), (at) => rows[at]).sort();
}
