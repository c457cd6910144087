import { activateInnerReference, INNER_ACTIVATIONS, type InnerActivation } from './inner-activation-reference.js';
import { kernelThreads, nativeKernels } from './native.js';

/**
 * The activation of an expert's or MLP's inner layer: inner[i] = act(gate[i]) * inner[i], or act(inner[i]) without a gate;
 * in place. The compiled kernel computes in the precision of the array, but for `gelu`, which has the error function in
 * double. Results are the same bits whatever the number of threads.
 * @throws RangeError when lengths differ, TypeError when precisions do
 */
export function activateInner(
  activation: InnerActivation,
  inner: Float32Array | Float64Array,
  gate?: Float32Array | Float64Array,
  threads?: number,
): void {
  if (gate !== undefined && gate.length !== inner.length) {
    throw new RangeError(`${gate.length} gates for ${inner.length} inner activations`);
  }
  if (gate !== undefined && gate instanceof Float32Array !== inner instanceof Float32Array) {
    throw new TypeError('gate and inner activations differ in precision');
  }
  const native = nativeKernels();
  if (native === undefined) {
    activateInnerReference(activation, inner, gate);
    return;
  }
  const double = inner instanceof Float64Array ? 1 : 0;
  const code = INNER_ACTIVATIONS.indexOf(activation);
  native.activateInner(double, code, gate ?? null, inner, kernelThreads(threads));
}
