/** Fixed point with this many bits after the point. */
const BITS = 120n;
const ONE = 1n << BITS;

/** 2 artanh(z) in fixed point, |z| <= 1/3. */
function doubleArtanh(z: bigint): bigint {
  const square = (z * z) >> BITS;
  let power = z;
  let sum = 0n;
  for (let n = 1n; power !== 0n; n += 2n) {
    sum += power / n;
    power = (power * square) >> BITS;
  }
  return 2n * sum;
}

let logTwo: bigint | undefined;

/**
 * ln x rounded to the nearest double, for finite x > 0. `Math.log` may be off by one unit in the last place, by engine
 * and platform, which decides whether values that are equal but for the order of a sum come out equal. Slow: for sums
 * over few distinct arguments.
 */
export function roundedLog(x: number): number {
  const view = new DataView(new ArrayBuffer(8));
  // Subnormal numbers are brought into the normal range first.
  const small = x < 2.2250738585072014e-308;
  view.setFloat64(0, small ? x * 2 ** 54 : x);
  const bits = view.getBigUint64(0);
  const exponent = (bits >> 52n) - 1023n - (small ? 54n : 0n);
  const mantissa = ((bits & 0xfffffffffffffn) | 0x10000000000000n) << (BITS - 52n);
  logTwo ??= doubleArtanh(ONE / 3n);
  const fraction = doubleArtanh(((mantissa - ONE) << BITS) / (mantissa + ONE));
  return Number(fraction + exponent * logTwo) / Number(ONE);
}
