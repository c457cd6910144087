import { createRandom } from '../../../random.js';
import type { DecoderStudent } from '../../../training/decoder-student.js';
import { createOptimizer } from '../../../training/optimizer.js';
import { addLogitGradients, type PolicyRecord, policyBatch } from './policy-batch.js';
import type { PolicyTask } from './task.js';

export interface WarmStartSettings {
  readonly steps: number;
  /** Demonstrations of a step. */
  readonly batch: number;
  readonly learningRate: number;
  readonly seed: number;
}

/** Steps over which the rate rises, and the part of it that is left at the end. */
const RISE = 20;
const LAST_RATE = 0.1;

/** Learns demonstrations, each seen once: cross-entropy of the policy's tokens, AdamW, a rate that falls linearly. */
export async function warmStart(
  student: DecoderStudent,
  task: PolicyTask,
  { steps, batch, learningRate, seed }: WarmStartSettings,
): Promise<void> {
  const optimizer = createOptimizer(student.parameters, { method: 'adamw', weightDecay: 0 });
  const random = createRandom(seed);
  const length = task.promptLimit + task.responseLimit;
  for (let step = 0; step < steps; step++) {
    const records = Array.from({ length: batch }, (_, i): PolicyRecord => {
      const { prompt, response, mask } = task.demonstrate(random.fork(step * batch + i));
      return { context: prompt, tokens: response, mask };
    });
    const laidOut = policyBatch(records, length);
    let counted = 0;
    for (const one of laidOut.mask) counted += one;
    const slopes = new Float64Array(laidOut.tokens.length).fill(-1 / counted);
    await student.accumulate(laidOut.windows, (block) => addLogitGradients(laidOut, block, slopes), {
      wholeBatch: true,
    });
    const rate = Math.min(1, (step + 1) / RISE) * (1 - (1 - LAST_RATE) * (step / steps));
    optimizer.step({ learningRate: learningRate * rate, clear: true, threads: 1 });
  }
}
