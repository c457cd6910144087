import { createHash } from 'node:crypto';
import { InputError } from '../errors.js';

/**
 * Cuts documents into calibration windows, without a draw: the token ids of all documents are put one after the other in
 * their order, and the first `tokens` of them are cut into windows of `length`; the last window is shorter where
 * `length` does not divide `tokens`. Documents that are not needed any more are not asked for.
 *
 * @param documents token ids, with the beginning-of-sequence tokens that the caller wants in them
 * @returns windows whose lengths sum to `tokens`
 * @throws InputError when the documents give fewer tokens, saying how many there are
 */
export async function calibrationWindows(
  documents: AsyncIterable<ArrayLike<number>> | Iterable<ArrayLike<number>>,
  options: { readonly tokens: number; readonly length: number },
): Promise<Int32Array[]> {
  const { tokens, length } = options;
  if (![tokens, length].every((count) => Number.isSafeInteger(count) && count > 0)) {
    throw new InputError(`calibration with ${tokens} tokens in windows of ${length}: both must be 1 or more`);
  }
  const all = new Int32Array(tokens);
  let filled = 0;
  for await (const ids of documents) {
    const taken = Math.min(ids.length, tokens - filled);
    for (let i = 0; i < taken; i++) all[filled + i] = ids[i];
    filled += taken;
    if (filled === tokens) break;
  }
  if (filled < tokens) {
    throw new InputError(
      `calibration shorter than asked: the text gives ${filled} tokens, --calib-tokens asks for ${tokens}; give more ` +
        `text, or --calib-tokens ${filled}`,
    );
  }
  const windows: Int32Array[] = [];
  for (let from = 0; from < tokens; from += length) windows.push(all.slice(from, Math.min(from + length, tokens)));
  return windows;
}

/** SHA-256 of the token ids of windows, one after the other, as little-endian int32. */
export function hashWindows(windows: readonly Int32Array[]): string {
  const hash = createHash('sha256');
  for (const window of windows) {
    const bytes = Buffer.alloc(4 * window.length);
    for (let i = 0; i < window.length; i++) bytes.writeInt32LE(window[i], 4 * i);
    hash.update(bytes);
  }
  return hash.digest('hex');
}
