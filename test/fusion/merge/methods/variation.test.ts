import { describe, expect, it } from 'vitest';
import { InputError } from '../../../../src/errors.js';
import { ram } from '../../../../src/fusion/merge/methods/ram.js';
import { ramplusTl, uniqueFactors } from '../../../../src/fusion/merge/methods/ramplus-tl.js';
import { sce } from '../../../../src/fusion/merge/methods/sce.js';
import { varm, varmGroup, varmMeasure, varmWeights } from '../../../../src/fusion/merge/methods/varm.js';
import { createRandom } from '../../../../src/random.js';
import { mergeOn, taskOn } from './sparse-tasks.js';

const random = createRandom(3);
const base = Array.from({ length: 97 }, () => random.normal());
const models = [0.1, 0.02].map((size) => base.map((value) => value + size * random.normal()));

describe('sce', () => {
  it('weights by mean squares, elects by the plain sum and averages what agrees', () => {
    const { values, outcome } = mergeOn(sce, {
      base: [0, 0, 0, 0],
      models: [
        [2, 2, 0, 1],
        [1, -1, -1, 0],
      ],
    });
    // Mean squares 9/4 and 3/4.
    expect(outcome.weights).toEqual([1, 0.75, 0.25]);
    expect(values).toEqual([1.75, 2, -1, 1]);
  });

  it('selects floor(share * number of elements that vary), the largest variances', () => {
    const given = {
      base: [0, 0, 0, 0, 0, 0],
      models: [
        [4, 3, 2, 1, 5, 0],
        [0, 0, 0, 0, 5, 0],
      ],
    };
    const { values, outcome } = mergeOn(sce, { ...given, parameters: { select_topk: 0.5 } });
    expect(values).toEqual([4, 3, 0, 0, 0, 0]);
    expect(outcome.figures?.selected_share).toBeCloseTo(2 / 6, 12);
    const whole = mergeOn(sce, { ...given, parameters: { select_topk: 0.5, sce_variant: 'fusechat' } });
    expect(whole.values).toEqual([4, 3, 2, 1, 5, 0]);
    expect(whole.outcome.weights).toEqual(outcome.weights);
    expect(mergeOn(sce, { ...given, parameters: { select_topk: 0.2 } }).values).toEqual([0, 0, 0, 0, 0, 0]);
  });

  it('keeps the weights of small updates, unless told as mergekit', () => {
    const small = {
      base: [1, 1],
      models: [
        [1.0001, 1],
        [1, 1.0003],
      ],
    };
    expect(mergeOn(sce, small).outcome.weights?.[2]).toBeCloseTo(0.9, 3);
    expect(mergeOn(sce, { ...small, variant: 'mergekit' }).outcome.weights).toEqual([1, 0.5, 0.5]);
    expect(mergeOn(sce, { ...small, parameters: { sce_eps: 1e-6 } }).outcome.weights).toEqual([1, 0.5, 0.5]);
    expect(mergeOn(sce, { base: [1], models: [[1], [1]] }).outcome.weights).toEqual([1, 0.5, 0.5]);
  });
});

describe('ram', () => {
  const given = {
    base: [1, 1, 1, 1],
    models: [
      [3, 1, 2, 1],
      [5, 1, 1, 0],
    ],
  };

  it('averages what models share and adds what one alone has', () => {
    const { values, outcome } = mergeOn(ram, given);
    expect(values).toEqual([4, 1, 2, 0]);
    expect(outcome.keptDensity).toEqual([1, 0.5, 0.5]);
    expect(outcome.figures?.unique_share).toBe(0.5);
  });

  it('plus amplifies by the overlap', () => {
    const { values, outcome } = mergeOn(ramplusTl, { ...given, parameters: { r: 0.5, alpha: 0.4 } });
    // rho = 1 shared / 1 unique, clamped to 0.4.
    expect(outcome.weights).toEqual([1, 1.2, 1.2]);
    expect(values[2]).toBeCloseTo(2.2, 12);
    expect(values[3]).toBeCloseTo(-0.2, 12);
  });

  it('counts no unique elements as the whole overlap', () => {
    const settings = { r: 0.1, alpha: 0.2, epsilon: 1e-5 };
    const counts = { shared: Float64Array.of(5, 0), unique: Float64Array.of(0, 9) };
    expect(Array.from(uniqueFactors(counts, settings))).toEqual([1.02, 1]);
    expect(Array.from(uniqueFactors(counts, settings, true))).toEqual([Math.fround(1.02), 1]);
  });
});

describe('varm', () => {
  it('weights by mean squares of the variation', () => {
    const { values, outcome } = mergeOn(varm, { base, models });
    const [a, b] = models.map((model) => model.reduce((sum, value, i) => sum + (value - base[i]) ** 2, 0));
    expect(outcome.weights?.[0]).toBe(0);
    expect(outcome.weights?.[1]).toBeCloseTo(a / (a + b), 12);
    values.forEach((value, i) => {
      expect(value).toBeCloseTo((a * models[0][i] + b * models[1][i]) / (a + b), 12);
    });
  });

  it('gives a model that has not moved no weight, or all the same by the other rule', () => {
    const given = {
      base: [1, 2],
      models: [
        [1, 2],
        [2, 2],
      ],
    };
    expect(mergeOn(varm, given).values).toEqual([2, 2]);
    expect(mergeOn(varm, { ...given, parameters: { zero_rule: 'uniform' } }).values).toEqual([1.5, 2]);
    expect(varmWeights([0, 0, 0], 'formula')).toEqual([1 / 3, 1 / 3, 1 / 3]);
  });

  it('leaves an element that nobody has moved, and the code of the authors does not', () => {
    const given = {
      base: [1, 2, 3],
      models: [
        [1, 4, 3 + 1e-8],
        [1, 3, 3],
      ],
      parameters: { level: 'item' },
    };
    const { values } = mergeOn(varm, given);
    expect(values[0]).toBe(1);
    expect(values[1]).toBeCloseTo((4 * 4 + 1 * 3) / 5, 12);
    expect(values[2]).toBeCloseTo(3 + 1e-8, 12);
    const coded = mergeOn(varm, { ...given, parameters: { level: 'item', zero_rule: 'uniform' } }).values;
    expect(coded[0]).toBe(0);
    expect(coded[1]).toBeCloseTo(3.8, 12);
  });

  it('has groups of layers, modules and the model', () => {
    const q = 'model.layers.3.self_attn.q_proj.weight';
    expect(varmGroup('param', q)).toBeUndefined();
    expect(varmGroup('item', q)).toBeUndefined();
    expect(varmGroup('layer', q)).toBe('3');
    expect(varmGroup('module', q)).toBe('model.layers.3.self_attn');
    expect(varmGroup('module', 'model.layers.3.input_layernorm.weight')).toBe('model.layers.3.input_layernorm');
    expect(varmGroup('module', 'transformer.h.11.mlp.c_fc.weight')).toBe('transformer.h.11.mlp');
    for (const level of ['layer', 'module'] as const) expect(varmGroup(level, 'lm_head.weight')).toBe('lm_head.weight');
    expect(varmGroup('model', 'lm_head.weight')).toBe('model');
    expect(varm.survey?.group({ name: q }, { level: 'layer' })).toBe('3');
  });

  it('takes the weights of a group from its sums', () => {
    const given = {
      base: [0, 0],
      models: [
        [1, 1],
        [1, 3],
      ],
      parameters: { level: 'layer' },
    };
    expect(Array.from(varmMeasure(taskOn(varm, given)))).toEqual([1, 5]);
    expect(Array.from(varmMeasure(taskOn(varm, { ...given, parameters: { level: 'model' } })))).toEqual([2, 10]);
    const { values } = mergeOn(varm, { ...given, surveyed: Float64Array.of(3, 1) });
    expect(values).toEqual([1, 1.5]);
    expect(() => mergeOn(varm, given)).toThrow(RangeError);
  });

  it('measures by magnitude, by the signed mean, and by softmax', () => {
    const given = {
      base: [0, 0],
      models: [
        [3, -1],
        [1, 1],
      ],
    };
    const weights = (parameters: Record<string, string | number>) =>
      mergeOn(varm, { ...given, parameters }).outcome.weights;
    expect(weights({ measure: 'abs' })?.[1]).toBeCloseTo(2 / 3, 12);
    expect(weights({ measure: 'default' })).toEqual([0, 0.5, 0.5]);
    expect(weights({ measure: 'abs', temperature: 2 })?.[1]).toBeCloseTo(1 / (1 + Math.exp(-0.5)), 12);
    expect(() => varmWeights([1, 2], 'formula', 0)).toThrow(InputError);
  });
});
