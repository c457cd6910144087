import { describe, expect, it } from 'vitest';
import { maskName } from '../../src/models/attention-graph.js';
import { createEngine } from '../../src/models/engine.js';
import { composeRange } from '../../src/models/layer-graph.js';
import { openModelFiles } from '../../src/models/model-files.js';
import { ropeFrequencies, ropeTables } from '../../src/models/rope.js';
import { createSession, floatsOf, tensorOf } from '../../src/models/sessions.js';
import { createWeightReader } from '../../src/models/weights.js';

const LENGTH = 12;
const IDS = Int32Array.from({ length: LENGTH }, (_, i) => (i * 7 + 3) % 60);

describe.each(['llama-biases', 'qwen2-moe-shared', 'gpt2'])('a graph over all layers of %s', (name) => {
  it('gives the streams of the engine that runs layer by layer, with every tap and an intervention', async () => {
    const files = openModelFiles(`fixtures/architectures/${name}`);
    const { description: model, weights } = files;
    const vector = new Float64Array(model.hiddenSize).map((_, i) => Math.sin(i));
    const engine = await createEngine(files, {
      threads: 1,
      maxMemoryBytes: 2 ** 31,
      device: 'cpu',
      precision: 'f64',
      context: LENGTH,
    });
    const streams: Float64Array[] = [];
    await engine.forward({
      windows: [IDS],
      interventions: [{ layer: 0, kind: 'add', vector, scale: 0.5, positions: (_, position) => position >= 4 }],
      onResidual: (_, groups) => {
        streams.push(Float64Array.from(groups[0].stream));
      },
    });

    const bytes = composeRange({
      layers: model.layers,
      prefix: (k) => `layers.${k}.`,
      hiddenSize: model.hiddenSize,
      norm: model.norm,
      ropes: model.ropes,
      linearLayout: model.linearLayout,
      float: 'f64',
      taps: ['attention_probabilities', 'mlp_input'],
      residuals: true,
      interventions: new Map([[0, ['add']]]),
    });
    const session = await createSession(bytes, { threads: 1, device: 'cpu', arena: true, precision: 'f64' });
    const reader = createWeightReader(1);
    const feeds: Record<string, ReturnType<typeof tensorOf>> = {
      resid: tensorOf(streams[0], [1, LENGTH, model.hiddenSize]),
      'layers.0.steer.0.vector': tensorOf(vector, [model.hiddenSize]),
      'layers.0.steer.0.scale': tensorOf(Float64Array.of(0.5), [1]),
      'layers.0.steer.0.mask': tensorOf(
        Float64Array.from(IDS, (_, position) => (position >= 4 ? 1 : 0)),
        [LENGTH, 1],
      ),
    };
    model.ropes.forEach((rope, r) => {
      const { cos, sin } = ropeTables(ropeFrequencies(rope, LENGTH), 0, LENGTH, 'f64');
      feeds[`rope.${r}.cos`] = tensorOf(cos, [1, LENGTH, rope.dims / 2]);
      feeds[`rope.${r}.sin`] = tensorOf(sin, [1, LENGTH, rope.dims / 2]);
    });
    model.layers.forEach((layer, k) => {
      const { kvHeads, headDim, window } = layer.attention;
      for (const [role, weight] of weights.layers[k]) {
        const data = new Float64Array(weight.shape.reduce((a, b) => a * b, 1));
        reader.read(weight, data);
        feeds[`layers.${k}.${role}`] = tensorOf(data, weight.shape);
      }
      for (const part of ['past_k', 'past_v']) {
        feeds[`layers.${k}.${part}`] = tensorOf(new Float64Array(0), [1, kvHeads, 0, headDim]);
      }
      const mask = Uint8Array.from({ length: LENGTH * LENGTH }, (_, i) => {
        const distance = Math.floor(i / LENGTH) - (i % LENGTH);
        return distance >= 0 && distance < (window ?? LENGTH) ? 1 : 0;
      });
      feeds[maskName(window)] = tensorOf(mask, [LENGTH, LENGTH]);
    });
    const outputs = await session.run(feeds);
    model.layers.forEach((_, k) => {
      const found = floatsOf(outputs[`layers.${k}.resid`]);
      streams[k + 1].forEach((value, i) => {
        expect(Math.abs(found[i] - value)).toBeLessThan(1e-11);
      });
      expect(outputs[`layers.${k}.attention_probabilities`]).toBeDefined();
      expect(outputs[`layers.${k}.mlp_input`]).toBeDefined();
    });
    expect(floatsOf(outputs.resid_out)).toEqual(floatsOf(outputs[`layers.${model.layers.length - 1}.resid`]));
    await engine.close();
    await session.release();
  });
});
