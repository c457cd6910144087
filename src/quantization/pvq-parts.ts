import { quoted } from '../formats/files.js';
import { byteLengthOf } from '../formats/ggml-blocks.js';
import type { HashedFile } from '../formats/hash.js';
import { matrixOf, PVQ_PARTS, type PvqPart, type PvqTensor, payloadPlan } from '../formats/pvq.js';
import type { PlannedTensor } from '../formats/safetensors-writer.js';
import { narrowFromF32, widenToF32 } from '../kernels/dtypes.js';
import type { EncodedRows } from '../kernels/pyramid.js';
import type { ReportValue } from '../report/values.js';
import { rowSizes } from './pvq-layout.js';

export type FlatRecord = { readonly [key: string]: ReportValue };

/** What is kept of a finished tensor. */
export interface FinishedTensor {
  readonly tensor: PvqTensor;
  readonly wideScales: boolean;
  readonly zeroGroups: boolean;
  readonly blob: HashedFile;
  readonly record: FlatRecord;
}

/** Whether F16 holds every scale exactly; scales come rounded to what is stored. */
function fitF16(scales: Float32Array, narrow: Uint8Array): boolean {
  narrowFromF32(scales, 'F16', narrow, 1);
  const back = new Float32Array(scales.length);
  widenToF32(narrow, 'F16', back, 1);
  return back.every((value, i) => value === scales[i]);
}

/**
 * The stored bytes of one tensor, part by part in the order of its checksum.
 * @param signs sign bits of its rotation
 * @throws RangeError when the rows do not fit their code
 */
export function encodeParts(
  tensor: Omit<PvqTensor, 'crc32' | 'sourceSha256'>,
  encoded: EncodedRows,
  signs: Uint8Array,
): { readonly wideScales: boolean; readonly zeroGroups: boolean; readonly parts: readonly Uint8Array[] } {
  const { scales, levels, zeroGroups: zero } = encoded;
  const narrow = new Uint8Array(2 * scales.length);
  const wideScales = !fitF16(scales, narrow);
  const bytesOf: Readonly<Record<PvqPart, Uint8Array | undefined>> = {
    index: encoded.index,
    gain: encoded.code.gainBits > 0 ? encoded.gain : undefined,
    scale: wideScales ? viewOf(scales) : narrow,
    levels: viewOf(levels),
    sign: tensor.rotation === null ? undefined : signs,
    zero,
  };
  const zeroGroups = zero !== undefined;
  const plan = payloadPlan(tensor, { ...rowSizes(encoded.columns, encoded.code), wideScales, zeroGroups });
  const parts = PVQ_PARTS.flatMap((part) => bytesOf[part] ?? []);
  plan.forEach(({ name, dtype, shape }, i) => {
    const wanted = byteLengthOf(dtype, shape);
    if (parts[i]?.length !== wanted)
      throw new RangeError(`tensor ${quoted(name)}: ${parts[i]?.length} bytes where its code takes ${wanted}`);
  });
  return { wideScales, zeroGroups, parts };
}

function viewOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** The stored tensors of a finished one, in the order of its bytes. */
export function partsOf({ tensor, wideScales, zeroGroups }: FinishedTensor): PlannedTensor[] {
  const { columns } = matrixOf(tensor.shape, tensor.transposed);
  return payloadPlan(tensor, { ...rowSizes(columns, tensor.code), wideScales, zeroGroups });
}
