import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { logSoftmax } from '../../src/decoding/log-softmax.js';
import {
  checkPathNucleus,
  EMPTY_PATH,
  PATH_NUCLEUS_DEFAULTS,
  type PathNucleusSettings,
  parsePathNucleus,
  pathWeights,
  stepPaths,
  type TokenPath,
} from '../../src/decoding/path-nucleus.js';
import { createRandom } from '../../src/random.js';

const row = (seed: number, vocabulary: number): Float64Array => {
  const random = createRandom(seed);
  return logSoftmax(Float64Array.from({ length: vocabulary }, () => 2 * random.normal()));
};
const never = (): boolean => false;
const settings = (changes: Partial<PathNucleusSettings>): PathNucleusSettings => ({
  ...PATH_NUCLEUS_DEFAULTS,
  ...changes,
});

describe('path nucleus', () => {
  it('with one path, sampling and no joint nucleus is ordinary top-p', () => {
    const vocabulary = 12;
    const p = 0.9;
    const logs = row(4, vocabulary);
    const order = [...logs.keys()].sort((a, b) => logs[b] - logs[a]);
    const nucleus: number[] = [];
    for (let mass = 0; mass < p; ) {
      const token = order[nucleus.length];
      nucleus.push(token);
      mass += Math.exp(logs[token]);
    }
    expect(nucleus.length).toBeGreaterThan(2);
    const total = nucleus.reduce((sum, token) => sum + Math.exp(logs[token]), 0);
    const random = createRandom(1);
    const counts = new Map<number, number>();
    const draws = 8_000;
    const plain = settings({ width: 1, tokenMass: p, pathMass: 1, select: 'sample' });
    for (let d = 0; d < draws; d++) {
      const [{ tokens }] = stepPaths([EMPTY_PATH], [logs], plain, never, () => random.uniform()).paths;
      counts.set(tokens[0], (counts.get(tokens[0]) ?? 0) + 1);
    }
    expect([...counts.keys()].sort()).toEqual([...nucleus].sort());
    for (const token of nucleus) {
      const share = Math.exp(logs[token]) / total;
      const deviation = Math.sqrt((share * (1 - share)) / draws);
      expect(Math.abs((counts.get(token) ?? 0) / draws - share)).toBeLessThan(4 * deviation);
    }
  });

  it('without either nucleus is plain beam search', () => {
    const vocabulary = 5;
    const transitions = Array.from({ length: vocabulary + 1 }, (_, i) => row(20 + i, vocabulary));
    const after = ({ tokens }: { tokens: readonly number[] }): Float64Array => transitions[tokens.at(-1) ?? vocabulary];
    const eos = vocabulary - 1;
    let beam: { tokens: number[]; logProbability: number }[] = [{ tokens: [], logProbability: 0 }];
    let paths: readonly TokenPath[] = [EMPTY_PATH];
    const plain = settings({ width: 3, tokenMass: 1, pathMass: 1 });
    for (let step = 0; step < 4; step++) {
      beam = beam
        .flatMap((path) =>
          path.tokens.at(-1) === eos
            ? [path]
            : Array.from(after(path), (log, token) => ({
                tokens: [...path.tokens, token],
                logProbability: path.logProbability + log,
              })),
        )
        .sort((a, b) => b.logProbability - a.logProbability)
        .slice(0, 3);
      paths = stepPaths(
        paths,
        paths.map(after),
        plain,
        (token) => token === eos,
        () => 0,
      ).paths;
      expect(paths.map(({ tokens }) => tokens)).toEqual(beam.map(({ tokens }) => tokens));
    }
  });

  it('keeps the smallest prefix whose mass reaches the bound', () => {
    const masses = fc.double({ min: 0.05, max: 0.999, noNaN: true });
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1000 }), masses, masses, (seed, tokenMass, pathMass) => {
        const paths: TokenPath[] = [
          { tokens: [1], logProbability: -0.3, finished: false },
          { tokens: [2], logProbability: -0.9, finished: true },
        ];
        const step = stepPaths(
          paths,
          [row(seed, 40), undefined],
          settings({ tokenMass, pathMass, width: 90 }),
          never,
          () => 0,
        );
        const kept = step.paths;
        const largest = kept.reduce((sum, { logProbability }) => sum + Math.exp(logProbability), 0);
        expect(step.nucleusMass).toBeGreaterThanOrEqual(pathMass - 1e-12);
        const total = largest / step.nucleusMass;
        const last = Math.exp(kept[kept.length - 1].logProbability) / total;
        expect(step.nucleusMass - last).toBeLessThan(pathMass);
        expect(step.effectivePaths).toBeLessThanOrEqual(step.candidates * (1 + 1e-12));
      }),
    );
  });

  it('breaks ties by the token sequence and never takes what cannot follow', () => {
    const flat = Float64Array.of(Math.log(0.5), Number.NEGATIVE_INFINITY, Math.log(0.5));
    const paths: TokenPath[] = [
      { tokens: [4], logProbability: -1, finished: false },
      { tokens: [3], logProbability: -1, finished: false },
    ];
    const step = stepPaths(paths, [flat, flat], settings({ tokenMass: 1, pathMass: 1 }), never, () => 0);
    expect(step.paths.map(({ tokens }) => tokens)).toEqual([
      [3, 0],
      [3, 2],
      [4, 0],
      [4, 2],
    ]);
    expect(step.paths.map(({ parent }) => parent)).toEqual([1, 1, 0, 0]);
    expect(step.jointEntropyNats).toBeCloseTo(Math.log(4), 12);
  });

  it('ranks by the length-normalised score', () => {
    const paths: TokenPath[] = [
      { tokens: [0, 0, 0, 0], logProbability: -2, finished: true },
      { tokens: [1], logProbability: -1.5, finished: true },
    ];
    const weights = pathWeights(paths, { lengthPenalty: 1, temperature: 0.5 });
    expect(weights[0] / weights[1]).toBeCloseTo(Math.exp((-0.5 + 1.5) / 0.5), 10);
    const step = stepPaths(paths, [undefined, undefined], settings({ lengthPenalty: 1, pathMass: 1 }), never, () => 0);
    expect(step.paths[0].tokens).toHaveLength(4);
  });

  it.each([
    [{ width: 0 }, /k is 0/],
    [{ tokenMass: 0 }, /top-p-token is 0/],
    [{ pathMass: 1.5 }, /top-p-path is 1.5/],
    [{ lengthPenalty: -1 }, /length-penalty is -1/],
    [{ temperature: 0 }, /temperature is 0/],
  ])('refuses %o', (changes, message) => {
    expect(() => checkPathNucleus(settings(changes))).toThrow(message);
  });
});

describe('settings of path nucleus from text', () => {
  it('keeps defaults of what is not named', () => {
    expect(parsePathNucleus('k=2, select=sample,length-penalty=0.5')).toEqual({
      ...PATH_NUCLEUS_DEFAULTS,
      width: 2,
      select: 'sample',
      lengthPenalty: 0.5,
    });
  });

  it.each([
    ['kk=3', /unknown "kk"/],
    ['select=beam', /select is "beam"; expected topk or sample/],
    ['top-p-path=2', /top-p-path is 2/],
    ['k', /k is NaN/],
  ])('refuses %s', (text, message) => {
    expect(() => parsePathNucleus(text)).toThrow(message);
  });
});
