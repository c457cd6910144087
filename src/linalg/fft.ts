/**
 * Fast Fourier transforms of real arrays. A plan holds the tables of one length and is reused over many transforms.
 * Lengths are products of 2, 3 and 5, so that a grid is padded by a few percent and not up to the next power of two.
 */

/** In-place transform of `n` complex numbers, real and imaginary parts apart, unnormalised. */
export interface ComplexPlan {
  readonly n: number;
  /** X_k = sum_j x_j exp(-2 pi i j k / n). */
  forward(re: Float64Array, im: Float64Array): void;
}

/** The smallest product of 2, 3 and 5 that is at least `n`; even where `even` is set. */
export function fastLength(n: number, even = false): number {
  for (let length = Math.max(1, Math.ceil(n)); ; length++) {
    if (even && length % 2 !== 0) continue;
    let rest = length;
    for (const prime of [2, 3, 5]) while (rest % prime === 0) rest /= prime;
    if (rest === 1) return length;
  }
}

function radicesOf(n: number): number[] {
  const radices: number[] = [];
  let rest = n;
  for (const radix of [4, 2, 3, 5]) {
    while (rest % radix === 0) {
      radices.push(radix);
      rest /= radix;
    }
  }
  if (rest !== 1) throw new RangeError(`${n} is not a product of 2, 3 and 5`);
  return radices;
}

/**
 * A plan for complex transforms of length `n` (Stockham's self-sorting passes of radix 4, 2, 3 and 5).
 * @throws RangeError when n has another prime factor
 */
export function complexPlan(n: number): ComplexPlan {
  const radices = radicesOf(n);
  const cosine = Float64Array.from({ length: n }, (_, k) => Math.cos((2 * Math.PI * k) / n));
  const sine = Float64Array.from({ length: n }, (_, k) => -Math.sin((2 * Math.PI * k) / n));
  const otherRe = new Float64Array(n);
  const otherIm = new Float64Array(n);
  return {
    n,
    forward(re, im) {
      let fromRe: Float64Array = re;
      let fromIm: Float64Array = im;
      let toRe: Float64Array = otherRe;
      let toIm: Float64Array = otherIm;
      let done = 1;
      for (const radix of radices) {
        pass(radix, n, done, fromRe, fromIm, toRe, toIm, cosine, sine);
        [fromRe, toRe] = [toRe, fromRe];
        [fromIm, toIm] = [toIm, fromIm];
        done *= radix;
      }
      if (fromRe !== re) {
        re.set(fromRe);
        im.set(fromIm);
      }
    },
  };
}

const HALF_SQRT3 = Math.sqrt(3) / 2;
const C1 = Math.cos((2 * Math.PI) / 5);
const C2 = Math.cos((4 * Math.PI) / 5);
const S1 = Math.sin((2 * Math.PI) / 5);
const S2 = Math.sin((4 * Math.PI) / 5);

/**
 * One pass: joins `radix` transforms of length `done` each to one of length `done * radix`. Coefficient k of the r-th of
 * them lies at `k + done * (p + r * rest)`, that of the joined one at `k + done * (r + radix * p)`.
 */
function pass(
  radix: number,
  n: number,
  done: number,
  fromRe: Float64Array,
  fromIm: Float64Array,
  toRe: Float64Array,
  toIm: Float64Array,
  cosine: Float64Array,
  sine: Float64Array,
): void {
  const span = n / radix;
  const rest = span / done;
  const xr = new Float64Array(radix);
  const xi = new Float64Array(radix);
  for (let k = 0; k < done; k++) {
    for (let p = 0; p < rest; p++) {
      const from = p * done + k;
      for (let r = 0; r < radix; r++) {
        const at = from + r * span;
        // The twiddle factor exp(-2 pi i k r / (done * radix)).
        const turn = k * r * rest;
        const c = cosine[turn];
        const s = sine[turn];
        xr[r] = fromRe[at] * c - fromIm[at] * s;
        xi[r] = fromRe[at] * s + fromIm[at] * c;
      }
      butterfly(radix, xr, xi);
      const to = p * done * radix + k;
      for (let r = 0; r < radix; r++) {
        toRe[to + r * done] = xr[r];
        toIm[to + r * done] = xi[r];
      }
    }
  }
}

/** The transform of 2, 3, 4 or 5 numbers in place. */
function butterfly(radix: number, xr: Float64Array, xi: Float64Array): void {
  if (radix === 2) {
    const r = xr[1];
    const i = xi[1];
    xr[1] = xr[0] - r;
    xi[1] = xi[0] - i;
    xr[0] += r;
    xi[0] += i;
  } else if (radix === 3) {
    const sumR = xr[1] + xr[2];
    const sumI = xi[1] + xi[2];
    const turnR = HALF_SQRT3 * (xi[1] - xi[2]);
    const turnI = -HALF_SQRT3 * (xr[1] - xr[2]);
    const middleR = xr[0] - 0.5 * sumR;
    const middleI = xi[0] - 0.5 * sumI;
    xr[0] += sumR;
    xi[0] += sumI;
    xr[1] = middleR + turnR;
    xi[1] = middleI + turnI;
    xr[2] = middleR - turnR;
    xi[2] = middleI - turnI;
  } else if (radix === 4) {
    const evenR = xr[0] + xr[2];
    const evenI = xi[0] + xi[2];
    const differenceR = xr[0] - xr[2];
    const differenceI = xi[0] - xi[2];
    const oddR = xr[1] + xr[3];
    const oddI = xi[1] + xi[3];
    const turnR = xi[1] - xi[3];
    const turnI = -(xr[1] - xr[3]);
    xr[0] = evenR + oddR;
    xi[0] = evenI + oddI;
    xr[1] = differenceR + turnR;
    xi[1] = differenceI + turnI;
    xr[2] = evenR - oddR;
    xi[2] = evenI - oddI;
    xr[3] = differenceR - turnR;
    xi[3] = differenceI - turnI;
  } else {
    const s14r = xr[1] + xr[4];
    const s14i = xi[1] + xi[4];
    const d14r = xr[1] - xr[4];
    const d14i = xi[1] - xi[4];
    const s23r = xr[2] + xr[3];
    const s23i = xi[2] + xi[3];
    const d23r = xr[2] - xr[3];
    const d23i = xi[2] - xi[3];
    const ar = xr[0] + C1 * s14r + C2 * s23r;
    const ai = xi[0] + C1 * s14i + C2 * s23i;
    const br = xr[0] + C2 * s14r + C1 * s23r;
    const bi = xi[0] + C2 * s14i + C1 * s23i;
    const pr = S1 * d14i + S2 * d23i;
    const pi = -(S1 * d14r + S2 * d23r);
    const qr = S2 * d14i - S1 * d23i;
    const qi = -(S2 * d14r - S1 * d23r);
    xr[0] += s14r + s23r;
    xi[0] += s14i + s23i;
    xr[1] = ar + pr;
    xi[1] = ai + pi;
    xr[4] = ar - pr;
    xi[4] = ai - pi;
    xr[2] = br + qr;
    xi[2] = bi + qi;
    xr[3] = br - qr;
    xi[3] = bi - qi;
  }
}

/** Transforms of `n` real numbers (n even) through a complex transform of half the length. */
export interface RealPlan {
  readonly n: number;
  /** Coefficients 0..n/2 of the transform of `x`. */
  forward(x: Float64Array, re: Float64Array, im: Float64Array): void;
  /** The real array whose coefficients 0..n/2 are given, divided by n: the inverse of `forward`. */
  inverse(re: Float64Array, im: Float64Array, x: Float64Array): void;
}

/**
 * A plan for real transforms of even length `n`; coefficients are `[n / 2 + 1]`.
 * @throws RangeError when n is odd or n / 2 is no product of 2, 3 and 5
 */
export function realPlan(n: number): RealPlan {
  if (n % 2 !== 0) throw new RangeError(`a real transform needs an even length, got ${n}`);
  const half = n / 2;
  const plan = complexPlan(half);
  const cosine = Float64Array.from({ length: half + 1 }, (_, k) => Math.cos((2 * Math.PI * k) / n));
  const sine = Float64Array.from({ length: half + 1 }, (_, k) => -Math.sin((2 * Math.PI * k) / n));
  const zr = new Float64Array(half);
  const zi = new Float64Array(half);
  return {
    n,
    forward(x, re, im) {
      for (let j = 0; j < half; j++) {
        zr[j] = x[2 * j];
        zi[j] = x[2 * j + 1];
      }
      plan.forward(zr, zi);
      for (let k = 0; k <= half; k++) {
        const a = k === half ? 0 : k;
        const b = k === 0 ? 0 : half - k;
        const evenR = 0.5 * (zr[a] + zr[b]);
        const evenI = 0.5 * (zi[a] - zi[b]);
        const oddR = 0.5 * (zi[a] + zi[b]);
        const oddI = -0.5 * (zr[a] - zr[b]);
        re[k] = evenR + cosine[k] * oddR - sine[k] * oddI;
        im[k] = evenI + cosine[k] * oddI + sine[k] * oddR;
      }
    },
    inverse(re, im, x) {
      // Conjugated before and after, the forward transform is the inverse one.
      for (let k = 0; k < half; k++) {
        const b = half - k;
        const evenR = 0.5 * (re[k] + re[b]);
        const evenI = 0.5 * (im[k] - im[b]);
        const turnedR = 0.5 * (re[k] - re[b]);
        const turnedI = 0.5 * (im[k] + im[b]);
        const oddR = cosine[k] * turnedR + sine[k] * turnedI;
        const oddI = cosine[k] * turnedI - sine[k] * turnedR;
        zr[k] = evenR - oddI;
        zi[k] = -(evenI + oddR);
      }
      plan.forward(zr, zi);
      for (let j = 0; j < half; j++) {
        x[2 * j] = zr[j] / half;
        x[2 * j + 1] = -zi[j] / half;
      }
    },
  };
}

/** Cyclic convolution of real images on a fixed `[height, width]` grid with a fixed kernel, through their transforms. */
export interface ImageConvolver {
  readonly height: number;
  readonly width: number;
  /** Convolves `image` `[height, width]` in place with the kernel that `setKernel` gave. */
  convolve(image: Float64Array): void;
  /** `kernel[dy, dx]` `[height, width]`; offsets are taken modulo the grid. */
  setKernel(kernel: Float64Array): void;
}

/** @throws RangeError when a side is no product of 2, 3 and 5, or the width is odd */
export function imageConvolver(height: number, width: number): ImageConvolver {
  const rowPlan = realPlan(width);
  const columnPlan = complexPlan(height);
  const bins = width / 2 + 1;
  const row = new Float64Array(width);
  const rowRe = new Float64Array(bins);
  const rowIm = new Float64Array(bins);
  const columnRe = new Float64Array(height);
  const columnIm = new Float64Array(height);
  // Transposed, `[bins, height]`, so that the second transform reads along memory.
  const spectrumRe = new Float64Array(bins * height);
  const spectrumIm = new Float64Array(bins * height);
  const kernelRe = new Float64Array(bins * height);
  const kernelIm = new Float64Array(bins * height);
  const transform = (image: Float64Array, re: Float64Array, im: Float64Array): void => {
    for (let y = 0; y < height; y++) {
      row.set(image.subarray(y * width, (y + 1) * width));
      rowPlan.forward(row, rowRe, rowIm);
      for (let k = 0; k < bins; k++) {
        re[k * height + y] = rowRe[k];
        im[k * height + y] = rowIm[k];
      }
    }
    for (let k = 0; k < bins; k++) {
      columnPlan.forward(re.subarray(k * height, (k + 1) * height), im.subarray(k * height, (k + 1) * height));
    }
  };
  return {
    height,
    width,
    setKernel: (kernel) => transform(kernel, kernelRe, kernelIm),
    convolve(image) {
      transform(image, spectrumRe, spectrumIm);
      for (let k = 0; k < bins; k++) {
        for (let y = 0; y < height; y++) {
          const at = k * height + y;
          const re = spectrumRe[at] * kernelRe[at] - spectrumIm[at] * kernelIm[at];
          columnIm[y] = -(spectrumRe[at] * kernelIm[at] + spectrumIm[at] * kernelRe[at]);
          columnRe[y] = re;
        }
        columnPlan.forward(columnRe, columnIm);
        for (let y = 0; y < height; y++) {
          spectrumRe[k * height + y] = columnRe[y] / height;
          spectrumIm[k * height + y] = -columnIm[y] / height;
        }
      }
      for (let y = 0; y < height; y++) {
        for (let k = 0; k < bins; k++) {
          rowRe[k] = spectrumRe[k * height + y];
          rowIm[k] = spectrumIm[k * height + y];
        }
        rowPlan.inverse(rowRe, rowIm, row);
        image.set(row, y * width);
      }
    },
  };
}
