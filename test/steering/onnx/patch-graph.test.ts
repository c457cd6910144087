import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Tensor } from 'onnxruntime-node';
import { afterAll, describe, expect, it } from 'vitest';
import { encodeOnnxModel } from '../../../src/formats/onnx.js';
import type { ModelProto } from '../../../src/formats/onnx_pb.js';
import { allowDefaultInputs, graphOf, onnxValueInfo } from '../../../src/formats/onnx-edit.js';
import { createEngine } from '../../../src/models/engine.js';
import { openModelFiles } from '../../../src/models/model-files.js';
import { decoderFeed, type TensorMetadata } from '../../../src/models/onnx-feeds.js';
import { createSession } from '../../../src/models/sessions.js';
import { createRandom } from '../../../src/random.js';
import { type PatchRequest, patchGraph } from '../../../src/steering/onnx/patch-graph.js';
import type { SteeringRecipe } from '../../../src/steering/onnx/patch-options.js';
import { provePatch } from '../../../src/steering/onnx/patch-proof.js';
import { copyOf, fuseSkipNorms, readFixture, scramble } from './graphs.js';

const folder = mkdtempSync(join(tmpdir(), 'surprisal-onnx-'));
afterAll(() => rmSync(folder, { recursive: true }));
const TOKENS = Int32Array.from({ length: 9 }, (_, i) => (7 * i * i + 3) % 67);
const HIDDEN = 32;
const random = createRandom(5);
const VECTOR = Float32Array.from({ length: HIDDEN }, () => random.normal());
const CONFIG = { num_key_value_heads: 2 };

const input = (recipe: SteeringRecipe, rest: Partial<PatchRequest> = {}): PatchRequest => ({
  layers: 'all',
  steer: { recipe, operand: () => ({ kind: 'input', default: 'none' }) },
  expose: 'all',
  ...rest,
});

function write(name: string, model: ModelProto): string {
  const path = join(folder, name);
  writeFileSync(path, encodeOnnxModel(model));
  return path;
}

/** Logits and residuals of one pass, with vectors at all positions of some layers. */
async function runGraph(model: ModelProto, steered: readonly number[] = []) {
  const session = await createSession(encodeOnnxModel(model), { threads: 1, device: 'cpu', arena: false });
  const feeds: Record<string, Tensor> = {};
  for (const metadata of session.inputMetadata as readonly TensorMetadata[]) {
    feeds[metadata.name] = decoderFeed(metadata, { tokens: TOKENS, first: 0 }, CONFIG);
  }
  for (const layer of steered) feeds[`steer.${layer}`] = new Tensor('float32', VECTOR, [1, 1, HIDDEN]);
  const outputs = await session.run(feeds);
  await session.release();
  return (name: string): Float32Array => outputs[name].data as Float32Array;
}

const largestDifference = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  expect(a.length).toBe(b.length);
  let largest = 0;
  for (let i = 0; i < a.length; i++) largest = Math.max(largest, Math.abs(a[i] - b[i]));
  return largest;
};

/** The engine's own forward pass of the model that the fixtures were made from. */
async function nativeLogits(layer: number): Promise<Float32Array> {
  const files = openModelFiles('fixtures/architectures/llama-tied-linear');
  const engine = await createEngine(files, {
    threads: 1,
    maxMemoryBytes: 2 ** 32,
    device: 'cpu',
    precision: 'f32',
    context: 64,
  });
  const stream = new Float32Array(TOKENS.length * HIDDEN);
  await engine.forward({
    windows: [TOKENS],
    interventions: [{ layer, kind: 'add', vector: VECTOR, scale: 1, positions: () => true }],
    onResidual: (index, groups) => {
      if (index === engine.model.layers.length) stream.set(groups[0].stream);
    },
  });
  await engine.normalize(stream);
  const logits = await engine.logits(stream);
  await engine.close();
  return Float32Array.from(logits);
}

const STYLES: readonly [string, () => ModelProto][] = [
  ['plain sums', () => scramble(readFixture('optimum-past.onnx'))],
  ['fused norms', () => scramble(fuseSkipNorms(readFixture('genai.onnx')))],
];

describe.each(STYLES)('%s', (_, open) => {
  it.each(['branch', 'sum'] as const)('recipe %s steers as the native forward pass does', async (recipe) => {
    const model = open();
    patchGraph(model, input(recipe));
    const unsteered = await runGraph(model);
    for (const layer of [0, 1]) {
      const steered = await runGraph(model, [layer]);
      expect(largestDifference(steered('logits'), await nativeLogits(layer))).toBeLessThan(2e-5);
      const moved = steered(`residual.${layer}`).map((value, i) => value - unsteered(`residual.${layer}`)[i]);
      expect(
        largestDifference(
          moved,
          moved.map((_, i) => VECTOR[i % HIDDEN]),
        ),
      ).toBeLessThan(2e-6);
    }
  });

  it('zero steering has the bits of the original, also by the defaults and at the embeddings', async () => {
    const original = await runGraph(open());
    for (const kind of ['zero', 'none'] as const) {
      const model = open();
      patchGraph(model, {
        layers: [-1, 0, 1],
        steer: { recipe: 'branch', operand: () => ({ kind: 'input', default: kind }) },
        expose: 'last-attended',
      });
      const patched = await runGraph(model);
      expect(patched('logits')).toEqual(original('logits'));
      expect(patched('residual.1')).toHaveLength(HIDDEN);
    }
  });

  it('constant vectors are those fed at all positions', async () => {
    const fed = open();
    patchGraph(fed, input('branch', { layers: [1] }));
    const constant = open();
    patchGraph(constant, {
      layers: [1],
      steer: { recipe: 'branch', operand: () => ({ kind: 'constant', values: VECTOR }) },
    });
    expect((await runGraph(constant))('logits')).toEqual((await runGraph(fed, [1]))('logits'));
  });
});

describe('exposed residuals', () => {
  it('are the last positions, and those that the mask marks', async () => {
    const last = readFixture('genai.onnx');
    patchGraph(last, { layers: 'all', expose: 'last' });
    const all = readFixture('genai.onnx');
    patchGraph(all, { layers: 'all', expose: 'all' });
    const [short, long] = [await runGraph(last), await runGraph(all)];
    expect(short('residual.0')).toEqual(long('residual.0').slice(-HIDDEN));

    const ragged = readFixture('optimum.onnx');
    patchGraph(ragged, { layers: [0], expose: 'last-attended' });
    const session = await createSession(encodeOnnxModel(ragged), { threads: 1, device: 'cpu', arena: false });
    const ids = (values: readonly number[]) => new Tensor('int64', BigInt64Array.from(values, BigInt), [2, 4]);
    const feeds = {
      input_ids: ids([5, 6, 7, 0, 5, 6, 7, 8]),
      attention_mask: ids([1, 1, 1, 0, 1, 1, 1, 1]),
      position_ids: ids([0, 1, 2, 3, 0, 1, 2, 3]),
    };
    const outputs = await session.run(feeds);
    await session.release();
    const whole = readFixture('optimum.onnx');
    patchGraph(whole, { layers: [0], expose: 'all' });
    const other = await createSession(encodeOnnxModel(whole), { threads: 1, device: 'cpu', arena: false });
    const stream = (await other.run(feeds))['residual.0'].data as Float32Array;
    await other.release();
    const expected = [...stream.slice(2 * HIDDEN, 3 * HIDDEN), ...stream.slice(7 * HIDDEN)];
    expect([...(outputs['residual.0'].data as Float32Array)]).toEqual(expected);
  });
});

describe('patchGraph', () => {
  it('gives halves to a half-precision stream and refuses what they cannot hold', () => {
    const half = (values: Float32Array): PatchRequest => ({
      layers: [0],
      steer: { recipe: 'branch', operand: () => ({ kind: 'constant', values }) },
    });
    const model = readFixture('genai-f16.onnx');
    expect(patchGraph(model, half(VECTOR)).layers[0]).toMatchObject({ type: 'float16', steering: 'steer.0' });
    expect(graphOf(model).initializer.at(-1)).toMatchObject({ name: 'steer.0', dataType: 10, dims: [32n] });
    const large = new Float32Array(HIDDEN).fill(7e4);
    expect(() => patchGraph(readFixture('genai-f16.onnx'), half(large))).toThrow(
      /layer 0: value 0 is 70000, beyond the largest float16/,
    );
    large.fill(Number.NaN);
    expect(() => patchGraph(readFixture('genai-f16.onnx'), half(large))).toThrow(/value 0 is NaN/);
  });

  it('refuses other layers, other sizes, a second patch, and a bias that runtimes ignore', () => {
    const constant = (values: Float32Array, recipe: SteeringRecipe = 'branch', layer = 0): PatchRequest => ({
      layers: [layer],
      steer: { recipe, operand: () => ({ kind: 'constant', values }) },
    });
    expect(() => patchGraph(readFixture('genai.onnx'), constant(VECTOR, 'branch', 2))).toThrow(/blocks 0 to 1/);
    expect(() => patchGraph(readFixture('genai.onnx'), constant(new Float32Array(31)))).toThrow(
      /32 values a position, the vector 31/,
    );
    expect(() => patchGraph(fuseSkipNorms(readFixture('genai.onnx')), constant(VECTOR, 'bias'))).toThrow(
      /ignore the bias/,
    );
    const model = readFixture('genai.onnx');
    patchGraph(model, input('branch'));
    expect(() => patchGraph(copyOf(model), input('branch'))).toThrow(/was patched before/);
    expect(() => patchGraph(readFixture('genai.onnx'), { layers: [0], tensors: ['absent'], expose: 'all' })).toThrow(
      /no node of the graph gives/,
    );
  });

  it('steers a tensor that the user names', async () => {
    const found = readFixture('genai.onnx');
    patchGraph(found, input('sum', { layers: [0] }));
    const named = readFixture('genai.onnx');
    patchGraph(named, input('sum', { layers: [0], tensors: ['/Add_24'] }));
    expect((await runGraph(named, [0]))('logits')).toEqual((await runGraph(found, [0]))('logits'));
  });

  it('takes weights off the inputs of an old file before an input gets a default', () => {
    const model = readFixture('genai.onnx');
    model.irVersion = 3n;
    const graph = graphOf(model);
    const inputs = graph.input.length;
    for (const { name } of graph.initializer) graph.input.push(onnxValueInfo(name, 1));
    allowDefaultInputs(model);
    expect(model.irVersion).toBe(4n);
    expect(graph.input).toHaveLength(inputs);
  });
});

describe('provePatch', () => {
  it('holds the patched graph and its witness against the original', async () => {
    const open = () => scramble(fuseSkipNorms(readFixture('genai.onnx')));
    const patched = open();
    patchGraph(patched, {
      ...input('branch'),
      steer: { recipe: 'branch', operand: () => ({ kind: 'input', default: 'zero' }) },
    });
    const witness = open();
    const { layers } = patchGraph(witness, input('branch'));
    const proof = await provePatch({
      original: write('original.onnx', open()),
      patched: write('patched.onnx', patched),
      witness: write('witness.onnx', witness),
      layers: layers.map(({ layer, output, elementType }) => ({ layer, output: output ?? '', elementType })),
      constant: false,
      tokens: TOKENS,
      seed: 1,
      threads: 1,
    });
    expect(proof.zero_steering).toMatchObject({ bit_identical: true, outputs: 5 });
    for (const layer of proof.layers) {
      expect(layer.max_error_ulp).toBeLessThanOrEqual(2);
      expect(layer.earlier_positions_identical).toBe(true);
      expect(layer.logits_max_abs_change).toBeGreaterThan(0.01);
    }
    expect(proof.cached_step?.max_abs_difference).toBeLessThan(2e-5);
  });
});
