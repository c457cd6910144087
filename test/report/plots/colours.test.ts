import { Resvg } from '@resvg/resvg-js';
import { describe, expect, it } from 'vitest';
import { hexColour, inkOn, luminance, schemeColours } from '../../../src/report/plots/colours.js';
import { element, textNode } from '../../../src/report/plots/markup.js';
import { standaloneSvg } from '../../../src/report/plots/svg.js';
import { cellCount, shortenMiddle, textWidth, wrapText } from '../../../src/report/plots/text-layout.js';

const contrast = (a: string, b: string): number => {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
};

describe('colours', () => {
  it.each(['orrd', 'blues', 'viridis', 'inferno', 'ylgnbu'] as const)(
    'of %s are ordered by lightness',
    async (scheme) => {
      const steps = (await schemeColours(scheme, 16)).map(luminance);
      const sign = Math.sign(steps[15] - steps[0]);
      for (let i = 1; i < 16; i++) expect(sign * (steps[i] - steps[i - 1])).toBeGreaterThan(0);
    },
  );

  it('run from white in the middle to both ends of the signed scheme', async () => {
    const steps = (await schemeColours('rdbu', 11)).map(luminance);
    expect(steps.indexOf(Math.max(...steps))).toBe(5);
  });

  it('are given the ink that can be read on them', async () => {
    for (const colour of [...(await schemeColours('orrd', 32)), ...(await schemeColours('viridis', 32))]) {
      expect(contrast(colour, inkOn(colour))).toBeGreaterThanOrEqual(4.5);
    }
  });

  it('are read from both notations', () => {
    expect(hexColour('rgb(255, 0, 10)')).toBe('#ff000a');
    expect(() => hexColour('red')).toThrow(TypeError);
  });
});

describe('text widths', () => {
  const font = new URL('../../../node_modules/dejavu-fonts-ttf/ttf/', import.meta.url).pathname;

  it.each(['mean surprisal, nats', 'share of log(visible keys)', '0123456789', 'WMWMWM iiilll'])(
    'agree with the drawn width of %s',
    (text) => {
      // Bars on both sides make the drawn box end where the advance widths end, up to their own side bearings.
      const drawn = element('text', { x: 0, y: 50, 'font-size': 100, 'xml:space': 'preserve' }, [
        textNode(`|${text}|`),
      ]);
      const svg = standaloneSvg({ width: 10, height: 10, content: drawn }).replace(/<rect[^>]*>/, '');
      const box = new Resvg(svg, { font: { loadSystemFonts: false, fontFiles: [`${font}DejaVuSans.ttf`] } }).getBBox()!;
      const bearing = 0.337 - 0.0837;
      const expected = textWidth(`|${text}|`, 100) - 100 * bearing;
      // Kerning, which the widths leave out, moves a few pairs of letters together.
      expect(Math.abs(box.width / expected - 1)).toBeLessThan(0.01);
    },
  );

  it('count two cells for wide characters and none for combining ones', () => {
    expect(cellCount('ab\u4e2de\u0301')).toBe(5);
  });

  it('break lines at spaces within the width', () => {
    const lines = wrapText('one two three four five six seven', 60, 11);
    expect(lines.join(' ')).toBe('one two three four five six seven');
    for (const line of lines) expect(textWidth(line, 11)).toBeLessThanOrEqual(60);
  });

  it('shorten names in the middle', () => {
    expect(shortenMiddle('model.layers.0.mlp.down_proj', 11)).toBe('model\u2026_proj');
    expect(shortenMiddle('abc', 3)).toBe('abc');
  });
});
