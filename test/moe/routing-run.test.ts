import { afterAll, describe, expect, it } from 'vitest';
import { openSafetensors } from '../../src/formats/safetensors.js';
import { widenToF64 } from '../../src/kernels/dtypes.js';
import { openInThread } from '../../src/models/engine-in-thread.js';
import { openModelFiles } from '../../src/models/model-files.js';
import { MEASURE_ROUTING, routerHeads } from '../../src/moe/routing-job.js';
import { routingMeasures } from '../../src/moe/routing-measures.js';
import {
  addRoutedDocument,
  createRoutingRun,
  mergeRoutingRuns,
  type RoutingRun,
  routingIntervals,
  routingRunFromJson,
  routingRunToJson,
  routingTotals,
} from '../../src/moe/routing-run.js';
import { createRoutingSums } from '../../src/moe/routing-statistics.js';
import type { RoutingStatistics } from '../../src/moe/types.js';
import { createRandom } from '../../src/random.js';

const HEADS = [
  { layer: 1, experts: 4, topK: 2, score: 'softmax' },
  { layer: 3, experts: 6, topK: 2, score: 'softmax' },
] as const;
const RULE = { score: 'softmax', topK: 2, normalizeTopK: true } as const;

/** Logits of documents of different lengths, one of them empty. */
const DOCUMENTS = [7, 1, 0, 30, 12, 5, 19].map((tokens, d) => {
  const random = createRandom(100n + BigInt(d));
  return HEADS.map(({ experts }) => Float64Array.from({ length: tokens * experts }, () => 2 * random.normal()));
});

function statisticsOf(logits: readonly Float64Array[]): RoutingStatistics[] {
  return HEADS.map(({ layer, experts }, place) => {
    const sums = createRoutingSums(layer, experts, RULE, { grams: false });
    sums.add(logits[place], logits[place].length / experts);
    return sums.finish();
  });
}

function runOf(indices: readonly number[]): RoutingRun {
  const run = createRoutingRun(HEADS);
  for (const index of indices) addRoutedDocument(run, index, statisticsOf(DOCUMENTS[index]));
  run.documentsRead = indices.length;
  return run;
}

describe('a run over documents', () => {
  const whole = runOf([0, 1, 2, 3, 4, 5, 6]);

  it('has the sums of all tokens at once', () => {
    const all = statisticsOf(
      HEADS.map((_, place) => Float64Array.from(DOCUMENTS.flatMap((document) => [...document[place]]))),
    );
    routingTotals(whole).forEach((totals, place) => {
      const expected = routingMeasures(all[place]);
      const found = routingMeasures(totals);
      expect(totals.tokens).toBe(74);
      expect(totals.coActivation).toEqual(all[place].coActivation);
      expect(totals.entropyHistogram).toEqual(all[place].entropyHistogram);
      for (const [name, value] of Object.entries(found)) {
        expect(value).toBeCloseTo(expected[name as keyof typeof expected], 12);
      }
    });
  });

  it('unites from any deal of its documents to the same bits', () => {
    const parts = [runOf([2, 5]), runOf([0, 3, 6]), runOf([1, 4])];
    const merged = mergeRoutingRuns(
      parts.map((part) => routingRunFromJson(JSON.parse(JSON.stringify(routingRunToJson(part))))),
    );
    expect(routingTotals(merged)).toEqual(routingTotals(whole));
    expect(routingIntervals(merged, 5)).toEqual(routingIntervals(whole, 5));
    expect(merged.documentsRead).toBe(7);
  });

  it('has intervals around its figures, and none for one document', () => {
    const intervals = routingIntervals(whole, 1);
    const totals = routingTotals(whole);
    intervals?.layers.forEach((layer, place) => {
      const figures = routingMeasures(totals[place]);
      const { low, high, se } = layer.mean_token_entropy ?? { low: Number.NaN, high: Number.NaN, se: Number.NaN };
      expect(low).toBeLessThan(figures.mean_token_entropy);
      expect(high).toBeGreaterThan(figures.mean_token_entropy);
      expect(se).toBeGreaterThan(0);
    });
    expect(intervals?.units).toBe(6);
    expect(routingIntervals(runOf([3]), 1)).toBeUndefined();
  });
});

describe('the routers of a model', () => {
  const opened: { close(): Promise<void> }[] = [];
  afterAll(() => Promise.all(opened.map((host) => host.close())));

  it.each(['mixtral', 'olmoe', 'qwen2-moe-shared'])('%s are measured as transformers sees them', async (name) => {
    const path = `fixtures/architectures/${name}`;
    const golden = openSafetensors(`${path}/golden.safetensors`);
    const read = (tensor: string): Float64Array => {
      const info = golden.tensors.get(tensor);
      if (!info) throw new Error(tensor);
      const bytes = new Uint8Array(info.byteLength);
      golden.readInto(info, 0, bytes.length, bytes);
      const values = new Float64Array(info.shape.reduce((a, b) => a * b));
      widenToF64(bytes, info.dtype as 'F32', values);
      return values;
    };
    const ids = Int32Array.from(read('input_ids'));
    const host = await openInThread(path, {
      maxMemoryBytes: 2 ** 31,
      device: 'cpu',
      context: 64,
      threads: 2,
      precision: 'f32',
      plan: { rowsPerRun: 16 },
    });
    opened.push(host);
    const files = openModelFiles(path);
    const heads = routerHeads(files.description, path);
    files.store.close();
    const short = ids.subarray(0, 9);
    const { statistics, tokens, coActivation } = await host.run(MEASURE_ROUTING, {
      windows: [ids, short],
      wanted: [
        [0, ids.length],
        [2, 9],
      ],
      tokens: true,
    });
    heads.forEach((head, place) => {
      const logits = read(`router_logits.${place}`);
      const { experts, topK } = head;
      const sums = createRoutingSums(head.layer, experts, { score: 'softmax', topK, normalizeTopK: true });
      sums.add(logits, ids.length);
      const expected = routingMeasures(sums.finish());
      const own = statistics[0][place];
      const both = own.counts.map((count, e) => count + statistics[1][place].counts[e]);
      const pairs = coActivation[place];
      expect(both).toEqual(Float64Array.from({ length: experts }, (_, e) => pairs[e * experts + e]));
      expect(statistics[1][place].tokens).toBe(7);
      for (const key of ['mean_token_entropy', 'usage_entropy', 'gate_mass_entropy', 'router_z_loss'] as const) {
        expect(routingMeasures({ ...own, coActivation: pairs })[key]).toBeCloseTo(expected[key], 4);
      }
      const shown = tokens?.[0][place];
      expect(shown?.count).toBe(ids.length);
      const sum = shown?.entropyNats.reduce((a, b) => a + b, 0);
      expect(sum).toBeCloseTo(own.entropySum, 12);
    });
  });

  it('of a dense model do not exist', () => {
    const files = openModelFiles('fixtures/architectures/qwen3');
    expect(() => routerHeads(files.description, 'qwen3')).toThrow(
      /qwen3: a dense model \(qwen3\): none of its 2 layers/,
    );
    files.store.close();
  });

  it('have no more experts to choose than they have', () => {
    const files = openModelFiles('fixtures/architectures/mixtral');
    expect(() => routerHeads(files.description, 'm', 5)).toThrow('--top-k 5: layer 0 of m has 4 experts');
    files.store.close();
  });
});
