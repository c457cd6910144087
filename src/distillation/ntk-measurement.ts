import { logGamma } from '../linalg/special-functions.js';
import type { Random } from '../random.js';
import { permutedBits } from './ntk-kernels.js';
import { exactProbability, type PermutationLaw } from './ntk-permutations.js';

/** A mean over networks with its standard error, beside what the theory says. */
export interface Comparison {
  readonly measured: number;
  readonly standardError: number;
  readonly predicted: number;
  /** (measured - predicted) / standard error. */
  readonly z: number;
}

/** Ensembles of one size, cut from the networks in order: disjoint groups. */
export interface EnsembleAccuracy {
  readonly models: number;
  readonly groups: number;
  /** Share of tests whose every output is right, mean over the groups. */
  readonly exact: number;
  /** Over groups; undefined for one group. */
  readonly standardError: number | undefined;
  /** Chance of an exact row by the theory. */
  readonly predicted: number;
}

export interface OutputHistogram {
  readonly edges: Float64Array;
  readonly on: Float64Array;
  readonly off: Float64Array;
}

/** What the networks of an ensemble did at inputs with one number of ones. */
export interface Measurement {
  readonly tests: number;
  readonly networks: number;
  readonly meanOn: Comparison;
  readonly meanOff: Comparison | undefined;
  readonly varianceOn: Comparison;
  readonly varianceOff: Comparison | undefined;
  readonly accuracy: readonly EnsembleAccuracy[];
  /** Fewest first networks whose mean is right on a share 1 - δ of the tests; undefined when all of them are not enough. */
  readonly modelsMeasured: number | undefined;
  readonly histogram: OutputHistogram;
}

const BINS = 60;

/** Number of subsets, or infinity beyond what matters. */
const choose = (k: number, ones: number): number =>
  Math.round(Math.exp(logGamma(k + 1) - logGamma(ones + 1) - logGamma(k - ones + 1)));

/** All subsets of `ones` of 0..k-1 in lexicographic order. */
function* subsets(k: number, ones: number): Generator<readonly number[]> {
  const at = Array.from({ length: ones }, (_, i) => i);
  for (;;) {
    yield at;
    let i = ones - 1;
    while (i >= 0 && at[i] === k - ones + i) i--;
    if (i < 0) return;
    at[i]++;
    for (let j = i + 1; j < ones; j++) at[j] = at[j - 1] + 1;
  }
}

/**
 * Unit inputs with `ones` equal entries, all different: all of them where there are no more than `tests`, else drawn.
 * @returns [tests, k]
 */
export function testInputs(k: number, ones: number, tests: number, random: Random): Float64Array {
  const value = 1 / Math.sqrt(ones);
  if (choose(k, ones) <= tests) {
    const rows: number[] = [];
    for (const subset of subsets(k, ones)) {
      const base = rows.length;
      for (let i = 0; i < k; i++) rows.push(0);
      for (const i of subset) rows[base + i] = value;
    }
    return Float64Array.from(rows);
  }
  const inputs = new Float64Array(tests * k);
  const seen = new Set<string>();
  while (seen.size < tests) {
    const drawn = random.permutation(k).slice(0, ones).sort();
    const key = drawn.join(',');
    if (seen.has(key)) continue;
    for (const i of drawn) inputs[seen.size * k + i] = value;
    seen.add(key);
  }
  return inputs;
}

/** Mean over networks of one figure a network, against a prediction. */
function compare(perNetwork: Float64Array, predicted: number): Comparison {
  const n = perNetwork.length;
  let mean = 0;
  for (const value of perNetwork) mean += value / n;
  let squares = 0;
  for (const value of perNetwork) squares += (value - mean) ** 2;
  const standardError = n > 1 ? Math.sqrt(squares / (n - 1) / n) : Number.NaN;
  return { measured: mean, standardError, predicted, z: (mean - predicted) / standardError };
}

/**
 * Compares outputs with their law. Outputs of one network at different inputs are correlated, so every figure is first a mean
 * within a network, and its error comes from the spread over networks. Variances are about the predicted mean.
 * @param outputs [networks, tests, k]
 * @param inputs [tests, k]
 */
export function measureEnsemble(
  outputs: Float64Array,
  inputs: Float64Array,
  permutation: Int32Array,
  law: PermutationLaw,
  delta: number,
): Measurement {
  const targets = permutedBits(inputs, permutation);
  const size = inputs.length;
  const networks = outputs.length / size;
  const { meanOn, meanOff, variance } = law;
  const onCount = targets.reduce((sum, bit) => sum + bit, 0);
  const offCount = size - onCount;
  const sums = Array.from({ length: 4 }, () => new Float64Array(networks));
  for (let n = 0; n < networks; n++) {
    for (let i = 0; i < size; i++) {
      const value = outputs[n * size + i];
      const off = 1 - targets[i];
      sums[off][n] += value;
      sums[2 + off][n] += (value - (off === 0 ? meanOn : (meanOff ?? 0))) ** 2;
    }
    for (const [which, sum] of sums.entries()) sum[n] /= which % 2 === 0 ? onCount : offCount;
  }
  return {
    tests: size / law.k,
    networks,
    meanOn: compare(sums[0], meanOn),
    meanOff: meanOff === undefined ? undefined : compare(sums[1], meanOff),
    varianceOn: compare(sums[2], variance),
    varianceOff: meanOff === undefined ? undefined : compare(sums[3], variance),
    accuracy: accuracyBySize(outputs, targets, law),
    modelsMeasured: fewestModels(outputs, targets, law.k, delta),
    histogram: histogramOf(outputs, targets),
  };
}

/** Share of rows of a sum of outputs whose signs are all right. */
function exactShare(sum: Float64Array, targets: Uint8Array, k: number): number {
  let exact = 0;
  for (let at = 0; at < sum.length; at += k) {
    let i = 0;
    while (i < k && (sum[at + i] > 0 ? 1 : 0) === targets[at + i]) i++;
    if (i === k) exact++;
  }
  return exact / (sum.length / k);
}

/** 1, 2, 3, 5, 10, 20, 30, 50, ... up to `most`, and `most`. */
function ensembleSizes(most: number): number[] {
  const sizes: number[] = [];
  for (let decade = 1; decade <= most; decade *= 10) {
    for (const digit of [1, 2, 3, 5]) if (digit * decade < most) sizes.push(digit * decade);
  }
  return [...sizes, most];
}

function accuracyBySize(outputs: Float64Array, targets: Uint8Array, law: PermutationLaw): EnsembleAccuracy[] {
  const size = targets.length;
  const networks = outputs.length / size;
  return ensembleSizes(networks).map((models) => {
    const groups = Math.floor(networks / models);
    const shares = new Float64Array(groups);
    for (let g = 0; g < groups; g++) {
      const sum = new Float64Array(size);
      for (let n = g * models; n < (g + 1) * models; n++) {
        for (let i = 0; i < size; i++) sum[i] += outputs[n * size + i];
      }
      shares[g] = exactShare(sum, targets, law.k);
    }
    const { measured, standardError } = compare(shares, 0);
    return {
      models,
      groups,
      exact: measured,
      standardError: groups > 1 ? standardError : undefined,
      predicted: exactProbability(law, models),
    };
  });
}

function fewestModels(outputs: Float64Array, targets: Uint8Array, k: number, delta: number): number | undefined {
  const size = targets.length;
  const sum = new Float64Array(size);
  for (let n = 0; n * size < outputs.length; n++) {
    for (let i = 0; i < size; i++) sum[i] += outputs[n * size + i];
    if (exactShare(sum, targets, k) >= 1 - delta) return n + 1;
  }
  return undefined;
}

function histogramOf(outputs: Float64Array, targets: Uint8Array): OutputHistogram {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (const value of outputs) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  const width = (high - low) / BINS;
  const edges = Float64Array.from({ length: BINS + 1 }, (_, i) => (i === BINS ? high : low + i * width));
  const on = new Float64Array(BINS);
  const off = new Float64Array(BINS);
  for (let i = 0; i < outputs.length; i++) {
    const bin = Math.min(BINS - 1, Math.max(0, Math.floor((outputs[i] - low) / width)));
    (targets[i % targets.length] === 1 ? on : off)[bin]++;
  }
  return { edges, on, off };
}
