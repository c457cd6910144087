import { Resvg } from '@resvg/resvg-js';
import { parseHTML } from 'linkedom';
import { beforeAll, describe, expect, it } from 'vitest';
import { InputError } from '../../../src/errors.js';
import type { Figure } from '../../../src/report/plots/figure.js';
import { composePanels, figureSvg, headlineText, plotBytes, plotExtension } from '../../../src/report/plots/figure.js';
import { htmlPage } from '../../../src/report/plots/html-page.js';
import { renderSvg, svgToPng } from '../../../src/report/plots/svg.js';
import { tokensFigure } from '../../../src/report/plots/tokens-figure.js';
import { SAMPLE_FIGURES, sampleTokens, sampleTokensData } from './sample-figures.js';

const fonts = ['DejaVuSans', 'DejaVuSans-Bold', 'DejaVuSansMono'].map(
  (name) => new URL(`../../../node_modules/dejavu-fonts-ttf/ttf/${name}.ttf`, import.meta.url).pathname,
);

function idsOf(text: string): { defined: string[]; used: string[] } {
  return {
    defined: [...text.matchAll(/ id="([^"]+)"/g)].map((match) => match[1]),
    used: [...text.matchAll(/url\(#([^)]+)\)/g)].map((match) => match[1]),
  };
}

describe('renderSvg', () => {
  const options = async (): Promise<Parameters<typeof renderSvg>[0]> => {
    const Plot = await import('@observablehq/plot');
    const data = [
      [0, 0],
      [1, 5],
    ];
    return {
      width: 300,
      height: 200,
      marks: [Plot.line(data, { clip: true }), Plot.text(['a < b & "c"'], { frameAnchor: 'middle' })],
    };
  };

  it('draws a standalone file with explicit size, ground and font', async () => {
    const svg = await renderSvg(await options());
    expect(svg).toMatch(
      /^<\?xml version="1.0" encoding="UTF-8"\?>\n<svg xmlns="http:\/\/www.w3.org\/2000\/svg" width="300" height="200"/,
    );
    expect(svg).toContain('<rect width="300" height="200" fill="#ffffff"/>');
    expect(svg).toContain('&#39;DejaVu Sans&#39;');
    expect(svg).toContain('a &lt; b &amp; &quot;c&quot;');
    expect(svg).not.toMatch(/<style|class=|var\(/);
  });

  it('numbers clip paths by the chart, not by the process', async () => {
    const first = await renderSvg(await options());
    const second = await renderSvg(await options());
    expect(second).toBe(first);
    const { defined, used } = idsOf(first);
    expect(defined).toHaveLength(1);
    expect(used).toEqual(defined);
  });
});

describe('svgToPng', () => {
  it('gives a PNG at the scale asked for', async () => {
    const png = await svgToPng('<svg xmlns="http://www.w3.org/2000/svg" width="30" height="20"/>', 3);
    const view = new DataView(png.buffer, png.byteOffset);
    expect([...png.subarray(0, 8)]).toEqual([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10]);
    expect([view.getUint32(16), view.getUint32(20)]).toEqual([90, 60]);
  });
});

describe.each(Object.keys(SAMPLE_FIGURES))('figure of %s', (name) => {
  let figure: Figure;
  let svg: string;
  let html: string;
  beforeAll(async () => {
    figure = await SAMPLE_FIGURES[name]();
    svg = figureSvg(figure);
    html = htmlPage(figure);
  });

  it('is drawn within its edges', () => {
    const width = Number(/ width="(\d+)"/.exec(svg)![1]);
    const height = Number(/ height="(\d+)"/.exec(svg)![1]);
    const drawn = svg.replace(`<rect width="${width}" height="${height}" fill="#ffffff"/>`, '');
    const box = new Resvg(drawn, { font: { loadSystemFonts: false, fontFiles: fonts } }).getBBox()!;
    expect(box.x).toBeGreaterThanOrEqual(20);
    expect(box.y).toBeGreaterThanOrEqual(20);
    expect(box.x + box.width).toBeLessThanOrEqual(width - 10);
    expect(box.y + box.height).toBeLessThanOrEqual(height - 10);
  });

  it('has panels that keep to their own boxes', async () => {
    for (const panel of figure.panels) {
      const alone = composePanels([panel], { title: '' }).replace(/<rect [^>]*fill="#ffffff"\/>/, '');
      const box = new Resvg(alone, { font: { loadSystemFonts: false, fontFiles: fonts } }).getBBox()!;
      expect(box.x, panel.title).toBeGreaterThanOrEqual(22);
      expect(box.x + box.width, panel.title).toBeLessThanOrEqual(24 + panel.width + 8);
    }
  });

  it('has no number that is none, no warning of the library, and no loose reference', () => {
    for (const text of [svg, html]) {
      expect(text).not.toMatch(/="[^"]*(NaN|Infinity|undefined)|>(NaN|undefined)</);
      expect(text).not.toContain('\u26a0');
      const { defined, used } = idsOf(text);
      for (const id of used) expect(defined).toContain(id);
    }
  });

  it('is a page that asks for nothing from outside and runs nothing', () => {
    const { document } = parseHTML(html);
    expect(document.querySelectorAll('script, link, img, iframe, object, embed, form, a, base').length).toBe(0);
    for (const node of document.querySelectorAll('*')) {
      for (const { name: attribute, value } of node.attributes) {
        expect(attribute).not.toMatch(/^on|^src$|^href$/);
        expect(value).not.toMatch(/https?:|javascript:|data:/);
      }
    }
    expect(html).not.toMatch(/@import|url\((?!#)/);
    expect(document.querySelector('meta[charset]')!.getAttribute('charset')).toBe('utf-8');
    expect(document.querySelector('meta[http-equiv]')!.getAttribute('content')).toContain("default-src 'none'");
    expect(document.querySelectorAll('.charts > svg').length).toBe(
      figure.panels.filter(({ pictureOnly }) => !pictureOnly).length,
    );
  });
});

describe('pages of text', () => {
  const hostile = [
    '<script>alert(1)</script>',
    '"><img src=x onerror=alert(1)>',
    "'onmouseover='alert(1)",
    '</span></div><iframe src="https://example.org">',
    '<!--',
    ']]>',
    '</style><style>*{display:none}',
    '</title><script>',
    '&lt;script&gt;',
    '\u0000<svg/onload=alert(1)>',
  ];

  it('cannot be broken by any token, document, title or label', async () => {
    const tokens = sampleTokens(hostile.length).map((token, i) => ({
      ...token,
      text: i % 2 === 0 ? hostile[i] : new TextEncoder().encode(hostile[i]),
      top1Text: hostile[(i + 1) % hostile.length],
      document: hostile[(i + 2) % hostile.length],
    }));
    const data = sampleTokensData(tokens);
    const figure = await tokensFigure({
      ...data,
      title: hostile[7],
      subtitle: hostile[0],
      headline: hostile.map((label) => ({ label, value: label, unit: label, interval: [0, 1], intervalName: label })),
      mostSurprising: hostile.map((text) => ({
        document: text,
        position: 1,
        before: text,
        token: tokens[0],
        after: text,
      })),
    });
    const { document } = parseHTML(htmlPage(figure));
    expect(document.querySelectorAll('script, img, iframe').length).toBe(0);
    expect(document.querySelectorAll('style').length).toBe(2);
    for (const node of document.querySelectorAll('*')) {
      for (const { name } of node.attributes) expect(name).not.toMatch(/^on/);
    }
    const boxes = [...document.querySelectorAll('.text span')];
    expect(boxes.map((box) => box.textContent)).toEqual(hostile.map((text) => text.replace('\u0000', '\\x00')));
    expect(document.querySelector('title')!.textContent).toBe(hostile[7]);
    const png = await svgToPng(figureSvg(figure), 0.2);
    expect(png.length).toBeGreaterThan(100);
  });

  it('show the first tokens and say how many are left out', async () => {
    const data = sampleTokensData(sampleTokens(600));
    const html = htmlPage(await tokensFigure({ ...data, tokenTotal: 31_112 }, { mostTokens: 500 }));
    const { document } = parseHTML(html);
    expect(document.querySelectorAll('.text span').length).toBe(500);
    expect(html).toContain('The first 500 of 31,112 tokens; 30,612 are left out here.');
    expect([...document.querySelectorAll('.text b')].map((node) => node.textContent)).toEqual(['first', 'second']);
  });

  it('cap at 4,000 tokens by default', async () => {
    const html = htmlPage(await tokensFigure(sampleTokensData(sampleTokens(4100))));
    expect(parseHTML(html).document.querySelectorAll('.text span').length).toBe(4000);
    expect(html).toContain('100 are left out here');
  });

  it('put surprisal into the colour and the numbers into the hover text', async () => {
    const base = sampleTokens(1)[0];
    const token = (surprisalNats: number): typeof base => ({
      ...base,
      text: 'x',
      surprisalNats,
      entropyNats: 1,
      rank: 2,
      top1Prob: 0.5,
      top1Text: ' y',
    });
    const values = [0, 0.49, 0.5, 7.99, 40, Number.POSITIVE_INFINITY, Number.NaN];
    const data = sampleTokensData(sampleTokens(20));
    const html = htmlPage(await tokensFigure({ ...data, tokens: values.map(token), tokenTotal: 7 }));
    const boxes = [...parseHTML(html).document.querySelectorAll('.text span')];
    expect(boxes.map((box) => box.getAttribute('class'))).toEqual([
      's0 e2',
      's0 e2',
      's1 e2',
      's15 e2',
      's15 e2',
      's15 e2',
      'u',
    ]);
    expect(boxes[2].getAttribute('title')).toBe('surprisal 0.500 nats\nentropy 1 nats\nrank 2\ntop-1 " y" p = 0.500');
    expect(boxes[5].getAttribute('title')).toContain('surprisal inf nats');
    expect(boxes[6].getAttribute('title')).toBe('not scored');
  });

  it('are drawn from nothing at all', async () => {
    const empty = { edges: [0, 1], counts: [0] };
    const figure = await tokensFigure({
      title: 'Empty',
      headline: [{ label: 'mean surprisal', value: Number.POSITIVE_INFINITY, unit: 'nats' }],
      entropyHistogram: empty,
      surprisalHistogram: { ...empty, above: 4 },
      meanEntropyNats: Number.NaN,
      byPosition: [],
      calibration: [{ predicted: 1, observed: Number.POSITIVE_INFINITY, standardError: Number.NaN, count: 3 }],
      confidence: [{ predicted: 0.5, observed: 1, standardError: 0, count: 1 }],
      density: { xEdges: [0, 1], yEdges: [0, 1], counts: [0] },
      tokens: [],
      tokenTotal: 0,
    });
    const svg = figureSvg(figure);
    expect(svg).toContain('no tokens to count');
    expect(svg).toContain('inf nats');
    expect(svg).not.toMatch(/NaN|Infinity/);
  });
});

describe('plot files', () => {
  it('are told by their extension', () => {
    expect(['a.svg', 'b.PNG', '/c.d/e.html', '.svg'].map(plotExtension)).toEqual(['svg', 'png', 'html', 'svg']);
    expect(() => plotExtension('plot.pdf')).toThrow(InputError);
    expect(() => plotExtension('plot.pdf')).toThrow(
      '--plot plot.pdf: cannot draw ".pdf"; end the name in .svg, .png or .html',
    );
    expect(() => plotExtension('a.b/plot')).toThrow('a file without extension');
  });

  it('hold what their extension says', async () => {
    const figure = await SAMPLE_FIGURES.choices();
    const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes.subarray(0, 15));
    expect(text(await plotBytes(figure, 'x.svg'))).toBe('<?xml version="');
    expect(text(await plotBytes(figure, 'x.html'))).toBe('<!doctype html>');
    expect((await plotBytes(figure, 'x.png'))[1]).toBe(0x50);
  });
});

describe('headlineText', () => {
  it('writes value, standard error and unit', () => {
    expect(headlineText({ label: 'm', value: 3.50376, standardError: 0.02134, unit: 'nats' })).toBe(
      '3.504 \u00b1 0.021 nats',
    );
    expect(headlineText({ label: 'm', value: 'lm-eval' })).toBe('lm-eval');
  });
});
