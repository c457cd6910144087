import type { Figure, HeadlineFigure } from './figure.js';
import type { HeatMapFlag } from './heat-map.js';
import { heatMap } from './heat-map.js';
import { lineChart } from './line-chart.js';
import type { Panel } from './panel.js';
import { FULL_WIDTH } from './panel.js';
import { shareBars } from './share-bars.js';

/** Mean entropy of the heads of one layer at one place of the query. */
export interface LayerPositionEntropy {
  readonly layer: number;
  /** Places of the query, from 0, and the mean entropy there in nats. */
  readonly positions: ArrayLike<number>;
  readonly entropyNats: ArrayLike<number>;
}

export interface HeadAddress {
  readonly layer: number;
  readonly head: number;
}

/** What the figure of `analyze-entropy attention` is drawn from. */
export interface AttentionFigureData {
  readonly title: string;
  readonly subtitle?: string;
  readonly headline: readonly HeadlineFigure[];
  readonly layers: number;
  readonly heads: number;
  /** Row-major [layers, heads]: mean entropy as a share of the log of the number of visible keys; NaN if not measured. */
  readonly entropyShare: ArrayLike<number>;
  /** Row-major [layers, heads]: mean entropy in nats. */
  readonly entropyNats: ArrayLike<number>;
  /** Heads in the bottom quarter (near 0) and in the top quarter of the largest head entropy. */
  readonly collapsed: readonly HeadAddress[];
  readonly overloaded: readonly HeadAddress[];
  readonly byPosition: readonly LayerPositionEntropy[];
  /** Shares of the heads by quarter, one bar a maximum that the quarters are of. */
  readonly quarters?: readonly { readonly name: string; readonly shares: ArrayLike<number> }[];
  /** Mean entropies in nats after a fit of temperatures, row-major [layers, heads]. */
  readonly fittedNats?: ArrayLike<number>;
}

/** The figure of attention entropy: layers x heads with flags, layer means, entropy by position. */
export async function attentionFigure(data: AttentionFigureData): Promise<Figure> {
  const rows = Array.from({ length: data.layers }, (_, layer) => String(layer));
  const columns = Array.from({ length: data.heads }, (_, head) => String(head));
  const cells = (heads: readonly HeadAddress[]): HeatMapFlag['cells'] =>
    heads.map(({ layer, head }) => ({ row: layer, column: head }));
  const panels: Panel[] = [
    await heatMap({
      title: 'Attention entropy of each head',
      note: 'Mean over queries of the entropy as a share of the log of the number of visible keys: 0 looks at one key, 1 at all alike. Marked: quarters of the largest entropy.',
      rows,
      columns,
      rowLabel: 'layer',
      columnLabel: 'head',
      values: data.entropyShare,
      valueLabel: 'share of log(visible keys)',
      kind: 'amount',
      domain: [0, 1],
      flags: [
        { label: 'bottom quarter', shape: 'cross', cells: cells(data.collapsed) },
        { label: 'top quarter', shape: 'ring', cells: cells(data.overloaded) },
      ],
    }),
  ];
  if (data.quarters !== undefined) {
    panels.push(
      await shareBars({
        title: 'Heads by quarter of the largest entropy',
        note: 'Overload: 40 % or more in the top quarter. Collapse: 25 % or more in the bottom one, late layers near 0.',
        classes: ['bottom', 'second', 'third', 'top'],
        bars: data.quarters,
      }),
    );
  }
  if (data.fittedNats !== undefined) {
    const most = Math.max(...Array.from(data.entropyNats), ...Array.from(data.fittedNats));
    const nats = (title: string, note: string, values: ArrayLike<number>): Promise<Panel> =>
      heatMap({
        title,
        note,
        rows,
        columns,
        rowLabel: 'layer',
        columnLabel: 'head',
        values,
        valueLabel: 'nats',
        kind: 'amount',
        domain: [0, most],
      });
    panels.push(
      await nats('Before the fit', 'Mean entropy of each head at the starting temperatures.', data.entropyNats),
      await nats('After the fit', 'The same at the temperatures found, over the same scores.', data.fittedNats),
    );
  }
  if (data.byPosition.length > 0) {
    panels.push(
      await lineChart({
        title: 'Attention entropy by position of the query',
        note: 'Mean over the heads of a layer. The dashed line is the most there can be: attention to all keys alike.',
        xLabel: 'keys before the query',
        yLabel: 'nats',
        xScale: 'position',
        yZero: true,
        ordered: { label: 'layer', values: data.byPosition.map(({ layer }) => layer) },
        series: data.byPosition.map(({ layer, positions, entropyNats }) => ({
          name: `layer ${layer}`,
          x: positions,
          y: entropyNats,
        })),
        ceiling: { label: 'log(visible keys)', at: (position) => Math.log(position + 1) },
        width: FULL_WIDTH,
        height: 300,
      }),
    );
  }
  const layerMean = (values: ArrayLike<number>): number[] =>
    rows.map((_, layer) => {
      const known = columns.map((_, head) => values[layer * data.heads + head]).filter((value) => !Number.isNaN(value));
      return known.length === 0 ? Number.NaN : known.reduce((sum, value) => sum + value, 0) / known.length;
    });
  const x = rows.map((_, layer) => layer);
  const meanOf = (title: string, yLabel: string, values: ArrayLike<number>, yHigh?: number): Promise<Panel> =>
    lineChart({
      title,
      xLabel: 'layer',
      yLabel,
      yZero: true,
      yHigh,
      series: [{ name: title, x, y: layerMean(values) }],
    });
  panels.push(
    await meanOf('Mean entropy of a layer', 'nats', data.entropyNats),
    await meanOf('Mean share of a layer', 'share of log(visible keys)', data.entropyShare, 1),
  );
  return { title: data.title, subtitle: data.subtitle, headline: data.headline, panels, sections: [] };
}
