import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { encodeNpy } from '../../src/formats/npy.js';
import { encodeSafetensors } from '../../src/formats/safetensors-writer.js';
import { bodyOfRun } from '../../src/moe/entropy-report.js';
import { type RoutingTotals, routingMeasures } from '../../src/moe/routing-measures.js';
import { routingTotals } from '../../src/moe/routing-run.js';
import { createRoutingSums } from '../../src/moe/routing-statistics.js';
import { measureStoredRouting, type StoredRoutingArguments, type StoredTokens } from '../../src/moe/stored-routing.js';
import type { RouterRule } from '../../src/moe/types.js';
import { createRandom } from '../../src/random.js';
import { temporaryFolder } from '../formats/collect.js';

const folder = temporaryFolder();
const [LAYERS, TOKENS, EXPERTS] = [3, 40, 6];
const random = createRandom(5n);
const LOGITS = Float64Array.from({ length: LAYERS * TOKENS * EXPERTS }, () => 1.5 * random.normal());
const MASK = Float64Array.from({ length: TOKENS }, (_, t) => (t % 7 === 3 ? 0 : 1));
const BIAS = Float64Array.of(0.3, 0, -0.2, 0, 0.1, 0);
const COMMON = { topK: 2, score: 'softmax', countPadding: false, tokens: false, threads: 2 } as const;
const layerLogits = (layer: number): Float64Array =>
  LOGITS.subarray(layer * TOKENS * EXPERTS, (layer + 1) * TOKENS * EXPERTS);

function write(name: string, bytes: Uint8Array | string): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

function tensors(name: string, list: Record<string, { data: Float64Array; shape: number[] }>): string {
  return write(
    name,
    encodeSafetensors(
      Object.entries(list).map(([key, { data, shape }]) => ({ name: key, dtype: 'F64' as const, shape, data })),
    ),
  );
}

function expected(rule: Partial<RouterRule> = {}, valid?: Float64Array): RoutingTotals[] {
  return Array.from({ length: LAYERS }, (_, layer) => {
    const whole: RouterRule = { score: 'softmax', topK: 2, normalizeTopK: true, ...rule };
    const sums = createRoutingSums(layer, EXPERTS, whole, { grams: false });
    sums.add(layerLogits(layer), TOKENS, valid ? { valid } : {});
    return sums.finish();
  });
}

async function measured(args: Partial<StoredRoutingArguments>): Promise<RoutingTotals[]> {
  const { run } = await measureStoredRouting({ ...COMMON, ...args }, () => undefined);
  return routingTotals(run);
}

function expectEqual(found: readonly RoutingTotals[], wanted: readonly RoutingTotals[]): void {
  expect(found.map(({ counts }) => [...counts])).toEqual(wanted.map(({ counts }) => [...counts]));
  found.forEach((totals, place) => {
    const own = routingMeasures(totals);
    for (const [name, value] of Object.entries(routingMeasures(wanted[place]))) {
      expect(own[name as keyof typeof own]).toBeCloseTo(value, 10);
    }
  });
}

const fails = (args: Partial<StoredRoutingArguments>): Promise<unknown> =>
  measureStoredRouting({ ...COMMON, ...args }, () => undefined);

describe('stored router logits', () => {
  const npy = write('logits.npy', encodeNpy(LOGITS, [LAYERS, TOKENS, EXPERTS]));

  it('are read as [layers, tokens, experts], whatever lies between the first and last axis', async () => {
    expectEqual(await measured({ logits: npy }), expected());
    const batched = write('batched.npy', encodeNpy(LOGITS, [LAYERS, 4, TOKENS / 4, EXPERTS]));
    expectEqual(await measured({ logits: batched }), expected());
  });

  it('of one layer may have two axes', async () => {
    const path = write('one.npy', encodeNpy(layerLogits(0), [TOKENS, EXPERTS]));
    expectEqual(await measured({ logits: path }), expected().slice(0, 1));
  });

  it('may be a tensor a layer, numbered by their names', async () => {
    const list = [10, 2, 7].map((layer, place) => [
      `router_logits.${layer}`,
      { data: layerLogits([2, 0, 1][place]), shape: [TOKENS, EXPERTS] },
    ]);
    const path = tensors('layers.safetensors', Object.fromEntries(list));
    const found = await measured({ logits: path });
    expect(found.map(({ layer }) => layer)).toEqual([2, 7, 10]);
    expectEqual(found, expected());
  });

  it('leave out what a mask beside them leaves out, unless padding counts', async () => {
    const path = tensors('masked.safetensors', {
      router_logits: { data: LOGITS, shape: [LAYERS, TOKENS, EXPERTS] },
      attention_mask: { data: MASK, shape: [TOKENS] },
    });
    expectEqual(await measured({ logits: path }), expected({}, MASK));
    expectEqual(await measured({ logits: path, countPadding: true }), expected());
    const mask = write('mask.npy', encodeNpy(MASK, [TOKENS]));
    expectEqual(await measured({ logits: npy, mask }), expected({}, MASK));
    const { maskedTokens } = await measureStoredRouting({ ...COMMON, logits: path }, () => undefined);
    expect(maskedTokens).toBe(6);
  });

  it('of sigmoid routers are chosen by the bias and weighted without', async () => {
    const correctionBias = write('bias.npy', encodeNpy(BIAS, [EXPERTS]));
    const found = await measured({ logits: npy, score: 'sigmoid', correctionBias });
    expectEqual(found, expected({ score: 'sigmoid', correctionBias: BIAS }));
    const each = write('biases.npy', encodeNpy(Float64Array.of(...BIAS, ...BIAS, ...BIAS), [LAYERS, EXPERTS]));
    expectEqual(await measured({ logits: npy, score: 'sigmoid', correctionBias: each }), found);
  });

  it('show every token that counts, at its place', async () => {
    const mask = write('mask2.npy', encodeNpy(MASK, [TOKENS]));
    const shown: StoredTokens[] = [];
    const args = { ...COMMON, logits: npy, mask, tokens: true };
    const { run } = await measureStoredRouting(args, (value) => {
      const { shown: own } = value as { shown?: StoredTokens };
      if (own) shown.push(own);
    });
    expect(shown.map(({ layer }) => layer)).toEqual([0, 1, 2]);
    const [{ tokens }] = shown;
    const valid = [...MASK.keys()].filter((t) => MASK[t] === 1);
    expect([...tokens.positions.subarray(0, tokens.count)]).toEqual(valid);
    const sum = tokens.entropyNats.subarray(0, tokens.count).reduce((a, b) => a + b, 0);
    expect(sum).toBeCloseTo(routingTotals(run)[0].entropySum, 12);
    expect(tokens.weights[0] + tokens.weights[1]).toBeCloseTo(1, 12);
  });
});

describe('stored hidden states', () => {
  it('give the logits of the router', async () => {
    const hidden = 5;
    const states = Float64Array.from({ length: LAYERS * TOKENS * hidden }, () => random.normal());
    const router = Float64Array.from({ length: LAYERS * EXPERTS * hidden }, () => random.normal());
    const logits = new Float64Array(LAYERS * TOKENS * EXPERTS);
    for (let l = 0; l < LAYERS; l++) {
      for (let t = 0; t < TOKENS; t++) {
        for (let e = 0; e < EXPERTS; e++) {
          for (let h = 0; h < hidden; h++) {
            const state = states[(l * TOKENS + t) * hidden + h];
            logits[(l * TOKENS + t) * EXPERTS + e] += state * router[(l * EXPERTS + e) * hidden + h];
          }
        }
      }
    }
    const stored = await measured({ logits: write('z.npy', encodeNpy(logits, [LAYERS, TOKENS, EXPERTS])) });
    const hiddenStates = write('h.npy', encodeNpy(states, [LAYERS, TOKENS, hidden]));
    const routerWeight = write('w.npy', encodeNpy(router, [LAYERS, EXPERTS, hidden]));
    expectEqual(await measured({ hiddenStates, routerWeight }), stored);
    const narrow = write('w4.npy', encodeNpy(router.subarray(0, LAYERS * EXPERTS * 4), [LAYERS, EXPERTS, 4]));
    await expect(fails({ hiddenStates, routerWeight: narrow })).rejects.toThrow(/the router reads 4 components/);
    const single = write('w1.npy', encodeNpy(router.subarray(0, EXPERTS * hidden), [EXPERTS, hidden]));
    await expect(fails({ hiddenStates, routerWeight: single })).rejects.toThrow('1 routers for 3 layers');
  });
});

describe('lines of router logits', () => {
  const vector = (layer: number, t: number): number[] =>
    Array.from(LOGITS.subarray((layer * TOKENS + t) * EXPERTS, (layer * TOKENS + t + 1) * EXPERTS));
  const lines = (records: readonly object[]): string => records.map((record) => JSON.stringify(record)).join('\n');
  const tokens = [...MASK.keys()];

  it('hold all layers of a token, or one', async () => {
    const all = tokens.map((t) => ({ router_logits: [0, 1, 2].map((layer) => vector(layer, t)), valid: MASK[t] }));
    expectEqual(await measured({ logits: write('all.jsonl', lines(all)) }), expected({}, MASK));
    const single = [2, 0, 1].flatMap((layer) => tokens.map((t) => ({ layer, router_logits: vector(layer, t) })));
    expectEqual(await measured({ logits: write('single.jsonl', lines(single)) }), expected());
  });

  it('may name documents, over which there are intervals then', async () => {
    const named = tokens.map((t) => ({
      document: `d${Math.floor(t / 10)}`,
      router_logits: [vector(0, t), vector(1, t)],
    }));
    const args = { ...COMMON, logits: write('named.jsonl', lines(named)) };
    const { run, documentsKnown } = await measureStoredRouting(args, () => undefined);
    expect(documentsKnown).toBe(true);
    expectEqual(routingTotals(run), expected().slice(0, 2));
    const setting = {
      source: 'logits',
      unit: 'nats',
      seed: 1,
      convention: null,
      modelType: null,
      maskedTokens: 0,
    } as const;
    const body = bodyOfRun(run, setting, true);
    expect(body.documents).toBe(4);
    expect(body.by_layer[0].measures.usage_entropy_nats_document_se).toBeGreaterThan(0);
    expect(bodyOfRun(run, setting, false).by_layer[0].measures.usage_entropy_nats_document_se).toBeUndefined();
    const back = write('back.jsonl', lines([...named, named[0]]));
    await expect(fails({ logits: back })).rejects.toThrow(/back.jsonl:41: document "d0" was ended before/);
  });

  it('that cannot be read are named', async () => {
    const bad = (record: object): Promise<unknown> => {
      return fails({ logits: write('bad.jsonl', lines([{ router_logits: [1, 2, 3] }, record])) });
    };
    await expect(bad({ z: 1 })).rejects.toThrow(/bad.jsonl:2: no field "router_logits"/);
    await expect(bad({ router_logits: [1, 'x', 2] })).rejects.toThrow(/bad.jsonl:2: layer 0: router logits are a list/);
    await expect(bad({ router_logits: [1, 2] })).rejects.toThrow(/bad.jsonl:2: layer 0: 2 logits, 3 before/);
    await expect(bad({ router_logits: [1, 2, 3], layer: -1 })).rejects.toThrow(/"layer" is -1/);
    await expect(fails({ logits: write('empty.jsonl', '\n') })).rejects.toThrow('no line with router logits');
  });
});

describe('files that are refused', () => {
  it('say what is wrong with them', async () => {
    const broken = LOGITS.slice();
    broken[(TOKENS + 3) * EXPERTS + 5] = Number.NaN;
    const nan = write('nan.npy', encodeNpy(broken, [LAYERS, TOKENS, EXPERTS]));
    await expect(fails({ logits: nan })).rejects.toThrow(/nan.npy: layer 1, token 3, expert 5: router logit NaN/);
    const npy = write('good.npy', encodeNpy(LOGITS, [LAYERS, TOKENS, EXPERTS]));
    await expect(fails({ logits: npy, topK: 7 })).rejects.toThrow(/--top-k 7: .*good.npy has 6 experts in layer 0/);
    const mask = write('short.npy', encodeNpy(MASK.subarray(1), [TOKENS - 1]));
    await expect(fails({ logits: npy, mask })).rejects.toThrow(/a mask of 39 tokens, the logits are of 40/);
    const none = write('none.npy', encodeNpy(new Float64Array(TOKENS), [TOKENS]));
    await expect(fails({ logits: npy, mask: none })).rejects.toThrow(/no token counts/);
    const flat = write('flat.npy', encodeNpy(LOGITS, [LOGITS.length]));
    await expect(fails({ logits: flat })).rejects.toThrow(/no tensor of router_logits/);
    const two = tensors('two.safetensors', {
      a: { data: layerLogits(0), shape: [TOKENS, EXPERTS] },
      b: { data: layerLogits(1), shape: [TOKENS, EXPERTS] },
    });
    await expect(fails({ logits: two })).rejects.toThrow(/"a" F64 \[40, 6\] has no layer in its name/);
    const bias = write('bias4.npy', encodeNpy(new Float64Array(4), [4]));
    await expect(fails({ logits: npy, score: 'sigmoid', correctionBias: bias })).rejects.toThrow(/4 correction biases/);
  });
});
