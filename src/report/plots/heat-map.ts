import type { Markish } from '@observablehq/plot';
import type { Scheme } from './colours.js';
import { inkOn, schemeColours } from './colours.js';
import type { Legend, Swatch } from './legend.js';
import { formatNumber, formatTick, linearTicks, thinnedIndices } from './numbers.js';
import type { Panel } from './panel.js';
import { emptyPanel, FULL_WIDTH, HALF_WIDTH, plotPanel } from './panel.js';
import { shortenMiddle, textWidth } from './text-layout.js';

/** Cells that carry a sign, for instance the heads whose entropy has collapsed. */
export interface HeatMapFlag {
  readonly label: string;
  readonly shape: 'cross' | 'ring';
  readonly cells: readonly { readonly row: number; readonly column: number }[];
}

export interface HeatMap {
  readonly title: string;
  readonly note?: string;
  /** Names of rows (top to bottom) and columns, and what they are. */
  readonly rows: readonly string[];
  readonly columns: readonly string[];
  readonly rowLabel: string;
  readonly columnLabel: string;
  /** Row-major, `rows.length * columns.length`; NaN where there is no value. */
  readonly values: ArrayLike<number>;
  readonly valueLabel: string;
  /** `amount` runs from dark to light; `signed` is white at 0, blue below and red above, as wide on both sides. */
  readonly kind: 'amount' | 'signed';
  /** Ends of the colour scale; values beyond take the colour of the end. Without it the data decide. */
  readonly domain?: readonly [number, number];
  readonly flags?: readonly HeatMapFlag[];
  readonly width?: number;
}

interface Cell {
  readonly row: number;
  readonly column: number;
  readonly value: number;
}

const MISSING_COLOUR = '#8c8c8c';
const LABEL_SIZE = 11;
const LONGEST_NAME = 30;
const WIDEST_CELL = 84;
const RIGHT = 12;
/** More cells than this carry no hover text: the file would double for text that nobody could aim at. */
const MOST_TITLES = 20_000;

function domainOf(map: HeatMap): [number, number] {
  if (map.domain !== undefined) return [map.domain[0], map.domain[1]];
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < map.values.length; i++) {
    const value = map.values[i];
    if (!Number.isFinite(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (!(low <= high)) return [0, 1];
  if (map.kind === 'signed') {
    const size = Math.max(Math.abs(low), Math.abs(high)) || 1;
    return [-size, size];
  }
  return low === high ? [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2] : [low, high];
}

/** A matrix as coloured cells, with the values written in where they fit. */
export async function heatMap(map: HeatMap): Promise<Panel> {
  const most = map.width ?? FULL_WIDTH;
  const header = { title: map.title, note: map.note };
  const rowCount = map.rows.length;
  const columnCount = map.columns.length;
  if (map.values.length !== rowCount * columnCount) {
    throw new RangeError(`heat map "${map.title}": ${map.values.length} values for ${rowCount} x ${columnCount} cells`);
  }
  if (rowCount === 0 || columnCount === 0) return emptyPanel(header, 'no cells to draw', most);
  const Plot = await import('@observablehq/plot');
  const [low, high] = domainOf(map);
  const scheme: Scheme = map.kind === 'signed' ? 'rdbu' : 'viridis';
  const palette = await schemeColours(scheme, 256);
  if (map.kind === 'signed') palette.reverse();
  const colourOf = (value: number): string => {
    if (Number.isNaN(value)) return MISSING_COLOUR;
    const t = Math.min(1, Math.max(0, (value - low) / (high - low)));
    return palette[Math.round(t * (palette.length - 1))];
  };

  const rowNames = map.rows.map((name) => shortenMiddle(name, LONGEST_NAME));
  const columnNames = map.columns.map((name) => shortenMiddle(name, LONGEST_NAME));
  const widest = (names: readonly string[]): number => Math.max(...names.map((name) => textWidth(name, LABEL_SIZE)));
  const marginLeft = Math.ceil(widest(rowNames)) + 32;
  // A map of few columns is not stretched: it ends early and leaves room for a neighbour.
  const stepX = Math.min(WIDEST_CELL, (most - marginLeft - RIGHT) / columnCount);
  const width = Math.max(Math.min(most, HALF_WIDTH), Math.ceil(marginLeft + stepX * columnCount + RIGHT));
  const marginRight = width - marginLeft - stepX * columnCount;
  // Long column names stand on their side; short ones that would touch are thinned.
  const longest = widest(columnNames);
  const sideways = longest > 30 && longest + 8 > stepX;
  const columnTicks = sideways
    ? thinnedIndices(columnCount, Math.floor((stepX * columnCount) / 13))
    : thinnedIndices(columnCount, Math.floor((stepX * columnCount) / (longest + 8)));
  const stepY = Math.max(4, Math.min(26, Math.max(stepX * 0.6, 13), 900 / rowCount));
  const rowTicks = thinnedIndices(rowCount, Math.floor((stepY * rowCount) / 13));
  const marginBottom = sideways ? Math.ceil(longest) + 36 : 38;
  const marginTop = 8;

  const cells: Cell[] = [];
  let missing = false;
  for (let row = 0; row < rowCount; row++) {
    for (let column = 0; column < columnCount; column++) {
      const value = map.values[row * columnCount + column];
      missing ||= Number.isNaN(value);
      cells.push({ row, column, value });
    }
  }
  const inset = stepX > 8 && stepY > 8 ? 0.5 : 0;
  const title =
    cells.length > MOST_TITLES
      ? undefined
      : ({ row, column, value }: Cell): string =>
          `${map.rowLabel} ${map.rows[row]}, ${map.columnLabel} ${map.columns[column]}: ${formatNumber(value)}`;
  const marks: Markish[] = [
    Plot.cell(cells, { x: 'column', y: 'row', fill: (cell: Cell) => colourOf(cell.value), inset, title }),
  ];
  const written = cells.map(({ value }) => (Number.isNaN(value) ? '' : formatNumber(value, 2)));
  const widestValue = Math.max(...written.slice(0, 400).map((text) => textWidth(text, 10)));
  const size = Math.max(2, Math.min(4.5, stepX * 0.28, stepY * 0.28));
  const flagRoom = map.flags === undefined ? 0 : 2 * (2 * size + 5);
  const withValues = cells.length <= 400 && widestValue + 6 + flagRoom <= stepX && stepY >= 15;
  if (withValues) {
    marks.push(
      Plot.text(cells, {
        x: 'column',
        y: 'row',
        text: (_: Cell, i: number) => written[i],
        fontSize: 10,
        fill: (cell: Cell) => inkOn(colourOf(cell.value)),
        pointerEvents: 'none',
      }),
    );
  }
  const swatches: Swatch[] = [];
  for (const { label, shape, cells: flagged } of map.flags ?? []) {
    swatches.push({ label: `${label} (${flagged.length})`, colour: 'currentColor', shape });
    if (flagged.length === 0) continue;
    marks.push(
      Plot.dot(flagged, {
        x: 'column',
        y: 'row',
        symbol: shape === 'cross' ? 'times' : 'circle',
        r: size,
        dx: withValues ? widestValue / 2 + 5 + size : 0,
        fill: 'none',
        strokeWidth: 1.6,
        stroke: ({ row, column }: { row: number; column: number }) =>
          inkOn(colourOf(map.values[row * columnCount + column])),
        pointerEvents: 'none',
      }),
    );
  }
  if (missing) swatches.push({ label: 'no value', colour: MISSING_COLOUR, shape: 'area' });
  const legend: Legend = {
    swatches,
    ramps: [
      {
        label: map.valueLabel,
        colours: Array.from({ length: 40 }, (_, i) => palette[Math.round((i / 39) * (palette.length - 1))]),
        ticks: linearTicks(low, high, 4).map((value) => ({
          at: (value - low) / (high - low),
          label: formatTick(value),
        })),
      },
    ],
  };
  return plotPanel(
    { ...header, legend },
    {
      width,
      height: Math.ceil(marginTop + marginBottom + stepY * rowCount),
      marginLeft,
      marginRight,
      marginTop,
      marginBottom,
      color: { type: 'identity' },
      symbol: { type: 'identity' },
      x: {
        type: 'band',
        domain: columnNames.map((_, i) => i),
        padding: 0,
        ticks: columnTicks,
        tickFormat: (i: number) => columnNames[i],
        tickRotate: sideways ? -90 : 0,
        tickSize: 3,
        label: map.columnLabel,
        labelAnchor: 'center',
        labelArrow: 'none',
        round: false,
      },
      y: {
        type: 'band',
        domain: rowNames.map((_, i) => i),
        padding: 0,
        ticks: rowTicks,
        tickFormat: (i: number) => rowNames[i],
        tickSize: 3,
        label: map.rowLabel,
        labelAnchor: 'center',
        labelArrow: 'none',
        round: false,
      },
      marks,
    },
  );
}
