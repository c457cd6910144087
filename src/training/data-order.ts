import { InputError } from '../errors.js';
import { createRandom } from '../random.js';

export interface DataOrderSettings {
  /** Items of the data set: rows or windows. */
  readonly count: number;
  readonly batchSize: number;
  readonly seed: number;
  /** A new permutation in every epoch; default true. Otherwise items come as they lie. */
  readonly shuffle?: boolean;
  /** Leaves out the batch at the end of an epoch that is not full; default false. */
  readonly dropLast?: boolean;
}

/** Which items make which batch. */
export interface DataOrder {
  /** Batches that pass over the data once. */
  readonly perEpoch: number;
  /** Items of batch `index`, 0-based and counted over all epochs: a function of the settings and the index alone. */
  items(index: number): Int32Array;
}

/**
 * Seeded order of a data set: epoch e is the permutation of the stream `fork(e)` of the seed, so that a run can begin
 * at any batch. No item comes twice in an epoch.
 * @throws InputError when there is no item, or no full batch where only full ones are wanted
 */
export function createDataOrder(settings: DataOrderSettings): DataOrder {
  const { count, batchSize, seed, shuffle = true, dropLast = false } = settings;
  if (!(Number.isInteger(batchSize) && batchSize >= 1))
    throw new InputError(`batches of ${batchSize}: must be a whole number from 1 on`);
  if (count < 1) throw new InputError('there is nothing to train on: the data set has no item');
  if (dropLast && count < batchSize)
    throw new InputError(
      `${count} items make no full batch of ${batchSize}: take smaller batches or keep the last one`,
    );
  const perEpoch = dropLast ? Math.floor(count / batchSize) : Math.ceil(count / batchSize);
  const random = createRandom(seed);
  let epochOf: { readonly epoch: number; readonly order: Int32Array } | undefined;
  const orderOf = (epoch: number): Int32Array => {
    if (epochOf?.epoch !== epoch) {
      const order = shuffle ? random.fork(epoch).permutation(count) : Int32Array.from({ length: count }, (_, i) => i);
      epochOf = { epoch, order };
    }
    return epochOf.order;
  };
  return {
    perEpoch,
    items(index) {
      const order = orderOf(Math.floor(index / perEpoch));
      const first = (index % perEpoch) * batchSize;
      return order.slice(first, Math.min(count, first + batchSize));
    },
  };
}
