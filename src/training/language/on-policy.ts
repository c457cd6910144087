import { createRandom } from '../../random.js';
import { type BatchSource, IGNORED, type TeacherRows, type TokenBatch } from '../types.js';

/** Windows that the student writes itself (GKD, Agarwal et al. 2024). */
export interface OnPolicySettings {
  /** Share of the micro-batches. */
  readonly share: number;
  readonly temperature: number;
  /** Tokens of a continuation; half of the window when absent. */
  readonly tokens?: number;
  readonly seed: number;
}

/**
 * Continues prompts with the student as it is: one sequence of `count` tokens each, ended early by a stop token.
 * @param stream number of the stream of random numbers: another one for every batch
 */
export type WriteContinuations = (
  prompts: readonly Int32Array[],
  count: number,
  stream: number,
) => Promise<readonly Int32Array[]>;

/** Stream of the draws that say which batches are sampled. */
const CHOICE = 0x6f6e;

/** Whether micro-batch `index` is one that the student writes. */
export function isSampled({ share, seed }: Pick<OnPolicySettings, 'share' | 'seed'>, index: number): boolean {
  return createRandom(seed).fork(CHOICE).fork(index).uniform() < share;
}

/**
 * Puts continuations of the student in the place of a share of the batches. A prompt is what stands before the first
 * token that is asked for, or the first part of a window of which all is. Asked for is what was written; a sampled token
 * is no truth, so its label only says that the row counts: `adoptTeacherLabels` puts the teacher's choice there.
 * Sampled windows have the number -1.
 */
export function onPolicyBatches(
  source: BatchSource<TokenBatch>,
  settings: OnPolicySettings,
  write: WriteContinuations,
): BatchSource<TokenBatch> {
  return {
    perEpoch: source.perEpoch,
    async batch(index) {
      const batch = await source.batch(index);
      if (!isSampled(settings, index)) return batch;
      const prompts = promptsOf(batch, settings.tokens);
      const count = settings.tokens ?? Math.ceil(batch.length / 2);
      const continuations = await write(prompts, count, index);
      return joined(prompts, continuations, batch.length);
    },
  };
}

function promptsOf({ tokens, labels, batch, length }: TokenBatch, wanted: number | undefined): Int32Array[] {
  const count = Math.min(wanted ?? Math.ceil(length / 2), length - 1);
  return Array.from({ length: batch }, (_, b) => {
    const ofWindow = labels.subarray(b * length, (b + 1) * length);
    const first = ofWindow.findIndex((label) => label !== IGNORED);
    // The label of position i is token i + 1, so the prompt ends with position `first`.
    const asked = first > 0 ? first + 1 : length - count;
    const end = Math.max(1, Math.min(asked, length - 1));
    return tokens.slice(b * length, b * length + end);
  });
}

function joined(prompts: readonly Int32Array[], continuations: readonly Int32Array[], longest: number): TokenBatch {
  const lengths = prompts.map((prompt, b) => Math.min(longest, prompt.length + continuations[b].length - 1));
  const length = Math.max(...lengths);
  const tokens = new Int32Array(prompts.length * length);
  const labels = new Int32Array(tokens.length).fill(IGNORED);
  prompts.forEach((prompt, b) => {
    const whole = Int32Array.of(...prompt, ...continuations[b]);
    for (let i = 0; i < length; i++) tokens[b * length + i] = whole[Math.min(i, whole.length - 1)];
    for (let i = prompt.length - 1; i < lengths[b]; i++) labels[b * length + i] = whole[i + 1];
  });
  return { tokens, labels, batch: prompts.length, length, windows: new Int32Array(prompts.length).fill(-1) };
}

/** Whether the student wrote a batch. */
export const isOnPolicy = (batch: TokenBatch): boolean => batch.windows[0] === -1;

/** Labels of the rows from `firstRow` on become the teacher's likeliest classes where something is asked. */
export function adoptTeacherLabels(labels: Int32Array, firstRow: number, rows: number, teacher: TeacherRows): void {
  for (let r = 0; r < rows; r++) {
    if (labels[firstRow + r] === IGNORED) continue;
    if (teacher.kind === 'top') {
      labels[firstRow + r] = teacher.ids[r * teacher.k];
      continue;
    }
    const classes = teacher.logits.length / rows;
    const row = teacher.logits.subarray(r * classes, (r + 1) * classes);
    let best = 0;
    for (let c = 1; c < classes; c++) if (row[c] > row[best]) best = c;
    labels[firstRow + r] = best;
  }
}
