import { InputError } from '../errors.js';
import { rotateHessian } from '../kernels/hadamard.js';
import { choleskyInPlace } from '../linalg/blocked-cholesky.js';
import type { Rotation } from '../linalg/hadamard.js';

/** Relative damping that is tried first (Frantar et al. 2023, section 3.3), and the greatest. */
export const FIRST_DAMPING = 0.01;
const MOST_DAMPING = 1;
/** Of a pair of entries that mirror each other, relative to the geometric mean of their diagonal entries. */
const ASYMMETRY = 1e-6;

export interface HessianOptions {
  /** Named in messages. */
  readonly tensor: string;
  /** Tokens behind the Hessian; fewer than twice the inputs are warned about. */
  readonly tokens?: number;
  /** Damping that is tried first, relative to the mean of the diagonal; default 0.01. */
  readonly damping?: number;
  /** Rotation of the rows of the weights. */
  readonly rotation?: Rotation;
  /** Order groups of so many columns by descending mean of the diagonal; useless after a rotation. */
  readonly orderGroups?: number;
  readonly threads?: number;
}

/**
 * A damped Hessian H of n inputs and its factor R, upper triangular, `H = R Rᵀ`. `U = R⁻¹` is the factor of
 * `H⁻¹ = Uᵀ U` that GPTQ works with; error feedback needs only `U_bb⁻¹ = R_bb` and `U_bb⁻¹ ... U_b,rest`, which R gives
 * without inverting anything.
 */
export interface HessianFactor {
  readonly n: number;
  /** `[n, n]`: R on and above the diagonal, H below it. */
  readonly packed: Float64Array;
  /** Diagonal of the damped H. */
  readonly diagonal: Float64Array;
  /** lambda, relative to the mean of the diagonal. */
  readonly damping: number;
  /** What was added to the diagonal. */
  readonly ridge: number;
  /** Inputs that were zero in all tokens, ascending, in the order of the unrotated inputs. */
  readonly deadInputs: Int32Array;
  /** Input that stands at each column, when groups were ordered; also the order of the columns of R. */
  readonly columnOrder?: Int32Array;
  readonly warnings: readonly string[];
}

/** `0-7, 12, 20-21`. */
export function listRanges(indices: ArrayLike<number>, most = 20): string {
  const ranges: string[] = [];
  for (let i = 0; i < indices.length; ) {
    let j = i;
    while (j + 1 < indices.length && indices[j + 1] === indices[j] + 1) j++;
    if (ranges.length === most) return `${ranges.join(', ')}, ... (${indices.length} in all)`;
    ranges.push(i === j ? `${indices[i]}` : `${indices[i]}-${indices[j]}`);
    i = j + 1;
  }
  return ranges.join(', ');
}

/** Calls `visit(i, j)` for all j < i, by tiles whose mirror images stay in a cache. */
function forEachBelow(n: number, visit: (i: number, j: number) => void): void {
  const tile = 32;
  for (let i0 = 0; i0 < n; i0 += tile) {
    for (let j0 = 0; j0 <= i0; j0 += tile) {
      for (let i = i0; i < Math.min(i0 + tile, n); i++) {
        for (let j = j0; j < Math.min(j0 + tile, i); j++) visit(i, j);
      }
    }
  }
}

/** @throws InputError when an entry is not finite, a diagonal entry is negative or mirrored entries differ */
function checkHessian(hessian: Float64Array, n: number, tensor: string): void {
  for (let i = 0; i < n; i++) {
    if (hessian[i * n + i] >= 0 && hessian[i * n + i] < Number.POSITIVE_INFINITY) continue;
    throw new InputError(`Hessian of ${tensor}: entry ${hessian[i * n + i]} on the diagonal, input ${i}`);
  }
  forEachBelow(n, (i, j) => {
    const lower = hessian[i * n + j];
    const upper = hessian[j * n + i];
    if (!Number.isFinite(lower) || !Number.isFinite(upper)) {
      throw new InputError(`Hessian of ${tensor}: entry that is not finite for inputs ${j} and ${i}`);
    }
    if (lower === upper) return;
    if (Math.abs(lower - upper) > ASYMMETRY * Math.sqrt(hessian[i * n + i] * hessian[j * n + j])) {
      throw new InputError(`Hessian of ${tensor} is not symmetric for inputs ${j} and ${i}`);
    }
  });
}

/** Inputs whose diagonal entry is zero. Their entries become 1. @throws InputError when all are */
function reviveDeadInputs(hessian: Float64Array, n: number, tensor: string): Int32Array {
  const dead: number[] = [];
  for (let i = 0; i < n; i++) {
    if (hessian[i * n + i] !== 0) continue;
    dead.push(i);
    hessian[i * n + i] = 1;
  }
  if (dead.length === n) {
    throw new InputError(
      `Hessian of ${tensor} has rank zero: all ${n} inputs are dead (${listRanges(dead)}); give calibration data that reaches this tensor`,
    );
  }
  return Int32Array.from(dead);
}

/** Sets the columns of dead inputs of weights `[rows, n]` to zero, in place and before any rotation. */
export function clearDeadInputs(weights: Float32Array | Float64Array, rows: number, n: number, dead: Int32Array): void {
  for (let r = 0; r < rows; r++) for (const input of dead) weights[r * n + input] = 0;
}

function transposeInPlace(a: Float64Array, n: number): void {
  forEachBelow(n, (i, j) => {
    const kept = a[i * n + j];
    a[i * n + j] = a[j * n + i];
    a[j * n + i] = kept;
  });
}

/** The upper triangle becomes the mirror of the lower one. */
function mirrorLower(a: Float64Array, n: number): void {
  forEachBelow(n, (i, j) => {
    a[j * n + i] = a[i * n + j];
  });
}

/**
 * Columns in the order of their groups by descending mean of the diagonal, equal means in their own order; columns
 * inside a group stay together, and a shorter last group stays last.
 */
export function groupOrder(diagonal: Float64Array, groupColumns: number): Int32Array {
  const n = diagonal.length;
  const whole = Math.floor(n / groupColumns);
  const means = Float64Array.from({ length: whole }, (_, g) => {
    let sum = 0;
    for (let c = g * groupColumns; c < (g + 1) * groupColumns; c++) sum += diagonal[c];
    return sum / groupColumns;
  });
  const groups = Array.from(means.keys()).sort((a, b) => means[b] - means[a] || a - b);
  const order = Int32Array.from({ length: n }, (_, c) => c);
  groups.forEach((group, place) => {
    for (let c = 0; c < groupColumns; c++) order[place * groupColumns + c] = group * groupColumns + c;
  });
  return order;
}

/** Column `c` of the result is column `order[c]` of `rows [count, n]`; in place. */
export function orderColumns(
  rows: Float32Array | Float64Array,
  count: number,
  n: number,
  order: Int32Array,
  inverse = false,
): void {
  const kept = new Float64Array(n);
  for (let r = 0; r < count; r++) {
    kept.set(rows.subarray(r * n, (r + 1) * n));
    if (inverse) for (let c = 0; c < n; c++) rows[r * n + order[c]] = kept[c];
    else for (let c = 0; c < n; c++) rows[r * n + c] = kept[order[c]];
  }
}

/**
 * Factors `H + lambda mean(diag H) I`, with lambda ten times larger, up to 1, until there is a factor. In place: R on and
 * above the diagonal of the result, the damped H below. The upper triangle, which a failure leaves as it was, restores
 * the lower one.
 */
function factorDamped(
  hessian: Float64Array,
  n: number,
  first: number,
  threads: number | undefined,
): { damping: number; ridge: number; diagonal: Float64Array; tried: number[] } | undefined {
  const diagonal = Float64Array.from({ length: n }, (_, i) => hessian[i * n + i]);
  const mean = diagonal.reduce((sum, value) => sum + value, 0) / n;
  const tried: number[] = [];
  // J H J = L Lᵀ with J the exchange of first and last gives R = J L J, and J A J is the flat array reversed.
  hessian.reverse();
  for (let damping = first; ; damping = damping === 0 ? FIRST_DAMPING : Math.min(MOST_DAMPING, damping * 10)) {
    tried.push(damping);
    const ridge = damping * mean;
    for (let i = 0; i < n; i++) hessian[i * n + i] = diagonal[n - 1 - i] + ridge;
    if (choleskyInPlace(hessian, n, { keepUpper: true, threads })) {
      hessian.reverse();
      return { damping, ridge, diagonal: diagonal.map((value) => value + ridge), tried };
    }
    if (damping >= MOST_DAMPING) return undefined;
    forEachBelow(n, (i, j) => {
      hessian[i * n + j] = hessian[j * n + i];
    });
  }
}

/**
 * Makes a Hessian ready for error feedback, in place: `H = (2/N) sum x xᵀ` of the unrotated inputs `[n, n]`, symmetric.
 * Dead inputs get 1 on the diagonal (their weight columns are zero: {@link clearDeadInputs}), then H is rotated, damped
 * and factored. One factor serves all tensors that share the inputs.
 * @param hessian overwritten: its memory is that of the result
 * @throws InputError when H is not symmetric or finite, has rank zero, or has no factor at damping 1
 */
export function factorHessian(hessian: Float64Array, n: number, options: HessianOptions): HessianFactor {
  const { tensor, tokens, damping: first = FIRST_DAMPING, threads } = options;
  if (hessian.length !== n * n) throw new RangeError(`${hessian.length} entries are no Hessian of ${n} inputs`);
  if (!(first >= 0 && first <= MOST_DAMPING)) {
    throw new InputError(`damping ${first} is outside 0 to ${MOST_DAMPING}`);
  }
  checkHessian(hessian, n, tensor);
  const deadInputs = reviveDeadInputs(hessian, n, tensor);
  if (options.rotation !== undefined) rotateHessian(hessian, options.rotation, threads);
  mirrorLower(hessian, n);
  let columnOrder: Int32Array | undefined;
  if (options.orderGroups !== undefined) {
    const diagonal = Float64Array.from({ length: n }, (_, i) => hessian[i * n + i]);
    columnOrder = groupOrder(diagonal, options.orderGroups);
    orderColumns(hessian, n, n, columnOrder);
    transposeInPlace(hessian, n);
    orderColumns(hessian, n, n, columnOrder);
  }
  const factored = factorDamped(hessian, n, first, threads);
  const counted = tokens === undefined ? 'an unknown number of' : `${tokens}`;
  if (factored === undefined) {
    throw new InputError(
      `Hessian of ${tensor} is not positive definite after damping ${MOST_DAMPING}; ${counted} tokens for ${n} inputs`,
    );
  }
  const { damping, ridge, diagonal, tried } = factored;
  const warnings: string[] = [];
  if (tried.length > 1) {
    warnings.push(
      `Hessian of ${tensor} is not positive definite with damping ${tried.slice(0, -1).join(', ')}: ${damping} is used`,
    );
  }
  if (tokens !== undefined && tokens < 2 * n) {
    warnings.push(`Hessian of ${tensor}: ${tokens} tokens for ${n} inputs, fewer than two an input`);
  }
  if (deadInputs.length > 0) {
    warnings.push(
      `${tensor}: ${deadInputs.length} of ${n} inputs are dead (${listRanges(deadInputs)}); their weights become 0`,
    );
  }
  return { n, packed: hessian, diagonal, damping, ridge, deadInputs, columnOrder, warnings };
}
