import { isUtf8 } from 'node:buffer';
import { InputError } from '../../errors.js';
import { jsonFault } from '../../formats/jsonl.js';
import { firstInvalidUtf8, MAX_STRING_BYTES } from '../../formats/lines.js';
import { type JsonLine, readJsonLines } from '../../kernels/json-columns.js';
import type { DumpRow } from './dump-rows.js';

/** Whole lines of a stream, with the offset of their first byte. */
interface LineBlock {
  readonly bytes: Uint8Array;
  readonly offset: number;
}

const NEW_LINE = 0x0a;

/**
 * Cuts chunks at their last new line. The line that two chunks share is copied and comes as a block of its own; all other bytes
 * stay in the chunk, which may be overwritten when the next one is asked for.
 */
async function* lineBlocks(
  chunks: AsyncIterable<Uint8Array>,
  name: string,
): AsyncGenerator<LineBlock, void, undefined> {
  let carry: Uint8Array[] = [];
  let carried = 0;
  let offset = 0;
  for await (const chunk of chunks) {
    let start = 0;
    if (carried > 0) {
      const end = chunk.indexOf(NEW_LINE) + 1;
      carry.push(end === 0 ? chunk.slice() : chunk.subarray(0, end));
      carried += end === 0 ? chunk.length : end;
      if (carried > MAX_STRING_BYTES)
        throw new InputError(
          `${name}: a line is longer than 512 MiB (it begins at byte ${offset}); are lines separated by \\n?`,
        );
      if (end === 0) continue;
      yield { bytes: Buffer.concat(carry), offset };
      offset += carried;
      carry = [];
      carried = 0;
      start = end;
    }
    const end = chunk.lastIndexOf(NEW_LINE) + 1;
    if (end > start) {
      yield { bytes: chunk.subarray(start, end), offset };
      offset += end - start;
      start = end;
    }
    if (start < chunk.length) {
      carry = [chunk.slice(start)];
      carried = chunk.length - start;
    }
  }
  if (carried > 0) yield { bytes: carry.length === 1 ? carry[0] : Buffer.concat(carry), offset };
}

/** Without a byte order mark at the start of the file. @throws InputError for bytes that are no UTF-8 */
function checkedBlock({ bytes, offset }: LineBlock, name: string): Uint8Array {
  if (!isUtf8(bytes))
    throw new InputError(
      `${name}: invalid UTF-8 at byte ${offset + firstInvalidUtf8(bytes)}; convert the file to UTF-8`,
    );
  const isMarked = offset === 0 && bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;
  return isMarked ? bytes.subarray(3) : bytes;
}

function rowOf(read: JsonLine, line: number, name: string, source: number): DumpRow | undefined {
  if (read.kind === 'blank') return undefined;
  if (read.kind === 'refused') throw new InputError(`${name}:${line}: this line ${jsonFault(read.text)}`);
  return { source, line, fields: read.fields };
}

/**
 * Records of a JSON Lines stream, in batches of about one chunk; blank lines are none.
 * @param isWanted columns of texts, lists and objects that are decoded
 * @throws InputError with file and line where a line is no JSON object, with the byte where the text is no UTF-8
 */
export async function* readJsonRows(
  chunks: AsyncIterable<Uint8Array>,
  name: string,
  source: number,
  isWanted: (column: string) => boolean,
  threads: number,
): AsyncGenerator<DumpRow[], void, undefined> {
  let line = 1;
  for await (const block of lineBlocks(chunks, name)) {
    const rows: DumpRow[] = [];
    let last = -1;
    for (const read of readJsonLines(checkedBlock(block, name), isWanted, threads)) {
      const row = rowOf(read, line + read.line, name, source);
      if (row) rows.push(row);
      last = read.line;
    }
    line += last + 1;
    if (rows.length > 0) yield rows;
  }
}
