import type { JobReference } from '../models/engine-host.js';
import { gatherRows } from '../models/gather-rows.js';
import type { LanguageModel } from '../models/language-model.js';
import type { Floats, Intervention } from '../models/layer-runner.js';

/** What a pass is asked for: the logits of all positions of one window. */
export interface ProofPass {
  readonly tokens: Int32Array;
  /** Vectors [hidden] by block, added to its output at all positions. */
  readonly shifts: readonly (readonly [number, Float32Array])[];
}

/** Logits [tokens, vocabulary], and the mean length of the stream at every point: embeddings, then each block's output. */
export interface ProofLogits {
  readonly logits: Floats;
  readonly streamNorms: Float64Array;
}

/** One pass with vectors added to the stream. Runs beside the engine. */
export async function shiftedLogits(model: LanguageModel, { tokens, shifts }: ProofPass): Promise<ProofLogits> {
  const { engine } = model;
  if (!engine) throw new RangeError('a proof of a model whose layers cannot be reached');
  const { hiddenSize, layers } = engine.model;
  const interventions = shifts.map(
    ([layer, vector]): Intervention => ({ layer, kind: 'add', vector, scale: 1, positions: () => true }),
  );
  const streamNorms = new Float64Array(layers.length + 1);
  const groups = await engine.forward({
    windows: [tokens],
    interventions,
    onResidual(index, [group]) {
      for (let row = 0; row < tokens.length; row++) {
        let squares = 0;
        for (let i = row * hiddenSize; i < (row + 1) * hiddenSize; i++) squares += group.stream[i] ** 2;
        streamNorms[index] += Math.sqrt(squares) / tokens.length;
      }
    },
  });
  const rows = gatherRows(groups, hiddenSize, [[0, tokens.length]]);
  await engine.normalize(rows);
  return { logits: await engine.logits(rows), streamNorms };
}

/** {@link shiftedLogits}, as a host runs it. */
export const PROOF_JOB: JobReference<ProofPass, ProofLogits> = { module: import.meta.url, job: shiftedLogits };

/** How two models predict on the same text, row by row. */
export interface LogitDifference {
  readonly maxAbsDifference: number;
  readonly maxAbsLogit: number;
  /** Mean of KL(softmax(a) || softmax(b)) in nats. */
  readonly meanKlNats: number;
  /** Rows whose most probable token is the same. */
  readonly top1Agreement: number;
}

/** Differences of logits [rows, vocabulary] in f64. */
export function compareLogits(a: Floats, b: Floats, vocabulary: number): LogitDifference {
  const rows = a.length / vocabulary;
  let [maxAbsDifference, maxAbsLogit, kl, agreed] = [0, 0, 0, 0];
  for (let row = 0; row < rows; row++) {
    const x = a.subarray(row * vocabulary, (row + 1) * vocabulary);
    const y = b.subarray(row * vocabulary, (row + 1) * vocabulary);
    for (let i = 0; i < vocabulary; i++) {
      const difference = Math.abs(x[i] - y[i]);
      // A NaN on either side must show, whatever follows it.
      if (difference > maxAbsDifference || Number.isNaN(difference)) maxAbsDifference = difference;
      maxAbsLogit = Math.max(maxAbsLogit, Math.abs(x[i]));
    }
    kl += divergence(x, y);
    if (largest(x) === largest(y)) agreed++;
  }
  return { maxAbsDifference, maxAbsLogit, meanKlNats: kl / rows, top1Agreement: agreed / rows };
}

function largest(row: Floats): number {
  let at = 0;
  for (let i = 1; i < row.length; i++) if (row[i] > row[at]) at = i;
  return at;
}

function logSumExp(row: Floats): number {
  const top = row[largest(row)];
  let sum = 0;
  for (let i = 0; i < row.length; i++) sum += Math.exp(row[i] - top);
  return top + Math.log(sum);
}

function divergence(x: Floats, y: Floats): number {
  const [a, b] = [logSumExp(x), logSumExp(y)];
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += Math.exp(x[i] - a) * (x[i] - a - (y[i] - b));
  return sum;
}
