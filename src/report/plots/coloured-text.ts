import { hexColour, inkOn, schemeColours } from './colours.js';
import type { Markup } from './markup.js';
import { markup } from './markup.js';
import { formatNumber } from './numbers.js';
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

/** Colours of the sixteen levels. */
export interface Palette {
  readonly surprisal: readonly string[];
  readonly entropy: readonly string[];
}

/** White to dark red under the text, white to dark blue for the bar of entropy below it. */
export async function lightPalette(): Promise<Palette> {
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
      markup`span.s${i} { background: ${hexColour(colour)}; color: ${inkOn(colour)}; } span.e${i} { border-bottom-color: ${hexColour(entropy[i])}; }\n`,
  );
}

async function textStyle(): Promise<Markup> {
  const [light, dark] = await Promise.all([lightPalette(), darkPalette()]);
  return markup`<style>
.text { white-space: pre-wrap; overflow-wrap: anywhere; max-height: 65vh; overflow: auto; resize: vertical;
  border: 1px solid var(--rule); border-radius: 4px; padding: 10px 14px; line-height: 2.05; font-size: 15px;
  background: var(--card); }
.text span { padding: 2px 0 1px; border-bottom: 4px solid transparent; box-shadow: inset 1px 0 rgba(128, 128, 128, 0.28); }
.text i { font-style: normal; opacity: 0.75; }
.text b { display: block; margin: 12px 0 2px; color: var(--faint); font-size: 13px; }
.text b:first-child { margin-top: 0; }
.text .u { opacity: 0.7; }
.scale { display: flex; flex-wrap: wrap; gap: 4px 28px; margin: 0 0 10px; font-size: 13px; align-items: center; }
.scale div { display: flex; align-items: center; gap: 8px; }
.scale p { display: flex; margin: 0; }
.scale span { width: 11px; height: 14px; }
.scale .bar span { height: 0; border-bottom-style: solid; border-bottom-width: 6px; }
${paletteRules(light)}@media screen and (prefers-color-scheme: dark) {
${paletteRules(dark)}}
@media print { .text { max-height: none; overflow: visible; } .text span { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
</style>
`;
}

function scaleMarkup(capNats: number): Markup {
  const boxes = (kind: 's' | 'e'): Markup[] =>
    Array.from({ length: LEVELS }, (_, i) => markup`<span class="${kind}${i}"></span>`);
  return markup`<div class="scale">
<div>surprisal, nats: 0 <p>${boxes('s')}</p> ${capNats} and more</div>
<div class="bar">entropy before the token, nats: 0 <p>${boxes('e')}</p> ${capNats} and more</div>
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
  const pieces = visiblePieces(token.text);
  // A leading space stands before the box: at the end of a line it would be a sliver of colour without its word.
  const spaced = !pieces[0].sign && pieces[0].text.startsWith(' ');
  const shown = spaced ? [{ ...pieces[0], text: pieces[0].text.slice(1) }, ...pieces.slice(1)] : pieces;
  const box = markup`<span class="${classes}" title="${hoverText(token)}">${shown.map(pieceMarkup)}</span>`;
  return spaced ? markup` ${box}` : box;
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
