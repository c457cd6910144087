import { multiply } from '../kernels/gemm.js';
import { createRandom } from '../random.js';

/** A network with one hidden layer of tanh, `f(x) = V tanh(W x + c) + b`. */
export interface PairNetwork {
  readonly inputs: number;
  readonly hidden: number;
  readonly outputs: number;
  /** W `[hidden, inputs]`, c `[hidden]`, V `[outputs, hidden]`, b `[outputs]`, one after the other. */
  readonly theta: Float64Array;
}

export interface PairOptions {
  readonly hidden?: number;
  readonly epochs?: number;
  readonly batch?: number;
  readonly learningRate?: number;
  readonly seed?: number;
}

interface Slices {
  readonly first: Float64Array;
  readonly firstBias: Float64Array;
  readonly second: Float64Array;
  readonly secondBias: Float64Array;
}

function slicesOf({ inputs, hidden, outputs }: Omit<PairNetwork, 'theta'>, theta: Float64Array): Slices {
  const a = hidden * inputs;
  const b = a + hidden;
  const c = b + outputs * hidden;
  return {
    first: theta.subarray(0, a),
    firstBias: theta.subarray(a, b),
    second: theta.subarray(b, c),
    secondBias: theta.subarray(c, c + outputs),
  };
}

function forward(network: PairNetwork, x: Float64Array, count: number): { h: Float64Array; f: Float64Array } {
  const { inputs, hidden, outputs, theta } = network;
  const { first, firstBias, second, secondBias } = slicesOf(network, theta);
  const h = new Float64Array(count * hidden);
  for (let r = 0; r < count; r++) h.set(firstBias, r * hidden);
  multiply(x, first, h, { m: count, n: hidden, k: inputs }, { transposeB: true, beta: 1 });
  for (let i = 0; i < h.length; i++) h[i] = Math.tanh(h[i]);
  const f = new Float64Array(count * outputs);
  for (let r = 0; r < count; r++) f.set(secondBias, r * outputs);
  multiply(h, second, f, { m: count, n: outputs, k: hidden }, { transposeB: true, beta: 1 });
  return { h, f };
}

/** Features `f(x)` of rows `[count, inputs]`, `[count, outputs]`. */
export function pairFeatures(network: PairNetwork, x: Float64Array, count: number): Float64Array {
  return forward(network, x, count).f;
}

/** Adds the gradient of one side of the pairs to `gradient`. */
function backward(
  network: PairNetwork,
  x: Float64Array,
  h: Float64Array,
  intoF: Float64Array,
  count: number,
  gradient: Float64Array,
): void {
  const { inputs, hidden, outputs, theta } = network;
  const { second } = slicesOf(network, theta);
  const into = slicesOf(network, gradient);
  multiply(intoF, h, into.second, { m: outputs, n: hidden, k: count }, { transposeA: true, beta: 1 });
  const intoH = multiply(intoF, second, new Float64Array(count * hidden), { m: count, n: hidden, k: outputs });
  for (let i = 0; i < intoH.length; i++) intoH[i] *= 1 - h[i] * h[i];
  multiply(intoH, x, into.first, { m: hidden, n: inputs, k: count }, { transposeA: true, beta: 1 });
  for (let r = 0; r < count; r++) {
    for (let k = 0; k < outputs; k++) into.secondBias[k] += intoF[r * outputs + k];
    for (let k = 0; k < hidden; k++) into.firstBias[k] += intoH[r * hidden + k];
  }
}

/**
 * Mean of `-log P(t | x, x')` with `P(t = 1) = sigmoid(f(x) . f(x'))` over pairs `x, x2 [count, inputs]`, and its gradient.
 */
export function pairLoss(
  network: PairNetwork,
  x: Float64Array,
  x2: Float64Array,
  t: ArrayLike<number>,
  count: number,
): { loss: number; gradient: Float64Array } {
  const { outputs } = network;
  const one = forward(network, x, count);
  const two = forward(network, x2, count);
  const intoOne = new Float64Array(count * outputs);
  const intoTwo = new Float64Array(count * outputs);
  let loss = 0;
  for (let r = 0; r < count; r++) {
    let score = 0;
    for (let k = r * outputs; k < (r + 1) * outputs; k++) score += one.f[k] * two.f[k];
    // log(1 + exp(-|s|)) keeps both tails.
    const tail = Math.log1p(Math.exp(-Math.abs(score)));
    loss += (Math.max(0, score) - t[r] * score + tail) / count;
    const error = (1 / (1 + Math.exp(-score)) - t[r]) / count;
    for (let k = r * outputs; k < (r + 1) * outputs; k++) {
      intoOne[k] = error * two.f[k];
      intoTwo[k] = error * one.f[k];
    }
  }
  const gradient = new Float64Array(network.theta.length);
  backward(network, x, one.h, intoOne, count, gradient);
  backward(network, x2, two.h, intoTwo, count, gradient);
  return { loss, gradient };
}

/** A network with small random weights. */
export function createPairNetwork(inputs: number, hidden: number, outputs: number, seed: number): PairNetwork {
  const random = createRandom(seed);
  const theta = new Float64Array(hidden * (inputs + 1) + outputs * (hidden + 1));
  const { first, second } = slicesOf({ inputs, hidden, outputs }, theta);
  for (let i = 0; i < first.length; i++) first[i] = random.normal() / Math.sqrt(inputs);
  for (let i = 0; i < second.length; i++) second[i] = random.normal() / Math.sqrt(hidden);
  return { inputs, hidden, outputs, theta };
}

const BETA1 = 0.9;
const BETA2 = 0.999;
const ADAM_EPSILON = 1e-8;

/**
 * Maximum likelihood of `P(t = 1 | x, x') = sigmoid(f(x) . f(x'))` on `m` pairs by Adam, with the rate falling to zero as
 * a cosine.
 * @param x, @param x2 `[m, inputs]`, @param t `[m]` 1 for pairs with a common source
 */
export function fitPairs(
  x: Float64Array,
  x2: Float64Array,
  t: ArrayLike<number>,
  m: number,
  inputs: number,
  outputs: number,
  options: PairOptions = {},
): PairNetwork {
  const { hidden = 32, epochs = 30, batch = 128, learningRate = 3e-3, seed = 0 } = options;
  const network = createPairNetwork(inputs, hidden, outputs, seed);
  const { theta } = network;
  const mean = new Float64Array(theta.length);
  const square = new Float64Array(theta.length);
  const random = createRandom(seed).fork(1);
  const size = Math.min(batch, m);
  const steps = epochs * Math.max(1, Math.floor(m / size));
  const left = new Float64Array(size * inputs);
  const right = new Float64Array(size * inputs);
  const kinds = new Float64Array(size);
  let step = 0;
  for (let epoch = 0; epoch < epochs; epoch++) {
    const order = random.permutation(m);
    for (let from = 0; from + size <= m; from += size) {
      for (let r = 0; r < size; r++) {
        const row = order[from + r];
        left.set(x.subarray(row * inputs, (row + 1) * inputs), r * inputs);
        right.set(x2.subarray(row * inputs, (row + 1) * inputs), r * inputs);
        kinds[r] = t[row];
      }
      const { gradient } = pairLoss(network, left, right, kinds, size);
      step++;
      const rate = 0.5 * learningRate * (1 + Math.cos((Math.PI * step) / steps));
      const scale = Math.sqrt(1 - BETA2 ** step) / (1 - BETA1 ** step);
      for (let i = 0; i < theta.length; i++) {
        mean[i] += (1 - BETA1) * (gradient[i] - mean[i]);
        square[i] += (1 - BETA2) * (gradient[i] * gradient[i] - square[i]);
        theta[i] -= (rate * scale * mean[i]) / (Math.sqrt(square[i]) + ADAM_EPSILON);
      }
    }
  }
  return network;
}
