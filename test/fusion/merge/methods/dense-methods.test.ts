import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InputError } from '../../../../src/errors.js';
import { arceeFusion, fusionParts } from '../../../../src/fusion/merge/methods/arcee-fusion.js';
import { karcher } from '../../../../src/fusion/merge/methods/karcher.js';
import { linear } from '../../../../src/fusion/merge/methods/linear.js';
import { modelStock } from '../../../../src/fusion/merge/methods/model-stock.js';
import { multislerp } from '../../../../src/fusion/merge/methods/multislerp.js';
import { nearswap } from '../../../../src/fusion/merge/methods/nearswap.js';
import { nuslerp } from '../../../../src/fusion/merge/methods/nuslerp.js';
import { passthrough } from '../../../../src/fusion/merge/methods/passthrough.js';
import { MERGE_METHODS, mergeMethod } from '../../../../src/fusion/merge/methods/registry.js';
import { slerp } from '../../../../src/fusion/merge/methods/slerp.js';
import { weightsLike } from '../../../kernels/stored-elements.js';
import { runMethod, tensorOf, valuesOf } from './merge-tasks.js';

const random = (elements: number, seed: number, shape = [elements]) => tensorOf(weightsLike(elements, seed), shape);
const norm = (x: readonly number[]): number => Math.hypot(...x);
const dot = (x: readonly number[], y: readonly number[]): number => x.reduce((sum, value, i) => sum + value * y[i], 0);
const near = (found: readonly number[], wanted: readonly number[], tolerance = 1e-12): void => {
  expect(found).toHaveLength(wanted.length);
  expect(Math.max(0, ...found.map((value, i) => Math.abs(value - wanted[i])))).toBeLessThan(tolerance);
};

describe('registry', () => {
  it('names each method once, and the nearest one for a wrong name', () => {
    expect(new Set(MERGE_METHODS.map((method) => method.name)).size).toBe(MERGE_METHODS.length);
    expect(mergeMethod('slerp')).toBe(slerp);
    expect(() => mergeMethod('nuslrp')).toThrow(/unknown merge method "nuslrp"; did you mean "nuslerp"\?/);
  });
});

describe('linear', () => {
  it('does not depend on the order of the models, and gives equal models back', () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: 0.1, max: 3, noNaN: true }), { minLength: 3, maxLength: 3 }), (weights) => {
        const models = [1, 2, 3].map((seed) => random(37, seed));
        const turned = runMethod(linear, [models[2], models[0], models[1]], {
          weights: [weights[2], weights[0], weights[1]],
        });
        near(runMethod(linear, models, { weights }).values, turned.values, 1e-15);
        const single = tensorOf(weightsLike(37, 4), [37], 'BF16');
        expect(runMethod(linear, [single, single, single], { weights }).bytes).toEqual(single.bytes);
      }),
      { numRuns: 20 },
    );
  });

  it('rounds once to the output', () => {
    const models = [tensorOf([1, 1], [2], 'BF16'), tensorOf([1.0078125, 1.0078125], [2], 'BF16')];
    expect(runMethod(linear, models, { weights: [1, 1] }).values).toEqual([1, 1]);
    expect(runMethod(linear, models, { weights: [1, 1], dtype: 'F32' }).values).toEqual([1.00390625, 1.00390625]);
  });

  it('refuses weights that sum to 0, unless they are not normalised', () => {
    const models = [random(5, 1), random(5, 2)];
    expect(() => runMethod(linear, models, { weights: [1, -1] })).toThrow(InputError);
    const { values } = runMethod(linear, models, { weights: [1, -1], parameters: { normalize: false } });
    near(
      values,
      valuesOf(models[0]).map((value, i) => value - valuesOf(models[1])[i]),
    );
  });
});

describe('passthrough', () => {
  it('copies bytes, NaN payloads too, and scales', () => {
    const odd = { dtype: 'BF16', shape: [2], bytes: Uint8Array.of(0xc1, 0xff, 0x80, 0x3f) } as const;
    expect(runMethod(passthrough, [odd]).bytes).toEqual(odd.bytes);
    expect(runMethod(passthrough, [odd], { dtype: 'F32' }).values).toEqual([Number.NaN, 1]);
  });
});

describe('slerp', () => {
  const [a, b] = [random(64, 1), random(64, 2)];

  it('gives its ends at 0 and 1, and keeps the length of vectors of one length', () => {
    near(runMethod(slerp, [b], { base: a, parameters: { t: 0 } }).values, valuesOf(a));
    near(runMethod(slerp, [b], { base: a, parameters: { t: 1 } }).values, valuesOf(b));
    const [x, y] = [tensorOf([3, 0, 4]), tensorOf([0, 5, 0])];
    fc.assert(
      fc.property(fc.double({ min: 0, max: 1, noNaN: true }), (t) => {
        expect(norm(runMethod(slerp, [y], { base: x, parameters: { t } }).values)).toBeCloseTo(5, 12);
      }),
    );
  });

  it('goes straight between opposite and nearly equal vectors, and past a zero vector on the arc', () => {
    const opposite = tensorOf(valuesOf(a).map((value) => -value));
    near(runMethod(slerp, [opposite], { base: a, parameters: { t: 0.5 } }).values, new Array(64).fill(0));
    const zero = tensorOf(new Float64Array(64));
    const { values, figures } = runMethod(slerp, [zero], { base: a, parameters: { t: 0.25 } });
    near(
      values,
      valuesOf(a).map((value) => Math.sin(0.75 * (Math.PI / 2)) * value),
    );
    expect(figures).toMatchObject({ cosine: 0, linear: 0 });
  });

  it('copies what only one model has', () => {
    expect(runMethod(slerp, [b], { parameters: { t: 0.3 } }).values).toEqual(valuesOf(b));
  });
});

describe('nuslerp', () => {
  it('takes rows and columns as vectors of their own', () => {
    const [rows, columns] = [3, 5];
    const shape = [rows, columns];
    const [a, b] = [random(15, 1, shape), random(15, 2, shape)];
    const [x, y] = [valuesOf(a), valuesOf(b)];
    const flat = (of: readonly number[], pick: (i: number) => boolean) => tensorOf(of.filter((_, i) => pick(i)));
    for (const byRow of [true, false]) {
      const parameters = { nuslerp_flatten: false, nuslerp_row_wise: !byRow };
      const { values } = runMethod(nuslerp, [a, b], { weights: [1, 3], parameters });
      const pick = (i: number): boolean => (byRow ? Math.floor(i / columns) === 1 : i % columns === 1);
      const single = runMethod(nuslerp, [flat(x, pick), flat(y, pick)], { weights: [1, 3] });
      near(
        values.filter((_, i) => pick(i)),
        single.values,
      );
    }
  });

  it('halves weights that cancel, and follows task vectors with a base', () => {
    const [base, a, b] = [1, 2, 3].map((seed) => random(20, seed));
    const minus = (x: typeof a) => tensorOf(valuesOf(x).map((value, i) => value - valuesOf(base)[i]));
    const plain = runMethod(nuslerp, [minus(a), minus(b)], { weights: [1, 1] }).values;
    const based = runMethod(nuslerp, [a, b], { base, weights: [1, -1] }).values;
    near(
      based,
      plain.map((value, i) => value + valuesOf(base)[i]),
    );
  });

  it('goes straight between exactly opposite vectors', () => {
    const a = random(20, 1);
    const b = tensorOf(valuesOf(a).map((value) => -value));
    near(
      runMethod(nuslerp, [a, b], { weights: [3, 1] }).values,
      valuesOf(a).map((value) => 0.5 * value),
    );
  });
});

describe('multislerp', () => {
  it('gives equal models back, and the mean length along the mean direction', () => {
    const a = random(30, 1);
    near(runMethod(multislerp, [a, a, a], { weights: [1, 2, 3] }).values, valuesOf(a), 1e-8);
    const [x, y] = [tensorOf([2, 0]), tensorOf([0, 4])];
    near(runMethod(multislerp, [x, y], { weights: [1, 1] }).values, [3 / Math.SQRT2, 3 / Math.SQRT2], 1e-7);
  });

  it('goes straight between two directions that cancel, and refuses more', () => {
    const a = random(30, 1);
    const b = tensorOf(valuesOf(a).map((value) => -3 * value));
    near(
      runMethod(multislerp, [a, b], { weights: [1, 1] }).values,
      valuesOf(a).map((value) => -value),
    );
    const [x, y, z] = [tensorOf([1, 0]), tensorOf([-1, 0]), tensorOf([0, 0])];
    expect(() => runMethod(multislerp, [x, y, z], { weights: [1, 1, 1] })).toThrow(/cancel/);
  });
});

describe('karcher', () => {
  it('bisects two directions and finds the centre of three', () => {
    near(runMethod(karcher, [tensorOf([2, 0]), tensorOf([0, 4])]).values, [3 / Math.SQRT2, 3 / Math.SQRT2]);
    const { values } = runMethod(karcher, [tensorOf([1, 0, 0]), tensorOf([0, 1, 0]), tensorOf([0, 0, 1])]);
    near(values, new Array(3).fill(1 / Math.sqrt(3)));
  });

  it('stands where the tangents to all directions cancel', () => {
    const models = [1, 2, 3, 4].map((seed) =>
      tensorOf(weightsLike(50, seed).map((value, i) => value + 0.05 * Math.sin(i))),
    );
    const { values, figures } = runMethod(karcher, models, { parameters: { max_iter: 100, tol: 1e-7 } });
    const u = values.map((value) => value / norm(values));
    const tangent = new Array(50).fill(0);
    for (const model of models) {
      const x = valuesOf(model).map((value) => value / norm(valuesOf(model)));
      const angle = Math.acos(dot(u, x));
      x.forEach((value, i) => {
        tangent[i] += (angle / Math.sin(angle)) * (value - Math.cos(angle) * u[i]);
      });
    }
    expect(norm(tangent)).toBeLessThan(1e-6);
    expect(figures?.iterations).toBeLessThan(100);
  });

  it('counts zero tensors in the length alone, and survives opposite ones', () => {
    near(runMethod(karcher, [tensorOf([3, 4]), tensorOf([0, 0])]).values, [1.5, 2]);
    near(runMethod(karcher, [tensorOf([0, 0]), tensorOf([0, 0])]).values, [0, 0]);
    const { values, warnings } = runMethod(karcher, [tensorOf([3, 4]), tensorOf([-3, -4])]);
    near(values, [3, 4]);
    expect(warnings).toHaveLength(1);
  });
});

describe('model_stock', () => {
  it('keeps the base for perpendicular task vectors and averages equal ones', () => {
    const base = tensorOf([1, 1, 1]);
    const perpendicular = [tensorOf([2, 1, 1]), tensorOf([1, 2, 1])];
    near(runMethod(modelStock, perpendicular, { base }).values, [1, 1, 1]);
    near(runMethod(modelStock, [perpendicular[0], perpendicular[0]], { base }).values, [2, 1, 1]);
  });

  it('keeps the base where task vectors cancel', () => {
    const base = tensorOf([1, 1]);
    const { values, warnings } = runMethod(modelStock, [tensorOf([2, 1]), tensorOf([0, 1])], { base });
    near(values, [1, 1]);
    expect(warnings).toHaveLength(1);
  });

  it('filter_wise is the method row by row', () => {
    const shape = [3, 7];
    const [base, a, b] = [1, 2, 3].map((seed) => random(21, seed, shape));
    const row = (of: typeof a) => tensorOf(valuesOf(of).slice(7, 14));
    const whole = runMethod(modelStock, [a, b], { base, parameters: { filter_wise: true } });
    near(whole.values.slice(7, 14), runMethod(modelStock, [row(a), row(b)], { base: row(base) }).values);
  });
});

describe('nearswap', () => {
  it('takes the other within t, and fades beyond', () => {
    const [a, b] = [tensorOf([0, 0, 0, 5]), tensorOf([0.01, 0.04, -0.2, 5])];
    near(runMethod(nearswap, [b], { base: a, parameters: { t: 0.02 } }).values, [0.01, 0.02, -0.02, 5]);
  });
});

describe('arcee_fusion', () => {
  it('takes the other from the threshold on', () => {
    const shape = [12, 40];
    const [a, b] = [random(480, 1, shape), random(480, 2, shape)];
    const { importance, threshold, mask } = fusionParts(a, b);
    const sorted = [...importance].sort((x, y) => x - y);
    expect(threshold).toBe(sorted[239] + 1.5 * (sorted[359] - sorted[119]));
    const [x, y] = [valuesOf(a), valuesOf(b)];
    const found = runMethod(arceeFusion, [b], { base: a });
    expect(found.values).toEqual(x.map((value, i) => (mask[i] === 1 ? y[i] : value)));
    expect(found.keptDensity?.[1]).toBe(mask.filter((value) => value === 1).length / 480);
  });

  it('keeps the base where a NaN leaves no threshold', () => {
    const b = tensorOf([1, Number.NaN, 2]);
    const { values, warnings } = runMethod(arceeFusion, [b], { base: tensorOf([4, 5, 6]) });
    expect(values).toEqual([4, 5, 6]);
    expect(warnings).toHaveLength(1);
  });
});

describe('every dense method', () => {
  const shape = [70, 501];
  const [base, a, b] = [1, 2, 3].map((seed) => tensorOf(weightsLike(70 * 501, seed), shape, 'BF16'));
  const methods = [linear, slerp, nuslerp, multislerp, karcher, modelStock, nearswap, arceeFusion];

  it.each(methods.map((method) => [method.name, method] as const))(
    '%s gives the same bytes with any number of threads',
    (_, method) => {
      const models = method.models.most === 1 && method.base !== 'none' ? [a] : [a, b];
      const options = { base: method.base === 'none' ? undefined : base, weights: [1, 2], parameters: { t: 0.3 } };
      const one = runMethod(method, models, { ...options, threads: 1 });
      expect(Buffer.compare(runMethod(method, models, { ...options, threads: 3 }).bytes, one.bytes)).toBe(0);
    },
  );
});
