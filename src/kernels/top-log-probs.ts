import { InputError } from '../errors.js';
import { kernelThreads, nativeKernels } from './native.js';
import { descendingOrder } from './plackett-luce-reference.js';

type Floats = Float32Array | Float64Array;

/** The likeliest classes of rows of logits. */
export interface LikeliestClasses {
  readonly k: number;
  /** [rows, k], by descending probability, ties by ascending class; -1 where a class has no probability. */
  readonly ids: Int32Array;
  /** [rows, k], nats, over all classes. */
  readonly logProbs: Float32Array;
  /** [rows]: the probability of all other classes, summed over them. */
  readonly leftover: Float32Array;
}

function hostile(logits: Floats, classes: number, row: number, name: string, firstRow: number): InputError {
  const values = logits.subarray(row * classes, (row + 1) * classes);
  const column = values.findIndex((x) => !(x < Number.POSITIVE_INFINITY));
  const place = `${name}: row ${firstRow + row}`;
  return new InputError(
    column < 0 ? `${place} has no finite logit` : `${place}, column ${column} is ${values[column]}`,
  );
}

function topRow(logits: Floats, temperature: number, row: number, into: LikeliestClasses): boolean {
  const { k } = into;
  let max = Number.NEGATIVE_INFINITY;
  for (const x of logits) {
    if (!(x < Number.POSITIVE_INFINITY)) return false;
    max = Math.max(max, x);
  }
  if (max === Number.NEGATIVE_INFINITY) return false;
  const weights = Float64Array.from(logits, (x) => Math.exp((x - max) / temperature));
  let total = 0;
  for (const weight of weights) total += weight;
  const order = descendingOrder(logits);
  for (let i = 0; i < k; i++) {
    const held = logits[order[i]] > Number.NEGATIVE_INFINITY;
    into.ids[row * k + i] = held ? order[i] : -1;
    into.logProbs[row * k + i] = held ? (logits[order[i]] - max) / temperature - Math.log(total) : 0;
  }
  let left = 0;
  for (let i = k; i < order.length; i++) left += weights[order[i]];
  into.leftover[row] = left / total;
  return true;
}

/**
 * The k likeliest classes of every row of softmax(logits / temperature) with their log-probabilities, and what is left over.
 * @param logits [rows, classes]
 * @param place what messages call the logits, and the number of the first row there
 * @throws InputError naming the row that holds NaN or +Infinity, or nothing finite
 */
export function topLogProbs(
  logits: Floats,
  rows: number,
  classes: number,
  k: number,
  options: {
    readonly temperature?: number;
    readonly threads?: number;
    readonly name?: string;
    readonly firstRow?: number;
  } = {},
): LikeliestClasses {
  const { temperature = 1, threads, name = 'logits', firstRow = 0 } = options;
  if (k < 1 || k > classes) throw new RangeError(`${k} of ${classes} classes`);
  if (logits.length < rows * classes) throw new RangeError(`${logits.length} logits are no [${rows}, ${classes}]`);
  const result: LikeliestClasses = {
    k,
    ids: new Int32Array(rows * k),
    logProbs: new Float32Array(rows * k),
    leftover: new Float32Array(rows),
  };
  const native = nativeKernels();
  let refused = -1;
  if (native !== undefined && logits instanceof Float32Array) {
    const { ids, logProbs, leftover } = result;
    refused = native.topLogProbs(
      logits,
      rows,
      classes,
      k,
      temperature,
      ids,
      logProbs,
      leftover,
      kernelThreads(threads),
    );
  } else {
    for (let r = 0; r < rows && refused < 0; r++) {
      if (!topRow(logits.subarray(r * classes, (r + 1) * classes), temperature, r, result)) refused = r;
    }
  }
  if (refused >= 0) throw hostile(logits, classes, refused, name, firstRow);
  return result;
}
