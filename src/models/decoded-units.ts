/** Weights decoded at a time where a caller's buffer cannot take them directly: 4 MiB. */
export const BAND_WEIGHTS = 1 << 20;

/** F32 tensors that are computed as they are read, in units (rows, or whole matrices) that can only be had as a whole. */
export interface DecodedUnits<T> {
  unitBytes(tensor: T): number;
  /** Units first..first+count-1, one after the other. */
  decode(tensor: T, first: number, count: number, target: Float32Array): void;
}

/** Fills a target with the bytes of a tensor from `start` on. */
export type DecodedRead<T> = (tensor: T, start: number, target: Uint8Array) => void;

/**
 * Reads any range of bytes. Whole units are decoded into the target where it is aligned; of a unit that is read in pieces
 * the last one is kept, so that reads in order decode once.
 */
export function createUnitReader<T>({ unitBytes, decode }: DecodedUnits<T>): DecodedRead<T> {
  let kept: { readonly tensor: T; readonly unit: number; readonly bytes: Uint8Array } | undefined;
  const keep = (tensor: T, unit: number): Uint8Array => {
    if (kept?.tensor === tensor && kept.unit === unit) return kept.bytes;
    const values = new Float32Array(unitBytes(tensor) / 4);
    decode(tensor, unit, 1, values);
    kept = { tensor, unit, bytes: new Uint8Array(values.buffer) };
    return kept.bytes;
  };
  /** Whole units into a buffer that begins at any byte. */
  const readWhole = (tensor: T, first: number, count: number, target: Uint8Array): void => {
    if (target.byteOffset % 4 === 0) {
      decode(tensor, first, count, new Float32Array(target.buffer, target.byteOffset, target.length / 4));
      return;
    }
    const size = unitBytes(tensor);
    const step = Math.max(1, Math.floor((4 * BAND_WEIGHTS) / size));
    for (let done = 0; done < count; done += step) {
      const part = Math.min(step, count - done);
      const values = new Float32Array((part * size) / 4);
      decode(tensor, first + done, part, values);
      target.set(new Uint8Array(values.buffer), done * size);
    }
  };
  return (tensor, start, target) => {
    const size = unitBytes(tensor);
    const end = start + target.length;
    for (let at = start; at < end; ) {
      const unit = Math.floor(at / size);
      const into = target.subarray(at - start);
      const whole = Math.floor((end - at) / size);
      if (at === unit * size && whole > 0) {
        readWhole(tensor, unit, whole, into.subarray(0, whole * size));
        at += whole * size;
      } else {
        const stop = Math.min(end, (unit + 1) * size);
        into.set(keep(tensor, unit).subarray(at - unit * size, stop - unit * size));
        at = stop;
      }
    }
  };
}
