import { describe, expect, it } from 'vitest';
import {
  bodyOfRun,
  bodyOfTotals,
  EXPERT_COLUMNS,
  expertRows,
  layerColumns,
  layerRows,
  mergeRoutingReports,
  PAIR_COLUMNS,
  pairRows,
  type RoutingSetting,
} from '../../src/moe/entropy-report.js';
import type { RoutingTotals } from '../../src/moe/routing-measures.js';
import { drawRouting } from '../../src/moe/routing-plot.js';
import { addRoutedDocument, createRoutingRun, type RouterHead, routingRunToJson } from '../../src/moe/routing-run.js';
import { createRoutingSums } from '../../src/moe/routing-statistics.js';
import { createRandom } from '../../src/random.js';
import { figureSvg } from '../../src/report/plots/figure.js';
import { reportObject, toJsonValue } from '../../src/report/values.js';

const SETTING: RoutingSetting = {
  source: 'model',
  unit: 'nats',
  seed: 3,
  convention: null,
  modelType: 'mixtral',
  maskedTokens: 0,
};

function totalsOf(layer: number, experts: number, topK: number, tokens = 30, seed = 1n): RoutingTotals {
  const random = createRandom(seed);
  const sums = createRoutingSums(layer, experts, { score: 'softmax', topK, normalizeTopK: true }, { grams: false });
  sums.add(
    Float64Array.from({ length: tokens * experts }, () => random.normal()),
    tokens,
  );
  return sums.finish();
}

describe('the report of routing', () => {
  it('sums usage over the experts of before that became one', () => {
    const totals = {
      ...totalsOf(0, 6, 2),
      counts: Float64Array.of(10, 20, 10, 5, 10, 5),
      expertMap: [0, 1, 0, -1, 1, 1],
    };
    const [{ merged }] = bodyOfTotals([totals], SETTING).by_layer;
    expect([...(merged?.usage_counts ?? [])]).toEqual([20, 35]);
    expect(merged?.dropped_share).toBeCloseTo(5 / 60, 15);
    const entropy = -(20 / 55) * Math.log(20 / 55) - (35 / 55) * Math.log(35 / 55);
    expect(merged?.measures.usage_entropy_nats).toBeCloseTo(entropy, 14);
    expect(merged?.measures.effective_experts_usage).toBeCloseTo(Math.exp(entropy), 13);
    expect(bodyOfTotals([totalsOf(0, 6, 2)], SETTING).by_layer[0].merged).toBeUndefined();
  });

  it('names units, and turns entropies and their errors alike', () => {
    const totals = [totalsOf(0, 6, 2)];
    const [nats] = bodyOfTotals(totals, SETTING).by_layer;
    const [bits] = bodyOfTotals(totals, { ...SETTING, unit: 'bits' }).by_layer;
    for (const [key, value] of Object.entries(nats.measures)) {
      const scale = key.includes('_nats') ? 1 / Math.LN2 : 1;
      expect(bits.measures[key.replace('_nats', '_bits')]).toBeCloseTo(value * scale, 13);
    }
    expect(nats.measures).toHaveProperty('usage_entropy_nats_se');
    expect(bits.measures).not.toHaveProperty('usage_entropy_nats');
  });

  it('has tables as wide as their headers', () => {
    const totals = [totalsOf(0, 6, 2), totalsOf(2, 4, 2)];
    const body = bodyOfTotals(totals, SETTING);
    const rows = [...layerRows(body)];
    expect(rows.map((row) => row.length)).toEqual([layerColumns('nats').length, layerColumns('nats').length]);
    expect([...expertRows(body)]).toHaveLength(10);
    expect([...expertRows(body)][0]).toHaveLength(EXPERT_COLUMNS.length);
    expect([...pairRows(totals)]).toHaveLength(15 + 6);
    expect([...pairRows(totals)][0]).toHaveLength(PAIR_COLUMNS.length);
  });

  it('unites from parts, maps of merged experts and all', () => {
    const heads: RouterHead[] = [{ layer: 1, experts: 4, topK: 2, score: 'softmax', expertMap: [0, 1, 1, 0] }];
    const run = (documents: readonly number[]) => {
      const made = createRoutingRun(heads);
      for (const d of documents) addRoutedDocument(made, d, [totalsOf(1, 4, 2, 5 + d, BigInt(d))]);
      made.documentsRead = documents.length;
      return made;
    };
    const plain = (body: object): unknown => toJsonValue(reportObject(body));
    const part = (documents: readonly number[]) => ({
      report: { ...(plain(bodyOfRun(run(documents), SETTING, true)) as object), parameters: { seed: 3 } },
      partial: JSON.parse(JSON.stringify(routingRunToJson(run(documents)))) as unknown,
    });
    const whole = plain(bodyOfRun(run([0, 1, 2, 3]), SETTING, true));
    expect(toJsonValue(mergeRoutingReports([part([1, 3]), part([0, 2])]))).toEqual(whole);
    expect(whole).toHaveProperty('by_layer[0].merged.experts', 2);
  });
});

describe('the figure of routing', () => {
  it('is drawn for layers of different size, merged layers, top-1 routers and many layers', async () => {
    const ragged = [totalsOf(0, 6, 2), { ...totalsOf(3, 4, 2), expertMap: [0, 0, 1, 1] }];
    const svg = figureSvg(await drawRouting(bodyOfTotals(ragged, SETTING), 'ragged'));
    expect(svg).toContain('usage of merged experts');
    expect(svg).toContain('Experts chosen together, layer 3');
    const top1 = figureSvg(await drawRouting(bodyOfTotals([totalsOf(0, 6, 1)], SETTING), 'top-1'));
    expect(top1).not.toContain('chosen together');
    const many = Array.from({ length: 9 }, (_, layer) => totalsOf(layer, 5, 2, 20, BigInt(layer)));
    expect(figureSvg(await drawRouting(bodyOfTotals(many, SETTING), 'many'))).toContain('Histogram of every layer');
  });

  it('of a shard without tokens says that there is nothing', async () => {
    const body = bodyOfTotals([totalsOf(0, 4, 2, 0)], SETTING);
    expect(figureSvg(await drawRouting(body, 'nothing'))).toContain('no tokens to count');
  });
});
