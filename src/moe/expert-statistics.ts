import { InputError } from '../errors.js';
import { symmetricRankK } from '../kernels/gemm.js';
import type { Floats } from '../models/layer-runner.js';
import { addArrays } from './routing-statistics.js';
import type { ExpertStatistics } from './types.js';

/** Tokens whose outputs are multiplied at once; fixed, so that the Gram does not depend on how the rows came. */
const GRAM_TOKENS = 16;

export interface ExpertSizes {
  readonly experts: number;
  /** H. */
  readonly hidden: number;
  /** I. */
  readonly width: number;
}

/** The tokens that chose one expert, n of them. */
export interface ChosenTokens {
  /** Inputs of the layer's experts, [rows, H], and the row of each token there, [n]. */
  readonly inputs?: { readonly x: Floats; readonly rows: ArrayLike<number> };
  /** Inner activations [*, I] and outputs [*, H] of the expert, and the row of each token in both, [n]. */
  readonly hidden?: Floats;
  readonly output: Floats;
  readonly at: ArrayLike<number>;
  /** The router's p of each, and p divided by the sum over the chosen, [n]. */
  readonly weights: ArrayLike<number>;
  readonly shares: ArrayLike<number>;
}

/** Statistics of the experts of one layer that come batch by batch. Sums are f64; nothing of the size of the text is kept. */
export interface ExpertSums {
  /** Adds the inputs of all tokens, [rows, H]. */
  addInputs(x: Floats, rows: number): void;
  /** Adds tokens that chose an expert. @throws InputError naming layer and expert for an output that is not finite */
  addChosen(expert: number, tokens: ChosenTokens): void;
  /** Adds the outputs of every expert on every token, [E, rows, H]. */
  addEverywhere(outputs: Floats, rows: number): void;
  finish(): ExpertStatistics;
}

/**
 * Opens the expert statistics of a layer.
 * @param options.everywhere `addEverywhere` will be called: mean outputs and their Gram are kept
 */
export function createExpertSums(
  layer: number,
  { experts, hidden, width }: ExpertSizes,
  options: { readonly everywhere?: boolean; readonly threads?: number } = {},
): ExpertSums {
  const inputSum = new Float64Array(experts * hidden);
  const inputAbsoluteSum = new Float64Array(experts * hidden);
  const inputSquareSum = new Float64Array(experts * hidden);
  const hiddenSquareSum = new Float64Array(experts * width);
  const outputNormSum = new Float64Array(experts);
  const weightedNormSum = new Float64Array(experts);
  const renormalizedNormSum = new Float64Array(experts);
  const weightSum = new Float64Array(experts);
  const largestOutput = new Float64Array(experts).fill(Number.NEGATIVE_INFINITY);
  const largestMagnitude = new Float64Array(experts);
  const allInputSquareSum = new Float64Array(hidden);
  const everywhere = options.everywhere ? createOutputSums(experts, hidden, options.threads) : undefined;

  const addInputRow = (expert: number, x: Floats, row: number): void => {
    const [from, to] = [row * hidden, expert * hidden];
    for (let j = 0; j < hidden; j++) {
      const value = x[from + j];
      inputSum[to + j] += value;
      inputAbsoluteSum[to + j] += Math.abs(value);
      inputSquareSum[to + j] += value * value;
    }
  };

  const addOutputRow = (expert: number, output: Floats, row: number, weight: number, share: number): void => {
    let [squares, largest, smallest] = [0, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY];
    for (let j = row * hidden; j < (row + 1) * hidden; j++) {
      const value = output[j];
      squares += value * value;
      if (value > largest) largest = value;
      if (value < smallest) smallest = value;
    }
    if (!Number.isFinite(squares)) {
      throw new InputError(`layer ${layer}, expert ${expert}: an output is not finite; try --precision f64`);
    }
    const norm = Math.sqrt(squares);
    outputNormSum[expert] += norm;
    weightedNormSum[expert] += weight * norm;
    renormalizedNormSum[expert] += share * norm;
    weightSum[expert] += weight;
    largestOutput[expert] = Math.max(largestOutput[expert], largest);
    largestMagnitude[expert] = Math.max(largestMagnitude[expert], largest, -smallest);
  };

  return {
    addInputs(x, rows) {
      for (let row = 0; row < rows; row++) {
        for (let j = 0; j < hidden; j++) allInputSquareSum[j] += x[row * hidden + j] ** 2;
      }
    },
    addChosen(expert, { inputs, hidden: inner, output, at, weights, shares }) {
      for (let i = 0; i < at.length; i++) {
        if (inputs) addInputRow(expert, inputs.x, inputs.rows[i]);
        if (inner) addSquares(inner, at[i] * width, hiddenSquareSum, expert * width, width);
        addOutputRow(expert, output, at[i], weights[i], shares[i]);
      }
    },
    addEverywhere(outputs, rows) {
      if (!everywhere) throw new RangeError('outputs of every expert on every token were not announced');
      everywhere.add(outputs, rows);
    },
    finish: () => ({
      layer,
      inputSum: inputSum.slice(),
      inputAbsoluteSum: inputAbsoluteSum.slice(),
      inputSquareSum: inputSquareSum.slice(),
      hiddenSquareSum: hiddenSquareSum.slice(),
      outputNormSum: outputNormSum.slice(),
      weightedNormSum: weightedNormSum.slice(),
      renormalizedNormSum: renormalizedNormSum.slice(),
      weightSum: weightSum.slice(),
      largestOutput: largestOutput.slice(),
      largestMagnitude: largestMagnitude.slice(),
      allInputSquareSum: allInputSquareSum.slice(),
      ...(everywhere && { everywhere: everywhere.finish() }),
    }),
  };
}

/** into[to + j] += values[from + j]^2. */
function addSquares(values: Floats, from: number, into: Float64Array, to: number, count: number): void {
  for (let j = 0; j < count; j++) into[to + j] += values[from + j] ** 2;
}

/** Sums of outputs [E, H] and of their products between experts [E, E], over tokens that come in pieces of any size. */
function createOutputSums(experts: number, hidden: number, threads: number | undefined) {
  const outputSum = new Float64Array(experts * hidden);
  const gram = new Float64Array(experts * experts);
  const span = GRAM_TOKENS * hidden;
  let block: Floats = new Float32Array(0);
  let filled = 0;
  let tokens = 0;
  const flush = (): void => {
    if (filled === 0) return;
    const options = { strideX: span, beta: 1, ...(threads !== undefined && { threads }) };
    symmetricRankK(block, gram, { n: experts, k: filled * hidden }, options);
    filled = 0;
  };
  return {
    add(outputs: Floats, rows: number): void {
      if (block.length === 0) {
        block = outputs instanceof Float32Array ? new Float32Array(experts * span) : new Float64Array(experts * span);
      }
      tokens += rows;
      for (let e = 0; e < experts; e++) {
        for (let row = 0; row < rows; row++) {
          const from = (e * rows + row) * hidden;
          for (let j = 0; j < hidden; j++) outputSum[e * hidden + j] += outputs[from + j];
        }
      }
      for (let done = 0; done < rows; ) {
        const taken = Math.min(GRAM_TOKENS - filled, rows - done);
        for (let e = 0; e < experts; e++) {
          const from = (e * rows + done) * hidden;
          block.set(outputs.subarray(from, from + taken * hidden), e * span + filled * hidden);
        }
        filled += taken;
        done += taken;
        if (filled === GRAM_TOKENS) flush();
      }
    },
    finish() {
      flush();
      for (let i = 0; i < experts; i++) for (let j = 0; j < i; j++) gram[j * experts + i] = gram[i * experts + j];
      return { tokens, outputSum: outputSum.slice(), outputGram: gram.slice() };
    },
  };
}

/**
 * Statistics of the tokens of both.
 * @throws InputError when they are not of the same layer and sizes, or one alone has outputs of every expert
 */
export function addExpertStatistics(a: ExpertStatistics, b: ExpertStatistics): ExpertStatistics {
  if (a.layer !== b.layer || a.inputSum.length !== b.inputSum.length || a.weightSum.length !== b.weightSum.length) {
    throw new InputError(`expert statistics of layers ${a.layer} and ${b.layer} do not unite: other experts or sizes`);
  }
  if ((a.everywhere === undefined) !== (b.everywhere === undefined)) {
    throw new InputError(`expert statistics of layer ${a.layer} do not unite: one has no outputs of all experts`);
  }
  return {
    layer: a.layer,
    inputSum: addArrays(a.inputSum, b.inputSum),
    inputAbsoluteSum: addArrays(a.inputAbsoluteSum, b.inputAbsoluteSum),
    inputSquareSum: addArrays(a.inputSquareSum, b.inputSquareSum),
    hiddenSquareSum: addArrays(a.hiddenSquareSum, b.hiddenSquareSum),
    outputNormSum: addArrays(a.outputNormSum, b.outputNormSum),
    weightedNormSum: addArrays(a.weightedNormSum, b.weightedNormSum),
    renormalizedNormSum: addArrays(a.renormalizedNormSum, b.renormalizedNormSum),
    weightSum: addArrays(a.weightSum, b.weightSum),
    largestOutput: a.largestOutput.map((value, e) => Math.max(value, b.largestOutput[e])),
    largestMagnitude: a.largestMagnitude.map((value, e) => Math.max(value, b.largestMagnitude[e])),
    allInputSquareSum: addArrays(a.allInputSquareSum, b.allInputSquareSum),
    ...(a.everywhere &&
      b.everywhere && {
        everywhere: {
          tokens: a.everywhere.tokens + b.everywhere.tokens,
          outputSum: addArrays(a.everywhere.outputSum, b.everywhere.outputSum),
          outputGram: addArrays(a.everywhere.outputGram, b.everywhere.outputGram),
        },
      }),
  };
}
