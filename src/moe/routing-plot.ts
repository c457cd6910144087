import type { Figure } from '../report/plots/figure.js';
import { heatMap } from '../report/plots/heat-map.js';
import { histogramChart } from '../report/plots/histogram.js';
import { lineChart } from '../report/plots/line-chart.js';
import { FULL_WIDTH, HALF_WIDTH, type Panel } from '../report/plots/panel.js';
import { measureKey, type RoutingBody, type RoutingLayerReport } from './entropy-report.js';
import { expertPairs, type RoutingMeasure } from './routing-measures.js';
import { ENTROPY_BINS } from './types.js';

/** Layers whose pairs are drawn, fewer of them where matrices are large, and experts beyond which cells cannot be told apart. */
const PAIR_LAYERS = 4;
const MANY_EXPERTS = 32;
const FEW_PAIR_LAYERS = 2;
/** A pair that usage lets expect fewer times than this is not drawn: its lift would be noise. */
const LEAST_EXPECTED = 5;
const MOST_PAIR_EXPERTS = 160;
/** Histograms of more layers than this are drawn as rows of colour. */
const MOST_OUTLINES = 4;
const BINS_DRAWN = 32;

const names = (count: number): string[] => Array.from({ length: count }, (_, i) => String(i));
const layerNames = (body: RoutingBody): string[] => body.by_layer.map(({ layer }) => String(layer));

function usageMap(body: RoutingBody): Promise<Panel> {
  const experts = Math.max(...body.by_layer.map((layer) => layer.experts));
  const values = body.by_layer.flatMap(({ usage }) => names(experts).map((_, e) => usage[e] ?? Number.NaN));
  const dead = body.by_layer.flatMap(({ dead_experts }, row) => dead_experts.map((column) => ({ row, column })));
  return heatMap({
    title: 'Usage of experts',
    note: 'Share f of the token-slots of a layer that went to each expert; even use would be 1 / experts.',
    rows: layerNames(body),
    columns: names(experts),
    rowLabel: 'layer',
    columnLabel: 'expert',
    values,
    valueLabel: 'usage f',
    kind: 'amount',
    ...(dead.length > 0 && { flags: [{ label: 'never chosen', shape: 'cross', cells: dead }] }),
    width: experts > 24 ? FULL_WIDTH : HALF_WIDTH,
  });
}

function curve(body: RoutingBody, name: string, measure: RoutingMeasure, dashed = false) {
  const key = measureKey(measure, body.unit);
  const column = (suffix: string): number[] =>
    body.by_layer.map(({ measures }) => measures[key + suffix] ?? Number.NaN);
  const byDocument = column('_document_se');
  const byToken = column('_se');
  const known = [byDocument, byToken].find((errors) => errors.some((error) => Number.isFinite(error)));
  return {
    name,
    x: body.by_layer.map(({ layer }) => layer),
    y: column(''),
    ...(known && { standardError: known }),
    ...(dashed && { dashed }),
  };
}

function effectiveExperts(body: RoutingBody): Promise<Panel> {
  const experts = new Map(body.by_layer.map((layer) => [layer.layer, layer.experts]));
  const merged = body.by_layer.map((layer) => layer.merged?.measures.effective_experts_usage ?? Number.NaN);
  const [count] = experts.values();
  const equal = [...experts.values()].every((own) => own === count);
  return lineChart({
    title: 'Effective number of experts',
    note: 'exp of the entropy of usage, and of the renormalised weights of the chosen (gate mass).',
    xLabel: 'layer',
    yLabel: 'experts',
    yZero: true,
    series: [
      curve(body, 'usage', 'effective_experts_usage'),
      curve(body, 'gate mass', 'effective_experts_gate_mass', true),
      ...(merged.some(Number.isFinite) ? [{ name: 'usage of merged experts', x: [...experts.keys()], y: merged }] : []),
    ],
    ...(equal
      ? { references: [{ value: count, label: 'experts' }] }
      : { ceiling: { label: 'experts of the layer', at: (x: number) => experts.get(x) ?? Number.NaN } }),
  });
}

function entropies(body: RoutingBody): Promise<Panel> {
  return lineChart({
    title: 'What the router decides',
    note: 'Entropy of a token, entropy of the mean over tokens, and the mutual information between them.',
    xLabel: 'layer',
    yLabel: body.unit,
    yZero: true,
    series: [
      curve(body, 'mean token entropy', 'mean_token_entropy'),
      curve(body, 'entropy of mean p', 'mean_probability_entropy'),
      curve(body, 'mutual information', 'token_expert_mutual_information'),
    ],
  });
}

function balance(body: RoutingBody): Promise<Panel> {
  return lineChart({
    title: 'Balance of load',
    note: 'Largest load over the mean, and the balance loss of Switch Transformers; both are 1 for even use.',
    xLabel: 'layer',
    yLabel: 'ratio',
    yZero: true,
    series: [curve(body, 'max / mean load', 'max_over_mean_load'), curve(body, 'balance loss', 'switch_balance_loss')],
    references: [{ value: 1, label: 'even' }],
  });
}

function drawnBins(histogram: ArrayLike<number>): number[] {
  const each = ENTROPY_BINS / BINS_DRAWN;
  return names(BINS_DRAWN).map((_, bin) => {
    let sum = 0;
    for (let i = bin * each; i < (bin + 1) * each; i++) sum += histogram[i];
    return sum;
  });
}

function tokenEntropies(body: RoutingBody): Promise<Panel> {
  const title = 'Entropy of the router by token';
  if (body.by_layer.length <= MOST_OUTLINES) {
    return histogramChart({
      title,
      note: 'Share of the largest possible entropy, ln of the number of experts.',
      xLabel: 'token entropy / ln experts',
      unit: 'unit',
      items: 'tokens',
      series: body.by_layer.map(({ layer, token_entropy_histogram, measures }) => ({
        name: `layer ${layer}`,
        histogram: {
          edges: Array.from({ length: BINS_DRAWN + 1 }, (_, i) => i / BINS_DRAWN),
          counts: drawnBins(token_entropy_histogram),
        },
        mean: measures.mean_token_entropy_normalized,
      })),
      height: 250,
    });
  }
  const values = body.by_layer.flatMap(({ token_entropy_histogram, tokens }) =>
    drawnBins(token_entropy_histogram).map((count) => (tokens === 0 ? Number.NaN : count / tokens)),
  );
  return heatMap({
    title,
    note: 'Histogram of every layer over the entropy as a share of ln experts; columns are named by their lower edge.',
    rows: layerNames(body),
    columns: names(BINS_DRAWN).map((_, bin) => (bin / BINS_DRAWN).toFixed(2)),
    rowLabel: 'layer',
    columnLabel: 'token entropy / ln experts',
    values,
    valueLabel: 'share of tokens',
    kind: 'amount',
    width: FULL_WIDTH,
  });
}

/** Evenly spread layers, first and last among them. */
function pairLayers(layers: readonly RoutingLayerReport[]): RoutingLayerReport[] {
  const shown = layers.filter(({ top_k, experts, tokens }) => {
    return top_k > 1 && experts > 2 && experts <= MOST_PAIR_EXPERTS && tokens > 0;
  });
  const most = shown.some(({ experts }) => experts > MANY_EXPERTS) ? FEW_PAIR_LAYERS : PAIR_LAYERS;
  if (shown.length <= most) return shown;
  const step = (shown.length - 1) / (most - 1);
  return Array.from({ length: most }, (_, i) => shown[Math.round(i * step)]);
}

function pairMap(layer: RoutingLayerReport): Promise<Panel> {
  const { experts } = layer;
  const values = new Float64Array(experts * experts).fill(Number.NaN);
  const totals = { counts: layer.usage_counts, coActivation: layer.co_activation, experts, topK: layer.top_k };
  const chosen = (layer.tokens * layer.top_k * (layer.top_k - 1)) / 2;
  for (const { expert, other, share, expectedShare } of expertPairs(totals)) {
    if (expectedShare * chosen < LEAST_EXPECTED) continue;
    // A pair that was never chosen takes the colour of the end.
    const lift = share > 0 ? Math.log2(share / expectedShare) : -16;
    values[expert * experts + other] = lift;
    values[other * experts + expert] = lift;
  }
  return heatMap({
    title: `Experts chosen together, layer ${layer.layer}`,
    note: 'log2 of the share of a pair over what usage alone explains: red together more often, blue less; a pair expected fewer than 5 times is left out.',
    rows: names(experts),
    columns: names(experts),
    rowLabel: 'expert',
    columnLabel: 'expert',
    values,
    valueLabel: 'log2 lift',
    kind: 'signed',
    domain: [-2, 2],
    width: HALF_WIDTH,
  });
}

/** The figure of `merge-moe entropy` from the body of its report. */
export async function drawRouting(body: RoutingBody, subtitle: string): Promise<Figure> {
  const panels = [
    await usageMap(body),
    await effectiveExperts(body),
    await entropies(body),
    await balance(body),
    await tokenEntropies(body),
  ];
  for (const layer of pairLayers(body.by_layer)) panels.push(await pairMap(layer));
  const { summary, unit } = body;
  return {
    title: 'Routing of experts',
    subtitle,
    headline: [
      { label: 'Tokens', value: body.tokens },
      { label: 'Layers with experts', value: body.layers },
      { label: 'Mean token entropy', value: summary[measureKey('mean_token_entropy', unit)], unit },
      { label: 'Effective experts, mean', value: summary.effective_experts_usage },
      { label: 'Effective experts, least', value: summary.least_effective_experts_usage },
      { label: 'Never chosen', value: summary.dead_experts },
    ],
    panels,
    sections: [],
  };
}
