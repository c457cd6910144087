/**
 * Python's whitespace (`str.isspace`, `\s` of `re`): JavaScript's set lacks U+001C..U+001F and U+0085 and has U+FEFF,
 * which Python's has not. Word counts must equal lm-evaluation-harness's.
 */
const WHITESPACE = '[\\t-\\r\\u001c-\\u0020\\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]';
const WHITESPACE_RUN = new RegExp(`${WHITESPACE}+`, 'g');
const ONE_WHITESPACE = new RegExp(WHITESPACE);

/**
 * Words as lm-evaluation-harness counts them: the length of the split on whitespace runs, so that leading or trailing
 * whitespace adds an empty word and the empty text has one.
 */
export function countWords(text: string): number {
  let runs = 0;
  for (const _ of text.matchAll(WHITESPACE_RUN)) runs++;
  return runs + 1;
}

/** UTF-8 length. A lone surrogate counts as the three bytes of the replacement character. */
export function countBytes(text: string): number {
  return Buffer.byteLength(text, 'utf8');
}

/** Unicode code points, Python's `len` of a string. */
export function countCodePoints(text: string): number {
  let count = 0;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit >= 0xd800 && unit <= 0xdbff) {
      const next = text.charCodeAt(i + 1);
      if (next >= 0xdc00 && next <= 0xdfff) i++;
    }
    count++;
  }
  return count;
}

/** Python's `str.rstrip()`. */
export function trimTrailingWhitespace(text: string): string {
  let end = text.length;
  while (end > 0 && ONE_WHITESPACE.test(text[end - 1])) end--;
  return text.slice(0, end);
}
