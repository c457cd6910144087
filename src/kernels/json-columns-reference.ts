import type { JsonLine, JsonNumbers } from './json-columns.js';

const MOST_EXTENTS = 3;

/** Python's json module writes these three words where a number is not finite; they are quoted so that JSON has them. */
function quoteWords(line: string): string {
  return line.replace(/"(?:[^"\\]|\\.)*"|-?\bInfinity\b|\bNaN\b/g, (part) =>
    part[0] === '"' ? part : `"\\u0000${part}"`,
  );
}

const WORDS: Readonly<Record<string, number>> = {
  '\u0000NaN': Number.NaN,
  '\u0000Infinity': Number.POSITIVE_INFINITY,
  '\u0000-Infinity': Number.NEGATIVE_INFINITY,
};

const fromWords = (_key: string, value: unknown): unknown =>
  typeof value === 'string' && value[0] === '\u0000' ? (WORDS[value] ?? value) : value;

/** JSON as Python writes it: NaN, Infinity and -Infinity are numbers. @throws SyntaxError */
export function parsePythonJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const quoted = quoteWords(text);
    if (quoted === text) throw error;
    try {
      return JSON.parse(quoted, fromWords);
    } catch {
      throw error;
    }
  }
}

/** A list of numbers (true, false, null as 1, 0, NaN), or of such lists of one length, at most three deep. */
export function numbersOf(list: readonly unknown[]): JsonNumbers | undefined {
  const numbers: number[] = [];
  const extents: number[] = [];
  let deepest = 0;
  const visit = (entries: readonly unknown[], depth: number): boolean => {
    if (depth >= MOST_EXTENTS) return false;
    for (const entry of entries) {
      if (Array.isArray(entry)) {
        if ((deepest > 0 && deepest <= depth + 1) || !visit(entry, depth + 1)) return false;
        continue;
      }
      if (deepest === 0) deepest = depth + 1;
      if (deepest !== depth + 1) return false;
      if (typeof entry === 'number') numbers.push(entry);
      else if (typeof entry === 'boolean') numbers.push(entry ? 1 : 0);
      else if (entry === null) numbers.push(Number.NaN);
      else return false;
    }
    if (deepest === 0) deepest = depth + 1;
    if (entries.length === 0 && deepest !== depth + 1) return false;
    if (extents[depth] !== undefined && extents[depth] !== entries.length) return false;
    extents[depth] = entries.length;
    return true;
  };
  return visit(list, 0) ? { values: Float64Array.from(numbers), shape: extents } : undefined;
}

/** Fields of a parsed object, lists of numbers as typed arrays. */
export function fieldsOf(
  object: Readonly<Record<string, unknown>>,
  isWanted: (key: string) => boolean,
): Map<string, unknown> {
  const fields = new Map<string, unknown>();
  for (const [key, value] of Object.entries(object)) {
    const isLong = typeof value === 'string' || (typeof value === 'object' && value !== null);
    if (isLong && !isWanted(key)) fields.set(key, undefined);
    else fields.set(key, Array.isArray(value) ? (numbersOf(value) ?? value) : value);
  }
  return fields;
}

/** One line by JSON.parse: the reference, and the judge of what the scanner refuses. */
export function parseJsonLine(text: string, line: number, isWanted: (key: string) => boolean): JsonLine {
  if (text.trim() === '') return { line, kind: 'blank' };
  let value: unknown;
  try {
    value = parsePythonJson(text);
  } catch {
    return { line, kind: 'refused', text };
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return { line, kind: 'refused', text };
  return { line, kind: 'record', fields: fieldsOf(value as Record<string, unknown>, isWanted) };
}
