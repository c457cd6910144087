import { describe, expect, it } from 'vitest';
import { parseMergeDocuments } from '../../../src/fusion/merge/config-document.js';
import { formatMergeDocument } from '../../../src/fusion/merge/config-format.js';
import {
  modelReference,
  orderDocuments,
  referencedModels,
  tokenizerModels,
} from '../../../src/fusion/merge/document.js';
import { evaluateSetting } from '../../../src/fusion/merge/setting.js';
import { goldenFiles, judge, readCase } from '../../conformance/harness.js';

const parse = (text: string) => parseMergeDocuments(text, 'c.yml');

function messageOf(text: string): string {
  try {
    parse(text);
  } catch (error) {
    return (error as Error).message;
  }
  return '';
}

describe('golden cases of configurations', () => {
  it.each(goldenFiles(['fixtures/golden/mergekit-config']))('%s', async (file) => {
    expect(await judge(readCase(file))).toMatchObject({ status: 'ok' });
  });
});

const SLERP = `slices:
  - sources:
      - model: a
        layer_range: [0, 4]
      - model: {model: {path: b+c, revision: 0123}, lora: d@main}
        layer_range: [2, 6]
    parameters: {t: 0.25}
merge_method: slerp
base_model: a
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 1e-1]
    - filter: "on"
      value: "0.75"
    - value: 1
dtype: torch.float32
out_dtype: bfloat16
`;

describe('parseMergeDocuments', () => {
  it('reads slices, references, gradients and filters', () => {
    const [document] = parse(SLERP);
    expect(document).toMatchObject({ dtype: 'F32', outDtype: 'BF16', method: { name: 'slerp' }, base: { text: 'a' } });
    expect(referencedModels(document)).toEqual([
      { text: 'a', model: 'a' },
      { text: 'b+c@0123+d@main', model: 'b+c', revision: '0123', lora: 'd', loraRevision: 'main' },
    ]);
    const setting = document.parameters.get('t');
    if (setting === undefined) throw new Error('no setting');
    expect(evaluateSetting(setting, 'x.self_attn.y', 0.75)).toBeCloseTo(0.3, 12);
    expect(evaluateSetting(setting, 'contains on', 0)).toBe(0.75);
    expect(evaluateSetting(setting, 'mlp', 0)).toBe(1);
  });

  it('writes what it read, so that it reads the same again', () => {
    const [document] = parse(SLERP);
    const text = formatMergeDocument(document);
    expect(text).toContain('value: [0, 0.5, 0.1]');
    expect(formatMergeDocument(parse(text)[0])).toBe(text);
  });

  it('takes a single condition, anchors and merge keys', () => {
    const [document] = parse(`merge_method: ties
base_model: base
parameters: &p {normalize: yes, density: {filter: mlp, value: 0.5}}
models:
  - model: a
    parameters: {<<: *p, weight: [0, 1]}
`);
    const { content } = document;
    if (content.kind !== 'models') throw new Error('no models');
    const density = content.models[0].parameters.get('density');
    expect(density).toEqual({ kind: 'conditions', conditions: [{ filter: 'mlp', value: 0.5 }] });
    expect(document.parameters.get('normalize')).toEqual({ kind: 'plain', value: true });
    expect(document.notes).toEqual([expect.stringContaining('"normalize" of ties belongs to no single model')]);
  });

  it('takes the tokenizer in both forms', () => {
    const head = 'merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: a}]\n';
    expect(parse(`${head}tokenizer_source: union`)[0].tokenizer).toEqual({ source: 'union', tokens: new Map() });
    const [document] = parse(`${head}tokenizer:
  source: t@main
  pad_to_multiple_of: 64
  tokens:
    "<|im_end|>": {source: b, force: true}
    <pad>: {source: {kind: zero}}
    x: {source: {kind: model_token, model: a, token_id: 3}}
    y: {source: {kind: model_token, model: {model: {path: a}}, token: z}}
`);
    const a = { text: 'a', model: 'a' };
    expect(document.tokenizer).toEqual({
      source: { text: 't@main', model: 't', revision: 'main' },
      padToMultipleOf: 64,
      tokens: new Map([
        ['<|im_end|>', { source: { kind: 'model', model: { text: 'b', model: 'b' } }, force: true }],
        ['<pad>', { source: { kind: 'zero' }, force: false }],
        ['x', { source: { kind: 'model_token', model: a, tokenId: 3 }, force: false }],
        ['y', { source: { kind: 'model_token', model: a, token: 'z' }, force: false }],
      ]),
    });
    expect(tokenizerModels(document).map(({ text }) => text)).toEqual(['t@main', 'b']);
  });

  it('says what has no effect', () => {
    const [{ notes }] = parse(`merge_method: slerp
base_model: a
normalize: true
slices:
  - sources: [{model: a, layer_range: [0, 1]}, {model: b, layer_range: [0, 1], parameters: {t: 1}}]
    residual_weight: 0.5
parameters: {t: 0.5, int8_mask: true}
`);
    expect(notes).toEqual([
      expect.stringMatching(/^c\.yml:3:1: "normalize" has no effect here/),
      expect.stringMatching(/^c\.yml:6:5: "residual_weight" has no effect/),
      expect.stringMatching(/^c\.yml:5:93: "t" of slerp belongs to no single model/),
      expect.stringMatching(/^c\.yml:7:22: slerp has no parameter "int8_mask"/),
    ]);
  });

  it('orders documents by what they need', () => {
    const document = (name: string, models: string): string =>
      `${name}merge_method: linear\nparameters: {weight: 1}\nmodels: [${models}]\n`;
    const text = [
      document('', '{model: two}, {model: c}'),
      document('name: two\n', '{model: one}, {model: b}'),
      document('name: one\n', '{model: a}'),
    ].join('---\n');
    expect(orderDocuments(parse(text)).map(({ name }) => name)).toEqual(['one', 'two', undefined]);
    const circle = [document('name: p\n', '{model: q}'), document('name: q\n', '{model: p}')].join('---\n');
    expect(() => orderDocuments(parse(circle))).toThrow(
      'c.yml:1:1: documents need each other\'s results: "p" needs "q" needs "p"',
    );
    const twice = [document('', '{model: a}'), document('', '{model: b}')].join('---\n');
    expect(() => orderDocuments(parse(twice))).toThrow('c.yml:5:1: only one document may be without "name"');
  });
});

describe('errors have a place, the key, and the nearest name', () => {
  const models = 'models: [{model: a}, {model: b}]\n';
  it.each([
    ['', 'c.yml: the configuration is empty'],
    ['models: [1, 2', 'c.yml:1:14: not readable as YAML'],
    ['a: 1\na: 2', 'c.yml:2:1: not readable as YAML'],
    ['- a', 'c.yml:1:1: the configuration is a list; a mapping is needed'],
    [`merge_method: tise\n${models}`, 'c.yml:1:15: unknown merge_method "tise"; did you mean "ties"?'],
    [models, 'c.yml:1:1: the configuration has no "merge_method"'],
    [`merge_method: linear\nmodel: []\n${models}`, 'c.yml:2:1: unknown key "model"; did you mean "models"?'],
    ['merge_method: linear\n', 'c.yml:1:1: the configuration needs one of "models", "slices", "modules"'],
    [
      `merge_method: linear\nslices: [{sources: [{model: a, layer_range: [0, 1]}]}]\n${models}`,
      'c.yml:2:1: the configuration has "models" and "slices"',
    ],
    [
      `merge_method: linear\n${models}parameters:\n  wieght: 1`,
      'c.yml:4:3: linear has no parameter "wieght"; did you mean "weight"?',
    ],
    [
      `merge_method: linear\n${models}parameters:\n  weight: [0, a]`,
      'c.yml:4:15: an entry of the gradient of "weight" is "a"; a number is needed',
    ],
    [
      `merge_method: linear\n${models}parameters:\n  weight: {filtre: x, value: 1}`,
      'c.yml:4:12: unknown key "filtre" in a condition of "weight"; did you mean "filter"?',
    ],
    [
      `merge_method: linear\n${models}parameters:\n  weight: [{filter: x}]`,
      'c.yml:4:12: a condition of "weight" has no "value"',
    ],
    [
      `merge_method: linear\n${models}parameters:\n  normalize: maybe`,
      'c.yml:4:14: "normalize" is "maybe"; true or false is needed',
    ],
    [
      `merge_method: karcher\n${models}parameters:\n  max_iter: 1.5`,
      'c.yml:4:13: "max_iter" is 1.5; an integer is needed',
    ],
    [
      `merge_method: karcher\n${models}parameters:\n  tol: [0, -1]`,
      'c.yml:4:12: an entry of the gradient of "tol" is -1; 0 or more is needed',
    ],
    [
      `merge_method: linear\n${models}dtype: bfloat17`,
      'c.yml:3:8: dtype "bfloat17" is unknown; did you mean "bfloat16"?',
    ],
    [`merge_method: linear\n${models}base_model: a@b@c`, 'c.yml:3:13: model "a@b@c" has more than one @'],
    [`merge_method: linear\n${models}base_model: {path: x}`, 'c.yml:3:14: unknown key "path" in "base_model"'],
    [
      `merge_method: linear\n${models}tokenizer: {}\ntokenizer_source: base`,
      'c.yml:3:1: "tokenizer" and "tokenizer_source" exclude each other',
    ],
    [
      `merge_method: linear\n${models}tokenizer: {tokens: {x: {source: {kind: zeor}}}}`,
      'c.yml:3:35: "kind" of the source of token "x" is "zeor"; did you mean "zero"?',
    ],
    [
      `merge_method: linear\n${models}tokenizer: {pad_to_multiple_of: 0}`,
      'c.yml:3:33: "pad_to_multiple_of" is "0"; an integer of at least 1 is needed',
    ],
    [
      'merge_method: linear\nslices: [{sources: [{model: a, layer_range: [4, 2]}]}]',
      'c.yml:2:45: "layer_range" is [4,2]',
    ],
    ['merge_method: linear\nslices: [{sources: []}]', 'c.yml:2:20: "sources" is empty'],
    ['merge_method: linear\nmodels: [a]', 'c.yml:2:10: an entry of "models" is "a"; a mapping is needed'],
    ['merge_method: linear\nmodules: {default: {}}', 'c.yml:2:20: module "default" needs one of "models", "slices"'],
    ['a: &x [*x]', 'c.yml:1:'],
  ])('%j', (text, message) => {
    expect(messageOf(text)).toContain(message);
  });

  it('and references have at most one adapter', () => {
    expect(() => modelReference('a+b+c', 'place')).toThrow('place: model "a+b+c" has more than one +');
  });
});
