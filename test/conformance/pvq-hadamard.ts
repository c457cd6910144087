import { rotateRows } from '../../src/kernels/hadamard.js';
import { planCore, planRotation, signsFromBits } from '../../src/linalg/hadamard.js';
import type { Json } from './harness.js';
import { float64, number, numbers, shapeOf, tensor } from './tensors.js';

export function run(inputs: { [key: string]: Json }): unknown {
  const seed = BigInt(number(inputs.seed, 'seed'));
  const sign: Record<string, unknown> = {};
  const y: Record<string, unknown> = {};
  const core: Record<string, unknown> = {};
  const cases = inputs.x;
  if (cases === null || typeof cases !== 'object' || Array.isArray(cases)) throw new TypeError('x holds no widths');
  for (const [width, value] of Object.entries(cases)) {
    const rotation = planRotation(Number(width), seed);
    const shape = shapeOf(value, width);
    const rows = float64(value, width);
    rotateRows(rows, shape[0], rotation, 'forward');
    sign[width] = tensor([Number(width)], signsFromBits(rotation.signs, Number(width)), 'int8');
    y[width] = tensor(shape, rows);
    core[width] = { core: rotation.core, kind: rotation.kind };
  }
  const plan_core = numbers(inputs.plan_sizes, 'plan_sizes').map((n) => planCore(n)?.core ?? null);
  return { sign, y, core, plan_core };
}
