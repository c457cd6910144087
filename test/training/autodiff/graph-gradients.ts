import { Tensor } from 'onnxruntime-node';
import { decodeOnnxModel, encodeOnnxModel } from '../../../src/formats/onnx.js';
import type { GraphComposer } from '../../../src/models/graph.js';
import { composeGraph } from '../../../src/models/graph.js';
import { createSession, floatsOf, runSession } from '../../../src/models/sessions.js';
import { differentiate } from '../../../src/training/autodiff/differentiate.js';
import type { Differentiated } from '../../../src/training/autodiff/types.js';

export interface Case {
  readonly compose: (graph: GraphComposer) => void;
  readonly inputs: Readonly<Record<string, Tensor>>;
  readonly wanted: readonly string[];
  readonly seeds?: readonly string[];
  readonly recompute?: boolean;
}

export const doubles = (values: readonly number[], dims: readonly number[] = [values.length]): Tensor =>
  new Tensor('float64', Float64Array.from(values), dims);

export const integers = (values: readonly number[], dims: readonly number[] = [values.length]): Tensor =>
  new Tensor('int64', BigInt64Array.from(values, BigInt), dims);

const settings = { threads: 1, device: 'cpu', arena: false, precision: 'f64' } as const;

/** Runs forward and backward with the given cotangents; tensors by name. */
export async function runDifferentiated(
  made: Differentiated,
  inputs: Readonly<Record<string, Tensor>>,
  cotangent: (output: Tensor, name: string) => Tensor,
  seeds: readonly string[],
): Promise<{ outputs: Record<string, Tensor>; gradients: Record<string, Tensor> }> {
  const forward = await createSession(encodeOnnxModel(made.forward), settings);
  const backward = await createSession(encodeOnnxModel(made.backward), settings);
  try {
    const fetches = Object.fromEntries(forward.outputNames.map((name) => [name, null]));
    const feeds = Object.fromEntries(forward.inputNames.map((name) => [name, inputs[name]]));
    const outputs = (await runSession(forward, feeds, fetches)) as Record<string, Tensor>;
    const backFeeds: Record<string, Tensor> = {};
    for (const name of backward.inputNames) backFeeds[name] = outputs[name] ?? inputs[name];
    for (const seed of seeds) backFeeds[`grad.${seed}`] = cotangent(outputs[seed], seed);
    const backFetches = Object.fromEntries(backward.outputNames.map((name) => [name, null]));
    const found =
      backward.outputNames.length === 0
        ? {}
        : ((await runSession(backward, backFeeds, backFetches)) as Record<string, Tensor>);
    return { outputs, gradients: found };
  } finally {
    await forward.release();
    await backward.release();
  }
}

/** Cotangents that are no accident: cos(1 + 2 i). */
export function waves(like: Tensor): Tensor {
  return doubles(
    Array.from({ length: floatsOf(like).length }, (_, i) => Math.cos(1 + 2 * i)),
    like.dims,
  );
}

/** Largest difference between gradients and central differences of sum(cotangent * output), relative to their size. */
export async function differenceError(given: Case): Promise<number> {
  const graph = composeGraph('case', 'f64');
  given.compose(graph);
  const model = decodeOnnxModel(graph.encode(), 'case');
  const seeds = given.seeds ?? ['y'];
  const made = await differentiate(
    { model, wanted: given.wanted, seeds, precision: 'f64', recompute: given.recompute },
    given.inputs,
  );
  const { gradients } = await runDifferentiated(made, given.inputs, waves, seeds);
  // The forward graph, not the given one: the runtime may lack double kernels for that.
  const session = await createSession(encodeOnnxModel(made.forward), settings);
  const value = async (inputs: Readonly<Record<string, Tensor>>): Promise<number> => {
    const found = (await session.run({ ...inputs }, [...seeds])) as Record<string, Tensor>;
    let sum = 0;
    for (const seed of seeds) {
      const weights = floatsOf(waves(found[seed]));
      floatsOf(found[seed]).forEach((element, i) => {
        sum += element * weights[i];
      });
    }
    return sum;
  };
  let worst = 0;
  for (const name of given.wanted) {
    const at = floatsOf(given.inputs[name]);
    const gradient = gradients[`grad.${name}`];
    if (gradient && gradient.dims.join() !== given.inputs[name].dims.join()) return Number.POSITIVE_INFINITY;
    for (let i = 0; i < at.length; i++) {
      const moved = async (step: number): Promise<number> => {
        const values = Float64Array.from(at);
        values[i] += step;
        return value({ ...given.inputs, [name]: new Tensor('float64', values, given.inputs[name].dims) });
      };
      const h = 1e-5 * Math.max(1, Math.abs(at[i]));
      const expected = ((await moved(h)) - (await moved(-h))) / (2 * h);
      const own = gradient ? floatsOf(gradient)[i] : 0;
      worst = Math.max(worst, Math.abs(own - expected) / Math.max(1, Math.abs(expected)));
    }
  }
  await session.release();
  return worst;
}
