import { describe, expect, it } from 'vitest';
import { createDrivenSampler, createSequenceSampler, sampleRows } from '../../src/decoding/sampler.js';
import { formatSamplingPlan, parseSamplingPlan } from '../../src/decoding/sampler-text.js';
import { SAMPLER_NAMES } from '../../src/decoding/samplers/registry.js';
import type { SamplingPlan } from '../../src/decoding/types.js';
import { createRandom } from '../../src/random.js';
import { keptTokens } from './kept-tokens.js';

function normalRows(rows: number, vocabulary: number, deviation = 2): Float32Array {
  const random = createRandom(rows * 7919 + vocabulary);
  return Float32Array.from({ length: rows * vocabulary }, () => deviation * random.normal());
}

describe('sampling plans as text', () => {
  it('keeps the order as written, and takes defaults', () => {
    expect(parseSamplingPlan('temperature=0.8,top-p=0.9')).toEqual({
      steps: [
        { kind: 'temperature', temperature: 0.8 },
        { kind: 'top-p', p: 0.9 },
      ],
    });
    expect(parseSamplingPlan('top-h,top-n-sigma,mirostat-v1').steps).toEqual([
      { kind: 'top-h', alpha: 0.4, rule: 'paper' },
      { kind: 'top-n-sigma', n: 1 },
      { kind: 'mirostat-v1', tauBits: 5, eta: 0.1, candidates: 100 },
    ]);
    expect(parseSamplingPlan('top-h=0.3:transformers')).toEqual(parseSamplingPlan('top-h=rule=transformers:alpha=0.3'));
    expect(parseSamplingPlan('top-k=5, greedy')).toEqual({ steps: [{ kind: 'top-k', k: 5 }], greedy: true });
    expect(parseSamplingPlan('none')).toEqual({ steps: [] });
  });

  it('reads back what it writes', () => {
    const text =
      'temperature=0.7,dynamic-temperature=1:0.5:2,top-k=40,top-p=0.95,min-p=0.05,typical=0.9,epsilon=0.0003,eta=0.002,' +
      'top-n-sigma=1.5,top-h=0.4:reference,xtc=0.5:0.1,mirostat-v2=4:0.2';
    const plan = parseSamplingPlan(text);
    expect(formatSamplingPlan(plan)).toBe(text);
    expect(new Set(plan.steps.map(({ kind }) => kind)).size).toBe(SAMPLER_NAMES.length - 1);
    for (const other of ['none', 'greedy', 'min-p=0.1,greedy']) {
      expect(formatSamplingPlan(parseSamplingPlan(other))).toBe(other);
    }
  });

  it.each([
    ['topp=0.9', /unknown sampler "topp"; did you mean "top-p"\?/],
    ['greed', /did you mean "greedy"\?/],
    ['', /no sampler/],
    ['top-p=1.5', /top-p: p is 1.5; expected a number in \(0, 1\]/],
    ['top-p=high', /p is "high"; expected a number/],
    ['top-p=', /p is ""; expected/],
    ['top-k', /top-k needs k, a positive whole number/],
    ['top-k=2.5', /top-k: k is 2.5/],
    ['typical', /needs mass/],
    ['temperature=-1', /temperature is -1; expected a number that is not negative/],
    ['xtc=0.5:0.6', /threshold is 0.6; expected a number in \(0, 0.5\]/],
    ['top-h=0.4:papr', /rule is papr; expected one of paper, reference, transformers/],
    ['top-h=0.4:paper:1', /top-h takes alpha:rule/],
    ['top-h=alhpa=0.4', /did you mean "alpha"/],
    ['top-h=0.4:alpha=0.3', /alpha is given twice/],
    ['mirostat-v2,top-p', /mirostat-v2 must be the last step/],
    ['mirostat-v1,mirostat-v2', /must be the last step/],
  ])('refuses %s', (text, message) => {
    expect(() => parseSamplingPlan(text)).toThrow(message);
  });
});

describe('pipelines', () => {
  const logits = normalRows(1, 400);

  it('depend on the order where they should: min-p before and after the temperature', () => {
    const before = keptTokens(parseSamplingPlan('min-p=0.1,temperature=2'), logits);
    const after = keptTokens(parseSamplingPlan('temperature=2,min-p=0.1'), logits);
    expect(after.length).toBeGreaterThan(before.length);
    expect([...after]).toEqual(expect.arrayContaining([...before]));
    const sigma = ['top-n-sigma,temperature=3', 'temperature=3,top-n-sigma'].map(parseSamplingPlan);
    expect(keptTokens(sigma[0], logits)).toEqual(keptTokens(sigma[1], logits));
  });

  it('renormalise over what earlier filters left', () => {
    const row = Float32Array.from([0.4, 0.3, 0.2, 0.1], Math.log);
    expect([...keptTokens(parseSamplingPlan('top-p=0.6'), row)]).toEqual([0, 1]);
    // Over the first three, 0.4/0.9 < 0.6 <= 0.7/0.9; over the first two, 0.4/0.7 < 0.6.
    expect([...keptTokens(parseSamplingPlan('top-k=1,top-p=0.6'), row)]).toEqual([0]);
    expect([...keptTokens(parseSamplingPlan('top-k=2,top-p=0.55'), row)]).toEqual([0]);
    expect([...keptTokens(parseSamplingPlan('top-p=0.55'), row)]).toEqual([0, 1]);
  });

  it('keep ties at the boundary of top-k, of the top of epsilon, and the lower ids of top-p', () => {
    const row = Float32Array.of(1, 2, 1, 1, 2);
    expect([...keptTokens(parseSamplingPlan('top-k=3'), row)]).toEqual([0, 1, 2, 3, 4]);
    expect([...keptTokens(parseSamplingPlan('epsilon=0.9'), row)]).toEqual([1, 4]);
    expect([...keptTokens(parseSamplingPlan('top-p=0.7'), row)]).toEqual([0, 1, 4]);
    expect([...keptTokens(parseSamplingPlan('temperature=0'), row)]).toEqual([1]);
    expect([...keptTokens(parseSamplingPlan('greedy'), row)]).toEqual([1]);
  });

  it('typical may drop the most probable token; XTC drops all likely ones but the least', () => {
    const row = Float32Array.from([0.4, ...new Array<number>(30).fill(0.02)], Math.log);
    expect(keptTokens(parseSamplingPlan('typical=0.3'), row)).not.toContain(0);
    const likely = Float32Array.from([0.4, 0.3, 0.2, 0.1], Math.log);
    expect([...keptTokens(parseSamplingPlan('xtc=1:0.15'), likely)]).toEqual([2, 3]);
    expect([...keptTokens(parseSamplingPlan('xtc=1:0.15'), likely, { acts: false })]).toEqual([0, 1, 2, 3]);
    expect([...keptTokens(parseSamplingPlan('xtc=1:0.45'), likely)]).toEqual([0, 1, 2, 3]);
  });
});

describe('sequence samplers', () => {
  const plan = parseSamplingPlan('temperature=1.2,top-p=0.95,xtc=0.5:0.05');

  it('draw by seed, sequence and step, whatever batch they are in', () => {
    const rows = 6;
    const vocabulary = 120;
    const steps = 5;
    const logits = Array.from({ length: steps }, (_, s) =>
      normalRows(rows, vocabulary + s).subarray(0, rows * vocabulary),
    );
    const make = () =>
      Array.from({ length: rows }, (_, sequence) => createSequenceSampler(plan, { seed: 3, sequence }));
    const together = make();
    const alone = make();
    for (const block of logits) {
      const batch = sampleRows(together, block, vocabulary);
      const single = alone.map((sampler, r) => sampler.next(block.subarray(r * vocabulary, (r + 1) * vocabulary)));
      expect(batch).toEqual(single);
    }
  });

  it('draw differently by seed and sequence, and at the rates of the distribution', () => {
    const row = Float32Array.from([0.5, 0.3, 0.2], Math.log);
    const counts = new Int32Array(3);
    const n = 3000;
    for (let sequence = 0; sequence < n; sequence++) {
      counts[createSequenceSampler({ steps: [] }, { seed: 1, sequence }).next(row).token]++;
    }
    [0.5, 0.3, 0.2].forEach((p, id) => {
      expect(Math.abs(counts[id] / n - p)).toBeLessThan(4 * Math.sqrt((p * (1 - p)) / n));
    });
  });

  it('XTC acts at its rate', () => {
    const row = Float32Array.from([0.6, 0.4], Math.log);
    const sampler = createSequenceSampler(parseSamplingPlan('xtc=0.3:0.1'), { seed: 9, sequence: 0 });
    const acted = Array.from({ length: 1000 }, () => sampler.next(row).keptCount).filter((count) => count === 1).length;
    expect(Math.abs(acted / 1000 - 0.3)).toBeLessThan(0.06);
  });

  it('record what was drawn from', () => {
    const row = Float32Array.from([0.5, 0.25, 0.25], Math.log);
    const token = createDrivenSampler(parseSamplingPlan('top-k=1'), () => () => 0.9).next(row);
    expect(token.token).toBe(0);
    expect(token.entropyNats).toBeCloseTo(1.5 * Math.LN2, 7);
    expect([token.entropyAfterNats, token.keptCount]).toEqual([0, 1]);
    expect(token.keptMass).toBeCloseTo(0.5, 7);
    expect(token.surprisalNats).toBeCloseTo(Math.LN2, 7);
  });

  it.each(['mirostat-v2=3:0.1', 'mirostat-v1=3:0.1'])('%s brings the mean surprise to tau', (text) => {
    const sampler = createSequenceSampler(parseSamplingPlan(text), { seed: 2, sequence: 0 });
    const logits = normalRows(1, 2000, 2);
    let sum = 0;
    const [burn, n] = [200, 1500];
    for (let i = 0; i < burn + n; i++) {
      sampler.next(logits);
      if (i >= burn) sum += sampler.surpriseBits();
    }
    expect(Math.abs(sum / n - 3)).toBeLessThan(0.15);
    expect(sampler.muBits()).not.toBe(6);
  });

  it('a plan without an own state shares nothing between sequences', () => {
    const mirostat: SamplingPlan = parseSamplingPlan('mirostat-v2');
    const [a, b] = [0, 1].map((sequence) => createSequenceSampler(mirostat, { seed: 1, sequence }));
    a.next(normalRows(1, 50));
    expect(b.muBits()).toBe(10);
  });
});
