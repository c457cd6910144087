import { createRandom } from '../../../src/random.js';
import { attentionFigure } from '../../../src/report/plots/attention-figure.js';
import { chartFigure } from '../../../src/report/plots/chart-figure.js';
import { choicesFigure } from '../../../src/report/plots/choices-figure.js';
import type { TextToken } from '../../../src/report/plots/coloured-text.js';
import { compareFigure } from '../../../src/report/plots/compare-figure.js';
import type { Figure } from '../../../src/report/plots/figure.js';
import type { Histogram } from '../../../src/report/plots/histogram.js';
import { layersFigure } from '../../../src/report/plots/layers-figure.js';
import type { TokensFigureData } from '../../../src/report/plots/tokens-figure.js';
import { tokensFigure } from '../../../src/report/plots/tokens-figure.js';

/** Small figures of every kind from seeded numbers: what the tests draw. */

const WORDS = [' the', ' of', ' state', 'ment', ' union', ',', ' and', '.', '\n', ' peace', 's', ' Congress', ' 1934'];

export function sampleTokens(count: number, seed = 7): TextToken[] {
  const random = createRandom(seed);
  return Array.from({ length: count }, (_, i) => {
    const entropyNats = 5 * random.uniform();
    const surprisalNats = -Math.log(1 - random.uniform()) * entropyNats;
    return {
      text: WORDS[random.integer(WORDS.length)],
      surprisalNats,
      entropyNats,
      rank: 1 + Math.floor(Math.exp(surprisalNats)),
      top1Prob: Math.exp(-entropyNats),
      top1Text: WORDS[random.integer(WORDS.length)],
      document: i < count / 2 ? 'first' : 'second',
    };
  });
}

function histogramOf(values: readonly number[], width: number, bins: number): Histogram {
  const counts = new Float64Array(bins);
  let above = 0;
  for (const value of values) {
    const bin = Math.floor(value / width);
    if (bin < bins) counts[bin]++;
    else above++;
  }
  return { edges: Array.from({ length: bins + 1 }, (_, i) => i * width), counts, above };
}

export function sampleTokensData(tokens = sampleTokens(400)): TokensFigureData {
  const surprisals = tokens.map(({ surprisalNats }) => surprisalNats);
  const entropies = tokens.map(({ entropyNats }) => entropyNats);
  const edges = Array.from({ length: 11 }, (_, i) => i);
  const counts = new Float64Array(100);
  for (const { surprisalNats, entropyNats } of tokens) {
    counts[Math.min(9, Math.floor(entropyNats)) * 10 + Math.min(9, Math.floor(surprisalNats))]++;
  }
  const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
  return {
    title: 'Surprisal of a sample',
    subtitle: 'convention lm-eval, context 256',
    headline: [
      { label: 'tokens', value: tokens.length },
      { label: 'mean surprisal', value: mean(surprisals), unit: 'nats', standardError: 0.0213, interval: [2.1, 2.9] },
    ],
    entropyHistogram: histogramOf(entropies, 0.25, 40),
    surprisalHistogram: histogramOf(surprisals, 0.25, 40),
    meanEntropyNats: mean(entropies),
    meanSurprisalNats: mean(surprisals),
    byPosition: [0, 1, 2, 4, 8, 16, 32, 64].map((position) => ({
      position,
      meanEntropyNats: 2 + 3 / (1 + position),
      meanSurprisalNats: 2.2 + 3 / (1 + position),
      seEntropyNats: 0.1,
      seSurprisalNats: 0.2,
      count: 50,
    })),
    calibration: [1, 2, 3].map((predicted) => ({
      predicted,
      observed: 1.1 * predicted,
      standardError: 0.1,
      count: 100 * predicted,
    })),
    confidence: [0.1, 0.5, 0.9].map((predicted) => ({
      predicted,
      observed: 0.9 * predicted,
      standardError: 0.02,
      count: 99,
    })),
    density: { xEdges: edges, yEdges: edges, counts },
    tokens,
    tokenTotal: tokens.length,
    mostSurprising: [{ document: 'first', position: 3, before: 'of the', token: tokens[0], after: ' and so on' }],
  };
}

function attention(layers: number, heads: number): Promise<Figure> {
  const random = createRandom(11);
  const share = Float64Array.from({ length: layers * heads }, () => random.uniform());
  share[1] = Number.NaN;
  return attentionFigure({
    title: 'Attention entropy of a sample',
    quarters: [
      { name: 'of the largest head', shares: [0.25, 0.1, 0.05, 0.6] },
      { name: 'of log(context)', shares: [0.5, 0.5, 0, 0] },
      { name: 'nowhere', shares: [Number.NaN, Number.NaN, Number.NaN, Number.NaN] },
    ],
    headline: [{ label: 'heads', value: layers * heads }],
    layers,
    heads,
    entropyShare: share,
    entropyNats: share.map((value) => value * 5),
    collapsed: [{ layer: 1, head: 2 }],
    overloaded: [{ layer: 0, head: 3 }],
    byPosition: Array.from({ length: layers }, (_, layer) => ({
      layer,
      positions: [0, 1, 3, 7, 15, 31],
      entropyNats: [0, 1, 3, 7, 15, 31].map((position) => (Math.log(position + 1) * (layer + 1)) / (layers + 1)),
    })),
  });
}

function layers(): Promise<Figure> {
  return layersFigure({
    title: 'Layers of a sample',
    headline: [],
    layers: [0, 1, 2, 3],
    residualNorm: { values: [1, 14, 20, 18] },
    logitLensEntropyNats: { values: [1.1, 4, 3.2, 2.9], standardError: [0.1, 0.1, 0.1, 0.1] },
    klToFinalNats: { values: [16, 2, 1, 0] },
    effectiveRank: { values: [88, 70, 60, 44] },
    finalEntropyNats: 2.9,
    hiddenSize: 128,
  });
}

function compare(): Promise<Figure> {
  const edges = Array.from({ length: 13 }, (_, i) => 10 ** (i / 2 - 5));
  return compareFigure({
    title: 'Candidates',
    headline: [{ label: 'tokens', value: 1000 }],
    candidates: ['q8_0', 'q2_k'].map((name, k) => ({
      name,
      klHistogram: { edges, counts: edges.slice(1).map((_, i) => (i + k) % 5), below: 3 },
      meanKlNats: 10 ** (2 * k - 4),
      klByPosition: { positions: [0, 1, 4, 16], meanKlNats: [2, 1, 1, 1].map((value) => value * 10 ** (2 * k - 4)) },
      entropyChange: { xEdges: [0, 1, 2], yEdges: [-0.2, 0, 0.2], counts: [3, 4, 1, 20] },
    })),
    table: {
      columns: ['candidate', 'mean KL, nats'],
      rows: [
        ['q8_0', 1e-4],
        ['q2_k', 0.01],
      ],
    },
  });
}

function choices(): Promise<Figure> {
  const edges = [0, 0.35, 0.7, 1.05, 1.4];
  return choicesFigure({
    title: 'Multiple choice',
    headline: [{ label: 'accuracy', value: 0.41, standardError: 0.01 }],
    reliability: [0.3, 0.6, 0.9].map((predicted) => ({
      predicted,
      observed: predicted - 0.05,
      standardError: 0.03,
      count: 40,
    })),
    entropyWhenRight: { edges, counts: [10, 20, 30, 20] },
    entropyWhenWrong: { edges, counts: [1, 5, 30, 50] },
    meanEntropyWhenRight: 0.4,
    meanEntropyWhenWrong: 0.7,
  });
}

function charts(): Promise<Figure> {
  const modules = ['self_attn.q_proj', 'self_attn.k_proj', 'mlp.gate_proj', 'mlp.up_proj', 'mlp.down_proj'];
  const names = Array.from({ length: 30 }, (_, layer) => String(layer));
  const values = Float64Array.from({ length: 150 }, (_, i) => Math.sin(i));
  const axes = { rowLabel: 'module', columnLabel: 'layer', valueLabel: 'change, nats', kind: 'signed' } as const;
  const turned = { rowLabel: 'layer', columnLabel: 'module', valueLabel: 'change, nats', kind: 'amount' } as const;
  return chartFigure({
    title: 'Charts',
    charts: [
      { kind: 'heat-map', chart: { title: 'Layers across', rows: modules, columns: names, values, ...axes } },
      {
        kind: 'heat-map',
        chart: { title: 'Layers down', rows: names, columns: modules, values, ...turned, width: 470 },
      },
      {
        kind: 'lines',
        chart: {
          title: 'Divergence',
          xLabel: 'bits per weight',
          yLabel: 'KL, nats',
          yScale: 'log',
          series: [{ name: 'ours', x: [2, 3, 4, 8], y: [0.2, 0.05, 0.01, 2e-5] }],
          references: [{ value: 0.03, label: 'tolerated' }],
          markedX: { value: 3, label: 'chosen' },
        },
      },
    ],
    tables: [{ heading: 'Numbers', table: { columns: ['bits', 'KL, nats'], rows: [[2, 0.2]] } }],
  });
}

export const SAMPLE_FIGURES: Readonly<Record<string, () => Promise<Figure>>> = {
  tokens: () => tokensFigure(sampleTokensData()),
  attention: () => attention(4, 4),
  'attention of a large model': () => attention(24, 32),
  layers,
  compare,
  choices,
  charts,
};
