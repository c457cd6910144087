import { describe, expect, it } from 'vitest';
import { feedbackCoupling } from '../../../src/quantization/block-coupling.js';
import { nearestBlocks } from '../../../src/quantization/error-feedback.js';
import {
  checkExportable,
  describeRows,
  startCheck,
  wholeRows,
  writeCarrier,
} from '../../../src/quantization/exports/carriers.js';
import { EXPORT_FORMATS, exportPulses } from '../../../src/quantization/exports/export-format.js';
import { packNbits } from '../../../src/quantization/exports/nbits.js';
import { quantizeForExport, stackRows } from '../../../src/quantization/exports/quantize-for-export.js';
import { encodeStepRowsWithFeedback, stepQuantizer } from '../../../src/quantization/exports/step-quantizer.js';
import { encodeStepRows } from '../../../src/quantization/exports/step-rows.js';
import { factorHessian } from '../../../src/quantization/hessian.js';
import type { QuantizeSettings } from '../../../src/quantization/settings.js';
import { createRandom } from '../../../src/random.js';
import { decode } from './coded-rows.js';

const ROWS = 4;
const COLUMNS = 256;
const random = createRandom(3).fork(0);
const WEIGHTS = Float32Array.from({ length: ROWS * COLUMNS }, () => random.normal() * 0.05);

/** Second moments of inputs that go together. */
function hessian(): Float64Array {
  const tokens = 600;
  const H = new Float64Array(COLUMNS * COLUMNS);
  for (let t = 0; t < tokens; t++) {
    const shared = random.normal();
    const x = Float64Array.from({ length: COLUMNS }, (_, i) => random.normal() + shared * (1 + (i % 7) / 3));
    for (let i = 0; i < COLUMNS; i++)
      for (let j = 0; j < COLUMNS; j++) H[i * COLUMNS + j] += (2 / tokens) * x[i] * x[j];
  }
  return H;
}
const H = hessian();

/** tr(E H E^T) with the Hessian that a factor keeps, damped. */
function outputError(decoded: Float32Array, ridge: number): number {
  let sum = 0;
  for (let r = 0; r < ROWS; r++) {
    const error = Float64Array.from({ length: COLUMNS }, (_, i) => WEIGHTS[r * COLUMNS + i] - decoded[r * COLUMNS + i]);
    for (let i = 0; i < COLUMNS; i++) {
      let dot = ridge * error[i];
      for (let j = 0; j < COLUMNS; j++) dot += H[i * COLUMNS + j] * error[j];
      sum += error[i] * dot;
    }
  }
  return sum;
}

const SETTINGS: QuantizeSettings = {
  rate: { kind: 'bpw', bitsPerWeight: 4 },
  groupLengths: [32],
  superGroup: 1,
  rotation: 'none',
  levels: 'lloyd',
  gain: 'projection',
  search: 'greedy',
  zeroGroups: 'code',
  allocation: 'uniform',
  feedback: {
    errorFeedback: true,
    metricSearch: false,
    rowRefit: false,
    gainRefit: false,
    passes: 0,
    damping: 0.01,
    actOrder: false,
  },
  seed: '0',
};

describe('the policy step as a quantizer of blocks', () => {
  const options = { groupLength: 16, pulses: exportPulses('gguf-q3_k', 16), mode: 'greedy' } as const;

  it('without feedback is what rows are coded as', () => {
    const quantizer = stepQuantizer(ROWS, COLUMNS, 'gguf-q3_k', options);
    const decoded = nearestBlocks(WEIGHTS, ROWS, COLUMNS, quantizer);
    const coded = encodeStepRows(WEIGHTS, ROWS, COLUMNS, 'gguf-q3_k', options);
    expect(quantizer.coded).toEqual(coded);
    expect(decoded).toEqual(decode(coded));
  });

  it('with feedback lowers the error of outputs, and says by how much', () => {
    const factor = factorHessian(H.slice(), COLUMNS, { tensor: 'w' });
    const coupling = feedbackCoupling(factor, 16, new Float32Array(COLUMNS * COLUMNS));
    const { coded, loss } = encodeStepRowsWithFeedback(WEIGHTS, ROWS, COLUMNS, 'gguf-q3_k', coupling, options);
    const own = outputError(decode(coded), factor.ridge);
    expect(loss / own).toBeCloseTo(1, 4);
    const plain = outputError(decode(encodeStepRows(WEIGHTS, ROWS, COLUMNS, 'gguf-q3_k', options)), factor.ridge);
    expect(own).toBeLessThan(0.9 * plain);
    const check = startCheck();
    writeCarrier('w', wholeRows(coded, 0, ROWS), 'gguf-q3_k', check);
    expect(check).toMatchObject({ weights: WEIGHTS.length, squaredError: 0 });
  });
});

describe('quantising for an export', () => {
  it.each(EXPORT_FORMATS)('%s gives codes that the format holds', (format) => {
    for (const inputs of [undefined, { kind: 'hessian', H: H.slice(), tokens: 600 } as const]) {
      const weights = WEIGHTS.slice();
      const request = { tensor: 'w', rows: ROWS, columns: COLUMNS, format, settings: SETTINGS };
      const { coded, squaredError, weightEnergy } = quantizeForExport(weights, {
        ...request,
        ...(inputs && { inputs }),
      });
      expect(() => checkExportable('w', describeRows(coded), format)).not.toThrow();
      const band = wholeRows(coded, 0, ROWS);
      if (format === 'onnx-nbits') {
        const packed = {
          outputs: ROWS,
          columns: COLUMNS,
          block: 32,
          blocks: 8,
          codes: new Uint8Array((ROWS * COLUMNS) / 2),
          scales: new Float32Array(ROWS * 8),
        };
        packNbits('w', band, packed, (row) => row, startCheck());
      } else writeCarrier('w', band, format, startCheck());
      const decoded = decode(coded);
      const direct = decoded.reduce((sum, value, i) => sum + (WEIGHTS[i] - value) ** 2, 0);
      expect(squaredError / direct).toBeCloseTo(1, 5);
      expect(squaredError / weightEnergy).toBeLessThan(format === 'gguf-q2_k' ? 0.5 : 0.2);
    }
  });

  it.each(['gguf-q4_0', 'gguf-q6_k'] as const)('%s stacks matrices', (format) => {
    const request = { tensor: 'w', rows: ROWS, columns: COLUMNS, format, settings: SETTINGS };
    const one = quantizeForExport(WEIGHTS.slice(), request).coded;
    const other = quantizeForExport(
      WEIGHTS.map((value) => -2 * value),
      request,
    ).coded;
    const both = stackRows([one, other]);
    expect(both.rows).toBe(2 * ROWS);
    expect([...decode(both)]).toEqual([...decode(one), ...decode(other)]);
    expect(() => stackRows([one, { ...other, columns: 128 }])).toThrow(RangeError);
  });
});
