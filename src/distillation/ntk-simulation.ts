import { RunError } from '../errors.js';
import type { ComputeReference } from '../kernels/compute-thread.js';
import { multiply } from '../kernels/gemm.js';
import { createRandom, type Random } from '../random.js';
import type { KernelScales, NtkParametrisation } from './ntk-kernels.js';
import { basisSpectrum } from './ntk-permutations.js';

/** How networks are trained on (e_i, P e_i). */
export interface NetworkSettings {
  readonly k: number;
  readonly width: number;
  readonly parametrisation: NtkParametrisation;
  readonly scales: KernelScales;
  /** Step size of the parametrisation's own parameters. */
  readonly learningRate: number;
  readonly steps: number;
  /** Training ends when no training output is farther than this from its target. */
  readonly residual: number;
}

/** Networks `from`..`to`-1 of an ensemble. */
export interface SimulationArguments extends NetworkSettings {
  readonly permutation: Int32Array;
  /** [tests, k]. */
  readonly inputs: Float64Array;
  readonly seed: number;
  readonly from: number;
  readonly to: number;
}

export interface SimulationResult {
  /** [networks, tests, k]. */
  readonly outputs: Float64Array;
  /** Steps that each network took, and its largest residual at the end. */
  readonly steps: Int32Array;
  readonly residuals: Float64Array;
}

/** Test rows that pass through a network together: bounds the memory of the hidden layer. */
const TEST_BLOCK = 64;

/** Below 2, the limit of stability, with room for the spread of a finite network's kernel. */
const STABLE = 1.4;

/**
 * Step size of a parametrisation: k/2 (over the width in the standard one), but no more than 1.4 over the largest eigenvalue
 * of the training kernel, beyond which gradient descent would overshoot.
 */
export function defaultLearningRate(
  settings: Pick<NetworkSettings, 'k' | 'width' | 'parametrisation' | 'scales'>,
): number {
  const { k, width, parametrisation, scales } = settings;
  const rate = Math.min(k / 2, STABLE / basisSpectrum(k, parametrisation, scales).largest);
  // The last layer's tangent kernel is width Σ / σw² where its weights are trained as they are.
  return parametrisation === 'ntk' ? rate : (rate * scales.sigmaW ** 2) / width;
}

/** A network's weights as they act: hidden [k, width] with its bias row, output [k, width] with its biases. */
interface Network {
  readonly first: Float64Array;
  readonly firstBias: Float64Array;
  readonly second: Float64Array;
  readonly secondBias: Float64Array;
}

function createNetwork({ k, width, scales }: NetworkSettings, random: Random): Network {
  const drawn = (length: number, deviation: number): Float64Array => {
    const values = new Float64Array(length);
    if (deviation > 0) for (let i = 0; i < length; i++) values[i] = deviation * random.normal();
    return values;
  };
  return {
    first: drawn(k * width, scales.sigmaW / Math.sqrt(k)),
    firstBias: drawn(width, scales.sigmaB),
    second: drawn(k * width, scales.sigmaW / Math.sqrt(width)),
    secondBias: drawn(k, scales.sigmaB),
  };
}

/** relu(rows of pre-activations + bias), in place. */
function rectify(hidden: Float64Array, bias: Float64Array): void {
  const width = bias.length;
  for (let at = 0; at < hidden.length; at += width) {
    for (let j = 0; j < width; j++) {
      hidden[at + j] = Math.max(hidden[at + j] + bias[j], 0);
    }
  }
}

/** Outputs [rows, k] of rows [rows, k]. */
function outputsOf({ first, firstBias, second, secondBias }: Network, inputs: Float64Array): Float64Array {
  const k = secondBias.length;
  const width = firstBias.length;
  const rows = inputs.length / k;
  const outputs = new Float64Array(rows * k);
  for (let from = 0; from < rows; from += TEST_BLOCK) {
    const count = Math.min(TEST_BLOCK, rows - from);
    const block = inputs.subarray(from * k, (from + count) * k);
    const hidden = multiply(block, first, new Float64Array(count * width), { m: count, n: width, k }, { threads: 1 });
    rectify(hidden, firstBias);
    const into = outputs.subarray(from * k, (from + count) * k);
    multiply(hidden, second, into, { m: count, n: k, k: width }, { transposeB: true, threads: 1 });
    for (let i = 0; i < into.length; i++) into[i] += secondBias[i % k];
  }
  return outputs;
}

/**
 * Full-batch gradient descent on ½ Σ ‖f(e_i) - P e_i‖². In NTK parametrisation the weights are σw/√fan-in times parameters
 * that are trained, so a step of the weights as they act carries the square of that factor; in the standard one it does not.
 */
function train(
  network: Network,
  settings: NetworkSettings,
  targets: Float64Array,
): { steps: number; residual: number } {
  const { k, width, parametrisation, scales, learningRate, steps } = settings;
  const { first, firstBias, second, secondBias } = network;
  const own = parametrisation === 'ntk';
  const firstRate = learningRate * (own ? scales.sigmaW ** 2 / k : 1);
  const secondRate = learningRate * (own ? scales.sigmaW ** 2 / width : 1);
  const biasRate = scales.sigmaB > 0 ? learningRate * (own ? scales.sigmaB ** 2 : 1) : 0;
  const hidden = new Float64Array(k * width);
  const error = new Float64Array(k * k);
  const back = new Float64Array(k * width);
  for (let step = 0; ; step++) {
    // The inputs are the basis: row i of the first layer is the pre-activation of e_i.
    hidden.set(first);
    rectify(hidden, firstBias);
    multiply(hidden, second, error, { m: k, n: k, k: width }, { transposeB: true, threads: 1 });
    let residual = 0;
    for (let i = 0; i < error.length; i++) {
      error[i] += secondBias[i % k] - targets[i];
      residual = Math.max(residual, Math.abs(error[i]));
    }
    if (!Number.isFinite(residual) || residual <= settings.residual || step === steps) return { steps: step, residual };
    multiply(error, second, back, { m: k, n: width, k }, { threads: 1 });
    const descent = { m: k, n: width, k };
    multiply(error, hidden, second, descent, { transposeA: true, alpha: -secondRate, beta: 1, threads: 1 });
    for (let i = 0; i < back.length; i++) if (hidden[i] > 0) first[i] -= firstRate * back[i];
    if (biasRate === 0) continue;
    for (let i = 0; i < back.length; i++) if (hidden[i] > 0) firstBias[i % width] -= biasRate * back[i];
    for (let i = 0; i < error.length; i++) secondBias[i % k] -= biasRate * error[i];
  }
}

/**
 * Trains networks from..to-1, each from its own stream of the seed, and gives their outputs at the test inputs.
 * @param progress is told the number of networks done
 * @throws RunError when the training of a network diverges
 */
export function simulateNetworks(args: SimulationArguments, progress: (done: number) => void): SimulationResult {
  const { k, permutation, inputs, from, to } = args;
  const targets = new Float64Array(k * k);
  for (let j = 0; j < k; j++) targets[permutation[j] * k + j] = 1;
  const count = to - from;
  const outputs = new Float64Array(count * inputs.length);
  const steps = new Int32Array(count);
  const residuals = new Float64Array(count);
  const root = createRandom(args.seed);
  for (let i = 0; i < count; i++) {
    const network = createNetwork(args, root.fork(from + i));
    const ended = train(network, args, targets);
    if (!Number.isFinite(ended.residual)) {
      throw new RunError(
        `network ${from + i} (k = ${k}) diverged after ${ended.steps} steps at learning rate ${args.learningRate}; lower --learning-rate`,
      );
    }
    steps[i] = ended.steps;
    residuals[i] = ended.residual;
    outputs.set(outputsOf(network, inputs), i * inputs.length);
    progress(i + 1);
  }
  return { outputs, steps, residuals };
}

export const SIMULATE_NETWORKS: ComputeReference<SimulationArguments, SimulationResult> = {
  module: import.meta.url,
  job: simulateNetworks as (args: SimulationArguments, progress: (value: unknown) => void) => SimulationResult,
};
