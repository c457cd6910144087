import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { InputError } from '../../src/errors.js';
import { matchesPattern, parsePatterns } from '../../src/formats/name-patterns.js';
import { openModelFiles } from '../../src/models/model-files.js';
import { createWeightReader } from '../../src/models/weights.js';
import { readTensorRows, selectedElements, selectTensors } from '../../src/quantization/tensor-selection.js';

const MODEL = join(import.meta.dirname, '../../fixtures/models/llama-sotu');
const files = openModelFiles(MODEL);
afterAll(() => files.store.close());

describe('selectTensors', () => {
  it('takes exactly what patterns name, and accounts for every other tensor', () => {
    const { selected, kept } = selectTensors(files, { tensors: ['*proj*'], keep: ['*.0.*.down_proj.*'] });
    expect(selected.length + kept.length).toBe(files.store.tensors.size);
    expect(selected.every(({ name }) => name.includes('_proj.') && !/\.0\..*down_proj/.test(name))).toBe(true);
    expect(kept.find(({ tensor }) => /\.0\..*down_proj/.test(tensor.name))?.reason).toBe('--keep');
    expect(kept.find(({ tensor }) => tensor.name.endsWith('norm.weight'))?.reason).toBe('not a matrix');
    const q = selected.find(({ role, layer }) => role === 'q' && layer === 1);
    expect(q?.inputs).toEqual(['layers.1.attention_input']);
    expect(selected.find(({ role, layer }) => role === 'v' && layer === 1)?.inputs).toEqual(q?.inputs);
    expect(selectedElements({ selected, kept })).toBe(
      selected.reduce((sum, { rows, columns }) => sum + rows * columns, 0),
    );
  });

  it('says so when nothing is large enough, and which pattern names nothing', () => {
    expect(() => selectTensors(files)).toThrow(/no matrix of a layer has 65536 elements/);
    expect(() => selectTensors(files, { tensors: ['*norm*'] })).toThrow(InputError);
    expect(() => selectTensors(files, { tensors: ['model.layers.0.mlp.down_pro.weight'] })).toThrow(/did you mean/);
    expect(() => selectTensors(files, { tensors: ['*q_proj*'], keep: ['*'] })).toThrow(/leaves nothing/);
  });

  it('reads rows in any pieces', () => {
    const item = selectTensors(files, { tensors: ['*down_proj*'] }).selected[0];
    const reader = createWeightReader(1);
    const whole = new Float32Array(item.rows * item.columns);
    readTensorRows(files, item, reader, whole);
    const part = new Float32Array(3 * item.columns);
    readTensorRows(files, item, reader, part, 2, 3);
    expect(part).toEqual(whole.slice(2 * item.columns, 5 * item.columns));
  });
});

describe('patterns', () => {
  it('match whole names', () => {
    expect(matchesPattern('a.b.c', 'a.*')).toBe(true);
    expect(matchesPattern('a.b.c', 'b')).toBe(false);
    expect(matchesPattern('aXb', 'a.b')).toBe(false);
    expect(matchesPattern('aXb', 'a?b')).toBe(true);
    expect(parsePatterns(['a, b', 'c'])).toEqual(['a', 'b', 'c']);
  });
});
