import { describe, expect, it } from 'vitest';
import { parseMergeDocuments } from '../../../src/fusion/merge/config-document.js';
import { formatMergeDocument } from '../../../src/fusion/merge/config-format.js';
import { documentFromFlags } from '../../../src/fusion/merge/from-flags.js';

describe('documentFromFlags', () => {
  it('gives the document that a YAML would', () => {
    const fromFlags = documentFromFlags({
      method: 'ties',
      base: 'base',
      models: ['a', 'b@main'],
      perModel: { weight: ['0.5', '0.3'], density: ['0.2,0.8'] },
      parameters: ['lambda=0.9', 'normalize=false'],
      dtype: 'bfloat16',
      tokenizerSource: 'union',
      padToMultipleOf: 8,
    });
    const [fromYaml] = parseMergeDocuments(
      `merge_method: ties
base_model: base
models:
  - {model: a, parameters: {weight: 0.5, density: [0.2, 0.8]}}
  - {model: b@main, parameters: {weight: 0.3, density: [0.2, 0.8]}}
parameters: {lambda: 0.9, normalize: false}
dtype: bfloat16
tokenizer: {source: union, pad_to_multiple_of: 8}
`,
      'c.yml',
    );
    expect(formatMergeDocument(fromFlags)).toBe(formatMergeDocument(fromYaml));
    expect(parseMergeDocuments(formatMergeDocument(fromFlags), 'c.yml')[0].method.name).toBe('ties');
  });

  it('takes conditions on tensors', () => {
    const { parameters } = documentFromFlags({
      method: 'slerp',
      base: 'a',
      models: ['b'],
      parameters: ['t@self_attn=0,0.5,1', 't=0.25'],
    });
    const conditions = [{ filter: 'self_attn', value: [0, 0.5, 1] }, { value: 0.25 }];
    expect(parameters.get('t')).toEqual({ kind: 'conditions', conditions });
  });

  it.each([
    [{ method: 'tiess', models: ['a'] }, 'did you mean "ties"?'],
    [{ method: 'linear', models: [] }, '--model: at least one model is needed'],
    [
      { method: 'linear', models: ['a', 'b', 'c'], perModel: { weight: ['1', '2'] } },
      '--weight: 2 values for 3 models',
    ],
    [
      { method: 'linear', models: ['a'], perModel: { density: ['1'] } },
      '--density: linear has no "density" of a model',
    ],
    [{ method: 'linear', models: ['a'], perModel: { weight: ['x'] } }, '--weight x is "x"; a number is needed'],
    [{ method: 'linear', models: ['a'], parameters: ['normalise=1'] }, 'did you mean "normalize"?'],
    [{ method: 'linear', models: ['a'], parameters: ['normalize'] }, 'name=value or name@filter=value is needed'],
    [{ method: 'linear', models: ['a'], dtype: 'bf16' }, '--dtype "bf16" is unknown'],
  ])('refuses %j', (flags, message) => {
    expect(() => documentFromFlags(flags)).toThrow(message);
  });
});
