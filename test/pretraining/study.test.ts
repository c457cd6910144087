import { describe, expect, it } from 'vitest';
import type { StudySettings } from '../../src/pretraining/settings.js';
import { runStudy } from '../../src/pretraining/study-job.js';

const SETTINGS: StudySettings = {
  case: 'factor',
  latent: 3,
  noise: 1,
  starts: 4,
  startRows: 1000,
  emBatch: 0,
  baseline: 'logistic',
  headNorm: Number.POSITIVE_INFINITY,
  truncate: Number.POSITIVE_INFINITY,
  resamples: 100,
  seed: 0,
  threads: 1,
  maxMemoryBytes: 1e9,
  dimension: 20,
  classes: 2,
  unlabelled: [100, 10_000],
  labelled: [10, 30, 100, 300, 1000],
  seeds: 20,
  signal: 2,
  signals: [0.05, 1],
  sweepUnlabelled: 10_000,
  sweepLabelled: 60,
  labelNoise: 0.1,
  testRows: 1000,
  hidden: 8,
  epochs: 5,
};

describe('study of factors', () => {
  const result = runStudy(SETTINGS, () => undefined);
  const rate = (m: number) => result.rates.find((own) => own.method === 'pretrained' && own.m === m);

  it('has a risk that falls as 1/n when unlabelled rows abound', () => {
    const slope = rate(10_000)?.slope ?? expect.fail('no rate');
    expect(slope.value).toBeGreaterThan(-1.3);
    expect(slope.value).toBeLessThan(-0.7);
    expect(slope.low).toBeLessThan(slope.value);
  });

  it('has a floor of the order of 1/m, and a crossing beyond which labels alone are better', () => {
    expect(rate(100)?.slope.value ?? 0).toBeGreaterThan(-0.8);
    const [few, many] = result.crossings;
    expect(few.n.value).toBeGreaterThan(30);
    expect(few.n.value).toBeLessThan(1000);
    expect(many.n.value).toBeNaN();
    const inverse = result.twoTerm.find(({ form }) => form === 'inverse');
    expect(inverse?.a.value).toBeGreaterThan(0);
    expect(inverse?.b.value).toBeGreaterThan(0);
  });

  it('never beats the estimator that knows the loadings by more than chance', () => {
    for (const n of SETTINGS.labelled) {
      const oracle = result.cells.find((cell) => cell.method === 'oracle' && cell.n === n);
      const own = result.cells.find((cell) => cell.method === 'pretrained' && cell.m === 10_000 && cell.n === n);
      if (oracle === undefined || own === undefined) expect.fail('a cell is missing');
      expect(own.excess).toBeGreaterThan(oracle.excess - 3 * oracle.excessSe);
    }
  });

  it('gains nothing when there is no signal', () => {
    const [weak, strong] = result.sweep;
    expect(weak.gain.value).toBeLessThan(0.01);
    expect(strong.gain.value).toBeGreaterThan(0.05);
  });

  it('is the same in every run', () => {
    const small = { ...SETTINGS, seeds: 2, signals: [] };
    expect(runStudy(small, () => undefined)).toEqual(runStudy(small, () => undefined));
  });
});

describe('study of a mixture', () => {
  const mixture: StudySettings = {
    ...SETTINGS,
    case: 'mixture',
    latent: 4,
    signal: 4,
    signals: [0.1, 4],
    unlabelled: [1000],
    sweepUnlabelled: 1000,
    labelled: [16, 60],
    seeds: 6,
    labelNoise: 0,
  };

  it('gains with separation and nothing without', () => {
    const result = runStudy(mixture, () => undefined);
    const risk = (method: string, n: number): number =>
      result.cells.find((cell) => cell.method === method && cell.n === n)?.risk ?? Number.NaN;
    expect(risk('pretrained', 60)).toBeLessThan(risk('supervised', 60));
    const [weak, strong] = result.sweep;
    expect(Math.abs(weak.gain.value)).toBeLessThan(0.05);
    expect(strong.gain.value).toBeGreaterThan(0.05);
  });
});

describe('study of pairs', () => {
  it('runs, and its oracle is the best', () => {
    const own: StudySettings = {
      ...SETTINGS,
      case: 'contrastive',
      unlabelled: [300],
      labelled: [40, 100],
      seeds: 3,
      signals: [],
    };
    const result = runStudy(own, () => undefined);
    const excess = (method: string): number =>
      result.cells.find((cell) => cell.method === method && cell.n === 100)?.excess ?? Number.NaN;
    expect(excess('oracle')).toBeLessThan(excess('pretrained'));
    expect(excess('oracle')).toBeLessThan(excess('supervised'));
  });
});
