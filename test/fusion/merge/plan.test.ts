import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { inferArchitecture } from '../../../src/fusion/merge/architecture.js';
import { parseMergeDocuments } from '../../../src/fusion/merge/config-document.js';
import { referencedModels } from '../../../src/fusion/merge/document.js';
import { mergedConfigText } from '../../../src/fusion/merge/merged-config.js';
import { modelCard } from '../../../src/fusion/merge/model-card.js';
import { planMerge } from '../../../src/fusion/merge/plan.js';
import type { MergePlan, PlannedTensor } from '../../../src/fusion/merge/types.js';
import type { Config } from '../../../src/models/config-reader.js';
import { type MemoryTensor, memorySource } from './memory-source.js';

type Model = Record<string, MemoryTensor>;

/** A llama of `layers` layers; values of `changes` replace tensors, undefined leaves them out. */
function llama(layers: number, changes: Record<string, MemoryTensor | undefined> = {}): Model {
  const model: Record<string, MemoryTensor | undefined> = { 'model.embed_tokens.weight': { shape: [9, 4] } };
  for (let i = 0; i < layers; i++) {
    model[`model.layers.${i}.self_attn.q_proj.weight`] = { shape: [4, 4] };
    model[`model.layers.${i}.mlp.down_proj.weight`] = { shape: [4, 6] };
  }
  model['model.norm.weight'] = { shape: [4] };
  model['lm_head.weight'] = { shape: [9, 4] };
  const present = Object.entries({ ...model, ...changes }).filter(([, tensor]) => tensor !== undefined);
  return Object.fromEntries(present) as Model;
}

const LLAMA = { architectures: ['LlamaForCausalLM'] };
const config = (layers: number, more: Config = {}): Config => ({ ...LLAMA, num_hidden_layers: layers, ...more });

function plan(
  yaml: string,
  models: Record<string, Model>,
  configs: Record<string, Config> = {},
  allowCrimes = false,
): MergePlan {
  const [document] = parseMergeDocuments(yaml, 'c.yml');
  const names = referencedModels(document).map(({ text }) => text);
  const layersOf = (name: string): number =>
    Object.keys(models[name]).filter((key) => key.endsWith('down_proj.weight')).length;
  return planMerge(
    document,
    names.map((name) => memorySource(name, models[name])),
    names.map((name) => configs[name] ?? config(layersOf(name))),
    { allowCrimes },
  );
}

function tensorOf({ tensors }: MergePlan, name: string): PlannedTensor {
  const tensor = tensors.find((candidate) => candidate.name === name);
  if (tensor === undefined) throw new Error(`no ${name} among ${tensors.map((candidate) => candidate.name).join(' ')}`);
  return tensor;
}

const inputsOf = (merge: MergePlan, name: string): string[] =>
  tensorOf(merge, name).inputs.map(({ model, tensor }) => `${merge.models[model].text}:${tensor}`);

const LINEAR = 'merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: a}, {model: b}]\n';
const TIES = 'merge_method: ties\nbase_model: base\nparameters: {weight: 1}\nmodels: [{model: a}, {model: b}]\n';

describe('planMerge', () => {
  it('renumbers the layers of slices and resolves parameters in the order source, slice, module, document', () => {
    const merge = plan(
      `merge_method: linear
modules:
  default:
    slices:
      - sources:
          - {model: a, layer_range: [1, 3], parameters: {weight: [{filter: layers.2., value: 7}]}}
          - {model: b, layer_range: [0, 2]}
        parameters: {weight: [{filter: mlp, value: [0, 1]}]}
      - sources: [{model: b, layer_range: [3, 4]}]
    parameters: {weight: {filter: self_attn, value: 5}, normalize: [{filter: layers.2., value: false}]}
parameters: {weight: [2, 3], normalize: true}
`,
      { a: llama(4), b: llama(4) },
    );
    const weights = (name: string): unknown[] =>
      tensorOf(merge, name).inputs.map(({ parameters }) => parameters.weight);
    expect(merge.layers).toBe(3);
    expect(merge.configChanges.top.num_hidden_layers).toBe(3);
    expect(inputsOf(merge, 'model.layers.1.mlp.down_proj.weight')).toEqual([
      'a:model.layers.2.mlp.down_proj.weight',
      'b:model.layers.1.mlp.down_proj.weight',
    ]);
    expect(weights('model.layers.0.self_attn.q_proj.weight')).toEqual([5, 5]);
    expect(weights('model.layers.1.self_attn.q_proj.weight')).toEqual([7, 5]);
    expect(weights('model.layers.0.mlp.down_proj.weight')).toEqual([0, 0]);
    expect(weights('model.layers.1.mlp.down_proj.weight')).toEqual([7, 1]);
    expect(weights('model.layers.2.mlp.down_proj.weight')).toEqual([3]);
    expect(weights('model.embed_tokens.weight')).toEqual([2, 2]);
    expect(inputsOf(merge, 'model.norm.weight')).toEqual(['b:model.norm.weight']);
    expect(tensorOf(merge, 'model.layers.1.mlp.down_proj.weight').parameters.normalize).toBe(true);
    expect(tensorOf(merge, 'model.layers.2.mlp.down_proj.weight').parameters.normalize).toBe(false);
    expect(merge.tensors.map(({ name }) => name).filter((name) => !name.includes('layers'))).toEqual([
      'model.embed_tokens.weight',
      'model.norm.weight',
      'lm_head.weight',
    ]);
  });

  it('appends a base that is in no list, and asks no parameters of it', () => {
    const merge = plan(TIES, { base: llama(2), a: llama(2), b: llama(2) });
    expect(merge.models.map(({ text }) => text)).toEqual(['a', 'b', 'base']);
    const tensor = tensorOf(merge, 'model.norm.weight');
    expect([merge.base, merge.configFrom, tensor.base]).toEqual([2, 2, 2]);
    expect(tensor.inputs[2].parameters).toEqual({});
    expect(tensor.inputs[0].parameters).toMatchObject({ weight: 1, density: 1 });
  });

  it('lets a slice have its own base', () => {
    const merge = plan(
      `merge_method: slerp
base_model: a
parameters: {t: 0.5}
slices:
  - {sources: [{model: a, layer_range: [0, 1]}, {model: b, layer_range: [0, 1]}], base_model: b}
  - {sources: [{model: a, layer_range: [0, 1]}, {model: b, layer_range: [1, 2]}]}
`,
      { a: llama(2), b: llama(2) },
    );
    const bases = [
      'model.layers.0.mlp.down_proj.weight',
      'model.layers.1.mlp.down_proj.weight',
      'model.embed_tokens.weight',
    ];
    expect(bases.map((name) => tensorOf(merge, name).base)).toEqual([1, 0, 1]);
    expect(merge.warnings).toEqual(['a: in the output more than once: layers 0']);
  });

  it('takes the embeddings for a head that only another model has', () => {
    const tied = llama(2, { 'lm_head.weight': undefined });
    const merge = plan(LINEAR, { a: tied, b: llama(2) }, { a: config(2, { tie_word_embeddings: true }) });
    expect(inputsOf(merge, 'lm_head.weight')).toEqual(['a:model.embed_tokens.weight', 'b:lm_head.weight']);
    expect(merge.configChanges.top.tie_word_embeddings).toBe(false);
    const both = plan(LINEAR, { a: tied, b: tied }, { a: config(2, { tie_word_embeddings: true }) });
    expect(both.tensors.some(({ name }) => name === 'lm_head.weight')).toBe(false);
    expect(both.configChanges.top).not.toHaveProperty('tie_word_embeddings');
  });

  it('cuts vocabularies to what all have, and to the base for task vectors', () => {
    const wide = llama(2, { 'model.embed_tokens.weight': { shape: [12, 4] }, 'lm_head.weight': { shape: [12, 4] } });
    const merge = plan(LINEAR, { a: wide, b: llama(2) }, { a: config(2, { vocab_size: 12 }) });
    expect(tensorOf(merge, 'model.embed_tokens.weight')).toMatchObject({ shape: [9, 4], vocabulary: true });
    expect(merge.configChanges.top.vocab_size).toBe(9);
    expect(merge.warnings).toEqual([
      expect.stringMatching(/cut to \[9, 4\].*model\.embed_tokens\.weight \(\[12, 4\] in a\) and 1 more/),
    ]);
    const ties = plan(TIES, { base: llama(2), a: wide, b: llama(2) });
    expect(tensorOf(ties, 'lm_head.weight').inputs).toHaveLength(3);
    expect(() => plan(TIES, { base: wide, a: llama(2), b: wide })).toThrow(
      'c.yml:1:1: tensor model.embed_tokens.weight is [9, 4] in a and [12, 4] in base',
    );
  });

  it('leaves a model out of a task-vector merge where shapes differ, and refuses elsewhere', () => {
    const name = 'model.layers.1.mlp.down_proj.weight';
    const other = llama(2, { [name]: { shape: [4, 8] } });
    const ties = plan(TIES, { base: llama(2), a: other, b: llama(2) });
    expect(inputsOf(ties, name)).toEqual([`b:${name}`, `base:${name}`]);
    expect(tensorOf(ties, name).base).toBe(1);
    expect(ties.warnings).toEqual([
      `a has another shape than the base and is left out there: ${name} ([4, 8] against [4, 6])`,
    ]);
    const copied = plan(TIES, { base: llama(2), a: other, b: other });
    expect(tensorOf(copied, name)).toMatchObject({
      copied: true,
      shape: [4, 6],
      inputs: [{ tensor: name, parameters: {} }],
    });
    expect(() => plan(LINEAR, { a: other, b: llama(2) })).toThrow(
      `c.yml:1:1: tensor ${name} is [4, 8] in a and [4, 6] in b`,
    );
  });

  it('names tensors that a model lacks', () => {
    const extra = llama(2, { 'model.layers.0.self_attn.q_proj.bias': { shape: [4] } });
    expect(() => plan(LINEAR, { a: extra, b: llama(2) })).toThrow(
      'b has no tensor model.layers.0.self_attn.q_proj.bias, which a has',
    );
    const crimes = plan(LINEAR, { a: extra, b: llama(2) }, {}, true);
    expect(inputsOf(crimes, 'model.layers.0.self_attn.q_proj.bias')).toEqual([
      'a:model.layers.0.self_attn.q_proj.bias',
    ]);
    const buffers = llama(2, { 'model.layers.0.self_attn.rotary_emb.inv_freq': { shape: [2] } });
    expect(plan(LINEAR, { a: buffers, b: llama(2) }).tensors).toHaveLength(7);
  });

  it('finds tensors under other prefixes', () => {
    const bare = Object.fromEntries(
      Object.entries(llama(2)).map(([name, tensor]) => [name.replace(/^model\./, ''), tensor]),
    );
    const merge = plan(LINEAR, { a: llama(2), b: bare });
    expect(inputsOf(merge, 'model.layers.0.mlp.down_proj.weight')[1]).toBe('b:layers.0.mlp.down_proj.weight');
    expect(inputsOf(merge, 'model.norm.weight')[1]).toBe('b:norm.weight');
    expect(merge.tensors).toHaveLength(7);
  });

  it('promotes stored types, and takes the configured ones', () => {
    const typed = (dtype: MemoryTensor['dtype']): Model => llama(2, { 'model.norm.weight': { shape: [4], dtype } });
    const dtypeOf = (yaml: string): string =>
      tensorOf(plan(yaml, { a: typed('F16'), b: typed('BF16') }), 'model.norm.weight').dtype;
    expect(dtypeOf(LINEAR)).toBe('F32');
    expect(dtypeOf(`${LINEAR}dtype: float16`)).toBe('F16');
    expect(dtypeOf(`${LINEAR}dtype: float16\nout_dtype: bfloat16`)).toBe('BF16');
  });

  it.each([
    [LINEAR, 'a has 2 layers and b has 3; models are merged whole when they have equally many'],
    [
      'merge_method: slerp\nbase_model: a\nparameters: {t: 1}\nslices: [{sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 3]}]}]',
      'c.yml:4:10: a gives 2 layers [0, 2) and b gives 3 layers [0, 3)',
    ],
    [
      'merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [0, 3]}]}]',
      'c.yml:2:21: layers [0, 3) of a, which has 2',
    ],
    ['merge_method: ties\nparameters: {weight: 1}\nmodels: [{model: a}]', 'c.yml:1:1: ties needs "base_model"'],
    [
      'merge_method: ties\nbase_model: b\nparameters: {weight: 1}\nslices: [{sources: [{model: a, layer_range: [0, 1]}]}]',
      'c.yml:4:10: the base model b is not among the sources of the slice',
    ],
    ['merge_method: passthrough\nmodels: [{model: a}, {model: c}]', 'passthrough takes 1 model, and 2 are given'],
    [
      'merge_method: model_stock\nbase_model: a\nmodels: [{model: a}, {model: c}]',
      'model_stock takes at least 2 models besides the base, and 1 are given',
    ],
    ['merge_method: linear\nmodels: [{model: a}, {model: a}]', 'model a stands twice among the sources'],
    [
      'merge_method: linear\nmodels: [{model: a}, {model: c, parameters: {weight: [{filter: mlp, value: 1}]}}]\nparameters: {weight: {filter: attn, value: 1}}',
      'parameter "weight" has no value for model a, tensor model.embed_tokens.weight',
    ],
    [
      'merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: a}, {model: d}]',
      'a is a LlamaForCausalLM and d is a GPT2LMHeadModel',
    ],
    [
      'merge_method: linear\nparameters: {weight: 1}\nmodules: {vision_tower: {models: [{model: a}]}}',
      'a has no part "vision_tower"',
    ],
    ['merge_method: karcher\nparameters: {max_iter: [1, 2, 4]}\nmodels: [{model: b}, {model: e}]', '"max_iter" is'],
    ['merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: a}, {model: q}]', 'q: is quantised (gptq)'],
  ])('%s', (yaml, message) => {
    const models = { a: llama(2), b: llama(4), c: llama(2), d: llama(2), e: llama(4), q: llama(2) };
    const configs = {
      d: { architectures: ['GPT2LMHeadModel'], num_hidden_layers: 2 },
      q: config(2, { quantization_config: { quant_method: 'gptq' } }),
    };
    const three = { ...models, b: yaml === LINEAR || yaml.includes('[0, 3]') ? llama(3) : llama(4) };
    expect(() => plan(yaml, three, configs)).toThrow(message);
  });
});

describe('inferArchitecture', () => {
  const names = (prefix: string, layers: number): string[] =>
    Array.from({ length: layers }, (_, i) => `${prefix}.${i}.w.weight`);
  const parts = (tensors: string[], own: Config) =>
    inferArchitecture(tensors, own, 'm').modules.map(({ name, layers, layersKey, before, after }) => [
      name,
      layers.length,
      layersKey?.join('.'),
      before.length,
      after.length,
    ]);

  it('tells encoder and decoder apart', () => {
    const t5 = [
      ...names('encoder.block', 3),
      ...names('decoder.block', 3),
      'shared.weight',
      'encoder.final_layer_norm.weight',
    ];
    expect(parts(t5, { num_layers: 3, num_decoder_layers: 3 })).toEqual([
      ['encoder', 3, 'num_layers', 0, 1],
      ['decoder', 3, 'num_decoder_layers', 0, 0],
      ['shared', 0, undefined, 1, 0],
    ]);
  });

  it('tells text, vision and what joins them apart', () => {
    const own = { text_config: { num_hidden_layers: 2 }, vision_config: { num_hidden_layers: 2 } };
    const tensors = [
      ...names('language_model.model.layers', 2),
      ...names('vision_tower.vision_model.encoder.layers', 2),
      'language_model.model.embed_tokens.weight',
      'language_model.lm_head.weight',
      'vision_tower.vision_model.embeddings.patch_embedding.weight',
      'multi_modal_projector.linear_1.weight',
    ];
    expect(parts(tensors, own)).toEqual([
      ['text_decoder', 2, 'text_config.num_hidden_layers', 1, 1],
      ['vision_tower', 2, 'vision_config.num_hidden_layers', 1, 0],
      ['multi_modal_projector', 0, undefined, 0, 1],
    ]);
  });

  it('keeps layers beyond the count apart, and refuses models with too few', () => {
    const model = inferArchitecture(names('model.layers', 4), { num_hidden_layers: 3 }, 'm');
    expect([model.modules[0].layers.length, model.beyond]).toEqual([3, ['model.layers.3.w.weight']]);
    expect(() => inferArchitecture(names('model.layers', 4), { num_hidden_layers: 5 }, 'm')).toThrow(
      'm: config.json has 5 layers (num_hidden_layers), and the tensors have 4 (model.layers)',
    );
    const holed = names('model.layers', 4).filter((name) => !name.includes('.2.'));
    expect(() => inferArchitecture(holed, { num_hidden_layers: 4 }, 'm')).toThrow(
      'm: layer 2 of 4 (model.layers) has no tensors',
    );
  });
});

describe('what is written beside the weights', () => {
  const yaml = `merge_method: passthrough
slices:
  - sources: [{model: a, layer_range: [0, 2]}]
  - sources: [{model: a, layer_range: [1, 3]}]
dtype: float16
`;
  const own = {
    ...LLAMA,
    num_hidden_layers: 3,
    torch_dtype: 'float32',
    rms_norm_eps: 0.5,
    layer_types: ['x', 'y', 'z'],
    mlp_only_layers: [1],
    sliding_window_pattern: 2,
    quantization_config: { format: 'own' },
  };

  it('changes the config with the layers and leaves the rest as it is written', () => {
    const merge = plan(yaml, { a: llama(3) }, { a: own });
    const directory = mkdtempSync(join(tmpdir(), 'merged-config-'));
    writeFileSync(join(directory, 'config.json'), JSON.stringify(own).replace('0.5', '5.0e-1'));
    const text = mergedConfigText(directory, merge);
    rmSync(directory, { recursive: true });
    expect(JSON.parse(text)).toEqual({
      ...LLAMA,
      num_hidden_layers: 4,
      torch_dtype: 'float16',
      rms_norm_eps: 0.5,
      layer_types: ['x', 'y', 'y', 'z'],
      mlp_only_layers: [1, 2],
      sliding_window_pattern: 2,
    });
    expect(text).toContain('5.0e-1');
    expect(merge.warnings).toEqual([
      'a: in the output more than once: layers 1',
      'config.json: "sliding_window_pattern" is 2, and layers change their kind with their number',
    ]);
  });

  it('tells in the card from which models the output was made', () => {
    const [document] = parseMergeDocuments(`${yaml}base_model: owner/base`, 'c.yml');
    const merge = plan(`${yaml}`, { a: llama(3) }, { a: own });
    const card = modelCard(
      document,
      { ...merge, models: [...merge.models, { text: 'owner/base', model: 'owner/base' }] },
      '1.2.3',
    );
    expect(card).toMatch(/^---\nbase_model:\n {2}- owner\/base\ntags:\n {2}- merge\n/);
    expect(card).toContain('with [owner/base](https://huggingface.co/owner/base) as the base');
    expect(card).toContain('- `a`');
    expect(card).toContain('```yaml\nslices:\n');
  });
});
