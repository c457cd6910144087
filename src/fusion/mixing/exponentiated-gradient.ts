import { InputError } from '../../errors.js';

/**
 * Proportions on the simplex by their logarithms. Weights that are multiplied round after round overflow, and a proportion
 * that has become 0 never comes back; their logarithms do neither.
 */

/** Logarithms of the uniform proportions of k groups, up to a constant. */
export const uniformLogWeights = (groups: number): Float64Array => new Float64Array(groups);

/** p_j = exp(w_j) / sum exp(w): softmax with the largest weight taken out. */
export function proportionsOf(logWeights: ArrayLike<number>): Float64Array {
  const k = logWeights.length;
  let most = Number.NEGATIVE_INFINITY;
  for (let j = 0; j < k; j++) most = Math.max(most, logWeights[j]);
  const p = new Float64Array(k);
  let sum = 0;
  for (let j = 0; j < k; j++) {
    p[j] = Math.exp(logWeights[j] - most);
    sum += p[j];
  }
  for (let j = 0; j < k; j++) p[j] /= sum;
  return p;
}

/** w + exponent, moved so that the largest is 0. The proportions are those of p_j exp(exponent_j). */
export function exponentiatedStep(logWeights: ArrayLike<number>, exponent: ArrayLike<number>): Float64Array {
  const next = Float64Array.from(logWeights, (weight, j) => weight + exponent[j]);
  const most = next.reduce((a, b) => Math.max(a, b));
  return next.map((weight) => weight - most);
}

/**
 * Proportions of which none is below `floor`: those below it are raised, the others scaled down to make room, again until
 * none falls below. Unchanged where none is.
 * @throws InputError when k floors exceed 1
 */
export function withFloor(p: Float64Array, floor: number): Float64Array {
  const k = p.length;
  if (!(floor >= 0 && floor * k <= 1))
    throw new InputError(`a floor of ${floor} for ${k} groups: must lie in [0, 1/k]`);
  if (p.every((share) => share >= floor)) return p;
  const raised = new Uint8Array(k);
  for (;;) {
    let free = 0;
    let count = 0;
    for (let j = 0; j < k; j++) {
      if (raised[j]) count++;
      else free += p[j];
    }
    const scale = free > 0 ? (1 - count * floor) / free : 0;
    let changed = false;
    for (let j = 0; j < k; j++) {
      if (!raised[j] && p[j] * scale < floor) {
        raised[j] = 1;
        changed = true;
      }
    }
    if (!changed) return p.map((share, j) => (raised[j] ? floor : share * scale));
  }
}

/** Shannon entropy of proportions in nats; 0 ln 0 = 0. */
export function entropyNats(p: ArrayLike<number>): number {
  let sum = 0;
  for (let j = 0; j < p.length; j++) if (p[j] > 0) sum -= p[j] * Math.log(p[j]);
  return sum;
}

/** KL(p || uniform) = ln k - H(p), in nats. */
export function divergenceFromUniform(p: ArrayLike<number>): number {
  return Math.max(0, Math.log(p.length) - entropyNats(p));
}

/**
 * Proportions as given, divided by their sum.
 * @throws InputError for fewer than two groups, entries that are negative, no number, or exactly 0
 */
export function checkProportions(values: ArrayLike<number>, groups: readonly string[], where: string): Float64Array {
  checkGroups(groups, where);
  if (values.length !== groups.length) {
    throw new InputError(`${where}: ${values.length} proportions for ${groups.length} groups (${groups.join(', ')})`);
  }
  let sum = 0;
  groups.forEach((name, j) => {
    const share = values[j];
    if (!(Number.isFinite(share) && share >= 0)) {
      throw new InputError(`${where}: the proportion of ${name} is ${share}; it must be a number above 0`);
    }
    if (share === 0) {
      throw new InputError(
        `${where}: the proportion of ${name} is 0, from which a multiplied weight never recovers; give it a small share`,
      );
    }
    sum += share;
  });
  return Float64Array.from(values, (share) => share / sum);
}

/** @throws InputError for fewer than two groups, or one that stands twice */
export function checkGroups(groups: readonly string[], where: string): void {
  if (groups.length < 2) {
    throw new InputError(`${where}: ${groups.length} group${groups.length === 1 ? '' : 's'}; mixing needs two or more`);
  }
  const twice = groups.find((name, j) => groups.indexOf(name) !== j);
  if (twice !== undefined) throw new InputError(`${where}: group ${twice} stands twice`);
}
