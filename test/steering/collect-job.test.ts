import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { EngineHost } from '../../src/models/engine-host.js';
import { openInThread } from '../../src/models/engine-in-thread.js';
import { COLLECT_ACTIVATIONS, type CollectArguments, MEASURE_CHOICES } from '../../src/steering/collect-job.js';

let host: EngineHost;
beforeAll(async () => {
  host = await openInThread('fixtures/models/llama-sotu', {
    threads: 2,
    maxMemoryBytes: 2 ** 33,
    device: 'cpu',
    precision: 'f32',
    context: 256,
  });
});
afterAll(() => host.close());

const LAYERS = [-1, 1, 3];
const WIDTH = 128;
const TEXT = Int32Array.from({ length: 60 }, (_, i) => (i * 37 + 5) % 1024);
/** Three steps that extend each other, one that differs early, one token alone. */
const RUN = [TEXT.slice(0, 20), TEXT.slice(0, 41), TEXT, Int32Array.of(...TEXT.slice(0, 7), 9, 8, 7), TEXT.slice(0, 1)];

const request = (more: Partial<CollectArguments> = {}): CollectArguments => ({
  prompts: RUN,
  names: RUN.map((_, i) => `step ${i}`),
  layers: LAYERS,
  read: -1,
  run: true,
  ...more,
});

describe('activations of prompts', () => {
  it('are the same for a run as for prompts apart, and cost one long pass', async () => {
    const run = await host.run(COLLECT_ACTIVATIONS, request());
    const apart = await host.run(COLLECT_ACTIVATIONS, request({ run: false }));
    expect(run.tokensRead).toBeLessThan(80);
    expect(apart.tokensRead).toBe(132);
    apart.rows.forEach((value, i) => {
      expect(Math.abs(run.rows[i] - value)).toBeLessThan(2e-4);
    });
  });

  it('are those that the layers give at the token that is asked for', async () => {
    const mean = await host.run(COLLECT_ACTIVATIONS, request({ read: 'mean' }));
    const second = await host.run(COLLECT_ACTIVATIONS, request({ prompts: RUN.slice(0, 3), read: -2 }));
    const first = await host.run(COLLECT_ACTIVATIONS, request({ read: 0 }));
    const tokens = await host.run(
      COLLECT_ACTIVATIONS,
      request({
        prompts: Array.from({ length: 20 }, (_, i) => TEXT.slice(0, i + 1)),
        names: RUN.map(String),
        read: -1,
      }),
    );
    const size = LAYERS.length * WIDTH;
    for (let i = 0; i < size; i++) {
      let sum = 0;
      for (let t = 0; t < 20; t++) sum += tokens.rows[t * size + i] / 20;
      expect(Math.abs(mean.rows[i] - sum)).toBeLessThan(2e-4);
      expect(Math.abs(second.rows[i] - tokens.rows[18 * size + i])).toBeLessThan(2e-4);
      expect(Math.abs(first.rows[i] - first.rows[size + i])).toBeLessThan(2e-4);
    }
  });

  it('name the prompt that cannot be read', async () => {
    const refused = (more: Partial<CollectArguments>) => expect(host.run(COLLECT_ACTIVATIONS, request(more))).rejects;
    await refused({ read: -5 }).toThrow('--read-token -5: step 4 has 1 tokens');
    await refused({ prompts: [new Int32Array(0)] }).toThrow('step 0: the prompt has no tokens');
    await refused({ prompts: [new Int32Array(257)] }).toThrow(
      'step 0: the prompt has 257 tokens, the model 256 positions',
    );
    await refused({ layers: [4] }).toThrow('layer 4: the model has blocks 0 to 3');
  });
});

describe('choices of a model', () => {
  it('have an exact entropy, and a sampled one near it', async () => {
    const prompts = RUN.slice(0, 2);
    const actions = [Int32Array.of(11), Int32Array.of(13), Int32Array.of(17)];
    const exact = await host.run(MEASURE_CHOICES, {
      prompts,
      places: [0, 1],
      choice: { thought: Int32Array.of(3), actions },
    });
    expect(exact.map(({ counts }) => counts)).toEqual([undefined, undefined]);
    for (const { entropyNats } of exact) {
      expect(entropyNats).toBeGreaterThan(0);
      expect(entropyNats).toBeLessThan(Math.log(3));
    }
    const sampling = {
      samples: 6,
      plan: { steps: [] },
      pattern: { source: '(a|e)', actions: ['a', 'e'] },
      maxNewTokens: 6,
      seed: 1,
    };
    const both = await host.run(MEASURE_CHOICES, { prompts, places: [0, 1], sampling });
    const second = await host.run(MEASURE_CHOICES, { prompts: prompts.slice(1), places: [1], sampling });
    // A prompt's random numbers follow from its place in the data.
    expect(second[0]).toEqual(both[1]);
    expect(both[0].counts?.length).toBe(2);
  });
});
