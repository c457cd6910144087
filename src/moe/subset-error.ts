import type { Floats } from '../models/layer-runner.js';
import { route } from './layer-function.js';
import type { SubsetError } from './pruning.js';
import type { RouterRule } from './types.js';

/** Collects what the error of every subset of experts can be told from: inner products of the outputs, token by token. */
export interface SubsetErrorSums {
  /** @param outputs of all experts on all rows, E times [rows, H] @param logits of the router, [rows, E] */
  add(outputs: readonly Floats[], logits: Floats, rows: number): void;
  /** Relative error of the layer's output when the flagged experts stay and the router chooses among them. */
  finish(): SubsetError;
}

/** Bytes that a token takes. */
export function subsetErrorBytes(experts: number): number {
  return 8 * ((experts * (experts + 1)) / 2 + experts);
}

/**
 * Errors of subsets of experts on the tokens of a text (NAEE 2024: the subset with the least error of the layer's output
 * stays). y = sum_e w_e E_e(x), so ||y' - y||^2 is a quadratic form in the difference of the weights: E (E + 1) / 2 inner
 * products a token hold all subsets.
 */
export function createSubsetErrors(experts: number, hidden: number, rule: RouterRule): SubsetErrorSums {
  const triangle = (experts * (experts + 1)) / 2;
  const grams: Float64Array[] = [];
  const scores: Float64Array[] = [];
  return {
    add(outputs, logits, rows) {
      const gram = new Float64Array(rows * triangle);
      for (let row = 0; row < rows; row++) {
        const at = row * hidden;
        for (let i = 0, entry = row * triangle; i < experts; i++) {
          const a = outputs[i];
          for (let j = 0; j <= i; j++, entry++) {
            const b = outputs[j];
            let sum = 0;
            for (let c = at; c < at + hidden; c++) sum += a[c] * b[c];
            gram[entry] = sum;
          }
        }
      }
      grams.push(gram);
      scores.push(Float64Array.from(logits.subarray(0, rows * experts)));
    },
    finish() {
      const original = scores.map((z) => weightsOf(z, experts, rule));
      const zero = new Float64Array(experts);
      let signal = 0;
      for (const [b, w] of original.entries()) signal += quadraticForms(grams[b], w, undefined, experts, zero);
      return (kept) => {
        let error = 0;
        for (const [b, z] of scores.entries()) {
          const masked = z.slice();
          for (let i = 0; i < masked.length; i++) if (!kept[i % experts]) masked[i] = Number.NEGATIVE_INFINITY;
          error += quadraticForms(grams[b], original[b], weightsOf(masked, experts, rule), experts, zero);
        }
        return signal > 0 ? Math.sqrt(error / signal) : 0;
      };
    },
  };
}

/** Weight of every expert for every row, zero where it is not chosen, [rows, E]. */
function weightsOf(logits: Float64Array, experts: number, rule: RouterRule): Float64Array {
  const rows = logits.length / experts;
  const { chosen, weights, topK } = route(logits, rows, experts, rule);
  const full = new Float64Array(logits.length);
  for (let i = 0; i < chosen.length; i++) {
    const row = Math.floor(i / topK);
    // A dropped expert that fills up the choice of too few has weight zero.
    if (Number.isFinite(logits[row * experts + chosen[i]])) full[row * experts + chosen[i]] = weights[i];
  }
  return full;
}

/** Sum over rows of (a - b)^T G (a - b). @param difference room for one row */
function quadraticForms(
  grams: Float64Array,
  a: Float64Array,
  b: Float64Array | undefined,
  experts: number,
  difference: Float64Array,
): number {
  const triangle = (experts * (experts + 1)) / 2;
  const rows = a.length / experts;
  let total = 0;
  for (let row = 0; row < rows; row++) {
    const at = row * experts;
    for (let e = 0; e < experts; e++) difference[e] = a[at + e] - (b === undefined ? 0 : b[at + e]);
    for (let i = 0; i < experts; i++) {
      if (difference[i] === 0) continue;
      const line = row * triangle + (i * (i + 1)) / 2;
      let sum = 0.5 * difference[i] * grams[line + i];
      for (let j = 0; j < i; j++) sum += difference[j] * grams[line + j];
      total += 2 * difference[i] * sum;
    }
  }
  return Math.max(0, total);
}
