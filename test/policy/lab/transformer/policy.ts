import { additionTask } from '../../../../src/policy/lab/transformer/addition-task.js';
import { chainTask } from '../../../../src/policy/lab/transformer/chain-task.js';
import { createIncrementalDecoder } from '../../../../src/policy/lab/transformer/incremental-decoder.js';
import { openPolicy, randomPolicy } from '../../../../src/policy/lab/transformer/policy-network.js';
import type { Speaker } from '../../../../src/policy/lab/transformer/rollout-groups.js';
import type { PolicyTask } from '../../../../src/policy/lab/transformer/task.js';
import { createRandom } from '../../../../src/random.js';
import type { DecoderStudent } from '../../../../src/training/decoder-student.js';

export const sums = (): PolicyTask =>
  additionTask({ modulus: 7, operands: 3, idle: 0.5, hardShare: 0.3, hardRight: 0.3 }, createRandom(2));

export const walks = (): PolicyTask =>
  chainTask({ turns: 8, keys: 3, rooms: 4, doors: 3, hardShare: 0.5, hardRight: 0.5, easyRight: 0.9 }, createRandom(2));

/** An untrained policy for a task, and the decoder that samples from it. */
export async function openSpeaker(
  task: PolicyTask,
  layers = 2,
  rows = 16,
): Promise<{ readonly student: DecoderStudent; readonly speaker: Speaker }> {
  const positions = task.promptLimit + task.responseLimit;
  const sizes = { layers, hidden: 16, heads: 2, vocabulary: task.vocabulary.length, positions };
  const student = await openPolicy(randomPolicy(sizes, createRandom(4)), { windows: rows, length: positions });
  const decoder = createIncrementalDecoder(student.description, student.tensors, rows, positions);
  return { student, speaker: { task, decoder, rows } };
}
