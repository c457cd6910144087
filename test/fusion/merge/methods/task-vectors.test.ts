import { describe, expect, it } from 'vitest';
import { InputError } from '../../../../src/errors.js';
import { breadcrumbs } from '../../../../src/fusion/merge/methods/breadcrumbs.js';
import { breadcrumbsTies } from '../../../../src/fusion/merge/methods/breadcrumbs-ties.js';
import { dareLinear } from '../../../../src/fusion/merge/methods/dare-linear.js';
import { dareTies } from '../../../../src/fusion/merge/methods/dare-ties.js';
import { della } from '../../../../src/fusion/merge/methods/della.js';
import { dellaLinear } from '../../../../src/fusion/merge/methods/della-linear.js';
import { taskArithmetic } from '../../../../src/fusion/merge/methods/task-arithmetic.js';
import { ties } from '../../../../src/fusion/merge/methods/ties.js';
import type { MergeMethod } from '../../../../src/fusion/merge/types.js';
import { createRandom } from '../../../../src/random.js';
import { type Given, mergeOn } from './sparse-tasks.js';

const random = createRandom(11);
const draw = (count: number): number[] => Array.from({ length: count }, () => random.normal());
const ROWS = 12;
const COLUMNS = 50;
const base = draw(ROWS * COLUMNS);
const models = [0, 1, 2].map(() => base.map((value) => value + 0.1 * random.normal()));
const shape = [ROWS, COLUMNS];
const SPARSE: readonly MergeMethod[] = [ties, dareTies, dareLinear, breadcrumbs, breadcrumbsTies, della, dellaLinear];

/** TIES by its definition, with a sort. */
function tiesByDefinition(weights: readonly number[], densities: readonly number[], normalize: boolean): number[] {
  const deltas = models.map((model, j) => {
    const delta = model.map((value, i) => value - base[i]);
    const order = Array.from(delta.keys()).sort((a, b) => Math.abs(delta[b]) - Math.abs(delta[a]) || a - b);
    const kept = new Set(order.slice(0, Math.floor(densities[j] * delta.length)));
    return delta.map((value, i) => (kept.has(i) ? value : 0));
  });
  return base.map((value, i) => {
    const votes = deltas.map((delta, j) => delta[i] * weights[j]);
    const sign = votes.reduce((sum, vote) => sum + vote, 0) >= 0 ? 1 : -1;
    const agree = votes.map((vote) => Math.sign(vote) === sign);
    const sum = votes.reduce((total, vote, j) => total + (agree[j] ? vote : 0), 0);
    const divisor = weights.reduce((total, weight, j) => total + (agree[j] ? weight : 0), 0);
    return value + sum / (normalize && divisor !== 0 ? divisor : 1);
  });
}

const near = (found: readonly number[], wanted: readonly number[], tolerance = 1e-12): void => {
  expect(found.length).toBe(wanted.length);
  expect(Math.max(...found.map((value, i) => Math.abs(value - wanted[i])))).toBeLessThan(tolerance);
};

describe('ties', () => {
  it.each([
    [[0.2, 0.5, 0.8], [0.3, 0.41, 1], true],
    [[1, -0.5, 0.7], [0.29, 0.57, 0.01], true],
    [[1, -0.5, 0.7], [0.29, 0.57, 0.5], false],
  ])('weights %j, densities %j, normalize %s', (weights, densities, normalize) => {
    const perModel = weights.map((weight, j) => ({ weight, density: densities[j] }));
    const { values, outcome } = mergeOn(ties, { base, models, perModel, parameters: { normalize } });
    near(values, tiesByDefinition(weights, densities, normalize));
    const kept = densities.map((density) => Math.floor(density * base.length) / base.length);
    expect(outcome.keptDensity).toEqual([1, ...kept]);
    expect(outcome.weights).toEqual([1, ...weights]);
  });

  it('keeps floor(density n) in double precision', () => {
    const hundred = Array.from({ length: 100 }, (_, i) => i + 1);
    const { outcome } = mergeOn(ties, {
      base: new Float64Array(100),
      models: [hundred],
      perModel: [{ weight: 1, density: 0.29 }],
    });
    expect(outcome.keptDensity).toEqual([1, 0.28]);
  });

  it('keeps equal magnitudes by their index', () => {
    const { values } = mergeOn(ties, {
      base: new Float64Array(5),
      models: [[-1, 1, 1, 2, -1]],
      perModel: [{ weight: 1, density: 0.6 }],
    });
    expect(values).toEqual([-1, 1, 0, 2, 0]);
  });

  it('refuses a density that keeps nothing, and names tensor, model and density', () => {
    const given = { base: [0, 0, 0], models: [[1, 2, 3]], perModel: [{ weight: 1, density: 0.3 }] };
    expect(() => mergeOn(ties, given)).toThrow(InputError);
    expect(() => mergeOn(ties, given)).toThrow(/up_proj\.weight, model model-0: density 0\.3 keeps none/);
    expect(mergeOn(ties, { ...given, variant: 'mergekit' }).values).toEqual([0, 0, 3]);
  });

  it('warns of weights that cancel', () => {
    const given = {
      base: [0, 0],
      models: [
        [1, 2],
        [-1, -3],
      ],
    } as const;
    const cancelling = mergeOn(ties, { ...given, perModel: [{ weight: 1 }, { weight: -0.95 }] }).outcome;
    expect(cancelling.warnings?.join()).toMatch(/nearly cancel/);
    expect(cancelling.smallestDivisor).toBeCloseTo(0.05, 12);
    const agreeing = mergeOn(ties, { ...given, perModel: [{ weight: 1 }, { weight: 0.01 }] }).outcome;
    expect(agreeing.warnings).toEqual([]);
  });

  it('elects by the number of signs where asked', () => {
    const given = { base: [0], models: [[5], [-1], [-1]], perModel: [{ weight: 1 }, { weight: 1 }, { weight: 1 }] };
    expect(mergeOn(ties, given).values).toEqual([5]);
    expect(mergeOn(ties, { ...given, parameters: { consensus_method: 'count' } }).values).toEqual([-1]);
  });
});

describe('task arithmetic', () => {
  const perModel = [{ weight: 0.5 }, { weight: -0.25 }, { weight: 1 }];

  it('is the base plus the weighted task vectors', () => {
    const wanted = base.map((value, i) => {
      const sum = models.reduce((total, model, j) => total + perModel[j].weight * (model[i] - value), 0);
      return value + (sum / 1.25) * 0.5;
    });
    near(
      mergeOn(taskArithmetic, { base, models, perModel, parameters: { normalize: true, lambda: 0.5 } }).values,
      wanted,
    );
  });

  it('divides by nothing when the weights sum to nothing', () => {
    const zero = [{ weight: 1 }, { weight: -1 }];
    const { values, outcome } = mergeOn(taskArithmetic, {
      base: [1],
      models: [[3], [2]],
      perModel: zero,
      parameters: { normalize: true },
    });
    expect(values).toEqual([2]);
    expect(outcome.warnings?.join()).toMatch(/nearly cancel/);
  });

  it('copies the base where no other model has the tensor', () => {
    expect(mergeOn(taskArithmetic, { base: [1, 2], models: [] }).values).toEqual([1, 2]);
  });

  it('says that NaN count as no change', () => {
    const { values, outcome } = mergeOn(taskArithmetic, {
      base: [1, 2],
      models: [[Number.NaN, 3]],
      perModel: [{ weight: 1 }],
    });
    expect(values).toEqual([1, 3]);
    expect(outcome.warnings).toEqual(['differences of model-0 from the base that are NaN count as 0']);
  });

  it('says that a density has no effect', () => {
    const { outcome } = mergeOn(taskArithmetic, { base: [1], models: [[2]], perModel: [{ weight: 1, density: 0.5 }] });
    expect(outcome.warnings?.join()).toMatch(/no effect/);
  });
});

describe('all sparse methods', () => {
  const weights = [{ weight: 0.2 }, { weight: 0.5 }, { weight: 0.8 }];

  it.each(SPARSE.filter((method) => !method.global.some(({ name }) => name === 'consensus_method')))(
    '$name of density 1 is task arithmetic',
    (method) => {
      const given: Given = { base, models, shape, perModel: weights };
      expect(mergeOn(method, given).values).toEqual(mergeOn(taskArithmetic, given).values);
    },
  );

  it.each(SPARSE)('$name rounds once into every element type, the same on any number of threads', (method) => {
    for (const dtype of ['F32', 'F16', 'BF16'] as const) {
      const perModel = weights.map((own) => ({ ...own, density: 0.6 }));
      const given: Given = { base, models, shape, perModel, dtype };
      const once = mergeOn(method, given);
      expect(mergeOn(method, { ...given, threads: 3 })).toEqual(once);
      expect(once.values.every(Number.isFinite)).toBe(true);
    }
  });

  it.each(SPARSE.filter((method) => method.random))('$name draws anew for every seed, tensor and model', (method) => {
    const given: Given = {
      base: new Float64Array(600),
      models: [new Float64Array(600).fill(1), new Float64Array(600).fill(1)],
      shape: [20, 30],
      perModel: [0, 1].map(() => ({ weight: 1, density: 0.5 })),
      parameters: { rescale: false, normalize: false },
    };
    const values = mergeOn(method, given).values;
    expect(mergeOn(method, given).values).toEqual(values);
    expect(new Set(values)).toEqual(new Set([0, 1, 2]));
    for (const other of [{ seed: 2 }, { name: 'lm_head.weight' }, { names: ['a', 'b'] }, { names: ['a', 'a'] }]) {
      const found = mergeOn(method, { ...given, ...other }).values;
      expect(found).not.toEqual(values);
      expect(new Set(found)).toEqual(new Set([0, 1, 2]));
    }
  });
});

describe('dare', () => {
  const ones = new Float64Array(4000).fill(1);
  const given: Given = { base: new Float64Array(4000), models: [ones], perModel: [{ weight: 1, density: 0.25 }] };

  it('keeps the sum of magnitudes of the tensor, or divides by the density', () => {
    const l1 = mergeOn(dareLinear, given);
    expect(l1.values.reduce((sum, value) => sum + value, 0)).toBeCloseTo(4000, 6);
    const inverse = mergeOn(dareLinear, { ...given, parameters: { dare_rescale: 'inverse' } });
    expect(new Set(inverse.values)).toEqual(new Set([0, 4]));
    expect(Math.abs((inverse.outcome.keptDensity ?? [])[1] - 0.25)).toBeLessThan(0.03);
    const none = mergeOn(dareLinear, { ...given, parameters: { rescale: false } });
    expect(none.values.map((value) => 4 * value)).toEqual(inverse.values);
  });

  it('needs the whole tensor only for the sum of magnitudes', () => {
    const span = (parameters: Record<string, boolean | string>): string => dareTies.span(parameters);
    expect(span({ rescale: true, dare_rescale: 'l1' })).toBe('tensor');
    expect(span({ rescale: true, dare_rescale: 'inverse' })).toBe('element');
    expect(span({ rescale: false, dare_rescale: 'l1' })).toBe('element');
  });

  it('of pieces is that of the whole', () => {
    const parameters = { dare_rescale: 'inverse' };
    const whole = mergeOn(dareLinear, { ...given, parameters }).values;
    const pieces = [
      [0, 1],
      [1, 1300],
      [1300, 4000],
    ].flatMap(([from, to]) => {
      const piece = { base: new Float64Array(to - from), models: [ones.subarray(from, to)], firstElement: from };
      return mergeOn(dareLinear, { ...given, ...piece, parameters }).values;
    });
    expect(pieces).toEqual(whole);
  });

  it('of density 0 is the base', () => {
    const { values } = mergeOn(dareLinear, { ...given, perModel: [{ weight: 1, density: 0 }] });
    expect(values.every((value) => value === 0)).toBe(true);
  });
});

describe('breadcrumbs', () => {
  const ten = [1, -2, 3, -4, 5, -6, 7, -8, 9, -10];
  const given: Given = {
    base: new Float64Array(10),
    models: [ten],
    perModel: [{ weight: 1, density: 0.5, gamma: 0.2 }],
  };

  it('drops both ends', () => {
    expect(mergeOn(breadcrumbs, given).values).toEqual([0, 0, 0, -4, 5, -6, 7, -8, 0, 0]);
  });

  it('drops fewer of the largest where the density leaves no room', () => {
    const values = mergeOn(breadcrumbs, { ...given, perModel: [{ weight: 1, density: 0.9, gamma: 0.3 }] }).values;
    expect(values).toEqual([1, -2, 3, -4, 5, -6, 7, -8, 9, 0]);
  });

  it('keeps what is above the smallest where gamma drops nothing; mergekit keeps nothing', () => {
    const small = { ...given, perModel: [{ weight: 1, density: 0.5, gamma: 0.01 }] };
    const { values, outcome } = mergeOn(breadcrumbs, small);
    expect(values).toEqual([0, 0, 0, 0, 0, -6, 7, -8, 9, -10]);
    expect(outcome.warnings?.join()).toMatch(/fewer than 1\/gamma/);
    expect(mergeOn(breadcrumbs, { ...small, variant: 'mergekit' }).values.every((value) => value === 0)).toBe(true);
  });
});

describe('della', () => {
  it('keeps large entries of a row rather than small ones', () => {
    const rows = 4000;
    const delta = Float64Array.from({ length: rows * 5 }, (_, i) => [3, 1, 5, 2, 4][i % 5]);
    const { values } = mergeOn(dellaLinear, {
      base: new Float64Array(delta.length),
      models: [delta],
      shape: [rows, 5],
      perModel: [{ weight: 1, density: 0.5, epsilon: 0.4 }],
      parameters: { rescale: false },
    });
    for (const [column, probability] of [0.5, 0.1, 0.9, 0.3, 0.7].entries()) {
      const kept = values.filter((value, i) => i % 5 === column && value !== 0).length / rows;
      expect(Math.abs(kept - probability)).toBeLessThan(4 * Math.sqrt((probability * (1 - probability)) / rows));
    }
  });

  it('rescaled by the inverse probability keeps every entry on the mean', () => {
    const rows = 20_000;
    const delta = Float64Array.from({ length: rows * 3 }, (_, i) => (i % 3) + 1);
    const { values } = mergeOn(dellaLinear, {
      base: new Float64Array(delta.length),
      models: [delta],
      shape: [rows, 3],
      perModel: [{ weight: 1, density: 0.5, epsilon: 0.25 }],
      parameters: { della_rescale: 'inverse' },
    });
    for (const column of [0, 1, 2]) {
      const mean = values.reduce((sum, value, i) => sum + (i % 3 === column ? value : 0), 0) / rows;
      expect(Math.abs(mean / (column + 1) - 1)).toBeLessThan(0.06);
    }
    expect(dellaLinear.span({ rescale: true, della_rescale: 'inverse' })).toBe('row');
  });

  it('refuses probabilities outside (0, 1)', () => {
    const given = { base: [0, 0], models: [[1, 2]], perModel: [{ weight: 1, density: 0.9, epsilon: 0.15 }] };
    expect(() => mergeOn(della, given)).toThrow(/density 0\.9 with epsilon 0\.15/);
  });

  it('takes the density in rows of one', () => {
    const given = {
      base: new Float64Array(3000),
      models: [new Float64Array(3000).fill(1)],
      shape: [3000, 1],
      perModel: [{ weight: 1, density: 0.5, epsilon: 0.45 }],
      parameters: { rescale: false },
    };
    const kept = mergeOn(dellaLinear, given).outcome.keptDensity ?? [];
    expect(Math.abs(kept[1] - 0.5)).toBeLessThan(0.04);
  });
});
