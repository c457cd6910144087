import { RunError } from '../errors.js';

/** Eigenvalues of a real matrix: `real[i] + i imaginary[i]`, complex ones as conjugate pairs, in no particular order. */
export interface ComplexValues {
  readonly real: Float64Array;
  readonly imaginary: Float64Array;
}

/** Francis steps for one eigenvalue after which a matrix is given up; ten are unusual. */
const MOST_STEPS = 60;
/** Steps after which an exceptional shift breaks a cycle. */
const EXCEPTIONAL = 10;

/**
 * Eigenvalues of a real square matrix `[n, n]`, row-major, which need not be symmetric: balancing, reduction to
 * Hessenberg form by Householder reflections and Francis's implicit double-shift QR, values only (Golub & Van Loan 2013,
 * algorithms 7.4.2 and 7.5.2). O(10 n^3). The matrix is overwritten.
 * @throws RangeError when the entries do not make a square matrix or are not finite; RunError when QR does not settle
 */
export function generalEigenvalues(matrix: Float64Array, n: number): ComplexValues {
  if (matrix.length !== n * n) throw new RangeError(`${matrix.length} entries are no ${n} x ${n} matrix`);
  for (const entry of matrix) if (!Number.isFinite(entry)) throw new RangeError(`a matrix holds ${entry}`);
  balance(matrix, n);
  reduceToHessenberg(matrix, n);
  return hessenbergEigenvalues(matrix, n);
}

/**
 * The same by the strongly connected components of the matrix's graph: ordered by components the matrix is block
 * triangular, so that its eigenvalues are those of the diagonal blocks. Exact, and much less work for sparse matrices
 * such as neighbour graphs. The matrix is left as it is.
 */
export function eigenvaluesByComponents(matrix: Float64Array, n: number): ComplexValues {
  const real = new Float64Array(n);
  const imaginary = new Float64Array(n);
  let at = 0;
  for (const component of stronglyConnected(matrix, n)) {
    const size = component.length;
    if (size === 1) {
      real[at++] = matrix[component[0] * n + component[0]];
      continue;
    }
    const block = new Float64Array(size * size);
    component.forEach((row, i) => {
      component.forEach((column, j) => {
        block[i * size + j] = matrix[row * n + column];
      });
    });
    const values = generalEigenvalues(block, size);
    real.set(values.real, at);
    imaginary.set(values.imaginary, at);
    at += size;
  }
  return { real, imaginary };
}

/** Strongly connected components of the graph with an edge i -> j for every entry (i, j) != 0 (Tarjan 1972), each ascending. */
export function stronglyConnected(matrix: Float64Array, n: number): number[][] {
  const order = new Int32Array(n).fill(-1);
  const low = new Int32Array(n);
  const onStack = new Uint8Array(n);
  const next = new Int32Array(n);
  const stack: number[] = [];
  const path: number[] = [];
  const components: number[][] = [];
  let visited = 0;
  for (let root = 0; root < n; root++) {
    if (order[root] >= 0) continue;
    path.push(root);
    while (path.length > 0) {
      const node = path[path.length - 1];
      if (order[node] < 0) {
        order[node] = visited;
        low[node] = visited++;
        stack.push(node);
        onStack[node] = 1;
      }
      let descended = false;
      while (next[node] < n) {
        const other = next[node]++;
        if (matrix[node * n + other] === 0 || other === node) continue;
        if (order[other] < 0) {
          path.push(other);
          descended = true;
          break;
        }
        if (onStack[other]) low[node] = Math.min(low[node], order[other]);
      }
      if (descended) continue;
      path.pop();
      if (path.length > 0) low[path[path.length - 1]] = Math.min(low[path[path.length - 1]], low[node]);
      if (low[node] !== order[node]) continue;
      const component: number[] = [];
      let member: number;
      do {
        member = stack.pop() ?? node;
        onStack[member] = 0;
        component.push(member);
      } while (member !== node);
      components.push(component.sort((a, b) => a - b));
    }
  }
  return components;
}

/** Scales rows and columns by powers of two until their norms are alike (Parlett & Reinsch 1969): exact, and the values stay. */
function balance(a: Float64Array, n: number): void {
  for (let settled = false; !settled; ) {
    settled = true;
    for (let i = 0; i < n; i++) {
      let column = 0;
      let row = 0;
      for (let j = 0; j < n; j++) {
        if (j === i) continue;
        column += Math.abs(a[j * n + i]);
        row += Math.abs(a[i * n + j]);
      }
      if (column === 0 || row === 0) continue;
      const before = column + row;
      let factor = 1;
      while (column < row / 2) {
        factor *= 2;
        column *= 4;
      }
      while (column >= row * 2) {
        factor /= 2;
        column /= 4;
      }
      if ((column + row) / factor >= 0.95 * before) continue;
      settled = false;
      for (let j = 0; j < n; j++) {
        a[i * n + j] /= factor;
        a[j * n + i] *= factor;
      }
    }
  }
}

/** Householder reflections from both sides; what lies below the subdiagonal is zero afterwards. */
function reduceToHessenberg(a: Float64Array, n: number): void {
  const v = new Float64Array(n);
  const products = new Float64Array(n);
  for (let k = 0; k < n - 2; k++) {
    let largest = 0;
    for (let i = k + 1; i < n; i++) largest = Math.max(largest, Math.abs(a[i * n + k]));
    let below = 0;
    for (let i = k + 2; i < n; i++) below = Math.max(below, Math.abs(a[i * n + k]));
    if (below === 0) continue;
    let squares = 0;
    for (let i = k + 1; i < n; i++) {
      v[i] = a[i * n + k] / largest;
      squares += v[i] * v[i];
    }
    const length = v[k + 1] < 0 ? -Math.sqrt(squares) : Math.sqrt(squares);
    const beta = 1 / (squares + Math.abs(length * v[k + 1]));
    v[k + 1] += length;
    // From the left: A -= v (beta v^T A), by rows.
    products.fill(0, k);
    for (let i = k + 1; i < n; i++) for (let j = k; j < n; j++) products[j] += v[i] * a[i * n + j];
    for (let i = k + 1; i < n; i++) {
      const factor = beta * v[i];
      for (let j = k; j < n; j++) a[i * n + j] -= factor * products[j];
    }
    // From the right: A -= (beta A v) v^T.
    for (let i = 0; i < n; i++) {
      let sum = 0;
      for (let j = k + 1; j < n; j++) sum += a[i * n + j] * v[j];
      sum *= beta;
      for (let j = k + 1; j < n; j++) a[i * n + j] -= sum * v[j];
    }
    a[(k + 1) * n + k] = -length * largest;
    for (let i = k + 2; i < n; i++) a[i * n + k] = 0;
  }
}

/** Row below which the subdiagonal entry is negligible, counted down from `end`. */
function startOfBlock(a: Float64Array, n: number, end: number, norm: number): number {
  let start = end;
  for (; start > 0; start--) {
    const beside = Math.abs(a[(start - 1) * n + start - 1]) + Math.abs(a[start * n + start]);
    const scale = beside === 0 ? norm : beside;
    if (Math.abs(a[start * n + start - 1]) <= Number.EPSILON * scale) {
      a[start * n + start - 1] = 0;
      break;
    }
  }
  return start;
}

function hessenbergEigenvalues(a: Float64Array, n: number): ComplexValues {
  const real = new Float64Array(n);
  const imaginary = new Float64Array(n);
  let norm = 0;
  for (const entry of a) norm = Math.max(norm, Math.abs(entry));
  let end = n - 1;
  let steps = 0;
  let shifted = 0;
  while (end >= 0) {
    const start = startOfBlock(a, n, end, norm);
    if (start === end) {
      real[end] = a[end * n + end] + shifted;
      end--;
      steps = 0;
      continue;
    }
    if (start === end - 1) {
      pairOfBlock(a, n, end, shifted, real, imaginary);
      end -= 2;
      steps = 0;
      continue;
    }
    if (++steps > MOST_STEPS) throw new RunError(`the eigenvalues of a matrix of order ${n} did not settle`);
    let sum = a[end * n + end] + a[(end - 1) * n + end - 1];
    let product = a[end * n + end] * a[(end - 1) * n + end - 1] - a[end * n + end - 1] * a[(end - 1) * n + end];
    if (steps % EXCEPTIONAL === 0) {
      const shift = a[end * n + end];
      shifted += shift;
      for (let i = 0; i <= end; i++) a[i * n + i] -= shift;
      const size = Math.abs(a[end * n + end - 1]) + Math.abs(a[(end - 1) * n + end - 2]);
      sum = 1.5 * size;
      product = size * size;
    }
    francisStep(a, n, start, end, sum, product);
  }
  return { real, imaginary };
}

/** Eigenvalues of the 2 x 2 block that ends at `end`. */
function pairOfBlock(
  a: Float64Array,
  n: number,
  end: number,
  shifted: number,
  real: Float64Array,
  imaginary: Float64Array,
): void {
  const last = a[end * n + end];
  const cross = a[end * n + end - 1] * a[(end - 1) * n + end];
  const half = 0.5 * (a[(end - 1) * n + end - 1] - last);
  const discriminant = half * half + cross;
  const root = Math.sqrt(Math.abs(discriminant));
  if (discriminant < 0) {
    real[end - 1] = last + half + shifted;
    real[end] = real[end - 1];
    imaginary[end - 1] = root;
    imaginary[end] = -root;
    return;
  }
  const far = half + (half < 0 ? -root : root);
  real[end - 1] = last + far + shifted;
  // The product of the two offsets is -cross; the smaller one is found without cancellation.
  real[end] = (far === 0 ? last : last - cross / far) + shifted;
}

/**
 * One implicit double-shift step on rows start..end, with the shifts given by their sum and product. The reflections act on
 * the active block alone: eigenvectors are not wanted.
 */
function francisStep(a: Float64Array, n: number, start: number, end: number, sum: number, product: number): void {
  // The bulge may start lower where two consecutive subdiagonal entries are small.
  let first = end - 2;
  let p = 0;
  let q = 0;
  let r = 0;
  for (; first >= start; first--) {
    const at = first * n + first;
    const own = a[at];
    const below = a[at + n];
    const next = a[at + n + 1];
    p = (own * own - sum * own + product) / below + a[at + 1];
    q = own + next - sum;
    r = a[at + 2 * n + 1];
    const size = Math.abs(p) + Math.abs(q) + Math.abs(r);
    if (size > 0) {
      p /= size;
      q /= size;
      r /= size;
    }
    if (first === start) break;
    const coupling = Math.abs(a[at - 1]) * (Math.abs(q) + Math.abs(r));
    const beside = Math.abs(p) * (Math.abs(a[at - n - 1]) + Math.abs(own) + Math.abs(next));
    if (coupling <= Number.EPSILON * beside) break;
  }
  for (let i = first + 2; i <= end; i++) {
    a[i * n + i - 2] = 0;
    if (i > first + 2) a[i * n + i - 3] = 0;
  }
  for (let k = first; k < end; k++) {
    const three = k < end - 1;
    let scale = 1;
    if (k > first) {
      p = a[k * n + k - 1];
      q = a[(k + 1) * n + k - 1];
      r = three ? a[(k + 2) * n + k - 1] : 0;
      scale = Math.abs(p) + Math.abs(q) + Math.abs(r);
      if (scale === 0) continue;
      p /= scale;
      q /= scale;
      r /= scale;
    } else if (!three) r = 0;
    const norm = Math.sqrt(p * p + q * q + r * r);
    const length = p < 0 ? -norm : norm;
    if (length === 0) continue;
    if (k > first) a[k * n + k - 1] = -length * scale;
    else if (first > start) a[k * n + k - 1] = -a[k * n + k - 1];
    p += length;
    const x = p / length;
    const y = q / length;
    const z = r / length;
    q /= p;
    r /= p;
    reflectRows(a, n, k, end, three, [x, y, z], [q, r]);
    reflectColumns(a, n, k, start, Math.min(end, k + 3), three, [x, y, z], [q, r]);
  }
}

type Triple = readonly [number, number, number];

function reflectRows(
  a: Float64Array,
  n: number,
  k: number,
  end: number,
  three: boolean,
  [x, y, z]: Triple,
  [q, r]: readonly [number, number],
): void {
  const top = k * n;
  for (let j = k; j <= end; j++) {
    let sum = a[top + j] + q * a[top + n + j];
    if (three) {
      sum += r * a[top + 2 * n + j];
      a[top + 2 * n + j] -= sum * z;
    }
    a[top + n + j] -= sum * y;
    a[top + j] -= sum * x;
  }
}

function reflectColumns(
  a: Float64Array,
  n: number,
  k: number,
  start: number,
  last: number,
  three: boolean,
  [x, y, z]: Triple,
  [q, r]: readonly [number, number],
): void {
  for (let i = start; i <= last; i++) {
    const at = i * n + k;
    let sum = x * a[at] + y * a[at + 1];
    if (three) {
      sum += z * a[at + 2];
      a[at + 2] -= sum * r;
    }
    a[at + 1] -= sum * q;
    a[at] -= sum;
  }
}
