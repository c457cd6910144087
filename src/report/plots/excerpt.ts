import type { TextToken } from './coloured-text.js';
import { lightPalette, surprisalLevel } from './coloured-text.js';
import { inkOn } from './colours.js';
import type { Markup } from './markup.js';
import { element, textNode } from './markup.js';
import { formatNumber } from './numbers.js';
import type { Panel } from './panel.js';
import { FULL_WIDTH, framePanel } from './panel.js';
import { MONOSPACE_FAMILY } from './svg.js';
import { cellCount, MONOSPACE_ADVANCE_EM } from './text-layout.js';
import { visiblePieces } from './token-text.js';

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
/** Cells of one box; the text of longer ones is cut. */
const LONGEST_BOX = 48;
/** Lines of an excerpt that keeps the line breaks of its text. */
const MOST_LINES = 10;
/** Words of more cells than this may be broken between their tokens. */
const LONGEST_WORD = 24;

/** A token, or a part of one that ends with a line break. */
interface Box {
  readonly token: TextToken;
  readonly text: string;
  readonly cells: number;
  readonly startsWord: boolean;
  readonly endsLine: boolean;
}

function cut(text: string, most: number): string {
  if (cellCount(text) <= most) return text;
  let kept = '';
  let cells = 0;
  for (const character of text) {
    cells += cellCount(character);
    if (cells >= most) break;
    kept += character;
  }
  return `${kept}\u2026`;
}

function boxesOf(tokens: readonly TextToken[]): Box[] {
  const boxes: Box[] = [];
  for (const token of tokens) {
    let text = '';
    let endsLine = false;
    const push = (): void => {
      const shown = cut(text, LONGEST_BOX);
      const startsWord =
        boxes.length === 0 || boxes[boxes.length - 1].endsLine || !/^[\p{L}\p{M}\p{N}\p{P}]/u.test(shown);
      boxes.push({ token, text: shown, cells: Math.max(1, cellCount(shown)), startsWord, endsLine });
      text = '';
    };
    for (const piece of visiblePieces(token.text)) {
      text += piece.text;
      endsLine = piece.lineBreak === true;
      if (endsLine) push();
    }
    if (text !== '') push();
  }
  return boxes;
}

interface Place {
  readonly line: number;
  readonly column: number;
}

/** Line and column of every box: a word goes to the next line as a whole, as in any text. */
function layOut(boxes: readonly Box[], perLine: number, lineBreaks: boolean): Place[] {
  const places: Place[] = [];
  let line = 0;
  let column = 0;
  for (let i = 0; i < boxes.length; i++) {
    let needed = boxes[i].cells;
    if (boxes[i].startsWord) {
      for (let j = i + 1; j < boxes.length && !boxes[j].startsWord && needed <= LONGEST_WORD; j++)
        needed += boxes[j].cells;
      if (needed > LONGEST_WORD) needed = boxes[i].cells;
    }
    if (column > 0 && column + needed > perLine) {
      line++;
      column = 0;
    }
    places.push({ line, column });
    column += boxes[i].cells;
    if (lineBreaks && boxes[i].endsLine) {
      line++;
      column = 0;
    }
  }
  return places;
}

/** An excerpt as a picture: coloured boxes in lines, bars of entropy below them. */
export async function excerptPanel(
  header: { readonly title: string; readonly note?: string },
  tokens: readonly TextToken[],
  capNats: number,
): Promise<Panel> {
  const palette = await lightPalette();
  const width = FULL_WIDTH;
  const boxes = boxesOf(tokens);
  const perLine = Math.floor(width / CELL);
  const broken = layOut(boxes, perLine, true);
  // Verse or a list would fill the picture with half-empty lines: there the sign for a line break must do.
  const places =
    broken.length > 0 && broken[broken.length - 1].line >= MOST_LINES ? layOut(boxes, perLine, false) : broken;
  const pieces: Markup[] = [];
  boxes.forEach(({ token, text, cells }, i) => {
    const level = surprisalLevel(token.surprisalNats, capNats);
    const entropyLevel = surprisalLevel(token.entropyNats, capNats);
    const fill = level < 0 ? '#ffffff' : palette.surprisal[level];
    const place = {
      x: round(places[i].column * CELL),
      y: places[i].line * LINE_HEIGHT,
      width: round(cells * CELL - 1),
    };
    const edge = { stroke: '#808080', 'stroke-opacity': 0.35, 'stroke-width': 0.5 };
    pieces.push(element('rect', { ...place, height: BOX_HEIGHT, fill, ...edge }));
    if (level >= 0 && entropyLevel >= 0) {
      const bar = { ...place, y: place.y + BOX_HEIGHT + 0.5, height: 3.5, fill: palette.entropy[entropyLevel] };
      pieces.push(element('rect', bar));
    }
    const ink = level < 0 ? '#6a6a6a' : inkOn(fill);
    pieces.push(element('text', { x: place.x, y: place.y + 12, fill: ink, 'xml:space': 'preserve' }, [textNode(text)]));
  });
  const lines = places.length === 0 ? 0 : places[places.length - 1].line + 1;
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((at) => ({
    at,
    label: `${at === 1 ? '\u2265' : ''}${formatNumber(at * capNats, 2)}`,
  }));
  const content = element('g', { 'font-family': MONOSPACE_FAMILY, 'font-size': FONT_SIZE }, pieces);
  const ramps = [
    { label: 'box: surprisal, nats', colours: palette.surprisal, ticks },
    { label: 'bar: entropy before it, nats', colours: palette.entropy, ticks },
  ];
  const framed = framePanel({ ...header, legend: { ramps } }, { width, height: lines * LINE_HEIGHT + 4, content });
  return { ...framed, pictureOnly: true };
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}
