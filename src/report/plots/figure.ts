import { InputError } from '../../errors.js';
import type { Markup } from './markup.js';
import { element, textNode } from './markup.js';
import { formatNumber } from './numbers.js';
import type { Panel } from './panel.js';
import { drawPanel, FULL_WIDTH } from './panel.js';
import type { Drawing } from './svg.js';
import { standaloneSvg, svgToPng } from './svg.js';
import { textWidth, wrapText } from './text-layout.js';

/** One line of the summary: a value with its unit, standard error and interval where they are known. */
export interface HeadlineFigure {
  readonly label: string;
  readonly value: number | string;
  readonly unit?: string;
  readonly standardError?: number;
  /** Ends of the interval, and what it is (`95 % document bootstrap`). */
  readonly interval?: readonly [number, number];
  readonly intervalName?: string;
}

/** A part of the HTML page that a picture has no room for: the coloured text, a table. */
export interface Section {
  readonly heading: string;
  readonly note?: string;
  readonly body: Markup;
  /** Before the charts (the default is after them). */
  readonly first?: boolean;
}

/** A rectangular table. Text columns are set left, numbers right. */
export interface FigureTable {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly (string | number)[])[];
}

/** Everything a plot file shows, whatever its kind. */
export interface Figure {
  readonly title: string;
  readonly subtitle?: string;
  readonly headline: readonly HeadlineFigure[];
  readonly panels: readonly Panel[];
  readonly sections: readonly Section[];
}

export const PLOT_EXTENSIONS = ['svg', 'png', 'html'] as const;
export type PlotExtension = (typeof PLOT_EXTENSIONS)[number];

/** The kind of plot that a path asks for by its extension. Throws `InputError` for any other. */
export function plotExtension(path: string): PlotExtension {
  const extension = /\.([^./\\]+)$/.exec(path)?.[1].toLowerCase();
  const known = PLOT_EXTENSIONS.find((candidate) => candidate === extension);
  if (known !== undefined) return known;
  throw new InputError(
    `--plot ${path}: cannot draw ${extension === undefined ? 'a file without extension' : `".${extension}"`}; end the name in .svg, .png or .html`,
  );
}

/** `3.504 ± 0.021 nats`. */
export function headlineText({ value, standardError, unit }: HeadlineFigure): string {
  const number = typeof value === 'number' ? formatNumber(value) : value;
  const error = standardError === undefined ? '' : ` \u00b1 ${formatNumber(standardError, 2)}`;
  return `${number}${error}${unit === undefined ? '' : ` ${unit}`}`;
}

const MARGIN = 24;
const GAP = 24;

/** Label over value, as many to a row as fit. */
function headlineStrip(headline: readonly HeadlineFigure[], width: number): Drawing {
  const pieces: Markup[] = [];
  const rowHeight = 40;
  let x = 0;
  let row = 0;
  for (const figure of headline) {
    const value = headlineText(figure);
    const needed = Math.max(textWidth(figure.label, 10.5), textWidth(value, 14, true)) + 26;
    if (x > 0 && x + needed - 26 > width) {
      x = 0;
      row++;
    }
    const at = Math.round(x);
    const y = row * rowHeight;
    pieces.push(
      element('text', { x: at, y: y + 11, 'font-size': 10.5, 'fill-opacity': 0.72 }, [textNode(figure.label)]),
      element('text', { x: at, y: y + 29, 'font-size': 14, 'font-weight': 'bold' }, [textNode(value)]),
    );
    x += needed;
  }
  const height = headline.length === 0 ? 0 : (row + 1) * rowHeight;
  return { width, height, content: element('g', {}, pieces) };
}

/** Panels in reading order: those that fit side by side share a row. */
export function rowsOf(panels: readonly Panel[], width = FULL_WIDTH): Panel[][] {
  const rows: Panel[][] = [];
  let used = Number.POSITIVE_INFINITY;
  for (const panel of panels) {
    if (used + GAP + panel.width > width) {
      rows.push([]);
      used = -GAP;
    }
    rows[rows.length - 1].push(panel);
    used += GAP + panel.width;
  }
  return rows;
}

/** The panels of a row with their charts on one line. */
export function drawRow(row: readonly Panel[]): Drawing[] {
  const headerHeight = Math.max(...row.map((panel) => panel.headerHeight));
  return row.map((panel) => drawPanel(panel, headerHeight));
}

/** Several panels in one standalone SVG, under a title, a subtitle and the headline numbers. */
export function composePanels(
  panels: readonly Panel[],
  header: { readonly title: string; readonly subtitle?: string; readonly headline?: readonly HeadlineFigure[] },
): string {
  const inner = Math.max(FULL_WIDTH, ...panels.map(({ width }) => width));
  const pieces: Markup[] = [];
  let y = MARGIN;
  const place = (drawing: Drawing, x: number): void => {
    pieces.push(element('g', { transform: `translate(${x},${y})` }, [drawing.content]));
  };
  for (const line of wrapText(header.title, inner / 1.1, 18)) {
    pieces.push(element('text', { x: MARGIN, y: y + 16, 'font-size': 18, 'font-weight': 'bold' }, [textNode(line)]));
    y += 25;
  }
  for (const line of wrapText(header.subtitle ?? '', inner, 11.5)) {
    pieces.push(element('text', { x: MARGIN, y: y + 11, 'font-size': 11.5, 'fill-opacity': 0.72 }, [textNode(line)]));
    y += 17;
  }
  if (header.headline !== undefined && header.headline.length > 0) {
    y += 10;
    const strip = headlineStrip(header.headline, inner);
    place(strip, MARGIN);
    y += strip.height;
  }
  for (const row of rowsOf(panels, inner)) {
    y += GAP - 6;
    let x = MARGIN;
    const drawings = drawRow(row);
    for (const drawing of drawings) {
      place(drawing, x);
      x += drawing.width + GAP;
    }
    y += Math.max(...drawings.map(({ height }) => height));
  }
  const drawing = { width: inner + 2 * MARGIN, height: Math.ceil(y + MARGIN), content: element('g', {}, pieces) };
  return standaloneSvg(drawing, header.title);
}

/** A figure as a standalone SVG file. */
export function figureSvg(figure: Figure): string {
  return composePanels(figure.panels, figure);
}

/**
 * The bytes of a plot file: `.svg`, `.png` (two pixels a unit) or a self-contained `.html`. `target` is a path or an
 * extension with its dot. The same figure gives the same bytes. Throws `InputError` for other extensions.
 */
export async function plotBytes(figure: Figure, target: string): Promise<Uint8Array> {
  const extension = plotExtension(target);
  if (extension === 'html') {
    const { htmlPage } = await import('./html-page.js');
    return new TextEncoder().encode(htmlPage(figure));
  }
  const svg = figureSvg(figure);
  return extension === 'svg' ? new TextEncoder().encode(svg) : svgToPng(svg);
}
