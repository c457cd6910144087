/** Sweeps after which an eigenvalue that has not settled is a fault of the input; two or three are usual. */
const MOST_SWEEPS = 60;

/**
 * Eigenvalues alone, ascending, of a symmetric matrix given by its lower triangle packed by rows: entry (i, j), j <= i,
 * at `i (i + 1) / 2 + j`. Householder tridiagonalisation and implicit QR with Wilkinson shifts (Golub & Van Loan 2013,
 * algorithms 8.3.1 and 8.3.3); about a third of the work of a decomposition with vectors. The entries are overwritten.
 * @throws RangeError when the entries do not make a matrix of order n or are not finite
 */
export function symmetricEigenvalues(packed: Float64Array, n: number): Float64Array {
  if (packed.length !== (n * (n + 1)) / 2)
    throw new RangeError(`${packed.length} entries are no triangle of order ${n}`);
  for (const entry of packed) if (!Number.isFinite(entry)) throw new RangeError(`a symmetric matrix holds ${entry}`);
  const diagonal = new Float64Array(n);
  const off = new Float64Array(Math.max(0, n - 1));
  tridiagonalise(packed, n, diagonal, off);
  diagonalise(diagonal, off);
  return diagonal.sort();
}

/** Reduces from the last row upwards, so that what is left is always the leading triangle of the packed rows. */
function tridiagonalise(a: Float64Array, n: number, diagonal: Float64Array, off: Float64Array): void {
  const v = new Float64Array(n);
  const p = new Float64Array(n);
  for (let last = n - 1; last >= 2; last--) {
    const row = (last * (last + 1)) / 2;
    diagonal[last] = a[row + last];
    let largest = 0;
    for (let j = 0; j < last; j++) largest = Math.max(largest, Math.abs(a[row + j]));
    let squares = 0;
    for (let j = 0; j < last; j++) {
      v[j] = largest === 0 ? 0 : a[row + j] / largest;
      squares += v[j] * v[j];
    }
    const length = Math.sqrt(squares);
    if (length === 0) {
      off[last - 1] = 0;
      continue;
    }
    // v = x + sign(x_end) |x| e_end, so that nothing cancels; the reflection maps x to -sign(x_end) |x| e_end.
    const end = v[last - 1];
    const signed = end < 0 ? -length : length;
    off[last - 1] = -signed * largest;
    v[last - 1] = end + signed;
    const beta = 1 / (squares + length * Math.abs(end));
    p.fill(0, 0, last);
    for (let i = 0; i < last; i++) {
      const at = (i * (i + 1)) / 2;
      const vi = v[i];
      let sum = 0;
      for (let j = 0; j < i; j++) {
        const entry = a[at + j];
        sum += entry * v[j];
        p[j] += entry * vi;
      }
      p[i] += sum + a[at + i] * vi;
    }
    let product = 0;
    for (let i = 0; i < last; i++) {
      p[i] *= beta;
      product += p[i] * v[i];
    }
    const half = 0.5 * beta * product;
    for (let i = 0; i < last; i++) p[i] -= half * v[i];
    for (let i = 0; i < last; i++) {
      const at = (i * (i + 1)) / 2;
      const vi = v[i];
      const pi = p[i];
      for (let j = 0; j <= i; j++) a[at + j] -= vi * p[j] + pi * v[j];
    }
  }
  if (n > 1) {
    diagonal[1] = a[2];
    off[0] = a[1];
  }
  if (n > 0) diagonal[0] = a[0];
}

/** Implicit QR on a symmetric tridiagonal matrix; the diagonal becomes the eigenvalues. */
function diagonalise(d: Float64Array, e: Float64Array): void {
  let norm = 0;
  for (let i = 0; i < d.length; i++) norm = Math.max(norm, Math.abs(d[i]), i < e.length ? Math.abs(e[i]) : 0);
  // What is below the rounding of the largest entry is zero: a matrix of low rank would not settle otherwise.
  const negligible = Number.EPSILON * norm;
  let end = d.length - 1;
  let sweeps = 0;
  while (end > 0) {
    let start = end;
    while (start > 0) {
      if (Math.abs(e[start - 1]) <= negligible) {
        e[start - 1] = 0;
        break;
      }
      start--;
    }
    if (start === end) {
      end--;
      sweeps = 0;
      continue;
    }
    if (++sweeps > MOST_SWEEPS) throw new RangeError('eigenvalues of a symmetric matrix did not settle');
    const gap = (d[end - 1] - d[end]) / 2;
    const last = e[end - 1];
    const shift = d[end] - (last * last) / (gap + (gap < 0 ? -1 : 1) * Math.hypot(gap, last));
    let x = d[start] - shift;
    let z = e[start];
    for (let k = start; k < end; k++) {
      const r = Math.hypot(x, z);
      const c = r === 0 ? 1 : x / r;
      const s = r === 0 ? 0 : z / r;
      if (k > start) e[k - 1] = r;
      const upper = d[k];
      const lower = d[k + 1];
      const cross = e[k];
      d[k] = c * c * upper + 2 * c * s * cross + s * s * lower;
      d[k + 1] = s * s * upper - 2 * c * s * cross + c * c * lower;
      e[k] = c * s * (lower - upper) + (c * c - s * s) * cross;
      if (k < end - 1) {
        x = e[k];
        z = s * e[k + 1];
        e[k + 1] *= c;
      }
    }
  }
}
