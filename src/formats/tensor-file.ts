import { InputError } from '../errors.js';
import { npyStore, openNpy } from './npy.js';
import { openNpz } from './npz.js';
import { openSafetensors } from './safetensors.js';
import type { TensorStore } from './tensor.js';

/** Whether the name is that of a format that holds tensors. */
export function isTensorFile(path: string): boolean {
  return /\.(npy|npz|safetensors)$/i.test(path);
}

/** Opens an .npy, .npz or .safetensors file; `V2` of NumPy is BF16. Throws InputError for other names and damage. */
export function openTensorFile(path: string): TensorStore {
  const lower = path.toLowerCase();
  if (lower.endsWith('.npz')) return openNpz(path, { voidAsBf16: true });
  if (lower.endsWith('.safetensors')) return openSafetensors(path);
  if (lower.endsWith('.npy')) return npyStore(openNpy(path, { voidAsBf16: true }));
  throw new InputError(`${path}: tensors are read from .npy, .npz and .safetensors files`);
}
