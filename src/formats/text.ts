import { InputError } from '../errors.js';
import { MAX_STRING_BYTES, readLineBatches, readWholeText } from './lines.js';
import type { Row, RowSelection } from './rows.js';

/** What one document of a plain text is: the whole file, each line that is not blank, or each blank-line-separated block. */
export type TextSplit = 'file' | 'line' | 'block';

/**
 * Rows `{[field]: text}` of a plain UTF-8 text. `file`: the text exactly as it stands. `line`: without the terminator;
 * blank lines are skipped. `block`: lines between blank lines, joined by `\n`.
 * Throws InputError at invalid UTF-8 and where a document is longer than 512 MiB.
 */
export async function* readTextRows(
  chunks: AsyncIterable<Uint8Array>,
  source: string,
  selection: RowSelection,
  split: TextSplit,
  field: string,
): AsyncGenerator<Row, void, undefined> {
  if (split === 'file') {
    const choice = selection.next();
    if (choice === 'stop') return;
    // A text that another shard reads is still checked: all shards agree on which inputs are sound.
    const text = await readWholeText(chunks, source);
    if (choice === 'take') yield { record: { [field]: text }, source, index: selection.index, wholeFile: true };
    return;
  }
  let block: string[] = [];
  let blockLine = 1;
  let blockLength = 0;
  for await (const { firstLine, lines } of readLineBatches(chunks, source)) {
    for (let i = 0; i < lines.length; i++) {
      const line = lines[i];
      const blank = line.trim() === '';
      if (!blank) {
        if (block.length === 0) blockLine = firstLine + i;
        block.push(line);
        blockLength += line.length + 1;
        if (blockLength > MAX_STRING_BYTES) {
          throw new InputError(
            `${source}:${blockLine}: a block of lines is longer than 512 MiB; use --text-split line`,
          );
        }
      }
      if (block.length > 0 && (blank || split === 'line')) {
        const choice = selection.next();
        if (choice === 'stop') return;
        if (choice === 'take') {
          yield { record: { [field]: block.join('\n') }, source, index: selection.index, line: blockLine };
        }
        block = [];
        blockLength = 0;
      }
    }
  }
  if (block.length > 0 && selection.next() === 'take') {
    yield { record: { [field]: block.join('\n') }, source, index: selection.index, line: blockLine };
  }
}
