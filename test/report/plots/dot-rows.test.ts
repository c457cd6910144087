import { DOMParser } from 'linkedom';
import { describe, expect, it } from 'vitest';
import { dotRows } from '../../../src/report/plots/dot-rows.js';
import { markupText } from '../../../src/report/plots/markup.js';
import { drawPanel } from '../../../src/report/plots/panel.js';

interface Node {
  getAttribute(name: string): string | null;
  readonly textContent: string;
}

async function circles(
  xScale: 'linear' | 'log',
  values: readonly number[],
): Promise<{ titles: string[]; x: number[] }> {
  const rows = values.map((_, row) => `row ${row}`);
  const panel = await dotRows({ title: 't', xLabel: 'x', xScale, rows, series: [{ name: 's', values }] });
  const document = new DOMParser().parseFromString(markupText(drawPanel(panel).content), 'image/svg+xml');
  const dots = [...document.querySelectorAll('circle')] as unknown as Node[];
  return { titles: dots.map((dot) => dot.textContent), x: dots.map((dot) => Number(dot.getAttribute('cx'))) };
}

describe('dotRows', () => {
  it('puts values where they belong, on a logarithmic axis at equal steps for equal ratios', async () => {
    const { titles, x } = await circles('log', [0.1, 1, 10]);
    expect(titles).toEqual(['s, row 0: 0.1000', 's, row 1: 1', 's, row 2: 10']);
    expect(x[1] - x[0]).toBeCloseTo(x[2] - x[1], 2);
    const linear = await circles('linear', [1, 2, 3]);
    expect(linear.x[1] - linear.x[0]).toBeCloseTo(linear.x[2] - linear.x[1], 2);
  });

  it('leaves rows without a value empty, and says so when there are none', async () => {
    expect((await circles('linear', [1, Number.NaN, 3])).titles).toEqual(['s, row 0: 1', 's, row 2: 3']);
    const panel = await dotRows({
      title: 't',
      xLabel: 'x',
      rows: ['a'],
      series: [{ name: 's', values: [Number.NaN] }],
    });
    expect(markupText(drawPanel(panel).content)).toContain('no values to draw');
  });
});
