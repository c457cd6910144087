import { finiteOrName } from './values.js';

/** A cell of a summary: text, or a number shown with six significant digits. */
export type SummaryCell = string | number | undefined;

/** A number for people: six significant digits, integers in full, `inf`, `-inf` and `nan` by name. */
export function shownNumber(value: number): string {
  const named = finiteOrName(value);
  if (typeof named === 'string' || Number.isInteger(named)) return String(named);
  return String(Number(named.toPrecision(6)));
}

/** Columns that a character takes on a terminal: two for East Asian wide characters, none for combining marks. */
function displayWidth(text: string): number {
  let width = 0;
  for (const character of text) {
    if (/\p{Mark}|\p{Format}/u.test(character)) continue;
    width +=
      /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/u.test(
        character,
      )
        ? 2
        : 1;
  }
  return width;
}

/**
 * A small aligned table for standard output: texts to the left, columns of numbers to the right, two spaces between.
 * Ends with a newline.
 */
export function summaryTable(header: readonly string[], rows: readonly (readonly SummaryCell[])[]): string {
  const texts = rows.map((row) => header.map((_, i) => cellText(row[i])));
  const numeric = header.map(
    (_, i) => rows.length > 0 && rows.every((row) => row[i] === undefined || typeof row[i] === 'number'),
  );
  const widths = header.map((name, i) => Math.max(displayWidth(name), ...texts.map((row) => displayWidth(row[i]))));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, i) => {
        const space = ' '.repeat(widths[i] - displayWidth(cell));
        return numeric[i] ? space + cell : cell + space;
      })
      .join('  ')
      .trimEnd();
  const hasHeader = header.some((name) => name !== '');
  return `${[...(hasHeader ? [header] : []), ...texts].map(line).join('\n')}\n`;
}

function cellText(cell: SummaryCell): string {
  if (cell === undefined) return '';
  return typeof cell === 'number' ? shownNumber(cell) : cell;
}
