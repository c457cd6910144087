import { describe, expect, it } from 'vitest';
import { parseMergeDocuments } from '../../../src/fusion/merge/config-document.js';
import { formatMergeDocument } from '../../../src/fusion/merge/config-format.js';
import {
  candidateDocument,
  cocktailWeights,
  type SearchSettings,
  searchPoints,
  searchVariables,
} from '../../../src/fusion/merge/search.js';

const TIES = `
models:
  - { model: a, parameters: { weight: 0.7 } }
  - { model: b, parameters: { density: 0.3 } }
merge_method: ties
base_model: base
parameters: { weight: 0.2, lambda: 1 }
`;
const settings: SearchSettings = {
  method: 'nelder-mead',
  parameters: ['weight', 'density', 'lambda'],
  groups: 2,
  evaluations: 400,
  negativeWeights: false,
  temperature: 0.1,
  seed: 3,
};

describe('search of the numbers of a merge', () => {
  const [document] = parseMergeDocuments(TIES, 'ties.yml');
  const variables = searchVariables(document, settings);

  it('begins with what the configuration writes, one variable a model and node', () => {
    expect(variables.map(({ parameter, model, group, start }) => [parameter, model, group, start])).toEqual([
      ...[0, 1].map((group) => ['weight', 'a', group, 0.7]),
      ...[0, 1].map((group) => ['weight', 'b', group, 0.2]),
      ...[0, 1].map((group) => ['density', 'a', group, 1]),
      ...[0, 1].map((group) => ['density', 'b', group, 0.3]),
      ...[0, 1].map((group) => ['lambda', undefined, group, 1]),
    ]);
    const required = searchVariables(document, { ...settings, parameters: [], groups: 1 });
    expect(required.map(({ parameter, model }) => `${parameter} ${model}`)).toEqual(['weight a', 'weight b']);
  });

  it('writes a point back as gradients', () => {
    const point = Float64Array.from(variables, (_, i) => i / 16);
    const [again] = parseMergeDocuments(
      formatMergeDocument(candidateDocument(document, variables, point)),
      'again.yml',
    );
    const back = searchVariables(again, { ...settings, groups: 1 }).map(({ start }) => start);
    expect(again.parameters.get('lambda')).toEqual({ kind: 'plain', value: [8 / 16, 9 / 16] });
    // A gradient is no number to begin with.
    expect(back.slice(2, 4)).toEqual([1, 1]);
  });

  it('refuses what is no number of the method, and methods without one', () => {
    expect(() => searchVariables(document, { ...settings, parameters: ['t'] })).toThrow(
      /t: no numeric parameter of ties/,
    );
    const [karcher] = parseMergeDocuments('models: [{model: a}, {model: b}]\nmerge_method: karcher\n', 'k.yml');
    expect(() => searchVariables(karcher, { ...settings, parameters: [] })).toThrow(/requires no number.*tol/);
    const slices = 'slices: [{sources: [{model: a, layer_range: [0, 1]}]}]\nmerge_method: passthrough\n';
    const [sliced] = parseMergeDocuments(slices, 's.yml');
    expect(() => searchVariables(sliced, settings)).toThrow(/whole models/);
  });

  it.each(['nelder-mead', 'cem'] as const)('%s finds the valley of a bowl inside the box', (method) => {
    const few = searchVariables(document, { ...settings, parameters: ['weight'], groups: 1 });
    const target = [0.31, 1.2];
    const search = searchPoints(few, { ...settings, method });
    let best = { value: Number.POSITIVE_INFINITY, point: [0, 0] };
    let next = search.next();
    let asked = 0;
    while (!next.done) {
      const point = [...next.value];
      for (const [i, x] of point.entries()) expect(x >= few[i].low && x <= few[i].high).toBe(true);
      if (asked++ === 0) expect(point).toEqual([0.7, 0.2]);
      const value = point.reduce((sum, x, i) => sum + (x - target[i]) ** 2, 0);
      if (value < best.value) best = { value, point };
      next = search.next(value);
    }
    expect(asked).toBeLessThanOrEqual(settings.evaluations + 2);
    for (const [i, x] of best.point.entries()) expect(x).toBeCloseTo(target[i], 1);
  });

  it('weighs models by the softmax of their losses', () => {
    expect(cocktailWeights([1, 1], 0.1)).toEqual([0.5, 0.5]);
    const [a, b] = cocktailWeights([1, 1.1], 0.1);
    expect(a / b).toBeCloseTo(Math.E, 12);
    expect(cocktailWeights([1e4, 2e4], 0.1)).toEqual([1, 0]);
  });
});
