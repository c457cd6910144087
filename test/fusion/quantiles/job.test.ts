import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { aggregateQuantiles, type QuantilesArguments } from '../../../src/fusion/quantiles/quantiles-job.js';
import { quantilesBody } from '../../../src/fusion/quantiles/quantiles-report.js';
import { createRandom } from '../../../src/random.js';
import { temporaryFolder } from '../../formats/collect.js';

const folder = temporaryFolder();

/** A forecasts honestly; B knows the outcomes of training rows; quantiles of B cross, and some cells are missing. */
function cheating(): string {
  const random = createRandom(4);
  const lines = ['y,part,A@0.25,A@0.5,A@0.75,B@0.25,B@0.5,B@0.75'];
  for (let i = 0; i < 300; i++) {
    const y = 20 * random.normal();
    const part = i < 200 ? 'train' : 'test';
    const centre = part === 'train' ? y : 0;
    const cells = [-13.5, 0, 13.5, centre - 1, centre + (i % 9 === 0 ? 3 : 0), centre + 1];
    lines.push([y, part, ...cells.map((cell, c) => (i % 40 === 7 && c === 4 ? '' : cell))].join(','));
  }
  const path = join(folder, 'cheating.csv');
  writeFileSync(path, `${lines.join('\n')}\n`);
  return path;
}

const argumentsOf = (path: string): QuantilesArguments => ({
  source: {
    kind: 'table',
    paths: [path],
    layout: 'auto',
    columns: { id: 'id', outcome: 'y', model: 'model', level: 'tau', quantile: 'q', split: 'part', features: [] },
  },
  methods: ['all'],
  fit: {
    ...{ solver: 'lp', tolerance: 1e-8, normalised: true, margins: 'vec', smoothing: 0, trials: 1 },
    ...{ validationShare: 0.2, mostSteps: 10, seed: 0, threads: 1 },
  } as QuantilesArguments['fit'],
  split: { shares: [0.6, 0.2, 0.2], by: 'random', seed: 0 },
  shape: { nonCrossing: 'sort', sort: 'hard' },
  conformal: 'symmetric',
  keepPredictions: false,
  maxMemoryBytes: 1 << 28,
});

describe('the job of quantile aggregation', () => {
  it('warns of forecasts that saw the rows of the fit, of crossings, missing cells and calibration rows that are not there', async () => {
    const result = await aggregateQuantiles(argumentsOf(cheating()), () => undefined);
    const warnings = result.warnings.join('\n');
    expect(warnings).toContain('model B loses');
    expect(warnings).toContain('if it was trained on these rows, give out-of-fold forecasts');
    expect(warnings).not.toContain('model A loses');
    expect(warnings).toContain('quantiles of B cross');
    expect(warnings).toContain('no calibration rows');
    expect(warnings).toContain('fine: 15 cells with a missing forecast were left out of the fit');
    const body = quantilesBody(result);
    expect([body.missing_forecasts, body.incomplete_rows, body.nesting]).toEqual([8, 8, null]);
    expect(body.methods.every(({ conformal, scores }) => conformal === null && scores.conformal === null)).toBe(true);
    // Weights follow the model that cheats, and lose what the honest one would have given.
    const loss = (name: string) => body.methods.find((method) => method.name === name)?.test_mean_pinball ?? 0;
    expect(loss('coarse')).toBeGreaterThan(loss('average'));
    expect(body.models[1].crossing_pairs_share).toBeGreaterThan(0.01);
  });

  it('names the gap that the library soft sort would shrink, and refuses what cannot be', async () => {
    const args = argumentsOf(cheating());
    const soft = { ...args, shape: { nonCrossing: 'sort', sort: 'soft-published' }, methods: ['average'] } as const;
    expect((await aggregateQuantiles(soft, () => undefined)).methods.length).toBe(1);
    const library = { ...soft, shape: { nonCrossing: 'sort', sort: 'soft-library' } } as const;
    expect((await aggregateQuantiles(library, () => undefined)).warnings.join()).toContain(
      'gaps between quantiles reach',
    );
    const free = { ...args, fit: { ...args.fit, normalised: false } };
    await expect(aggregateQuantiles(free, () => undefined)).rejects.toThrow(
      '--unnormalized weights cannot be renormalised',
    );
  });
});
