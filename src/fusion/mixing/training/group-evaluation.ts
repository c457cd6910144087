import { type TokenWindows, windowBatches } from '../../../training/language/token-data.js';
import { createLoss } from '../../../training/losses/index.js';
import { createObjective } from '../../../training/objective.js';
import { IGNORED, type Loss, type Student, type TokenBatch } from '../../../training/types.js';

/** Mean -ln p of the tokens of a text. */
export interface GroupLoss {
  /** Nats a token. */
  readonly mean: number;
  /** Of the mean, from the spread between windows as clusters; null for one window. */
  readonly standardError: number | null;
  readonly tokens: number;
}

/** Losses of a student on the text of every group. */
export async function evaluateGroups(
  student: Student<TokenBatch>,
  groups: readonly TokenWindows[],
  batchSize: number,
): Promise<readonly GroupLoss[]> {
  const losses: GroupLoss[] = [];
  for (const windows of groups) losses.push(await evaluateGroup(student, windows, batchSize));
  return losses;
}

async function evaluateGroup(
  student: Student<TokenBatch>,
  windows: TokenWindows,
  batchSize: number,
): Promise<GroupLoss> {
  const crossEntropy = createLoss('ce');
  const sums = new Float64Array(windows.count);
  const tokens = new Float64Array(windows.count);
  let current: TokenBatch | undefined;
  const watched: Loss = {
    ...crossEntropy,
    evaluate(input, gradients) {
      const output = crossEntropy.evaluate(input, gradients);
      const firstRow = input.firstRow ?? 0;
      for (let r = 0; current && output.perRow && r < input.rows; r++) {
        if (current.labels[firstRow + r] === IGNORED) continue;
        const window = current.windows[Math.floor((firstRow + r) / current.length)];
        sums[window] += output.perRow[r];
        tokens[window]++;
      }
      return output;
    },
  };
  const objective = createObjective<TokenBatch>([{ weight: 1, loss: watched }], { labels: ({ labels }) => labels });
  const source = windowBatches(windows, batchSize);
  for (let index = 0; index < source.perEpoch; index++) {
    current = await source.batch(index);
    await student.evaluate(current, objective.begin(current, { step: 0, epoch: 0 }).visit);
  }
  return ratioOfSums(sums, tokens);
}

/** Mean of a ratio of sums and its standard error over clusters (linearised). */
function ratioOfSums(sums: Float64Array, tokens: Float64Array): GroupLoss {
  const total = tokens.reduce((a, b) => a + b, 0);
  const mean = sums.reduce((a, b) => a + b, 0) / total;
  const n = sums.length;
  if (n < 2) return { mean, standardError: null, tokens: total };
  let squares = 0;
  for (let w = 0; w < n; w++) squares += (sums[w] - mean * tokens[w]) ** 2;
  return { mean, standardError: Math.sqrt((n / (n - 1)) * squares) / total, tokens: total };
}
