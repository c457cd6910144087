import { InputError } from '../errors.js';
import { openRange, quoted } from './files.js';
import { arrayReader } from './npy.js';
import { type NpyOptions, readNpyHeader, UnreadArrayError } from './npy-header.js';
import type { TensorInfo, TensorStore } from './tensor.js';
import { openZipEntry, readZipDirectory } from './zip.js';

/** The arrays of an .npz archive. */
export interface NpzStore extends TensorStore {
  /** Arrays that are there but not read (text, objects, ...), each with the reason, for messages. */
  readonly refused: ReadonlyMap<string, string>;
  /** Arrays that are compressed: only reading them in order is cheap. */
  readonly deflated: ReadonlySet<string>;
}

/**
 * Opens an .npz archive (`numpy.savez`, `numpy.savez_compressed`; zip64 too). Array names are entry names without
 * `.npy`. Stored arrays are read by range, deflated ones inflated as they are read: read those in order. `offset` of a
 * tensor is that of the entry's data in the archive and says nothing about elements: use `readInto`.
 * @throws InputError for a damaged archive or array.
 */
export function openNpz(location: string, options: NpyOptions = {}): NpzStore {
  const file = openRange(location);
  try {
    const tensors = new Map<string, TensorInfo>();
    const refused = new Map<string, string>();
    const deflated = new Set<string>();
    const readers = new Map<string, ReturnType<typeof arrayReader>>();
    for (const entry of readZipDirectory(file)) {
      if (!entry.name.endsWith('.npy')) continue;
      const name = entry.name.slice(0, -'.npy'.length);
      const where = `${location}: array ${quoted(name)}`;
      const source = openZipEntry(file, entry);
      if (entry.method === 'deflated') deflated.add(name);
      try {
        const layout = readNpyHeader(source, where, options);
        const { dtype, shape, byteLength } = layout;
        tensors.set(name, { name, dtype, shape, file: location, offset: entry.dataStart, byteLength });
        readers.set(name, arrayReader(source, layout, where));
      } catch (error) {
        if (!(error instanceof UnreadArrayError)) throw error;
        refused.set(name, error.message);
      }
    }
    if (tensors.size === 0) {
      const [why] = refused.values();
      throw new InputError(why ?? `${location}: holds no .npy arrays: not an .npz of numpy`);
    }
    return {
      path: location,
      tensors,
      refused,
      deflated,
      metadata: {},
      readInto(tensor, start, length, target): void {
        const read = readers.get(tensor.name);
        if (read === undefined) throw new RangeError(`${location}: no array ${tensor.name}`);
        read(start, length, target);
      },
      close: () => file.close(),
    };
  } catch (error) {
    file.close();
    throw error;
  }
}
