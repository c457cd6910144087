/**
 * Colours that keep their order in grey print and for colour-blind readers: Okabe & Ito (2008) for categories, Plot's
 * viridis, oranges-to-red and blues for amounts, red-blue for signed amounts.
 */
export const CATEGORY_COLOURS: readonly string[] = [
  '#0072b2',
  '#d55e00',
  '#009e73',
  '#cc79a7',
  '#e69f00',
  '#56b4e9',
  '#7a5195',
  '#808080',
];

/** Colour of a reference line, visible on white and on black. */
export const REFERENCE_COLOUR = '#808080';

export type Scheme = 'viridis' | 'blues' | 'orrd' | 'rdbu' | 'inferno' | 'ylgnbu';

/** `count` colours of a scheme between `from` and `to` (0..1), as `#rrggbb`. */
export async function schemeColours(scheme: Scheme, count: number, from = 0, to = 1): Promise<string[]> {
  const { scale } = await import('@observablehq/plot');
  const colour = scale({ color: { type: 'linear', domain: [0, 1], scheme, clamp: true } });
  return Array.from({ length: count }, (_, i) =>
    hexColour(String(colour.apply(from + ((to - from) * i) / Math.max(1, count - 1)))),
  );
}

/** `rgb(r, g, b)` or `#rrggbb` as `#rrggbb`. */
export function hexColour(colour: string): string {
  if (colour.startsWith('#')) return colour.toLowerCase();
  const channels = /^rgb\((\d+),\s*(\d+),\s*(\d+)\)$/.exec(colour);
  if (channels === null) throw new TypeError(`not a colour: ${colour}`);
  return `#${channels
    .slice(1)
    .map((channel) => Number(channel).toString(16).padStart(2, '0'))
    .join('')}`;
}

/** Relative luminance of WCAG 2 (0 black, 1 white). */
export function luminance(hex: string): number {
  const linear = [1, 3, 5].map((at) => {
    const channel = Number.parseInt(hex.slice(at, at + 2), 16) / 255;
    return channel <= 0.04045 ? channel / 12.92 : ((channel + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
}

/** Black or white, whichever has the larger contrast on `hex`. */
export function inkOn(hex: string): '#000000' | '#ffffff' {
  const ground = luminance(hex);
  return (ground + 0.05) / 0.05 >= 1.05 / (ground + 0.05) ? '#000000' : '#ffffff';
}
