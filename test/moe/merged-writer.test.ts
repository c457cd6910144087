import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { sha256Sync } from '../../src/models/model-directory.js';
import { encodeValues } from '../../src/moe/expert-encoding.js';
import { openExpertModel } from '../../src/moe/expert-layout.js';
import type { ExpertModel } from '../../src/moe/expert-model.js';
import { readExpert, readRouter } from '../../src/moe/expert-reader.js';
import {
  copyUnchanged,
  createMergedModel,
  keepsEveryExpert,
  type MergedForm,
  type MergedPlan,
  type MergedWriterOptions,
} from '../../src/moe/merged-writer.js';
import {
  deepseekV3,
  expertOf,
  type MadeModel,
  matrix,
  mixtral,
  projections,
  SIZES,
  switchTransformer,
  writeModel,
} from './expert-checkpoint.js';

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'surprisal-merged-'));
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

let made = 0;
const place = (): string => path.join(folder, `dir-${made++}`);
const written = (model: MadeModel): string => writeModel(place(), model);
const options = (parameters = {}): MergedWriterOptions => ({
  head: { tool: { name: 'surprisal', version: '1' }, command: 'merge-moe merge', parameters, inputs: [] },
});

/** Experts 0 and 2 become one, 1 and 3 another. */
const PAIR_MAP = Int32Array.of(0, 1, 0, 1);

function planFor(model: ExpertModel, form: MergedForm, experts: number): MergedPlan {
  return {
    form,
    layers: model.layers.map((layer) => ({
      layer: layer.layer,
      experts,
      routerRows: form === 'reduced' ? experts : layer.experts,
      ...(form === 'remap' && { map: PAIR_MAP }),
    })),
  };
}

/** The mean of experts 0 and 2; 1 stands for itself and 3. */
function meanOf(model: ExpertModel, index: number) {
  const [a, b] = [readExpert(model, index, 0), readExpert(model, index, 2)];
  const mean = (x: Float32Array, y: Float32Array): Float32Array => x.map((value, i) => (value + y[i]) / 2);
  return {
    ...(a.gate && b.gate && { gate: mean(a.gate, b.gate) }),
    up: mean(a.up, b.up),
    down: mean(a.down, b.down),
  };
}

/** Writes the merge of pairs in a form; layers in the order of `order`. */
function mergePairs(
  model: ExpertModel,
  target: string,
  form: MergedForm,
  more: Partial<MergedWriterOptions> = {},
  order = model.layers.map((_, index) => index),
) {
  const writer = createMergedModel(model, target, planFor(model, form, form === 'expanded' ? 4 : 2), {
    ...options(),
    ...more,
  });
  for (const index of order) {
    const { layer } = model.layers[index];
    const merged = [meanOf(model, index), { copyOf: 1 }];
    const places = form === 'expanded' ? [3, 1, 2, 0] : [1, 0];
    for (const at of places) writer.writeExpert(layer, at, merged[at % 2]);
    if (form === 'reduced') writer.writeRouter(layer, { rows: Int32Array.of(2, 1) });
    writer.finishLayer(layer, { layer, gain: 1 / 3 });
  }
  return writer;
}

const bytesOf = (directory: string, name: string): Uint8Array => {
  const store = openSafetensors(directory);
  const info = store.tensors.get(name);
  if (info === undefined) throw new Error(`no ${name}`);
  const bytes = new Uint8Array(info.byteLength);
  store.readInto(info, 0, bytes.length, bytes);
  store.close();
  return bytes;
};

/** Rounded to BF16 once. */
const asBf16 = (values: Float32Array): Float32Array => {
  const bytes = encodeValues(values, 'BF16', 'x');
  return Float32Array.from({ length: values.length }, (_, i) => {
    const word = bytes[2 * i] | (bytes[2 * i + 1] << 8);
    return new Float32Array(Uint32Array.of(word << 16).buffer)[0];
  });
};

const SOURCES: readonly (readonly [string, MadeModel])[] = [
  ['separate', mixtral()],
  ['fused in rows', mixtral(SIZES, 'fused-rows')],
  ['fused in columns', mixtral(SIZES, 'fused-columns', '.weight')],
  ['of F32', mixtral({ ...SIZES, dtype: 'F32' })],
  ['with dense layers', projections('qwen2_moe', [0, 2], { num_experts: 4, mlp_only_layers: [1] })],
  ['of Switch', switchTransformer()],
];

describe('createMergedModel', () => {
  it.each(SOURCES)('reduces experts that are %s', (_, source) => {
    const from = written(source);
    const model = openExpertModel(from);
    const target = place();
    const writer = mergePairs(model, target, 'reduced');
    writer.commit();
    const merged = openExpertModel(target);
    expect(merged.layout).toBe(model.layout);
    for (const [index, layer] of merged.layers.entries()) {
      expect(layer.experts).toBe(2);
      const mean = meanOf(model, index);
      const round = layer.dtype === 'BF16' ? asBf16 : (values: Float32Array) => values;
      expect(readExpert(merged, index, 0)).toEqual({
        ...(mean.gate && { gate: round(mean.gate) }),
        up: round(mean.up),
        down: round(mean.down),
      });
      expect(readExpert(merged, index, 1)).toEqual(readExpert(model, index, 1));
      const rows = readRouter(model, index).rows;
      const { hidden } = layer.shape;
      expect(readRouter(merged, index).rows).toEqual(
        Float32Array.of(...rows.subarray(2 * hidden, 3 * hidden), ...rows.subarray(hidden, 2 * hidden)),
      );
    }
    expect(writer.bytesAfter).toBeLessThan(writer.bytesBefore);
    const experts = new Set(model.layers.flatMap(({ router }) => [router]));
    for (const name of source.tensors.keys())
      if (!/experts/.test(name) && !experts.has(name)) expect(bytesOf(target, name)).toEqual(bytesOf(from, name));
    model.close();
    merged.close();
  });

  it('writes a manifest with the hash of every file, shards, and an index', () => {
    const model = openExpertModel(written(mixtral()));
    const target = place();
    const manifest = mergePairs(model, target, 'reduced', { maxShardBytes: 500 }).commit({ seconds: 1 });
    const files = manifest.files as { name: string; bytes: number; sha256: string }[];
    const names = fs.readdirSync(target).sort();
    expect(files.map(({ name }) => name)).toEqual(names.filter((name) => name !== 'manifest.json'));
    for (const { name, bytes, sha256 } of files) {
      expect(fs.statSync(path.join(target, name)).size).toBe(bytes);
      expect(sha256Sync(path.join(target, name))).toBe(sha256);
    }
    expect(names.filter((name) => name.endsWith('.safetensors')).length).toBe(3);
    const index = JSON.parse(fs.readFileSync(path.join(target, 'model.safetensors.index.json'), 'utf8'));
    expect(Object.keys(index.weight_map)).toEqual(Object.keys(index.weight_map).sort());
    expect(index.metadata.total_size).toBe(manifest.tensor_bytes);
    expect(manifest).toMatchObject({
      family: 'mixtral',
      form: 'reduced',
      config_form: 'standard',
      figures: { seconds: 1 },
    });
    expect((manifest.layers as unknown[])[1]).toEqual({
      layer: 1,
      name: 'layers.1',
      experts_before: 4,
      experts: 2,
      router_rows: 2,
      record: { layer: 1, gain: 1 / 3 },
    });
    const merged = openExpertModel(target);
    expect(merged.layers[1].experts).toBe(2);
    merged.close();
    model.close();
  });

  it('gives the same bytes in any order of layers and places, and in one shard or several', () => {
    const model = openExpertModel(written(mixtral(SIZES, 'fused-columns')));
    const [a, b, c] = [place(), place(), place()];
    mergePairs(model, a, 'reduced').commit();
    mergePairs(model, b, 'reduced', {}, [1, 0]).commit();
    mergePairs(model, c, 'reduced', { maxShardBytes: 300 }).commit();
    for (const name of fs.readdirSync(a))
      expect(fs.readFileSync(path.join(b, name))).toEqual(fs.readFileSync(path.join(a, name)));
    for (const name of openSafetensors(a).tensors.keys()) expect(bytesOf(c, name)).toEqual(bytesOf(a, name));
    model.close();
  });

  it('changes only the numbers of experts in config.json: 0.0 stays 0.0', () => {
    const source = written(mixtral());
    const config = path.join(source, 'config.json');
    fs.writeFileSync(
      config,
      fs.readFileSync(config, 'utf8').replace('{', '{"router_jitter_noise":0.0,"rope_theta":1e6,'),
    );
    const model = openExpertModel(source);
    const target = place();
    mergePairs(model, target, 'reduced').commit();
    const text = fs.readFileSync(path.join(target, 'config.json'), 'utf8');
    expect(text).toContain('"router_jitter_noise": 0.0,\n  "rope_theta": 1e6,');
    expect(JSON.parse(text)).toEqual({ ...model.config, num_local_experts: 2 });
    model.close();
  });

  it('goes on behind the layers that an interrupted run finished', () => {
    const model = openExpertModel(written(mixtral()));
    const whole = place();
    mergePairs(model, whole, 'reduced').commit();
    const target = place();
    const plan = planFor(model, 'reduced', 2);
    const first = createMergedModel(model, target, plan, options({ method: 'a' }));
    first.writeExpert(0, 0, meanOf(model, 0));
    first.writeExpert(0, 1, { copyOf: 1 });
    first.writeRouter(0, { rows: Int32Array.of(2, 1) });
    first.finishLayer(0, { layer: 0, gain: 1 / 3 });
    first.writeExpert(1, 0, { copyOf: 3 });
    first.abort();
    expect(fs.existsSync(target)).toBe(false);

    expect(() => createMergedModel(model, target, plan, { ...options({ method: 'b' }), resume: true })).toThrow(
      /interrupted run .* had another "parameters.method"/,
    );
    const other = { ...plan, layers: plan.layers.map((layer) => ({ ...layer, experts: 3, routerRows: 3 })) };
    expect(() => createMergedModel(model, target, other, { ...options({ method: 'a' }), resume: true })).toThrow(
      /had another "plan/,
    );
    const second = createMergedModel(model, target, plan, { ...options({ method: 'a' }), resume: true });
    expect([...second.doneLayers()]).toEqual([[0, { layer: 0, gain: 1 / 3 }]]);
    expect(() => second.writeExpert(0, 0, { copyOf: 0 })).toThrow(/finished/);
    expect(() => second.commit()).toThrow(/layers\.1 was never finished/);
    second.writeExpert(1, 0, meanOf(model, 1));
    second.writeExpert(1, 1, { copyOf: 1 });
    expect(() => second.finishLayer(1, null)).toThrow(/router is not written/);
    second.writeRouter(1, { rows: Int32Array.of(2, 1) });
    second.finishLayer(1, { layer: 1, gain: 1 / 3 });
    const manifest = second.commit();
    for (const name of ['model.safetensors', 'config.json'])
      expect(fs.readFileSync(path.join(target, name))).toEqual(fs.readFileSync(path.join(whole, name)));
    expect(fs.readdirSync(target)).toEqual(fs.readdirSync(whole));

    const third = createMergedModel(model, target, plan, { ...options({ method: 'a' }), resume: true });
    expect(third.complete).toBe(true);
    expect(third.doneLayers().get(1)).toEqual({ layer: 1, gain: 1 / 3 });
    expect(third.commit()).toEqual(manifest);
    expect(() => createMergedModel(model, target, plan, { ...options({ method: 'b' }), resume: true })).toThrow(
      /is complete, and was made with another "parameters.method"/,
    );
    expect(() => createMergedModel(model, target, plan, options())).toThrow(/already exists/);
    createMergedModel(model, target, plan, { ...options(), force: true }).abort(true);
    expect(fs.readdirSync(folder).filter((name) => name.endsWith('.partial'))).toEqual([]);
    model.close();
  });

  it('begins anew where the files of the interrupted run are not whole', () => {
    const model = openExpertModel(written(mixtral()));
    const target = place();
    const plan = planFor(model, 'reduced', 2);
    const first = createMergedModel(model, target, plan, options());
    first.writeExpert(0, 0, { copyOf: 0 });
    first.writeExpert(0, 1, { copyOf: 1 });
    first.writeRouter(0, { rows: Int32Array.of(0, 1) });
    first.finishLayer(0, null);
    first.abort();
    const left = fs.readdirSync(folder).find((name) => name.endsWith('.partial')) ?? '';
    fs.truncateSync(path.join(folder, left, 'model.safetensors'), 100);
    const second = createMergedModel(model, target, plan, { ...options(), resume: true });
    expect(second.doneLayers().size).toBe(0);
    second.abort(true);
    model.close();
  });

  it('takes new router rows with their biases', () => {
    const model = openExpertModel(written(deepseekV3()));
    const target = place();
    const plan = planFor(model, 'reduced', 4);
    const writer = createMergedModel(model, target, plan, options());
    const rows = matrix('new rows', 4, 8);
    const correctionBias = matrix('new bias', 4, 1).map((value) => value / 3);
    for (const { layer } of model.layers) for (let e = 0; e < 4; e++) writer.writeExpert(layer, e, { copyOf: 2 * e });
    expect(() => writer.writeRouter(1, rows)).toThrow(/correction bias: no values/);
    expect(() => writer.writeRouter(1, { rows: Int32Array.of(0, 1, 2) })).toThrow(/3 router rows for 4/);
    writer.writeRouter(1, { rows, correctionBias });
    writer.writeRouter(2, { rows: Int32Array.of(6, 0, 1, 7) });
    for (const { layer } of model.layers) writer.finishLayer(layer, null);
    const manifest = writer.commit();
    const merged = openExpertModel(target);
    expect(readRouter(merged, 0)).toEqual({ rows, correctionBias });
    const before = matrix('2 bias', 8, 1);
    expect(readRouter(merged, 1).correctionBias).toEqual(Float32Array.of(before[6], before[0], before[1], before[7]));
    expect(readExpert(merged, 1, 3)).toEqual(expertOf('2', 6, SIZES));
    // The layer that predicts a further token has eight experts still: it is left out, and the config says so.
    expect([...merged.store.tensors.keys()].some((name) => name.includes('layers.3'))).toBe(false);
    expect(merged.config).toEqual({ ...model.config, n_routed_experts: 4, num_nextn_predict_layers: 0 });
    expect((manifest.notes as string[]).join()).toContain('left out');
    model.close();
    merged.close();
  });

  it('keeps a layer as it was, and says different numbers of experts in its own extension', () => {
    const source = written(mixtral());
    const model = openExpertModel(source);
    const target = place();
    const plan: MergedPlan = {
      form: 'reduced',
      layers: [
        { layer: 0, experts: 4, routerRows: 4 },
        { layer: 1, experts: 3, routerRows: 3 },
      ],
    };
    const writer = createMergedModel(model, target, plan, options());
    expect(() => writer.keepLayer(1)).toThrow(/keeps 3 of 4/);
    writer.keepLayer(0);
    writer.finishLayer(0, null);
    for (const at of [0, 1, 2]) writer.writeExpert(1, at, { copyOf: at + 1 });
    writer.writeRouter(1, { rows: Int32Array.of(1, 2, 3) });
    writer.finishLayer(1, null);
    writer.commit();
    expect(writer.configForm).toBe('surprisal_moe');
    expect(() => openExpertModel(target)).toThrow(/already merged by surprisal/);
    const merged = openExpertModel(target, { merged: 'read' });
    expect(merged.config).toMatchObject({
      model_type: 'surprisal_moe',
      base_model_type: 'mixtral',
      surprisal_moe: { version: 1, router: 'reduced', experts_per_layer: [4, 3] },
    });
    expect(merged.layers.map(({ experts, routerRows }) => [experts, routerRows])).toEqual([
      [4, 4],
      [3, 3],
    ]);
    expect(readExpert(merged, 1, 2)).toEqual(expertOf('1', 3, SIZES));
    for (const [name] of mixtral().tensors)
      if (name.includes('layers.0')) expect(bytesOf(target, name)).toEqual(bytesOf(source, name));
    model.close();
    merged.close();
  });

  it('refuses values that the type cannot hold, and what the plan has not', () => {
    const model = openExpertModel(written(mixtral({ ...SIZES, dtype: 'F16' })));
    const writer = createMergedModel(model, place(), planFor(model, 'reduced', 2), options());
    const expert = meanOf(model, 0);
    const wrong = (value: number) => ({ ...expert, up: expert.up.map((x, i) => (i === 7 ? value : x)) });
    expect(() => writer.writeExpert(0, 0, wrong(Number.NaN))).toThrow(/layers\.0, merged expert 0, up: value NaN at 7/);
    expect(() => writer.writeExpert(0, 0, wrong(65520))).toThrow(/65520 at 7 cannot be stored as F16/);
    writer.writeExpert(0, 0, wrong(65519));
    expect(() => writer.writeExpert(0, 2, expert)).toThrow(/place 2 of 2/);
    expect(() => writer.writeExpert(5, 0, expert)).toThrow(/layer 5 has no experts/);
    expect(() => writer.writeExpert(0, 1, { copyOf: 4 })).toThrow(/no expert 4 of 4/);
    expect(() => writer.writeExpert(0, 1, { up: expert.up, down: expert.down })).toThrow(/gate: no values/);
    expect(() => writer.finishLayer(0, null)).toThrow(/1 of 2 experts/);
    writer.abort(true);
    model.close();
  });
});

describe('plans', () => {
  const reduced = (model: ExpertModel, experts: number, topK?: number): MergedPlan => ({
    ...planFor(model, 'reduced', experts),
    ...(topK !== undefined && { topK }),
  });
  const refusal = (source: MadeModel, plan: (model: ExpertModel) => MergedPlan): string => {
    const model = openExpertModel(written(source));
    try {
      createMergedModel(model, place(), plan(model), options()).abort(true);
      return '';
    } catch (error) {
      return `${(error as Error).name}: ${(error as Error).message}`;
    } finally {
      model.close();
    }
  };

  it('says layer, number and constraint of a router that is too small', () => {
    expect(refusal(mixtral(), (model) => reduced(model, 1))).toMatch(
      /InputError.*layers\.0 would keep 1 of 4 experts, but a token chooses 2/,
    );
    expect(refusal(mixtral(), (model) => reduced(model, 1, 1))).toBe('');
    expect(refusal(deepseekV3(), (model) => reduced(model, 5))).toMatch(
      /InputError.*5 of 8.*2 groups.*a multiple of 2/,
    );
    const three = deepseekV3({ ...SIZES, experts: 8, topK: 3 });
    expect(refusal(three, (model) => reduced(model, 4))).toMatch(
      /2 a group, but a token chooses 3 from 1 groups.*at least 6/,
    );
    expect(refusal(deepseekV3({ ...SIZES, experts: 8, topK: 1 }), (model) => reduced(model, 2))).toMatch(
      /one a group, but groups are scored by their two best.*at least 4/,
    );
    expect(refusal(deepseekV3(), (model) => reduced(model, 4))).toBe('');
  });

  it('has no extension for families that are not run here', () => {
    const remap = (model: ExpertModel): MergedPlan => planFor(model, 'remap', 2);
    expect(refusal(switchTransformer(), remap)).toMatch(/InputError.*cannot be said in a switch_transformers config/);
    const uneven = (model: ExpertModel): MergedPlan => ({
      form: 'reduced',
      layers: model.layers.map(({ layer }, i) => ({ layer, experts: 2 + i, routerRows: 2 + i })),
    });
    expect(refusal(switchTransformer(), uneven)).toMatch(/InputError.*--budget uniform/);
    expect(refusal(switchTransformer(), (model) => reduced(model, 2, 2))).toMatch(/InputError.*choose one expert/);
  });

  it('refuses plans of other models', () => {
    const change = (layer: Partial<MergedPlan['layers'][number]>, form: MergedForm = 'remap') =>
      refusal(mixtral(), (model) => ({
        form,
        layers: planFor(model, form, 2).layers.map((each, i) => (i === 1 ? { ...each, ...layer } : each)),
      }));
    expect(change({ layer: 2 })).toMatch(/RangeError.*layer 2 stands where 1 belongs/);
    expect(change({ experts: 5 })).toMatch(/RangeError.*5 experts of 4/);
    expect(change({ routerRows: 2 })).toMatch(/RangeError.*2 router rows, not 4/);
    expect(change({ map: Int32Array.of(0, 1, 2, 0) })).toMatch(/RangeError.*names expert 2 of 2/);
    expect(change({ map: Int32Array.of(0, 0, -1, 0) })).toMatch(/RangeError.*names 1 of 2 stored/);
    expect(change({ map: Int32Array.of(0, 1) })).toMatch(/RangeError.*2 entries for 4/);
    expect(change({}, 'expanded')).toMatch(/RangeError.*2 experts, not 4, for form expanded/);
    expect(refusal(mixtral(), (model) => ({ ...planFor(model, 'remap', 2), topK: 1 }))).toMatch(
      /InputError.*reduced alone/,
    );
    expect(refusal(mixtral(), (model) => ({ ...planFor(model, 'remap', 2), layers: [] }))).toMatch(
      /RangeError.*plan of 0/,
    );
  });
});

describe('copyUnchanged', () => {
  it('copies every file of the model byte for byte', () => {
    const source = written(mixtral());
    fs.writeFileSync(path.join(source, 'tokenizer.json'), '{"a": 1.0}');
    const model = openExpertModel(source);
    const target = place();
    const manifest = copyUnchanged(model, target, options());
    expect(fs.readdirSync(target).sort()).toEqual([...fs.readdirSync(source), 'manifest.json'].sort());
    for (const name of fs.readdirSync(source))
      expect(fs.readFileSync(path.join(target, name))).toEqual(fs.readFileSync(path.join(source, name)));
    expect(manifest).toMatchObject({ form: 'unchanged', config_form: 'standard' });
    expect(() => copyUnchanged(model, target, options())).toThrow(/already exists/);
    expect(copyUnchanged(model, target, { ...options(), resume: true })).toEqual(manifest);
    copyUnchanged(model, target, { ...options(), force: true });
    model.close();
  });

  it('is for groupings in which every expert is a group of its own', () => {
    const grouping = (labels: number[], dominants: number[]) => ({
      layer: 0,
      labels: Int32Array.from(labels),
      dominants: Int32Array.from(dominants),
    });
    expect(keepsEveryExpert([grouping([1, 0], [1, 0])])).toBe(true);
    expect(keepsEveryExpert([grouping([1, 0], [1, 0]), grouping([0, 0], [1])])).toBe(false);
    expect(keepsEveryExpert([grouping([0, -1], [0])])).toBe(false);
  });
});
