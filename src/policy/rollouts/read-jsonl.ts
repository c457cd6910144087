import { readJsonLines } from '../../formats/jsonl.js';
import { createRowSelection } from '../../formats/rows.js';
import type { DumpRow } from './dump-rows.js';

const BATCH_ROWS = 256;

/** Records of a JSON Lines stream, in batches. @throws InputError with file and line */
export async function* readJsonRows(
  chunks: AsyncIterable<Uint8Array>,
  name: string,
  source: number,
): AsyncGenerator<DumpRow[], void, undefined> {
  let batch: DumpRow[] = [];
  for await (const { record, line } of readJsonLines(chunks, name, createRowSelection())) {
    batch.push({ source, line: line ?? 0, fields: new Map(Object.entries(record)) });
    if (batch.length === BATCH_ROWS) {
      yield batch;
      batch = [];
    }
  }
  if (batch.length > 0) yield batch;
}
