import { toBinary } from '@bufbuild/protobuf';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { ModelProtoSchema } from '../../src/formats/onnx_pb.js';
import { ACTIVATIONS, isNetworkText, parseNetwork } from '../../src/training/network-text.js';
import { composeNetwork } from '../../src/training/networks.js';

async function logitsOf(text: string, dims: readonly number[], rows: number, features: Float32Array, seed = 3) {
  const network = composeNetwork(parseNetwork(text), { dims, classes: 3, seed });
  const session = await InferenceSession.create(toBinary(ModelProtoSchema, network.model));
  const given = await session.run({ features: new Tensor('float32', features, [rows, ...dims]) });
  await session.release();
  return { network, logits: given.logits.data as Float32Array, hidden: given.hidden };
}

const stored = (network: Awaited<ReturnType<typeof logitsOf>>['network'], name: string): Float32Array => {
  const tensor = network.model.graph?.initializer.find((candidate) => candidate.name === name);
  if (!tensor) throw new Error(`no ${name}`);
  return new Float32Array(tensor.rawData.slice().buffer);
};

const FEATURES = Float32Array.from({ length: 2 * 36 }, (_, i) => Math.sin(i * 1.7));

describe('networks', () => {
  it('reads the short text', () => {
    const design = parseNetwork('mlp:400-200,gelu,dropout=0.3,init=kaiming');
    expect(design).toMatchObject({ kind: 'mlp', hidden: [400, 200], dropout: 0.3, initialisation: 'kaiming' });
    expect(design.activation).toBe(ACTIVATIONS.gelu);
    expect(parseNetwork('cnn:8-16,pool=average,head=flatten,hidden=32')).toMatchObject({
      channels: [8, 16],
      hidden: [32],
      pool: 'average',
      head: 'flatten',
    });
    expect(parseNetwork('linear').hidden).toEqual([]);
    expect(isNetworkText('mlp:3')).toBe(true);
    expect(isNetworkText('teacher.onnx')).toBe(false);
  });

  it.each([
    ['mlp:0', 'no width'],
    ['mlp:8,rleu', 'did you mean "relu"'],
    ['mlp:8,dropout=1', 'not within'],
    ['mlp:8,kernel=3', 'no setting of mlp'],
    ['cnn:8,kernel=2', 'not odd'],
    ['cnn:8,pool=mux', 'did you mean "max"'],
    ['mpl:8', 'did you mean "mlp"'],
    ['mlp:8,relu,tanh', 'given twice'],
  ])('refuses %s', (text, message) => {
    expect(() => parseNetwork(text)).toThrow(message);
  });

  it('is the network that its text says', async () => {
    const { network, logits } = await logitsOf('mlp:4,crrelu', [6], 2, FEATURES.slice(0, 12));
    expect(network.parameters).toEqual([
      'layers.0.weight',
      'layers.0.bias',
      'layers.0.epsilon',
      'head.weight',
      'head.bias',
    ]);
    const [w, b, [epsilon], v, c] = network.parameters.map((name) => stored(network, name));
    expect(network.weights).toBe(4 * 6 + 4 + 1 + 3 * 4 + 3);
    expect(Math.max(...w.map(Math.abs))).toBeLessThanOrEqual(1 / Math.sqrt(6));
    for (let r = 0; r < 2; r++) {
      const hidden = Array.from({ length: 4 }, (_, u) => {
        let x = b[u];
        for (let i = 0; i < 6; i++) x += w[u * 6 + i] * FEATURES[r * 6 + i];
        return Math.max(0, x) + epsilon * x * Math.exp((-x * x) / 2);
      });
      for (let k = 0; k < 3; k++) {
        const expected = hidden.reduce((sum, h, u) => sum + v[k * 4 + u] * h, c[k]);
        expect(logits[r * 3 + k]).toBeCloseTo(expected, 5);
      }
    }
  });

  it('runs every activation, images, and does nothing to what dropout sees outside training', async () => {
    for (const name of Object.keys(ACTIVATIONS)) {
      const { logits } = await logitsOf(`cnn:4-5,${name},hidden=7,dropout=0.5`, [1, 6, 6], 2, FEATURES);
      const again = await logitsOf(`cnn:4-5,${name},hidden=7`, [1, 6, 6], 2, FEATURES);
      expect(logits).toEqual(again.logits);
      expect(logits.every(Number.isFinite)).toBe(true);
    }
    const flat = await logitsOf('cnn:4,head=flatten', [1, 6, 6], 2, FEATURES);
    expect(flat.hidden.dims).toEqual([2, 36]);
    const linear = await logitsOf('linear', [36], 2, FEATURES);
    expect(linear.hidden.data).toEqual(FEATURES);
  });

  it('draws by the seed, each tensor from a stream of its own', () => {
    const weights = (text: string, seed: number): Uint8Array[] =>
      composeNetwork(parseNetwork(text), { dims: [6], classes: 3, seed }).model.graph?.initializer.map(
        ({ rawData }) => rawData,
      ) ?? [];
    expect(weights('mlp:4', 1)).toEqual(weights('mlp:4', 1));
    expect(weights('mlp:4', 1)[0]).not.toEqual(weights('mlp:4', 2)[0]);
    expect(weights('mlp:4', 1)[0]).toEqual(weights('mlp:4-5', 1)[0]);
  });

  it('says what does not fit', () => {
    expect(() => composeNetwork(parseNetwork('cnn:4'), { dims: [36], classes: 3, seed: 0 })).toThrow('reads images');
    expect(() => composeNetwork(parseNetwork('cnn:4-4-4'), { dims: [1, 6, 6], classes: 3, seed: 0 })).toThrow(
      'fewer stages',
    );
  });
});
