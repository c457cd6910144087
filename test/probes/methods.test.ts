import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { arrayMatrix } from '../../src/formats/feature-matrix.js';
import { carveRows } from '../../src/linalg/carve-rows.js';
import { alignClasses, checkAligned, trainingClasses } from '../../src/probes/alignment.js';
import { averagedHeads, type Head, thetaOfHead } from '../../src/probes/cat-heads.js';
import { classMetrics, nllOfLogits, softmaxRows } from '../../src/probes/class-metrics.js';
import { distilHead, distilHeads } from '../../src/probes/distillation.js';
import { fitNewtonSet, outputsOf } from '../../src/probes/fit-set.js';
import { conditionalGain, resampleScores, scoreInterval } from '../../src/probes/gain.js';
import { memberRows, scanMember } from '../../src/probes/member-rows.js';
import { rankOfMembers } from '../../src/probes/redundancy.js';
import type { ProbeSettings } from '../../src/probes/settings.js';
import { headOfSgdProbe, PROBE_RECIPE, trainSgdProbe } from '../../src/probes/sgd-probe.js';
import { createRandom } from '../../src/random.js';

const draw = (seed: number, size: number): Float64Array => {
  const random = createRandom(seed);
  return Float64Array.from({ length: size }, () => random.normal());
};

const settings: ProbeSettings = {
  probe: 'newton',
  decays: [1e-3, 1e-1],
  sizes: [2],
  batchNorm: 'auto',
  epochs: null,
  learningRate: null,
  batch: 256,
  resamples: 100,
  rankRows: 100,
  seed: 0,
  threads: 1,
  maxMemoryBytes: 1e9,
};

describe('metrics of classes', () => {
  it('follow their definitions', () => {
    const logits = Float64Array.of(Math.log(3), 0, 0, Math.log(4), 0, 0);
    const labels = [0, 1, 1];
    const nll = nllOfLogits(logits, labels, 2);
    const metrics = classMetrics(softmaxRows(logits.slice(), 3, 2), labels, 2, nll);
    expect([...metrics.correct]).toEqual([1, 1, 0]);
    expect(metrics.accuracy).toBeCloseTo(2 / 3, 12);
    expect(metrics.nllNats).toBeCloseTo((-Math.log(0.75) - Math.log(0.8) + Math.log(2)) / 3, 12);
    // Confidences 0.75, 0.8 and 0.5 fall into the bins 12, 12 and 8 of 15.
    expect(metrics.ece).toBeCloseTo((Math.abs(1.55 - 2) + 0.5) / 3, 12);
  });

  it('keep a loss that no probability could hold', () => {
    expect(nllOfLogits(Float64Array.of(0, 2000), [0], 2)[0]).toBe(2000);
  });
});

describe('heads of a concatenation', () => {
  it('give the mean of the logits of the members', () => {
    const classes = 3;
    const widths = [2, 5, 4];
    const heads = widths.map(
      (features, m): Head => ({ weights: draw(m, classes * features), bias: draw(50 + m, classes), features, classes }),
    );
    const rows = 6;
    const members = widths.map((columns, m) =>
      memberRows(arrayMatrix(`m${m}`, draw(20 + m, rows * columns), rows, columns), undefined, undefined, true),
    );
    const cat = outputsOf(members, thetaOfHead(averagedHeads(heads), widths), classes, 1);
    const single = heads.map((head, m) => outputsOf([members[m]], thetaOfHead(head, [widths[m]]), classes, 1));
    cat.forEach((value, i) => {
      expect(value).toBeCloseTo((single[0][i] + single[1][i] + single[2][i]) / 3, 12);
    });
    expect(() => averagedHeads([heads[0], { ...heads[1], classes: 2 }])).toThrow(RangeError);
  });
});

describe('distillation of several heads', () => {
  it('is zero for equal logits and has the gradient of its loss', () => {
    const [samples, classes, tau] = [4, 3, 2.5];
    const teacher = draw(1, samples * classes);
    expect(distilHead(teacher, teacher, samples, classes, tau).lossNats).toBeCloseTo(0, 14);
    const student = draw(2, samples * classes);
    const { gradient } = distilHead(teacher, student, samples, classes, tau);
    gradient.forEach((value, i) => {
      const moved = (by: number): number => {
        const other = student.slice();
        other[i] += by;
        return distilHead(teacher, other, samples, classes, tau).lossNats;
      };
      expect((moved(1e-6) - moved(-1e-6)) / 2e-6).toBeCloseTo(value, 7);
    });
    const both = distilHeads([teacher, teacher], [student, teacher], samples, classes, tau);
    expect(both.totalNats).toBeCloseTo(distilHead(teacher, student, samples, classes, tau).lossNats, 12);
    expect(both.meanNats).toBeCloseTo(both.totalNats / 2, 12);
    expect(() => distilHeads([teacher], [], samples, classes)).toThrow(RangeError);
  });

  it('stays finite for logits far apart', () => {
    const { lossNats, gradient } = distilHead([0, 1000], [1000, 0], 1, 2);
    expect(lossNats).toBeCloseTo(1000, 9);
    expect([...gradient].every(Number.isFinite)).toBe(true);
  });
});

describe('gain of a concatenation', () => {
  it('is the accuracy over the best member, with an interval that holds it', () => {
    const cat = Uint8Array.from({ length: 200 }, (_, i) => (i % 10 === 0 ? 0 : 1));
    const a = Uint8Array.from({ length: 200 }, (_, i) => (i % 2 === 0 ? 0 : 1));
    const b = Uint8Array.from({ length: 200 }, (_, i) => (i % 4 === 0 ? 0 : 1));
    const scores = resampleScores([cat, a, b], 400, 3);
    const gain = conditionalGain(scores, 0, [1, 2], 2);
    expect(gain.overBest.value).toBeCloseTo(0.15, 12);
    expect(gain.overMean.value).toBeCloseTo(0.9 - 0.625, 12);
    expect(gain.overEnsemble?.value).toBeCloseTo(0.15, 12);
    expect(gain.overBest.low).toBeGreaterThan(0.05);
    expect(gain.overBest.low).toBeLessThan(0.15);
    expect(gain.overBest.high).toBeGreaterThan(0.15);
    expect(scoreInterval(scores, 0).value).toBeCloseTo(0.9, 12);
    expect(resampleScores([cat, a, b], 400, 3)).toEqual(scores);
  });
});

describe('alignment of members and classes', () => {
  it('names both ids at the first row where they differ', () => {
    const ids = ['a', 'b', 'c'];
    const members = [
      { name: 'one.csv', rows: 3, ids },
      { name: 'two.csv', rows: 3, ids: ['a', 'c', 'b'] },
    ];
    expect(() => checkAligned(members)).toThrow(/row 1: id "b" in one.csv, but "c" in two.csv/);
    expect(() => checkAligned([members[0], { name: 'two.csv', rows: 2 }])).toThrow(/2 rows, one.csv has 3/);
    expect(() => checkAligned([members[0], { name: 'three.csv', rows: 3, ids }])).not.toThrow();
  });

  it('raises the id error for every permutation of one member', () => {
    fc.assert(
      fc.property(fc.shuffledSubarray(['a', 'b', 'c', 'd', 'e'], { minLength: 5 }), (ids) => {
        const members = [
          { name: 'x', rows: 5, ids: ['a', 'b', 'c', 'd', 'e'] },
          { name: 'y', rows: 5, ids },
        ];
        const moved = ids.findIndex((id, r) => id !== members[0].ids[r]);
        if (moved < 0) expect(() => checkAligned(members)).not.toThrow();
        else expect(() => checkAligned(members)).toThrow(`row ${moved}: id "${members[0].ids[moved]}"`);
      }),
    );
  });

  it('names a class that the training rows lack', () => {
    const labels = { kind: 'classes' as const, codes: Int32Array.of(0, 1), names: ['cat', 'cow'] };
    expect(() => alignClasses(labels, ['cat', 'dog'], 'split "test"')).toThrow(/row 1 has class "cow"/);
    expect([...alignClasses({ ...labels, names: ['dog', 'cat'] }, ['cat', 'dog'], 's')]).toEqual([1, 0]);
    expect(trainingClasses(Int32Array.of(2, 0, 2), ['a', 'b', 'c'])).toEqual({
      names: ['a', 'c'],
      codes: Int32Array.of(1, 0, 1),
    });
    expect(() => trainingClasses(Int32Array.of(1, 1), ['a', 'b'])).toThrow(/two classes/);
  });
});

describe('rows that are carved out', () => {
  it('keep the share of every class, are disjoint and depend on the seed alone', () => {
    const groups = Int32Array.from({ length: 103 }, (_, i) => (i < 3 ? 0 : i % 2 === 0 ? 1 : 2));
    const { rest, parts } = carveRows(103, groups, [0.2, 0.1], 7);
    expect(new Set([...rest, ...parts[0], ...parts[1]]).size).toBe(103);
    expect(parts.map((part) => part.length)).toEqual([20, 10]);
    expect([...rest].filter((row) => row < 3)).toEqual([0, 1, 2]);
    expect(carveRows(103, groups, [0.2, 0.1], 7).rest).toEqual(rest);
    expect(carveRows(103, groups, [0.2, 0.1], 8).rest).not.toEqual(rest);
  });
});

describe('rows of a member', () => {
  const matrix = arrayMatrix(
    'm',
    Float64Array.from({ length: 30 }, (_, i) => (i % 3 === 2 ? 7 : i)),
    10,
    3,
  );

  it('are the same held and streamed, whole and in part', async () => {
    const wanted = Int32Array.of(1, 4, 5, 9);
    const scale = await scanMember(matrix, wanted);
    expect(scale.constantFeatures).toBe(1);
    expect(scale.mean[0]).toBeCloseTo((3 + 12 + 15 + 27) / 4, 12);
    const held = memberRows(matrix, wanted, scale, true);
    const streamed = memberRows(matrix, wanted, scale, false);
    expect([...streamed.read(1, 3)]).toEqual([...held.read(1, 3)]);
    expect(held.read(0, 1)[2]).toBe(0);
  });

  it('names the column of a value that is not finite', async () => {
    const bad = arrayMatrix('bad.npy', Float64Array.of(1, 2, 3, Number.NaN), 2, 2);
    await expect(scanMember(bad)).rejects.toThrow(/1 of 2 rows hold NaN.*row 1, column 1/);
  });
});

describe('fits of a set', () => {
  const rows = 90;
  const classes = 3;
  const labels = Int32Array.from({ length: rows }, (_, r) => r % classes);
  const feature = (seed: number, columns: number, shift: number): Float64Array => {
    const x = draw(seed, rows * columns);
    for (let r = 0; r < rows; r++) x[r * columns] += shift * labels[r];
    return x;
  };
  const open = async (x: Float64Array, columns: number, hold: boolean) => {
    const matrix = arrayMatrix('x', x, rows, columns);
    return memberRows(matrix, undefined, await scanMember(matrix), hold);
  };

  it('are the same from held and from streamed members, and choose on the validation rows alone', async () => {
    const [a, b] = [feature(1, 4, 1), feature(2, 3, 0.5)];
    const theta: Float64Array[] = [];
    for (const hold of [true, false]) {
      const train = [await open(a, 4, hold), await open(b, 3, hold)];
      const fit = fitNewtonSet(
        { train, validation: train },
        { train: labels, validation: labels },
        classes,
        settings,
        () => undefined,
      );
      expect(fit.path).toBe('primal');
      expect(fit.grid.filter(({ chosen }) => chosen)).toHaveLength(1);
      for (const point of fit.grid) expect(point.gradientNorm).toBeLessThan(1e-8);
      theta.push(fit.theta);
    }
    expect(theta[1]).toEqual(theta[0]);
  });

  it('take the dual form for more features than rows', async () => {
    const columns = 140;
    const train = [await open(feature(3, columns, 2), columns, true)];
    const fit = fitNewtonSet(
      { train, validation: train },
      { train: labels, validation: labels },
      classes,
      settings,
      () => undefined,
    );
    expect(fit.path).toBe('dual');
    for (const point of fit.grid) expect(point.gradientNorm).toBeLessThan(1e-8);
  });

  it('by stochastic gradients depend on the seed alone and separate what can be separated', () => {
    const x = draw(4, rows * 5);
    for (let r = 0; r < rows; r++) x[r * 5 + labels[r]] += 6;
    const matrix = arrayMatrix('x', x, rows, 5);
    const members = [memberRows(matrix, undefined, undefined, true)];
    const run = (seed: number) =>
      trainSgdProbe(members, labels, classes, { ...PROBE_RECIPE, batch: 16, decay: 1e-4, batchNorm: true, seed });
    const probe = run(1);
    expect(run(1).weights).toEqual(probe.weights);
    expect(run(2).weights).not.toEqual(probe.weights);
    const head = headOfSgdProbe(probe);
    const logits = outputsOf(members, thetaOfHead(head, [5]), classes, 1);
    expect(classMetrics(softmaxRows(logits, rows, classes), labels, classes).accuracy).toBe(1);
  });
});

describe('ranks of members', () => {
  it('are the same from features and from rows, and the squared one does not see copies', () => {
    const rows = 12;
    const narrow = { data: draw(1, rows * 5), columns: 5 };
    const wide = { data: draw(2, rows * 9), columns: 9 };
    const both = rankOfMembers([narrow, wide], rows);
    expect(both.singularValues.length).toBe(rows);
    const single = rankOfMembers([narrow], rows);
    const twice = rankOfMembers([narrow, narrow], rows);
    expect(twice.effectiveRankSquared).toBeCloseTo(single.effectiveRankSquared, 8);
    expect(twice.participationRatio).toBeCloseTo(single.participationRatio, 8);
    expect(twice.stableRank).toBeCloseTo(single.stableRank, 8);
  });
});
