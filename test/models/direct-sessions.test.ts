import { Tensor } from 'onnxruntime-node';
import { afterAll, describe, expect, it } from 'vitest';
import { configureKernels } from '../../src/kernels/native.js';
import { openDirectSession } from '../../src/models/direct-sessions.js';
import { composeGraph } from '../../src/models/graph.js';

const SETTINGS = { threads: 1, device: 'cpu', arena: true, precision: 'f32' } as const;

/** y = relu(a) + 1, its shape, and where a is positive. */
function graph(): Uint8Array {
  const g = composeGraph('positive_part', 'f32');
  const a = g.input('a', g.float, ['rows', 3]);
  const y = g.node('Add', [g.node('Relu', [a]), g.scalar(1)]);
  g.publish(y, 'y');
  g.node('Shape', [y], { outputs: ['shape'] });
  g.output('shape', 'i64', [2]);
  g.node('Greater', [a, g.scalar(0)], { outputs: ['positive'] });
  g.output('positive', 'bool', ['rows', 3]);
  return g.encode();
}

const input = (): Tensor => new Tensor('float32', Float32Array.of(1, -2, 3, -4, 5, -6), [2, 3]);

afterAll(() => {
  configureKernels({ native: true });
});

describe.each([true, false])('a direct session, addon: %s', (native) => {
  it('writes into what is given, and makes what is not', async () => {
    configureKernels({ native });
    const session = await openDirectSession(graph(), SETTINGS);
    const y = new Tensor('float32', new Float32Array(6), [2, 3]);
    const outputs = await session.run({ a: input() }, { y, shape: null, positive: null });
    expect(outputs.y).toBe(y);
    expect([...(y.data as Float32Array)]).toEqual([2, 1, 4, 1, 6, 1]);
    expect([outputs.shape.type, outputs.shape.data]).toEqual(['int64', BigInt64Array.of(2n, 3n)]);
    expect([outputs.positive.type, outputs.positive.dims]).toEqual(['bool', [2, 3]]);
    expect([...(outputs.positive.data as Uint8Array)]).toEqual([1, 0, 1, 0, 1, 0]);
    await session.release();
  });

  it('takes empty tensors', async () => {
    configureKernels({ native });
    const session = await openDirectSession(graph(), SETTINGS);
    const { y } = await session.run({ a: new Tensor('float32', new Float32Array(0), [0, 3]) }, { y: null });
    expect(y.dims).toEqual([0, 3]);
    await session.release();
  });

  it('tells what the runtime says', async () => {
    configureKernels({ native });
    const session = await openDirectSession(graph(), SETTINGS);
    const a = new Tensor('float32', new Float32Array(8), [2, 4]);
    await expect(session.run({ a }, { y: null })).rejects.toThrow(/ONNX Runtime failed: .*a/);
    await session.release();
    await expect(openDirectSession(Uint8Array.of(1, 2, 3), SETTINGS)).rejects.toThrow(/cannot load/);
  });
});
