import { unionVocabulary } from '../../src/fusion/merge/tokenizer-union.js';
import type { MergeSource, ModelReference } from '../../src/fusion/merge/types.js';
import { planVocabulary } from '../../src/fusion/merge/vocabulary-plan.js';
import { withVocabulary } from '../../src/fusion/merge/vocabulary-source.js';
import type { Json } from './harness.js';
import { float64, shapeOf, tensor } from './tensors.js';

const NAME = 'embedding';

function asObject(value: Json, name: string): { [key: string]: Json } {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw new TypeError(`${name} is no object`);
  return value;
}

function asTokens(value: Json): Map<string, number> {
  if (!Array.isArray(value)) throw new TypeError('a vocabulary is a list');
  return new Map(value.map((token, id) => [String(token), id]));
}

function sourceOf(reference: ModelReference, embedding: Json): MergeSource {
  const shape = shapeOf(embedding, NAME);
  const bytes = new Uint8Array(float64(embedding, NAME).buffer);
  const rowBytes = 8 * shape[1];
  return {
    reference,
    path: reference.text,
    tensors: new Map([[NAME, { dtype: 'F64', shape }]]),
    read: async (_, from, to, target) => target.set(bytes.subarray(from * rowBytes, to * rowBytes)),
    close: () => undefined,
  };
}

export async function run(inputs: { [key: string]: Json }): Promise<unknown> {
  const names = Object.keys(asObject(inputs.vocabs, 'vocabs'));
  const embeddings = asObject(inputs.embeddings, 'embeddings');
  const models = names.map((name) => {
    const reference = { text: name, model: name };
    const tokens = asTokens(asObject(inputs.vocabs, 'vocabs')[name]);
    return { reference, tokens, added: [], scores: undefined, rows: shapeOf(embeddings[name], name)[0] };
  });
  const base = names.indexOf(String(inputs.base_model));
  const union = unionVocabulary([models[Math.max(0, base)], ...models.filter((_, i) => i !== Math.max(0, base))]);
  const padToMultipleOf = inputs.pad_to_multiple_of === null ? undefined : Number(inputs.pad_to_multiple_of);
  const plan = planVocabulary({
    output: union.tokens,
    models,
    base: base < 0 ? undefined : base,
    settings: { tokens: new Map(), padToMultipleOf },
  });
  const sources = models.map(({ reference }) => sourceOf(reference, embeddings[reference.text]));
  const aligned: Record<string, unknown> = {};
  for (const [i, name] of names.entries()) {
    const source = withVocabulary(
      i,
      sources,
      plan.maps[i],
      names.map(() => [NAME]),
    );
    const shape = source.tensors.get(NAME)?.shape ?? [];
    const rows = new Float64Array(shape[0] * shape[1]);
    await source.read(NAME, 0, shape[0], new Uint8Array(rows.buffer));
    aligned[name] = tensor(shape, rows);
  }
  return { union_vocab: Object.fromEntries(union.tokens), aligned };
}
