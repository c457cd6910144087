import { Tensor } from 'onnxruntime-node';
import { decodeOnnxModel, encodeOnnxModel } from '../../../src/formats/onnx.js';
import type { AttributeValue } from '../../../src/formats/onnx-attributes.js';
import { composeGraph, type GraphComposer } from '../../../src/models/graph.js';
import { createSession, floatsOf, runSession } from '../../../src/models/sessions.js';
import { differentiate } from '../../../src/training/autodiff/differentiate.js';
import type { Precision } from '../../../src/training/types.js';
import { differenceError } from './graph-gradients.js';

/** One node: numbers in brackets are extents of a floating-point input, the rest is written in place. */
export interface Operator {
  readonly op: string;
  readonly domain?: 'com.microsoft';
  /** Inputs in order: extents of a differentiated input, or a function that writes a constant. */
  readonly inputs: readonly (readonly number[] | ((g: GraphComposer) => string))[];
  readonly attributes?: Readonly<Record<string, AttributeValue>>;
  /** Number of outputs that get a cotangent; default 1. */
  readonly outputs?: number;
  /** Outputs that exist and get none. */
  readonly unseeded?: number;
}

export const int = (value: number): AttributeValue => ({ int: value });
export const ints = (...values: number[]): AttributeValue => ({ ints: values });
export const vector =
  (...values: number[]) =>
  (g: GraphComposer): string =>
    g.integers(values);
export const none = (): string => '';

const isExtents = (input: Operator['inputs'][number]): input is readonly number[] => typeof input !== 'function';

/** Numbers without ties or zeros. */
function numbersOf(dims: readonly number[], phase: number): Float64Array {
  const length = dims.reduce((product, extent) => product * extent, 1);
  return Float64Array.from({ length }, (_, i) => 0.9 * Math.sin(0.7 + 1.3 * phase + 2.39996 * i) + 0.05);
}

function compose(g: GraphComposer, { op, domain, inputs, attributes, outputs = 1, unseeded = 0 }: Operator): void {
  const type = g.float;
  const names = inputs.map((input, i) =>
    isExtents(input)
      ? g.input(
          `x${i}`,
          type,
          input.map((_, axis) => `x${i}_${axis}`),
        )
      : input(g),
  );
  const shown = Array.from({ length: outputs }, (_, i) => `y${i}`);
  const hidden = Array.from({ length: unseeded }, (_, i) => `hidden${i}`);
  g.node(op, names, { ...(domain && { domain }), ...(attributes && { attributes }), outputs: [...shown, ...hidden] });
  for (const name of shown) g.output(name, type);
}

function feedsOf({ inputs }: Operator, precision: Precision): Record<string, Tensor> {
  const feeds: Record<string, Tensor> = {};
  inputs.forEach((input, i) => {
    if (!isExtents(input)) return;
    const values = numbersOf(input, i);
    feeds[`x${i}`] =
      precision === 'f64'
        ? new Tensor('float64', values, input)
        : new Tensor('float32', Float32Array.from(values), input);
  });
  return feeds;
}

const seedsOf = ({ outputs = 1 }: Operator): string[] => Array.from({ length: outputs }, (_, i) => `y${i}`);

/** Largest error of the gradients in f64 against central differences. */
export function doubleError(operator: Operator): Promise<number> {
  const inputs = feedsOf(operator, 'f64');
  return differenceError({
    compose: (g) => compose(g, operator),
    inputs,
    wanted: Object.keys(inputs),
    seeds: seedsOf(operator),
  });
}

async function gradientsIn(operator: Operator, precision: Precision): Promise<Record<string, Float64Array>> {
  const graph = composeGraph('case', precision);
  compose(graph, operator);
  const feeds = feedsOf(operator, precision);
  const wanted = Object.keys(feeds);
  const seeds = seedsOf(operator);
  const model = decodeOnnxModel(graph.encode(), 'case');
  const made = await differentiate({ model, wanted, seeds, precision }, feeds);
  const settings = { threads: 1, device: 'cpu', arena: false, precision } as const;
  const forward = await createSession(encodeOnnxModel(made.forward), settings);
  const backward = await createSession(encodeOnnxModel(made.backward), settings);
  const all = (names: readonly string[]): Record<string, null> => Object.fromEntries(names.map((name) => [name, null]));
  try {
    const pick = (names: readonly string[], from: Record<string, Tensor>): Record<string, Tensor> =>
      Object.fromEntries(names.map((name) => [name, from[name]]));
    const outputs = (await runSession(forward, pick(forward.inputNames, feeds), all(forward.outputNames))) as Record<
      string,
      Tensor
    >;
    const known: Record<string, Tensor> = { ...feeds, ...outputs };
    for (const seed of seeds) {
      const { dims, size } = outputs[seed];
      const waves = Float64Array.from({ length: size }, (_, i) => Math.cos(1 + 2 * i));
      known[`grad.${seed}`] =
        precision === 'f64'
          ? new Tensor('float64', waves, dims)
          : new Tensor('float32', Float32Array.from(waves), dims);
    }
    const found = await runSession(backward, pick(backward.inputNames, known), all(backward.outputNames));
    return Object.fromEntries(
      wanted.map((name) => [name, Float64Array.from(floatsOf((found as Record<string, Tensor>)[`grad.${name}`]))]),
    );
  } finally {
    await forward.release();
    await backward.release();
  }
}

/** Largest difference between the gradients in f32 and in f64, relative to the largest of each tensor. */
export async function singleError(operator: Operator): Promise<number> {
  const [single, double] = [await gradientsIn(operator, 'f32'), await gradientsIn(operator, 'f64')];
  let worst = 0;
  for (const [name, expected] of Object.entries(double)) {
    const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-6);
    if (single[name].length !== expected.length) return Number.POSITIVE_INFINITY;
    expected.forEach((value, i) => {
      const error = Math.abs(single[name][i] - value) / largest;
      worst = Number.isNaN(error) ? Number.POSITIVE_INFINITY : Math.max(worst, error);
    });
  }
  return worst;
}
