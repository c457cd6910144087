import { createEngine, type Engine } from '../../src/models/engine.js';
import { gatherRows } from '../../src/models/gather-rows.js';
import { INTERVENTION_KINDS } from '../../src/models/interventions.js';
import type { Floats, Intervention } from '../../src/models/layer-runner.js';
import { type MemoryTensor, memoryModel } from '../../src/models/memory-model.js';
import type { Json } from './harness.js';
import { float64, keysOf, number, numbers, shapeOf, tensor } from './tensors.js';

type JsonObject = { [key: string]: Json };

function objectOf(value: Json | undefined, name: string): JsonObject {
  if (value === null || value === undefined || typeof value !== 'object' || Array.isArray(value)) {
    throw new TypeError(`${name} is not an object`);
  }
  return value;
}

/** Names of a Hugging Face checkpoint by the names of the case. */
function checkpointName(name: string): string {
  const whole: Readonly<Record<string, string>> = {
    embed: 'model.embed_tokens.weight',
    lm_head: 'lm_head.weight',
    final_norm: 'model.norm.weight',
    input_norm: 'input_layernorm',
    post_norm: 'post_attention_layernorm',
  };
  const [, layer, part] = /^l(\d+)\.(\w+)$/.exec(name) ?? [];
  if (part === undefined) return whole[name];
  const module = whole[part] ?? ('qkvo'.includes(part) ? `self_attn.${part}_proj` : `mlp.${part}_proj`);
  return `model.layers.${layer}.${module}.weight`;
}

function openCase(inputs: JsonObject): Promise<Engine> {
  const config = objectOf(inputs.config, 'config');
  const weights = objectOf(inputs.weights, 'weights');
  const tensors = new Map<string, MemoryTensor>();
  for (const [name, value] of Object.entries(weights)) {
    tensors.set(checkpointName(name), { shape: shapeOf(value, name), data: float64(value, name) });
  }
  const files = memoryModel(
    'case',
    {
      model_type: 'llama',
      num_hidden_layers: config.layers,
      hidden_size: config.hidden,
      num_attention_heads: config.heads,
      num_key_value_heads: config.kv_heads,
      intermediate_size: config.intermediate,
      vocab_size: config.vocab,
      rms_norm_eps: config.eps,
      rope_theta: config.rope_theta,
    },
    tensors,
  );
  return createEngine(files, {
    threads: 1,
    maxMemoryBytes: 2 ** 32,
    device: 'cpu',
    precision: 'f64',
    context: 64,
  });
}

interface Pass {
  /** Residual streams [T, hidden]: embeddings, then the output of every block. */
  readonly streams: Floats[];
  readonly logits: Floats;
  readonly entropyNats: Float64Array;
}

interface PassOptions {
  readonly interventions?: readonly Intervention[];
  /** Feed this many tokens at once, then one at a time, with a key/value cache. */
  readonly cachedAfter?: number;
  /** First position whose logits are wanted. */
  readonly from?: number;
}

async function runPass(engine: Engine, tokens: Int32Array, options: PassOptions = {}): Promise<Pass> {
  const { hiddenSize, layers } = engine.model;
  const { cachedAfter, from = 0, interventions = [] } = options;
  const past = cachedAfter === undefined ? undefined : engine.startDecoding(tokens.length);
  const streams: Floats[] = Array.from(
    { length: layers.length + 1 },
    () => new Float64Array(tokens.length * hiddenSize),
  );
  const ends = [tokens.length];
  if (cachedAfter !== undefined) {
    ends.splice(0, 1);
    for (let end = cachedAfter; end <= tokens.length; end++) ends.push(end);
  }
  let start = 0;
  for (const end of ends) {
    const first = start;
    await engine.forward({
      windows: [tokens.subarray(first, end)],
      interventions,
      ...(past && { past }),
      onResidual: (index, groups) => streams[index].set(groups[0].stream, first * hiddenSize),
    });
    start = end;
  }
  const rows = gatherRows(
    [{ windows: [0], length: tokens.length, start: 0, capacity: 0, stream: streams[layers.length] }],
    hiddenSize,
    [[from, tokens.length]],
  );
  await engine.normalize(rows);
  const targets = new Int32Array(tokens.length - from).fill(-1);
  const { entropyNats } = await engine.statistics(rows, targets, { topK: 0, renyiOrders: [] });
  return { streams, logits: await engine.logits(rows), entropyNats };
}

async function tinyLlama(engine: Engine, inputs: JsonObject): Promise<Record<string, unknown>> {
  const { hiddenSize: hidden, vocabularySize: vocabulary } = engine.model;
  const tokens = Int32Array.from(numbers(inputs.token_ids, 'token_ids'));
  const last = number(inputs.prompt_len, 'prompt_len') - 1;
  const layer = number(inputs.layer, 'layer');
  const steer = (positions: (position: number) => boolean): Intervention[] => [
    {
      layer,
      kind: 'add',
      vector: float64(inputs.u, 'u'),
      scale: number(inputs.beta, 'beta'),
      positions: (_, position) => positions(position),
    },
  ];
  const unsteered = await runPass(engine, tokens);
  const all = await runPass(engine, tokens, { interventions: steer(() => true) });
  const east = await runPass(engine, tokens, {
    interventions: steer((position) => position >= last),
    cachedAfter: last + 1,
    from: last,
  });
  const recomputed: number[] = [];
  for (let position = last; position < tokens.length; position++) {
    const pass = await runPass(engine, tokens.subarray(0, position + 1), {
      interventions: steer((other) => other === position),
      from: position,
    });
    recomputed.push(...pass.logits);
  }
  const count = tokens.length;
  return {
    residuals_unsteered: tensor(
      [unsteered.streams.length, count, hidden],
      unsteered.streams.flatMap((stream) => [...stream]),
    ),
    logits_unsteered: tensor([count, vocabulary], unsteered.logits),
    logits_all_positions: tensor([count, vocabulary], all.logits),
    logits_east_from_last_prompt: tensor([count - last, vocabulary], east.logits),
    wrong_recompute: tensor([count - last, vocabulary], recomputed),
    residual_after_layer_east: tensor([count, hidden], east.streams[layer + 1]),
    next_token_entropy_nats: {
      unsteered: unsteered.entropyNats,
      all_positions: all.entropyNats,
      east: east.entropyNats,
    },
  };
}

async function operators(engine: Engine, inputs: JsonObject, wanted: Json): Promise<Record<string, unknown>> {
  const { hiddenSize, vocabularySize, layers } = engine.model;
  const tokens = Int32Array.from(numbers(inputs.token_ids, 'token_ids'));
  const cases = objectOf(inputs.cases, 'cases');
  const results: Record<string, unknown> = {};
  for (const key of keysOf(wanted)) {
    const listed = cases[key];
    if (!Array.isArray(listed)) continue;
    const interventions = listed.map((entry): Intervention => {
      const given = objectOf(entry, key);
      const kind = INTERVENTION_KINDS.find((known) => known === given.op);
      if (kind === undefined) throw new TypeError(`operator ${JSON.stringify(given.op)} is not known`);
      const positions = new Set(numbers(given.positions, 'positions'));
      return {
        layer: number(given.layer, 'layer'),
        kind,
        vector: Float64Array.from(numbers(given.vector, 'vector')),
        scale: number(given.multiplier ?? given.value ?? 1, 'multiplier'),
        positions: (_, position) => positions.has(position),
      };
    });
    const pass = await runPass(engine, tokens, { interventions });
    results[key] = {
      logits: tensor([tokens.length, vocabularySize], pass.logits),
      residual_last_block: tensor([tokens.length, hiddenSize], pass.streams[layers.length]),
    };
  }
  return results;
}

export async function run(inputs: JsonObject, wanted: Json): Promise<unknown> {
  const engine = await openCase(inputs);
  try {
    return inputs.cases === undefined ? await tinyLlama(engine, inputs) : await operators(engine, inputs, wanted);
  } finally {
    await engine.close();
  }
}
