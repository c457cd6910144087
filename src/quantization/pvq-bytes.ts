import { openRange } from '../formats/files.js';
import { PVQ_KEY } from '../formats/pvq.js';
import type { StoredPvqTensor } from '../models/pvq-tensors.js';

/** Bytes of a file as they lie there, measured in the text of its header. */
export interface MeasuredFile {
  /** Of each quantised tensor: its parts; and their header entries with the tensor's row in the metadata. */
  readonly tensors: ReadonlyMap<string, { readonly payload: number; readonly metadata: number }>;
  /** The rest of `__metadata__.pvq`. */
  readonly fixed: number;
}

function escaped(text: string): number {
  return Buffer.byteLength(JSON.stringify(text)) - 2;
}

/** Bytes of the entries of a header by name, each with the comma before it. */
function entryBytes(text: string): Map<string, number> {
  const found = new Map<string, number>();
  // Inside the metadata, a string, quotes are escaped: this form stands for entries only.
  for (const [entry, name] of text.matchAll(/"((?:[^"\\]|\\.)*)":\{"dtype"[^}]*\}/g))
    found.set(JSON.parse(`"${name}"`) as string, Buffer.byteLength(entry) + 1);
  return found;
}

/**
 * Measures what quantised tensors take in one safetensors file.
 * @param stored those of the file
 * @param pvq the text of its `__metadata__.pvq`
 */
export function measureFile(file: string, stored: readonly StoredPvqTensor[], pvq: string): MeasuredFile {
  const range = openRange(file);
  let text: string;
  try {
    const lengthField = new Uint8Array(8);
    range.readInto(0, 8, lengthField);
    const bytes = new Uint8Array(Number(new DataView(lengthField.buffer).getBigUint64(0, true)));
    range.readInto(8, bytes.length, bytes);
    text = new TextDecoder().decode(bytes);
  } finally {
    range.close();
  }
  const rows = (JSON.parse(pvq) as { readonly tensors: Readonly<Record<string, unknown>> }).tensors;
  const entries = entryBytes(text);
  const tensors = new Map<string, { payload: number; metadata: number }>();
  let inRows = 0;
  for (const { tensor, parts } of stored) {
    const row = escaped(`${JSON.stringify(tensor.name)}:${JSON.stringify(rows[tensor.name])},`);
    inRows += row;
    let payload = 0;
    let metadata = row;
    for (const info of parts.values()) {
      payload += info.byteLength;
      metadata += entries.get(info.name) ?? 0;
    }
    tensors.set(tensor.name, { payload, metadata });
  }
  return { tensors, fixed: Buffer.byteLength(`,"${PVQ_KEY}":""`) + escaped(pvq) - inRows };
}

/** Bytes of the lines of an index by the stored tensor that they name. */
export function measureIndexLines(indexText: string): Map<string, number> {
  const found = new Map<string, number>();
  for (const line of indexText.split('\n')) {
    const key = /^\s*("(?:[^"\\]|\\.)*"): "/.exec(line)?.[1];
    // The last line has no comma; it is counted as if it had one, as the layout does.
    if (key !== undefined) found.set(JSON.parse(key) as string, Buffer.byteLength(line.replace(/,$/, '')) + 2);
  }
  return found;
}
