import { describe, expect, it } from 'vitest';
import { type MergeOptions, parseMergeSettings } from '../../commands/merge-moe-options.js';
import { openExpertModel } from '../../src/moe/expert-layout.js';

const model = openExpertModel('fixtures/architectures/olmoe');
const parse = (options: MergeOptions, method = 'm-smoe', variant?: string) =>
  parseMergeSettings({ experts: '4', ...options }, model, { method, variant, seed: 0 });

describe('settings of a merge', () => {
  it('come from the method, a variant, and the user, the last winning', () => {
    expect(parse({})).toMatchObject({ align: 'weights', weights: 'usage', router: 'reduced', budget: 'uniform' });
    expect(parse({ align: 'none' })).toMatchObject({ align: 'none' });
    expect(parse({}, 'm-smoe', 'code')).toMatchObject({ budget: 'reference', align: 'none', referenceEpsilon: 1e-7 });
    expect(parse({ referenceEps: '0' }, 'm-smoe', 'code')).toMatchObject({ referenceEpsilon: 0 });
    expect(parse({ centre: true })).toMatchObject({ similarity: 'router-logits.centred' });
    expect(parse({ budget: 'exact' })).toMatchObject({ router: 'remap' });
    expect(parse({ budget: 'exact' }, 'reap')).toMatchObject({ router: 'reduced' });
  });

  it.each<[string, MergeOptions, RegExp]>([
    [
      'm-smoe',
      { align: 'activations', balance: true },
      /--balance is not read with --combine mean, --align activations/,
    ],
    ['m-smoe', { align: 'activations', alignDown: false }, /--no-align-down is not read/],
    ['m-smoe', { align: 'none', assignment: 'greedy' }, /--assignment is not read/],
    ['m-smoe', { combine: 'zip', assignment: 'greedy' }, /--assignment is not read/],
    ['m-smoe', { combine: 'fisher', weights: 'mean' }, /--weights is not read/],
    ['sub-moe', { referenceEps: '1e-7' }, /--reference-eps is not read with --combine joint-svd/],
    ['hc-smoe', { similarity: 'weight' }, /--similarity has no meaning for --method hc-smoe/],
    ['reap', { refit: 'group' }, /--refit group: --method reap makes no groups/],
    ['reap', { router: 'expanded' }, /nothing to copy/],
    ['m-smoe', { combine: 'fixed-dominant' }, /places neurons itself/],
    ['m-smoe', { topK: '1', router: 'remap' }, /--top-k needs --router reduced/],
    ['m-smoe', { routerLambda: '1' }, /--router-lambda needs --router-rows fit/],
    ['m-smoe', { keepRatio: '0.5' }, /say the same/],
    ['m-smoe', { keepLayers: '0-9' }, /has no experts/],
  ])('%s refuses %o', (method, options, message) => {
    expect(() => parse(options, method)).toThrow(message);
  });

  it('accept what a combination does read', () => {
    expect(parse({ combine: 'zip', alignDown: false })).toMatchObject({ alignDown: false });
    const lsa = { similarity: 'activation-correlation.lsa', align: 'none', assignment: 'greedy' };
    expect(parse(lsa)).toMatchObject({ assignment: 'greedy' });
  });
});
