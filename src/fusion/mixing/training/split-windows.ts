import { InputError } from '../../../errors.js';
import type { TokenWindows } from '../../../training/language/token-data.js';
import { IGNORED } from '../../../training/types.js';

/**
 * Takes `count` windows out of a text, evenly spread over it; neither part holds a window of the other.
 * @throws InputError when nothing would be left
 */
export function splitWindows(
  windows: TokenWindows,
  count: number,
  what: string,
): { readonly rest: TokenWindows; readonly taken: TokenWindows } {
  if (windows.count <= count) {
    throw new InputError(
      `${what}: ${windows.count} window${windows.count === 1 ? '' : 's'} of ${windows.length} positions, of which ${count} would be ` +
        'held out: give more text, or shorten --context',
    );
  }
  const isTaken = new Uint8Array(windows.count);
  for (let n = 0; n < count; n++) isTaken[Math.floor(((n + 0.5) * windows.count) / count)] = 1;
  const part = (wanted: number): TokenWindows => {
    const chosen: number[] = [];
    isTaken.forEach((taken, w) => {
      if (taken === wanted) chosen.push(w);
    });
    return chosenWindows(windows, chosen);
  };
  return { rest: part(0), taken: part(1) };
}

function chosenWindows(windows: TokenWindows, chosen: readonly number[]): TokenWindows {
  const { length } = windows;
  const tokens = new Int32Array(chosen.length * length);
  const labels = new Int32Array(chosen.length * length);
  chosen.forEach((w, at) => {
    tokens.set(windows.tokens.subarray(w * length, (w + 1) * length), at * length);
    labels.set(windows.labels.subarray(w * length, (w + 1) * length), at * length);
  });
  return {
    count: chosen.length,
    length,
    tokens,
    labels,
    lengths: Int32Array.from(chosen, (w) => windows.lengths[w]),
    validLabels: labels.reduce((sum, label) => sum + (label === IGNORED ? 0 : 1), 0),
    cutTexts: 0,
  };
}
