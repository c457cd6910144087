import { GGML_BLOCKS } from '../formats/ggml-blocks.js';
import { elementCount } from '../formats/tensor.js';
import type { ModelFiles } from '../models/model-files.js';
import { isPvqStore } from '../models/pvq-store.js';
import type { SelectedTensor } from './tensor-selection.js';

/** How the tensors of a selection are stored by their source. */
export interface SourceBits {
  /** Whether any of them has already lost bits: blocks of GGUF, 8-bit floats, pyramid codes. */
  readonly quantized: boolean;
  /** Types, sorted. */
  readonly types: readonly string[];
  readonly bitsPerWeight: number;
}

const NARROW = new Set<string>([...Object.keys(GGML_BLOCKS), 'F8_E4M3', 'F8_E5M2', 'I8', 'U8']);

/** What the source itself spends on the selected tensors. */
export function sourceBits({ store }: ModelFiles, selected: readonly SelectedTensor[]): SourceBits {
  const types = new Set<string>();
  let quantized = false;
  let bits = 0;
  let weights = 0;
  for (const { name, tensor } of selected) {
    weights += elementCount(tensor.shape);
    if (isPvqStore(store) && store.quantised.has(name)) {
      quantized = true;
      types.add('PVQ');
      for (const part of store.stored.tensors.values()) {
        if (part.name.startsWith(`${name}.pvq_`)) bits += 8 * part.byteLength;
      }
      continue;
    }
    quantized ||= NARROW.has(tensor.dtype);
    types.add(tensor.dtype);
    bits += 8 * tensor.byteLength;
  }
  return { quantized, types: [...types].sort(), bitsPerWeight: bits / weights };
}

/** The same for a report. */
export function sourceRecord(files: ModelFiles, selected: readonly SelectedTensor[]) {
  const { quantized, types, bitsPerWeight } = sourceBits(files, selected);
  return { quantized, types, bits_per_weight: bitsPerWeight };
}
