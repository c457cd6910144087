import type { SamplerStep } from '../types.js';
import { dynamicTemperature } from './dynamic-temperature.js';
import { epsilon } from './epsilon.js';
import { eta } from './eta.js';
import type { SamplerMethod } from './method.js';
import { minP } from './min-p.js';
import { mirostatV1 } from './mirostat-v1.js';
import { mirostatV2 } from './mirostat-v2.js';
import { temperature } from './temperature.js';
import { topH } from './top-h.js';
import { topK } from './top-k.js';
import { topNSigma } from './top-n-sigma.js';
import { topP } from './top-p.js';
import { typical } from './typical.js';
import { xtc } from './xtc.js';

type Kind = SamplerStep['kind'];

/** Every sampler, under the name of its step. */
export const SAMPLERS: { readonly [K in Kind]: SamplerMethod<Extract<SamplerStep, { kind: K }>> } = {
  temperature,
  'dynamic-temperature': dynamicTemperature,
  'top-k': topK,
  'top-p': topP,
  'min-p': minP,
  typical,
  epsilon,
  eta,
  'top-n-sigma': topNSigma,
  'top-h': topH,
  xtc,
  'mirostat-v1': mirostatV1,
  'mirostat-v2': mirostatV2,
};

export const SAMPLER_NAMES = Object.keys(SAMPLERS) as Kind[];

/** The method of a step, seen without its kind. */
export function samplerOf(kind: Kind): SamplerMethod {
  // Each entry takes the steps of its own kind; callers pass a step to the entry that its kind names.
  return SAMPLERS[kind] as unknown as SamplerMethod;
}
