import { multiply } from '../kernels/gemm.js';
import type { Random } from '../random.js';

/** Sizes of a network with one hidden layer of tanh units: input, hidden, output. */
export interface PerceptronShape {
  readonly input: number;
  readonly hidden: number;
  readonly output: number;
}

/** Weights `[input, hidden]`, `[hidden]`, `[hidden, output]`, `[output]` one after another. */
export interface Perceptron {
  readonly shape: PerceptronShape;
  readonly parameters: Float64Array;
}

interface Parts {
  readonly first: Float64Array;
  readonly firstBias: Float64Array;
  readonly second: Float64Array;
  readonly secondBias: Float64Array;
}

/** Views of the four parts of a parameter (or gradient) vector. */
export function perceptronParts(shape: PerceptronShape, parameters: Float64Array): Parts {
  const { input, hidden, output } = shape;
  const a = input * hidden;
  const b = a + hidden;
  const c = b + hidden * output;
  return {
    first: parameters.subarray(0, a),
    firstBias: parameters.subarray(a, b),
    second: parameters.subarray(b, c),
    secondBias: parameters.subarray(c, c + output),
  };
}

/** Weights uniform within ±1/√(fan in), biases too. */
export function createPerceptron(shape: PerceptronShape, random: Random): Perceptron {
  const { input, hidden, output } = shape;
  const parameters = new Float64Array(input * hidden + hidden + hidden * output + output);
  const { first, firstBias, second, secondBias } = perceptronParts(shape, parameters);
  const fill = (part: Float64Array, fanIn: number): void => {
    const bound = 1 / Math.sqrt(fanIn);
    for (let i = 0; i < part.length; i++) part[i] = (2 * random.uniform() - 1) * bound;
  };
  fill(first, input);
  fill(firstBias, input);
  fill(second, hidden);
  fill(secondBias, hidden);
  return { shape, parameters };
}

/** What the backward pass needs of a forward pass over `[rows, input]`. */
export interface PerceptronPass {
  readonly rows: number;
  readonly inputs: Float64Array;
  readonly hidden: Float64Array;
  readonly outputs: Float64Array;
}

/** `tanh(x W₁ + b₁) W₂ + b₂` of rows `[rows, input]`. */
export function forwardPerceptron(network: Perceptron, inputs: Float64Array, rows: number): PerceptronPass {
  const { shape, parameters } = network;
  const { first, firstBias, second, secondBias } = perceptronParts(shape, parameters);
  const hidden = new Float64Array(rows * shape.hidden);
  multiply(inputs, first, hidden, { m: rows, n: shape.hidden, k: shape.input });
  for (let i = 0; i < hidden.length; i++) hidden[i] = Math.tanh(hidden[i] + firstBias[i % shape.hidden]);
  const outputs = new Float64Array(rows * shape.output);
  multiply(hidden, second, outputs, { m: rows, n: shape.output, k: shape.hidden });
  for (let i = 0; i < outputs.length; i++) outputs[i] += secondBias[i % shape.output];
  return { rows, inputs, hidden, outputs };
}

/**
 * Adds the gradient of the parameters to `gradient`.
 * @param slope gradient with respect to the outputs, `[rows, output]`
 * @returns gradient with respect to the inputs, `[rows, input]`
 */
export function backwardPerceptron(
  network: Perceptron,
  pass: PerceptronPass,
  slope: Float64Array,
  gradient: Float64Array,
): Float64Array {
  const { shape, parameters } = network;
  const { input, hidden, output } = shape;
  const { rows } = pass;
  const own = perceptronParts(shape, parameters);
  const into = perceptronParts(shape, gradient);
  multiply(pass.hidden, slope, into.second, { m: hidden, n: output, k: rows }, { transposeA: true, beta: 1 });
  for (let i = 0; i < slope.length; i++) into.secondBias[i % output] += slope[i];
  const inner = new Float64Array(rows * hidden);
  multiply(slope, own.second, inner, { m: rows, n: hidden, k: output }, { transposeB: true });
  for (let i = 0; i < inner.length; i++) inner[i] *= 1 - pass.hidden[i] * pass.hidden[i];
  multiply(pass.inputs, inner, into.first, { m: input, n: hidden, k: rows }, { transposeA: true, beta: 1 });
  for (let i = 0; i < inner.length; i++) into.firstBias[i % hidden] += inner[i];
  const outer = new Float64Array(rows * input);
  return multiply(inner, own.first, outer, { m: rows, n: input, k: hidden }, { transposeB: true });
}

/** Adam (Kingma & Ba 2015) with the usual constants; returns the step that changes `parameters` in place. */
export function createAdam(size: number): (parameters: Float64Array, gradient: Float64Array, rate: number) => void {
  const first = new Float64Array(size);
  const second = new Float64Array(size);
  let step = 0;
  return (parameters, gradient, rate) => {
    step++;
    const firstScale = 1 / (1 - 0.9 ** step);
    const secondScale = 1 / (1 - 0.999 ** step);
    for (let i = 0; i < size; i++) {
      first[i] += 0.1 * (gradient[i] - first[i]);
      second[i] += 0.001 * (gradient[i] * gradient[i] - second[i]);
      parameters[i] -= (rate * first[i] * firstScale) / (Math.sqrt(second[i] * secondScale) + 1e-8);
    }
  };
}
