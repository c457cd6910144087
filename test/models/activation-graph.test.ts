import { afterAll, describe, expect, it } from 'vitest';
import { createActivationQuantizer } from '../../src/models/activation-graph.js';
import type { ActivationQuantization } from '../../src/models/activation-quantization.js';
import { quantizeActivations } from '../../src/models/activation-reference.js';
import { createEngine, type Engine } from '../../src/models/engine.js';
import { gatherRows } from '../../src/models/gather-rows.js';
import { composeGraph } from '../../src/models/graph.js';
import type { Floats } from '../../src/models/layer-runner.js';
import { openModelFiles } from '../../src/models/model-files.js';
import { createSession, floatsOf, tensorOf } from '../../src/models/sessions.js';
import { parseActivations } from '../../src/quantization/activations.js';
import { createRandom } from '../../src/random.js';

const LEVELS = [0.7, 0.85, 0.95, 1.05, 1.2, 1.45];
const int = (bits: 4 | 8, rotated: boolean, clip = 1): ActivationQuantization => ({ kind: 'int', bits, clip, rotated });
const pvq = (groupLength: number, pulses: number, rotated: boolean, levels = LEVELS): ActivationQuantization => ({
  kind: 'pvq',
  groupLength,
  pulses,
  levels,
  rotated,
});

async function quantizeInGraph(rows: Floats, width: number, activations: ActivationQuantization): Promise<Floats> {
  const precision = rows instanceof Float32Array ? 'f32' : 'f64';
  const g = composeGraph('quantizer', precision);
  const quantize = createActivationQuantizer(g, activations);
  const x = g.input('x', precision, ['rows', width]);
  g.publish(quantize(x, width), 'y', ['rows', width]);
  const session = await createSession(g.encode(), { threads: 1, device: 'cpu', arena: false, precision });
  const found = floatsOf((await session.run({ x: tensorOf(rows, [rows.length / width, width]) })).y);
  await session.release();
  return found;
}

function gaussian(count: number, precision: 'f32' | 'f64', salt: number): Floats {
  const random = createRandom(7).fork(salt);
  return precision === 'f32'
    ? Float32Array.from({ length: count }, () => random.normal())
    : Float64Array.from({ length: count }, () => random.normal());
}

function expectClose(found: Floats, expected: Floats, tolerance: number): void {
  expect(found.length).toBe(expected.length);
  const scale = Float64Array.from(expected).reduce((most, value) => Math.max(most, Math.abs(value)), 1e-300);
  found.forEach((value, i) => {
    expect(Math.abs(value - expected[i]), `entry ${i}`).toBeLessThanOrEqual(tolerance * scale);
  });
}

const CASES: readonly (readonly [string, number, ActivationQuantization])[] = [
  ['int8', 96, int(8, false)],
  ['int4 clipped', 96, int(4, false, 0.9)],
  ['int4 rotated, Paley core 12', 96, int(4, true, 0.9)],
  ['int8 rotated, blocks', 50, int(8, true)],
  ['int8 rotated, odd', 15, int(8, true)],
  ['int4 rotated, two Sylvester factors', 256, int(4, true)],
  ['int4 rotated, Paley core 28 and a Sylvester factor', 448, int(4, true)],
  ['pyramid 16, 23', 96, pvq(16, 23, false)],
  ['pyramid 8, 5 with few pulses', 96, pvq(8, 5, true)],
  ['pyramid 16, 48 with a padded last group', 90, pvq(16, 48, false)],
  ['pyramid 4, 1 without a gain code', 64, pvq(4, 1, true, [1])],
  ['pyramid of a single coordinate', 24, pvq(1, 3, false)],
  ['pyramid over a whole row', 24, pvq(24, 60, true)],
];

describe.each(CASES)('%s', (_, width, activations) => {
  it.each([
    ['f32', 1e-5],
    ['f64', 1e-12],
  ] as const)('agrees with the definition in %s', async (precision, tolerance) => {
    const rows = gaussian(9 * width, precision, width);
    rows.fill(0, width, 2 * width);
    rows.fill(0, 2 * width, 2 * width + Math.floor(width / 2));
    rows.subarray(3 * width, 4 * width).forEach((value, i) => {
      rows[3 * width + i] = 1000 * value;
    });
    rows[4 * width] = 40;
    const found = await quantizeInGraph(rows, width, activations);
    expectClose(found, quantizeActivations(rows, width, activations), tolerance);
    expect(found.subarray(width, 2 * width).every((value) => value === 0)).toBe(true);
  });
});

describe('the pyramid code of activations', () => {
  it('has the error of its rate on Gaussian rows, and no point off the pyramid', async () => {
    const width = 1024;
    const rows = gaussian(32 * width, 'f64', 3);
    const levels = [0.79, 0.88, 0.95, 1.01, 1.07, 1.13, 1.21, 1.32];
    const found = await quantizeInGraph(rows, width, pvq(16, 23, false, levels));
    let noise = 0;
    let signal = 0;
    for (let from = 0; from < rows.length; from += 16) {
      const group = Float64Array.from(found.subarray(from, from + 16));
      const size = group.reduce((total, value) => total + Math.abs(value), 0);
      for (const value of group)
        expect(Math.abs((23 * value) / size - Math.round((23 * value) / size))).toBeLessThan(1e-9);
      for (let i = from; i < from + 16; i++) {
        noise += (rows[i] - found[i]) ** 2;
        signal += rows[i] ** 2;
      }
    }
    // 15.66 dB is what the greedy search gives for weights at D = 16, K = 23 and 3 gain bits.
    expect(10 * Math.log10(signal / noise)).toBeGreaterThan(15.5);
  });
});

const engines: Engine[] = [];
afterAll(async () => {
  for (const engine of engines) await engine.close();
});

async function logitsOf(
  path: string,
  windows: Int32Array[],
  own: { activations?: ActivationQuantization | undefined; threads?: number; precision?: 'f32' | 'f64' },
): Promise<Floats> {
  const { activations, threads = 2, precision = 'f32' } = own;
  const options = { threads, maxMemoryBytes: 2 ** 31, device: 'cpu', precision, context: 64 } as const;
  const engine = await createEngine(openModelFiles(path), { ...options, ...(activations && { activations }) });
  engines.push(engine);
  const wanted = windows.map((ids) => [0, ids.length] as const);
  const rows = gatherRows(await engine.forward({ windows }), engine.model.hiddenSize, wanted);
  await engine.normalize(rows);
  return engine.logits(rows);
}

const window = (length: number, salt: number): Int32Array =>
  Int32Array.from({ length }, (_, i) => (i * 37 + salt * 11 + 5) % 60);

/** Median over positions of the relative error: a router that chooses another expert changes some of them wholly. */
function relative(found: Floats, expected: Floats, positions: number): number {
  const width = expected.length / positions;
  const squares = (values: Floats): number => Float64Array.from(values).reduce((sum, value) => sum + value * value, 0);
  const errors = Array.from({ length: positions }, (_, p) => {
    const own = expected.slice(p * width, (p + 1) * width);
    const difference = own.map((value, i) => value - found[p * width + i]);
    return Math.sqrt(squares(difference) / squares(own));
  });
  return errors.sort((a, b) => a - b)[Math.floor(positions / 2)];
}

const MODELS = [
  'fixtures/models/llama-sotu',
  'fixtures/models/mixtral-sotu-moby',
  'fixtures/architectures/gpt2',
  'fixtures/architectures/qwen2-moe-shared',
];

describe.each(MODELS)('%s with quantised activations', (path) => {
  const windows = [window(30, 0)];
  it('changes its logits little with 8 bits, and more with 4', async () => {
    const plain = await logitsOf(path, windows, {});
    const eight = relative(await logitsOf(path, windows, { activations: int(8, false) }), plain, 30);
    const rotated = relative(await logitsOf(path, windows, { activations: int(8, true) }), plain, 30);
    const four = relative(await logitsOf(path, windows, { activations: int(4, false) }), plain, 30);
    expect(eight).toBeLessThan(0.05);
    expect(rotated).toBeLessThan(0.05);
    expect(eight).toBeGreaterThan(0);
    expect(four).toBeGreaterThan(2 * eight);
    const fine = await logitsOf(path, windows, {
      activations: parseActivations('pvq:8:400:8:rotated'),
      precision: 'f64',
    });
    expect(relative(fine, plain, 30)).toBeLessThan(0.05);
  });

  const few = path.includes('llama') || path.includes('qwen2');
  it.runIf(few)('gives the same bits for any number of threads and whatever runs beside a window', async () => {
    for (const activations of [int(4, true), pvq(16, 12, true)]) {
      for (const length of [1, 30]) {
        const alone = await logitsOf(path, [window(length, 0)], { activations, threads: 1 });
        const batch = [window(length, 0), window(length, 1), window(9, 4)];
        const beside = await logitsOf(path, batch, { activations, threads: 3 });
        expect(beside.subarray(0, alone.length)).toEqual(alone);
      }
    }
  });
});
