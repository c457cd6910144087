import { InputError } from '../errors.js';
import { openNpy } from './npy.js';
import type { Row, RowSelection } from './rows.js';
import { DTYPE_BYTES, type DType } from './tensor.js';

type IntegerReader = (view: DataView, offset: number) => number;

/** Little-endian integers as numbers. 64-bit values beyond 2^53 lose digits, but are no token ids anyway. */
const READERS: Readonly<Partial<Record<DType, IntegerReader>>> = {
  I64: (view, offset) => Number(view.getBigInt64(offset, true)),
  U64: (view, offset) => Number(view.getBigUint64(offset, true)),
  I32: (view, offset) => view.getInt32(offset, true),
  U32: (view, offset) => view.getUint32(offset, true),
  I16: (view, offset) => view.getInt16(offset, true),
  U16: (view, offset) => view.getUint16(offset, true),
  I8: (view, offset) => view.getInt8(offset),
  U8: (view, offset) => view.getUint8(offset),
};

/**
 * Rows of an .npy array [rows, length] of integers, as records `{[field]: Int32Array}`. One row is in memory.
 * @throws InputError when the array is not two-dimensional or not of integers, or an entry is no token id (row, column)
 */
export async function* readTokenRows(
  path: string,
  selection: RowSelection,
  field: string,
): AsyncGenerator<Row, void, undefined> {
  const array = openNpy(path);
  try {
    const { dtype, shape } = array;
    const readInteger = READERS[dtype];
    if (shape.length !== 2 || !readInteger) {
      throw new InputError(
        `${path}: holds ${dtype} [${shape.join(', ')}]; token ids are integers of shape [rows, length]`,
      );
    }
    const [rows, length] = shape;
    const width = DTYPE_BYTES[dtype];
    const bytes = new Uint8Array(length * width);
    const view = new DataView(bytes.buffer);
    for (let row = 0; row < rows; row++) {
      const choice = selection.next();
      if (choice === 'stop') return;
      if (choice === 'skip') continue;
      array.readInto(row * bytes.length, bytes.length, bytes);
      const ids = new Int32Array(length);
      for (let column = 0; column < length; column++) {
        const id = readInteger(view, column * width);
        if (id < 0 || id > 0x7fffffff) {
          throw new InputError(`${path}: row ${row}, column ${column}: ${id} is not a token id`);
        }
        ids[column] = id;
      }
      yield { record: { [field]: ids }, source: path, index: selection.index };
    }
  } finally {
    array.close();
  }
}
