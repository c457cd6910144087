import { nativeKernels } from './native.js';

/** Address of the first byte of an array modulo `modulus`; undefined without the addon, which alone can tell. */
export function addressModulo(bytes: Uint8Array, modulus: number): number | undefined {
  return nativeKernels()?.addressModulo(bytes, modulus);
}
