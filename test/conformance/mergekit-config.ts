import { readPlacedYaml } from '../../src/formats/placed-yaml.js';
import { DTYPE_BYTES, elementCount } from '../../src/formats/tensor.js';
import { parseMergeDocuments } from '../../src/fusion/merge/config-document.js';
import { settingOf } from '../../src/fusion/merge/config-values.js';
import { referencedModels } from '../../src/fusion/merge/document.js';
import { passthrough } from '../../src/fusion/merge/methods/passthrough.js';
import { planMerge } from '../../src/fusion/merge/plan.js';
import { evaluateSetting } from '../../src/fusion/merge/setting.js';
import type { MergeInput, MergePlan, MergeSource, PlannedTensor, TensorBytes } from '../../src/fusion/merge/types.js';
import { widenToF64 } from '../../src/kernels/dtypes.js';
import { memorySource } from '../fusion/merge/memory-source.js';
import type { Json } from './harness.js';
import { float64, keysOf, number, shapeOf, tensor } from './tensors.js';

type Fields = { [key: string]: Json };

function fields(value: Json, name: string): Fields {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw new TypeError(`${name} is no object`);
  return value;
}

function text(value: Json, name: string): string {
  if (typeof value !== 'string') throw new TypeError(`${name} is no text`);
  return value;
}

function evaluated(inputs: Fields): unknown {
  const settings = fields(inputs.settings, 'settings');
  const declaration = { name: 'value', kind: 'number', summary: '' } as const;
  const values = (inputs.queries as Fields[]).map((query) => {
    const [setting] = readPlacedYaml(JSON.stringify(settings[text(query.setting, 'setting')]), 'case');
    const value = evaluateSetting(settingOf(setting, declaration), text(query.tensor, 'tensor'), number(query.t, 't'));
    return value ?? null;
  });
  return { values };
}

async function bytesOf(source: MergeSource, name: string): Promise<TensorBytes> {
  const info = source.tensors.get(name);
  if (info === undefined) throw new TypeError(`no tensor ${name}`);
  const bytes = new Uint8Array(elementCount(info.shape) * DTYPE_BYTES[info.dtype]);
  await source.read(name, 0, info.shape[0] ?? 1, bytes);
  return { ...info, bytes };
}

/** One tensor of the output, its method called as the executor calls it. */
async function merged(plan: MergePlan, sources: readonly MergeSource[], planned: PlannedTensor): Promise<TensorBytes> {
  const inputs = await Promise.all(
    planned.inputs.map(async ({ model, tensor: name, parameters }, i): Promise<MergeInput> => {
      const source = sources.find(({ reference }) => reference.text === plan.models[model].text);
      if (source === undefined) throw new TypeError('no source');
      return {
        model: source.reference.text,
        isBase: i === planned.base,
        tensor: await bytesOf(source, name),
        parameters,
      };
    }),
  );
  const { shape, dtype, name, parameters } = planned;
  const output = { shape, dtype, bytes: new Uint8Array(elementCount(shape) * DTYPE_BYTES[dtype]) };
  const method = planned.copied ? passthrough : plan.method;
  method.merge({ name, inputs, parameters, output, firstElement: 0, seed: 0, threads: 1, variant: 'surprisal' });
  return output;
}

async function wholeMerge(inputs: Fields, wanted: Json): Promise<unknown> {
  const [document] = parseMergeDocuments(text(inputs.yaml, 'yaml'), 'case');
  const models = fields(inputs.models, 'models');
  const sources = referencedModels(document).map(({ text: name }) => {
    const stored = Object.entries(fields(models[name], name)).map(([key, value]) => {
      return [key, { shape: shapeOf(value, key), dtype: 'F64', data: float64(value, key) }] as const;
    });
    return memorySource(name, Object.fromEntries(stored));
  });
  const plan = planMerge(
    document,
    sources,
    sources.map(() => fields(inputs.config, 'config')),
  );
  const merges: Record<string, unknown> = {};
  const positions: Record<string, unknown> = {};
  for (const planned of plan.tensors) {
    const { shape, dtype, bytes } = await merged(plan, sources, planned);
    const values = new Float64Array(elementCount(shape));
    widenToF64(bytes, dtype, values);
    merges[planned.name] = tensor(shape, values);
    positions[planned.name] = planned.parameters.t;
  }
  const named: Record<string, unknown> = { num_hidden_layers: plan.layers, merged: merges, t: positions };
  return Object.fromEntries(keysOf(wanted).map((key) => [key, named[key]]));
}

export function run(inputs: Fields, wanted: Json): unknown | Promise<unknown> {
  return inputs.settings === undefined ? wholeMerge(inputs, wanted) : evaluated(inputs);
}
