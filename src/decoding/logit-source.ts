import { isLlamaCppLogits, openLlamaCppLogits } from '../formats/llama-cpp-logits.js';
import { isLogitDump, openLogitDump, type StoredLogits } from '../formats/logit-dump.js';
import { openLogitTensor } from '../formats/logit-rows.js';
import { widenToF32 } from '../kernels/dtypes.js';
import type { LogitRow } from '../kernels/token-filter.js';

/** Stored logits of any kind, seen as rows; only a block is in memory. */
export interface LogitSource {
  readonly path: string;
  /** What error messages call it. */
  readonly name: string;
  readonly kind: 'tensor' | 'dump' | 'llama.cpp';
  readonly rows: number;
  readonly vocabulary: number;
  /** Rows of one sequence: a state (Mirostat) goes from row to row within it. */
  readonly sequenceRows: number;
  /** Rows start..start+count-1 [count, vocabulary], in a buffer that the next call may reuse. */
  readRows(start: number, count: number): LogitRow;
  close(): void;
}

/**
 * Opens a tensor of logits [.., vocabulary] (.npy, .npz, .safetensors; f64, f32, f16, bf16), a dump of this program or a
 * base file of llama.cpp. Along a tensor's second to last axis rows are one sequence where there are three axes or more; all
 * other rows stand alone.
 * @throws InputError for a file that is none of them, or damaged
 */
export function openLogitSource(path: string, tensor?: string): LogitSource {
  if (isLogitDump(path)) return fromStored(openLogitDump(path), 'dump');
  if (isLlamaCppLogits(path)) return fromStored(openLlamaCppLogits(path), 'llama.cpp');
  const opened = openLogitTensor(path, tensor);
  const { shape, vocabulary, rows, dtype } = opened;
  let widened = new Float32Array(0);
  return {
    path,
    name: `${path}: tensor "${opened.name}"`,
    kind: 'tensor',
    rows,
    vocabulary,
    sequenceRows: shape.length > 2 ? shape[shape.length - 2] : 1,
    readRows(start, count) {
      const block = opened.readRows(start, count);
      if (!(block instanceof Uint16Array)) return block;
      if (widened.length !== block.length) widened = new Float32Array(block.length);
      widenToF32(new Uint8Array(block.buffer, block.byteOffset, block.byteLength), dtype, widened);
      return widened;
    },
    close: () => opened.close(),
  };
}

/**
 * 16-bit log-probabilities as logits. Where the file knows the exact mass of the clipped entries, they share it evenly;
 * otherwise they keep the lowest code.
 */
function fromStored(stored: StoredLogits, kind: 'dump' | 'llama.cpp'): LogitSource {
  const { path, rows, vocabulary } = stored;
  return {
    path,
    name: path,
    kind,
    rows,
    vocabulary,
    sequenceRows: 1,
    readRows(start, count) {
      const block = stored.readRows(start, count);
      const logits = new Float32Array(count * vocabulary);
      for (let row = 0; row < count; row++) {
        const { tailMass, tailCount } = block.exact ?? {};
        const clipped = tailMass && tailCount ? Math.log(tailMass[row] / tailCount[row]) : block.minLogProb[row];
        for (let i = row * vocabulary; i < (row + 1) * vocabulary; i++) {
          const code = block.codes[i];
          logits[i] = code === 0 ? clipped : block.scale[row] * code + block.minLogProb[row];
        }
      }
      return logits;
    },
    close: () => stored.close(),
  };
}
