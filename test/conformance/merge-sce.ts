import { sce } from '../../src/fusion/merge/methods/sce.js';
import type { MergeVariant, ParameterValue } from '../../src/fusion/merge/types.js';
import { isTensor, type Json, plain } from './harness.js';
import { merged, stored, storedList } from './merge-task.js';
import { keysOf } from './tensors.js';

interface Entry {
  readonly variant: MergeVariant;
  readonly weights: boolean;
  readonly parameters: Record<string, ParameterValue>;
}

/** `mergekit_tau=0.5`, `fusechat_code_tau=0.1`, `mergekit_weights_tau=1.0`, `exact_weights`, `default_tau=1.0`. */
function entryOf(key: string): Entry | undefined {
  const found = /^(mergekit|fusechat_code|exact|default)(_weights)?(?:_tau=([\d.]+))?$/.exec(key);
  if (found === null) return undefined;
  const [, kind, weights, tau] = found;
  return {
    variant: kind === 'mergekit' ? 'mergekit' : 'surprisal',
    weights: weights !== undefined,
    parameters: {
      select_topk: tau === undefined ? 1 : Number(tau),
      sce_variant: kind === 'fusechat_code' ? 'fusechat' : 'mergekit',
    },
  };
}

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const base = stored(inputs.base, 'base');
  const models = storedList(inputs.models, 'models');
  const result: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    const entry = entryOf(key);
    if (entry === undefined) continue;
    const { tensor, outcome } = merged(sce, models, { base, parameters: entry.parameters, variant: entry.variant });
    const nothing = entry.variant === 'mergekit' && outcome.figures?.selected_share === 0;
    if (entry.weights) result[key] = outcome.weights?.slice(1);
    else result[key] = nothing ? repeated(tensor, models.length) : tensor;
  }
  return result;
}

/** mergekit's result has an axis of models too many when nothing is selected: its empty mask has one. */
function repeated(value: unknown, times: number): unknown {
  const one = plain(value);
  if (!isTensor(one)) throw new TypeError('no tensor');
  const copies = Array.from({ length: times }, () => one.data);
  return { shape: [times, ...one.shape], dtype: one.dtype, data: copies.flat() };
}
