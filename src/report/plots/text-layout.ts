/**
 * Widths of text without a browser. Advance widths in thousandths of an em of DejaVu Sans (its `hmtx` table) for
 * printable ASCII; other characters are taken as wide as the mean, full-width ones as one em.
 */
const ADVANCES = new Uint16Array([
  318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337, 636, 636, 636, 636, 636, 636, 636,
  636, 636, 636, 337, 337, 838, 838, 838, 531, 1000, 684, 686, 698, 770, 632, 575, 775, 752, 295, 295, 656, 557, 863,
  748, 787, 603, 787, 695, 635, 611, 732, 684, 989, 685, 611, 685, 390, 337, 390, 838, 500, 500, 613, 635, 550, 635,
  615, 352, 635, 634, 278, 278, 579, 278, 974, 634, 612, 635, 635, 411, 521, 392, 634, 592, 818, 592, 592, 525, 636,
  337, 636, 838,
]);

/** Width of one monospaced cell of DejaVu Sans Mono, in em. */
export const MONOSPACE_ADVANCE_EM = 0.602;

/** East Asian wide and full-width characters and emoji: two cells in a monospaced line. */
const WIDE =
  /^[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f000}-\u{3ffff}]/u;

/** Width in pixels of `text` set in DejaVu Sans at `fontSize`; bold letters are about a tenth wider. */
export function textWidth(text: string, fontSize: number, bold = false): number {
  let thousandths = 0;
  for (const character of text) {
    const index = character.codePointAt(0)! - 32;
    thousandths += ADVANCES[index] ?? (WIDE.test(character) ? 1000 : 640);
  }
  return (thousandths / 1000) * fontSize * (bold ? 1.1 : 1);
}

/** Number of monospaced cells that `text` takes. */
export function cellCount(text: string): number {
  let cells = 0;
  for (const character of text) cells += WIDE.test(character) ? 2 : /^\p{M}/u.test(character) ? 0 : 1;
  return cells;
}

/** `text` broken at spaces into lines no wider than `width` pixels; a word that is wider stands alone. */
export function wrapText(text: string, width: number, fontSize: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(/\s+/).filter((part) => part !== '')) {
    const longer = line === '' ? word : `${line} ${word}`;
    if (line !== '' && textWidth(longer, fontSize) > width) {
      lines.push(line);
      line = word;
    } else {
      line = longer;
    }
  }
  if (line !== '') lines.push(line);
  return lines;
}

/** `text` cut to `most` characters, with an ellipsis in the middle where the parts that tell names apart remain. */
export function shortenMiddle(text: string, most: number): string {
  const characters = [...text];
  if (characters.length <= most) return text;
  const tail = Math.floor((most - 1) / 2);
  return `${characters.slice(0, most - 1 - tail).join('')}\u2026${tail > 0 ? characters.slice(-tail).join('') : ''}`;
}
