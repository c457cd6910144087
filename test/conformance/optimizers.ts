import { clipGradients } from '../../src/training/clipping.js';
import { createOptimizer, type OptimizerSettings } from '../../src/training/optimizer.js';
import { createSchedule } from '../../src/training/schedules.js';
import type { ParameterSet } from '../../src/training/types.js';
import type { Json } from './harness.js';
import { float64, keysOf, number, shapeOf, tensor } from './tensors.js';

/** What the cases were made with and their names do not say, found by trying PyTorch's optimisers on them. */
function unspelled(name: string): { readonly weightDecay?: number; readonly epsilon?: number } {
  if (name.includes('_nesterov')) return { weightDecay: 1e-3 };
  return /^adamw_.*_b[\d.]+/.test(name) ? { epsilon: 1e-6 } : {};
}

/** `adamw_lr0.01_wd0.1_b0.8_0.95`, `sgd_momentum0.9_nesterov`: the settings that a name spells, on the cases' rates. */
function parseName(name: string): { settings: OptimizerSettings; learningRate: number } | undefined {
  const found = /^(adamw|adam|sgd|lion)(?:_|$)/.exec(name);
  if (found === null) return undefined;
  const value = (pattern: RegExp): number | undefined => {
    const text = pattern.exec(name)?.[1];
    return text === undefined ? undefined : Number(text);
  };
  const method = found[1] as 'adamw' | 'adam' | 'sgd' | 'lion';
  const given: Record<string, number | boolean | undefined> = {
    weightDecay: value(/_wd([\d.e-]+)/) ?? unspelled(name).weightDecay,
    beta1: value(/_b([\d.]+)_[\d.]+/),
    beta2: value(/_b[\d.]+_([\d.]+)/),
    epsilon: value(/_eps([\d.e-]+)/) ?? unspelled(name).epsilon,
    momentum: value(/_momentum([\d.]+)/),
    nesterov: name.includes('_nesterov') ? true : undefined,
  };
  const settings = Object.fromEntries(Object.entries(given).filter(([, entry]) => entry !== undefined));
  const usual = { adamw: 1e-3, adam: 0.01, sgd: 0.05, lion: 1e-4 }[method];
  return { settings: { method, ...settings }, learningRate: value(/_lr([\d.e-]+)/) ?? usual };
}

function parameterSet(values: Float64Array, dims: readonly number[]): ParameterSet {
  const parameters = [{ name: 'p', dims, offset: 0, length: values.length }];
  return { precision: 'f64', parameters, values, gradients: new Float64Array(values.length) };
}

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    const parsed = parseName(key);
    if (parsed !== undefined) {
      const [steps, ...dims] = shapeOf(inputs.grads, 'grads');
      const gradients = float64(inputs.grads, 'grads');
      const set = parameterSet(float64(inputs.p0, 'p0'), dims);
      const optimizer = createOptimizer(set, parsed.settings);
      const after = new Float64Array(gradients.length);
      for (let s = 0; s < steps; s++) {
        const at = s * set.values.length;
        set.gradients.set(gradients.subarray(at, at + set.values.length));
        optimizer.step({ learningRate: parsed.learningRate });
        after.set(set.values, at);
      }
      result[key] = tensor([steps, ...dims], after);
    } else if (key === 'clip') {
      const { max_norm: most, ...tensors } = inputs.clip as { [key: string]: Json };
      const names = Object.keys(tensors);
      const buffers = names.map((name) => float64(tensors[name], name));
      const norm = clipGradients(buffers, number(most, 'max_norm'));
      const clipped = names.map((name, i) => [name, tensor(shapeOf(tensors[name], name), buffers[i])]);
      result.clip = { norm, ...Object.fromEntries(clipped) };
    } else if (key === 'schedule') {
      const { lr, warmup, total } = inputs.schedule as { [key: string]: Json };
      const totalSteps = number(total, 'total');
      const schedule = createSchedule({
        schedule: 'cosine',
        learningRate: number(lr, 'lr'),
        warmupSteps: number(warmup, 'warmup'),
        totalSteps,
      });
      result.schedule = tensor(
        [totalSteps],
        Float64Array.from({ length: totalSteps }, (_, step) => schedule(step)),
      );
    }
  }
  return result;
}
