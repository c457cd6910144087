import type { Figure, FigureTable, HeadlineFigure, Section } from './figure.js';
import { drawRow, headlineText, rowsOf } from './figure.js';
import type { Markup } from './markup.js';
import { element, markup, markupText } from './markup.js';
import { formatNumber } from './numbers.js';
import type { Drawing } from './svg.js';

/** Style of every page. Colours follow the reader's light or dark setting; print is always light. */
const STYLE = markup`
:root { color-scheme: light dark; --ground: #ffffff; --ink: #1b1b1b; --faint: #5f5f5f; --rule: #d9d9d9; --card: #fafafa; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ground: #121212; --ink: #e8e8e8; --faint: #a3a3a3; --rule: #3a3a3a; --card: #1a1a1a; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px; max-width: 1060px; background: var(--ground); color: var(--ink);
  font: 14px/1.5 system-ui, "DejaVu Sans", Verdana, sans-serif; }
h1 { font-size: 22px; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 16px; margin: 32px 0 4px; }
p.note { margin: 0 0 10px; color: var(--faint); max-width: 75ch; overflow-wrap: anywhere; }
table { border-collapse: collapse; margin: 12px 0; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 14px 4px 0; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top; }
th { font-weight: 600; }
td.n, th.n { text-align: right; padding: 4px 14px 4px 10px; }
.wide { overflow-x: auto; }
.charts { display: flex; flex-wrap: wrap; gap: 28px 24px; margin-top: 28px; align-items: flex-start; }
.charts > svg { max-width: 100%; height: auto; color: var(--ink); }`;

function headlineRow(figure: HeadlineFigure): Markup {
  const { label, interval, intervalName } = figure;
  const range =
    interval === undefined
      ? ''
      : `[${formatNumber(interval[0])}, ${formatNumber(interval[1])}]${intervalName === undefined ? '' : ` ${intervalName}`}`;
  return markup`<tr><th scope="row">${label}</th><td>${headlineText(figure)}</td><td>${range}</td></tr>\n`;
}

/** A table of an HTML page; a column is set right when all of its cells are numbers. */
export function tableMarkup({ columns, rows }: FigureTable): Markup {
  const numeric = columns.map((_, i) => rows.length > 0 && rows.every((row) => typeof row[i] === 'number'));
  const cellClass = (i: number): Markup => (numeric[i] ? markup` class="n"` : markup``);
  const head = columns.map((name, i) => markup`<th scope="col"${cellClass(i)}>${name}</th>`);
  const body = rows.map((row) => {
    const cells = columns.map((_, i) => {
      const value = row[i] ?? '';
      return markup`<td${cellClass(i)}>${typeof value === 'number' ? formatNumber(value) : value}</td>`;
    });
    return markup`<tr>${cells}</tr>\n`;
  });
  return markup`<div class="wide"><table><thead><tr>${head}</tr></thead><tbody>\n${body}</tbody></table></div>\n`;
}

function sectionMarkup({ heading, note, body }: Section): Markup {
  const said = note === undefined ? markup`` : markup`<p class="note">${note}</p>\n`;
  return markup`<section>\n<h2>${heading}</h2>\n${said}${body}</section>\n`;
}

function chartMarkup(title: string, { width, height, content }: Drawing): Markup {
  const attributes = {
    role: 'img',
    'aria-label': title,
    width,
    height,
    viewBox: `0 0 ${width} ${height}`,
    fill: 'currentColor',
    'font-family': "'DejaVu Sans', Verdana, sans-serif",
    'font-size': 11,
  };
  return markup`${element('svg', attributes, [content])}\n`;
}

/**
 * A figure as one self-contained HTML file: no script, no address outside of the file (a content security policy
 * forbids both), the summary first, charts as inline SVG that take the colours of the page.
 */
export function htmlPage(figure: Figure): string {
  const { title, subtitle, headline, panels, sections } = figure;
  const under = subtitle === undefined ? markup`` : markup`<p class="note">${subtitle}</p>\n`;
  const summary =
    headline.length === 0 ? markup`` : markup`<table>\n<tbody>\n${headline.map(headlineRow)}</tbody>\n</table>\n`;
  const rows = rowsOf(panels.filter(({ pictureOnly }) => pictureOnly !== true));
  const charts = rows.flatMap((row) => drawRow(row).map((drawing, i) => chartMarkup(row[i].title, drawing)));
  const before = sections.filter(({ first }) => first === true).map(sectionMarkup);
  const after = sections.filter(({ first }) => first !== true).map(sectionMarkup);
  const page = markup`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<style>${STYLE}
</style>
</head>
<body>
<h1>${title}</h1>
${under}${summary}${before}<div class="charts">
${charts}</div>
${after}</body>
</html>
`;
  return markupText(page);
}
