import { describe, expect, it } from 'vitest';
import { planRotation } from '../../src/linalg/hadamard.js';
import { concatenateRows } from '../../src/quantization/encoded-stack.js';
import {
  createMatrixQuantizer,
  decodeMatrix,
  errorsOf,
  levelsFor,
  type MatrixInputs,
} from '../../src/quantization/quantize-matrix.js';
import { DEFAULT_FEEDBACK, type QuantizeSettings } from '../../src/quantization/settings.js';
import { createRandom } from '../../src/random.js';

const ROWS = 40;
const COLUMNS = 96;
const CODE = { groupLength: 16, pulses: 23, gainBits: 3, superGroup: 2 };
const SETTINGS: QuantizeSettings = {
  rate: { kind: 'bpw', bitsPerWeight: 3 },
  groupLengths: [16],
  superGroup: 'auto',
  rotation: 'stored',
  levels: 'lloyd',
  gain: 'projection',
  search: 'exact',
  zeroGroups: 'code',
  allocation: 'uniform',
  feedback: DEFAULT_FEEDBACK,
  seed: '1',
};

function weights(): Float32Array {
  const random = createRandom(3);
  return Float32Array.from({ length: ROWS * COLUMNS }, () => 0.02 * random.normal());
}

/** Second moments of inputs that lie near a few directions; column 5 is dead. */
function hessian(): MatrixInputs {
  const random = createRandom(4);
  const tokens = 400;
  const H = new Float64Array(COLUMNS * COLUMNS);
  const x = new Float64Array(COLUMNS);
  for (let t = 0; t < tokens; t++) {
    const common = random.normal();
    for (let c = 0; c < COLUMNS; c++) x[c] = c === 5 ? 0 : (0.2 + (c % 7)) * (random.normal() + 2 * common);
    for (let i = 0; i < COLUMNS; i++)
      for (let j = 0; j < COLUMNS; j++) H[i * COLUMNS + j] += (2 / tokens) * x[i] * x[j];
  }
  return { kind: 'hessian', H, tokens };
}

function quantize(inputs: (() => MatrixInputs) | undefined, bandRows: number) {
  const rotation = planRotation(COLUMNS, 9n);
  const all = weights();
  const levels = levelsFor(COLUMNS, 1, CODE, 'lloyd', () => []);
  const quantizer = createMatrixQuantizer({
    tensor: 'w',
    columns: COLUMNS,
    code: CODE,
    levels,
    rotation,
    settings: SETTINGS,
    ...(inputs && { inputs: inputs() }),
  });
  const parts = [];
  let loss = 0;
  let plainLoss = 0;
  for (let first = 0; first < ROWS; first += bandRows) {
    const rows = Math.min(bandRows, ROWS - first);
    const part = quantizer.quantize(all.slice(first * COLUMNS, (first + rows) * COLUMNS), rows);
    parts.push(part.encoded);
    loss += part.losses?.loss ?? 0;
    plainLoss += part.losses?.plainLoss ?? 0;
  }
  const encoded = concatenateRows(parts);
  const decoded = new Float32Array(all.length);
  decodeMatrix(encoded, rotation, decoded);
  return { encoded, decoded, original: all, loss, plainLoss, metric: quantizer.metric };
}

describe('createMatrixQuantizer', () => {
  it('gives the same bytes for any bands of rows', () => {
    for (const inputs of [undefined, hessian]) {
      const whole = quantize(inputs, ROWS);
      for (const rows of [1, 7, 16]) {
        const bands = quantize(inputs, rows);
        expect(Buffer.from(bands.encoded.index).equals(Buffer.from(whole.encoded.index))).toBe(true);
        expect(bands.encoded.gain).toEqual(whole.encoded.gain);
        expect(bands.encoded.scales).toEqual(whole.encoded.scales);
        expect(bands.loss).toBeCloseTo(whole.loss, 10);
      }
    }
  });

  it('decodes near the weights, and nearer in the metric of the inputs with feedback', () => {
    const plain = quantize(undefined, ROWS);
    const errors = errorsOf(plain.original, plain.decoded, COLUMNS, 16);
    expect(10 * Math.log10(errors.weightEnergy / errors.squaredError)).toBeGreaterThan(15);
    const fed = quantize(hessian, ROWS);
    expect(fed.loss).toBeLessThan(0.8 * fed.plainLoss);
    expect([...(fed.metric?.deadInputs ?? [])]).toEqual([5]);
    expect(fed.metric?.warnings.join()).toMatch(/1 of 96 inputs are dead \(5\)/);
  });

  it('fits data levels to amplitudes, ascending also where they are all alike', () => {
    const code = { ...CODE, gainBits: 2 };
    const same = new Float32Array(4 * COLUMNS).fill(1);
    const levels = levelsFor(COLUMNS, 1, code, 'data', () => [same]);
    expect(levels.every((level, i) => i === 0 || level > levels[i - 1])).toBe(true);
    expect(levels[0]).toBeCloseTo(Math.sqrt(16 / COLUMNS), 5);
    const none = levelsFor(COLUMNS, 1, code, 'data', () => [new Float32Array(COLUMNS)]);
    expect(none).toEqual(levelsFor(COLUMNS, 1, code, 'lloyd', () => []));
  });

  it('refuses matrices of different widths as one stack', () => {
    const { encoded } = quantize(undefined, ROWS);
    expect(() => concatenateRows([encoded, { ...encoded, columns: 32 }])).toThrow(RangeError);
    expect(() => concatenateRows([])).toThrow(RangeError);
  });
});
