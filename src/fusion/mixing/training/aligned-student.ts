import { sumOfSquares } from '../../../kernels/optimizer-steps.js';
import { countValid } from '../../../training/objective.js';
import type { Floats, LogitsVisitor, Student, TokenBatch } from '../../../training/types.js';
import { innerProduct } from '../gradient-alignment.js';
import { type GroupBatch, groupParts, partOfBatch } from './group-batches.js';

/** Inner products and norms of one step, for DoGE. */
export interface StepAlignments {
  /** <g_j, g_val>, [k]; 0 for groups that the step did not hold. */
  readonly inner: Float64Array;
  /** |g_j|, [k]. */
  readonly norms: Float64Array;
}

/** A student whose gradients are taken group by group, and held against that of a validation batch. */
export interface AlignedStudent extends Student<GroupBatch> {
  /** Takes the gradient of a validation batch, at the values as they are. */
  aim(validation: TokenBatch, visit: LogitsVisitor): Promise<void>;
  /** What the batches since the last call gave, each group's mean over the micro-batches that held it. */
  taken(): StepAlignments;
}

/** Gradients are shortened to this norm before they are compared. */
const LONGEST = 1;

const zeros = (like: Floats): Floats =>
  like instanceof Float32Array ? new Float32Array(like.length) : new Float64Array(like.length);

/**
 * Wraps a student: a batch is run in one part a group, and the sum of the parts' gradients is that of the batch. Two more flat
 * buffers are held: the validation gradient, and the sum of the parts. Gradients are means over tokens, shortened to norm 1.
 */
export function createAlignedStudent(student: Student<GroupBatch>, groups: number, threads: number): AlignedStudent {
  const { gradients } = student.parameters;
  const validation = zeros(gradients);
  const sum = zeros(gradients);
  let validationScale = 0;
  let inner = new Float64Array(groups);
  let norms = new Float64Array(groups);
  let held = new Int32Array(groups);
  /** What makes a sum of gradients over tokens a mean of norm 1 at most, and its norm then. */
  const normed = (tokens: number): { readonly scale: number; readonly norm: number } => {
    if (tokens === 0) return { scale: 0, norm: 0 };
    const norm = Math.sqrt(sumOfSquares(gradients, threads)) / tokens;
    const shortening = norm > LONGEST ? LONGEST / norm : 1;
    return { scale: shortening / tokens, norm: norm * shortening };
  };
  return {
    ...student,
    async aim(batch, visit) {
      sum.set(gradients);
      gradients.fill(0);
      await student.accumulate(batch as GroupBatch, visit);
      validation.set(gradients);
      validationScale = normed(countValid(batch.labels)).scale;
      gradients.set(sum);
    },
    async accumulate(batch, visit, options) {
      sum.set(gradients);
      for (const [group, from, to] of groupParts(batch)) {
        const part = partOfBatch(batch, from, to);
        const firstRow = from * batch.length;
        gradients.fill(0);
        await student.accumulate(part, (block) => visit({ ...block, firstRow: block.firstRow + firstRow }), options);
        const { scale, norm } = normed(countValid(part.labels));
        inner[group] += innerProduct(gradients, validation) * scale * validationScale;
        norms[group] += norm;
        held[group]++;
        for (let e = 0; e < sum.length; e++) sum[e] += gradients[e];
      }
      gradients.set(sum);
      return [];
    },
    taken() {
      const mean = (of: Float64Array): Float64Array => of.map((value, j) => (held[j] === 0 ? 0 : value / held[j]));
      const result = { inner: mean(inner), norms: mean(norms) };
      inner = new Float64Array(groups);
      norms = new Float64Array(groups);
      held = new Int32Array(groups);
      return result;
    },
  };
}
