import { type ComparedModel, compareFigure } from '../report/plots/compare-figure.js';
import type { Density } from '../report/plots/density.js';
import { type HeadlineFigure, plotBytes } from '../report/plots/figure.js';
import type { Histogram } from '../report/plots/histogram.js';
import type { CandidateBody, CompareBody } from './compare-report.js';

function klHistogram({ kl_histogram: kl }: CandidateBody): Histogram {
  const bins = kl.counts.map(([bin]) => bin);
  const outside = {
    ...(kl.negligible > 0 && { below: kl.negligible }),
    ...(kl.infinite > 0 && { above: kl.infinite }),
  };
  if (bins.length === 0) return { edges: [], counts: [], ...outside };
  const first = Math.min(...bins);
  const counts = new Array<number>(Math.max(...bins) - first + 1).fill(0);
  for (const [bin, count] of kl.counts) counts[bin - first] += count;
  const edges = Array.from({ length: counts.length + 1 }, (_, i) => 10 ** ((first + i) / kl.bins_per_decade));
  return { edges, counts, ...outside };
}

function entropyChange({ entropy_change: change }: CandidateBody): Density | undefined {
  if (change.counts.every(([, bin]) => bin === 0)) return undefined;
  const width = change.bin_width_nats;
  const columns = 1 + Math.max(...change.counts.map(([entropy]) => entropy));
  const low = Math.min(...change.counts.map(([, bin]) => bin));
  const rows = Math.max(...change.counts.map(([, bin]) => bin)) - low + 1;
  const counts = new Float64Array(columns * rows);
  for (const [entropy, bin, count] of change.counts) counts[entropy * rows + bin - low] += count;
  return {
    xEdges: Array.from({ length: columns + 1 }, (_, i) => i * width),
    yEdges: Array.from({ length: rows + 1 }, (_, i) => (low + i) * width),
    counts,
  };
}

/** What is left of names that begin alike: `models/a`, `models/b` become `a`, `b`. */
function shortNames(names: readonly string[]): string[] {
  const parts = names.map((name) => name.replace(/\/+$/, '').split('/'));
  let common = 0;
  while (parts.every((part) => part.length > common + 1 && part[common] === parts[0][common])) common++;
  return parts.map((part) => part.slice(common).join('/'));
}

/** Bytes of the figure of a comparison. */
export async function comparePlot(body: CompareBody, data: string, target: string): Promise<Uint8Array> {
  const [baseName, ...names] = shortNames([body.base.name, ...body.candidates.map(({ candidate }) => candidate)]);
  const candidates = body.candidates.map((candidate, i): ComparedModel => {
    const change = entropyChange(candidate);
    return {
      name: names[i],
      klHistogram: klHistogram(candidate),
      meanKlNats: candidate.mean_kl_nats,
      klByPosition: {
        positions: candidate.kl_by_context_length.map(({ first, last }) => (first + last) / 2),
        meanKlNats: candidate.kl_by_context_length.map((bin) => bin.mean_kl_nats),
        standardError: candidate.kl_by_context_length.map((bin) => bin.mean_kl_nats_se),
      },
      ...(change && { entropyChange: change }),
    };
  });
  const shown = body.candidates.length === 1 ? body.candidates[0] : undefined;
  const headline: HeadlineFigure[] = [
    { label: 'Documents', value: body.documents },
    { label: 'Tokens scored', value: body.scored_tokens },
    {
      label: 'Base perplexity',
      value: body.candidates[0].base_perplexity,
      standardError: body.candidates[0].base_perplexity_se,
    },
    ...(shown
      ? [
          { label: 'Perplexity ratio', value: shown.perplexity_ratio, standardError: shown.perplexity_ratio_se },
          {
            label: 'Mean KL from the base',
            value: shown.mean_kl_nats,
            unit: 'nats',
            standardError: shown.mean_kl_nats_se,
          },
          {
            label: 'Change of entropy',
            value: shown.mean_delta_entropy_nats,
            unit: 'nats',
            standardError: shown.mean_delta_entropy_nats_se,
          },
          { label: 'Same top-1', value: shown.top1_agreement, standardError: shown.top1_agreement_se },
        ]
      : []),
  ];
  const figure = await compareFigure({
    title: `Compared with ${baseName}`,
    subtitle: data === '' ? body.base.name : `${body.base.name}: ${data}`,
    headline,
    candidates,
    table: {
      columns: [
        'candidate',
        'perplexity',
        'ratio to the base',
        'mean KL, nats',
        '99% KL',
        'reverse KL',
        'JS',
        'change of entropy',
        'same top-1',
        'RMS change of p',
      ],
      rows: body.candidates.map((candidate, i) => [
        names[i],
        candidate.candidate_perplexity,
        candidate.perplexity_ratio,
        candidate.mean_kl_nats,
        candidate.kl_quantiles_nats.p99,
        candidate.mean_reverse_kl_nats,
        candidate.mean_js_nats,
        candidate.mean_delta_entropy_nats,
        candidate.top1_agreement,
        candidate.rms_delta_p,
      ]),
    },
  });
  return plotBytes(figure, target);
}
