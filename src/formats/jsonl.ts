import { InputError } from '../errors.js';
import { readLineBatches } from './lines.js';
import type { Row, RowSelection } from './rows.js';

/** Why a line is not a JSON object: the parser's words without its quotation of the line, which can be megabytes. */
export function jsonFault(line: string): string {
  try {
    const value: unknown = JSON.parse(line);
    const kind = value === null ? 'null' : Array.isArray(value) ? 'an array' : `a ${typeof value}`;
    return `holds ${kind}; each line must be one JSON object`;
  } catch (error) {
    const message = (error as Error).message;
    const position = /at position (\d+)/.exec(message);
    const place = position ? ` at column ${Number(position[1]) + 1}` : ' (it ends too early)';
    const start = line.length > 40 ? `${line.slice(0, 40)}...` : line;
    return `is not JSON${place}: ${JSON.stringify(start)}`;
  }
}

/** Parses one line as a JSON object; undefined when it is not one. */
function parseObject(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Rows of a JSON Lines stream; blank lines are no rows. A row outside of the selection is counted and not parsed.
 * Throws InputError with file and line where a line is not a JSON object.
 */
export async function* readJsonLines(
  chunks: AsyncIterable<Uint8Array>,
  source: string,
  selection: RowSelection,
): AsyncGenerator<Row, void, undefined> {
  for await (const { firstLine, lines } of readLineBatches(chunks, source)) {
    for (let i = 0; i < lines.length; i++) {
      const line = lines[i];
      if (line.trim() === '') continue;
      const choice = selection.next();
      if (choice === 'stop') return;
      if (choice === 'skip') continue;
      const record = parseObject(line);
      if (record === undefined) throw new InputError(`${source}:${firstLine + i}: this line ${jsonFault(line)}`);
      yield { record, source, index: selection.index, line: firstLine + i };
    }
  }
}
