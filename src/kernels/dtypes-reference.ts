import type { DType } from '../formats/tensor.js';

const scratchFloat = new Float32Array(1);
const scratchBits = new Uint32Array(scratchFloat.buffer);

/** Value of an IEEE 754 binary16 pattern. */
export function halfValue(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 0x3ff;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 31) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

/** Value of a bfloat16 pattern: the upper half of a binary32. */
export function bfloatValue(bits: number): number {
  scratchBits[0] = bits << 16;
  return scratchFloat[0];
}

/** Value of an F8_E4M3 pattern (the "FN" kind: no infinities, NaN where all seven magnitude bits are set). */
export function e4m3Value(bits: number): number {
  const sign = bits & 0x80 ? -1 : 1;
  const exponent = (bits >> 3) & 15;
  const mantissa = bits & 7;
  if ((bits & 0x7f) === 0x7f) return Number.NaN;
  if (exponent === 0) return sign * mantissa * 2 ** -9;
  return sign * (1 + mantissa / 8) * 2 ** (exponent - 7);
}

/** Value of an F8_E5M2 pattern, laid out as IEEE 754. */
export function e5m2Value(bits: number): number {
  const sign = bits & 0x80 ? -1 : 1;
  const exponent = (bits >> 2) & 31;
  const mantissa = bits & 3;
  if (exponent === 0) return sign * mantissa * 2 ** -16;
  if (exponent === 31) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + mantissa / 4) * 2 ** (exponent - 15);
}

/** A float format of a sign, an exponent and `mantissaBits` bits. */
interface SmallFloat {
  readonly mantissaBits: number;
  readonly bias: number;
  /** Magnitude code of the largest finite value; rounding past it gives `overflow`. */
  readonly largest: number;
  readonly overflow: number;
  readonly nan: number;
  readonly signBit: number;
}

const SMALL_FLOATS = {
  F16: { mantissaBits: 10, bias: 15, largest: 0x7bff, overflow: 0x7c00, nan: 0x7e00, signBit: 0x8000 },
  BF16: { mantissaBits: 7, bias: 127, largest: 0x7f7f, overflow: 0x7f80, nan: 0x7fc0, signBit: 0x8000 },
  F8_E4M3: { mantissaBits: 3, bias: 7, largest: 0x7e, overflow: 0x7e, nan: 0x7f, signBit: 0x80 },
  F8_E5M2: { mantissaBits: 2, bias: 15, largest: 0x7b, overflow: 0x7c, nan: 0x7f, signBit: 0x80 },
} as const satisfies Partial<Record<DType, SmallFloat>>;

/** Nearest integer, ties to even. */
function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return rest < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Pattern of the nearest value of `format`, ties to even. */
function smallFloatBits(value: number, format: SmallFloat): number {
  scratchFloat[0] = value;
  const sign = scratchBits[0] >>> 31 === 1 ? format.signBit : 0;
  const magnitude = Math.abs(scratchFloat[0]);
  if (Number.isNaN(magnitude)) return sign | format.nan;
  if (magnitude === Number.POSITIVE_INFINITY) return sign | format.overflow;
  // The exponent of the binade, but no lower than that of the subnormals; scaling by powers of two is exact.
  const stored = (scratchBits[0] >>> 23) & 0xff;
  const exponent = Math.max(stored - 127, 1 - format.bias);
  const steps = roundHalfEven(magnitude * 2 ** (format.mantissaBits - exponent));
  // A carry out of the mantissa moves into the exponent by itself; below one implicit bit the value is subnormal.
  const implicit = 1 << format.mantissaBits;
  const code = steps < implicit ? steps : (exponent + format.bias) * implicit + (steps - implicit);
  return sign | (code > format.largest ? format.overflow : code);
}

/** IEEE 754 binary16 pattern of the f32 nearest to a number, ties to even; infinite beyond 65504. */
export function halfBits(value: number): number {
  return smallFloatBits(value, SMALL_FLOATS.F16);
}

/** A 64-bit integer as the nearest f32: one rounding, not one to f64 and another to f32. */
function integerToFloat(value: bigint): number {
  if (value > -(1n << 53n) && value < 1n << 53n) return Number(value);
  // Keep 53 bits and fold what lies below into the last: far below the last bit of an f32, it only breaks ties.
  const kept = value >> 11n;
  return Number(value & 2047n ? kept | 1n : kept) * 2048;
}

/** Reads `target.length` elements of `dtype` from `source` (any alignment) as numbers. */
export function widenReference(source: Uint8Array, dtype: DType, target: Float32Array | Float64Array): void {
  const view = new DataView(source.buffer, source.byteOffset, source.byteLength);
  const count = target.length;
  const single = target instanceof Float32Array;
  switch (dtype) {
    case 'F64':
      for (let i = 0; i < count; i++) target[i] = view.getFloat64(8 * i, true);
      return;
    case 'F32':
      for (let i = 0; i < count; i++) target[i] = view.getFloat32(4 * i, true);
      return;
    case 'F16':
      for (let i = 0; i < count; i++) target[i] = halfValue(view.getUint16(2 * i, true));
      return;
    case 'BF16':
      for (let i = 0; i < count; i++) target[i] = bfloatValue(view.getUint16(2 * i, true));
      return;
    case 'F8_E4M3':
      for (let i = 0; i < count; i++) target[i] = e4m3Value(source[i]);
      return;
    case 'F8_E5M2':
      for (let i = 0; i < count; i++) target[i] = e5m2Value(source[i]);
      return;
    case 'I64':
      for (let i = 0; i < count; i++) {
        const value = view.getBigInt64(8 * i, true);
        target[i] = single ? integerToFloat(value) : Number(value);
      }
      return;
    case 'U64':
      for (let i = 0; i < count; i++) {
        const value = view.getBigUint64(8 * i, true);
        target[i] = single ? integerToFloat(value) : Number(value);
      }
      return;
    case 'I32':
      for (let i = 0; i < count; i++) target[i] = view.getInt32(4 * i, true);
      return;
    case 'U32':
      for (let i = 0; i < count; i++) target[i] = view.getUint32(4 * i, true);
      return;
    case 'I16':
      for (let i = 0; i < count; i++) target[i] = view.getInt16(2 * i, true);
      return;
    case 'U16':
      for (let i = 0; i < count; i++) target[i] = view.getUint16(2 * i, true);
      return;
    case 'I8':
      for (let i = 0; i < count; i++) target[i] = view.getInt8(i);
      return;
    case 'U8':
      target.set(source);
      return;
    case 'BOOL':
      for (let i = 0; i < count; i++) target[i] = source[i] === 0 ? 0 : 1;
      return;
  }
}

/** Writes `source` as `dtype` into `target` (any alignment). */
export function narrowReference(
  source: Float32Array,
  dtype: 'F32' | keyof typeof SMALL_FLOATS,
  target: Uint8Array,
): void {
  const view = new DataView(target.buffer, target.byteOffset, target.byteLength);
  if (dtype === 'F32') {
    for (let i = 0; i < source.length; i++) view.setFloat32(4 * i, source[i], true);
    return;
  }
  const format = SMALL_FLOATS[dtype];
  if (format.signBit === 0x80) {
    for (let i = 0; i < source.length; i++) target[i] = smallFloatBits(source[i], format);
  } else {
    for (let i = 0; i < source.length; i++) view.setUint16(2 * i, smallFloatBits(source[i], format), true);
  }
}
