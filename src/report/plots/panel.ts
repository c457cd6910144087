import type { PlotOptions } from '@observablehq/plot';
import type { Legend } from './legend.js';
import { drawLegend, legendHeight } from './legend.js';
import type { Markup } from './markup.js';
import { element, textNode } from './markup.js';
import type { Drawing } from './svg.js';
import { drawPlot } from './svg.js';
import { textWidth, wrapText } from './text-layout.js';

/** Widths of panels that take a third, a half and the whole of a picture's row. */
export const THIRD_WIDTH = 305;
export const HALF_WIDTH = 470;
export const FULL_WIDTH = 964;

/** A chart with its title, note and legend, which stand above it in a header of `headerHeight`. */
export interface Panel {
  readonly title: string;
  readonly width: number;
  readonly header: Markup;
  readonly headerHeight: number;
  readonly body: Drawing;
  /** Shown in pictures but not in HTML pages, which have a richer form of the same thing. */
  readonly pictureOnly?: boolean;
}

export interface PanelHeader {
  readonly title: string;
  /** What to look for, in a sentence or two; wrapped. */
  readonly note?: string;
  readonly legend?: Legend;
}

const TITLE_SIZE = 13;
const NOTE_SIZE = 11;
const LINE = 15;

/**
 * The panel as one drawing. Panels that stand side by side are given the largest `headerHeight` among them, so that
 * their charts begin on one line.
 */
export function drawPanel(panel: Panel, headerHeight = panel.headerHeight): Drawing {
  const body = element('g', { transform: `translate(0,${headerHeight})` }, [panel.body.content]);
  return {
    width: panel.width,
    height: Math.ceil(headerHeight + panel.body.height),
    content: element('g', {}, [panel.header, body]),
  };
}

/** Puts title, note and legend above a drawing, whose width is the panel's. */
export function framePanel(header: PanelHeader, body: Drawing): Panel {
  const { width } = body;
  const pieces: Markup[] = [];
  let y = 0;
  for (const line of wrapText(header.title, (width - 4) / 1.1, TITLE_SIZE)) {
    y += 17;
    pieces.push(element('text', { x: 0, y: y - 3, 'font-size': TITLE_SIZE, 'font-weight': 'bold' }, [textNode(line)]));
  }
  if (header.note !== undefined) {
    for (const line of wrapText(header.note, width - 4, NOTE_SIZE)) {
      y += LINE;
      pieces.push(element('text', { x: 0, y: y - 3, 'font-size': NOTE_SIZE, 'fill-opacity': 0.72 }, [textNode(line)]));
    }
  }
  if (header.legend !== undefined) {
    const height = legendHeight(header.legend, width);
    if (height > 0)
      pieces.push(element('g', { transform: `translate(0,${y + 6})` }, [drawLegend(header.legend, width)]));
    y += height === 0 ? 0 : height + 6;
  }
  return { title: header.title, width, header: element('g', {}, pieces), headerHeight: y + 4, body };
}

/** A panel around a chart of Observable Plot. */
export async function plotPanel(header: PanelHeader, options: PlotOptions): Promise<Panel> {
  return framePanel(header, await drawPlot(options));
}

/** A panel for a chart that has nothing to draw, which says so. */
export function emptyPanel(header: PanelHeader, reason: string, width = HALF_WIDTH): Panel {
  const x = Math.max(0, (width - textWidth(reason, NOTE_SIZE)) / 2);
  const content = element('g', {}, [
    element('rect', {
      x: 0.5,
      y: 8.5,
      width: width - 1,
      height: 79,
      fill: 'none',
      stroke: 'currentColor',
      'stroke-opacity': 0.25,
    }),
    element('text', { x, y: 52, 'font-size': NOTE_SIZE, 'fill-opacity': 0.72 }, [textNode(reason)]),
  ]);
  return framePanel({ title: header.title, note: header.note }, { width, height: 96, content });
}
