import type { Figure } from '../../report/plots/figure.js';
import { type HeatMap, heatMap } from '../../report/plots/heat-map.js';
import { tableMarkup } from '../../report/plots/html-page.js';
import { FULL_WIDTH, type Panel } from '../../report/plots/panel.js';
import { shareBars } from '../../report/plots/share-bars.js';
import type { AlignedCorpus } from './align-job.js';
import type { AlignBody, SourceFigures } from './align-report.js';
import { tokenPair } from './token-pair.js';

/** Domains that a figure shows at most; the others are in the table. */
const MOST_DOMAINS = 24;
/** Source tokens of the heat map, and pivot tokens beside them. */
const MOST_TOKENS = 24;
const MOST_PIECES = 32;

function sharePanel(figures: SourceFigures): Promise<Panel> {
  const { shares } = figures.total;
  const keys = Object.keys(shares) as (keyof typeof shares)[];
  const used = keys.filter((key) => shares[key].value > 0);
  const shown = figures.domains.length > 1 ? figures.domains.slice(0, MOST_DOMAINS) : [];
  const left = figures.domains.length - shown.length;
  return shareBars({
    title: `Where rows of ${figures.source} come from`,
    note: `Shares of the pivot's positions.${shown.length > 0 && left > 0 ? ` ${left} more domains are in the table.` : ''}`,
    classes: used.map((key) => key.replaceAll('_', '-')),
    bars: [...shown, figures.total].map((own) => ({
      name: own.domain,
      shares: used.map((key) => own.shares[key].value),
    })),
    width: FULL_WIDTH,
  });
}

/** The commonest source tokens without an equal, and the pivot tokens that they were matched with. */
function mapChart(name: string, corpus: AlignedCorpus): HeatMap | undefined {
  const { equal } = tokenPair(corpus.source, corpus.pivot);
  const rows = new Map<number, Map<number, number>>();
  for (const [to, from, count] of corpus.matches) {
    if (equal[from] >= 0) continue;
    const row = rows.get(from) ?? new Map<number, number>();
    rows.set(from, row.set(to, count));
  }
  const total = (row: ReadonlyMap<number, number>): number => [...row.values()].reduce((all, count) => all + count, 0);
  const tokens = [...rows].sort((a, b) => total(b[1]) - total(a[1]) || a[0] - b[0]).slice(0, MOST_TOKENS);
  if (tokens.length === 0) return undefined;
  const weights = new Map<number, number>();
  for (const [, row] of tokens) for (const [to, count] of row) weights.set(to, (weights.get(to) ?? 0) + count);
  const pieces = [...weights]
    .sort((a, b) => b[1] - a[1] || a[0] - b[0])
    .slice(0, MOST_PIECES)
    .map(([to]) => to);
  const chosen = tokens.flatMap(([from], row) => {
    const column = pieces.indexOf(corpus.map.pivotIds[from]);
    return column < 0 ? [] : [{ row, column }];
  });
  return {
    title: `What tokens of ${name} that the pivot lacks were matched with`,
    note: 'The commonest of them in the texts: share of the matches of a row.',
    rows: tokens.map(([from]) => corpus.source.texts[from]),
    columns: pieces.map((to) => corpus.pivot.texts[to]),
    rowLabel: 'source token',
    columnLabel: 'pivot token',
    values: tokens.flatMap(([, row]) => pieces.map((to) => (row.get(to) ?? 0) / total(row))),
    valueLabel: 'share of matches',
    kind: 'amount',
    domain: [0, 1],
    flags: [{ label: 'chosen by the map', shape: 'ring', cells: chosen }],
  };
}

/** The figure of `fuse align`: rates by domain and the map's heat map, a pair for each source. */
export async function alignFigure(
  body: AlignBody,
  corpora: readonly AlignedCorpus[],
  subtitle: string,
): Promise<Figure> {
  const panels: Panel[] = [];
  for (const [i, figures] of body.sources.entries()) {
    panels.push(await sharePanel(figures));
    const chart = mapChart(figures.source, corpora[i]);
    if (chart) panels.push(await heatMap(chart));
  }
  return {
    title: `Alignment with ${body.pivot}`,
    subtitle,
    headline: body.sources.map(({ source, total: { learnt } }) => ({
      label: `Positions with a row of ${source}`,
      value: learnt.value,
      ...(learnt.se !== null && { standardError: learnt.se }),
      ...(learnt.low !== null &&
        learnt.high !== null && {
          interval: [learnt.low, learnt.high] as const,
          intervalName: '95 % document bootstrap',
        }),
    })),
    panels,
    sections: [
      {
        heading: 'Domains',
        body: tableMarkup({
          columns: [
            'source',
            'domain',
            'documents',
            'pivot tokens',
            'source tokens',
            'learnt',
            'exact',
            'fallback',
            'cost',
          ],
          rows: body.sources.flatMap(({ source, domains, total }) =>
            [...domains, total].map((own) => [
              source,
              own.domain,
              own.documents,
              own.pivot_tokens,
              own.source_tokens,
              own.learnt.value,
              own.shares.exact.value,
              own.shares.fallback.value,
              own.mean_cost.value,
            ]),
          ),
        }),
      },
    ],
  };
}
