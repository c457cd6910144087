/** How a budget of variance is shared over modes. */
export interface Allocation {
  /** Power of every mode, summing to the budget. */
  readonly power: Float64Array;
  /** Water level ν of the water-filling, or the multiplier μ of the regularised allocation. */
  readonly level: number;
  /** `½ Σ log(1 + g p)`. */
  readonly informationNats: number;
  /** exp of the entropy of `p / budget`. */
  readonly effectiveDimension: number;
}

function described(gains: Float64Array, power: Float64Array, budget: number, level: number): Allocation {
  let informationNats = 0;
  let entropy = 0;
  for (let i = 0; i < gains.length; i++) {
    informationNats += 0.5 * Math.log1p(gains[i] * power[i]);
    const share = power[i] / budget;
    if (share > 0) entropy -= share * Math.log(share);
  }
  return { power, level, informationNats, effectiveDimension: Math.exp(entropy) };
}

/**
 * Water-filling `p_i = max(0, ν − 1/g_i)`, Σp = budget: the allocation that maximises `½ Σ log(1 + g p)` (Cheng et al.
 * 2025, proposition 4).
 * @param gains of the modes, in any order, not negative
 */
export function waterFilling(gains: Float64Array, budget: number): Allocation {
  const order = Array.from(gains, (_, i) => i)
    .filter((i) => gains[i] > 0)
    .sort((a, b) => gains[b] - gains[a]);
  const power = new Float64Array(gains.length);
  if (order.length === 0) {
    power.fill(budget / gains.length);
    return described(gains, power, budget, Number.POSITIVE_INFINITY);
  }
  let level = 0;
  let inverse = 0;
  for (const [rank, i] of order.entries()) {
    inverse += 1 / gains[i];
    const next = (budget + inverse) / (rank + 1);
    // A mode joins as long as the level it would make lies above its own floor.
    if (rank > 0 && next <= 1 / gains[i]) break;
    level = next;
  }
  for (const i of order) power[i] = Math.max(0, level - 1 / gains[i]);
  return described(gains, power, budget, level);
}

const BISECTIONS = 200;

/** The p > 0 at which `g / (2(1 + g p)) − (γ/b)(log(p/b) + 1)` equals μ: the left side falls in p. */
function powerAt(gain: number, budget: number, gamma: number, multiplier: number): number {
  const slope = (logShare: number): number => {
    const p = budget * Math.exp(logShare);
    return gain / (2 * (1 + gain * p)) - (gamma / budget) * (logShare + 1) - multiplier;
  };
  let low = -1;
  while (slope(low) < 0) low *= 2;
  let high = 1;
  while (slope(high) > 0) high *= 2;
  for (let i = 0; i < BISECTIONS; i++) {
    const middle = (low + high) / 2;
    if (middle === low || middle === high) break;
    if (slope(middle) > 0) low = middle;
    else high = middle;
  }
  return budget * Math.exp((low + high) / 2);
}

/**
 * The allocation that maximises information plus γ times the entropy of the shares (Cheng et al. 2025, proposition 5): every
 * mode has `g/(2(1 + g p)) − μ = (γ/b)(log(p/b) + 1)`, p > 0, Σp = b; solved by monotone roots in log p inside a
 * bisection on μ.
 * @param gamma weight of the entropy, positive
 * @throws RangeError for a gamma or budget that is not positive
 */
export function entropyRegularisedAllocation(gains: Float64Array, budget: number, gamma: number): Allocation {
  if (!(gamma > 0 && budget > 0)) throw new RangeError(`gamma ${gamma} and budget ${budget} must be positive`);
  const powers = (multiplier: number): Float64Array =>
    Float64Array.from(gains, (gain) => powerAt(gain, budget, gamma, multiplier));
  const total = (power: Float64Array): number => power.reduce((sum, p) => sum + p, 0);
  let low = -1;
  while (total(powers(low)) < budget) low *= 2;
  let high = 1;
  while (total(powers(high)) > budget) high *= 2;
  for (let i = 0; i < BISECTIONS; i++) {
    const middle = (low + high) / 2;
    if (middle === low || middle === high) break;
    if (total(powers(middle)) > budget) low = middle;
    else high = middle;
  }
  const multiplier = (low + high) / 2;
  return described(gains, powers(multiplier), budget, multiplier);
}
