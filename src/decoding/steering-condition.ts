import type { Engine } from '../models/engine.js';
import type { Floats } from '../models/layer-runner.js';
import type { SteeringCondition } from './steering-plan.js';

/**
 * cos(x, tanh(P x)) with P = c c' / (c . c), of a residual x [hidden] and the vector c [hidden] of a condition (CAST;
 * specification of steering, section 6.2). 0 where x has no component along c.
 */
export function conditionSimilarity(residual: ArrayLike<number>, vector: ArrayLike<number>): number {
  let along = 0;
  let squared = 0;
  for (let i = 0; i < vector.length; i++) {
    along += residual[i] * vector[i];
    squared += vector[i] * vector[i];
  }
  const share = squared === 0 ? 0 : along / squared;
  let product = 0;
  let own = 0;
  let projected = 0;
  for (let i = 0; i < vector.length; i++) {
    const p = Math.tanh(share * vector[i]);
    product += residual[i] * p;
    own += residual[i] * residual[i];
    projected += p * p;
  }
  const norms = Math.sqrt(own) * Math.sqrt(projected);
  return norms === 0 ? 0 : product / norms;
}

/**
 * Similarities of prompts with a condition, read in unsteered passes over the prompts up to the condition's layer; a
 * prompt's residual is that of its last token, or the mean over its tokens.
 */
export async function conditionSimilarities(
  engine: Engine,
  prompts: readonly Int32Array[],
  condition: SteeringCondition,
): Promise<Float64Array> {
  const hidden = engine.model.hiddenSize;
  const similarities = new Float64Array(prompts.length);
  const most = engine.plan.rowsPerBatch;
  for (let first = 0; first < prompts.length; ) {
    let end = first;
    let tokens = 0;
    while (end < prompts.length && (end === first || tokens + prompts[end].length <= most)) {
      tokens += prompts[end++].length;
    }
    const from = first;
    const windows = prompts.slice(from, end);
    const groups = await engine.forward({ windows, layers: [0, condition.layer + 1] });
    for (const group of groups) {
      group.windows.forEach((window, b) => {
        const rows = group.stream.subarray(b * group.length * hidden, (b + 1) * group.length * hidden);
        similarities[from + window] = conditionSimilarity(readResidual(rows, hidden, condition.read), condition.vector);
      });
    }
    first = end;
  }
  return similarities;
}

/** Whether a similarity passes the condition's threshold. */
export function conditionHolds(similarity: number, { comparison, threshold }: SteeringCondition): boolean {
  return comparison === '>' ? similarity > threshold : similarity < threshold;
}

/** The last of rows [n, hidden], or their mean. */
function readResidual(rows: Floats, hidden: number, read: SteeringCondition['read']): Float64Array {
  const n = rows.length / hidden;
  const first = read === 'last' ? n - 1 : 0;
  const out = new Float64Array(hidden);
  for (let r = first; r < n; r++) for (let i = 0; i < hidden; i++) out[i] += rows[r * hidden + i];
  return out.map((sum) => sum / (n - first));
}
