import { rowCodeBytes, rowGroups, rowIndexBytes, wordBits } from '../../src/kernels/pyramid.js';
import { planRotation } from '../../src/linalg/hadamard.js';
import type { EncodeOptions, GainPolicy, SearchMode } from '../../src/quantization/encode-rows.js';
import { gainLevels, type LevelLaw } from '../../src/quantization/gain-levels.js';
import { referencePipeline } from '../../src/quantization/reference-pipeline.js';
import type { Json } from './harness.js';
import { float64, number, shapeOf, tensor } from './tensors.js';

/** Rows of bytes as lists. */
function byteRows(bytes: Uint8Array, rows: number, rowBytes: number): number[][] {
  return Array.from({ length: rows }, (_, r) => Array.from(bytes.subarray(r * rowBytes, (r + 1) * rowBytes)));
}

const SEARCHES: Readonly<Record<string, SearchMode>> = {
  greedy: 'greedy',
  exact: 'exact',
  best: 'best',
  fixed_point: 'fixed-point',
};

export function run(inputs: { [key: string]: Json }): unknown {
  const [rows, columns] = shapeOf(inputs.W, 'W');
  const given = <T extends string>(name: string, otherwise: T): T =>
    typeof inputs[name] === 'string' ? (inputs[name] as T) : otherwise;
  const code = {
    groupLength: number(inputs.D, 'D'),
    pulses: number(inputs.K, 'K'),
    gainBits: number(inputs.gain_bits, 'gain_bits'),
    superGroup: inputs.super_group === undefined ? 1 : number(inputs.super_group, 'super_group'),
  };
  const count = 2 ** code.gainBits;
  const levels = Float32Array.from(gainLevels(given<LevelLaw>('levels', 'lloyd'), code.groupLength, columns, count));
  const options: EncodeOptions = {
    mode: SEARCHES[given('search', 'greedy')],
    gainPolicy: given<GainPolicy>('gain_policy', 'projection'),
  };
  const rotation = planRotation(columns, BigInt(number(inputs.seed, 'seed')));
  const found = referencePipeline(float64(inputs.W, 'W'), rows, rotation, code, levels, options);
  const groups = rowGroups(columns, code.groupLength);
  return {
    pulses: tensor([rows, columns], Int32Array.from(found.pulses), 'int32'),
    gain_codes: tensor([rows, groups], Int32Array.from(found.gainCodes), 'int32'),
    levels: tensor([count], Float64Array.from(levels)),
    row_scale_fp16: tensor([rows], Float64Array.from(found.encoded.scales)),
    index_bits: wordBits(code),
    index_bytes: byteRows(found.encoded.index, rows, rowIndexBytes(code, groups)),
    gain_bytes: byteRows(found.encoded.gain, rows, rowCodeBytes(code.gainBits, groups)),
    W_hat: tensor([rows, columns], found.decoded),
    mse: found.meanSquaredError,
    sqnr_db: found.sqnrDb,
    cosine: found.cosine,
    bpw_nominal: found.nominalBitsPerWeight,
  };
}
