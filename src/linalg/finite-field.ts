/** Finite fields of odd order as far as conference matrices need them: differences and the quadratic character. */

/** The prime p and exponent k with q = p^k; undefined when q is no power of a prime. */
export function primePower(q: number): { readonly p: number; readonly k: number } | undefined {
  if (!Number.isInteger(q) || q < 2) return undefined;
  let p = q;
  for (let divisor = 2; divisor * divisor <= q; divisor++) {
    if (q % divisor === 0) {
      p = divisor;
      break;
    }
  }
  let k = 0;
  let rest = q;
  while (rest % p === 0) {
    rest /= p;
    k++;
  }
  return rest === 1 ? { p, k } : undefined;
}

/** Digits of `value` in base p, the lowest first. */
function digitsOf(value: number, p: number, count: number): Int32Array {
  const digits = new Int32Array(count);
  let rest = value;
  for (let i = 0; i < count; i++) {
    digits[i] = rest % p;
    rest = Math.floor(rest / p);
  }
  return digits;
}

function elementOf(digits: Int32Array, p: number): number {
  let value = 0;
  for (let i = digits.length - 1; i >= 0; i--) value = value * p + digits[i];
  return value;
}

/** Whether the monic polynomial `divisor` (lowest coefficient first) divides `dividend` over GF(p). */
function divides(divisor: Int32Array, dividend: Int32Array, p: number): boolean {
  const rest = dividend.slice();
  const degree = divisor.length - 1;
  for (let top = rest.length - 1; top >= degree; top--) {
    const factor = rest[top];
    if (factor === 0) continue;
    for (let i = 0; i <= degree; i++) {
      const at = top - degree + i;
      rest[at] = (rest[at] + (p - factor) * divisor[i]) % p;
    }
  }
  return rest.every((digit) => digit === 0);
}

/** The monic polynomial x^degree + ... whose lower coefficients are the base-p digits of `lower`. */
function monic(lower: number, p: number, degree: number): Int32Array {
  const polynomial = new Int32Array(degree + 1);
  polynomial.set(digitsOf(lower, p, degree));
  polynomial[degree] = 1;
  return polynomial;
}

function isIrreducible(polynomial: Int32Array, p: number): boolean {
  const degree = polynomial.length - 1;
  for (let d = 1; 2 * d <= degree; d++) {
    for (let lower = 0; lower < p ** d; lower++) {
      if (divides(monic(lower, p, d), polynomial, p)) return false;
    }
  }
  return true;
}

/**
 * The first monic irreducible polynomial of degree k over GF(p), by its lower coefficients read as a base-p number;
 * coefficients lowest first, k + 1 of them.
 */
export function firstIrreducible(p: number, k: number): Int32Array {
  for (let lower = 0; ; lower++) {
    const polynomial = monic(lower, p, k);
    if (isIrreducible(polynomial, p)) return polynomial;
  }
}

function square(element: Int32Array, modulus: Int32Array, p: number): Int32Array {
  const k = element.length;
  const product = new Int32Array(2 * k - 1);
  for (let i = 0; i < k; i++) {
    for (let j = 0; j < k; j++) product[i + j] = (product[i + j] + element[i] * element[j]) % p;
  }
  for (let top = product.length - 1; top >= k; top--) {
    const factor = product[top];
    for (let i = 0; i <= k; i++) {
      const at = top - k + i;
      product[at] = (product[at] + (p - factor) * modulus[i]) % p;
    }
  }
  return product.subarray(0, k);
}

/**
 * The matrix Q [q, q] of Paley, Q[i][j] = chi(i - j), where chi is 1 for squares, -1 for other elements and 0 at zero
 * of GF(q), q = p^k odd. Element e has the base-p digits of e as coefficients, the constant term first.
 * @throws RangeError when q is no power of an odd prime
 */
export function jacobsthalMatrix(q: number): Int8Array {
  const power = primePower(q);
  if (power === undefined || power.p === 2) throw new RangeError(`${q} is no power of an odd prime`);
  const { p, k } = power;
  const modulus = firstIrreducible(p, k);
  const elements = Array.from({ length: q }, (_, e) => digitsOf(e, p, k));
  const character = new Int8Array(q).fill(-1);
  character[0] = 0;
  for (let e = 1; e < q; e++) character[elementOf(square(elements[e], modulus, p), p)] = 1;
  const matrix = new Int8Array(q * q);
  const difference = new Int32Array(k);
  for (let i = 0; i < q; i++) {
    for (let j = 0; j < q; j++) {
      for (let d = 0; d < k; d++) difference[d] = (elements[i][d] - elements[j][d] + p) % p;
      matrix[i * q + j] = character[elementOf(difference, p)];
    }
  }
  return matrix;
}
