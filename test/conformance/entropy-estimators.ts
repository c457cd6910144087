import { profileOf } from '../../src/dependence/count-profile.js';
import { chaoShenEntropy, chaoWangJostEntropy } from '../../src/dependence/entropy-coverage.js';
import { grassberger1988Entropy, grassbergerEntropy } from '../../src/dependence/entropy-grassberger.js';
import { ansbEntropy, nsbEntropy } from '../../src/dependence/entropy-nsb.js';
import {
  deltaStandardError,
  jackknifeEntropy,
  millerMadowEntropy,
  pluginEntropy,
} from '../../src/dependence/entropy-plugin.js';
import { dirichletMoments, jamesSteinEntropy } from '../../src/dependence/entropy-shrinkage.js';
import type { Json } from './harness.js';
import { float64, keysOf } from './tensors.js';

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const profile = profileOf(float64(inputs.counts, 'counts'));
  const bySupport = (keys: readonly string[], support: number): Record<string, unknown> => {
    const result: Record<string, unknown> = {};
    for (const key of keys) {
      const concentration = /^dirichlet_mean_alpha(.+)$/.exec(key)?.[1];
      if (concentration !== undefined) result[key] = dirichletMoments(profile, support, Number(concentration)).meanNats;
      else if (key === 'nsb_mean') result[key] = nsbEntropy(profile, support).meanNats;
      else if (key === 'nsb_sd') result[key] = nsbEntropy(profile, support).sdNats;
      else if (key === 'james_stein') result[key] = jamesSteinEntropy(profile, support).entropyNats;
      else if (key === 'james_stein_lambda') result[key] = jamesSteinEntropy(profile, support).lambda;
    }
    return result;
  };
  const { entropyNats: entropy, lambda } = jamesSteinEntropy(profile, profile.observed);
  const ansb = ansbEntropy(profile).meanNats;
  const { by_support: supports } = wanted as { by_support?: Record<string, Json> };
  return {
    n: profile.total,
    observed_support: profile.observed,
    f1: profile.singles,
    f2: profile.doubles,
    plugin: pluginEntropy(profile),
    miller_madow: millerMadowEntropy(profile),
    jackknife: jackknifeEntropy(profile),
    chao_shen: chaoShenEntropy(profile),
    grassberger88: grassberger1988Entropy(profile),
    grassberger03: grassbergerEntropy(profile),
    chao_wang_jost: chaoWangJostEntropy(profile),
    james_stein_observed_support: { entropy, lambda },
    by_support: Object.fromEntries(
      Object.entries(supports ?? {}).map(([support, keys]) => [support, bySupport(keysOf(keys), Number(support))]),
    ),
    delta_method_se: deltaStandardError(profile),
    ansb: Number.isNaN(ansb) ? 'NaN' : ansb,
  };
}
