import { hexColour, inkOn, schemeColours } from './colours.js';
import type { Markup } from './markup.js';
import { element, markup, textNode } from './markup.js';
import { formatNumber } from './numbers.js';
import type { Panel } from './panel.js';
import { FULL_WIDTH, framePanel } from './panel.js';
import { MONOSPACE_FAMILY } from './svg.js';
import { cellCount, MONOSPACE_ADVANCE_EM } from './text-layout.js';
import type { TextPiece } from './token-text.js';
import { oneLine, visiblePieces } from './token-text.js';

/** A scored token. `text` is its text, or its bytes where they need not be whole characters. */
export interface TextToken {
  readonly text: string | Uint8Array;
  /** -log p of this token; NaN where it was not scored (a prompt, the first token of a window). */
  readonly surprisalNats: number;
  /** Entropy of the distribution this token was drawn from. */
  readonly entropyNats: number;
  /** 1 when the token was the most probable. */
  readonly rank: number;
  readonly top1Prob: number;
  /** The most probable token, if it is known. */
  readonly top1Text?: string | Uint8Array;
  /** Name of the document; a heading stands where it changes. */
  readonly document?: string;
}

/** Steps of the colour scales. Half a nat each at the usual cap of eight nats: finer steps cannot be told apart. */
const LEVELS = 16;

/** Level 0..15 of a value on a scale from 0 to `capNats`; -1 for NaN. Infinite values take the last level. */
export function surprisalLevel(nats: number, capNats: number): number {
  if (Number.isNaN(nats)) return -1;
  return Math.max(0, Math.min(LEVELS - 1, Math.floor((nats / capNats) * LEVELS)));
}

interface Palette {
  readonly surprisal: readonly string[];
  readonly entropy: readonly string[];
}

/** White to dark red under the text, white to dark blue for the bar of entropy below it. */
async function lightPalette(): Promise<Palette> {
  const [surprisal, entropy] = await Promise.all([
    schemeColours('orrd', LEVELS, 0, 0.95),
    schemeColours('blues', LEVELS, 0.05, 1),
  ]);
  return { surprisal: ['#ffffff', ...surprisal.slice(1)], entropy };
}

/** For a dark ground: from black through red to yellow, and dark to light blue. */
async function darkPalette(): Promise<Palette> {
  const [surprisal, entropy] = await Promise.all([
    schemeColours('inferno', LEVELS, 0.1, 0.85),
    schemeColours('blues', LEVELS, 0.9, 0.15),
  ]);
  return { surprisal: ['#1a1a1a', ...surprisal.slice(1)], entropy };
}

function paletteRules({ surprisal, entropy }: Palette): Markup[] {
  return surprisal.map(
    (colour, i) =>
      markup`.s${i} { background: ${hexColour(colour)}; color: ${inkOn(colour)}; } .e${i} { border-bottom-color: ${hexColour(entropy[i])}; }\n`,
  );
}

async function textStyle(): Promise<Markup> {
  const [light, dark] = await Promise.all([lightPalette(), darkPalette()]);
  return markup`<style>
.text { white-space: pre-wrap; overflow-wrap: anywhere; max-height: 65vh; overflow: auto; resize: vertical;
  border: 1px solid var(--rule); border-radius: 4px; padding: 10px 14px; line-height: 2.05; font-size: 15px;
  background: var(--card); }
.text span { padding: 2px 0 1px; border-bottom: 4px solid transparent; box-shadow: inset 1px 0 rgba(128, 128, 128, 0.28); }
.text i { font-style: normal; opacity: 0.6; }
.text b { display: block; margin: 12px 0 2px; color: var(--faint); font-size: 13px; }
.text b:first-child { margin-top: 0; }
.text .u { opacity: 0.6; }
.scale { display: flex; flex-wrap: wrap; gap: 4px 28px; margin: 0 0 10px; font-size: 13px; align-items: center; }
.scale div { display: flex; align-items: center; gap: 8px; }
.scale span { display: inline-block; width: 11px; height: 14px; }
.scale .bar span { height: 4px; border-bottom-style: solid; border-bottom-width: 4px; }
${paletteRules(light)}@media (prefers-color-scheme: dark) {
${paletteRules(dark)}}
@media print { .text { max-height: none; overflow: visible; } .text span { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
</style>
`;
}

function scaleMarkup(capNats: number): Markup {
  const boxes = (kind: 's' | 'e'): Markup[] =>
    Array.from({ length: LEVELS }, (_, i) => markup`<span class="${kind}${i}"></span>`);
  return markup`<div class="scale">
<div>surprisal, nats: 0 <span style="display:contents">${boxes('s')}</span> ${capNats} and more</div>
<div class="bar">entropy before the token, nats: 0 <span style="display:contents">${boxes('e')}</span> ${capNats} and more</div>
</div>
`;
}

function hoverText(token: TextToken): string {
  if (Number.isNaN(token.surprisalNats)) return 'not scored';
  const likeliest = token.top1Text === undefined ? '' : ` ${JSON.stringify(oneLine(token.top1Text, 24))}`;
  return [
    `surprisal ${formatNumber(token.surprisalNats, 3)} nats`,
    `entropy ${formatNumber(token.entropyNats, 3)} nats`,
    `rank ${formatNumber(token.rank)}`,
    `top-1${likeliest} p = ${formatNumber(token.top1Prob, 3)}`,
  ].join('\n');
}

function pieceMarkup({ text, sign, lineBreak }: TextPiece): Markup {
  const shown = sign ? markup`<i>${text}</i>` : markup`${text}`;
  return lineBreak === true ? markup`${shown}\n` : shown;
}

function tokenMarkup(token: TextToken, capNats: number): Markup {
  const level = surprisalLevel(token.surprisalNats, capNats);
  const entropyLevel = surprisalLevel(token.entropyNats, capNats);
  const classes = level < 0 ? 'u' : entropyLevel < 0 ? `s${level}` : `s${level} e${entropyLevel}`;
  return markup`<span class="${classes}" title="${hoverText(token)}">${visiblePieces(token.text).map(pieceMarkup)}</span>`;
}

/**
 * The text with every token on the colour of its surprisal, a bar below it in the colour of its entropy, and the
 * numbers as hover text. At most `most` tokens; `total` says how many there are, and the rest is told.
 */
export async function colouredText(
  tokens: readonly TextToken[],
  { capNats, most, total }: { readonly capNats: number; readonly most: number; readonly total: number },
): Promise<{ readonly body: Markup; readonly leftOut: number }> {
  const shown = tokens.slice(0, most);
  const pieces: Markup[] = [];
  let document: string | undefined;
  for (const token of shown) {
    if (token.document !== undefined && token.document !== document) {
      document = token.document;
      pieces.push(markup`<b>${document}</b>`);
    }
    pieces.push(tokenMarkup(token, capNats));
  }
  const body = markup`${await textStyle()}${scaleMarkup(capNats)}<div class="text">${pieces}</div>\n`;
  return { body, leftOut: Math.max(0, total - shown.length) };
}

/** A stretch of `length` tokens within one document. */
export interface Excerpt {
  readonly start: number;
  readonly end: number;
}

/**
 * The stretch of at most `length` consecutive tokens of one document where capped surprisal varies most: where both
 * what the model knows and what it does not can be seen. The first such stretch; the whole document when it is shorter.
 */
export function mostVariedStretch(tokens: readonly TextToken[], length: number, capNats: number): Excerpt {
  let best: Excerpt = { start: 0, end: Math.min(length, tokens.length) };
  let bestVariance = -1;
  const sums = new Float64Array(tokens.length + 1);
  const squares = new Float64Array(tokens.length + 1);
  const scored = new Float64Array(tokens.length + 1);
  for (let i = 0; i < tokens.length; i++) {
    const nats = tokens[i].surprisalNats;
    const known = !Number.isNaN(nats);
    const value = known ? Math.min(nats, capNats) : 0;
    sums[i + 1] = sums[i] + value;
    squares[i + 1] = squares[i] + value * value;
    scored[i + 1] = scored[i] + (known ? 1 : 0);
  }
  for (let start = 0; start < tokens.length; ) {
    let end = start;
    while (end < tokens.length && tokens[end].document === tokens[start].document) end++;
    for (let at = start; at === start || at + length <= end; at++) {
      const to = Math.min(at + length, end);
      const count = scored[to] - scored[at];
      if (count === 0) continue;
      const mean = (sums[to] - sums[at]) / count;
      // Divided by `length`, not by `count`: a document of three tokens does not win by its variance alone.
      const variance = ((squares[to] - squares[at]) / count - mean * mean) * (count / length);
      if (variance > bestVariance + 1e-12) {
        bestVariance = variance;
        best = { start: at, end: to };
      }
    }
    start = end;
  }
  return best;
}

const FONT_SIZE = 12.5;
const CELL = FONT_SIZE * MONOSPACE_ADVANCE_EM;
const LINE_HEIGHT = 25;
const BOX_HEIGHT = 16;
/** Cells of one token in a picture; longer ones are cut. */
const LONGEST_TOKEN = 48;

/** An excerpt as a picture: coloured boxes in lines, bars of entropy below them. */
export async function excerptPanel(
  header: { readonly title: string; readonly note?: string },
  tokens: readonly TextToken[],
  capNats: number,
): Promise<Panel> {
  const palette = await lightPalette();
  const width = FULL_WIDTH;
  const perLine = Math.floor(width / CELL);
  const pieces: Markup[] = [];
  let line = 0;
  let column = 0;
  for (const token of tokens) {
    const visible = visiblePieces(token.text);
    let text = visible.map((piece) => piece.text).join('');
    if (cellCount(text) > LONGEST_TOKEN) text = oneLine(token.text, LONGEST_TOKEN);
    const cells = Math.max(1, cellCount(text));
    if (column > 0 && column + cells > perLine) {
      line++;
      column = 0;
    }
    const level = surprisalLevel(token.surprisalNats, capNats);
    const entropyLevel = surprisalLevel(token.entropyNats, capNats);
    const colour = level < 0 ? '#ffffff' : palette.surprisal[level];
    const box = { x: round(column * CELL), y: line * LINE_HEIGHT, width: round(cells * CELL - 1) };
    pieces.push(
      element('rect', {
        ...box,
        height: BOX_HEIGHT,
        fill: colour,
        stroke: '#808080',
        'stroke-opacity': 0.35,
        'stroke-width': 0.5,
      }),
    );
    if (entropyLevel >= 0) {
      pieces.push(
        element('rect', { ...box, y: box.y + BOX_HEIGHT + 0.5, height: 3.5, fill: palette.entropy[entropyLevel] }),
      );
    }
    pieces.push(
      element(
        'text',
        { x: box.x, y: box.y + 12, fill: level < 0 ? '#6a6a6a' : inkOn(colour), 'xml:space': 'preserve' },
        [textNode(text)],
      ),
    );
    column += cells;
    if (visible.some(({ lineBreak }) => lineBreak === true)) {
      line++;
      column = 0;
    }
  }
  const height = (line + (column > 0 ? 1 : 0)) * LINE_HEIGHT + 4;
  const ticks = [0, 2, 4, 6, 8].map((part) => ({
    at: part / 8,
    label: `${part === 8 ? '\u2265' : ''}${formatNumber((part / 8) * capNats, 2)}`,
  }));
  const content = element('g', { 'font-family': MONOSPACE_FAMILY, 'font-size': FONT_SIZE }, pieces);
  const ramps = [
    { label: 'box: surprisal, nats', colours: palette.surprisal, ticks },
    { label: 'bar: entropy before it, nats', colours: palette.entropy, ticks },
  ];
  const framed = framePanel({ ...header, legend: { ramps } }, { width, height, content });
  return { ...framed, pictureOnly: true };
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}
