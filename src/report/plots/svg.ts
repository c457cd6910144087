import { createHash } from 'node:crypto';
import { createRequire } from 'node:module';
import type { PlotOptions } from '@observablehq/plot';
import type { Markup } from './markup.js';
import { element, markupText, textNode } from './markup.js';

export const FONT_FAMILY = "'DejaVu Sans', Verdana, sans-serif";
export const MONOSPACE_FAMILY = "'DejaVu Sans Mono', Menlo, Consolas, monospace";

/** A picture of known size: a nested `<svg>` element that scales with the box it is put in. */
export interface Drawing {
  readonly width: number;
  readonly height: number;
  readonly content: Markup;
}

/** What this module reads of a DOM node; the DOM library is loaded only when a plot is drawn. */
interface DomNode {
  readonly nodeType: number;
  readonly nodeName: string;
  readonly nodeValue: string | null;
  readonly childNodes: Iterable<DomNode>;
  readonly attributes?: Iterable<{ readonly name: string; readonly value: string }>;
}

const ELEMENT_NODE = 1;
const TEXT_NODE = 3;

/** Coordinates keep a thousandth of a pixel: fewer bytes, and no trailing noise of floating point. */
function rounded(value: string): string {
  return value.replace(/-?\d+\.\d{4,}(?:e[-+]?\d+)?/g, (number) =>
    String(Math.round(Number(number) * 1000) / 1000 + 0),
  );
}

const COORDINATES = new Set([
  'd',
  'points',
  'transform',
  'x',
  'y',
  'x1',
  'x2',
  'y1',
  'y2',
  'cx',
  'cy',
  'r',
  'width',
  'height',
]);

/**
 * A DOM tree as markup: attributes in alphabetical order, every value escaped here, ids renamed by `rename`. Classes
 * and style elements are dropped, since all that Plot puts there is said again in attributes.
 */
function serialise(node: DomNode, rename: (id: string) => string): Markup | undefined {
  if (node.nodeType === TEXT_NODE) return textNode(node.nodeValue ?? '');
  if (node.nodeType !== ELEMENT_NODE || node.nodeName.toLowerCase() === 'style') return undefined;
  const attributes: Record<string, string> = {};
  const given = [...(node.attributes ?? [])].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  for (const { name, value } of given) {
    if (name === 'class') continue;
    if (name === 'id') attributes.id = rename(value);
    else if (value.startsWith('url(#')) attributes[name] = `url(#${rename(value.slice(5, -1))})`;
    else attributes[name] = COORDINATES.has(name) ? rounded(value) : value;
  }
  const children: Markup[] = [];
  for (const child of node.childNodes) {
    const piece = serialise(child, rename);
    if (piece !== undefined) children.push(piece);
  }
  return element(node.nodeName, attributes, children);
}

/**
 * Draws a chart of Observable Plot in a document of linkedom: no browser, no canvas (so Plot's own colour ramps, which
 * need one, are not used; see `legend.ts`).
 *
 * Plot numbers its clip paths through the life of the process. Here they are numbered from one within each chart and
 * carry a hash of the chart, so that the bytes depend on the chart alone and several charts can stand in one page.
 */
export async function drawPlot(options: PlotOptions): Promise<Drawing> {
  const [Plot, { DOMParser }] = await Promise.all([import('@observablehq/plot'), import('linkedom')]);
  const document = new DOMParser().parseFromString('<svg xmlns="http://www.w3.org/2000/svg"/>', 'image/svg+xml');
  const root = Plot.plot({
    ...options,
    document: document as unknown as PlotOptions['document'],
  }) as unknown as DomNode & {
    setAttribute(name: string, value: string): void;
    getAttribute(name: string): string;
  };
  root.setAttribute('font-family', FONT_FAMILY);
  root.setAttribute('font-size', '11');
  root.setAttribute('overflow', 'visible');
  const ids = new Map<string, number>();
  const numbered =
    (prefix: string) =>
    (id: string): string => {
      if (!ids.has(id)) ids.set(id, ids.size + 1);
      return `${prefix}${ids.get(id)}`;
    };
  const anonymous = serialise(root, numbered('clip'))!;
  const hash = createHash('sha256').update(markupText(anonymous)).digest('hex').slice(0, 10);
  const width = Number(root.getAttribute('width'));
  const height = Number(root.getAttribute('height'));
  return { width, height, content: ids.size === 0 ? anonymous : serialise(root, numbered(`c${hash}-`))! };
}

/** A file of its own: white ground, dark ink, explicit size. */
export function standaloneSvg(drawing: Drawing, title?: string): string {
  const { width, height, content } = drawing;
  const root = element(
    'svg',
    {
      xmlns: 'http://www.w3.org/2000/svg',
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      color: '#1b1b1b',
      fill: 'currentColor',
      'font-family': FONT_FAMILY,
      'font-size': 11,
    },
    [
      ...(title === undefined ? [] : [element('title', {}, [textNode(title)])]),
      element('rect', { width, height, fill: '#ffffff' }),
      content,
    ],
  );
  return `<?xml version="1.0" encoding="UTF-8"?>\n${markupText(root)}\n`;
}

/** Draws a chart of Observable Plot as a standalone SVG file. The same options give the same text. */
export async function renderSvg(options: PlotOptions): Promise<string> {
  return standaloneSvg(await drawPlot(options));
}

/**
 * Draws an SVG file as PNG at `scale` pixels a unit. Text is set in the DejaVu fonts of the package and never in the
 * machine's own, so that the bytes are the same wherever it runs; characters that DejaVu lacks (Chinese, Japanese, Korean,
 * Devanagari) come out as empty boxes, and are whole in SVG and HTML.
 */
export async function svgToPng(svg: string, scale = 2): Promise<Uint8Array> {
  const { Resvg } = await import('@resvg/resvg-js');
  const { resolve } = createRequire(import.meta.url);
  const fontFiles = ['DejaVuSans', 'DejaVuSans-Bold', 'DejaVuSansMono', 'DejaVuSansMono-Bold'].map((name) =>
    resolve(`dejavu-fonts-ttf/ttf/${name}.ttf`),
  );
  const image = new Resvg(svg, {
    background: '#ffffff',
    fitTo: { mode: 'zoom', value: scale },
    font: {
      loadSystemFonts: false,
      fontFiles,
      defaultFontFamily: 'DejaVu Sans',
      sansSerifFamily: 'DejaVu Sans',
      serifFamily: 'DejaVu Sans',
      monospaceFamily: 'DejaVu Sans Mono',
    },
  }).render();
  return new Uint8Array(image.asPng());
}
