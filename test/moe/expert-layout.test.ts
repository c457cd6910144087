import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { openExpertModel } from '../../src/moe/expert-layout.js';
import { readExpert, readRouter } from '../../src/moe/expert-reader.js';
import type { Checkpoint } from '../models/rewritten-checkpoint.js';
import {
  deepseekV3,
  expertOf,
  type MadeModel,
  matrix,
  mixtral,
  projections,
  SIZES,
  type Sizes,
  sparseBlock,
  stored,
  switchTransformer,
  writeModel,
} from './expert-checkpoint.js';

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'surprisal-experts-'));
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

let made = 0;
const written = (model: MadeModel): string => writeModel(path.join(folder, `model-${made++}`), model);
const withConfig = (model: MadeModel, change: Record<string, unknown>): MadeModel => ({
  ...model,
  config: { ...model.config, ...change },
});
/** The same with tensors renamed (undefined leaves one out). */
const renamed = (model: MadeModel, name: (name: string) => string | undefined): MadeModel => {
  const tensors: Checkpoint = new Map();
  for (const [key, tensor] of model.tensors) {
    const next = name(key);
    if (next !== undefined) tensors.set(next, tensor);
  }
  return { ...model, tensors };
};
const plus = (model: MadeModel, name: string, tensor = stored(matrix('x', 1, 4), [4])): MadeModel => ({
  ...model,
  tensors: new Map([...model.tensors, [name, tensor]]),
});

const qwen3VlMoe = (arrangement: 'fused-columns' | 'fused-rows', sizes: Sizes = SIZES): MadeModel => {
  const inner = projections(
    'qwen3_vl_moe_text',
    [0, 1, 2],
    { num_experts: sizes.experts },
    {
      sizes,
      arrangement,
      prefix: 'model.language_model.',
    },
  );
  return { ...inner, config: { model_type: 'qwen3_vl_moe', text_config: inner.config } };
};

const llama4 = (): MadeModel => {
  const tensors: Checkpoint = new Map();
  for (const layer of [1, 3]) {
    const block = `model.layers.${layer}.feed_forward`;
    sparseBlock(tensors, block, String(layer), SIZES, 'fused-columns', { router: 'router.weight' });
    tensors.set(`${block}.shared_expert.up_proj.weight`, stored(matrix('x', 2, 8), [2, 8]));
  }
  const config = {
    model_type: 'llama4_text',
    hidden_size: 8,
    intermediate_size: 6,
    num_hidden_layers: 4,
    num_local_experts: 4,
    num_experts_per_tok: 1,
    interleave_moe_layer_step: 2,
  };
  return { config, tensors, layers: ['1', '3'] };
};

const FAMILIES: readonly (readonly [string, MadeModel, { family: string; layout: string; runs: boolean }])[] = [
  ['Mixtral', mixtral(), { family: 'mixtral', layout: 'separate', runs: true }],
  ['Mixtral fused in rows', mixtral(SIZES, 'fused-rows'), { family: 'mixtral', layout: 'fused-rows', runs: true }],
  [
    'Mixtral fused in columns, with .weight',
    mixtral(SIZES, 'fused-columns', '.weight'),
    { family: 'mixtral', layout: 'fused-columns', runs: true },
  ],
  ['Mixtral in F16', mixtral({ ...SIZES, dtype: 'F16' }), { family: 'mixtral', layout: 'separate', runs: true }],
  [
    'Qwen2-MoE with a dense layer',
    projections('qwen2_moe', [0, 2], { num_experts: 4, mlp_only_layers: [1] }, { shared: 'shared_expert.up_proj' }),
    { family: 'qwen2_moe', layout: 'separate', runs: true },
  ],
  [
    'Qwen3-MoE, every second layer, num_local_experts',
    projections('qwen3_moe', [1], { num_local_experts: 4, decoder_sparse_step: 2 }),
    { family: 'qwen3_moe', layout: 'separate', runs: true },
  ],
  [
    'OLMoE',
    projections('olmoe', [0, 1, 2], { num_experts: 4, intermediate_size: 6, moe_intermediate_size: undefined }),
    { family: 'olmoe', layout: 'separate', runs: true },
  ],
  [
    'DeepSeek-V2',
    projections(
      'deepseek_v2',
      [2],
      { n_routed_experts: 4, first_k_dense_replace: 1, moe_layer_freq: 2 },
      {
        shared: 'shared_experts.up_proj',
      },
    ),
    { family: 'deepseek_v2', layout: 'separate', runs: false },
  ],
  ['DeepSeek-V3', deepseekV3(), { family: 'deepseek_v3', layout: 'separate', runs: false }],
  ['Switch', switchTransformer(), { family: 'switch_transformers', layout: 'separate', runs: false }],
  ['Qwen3-VL-MoE', qwen3VlMoe('fused-columns'), { family: 'qwen3_vl_moe', layout: 'fused-columns', runs: true }],
  ['Llama-4', llama4(), { family: 'llama4', layout: 'fused-columns', runs: false }],
];

describe('openExpertModel', () => {
  it.each(FAMILIES)('reads %s, whatever its layout', (_, made_, expected) => {
    const model = openExpertModel(written(made_));
    expect(model).toMatchObject(expected);
    expect(model.layers.length).toBe(made_.layers.length);
    for (const [index, layer] of made_.layers.entries()) {
      const { experts, shape } = model.layers[index];
      const sizes = { ...SIZES, experts };
      for (let e = 0; e < experts; e++) {
        const { gate, up, down } = expertOf(layer, e, sizes);
        expect(readExpert(model, index, e, 1)).toEqual(shape.gated ? { gate, up, down } : { up, down });
      }
      expect(readRouter(model, index).rows).toEqual(matrix(`${layer} router`, experts, SIZES.hidden));
    }
    model.close();
  });

  it('fills buffers that are given, and refuses those of another size', () => {
    const model = openExpertModel(written(mixtral(SIZES, 'fused-columns')));
    const into = { gate: new Float32Array(48), up: new Float32Array(48), down: new Float32Array(48) };
    const read = readExpert(model, 1, 3, 1, into);
    expect(read.gate).toBe(into.gate);
    expect(into).toEqual(expertOf('1', 3, SIZES));
    expect(() => readExpert(model, 1, 3, 1, { ...into, up: new Float32Array(47) })).toThrow(RangeError);
    expect(() => readExpert(model, 1, 4)).toThrow(RangeError);
    expect(() => readExpert(model, 2, 0)).toThrow(RangeError);
    model.close();
  });

  it('numbers layers as the decoder does, and blocks of an encoder before them', () => {
    const qwen = openExpertModel(written(FAMILIES[4][1]));
    expect(qwen.layers.map(({ layer, name }) => [layer, name])).toEqual([
      [0, 'layers.0'],
      [2, 'layers.2'],
    ]);
    const t5 = openExpertModel(written(switchTransformer()));
    expect(t5.layers.map(({ layer, name }) => [layer, name])).toEqual([
      [1, 'encoder.block.1'],
      [3, 'decoder.block.1'],
      [5, 'decoder.block.3'],
    ]);
    expect(t5.layers[0].shape).toMatchObject({ gated: false, activation: 'relu' });
    expect(t5.layers[0].rule).toEqual({ score: 'softmax', topK: 1, normalizeTopK: false });
    qwen.close();
    t5.close();
  });

  it('tells how logits become weights', () => {
    const v3 = openExpertModel(written(deepseekV3()));
    expect(v3.layers[0].rule).toMatchObject({ score: 'sigmoid', topK: 2, normalizeTopK: true });
    expect(v3.layers[0].rule.correctionBias).toEqual(matrix('1 bias', 8, 1));
    expect(readRouter(v3, 1).correctionBias).toEqual(matrix('2 bias', 8, 1));
    expect(v3.layers[0].groups).toEqual({ nGroup: 2, topkGroup: 1 });
    expect(v3.notes.join()).toContain('model.layers.3.');
    v3.close();
    const rules = [
      [mixtral(), true],
      [projections('qwen2_moe', [0, 1, 2], { num_experts: 4 }), false],
      [projections('qwen3_moe', [0, 1, 2], { num_experts: 4, norm_topk_prob: true }), true],
    ] as const;
    for (const [made_, normalizeTopK] of rules) {
      const model = openExpertModel(written(made_));
      expect(model.layers[0].rule).toEqual({ score: 'softmax', topK: 2, normalizeTopK });
      model.close();
    }
  });

  it('lets the family decide where gate and up together are square, says so, and checks the down projection', () => {
    const sizes = { ...SIZES, width: 4 };
    const columns = openExpertModel(written(qwen3VlMoe('fused-columns', sizes)));
    expect(columns.layout).toBe('fused-columns');
    expect(columns.notes.join()).toContain('square');
    expect(readExpert(columns, 0, 2)).toEqual(expertOf('0', 2, sizes));
    columns.close();
    const rows = openExpertModel(written(mixtral(sizes, 'fused-rows')));
    expect(rows.layout).toBe('fused-rows');
    expect(readExpert(rows, 1, 1)).toEqual(expertOf('1', 1, sizes));
    rows.close();
    expect(() => openExpertModel(written(mixtral(sizes, 'fused-columns')))).toThrow(/square.*down_proj/);
  });

  it('never guesses the orientation of narrow experts', () => {
    const sizes = { ...SIZES, hidden: 16, width: 3 };
    for (const arrangement of ['fused-rows', 'fused-columns'] as const) {
      const model = openExpertModel(written(mixtral(sizes, arrangement)));
      expect(model.layout).toBe(arrangement);
      expect(readExpert(model, 0, 1)).toEqual(expertOf('0', 1, sizes));
      model.close();
    }
  });

  const moe = mixtral();
  const expert = 'model.layers.1.block_sparse_moe.experts.2.w3.weight';
  const REFUSED: readonly (readonly [string, MadeModel, RegExp])[] = [
    [
      'a dense model',
      { config: { model_type: 'llama' }, tensors: new Map([['a', stored(new Float32Array(1), [1])]]), layers: [] },
      /a dense model \(llama\).*num_local_experts.*w3\.weight/,
    ],
    [
      'a MoE family without experts',
      renamed(withConfig(projections('qwen2_moe', [], { num_experts: 0 }), {}), (name) => name),
      /a dense model \(qwen2_moe\)/,
    ],
    [
      'an unknown family',
      withConfig(moe, { model_type: 'jamba', architectures: [] }),
      /"jamba": the model has experts .*w1\.weight.*deepseek_v3/,
    ],
    ['GPT-OSS', withConfig(moe, { model_type: 'gpt_oss' }), /gpt_oss have biases/],
    [
      'architectures of another family',
      withConfig(moe, { architectures: ['OlmoeForCausalLM'] }),
      /"mixtral".*OlmoeForCausalLM/,
    ],
    [
      'names of another family',
      renamed(moe, (name) => name.replace('w1', 'gate_proj').replace('w2', 'down_proj').replace('w3', 'up_proj')),
      /says mixtral, but tensor .*gate_proj.* is named as in qwen2_moe/,
    ],
    ['two layouts at once', plus(moe, 'model.layers.0.mlp.experts.down_proj'), /separately.*and fused/],
    [
      'a missing expert',
      renamed(moe, (name) => (name === expert ? undefined : name)),
      /1 tensors of its 8 experts are missing: "model.layers.1.block_sparse_moe.experts.2.w3.weight"/,
    ],
    [
      'more experts than the config says',
      withConfig(moe, { num_local_experts: 3 }),
      /6 tensors named after experts are unknown.*experts\.3/,
    ],
    ['fewer experts than the config says', withConfig(moe, { num_local_experts: 5 }), /missing.*experts\.4/],
    [
      'fewer layers than are stored',
      withConfig(moe, { num_hidden_layers: 1 }),
      /unknown.*layers\.1\.block_sparse_moe\.experts/,
    ],
    [
      'a missing router',
      renamed(moe, (name) => (name === 'model.layers.0.block_sparse_moe.gate.weight' ? undefined : name)),
      /missing: "model.layers.0.block_sparse_moe.gate.weight"/,
    ],
    ['an unknown expert tensor', plus(moe, 'model.layers.0.block_sparse_moe.expert_scale'), /unknown.*expert_scale/],
    [
      'a shared expert that the family has not',
      plus(projections('qwen3_moe', [0, 1, 2], { num_experts: 4 }), 'model.layers.0.mlp.shared_expert.up_proj.weight'),
      /unknown.*shared_expert/,
    ],
    [
      'FP8 scales',
      plus(moe, 'model.layers.0.block_sparse_moe.experts.0.w1.weight_scale_inv'),
      /"model.layers.0.block_sparse_moe.experts.0.w1.weight_scale_inv".*FP8/,
    ],
    ['GPTQ', plus(moe, 'model.layers.0.block_sparse_moe.experts.0.w1.qweight'), /qweight.*GPTQ/],
    ['MXFP4', plus(moe, 'model.layers.0.mlp.experts.gate_up_proj_blocks'), /gate_up_proj_blocks.*MXFP4/],
    [
      'a quantised config',
      withConfig(moe, { quantization_config: { quant_method: 'bitnet' } }),
      /quantization_config.*bitnet/,
    ],
    [
      'integer experts',
      {
        ...moe,
        tensors: new Map([...moe.tensors, [expert, { dtype: 'I8', shape: [6, 8], bytes: new Uint8Array(48) }]]),
      },
      /w3\.weight" is I8/,
    ],
    [
      'mixed types',
      { ...moe, tensors: new Map([...moe.tensors, [expert, stored(matrix('x', 6, 8), [6, 8])]]) },
      /layers\.1 are stored in several types \(BF16, F32\)/,
    ],
    [
      'a wrong shape',
      { ...moe, tensors: new Map([...moe.tensors, [expert, stored(matrix('x', 8, 6), [8, 6], 'BF16')]]) },
      /w3\.weight" has shape \[8,6\].*\[6,8\]/,
    ],
    [
      'a wrong fused shape',
      withConfig(mixtral(SIZES, 'fused-rows'), { intermediate_size: 5 }),
      /\[12,8\] and .*\[8,6\] an expert; with hidden size 8 and expert width 5/,
    ],
    [
      'a router of another height',
      {
        ...moe,
        tensors: new Map([
          ...moe.tensors,
          ['model.layers.0.block_sparse_moe.gate.weight', stored(matrix('x', 3, 8), [3, 8], 'BF16')],
        ]),
      },
      /gate\.weight" has shape \[3,8\]/,
    ],
    [
      'more experts a token than there are',
      withConfig(moe, { num_experts_per_tok: 5 }),
      /"num_experts_per_tok" is 5, but there are 4/,
    ],
    ['experts compressed before', plus(moe, `${expert}.low_rank_left`), /already compressed by surprisal/],
    [
      'experts merged before',
      plus(moe, 'model.layers.0.block_sparse_moe.gate.expert_map'),
      /already merged by surprisal/,
    ],
    [
      'an extension',
      withConfig(moe, { model_type: 'surprisal_moe', base_model_type: 'mixtral' }),
      /already merged by surprisal/,
    ],
  ];

  it.each(REFUSED)('refuses %s', (_, made_, message) => {
    expect(() => openExpertModel(written(made_))).toThrow(
      expect.objectContaining({ name: 'InputError', message: expect.stringMatching(message) }),
    );
  });

  it('refuses files and directories of other formats', () => {
    const gguf = path.join(folder, 'model.gguf');
    fs.writeFileSync(gguf, 'GGUF');
    expect(() => openExpertModel(gguf)).toThrow(/is a \.gguf file: experts are merged in Hugging Face directories/);
    const onnx = fs.mkdtempSync(path.join(folder, 'onnx-'));
    fs.writeFileSync(path.join(onnx, 'model.onnx'), '');
    expect(() => openExpertModel(onnx)).toThrow(/holds model\.onnx and no config\.json/);
    expect(() => openExpertModel(path.join(folder, 'nowhere'))).toThrow(/no such model/);
  });
});
