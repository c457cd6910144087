import fc from 'fast-check';
import { DOMParser } from 'linkedom';
import { describe, expect, it } from 'vitest';
import type { TextToken } from '../../../src/report/plots/coloured-text.js';
import { densityChart } from '../../../src/report/plots/density.js';
import { mostVariedStretch } from '../../../src/report/plots/excerpt.js';
import { heatMap } from '../../../src/report/plots/heat-map.js';
import { densityOutline, histogramChart, withoutTail } from '../../../src/report/plots/histogram.js';
import { lineChart } from '../../../src/report/plots/line-chart.js';
import { markupText } from '../../../src/report/plots/markup.js';
import type { Panel } from '../../../src/report/plots/panel.js';
import { drawPanel } from '../../../src/report/plots/panel.js';
import { reliabilityChart } from '../../../src/report/plots/reliability.js';
import { sampleTokens } from './sample-figures.js';

interface Node {
  getAttribute(name: string): string;
  readonly textContent: string;
}

function select(panel: Panel, selector: string): Node[] {
  const text = markupText(drawPanel(panel).content);
  const document = new DOMParser().parseFromString(text, 'image/svg+xml');
  return [...document.querySelectorAll(selector)] as unknown as Node[];
}

const number = (node: Node, name: string): number => Number(node.getAttribute(name));

describe('histograms', () => {
  it('enclose the share of the items that lie within the edges', () => {
    const counts = fc.array(fc.integer({ min: 0, max: 1000 }), { minLength: 1, maxLength: 30 });
    fc.assert(
      fc.property(
        counts,
        fc.integer({ min: 0, max: 100 }),
        fc.double({ min: 0.01, max: 3, noNaN: true }),
        (bins, above, width) => {
          const inside = bins.reduce((sum, count) => sum + count, 0);
          fc.pre(inside > 0);
          const edges = Array.from({ length: bins.length + 1 }, (_, i) => i * width);
          const outline = densityOutline({ edges, counts: bins, above }, false);
          let area = 0;
          for (let i = 1; i < outline.length; i++) area += (outline[i].x - outline[i - 1].x) * outline[i].y;
          expect(area).toBeCloseTo(inside / (inside + above), 9);
        },
      ),
    );
  });

  it('enclose their share in factors of ten on a logarithmic axis', () => {
    const outline = densityOutline({ edges: [1e-3, 1e-2, 1], counts: [3, 1] }, true);
    expect(outline.map(({ y }) => y)).toEqual([0, 0.75, 0.75, 0.125, 0.125, 0]);
  });

  it('cut a far tail and count it', () => {
    const edges = Array.from({ length: 101 }, (_, i) => i);
    const counts = edges.slice(1).map((_, i) => (i < 10 ? 1000 : i === 99 ? 2 : 0));
    const cut = withoutTail({ edges, counts, above: 3 });
    expect(cut.counts.length).toBe(10);
    expect(cut.edges.length).toBe(11);
    expect(cut.above).toBe(5);
  });

  it('stand on zero one by one, not on each other', async () => {
    const histogram = { edges: [0, 1, 2], counts: [1, 1] };
    const series = ['a', 'b'].map((name) => ({ name, histogram }));
    const panel = await histogramChart({ title: 'h', xLabel: 'nats', unit: 'nat', items: 'tokens', series });
    const paths = select(panel, '[aria-label="area"] path').map((path) => path.getAttribute('d'));
    expect(paths).toHaveLength(2);
    expect(paths[0]).toBe(paths[1]);
  });
});

describe('reliability', () => {
  it('puts a bin at its predicted and observed probability', async () => {
    const bins = [0, 0.25, 1].map((value) => ({ predicted: value, observed: value, standardError: 0.1, count: 10 }));
    const panel = await reliabilityChart({
      title: 'r',
      xLabel: 'p',
      yLabel: 'q',
      items: 'tokens',
      bins,
      probability: true,
    });
    const dots = select(panel, '[aria-label="dot"] circle');
    const [x0, x1, x2] = dots.map((dot) => number(dot, 'cx'));
    const [y0, y1, y2] = dots.map((dot) => number(dot, 'cy'));
    expect((x1 - x0) / (x2 - x0)).toBeCloseTo(0.25, 3);
    expect((y1 - y0) / (y2 - y0)).toBeCloseTo(0.25, 3);
    const rules = select(panel, '[aria-label="rule"] line');
    // The ends of an error bar stay within the axes.
    expect(number(rules[0], 'y1')).toBeCloseTo(y0, 2);
    expect(Math.abs(number(rules[1], 'y1') - number(rules[1], 'y2'))).toBeCloseTo(0.2 * Math.abs(y2 - y0), 1);
  });

  it('makes the area of a dot follow the count', async () => {
    const bins = [1, 4].map((count) => ({ predicted: count / 5, observed: 0.5, standardError: 0, count }));
    const panel = await reliabilityChart({ title: 'r', xLabel: 'p', yLabel: 'q', items: 'x', bins, probability: true });
    const radii = select(panel, '[aria-label="dot"] circle').map((dot) => number(dot, 'r'));
    const [small, large] = radii.sort((a, b) => a - b);
    expect(large / small).toBeCloseTo(2, 2);
  });
});

describe('heat maps', () => {
  const axes = { rowLabel: 'layer', columnLabel: 'head', valueLabel: 'share', kind: 'amount', domain: [0, 1] } as const;

  it('colour every cell by its value, ends and missing ones too', async () => {
    const values = [0, 1, Number.NaN, 2];
    const panel = await heatMap({ title: 'm', rows: ['0', '1'], columns: ['0', '1'], values, ...axes });
    const cells = select(panel, '[aria-label="cell"] rect');
    expect(cells.map((cell) => cell.getAttribute('fill'))).toEqual(['#440154', '#fde725', '#8c8c8c', '#fde725']);
    expect(cells[1].textContent).toBe('layer 0, head 1: 1');
    expect(number(cells[0], 'x')).toBeLessThan(number(cells[1], 'x'));
    expect(number(cells[0], 'y')).toBeLessThan(number(cells[2], 'y'));
  });

  it('are white at zero, red above and blue below when signed', async () => {
    const values = [-3, 0, 1];
    const panel = await heatMap({
      title: 'm',
      rows: ['a'],
      columns: ['x', 'y', 'z'],
      values,
      ...axes,
      kind: 'signed',
      domain: undefined,
    });
    const [below, zero, above] = select(panel, '[aria-label="cell"] rect').map((cell) => cell.getAttribute('fill'));
    expect(Number.parseInt(below.slice(1, 3), 16)).toBeLessThan(Number.parseInt(below.slice(5), 16));
    expect(Number.parseInt(zero.slice(1, 3), 16)).toBeGreaterThan(240);
    expect(Number.parseInt(above.slice(1, 3), 16)).toBeGreaterThan(Number.parseInt(above.slice(5), 16));
  });

  it('mark flagged cells', async () => {
    const flags = [{ label: 'collapsed', shape: 'cross', cells: [{ row: 1, column: 0 }] }] as const;
    const panel = await heatMap({
      title: 'm',
      rows: ['0', '1'],
      columns: ['0', '1'],
      values: [0, 1, 0, 1],
      flags,
      ...axes,
    });
    expect(select(panel, '[aria-label="dot"] path')).toHaveLength(1);
    expect(markupText(panel.header)).toContain('collapsed (1)');
  });

  it('refuse a matrix of another size', async () => {
    await expect(heatMap({ title: 'm', rows: ['0'], columns: ['0', '1'], values: [1], ...axes })).rejects.toThrow(
      'heat map "m": 1 values for 1 x 2 cells',
    );
  });
});

describe('density', () => {
  it('draws occupied bins only, rows of x before columns of y', async () => {
    const density = { xEdges: [0, 1, 2], yEdges: [0, 10, 20, 30], counts: [0, 5, 0, 0, 0, 7] };
    const panel = await densityChart({ title: 'd', xLabel: 'x', yLabel: 'y', items: 'tokens', density });
    const texts = select(panel, '[aria-label="rect"] rect').map((cell) => cell.textContent);
    expect(texts).toEqual(['5 tokens: 0 to 1, 10 to 20', '7 tokens: 1 to 2, 20 to 30']);
  });
});

describe('lines', () => {
  it('leave a gap at a missing value and skip what a logarithmic axis cannot show', async () => {
    const series = [{ name: 'a', x: [1, 2, 3, 4], y: [0.1, Number.NaN, 0.01, 0] }];
    const panel = await lineChart({ title: 'l', xLabel: 'x', yLabel: 'y', yScale: 'log', series });
    expect(select(panel, '[aria-label="dot"] circle').map((dot) => dot.textContent)).toEqual([
      'a at 1: 0.1000',
      'a at 3: 0.01000',
    ]);
  });

  it('draw a band of one standard error on each side', async () => {
    const series = [{ name: 'a', x: [0, 1], y: [1, 3], standardError: [0.5, 0.5] }];
    const panel = await lineChart({ title: 'l', xLabel: 'x', yLabel: 'y', yLow: 0, yHigh: 4, series });
    const numbers = (text: string): number[] => text.match(/-?[\d.]+/g)!.map(Number);
    const [dot0, dot1] = select(panel, '[aria-label="dot"] circle').map((dot) => number(dot, 'cy'));
    const perNat = (dot0 - dot1) / 2;
    const band = numbers(select(panel, '[aria-label="area"] path')[0].getAttribute('d'));
    const ys = band.filter((_, i) => i % 2 === 1);
    expect(Math.max(...ys) - dot0).toBeCloseTo(0.5 * perNat, 1);
    expect(dot1 - Math.min(...ys)).toBeCloseTo(0.5 * perNat, 1);
  });

  it('say so when there is nothing to draw', async () => {
    const series = [{ name: 'a', x: [1], y: [Number.NaN] }];
    const panel = await lineChart({ title: 'l', xLabel: 'x', yLabel: 'y', series });
    expect(markupText(panel.body.content)).toContain('no values to draw');
  });
});

describe('mostVariedStretch', () => {
  it('equals the search over every stretch', () => {
    const cap = 8;
    const score = (part: readonly TextToken[], length: number): number => {
      const values = part.map(({ surprisalNats }) => surprisalNats).filter((nats) => !Number.isNaN(nats));
      if (values.length === 0) return -1;
      const capped = values.map((nats) => Math.min(nats, cap));
      const mean = capped.reduce((sum, value) => sum + value, 0) / capped.length;
      return capped.reduce((sum, value) => sum + (value - mean) ** 2, 0) / length;
    };
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 2, max: 12 }), fc.nat(), (count, length, seed) => {
        const tokens = sampleTokens(count, seed);
        let best = -1;
        for (let start = 0; start < count; start++) {
          const end = Math.min(count, start + length);
          if (tokens[start].document !== tokens[end - 1].document) continue;
          best = Math.max(best, score(tokens.slice(start, end), length));
        }
        for (const name of ['first', 'second']) {
          const document = tokens.filter((token) => token.document === name);
          if (document.length > 0 && document.length < length) best = Math.max(best, score(document, length));
        }
        const { start, end } = mostVariedStretch(tokens, length, cap);
        expect(score(tokens.slice(start, end), length)).toBeCloseTo(best, 9);
        expect(tokens[start].document).toBe(tokens[end - 1].document);
      }),
      { numRuns: 200 },
    );
  });
});
