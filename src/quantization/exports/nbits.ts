import { Tensor } from 'onnxruntime-node';
import { InputError, RunError } from '../../errors.js';
import { composeGraph } from '../../models/graph.js';
import { createSession, floatsOf, runSession, tensorOf } from '../../models/sessions.js';
import type { CarrierCheck, WholeRows } from './carriers.js';
import { constraintsOf } from './export-format.js';

/** A matrix as com.microsoft.MatMulNBits takes it: 4 bits, zero point 8, the even element of a pair in the low nibble. */
export interface PackedNbits {
  readonly outputs: number;
  readonly columns: number;
  /** Elements that share a scale: 16, 32, 64 or 128. */
  readonly block: number;
  /** ceil(columns / block) */
  readonly blocks: number;
  /** [outputs, blocks, block / 2] */
  readonly codes: Uint8Array;
  /** [outputs, blocks] */
  readonly scales: Float32Array;
}

const ZERO_POINT = 8;
/** Columns of a matrix that ONNX Runtime decodes. */
const PROBED_COLUMNS = 32;

/**
 * Packs a band of rows; `rowOf` says where a row of the band stands in the matrix. What is packed is read again and
 * compared.
 * @throws InputError for a whole number outside of -8..7, with tensor, row and column
 */
export function packNbits(
  name: string,
  band: WholeRows,
  packed: PackedNbits,
  rowOf: (row: number) => number,
  check: CarrierCheck,
): void {
  const { rows, columns, numbers, unit, factors } = band;
  const { block, blocks, codes, scales } = packed;
  const { cap, negativeCap } = constraintsOf('onnx-nbits');
  const units = Math.ceil(columns / unit);
  for (let r = 0; r < rows; r++) {
    const row = rowOf(r);
    const first = (row * blocks * block) / 2;
    // Columns beyond the last are zero.
    codes.fill(ZERO_POINT | (ZERO_POINT << 4), first, first + (blocks * block) / 2);
    for (let b = 0; b < blocks; b++) scales[row * blocks + b] = factors[r * units + Math.floor((b * block) / unit)];
    for (let c = 0; c < columns; c++) {
      const y = numbers[r * columns + c];
      if (y > cap || y < -negativeCap) {
        throw new InputError(
          `tensor "${name}", row ${row}, column ${c}: ${y} pulses are outside of the ${-negativeCap} to ${cap} that ` +
            'onnx-nbits holds; search under these caps',
        );
      }
      const at = first + (c >> 1);
      const shift = 4 * (c & 1);
      codes[at] = (codes[at] & ~(15 << shift)) | ((y + ZERO_POINT) << shift);
    }
    for (let c = 0; c < columns; c++) {
      const coded = Math.fround(factors[r * units + Math.floor(c / unit)] * numbers[r * columns + c]);
      const error = Math.abs(unpacked(packed, row, c) - coded);
      check.squaredError += error * error;
      check.squaredWeights += coded * coded;
      if (coded !== 0) check.largestRelativeError = Math.max(check.largestRelativeError, error / Math.abs(coded));
    }
  }
  check.weights += rows * columns;
}

/** Weight (row, column) of a packed matrix. */
export function unpacked({ block, blocks, codes, scales }: PackedNbits, row: number, column: number): number {
  const nibble = (codes[(row * blocks * block + column) >> 1] >> (4 * (column & 1))) & 15;
  return Math.fround(scales[row * blocks + Math.floor(column / block)] * (nibble - ZERO_POINT));
}

/**
 * Runs MatMulNBits over unit vectors of evenly spread columns and compares what comes out with {@link unpacked}.
 * @throws RunError when ONNX Runtime reads another weight
 */
export async function runNbitsCheck(name: string, packed: PackedNbits, threads: number): Promise<void> {
  const { outputs, columns, block, blocks, codes, scales } = packed;
  const g = composeGraph('check', 'f32');
  const inputs = [
    g.input('x', 'f32', ['n', columns]),
    g.input('codes', 'u8', [outputs, blocks, block / 2]),
    g.input('scales', 'f32', [outputs * blocks]),
  ];
  const sizes = { K: columns, N: outputs, bits: 4, block_size: block, accuracy_level: 1 };
  const attributes = Object.fromEntries(Object.entries(sizes).map(([key, int]) => [key, { int }]));
  g.publish(g.node('MatMulNBits', inputs, { domain: 'com.microsoft', attributes }), 'y');
  const count = Math.min(PROBED_COLUMNS, columns);
  const probed = Array.from({ length: count }, (_, i) => Math.floor((i * columns) / count));
  const x = new Float32Array(count * columns);
  probed.forEach((column, i) => {
    x[i * columns + column] = 1;
  });
  const session = await createSession(g.encode(), { threads, device: 'cpu', arena: false });
  try {
    const feeds = {
      x: tensorOf(x, [count, columns]),
      codes: new Tensor('uint8', codes, [outputs, blocks, block / 2]),
      scales: tensorOf(scales, [outputs * blocks]),
    };
    const { y } = await runSession(session, feeds, { y: null });
    const decoded = floatsOf(y);
    probed.forEach((column, i) => {
      for (let row = 0; row < outputs; row++) {
        const expected = unpacked(packed, row, column);
        const found = decoded[i * outputs + row];
        if (Math.abs(found - expected) <= 4e-7 * Math.abs(packed.scales[row * blocks + Math.floor(column / block)]) * 8)
          continue;
        throw new RunError(
          `tensor "${name}": ONNX Runtime reads row ${row}, column ${column} as ${found}, not as ${expected}`,
        );
      }
    });
  } finally {
    await session.release();
  }
}
