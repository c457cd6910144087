import { InputError } from '../errors.js';
import { columnSpread, sortedQuantile } from '../kernels/column-scale.js';
import { normalCdf, normalQuantile } from '../linalg/special-functions.js';

export const DENSITY_KINDS = ['normal', 'fitted', 'kernel'] as const;
export type DensityKind = (typeof DENSITY_KINDS)[number];

/** Density of the inputs of an activation. */
export interface InputDensity {
  readonly kind: DensityKind;
  /** p and its first two derivatives at u. */
  at(u: number): readonly [density: number, first: number, second: number];
  /** Probability below u. */
  below(u: number): number;
  /** A point below which the share lies, near enough to say where the density ends. */
  quantile(share: number): number;
  readonly mean: number;
  readonly deviation: number;
  /** Standard deviation of the kernel. */
  readonly bandwidth: number | undefined;
}

const ROOT_TWO_PI = Math.sqrt(2 * Math.PI);

/** Normal density; standard when nothing is said. @throws InputError for a deviation that is not positive */
export function normalDensity(mean = 0, deviation = 1, kind: DensityKind = 'normal'): InputDensity {
  if (!(deviation > 0) || !Number.isFinite(mean + deviation)) {
    throw new InputError(`a normal density of mean ${mean} and deviation ${deviation} does not exist`);
  }
  return {
    kind,
    at(u) {
      const z = (u - mean) / deviation;
      const p = Math.exp((-z * z) / 2) / (ROOT_TWO_PI * deviation);
      return [p, (-z * p) / deviation, ((z * z - 1) * p) / deviation ** 2];
    },
    below: (u) => normalCdf((u - mean) / deviation),
    quantile: (share) => mean + deviation * normalQuantile(share),
    mean,
    deviation,
    bandwidth: undefined,
  };
}

/** Normal density with the mean and the deviation of recorded inputs. @throws InputError when they do not vary */
export function fittedDensity(sorted: Float64Array): InputDensity {
  const { mean, deviation } = momentsOf(sorted);
  if (!(deviation > 0)) throw new InputError('the recorded inputs do not vary, so they have no density');
  return normalDensity(mean, deviation, 'fitted');
}

function momentsOf(sorted: Float64Array): { mean: number; deviation: number } {
  let mean = 0;
  for (const value of sorted) mean += value;
  mean /= sorted.length;
  let squares = 0;
  for (const value of sorted) squares += (value - mean) ** 2;
  return { mean, deviation: sorted.length > 1 ? Math.sqrt(squares / (sorted.length - 1)) : 0 };
}

/** Beyond this many widths a Gaussian kernel has no weight in double precision. */
const KERNEL_REACH = 8.5;
/** Inputs closer than this share of the width stand in one place: relative error of p below 1e-4 of the kernel's. */
const PLACE = 1 / 64;

/**
 * Kernel density of recorded inputs with Gaussian kernels of Silverman's width. Inputs that lie within a 64th of the width
 * stand at their mean.
 * @param sorted ascending and finite
 * @throws InputError when the inputs do not vary
 */
export function kernelDensity(sorted: Float64Array): InputDensity {
  const width = sorted.length > 0 ? columnSpread(sorted).silverman : 0;
  if (!(width > 0)) throw new InputError('the recorded inputs do not vary, so they have no density');
  const places: number[] = [];
  const counts: number[] = [];
  for (let i = 0; i < sorted.length; ) {
    const end = sorted[i] + PLACE * width;
    let sum = 0;
    const from = i;
    while (i < sorted.length && sorted[i] <= end) sum += sorted[i++];
    places.push(sum / (i - from));
    counts.push((i - from) / sorted.length);
  }
  const firstFrom = (u: number): number => {
    let low = 0;
    let high = places.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (places[middle] < u) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  const cumulative = new Float64Array(places.length + 1);
  for (let i = 0; i < places.length; i++) cumulative[i + 1] = cumulative[i] + counts[i];
  return {
    kind: 'kernel',
    at(u) {
      let [p, first, second] = [0, 0, 0];
      const last = firstFrom(u + KERNEL_REACH * width);
      for (let i = firstFrom(u - KERNEL_REACH * width); i < last; i++) {
        const z = (u - places[i]) / width;
        const share = counts[i] * Math.exp((-z * z) / 2);
        p += share;
        first -= z * share;
        second += (z * z - 1) * share;
      }
      const scale = 1 / (ROOT_TWO_PI * width);
      return [p * scale, (first * scale) / width, (second * scale) / width ** 2];
    },
    below(u) {
      const from = firstFrom(u - KERNEL_REACH * width);
      const last = firstFrom(u + KERNEL_REACH * width);
      let sum = cumulative[from];
      for (let i = from; i < last; i++) sum += counts[i] * normalCdf((u - places[i]) / width);
      return sum;
    },
    quantile: (share) => sortedQuantile(sorted, share) + width * normalQuantile(share),
    ...momentsOf(sorted),
    bandwidth: width,
  };
}
