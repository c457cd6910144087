import type { Markup } from './markup.js';
import { element, textNode } from './markup.js';
import { textWidth } from './text-layout.js';

/** One entry of a legend: how the mark looks and what it stands for. */
export interface Swatch {
  readonly label: string;
  readonly colour: string;
  readonly shape: 'line' | 'dashed' | 'area' | 'dot' | 'cross' | 'ring' | 'bar';
}

/** A colour ramp: colours from low to high, and labels at places between 0 and 1 along it. */
export interface Ramp {
  readonly label: string;
  readonly colours: readonly string[];
  readonly ticks: readonly { readonly at: number; readonly label: string }[];
}

export interface Legend {
  readonly swatches?: readonly Swatch[];
  readonly ramps?: readonly Ramp[];
}

const FONT_SIZE = 10.5;
const SWATCH = 18;
const GAP = 16;
const ROW = 16;
const RAMP_WIDTH = 150;
const RAMP_HEIGHT = 9;
const RAMP_ROW = 28;

interface PlacedSwatch {
  readonly swatch: Swatch;
  readonly x: number;
  readonly row: number;
}

function placeSwatches(swatches: readonly Swatch[], width: number): PlacedSwatch[] {
  const placed: PlacedSwatch[] = [];
  let x = 0;
  let row = 0;
  for (const swatch of swatches) {
    const needed = SWATCH + 5 + textWidth(swatch.label, FONT_SIZE);
    if (x > 0 && x + needed > width) {
      x = 0;
      row++;
    }
    placed.push({ swatch, x, row });
    x += needed + GAP;
  }
  return placed;
}

interface PlacedRamp {
  readonly ramp: Ramp;
  readonly x: number;
  readonly row: number;
  /** Where the colours begin, right of the label. */
  readonly start: number;
}

function placeRamps(ramps: readonly Ramp[], width: number): PlacedRamp[] {
  const placed: PlacedRamp[] = [];
  let x = 0;
  let row = 0;
  for (const ramp of ramps) {
    const start = textWidth(ramp.label, FONT_SIZE) + 12;
    const needed = start + RAMP_WIDTH + 14;
    if (x > 0 && x + needed > width) {
      x = 0;
      row++;
    }
    placed.push({ ramp, x, row, start });
    x += needed + 2 * GAP;
  }
  return placed;
}

function rowCount(placed: readonly { readonly row: number }[]): number {
  return placed.length === 0 ? 0 : placed[placed.length - 1].row + 1;
}

/** Height in pixels that `drawLegend` takes at this width. */
export function legendHeight(legend: Legend, width: number): number {
  const swatchRows = rowCount(placeSwatches(legend.swatches ?? [], width));
  return swatchRows * ROW + rowCount(placeRamps(legend.ramps ?? [], width)) * RAMP_ROW;
}

function drawSwatch({ colour, shape }: Swatch): Markup {
  const middle = ROW / 2;
  switch (shape) {
    case 'line':
    case 'dashed':
      return element('line', {
        x1: 0,
        x2: SWATCH,
        y1: middle,
        y2: middle,
        stroke: colour,
        'stroke-width': 2,
        'stroke-dasharray': shape === 'dashed' ? '4 3' : undefined,
      });
    case 'area':
      return element('rect', { x: 0, y: 3, width: SWATCH, height: 10, fill: colour, 'fill-opacity': 0.55 });
    case 'bar':
      return element('rect', { x: 0, y: middle - 1.5, width: SWATCH, height: 3, fill: colour });
    case 'dot':
      return element('circle', { cx: SWATCH / 2, cy: middle, r: 4, fill: colour });
    case 'ring':
      return element('circle', { cx: SWATCH / 2, cy: middle, r: 4, fill: 'none', stroke: colour, 'stroke-width': 2 });
    case 'cross':
      return element('path', {
        d: `M${SWATCH / 2 - 4},${middle - 4}l8,8m0,-8l-8,8`,
        fill: 'none',
        stroke: colour,
        'stroke-width': 2,
      });
  }
}

function drawRamp({ ramp, start }: PlacedRamp): Markup {
  const step = RAMP_WIDTH / ramp.colours.length;
  const pieces: Markup[] = [
    element('text', { x: 0, y: RAMP_HEIGHT, 'font-size': FONT_SIZE }, [textNode(ramp.label)]),
    ...ramp.colours.map((colour, i) =>
      element('rect', {
        x: round(start + i * step),
        y: 0,
        // Half a pixel of overlap hides the seam that antialiasing draws between neighbours.
        width: round(step + (i + 1 < ramp.colours.length ? 0.5 : 0)),
        height: RAMP_HEIGHT,
        fill: colour,
      }),
    ),
  ];
  for (const { at, label } of ramp.ticks) {
    const x = round(start + at * RAMP_WIDTH);
    pieces.push(
      element('line', { x1: x, x2: x, y1: RAMP_HEIGHT, y2: RAMP_HEIGHT + 3, stroke: 'currentColor' }),
      element('text', { x, y: RAMP_HEIGHT + 13, 'font-size': 10, 'text-anchor': 'middle' }, [textNode(label)]),
    );
  }
  return element('g', {}, pieces);
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}

/** Swatches in rows, then the ramps. The origin is the upper left corner. */
export function drawLegend(legend: Legend, width: number): Markup {
  const swatches = placeSwatches(legend.swatches ?? [], width);
  const below = rowCount(swatches) * ROW + 2;
  const at = (x: number, y: number, pieces: readonly Markup[]): Markup =>
    element('g', { transform: `translate(${round(x)},${round(y)})` }, pieces);
  return element('g', {}, [
    ...swatches.map(({ swatch, x, row }) =>
      at(x, row * ROW, [
        drawSwatch(swatch),
        element('text', { x: SWATCH + 5, y: ROW / 2 + 4, 'font-size': FONT_SIZE }, [textNode(swatch.label)]),
      ]),
    ),
    ...placeRamps(legend.ramps ?? [], width).map((placed) =>
      at(placed.x, below + placed.row * RAMP_ROW, [drawRamp(placed)]),
    ),
  ]);
}
