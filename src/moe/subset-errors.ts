import { InputError } from '../errors.js';
import type { Floats } from '../models/layer-runner.js';
import { route } from './layer-function.js';
import { binomial, EXACT_SUBSETS, eachSubset, type SubsetError } from './pruning.js';
import type { RouterRule } from './types.js';

/** Errors of a layer under every choice of the experts that stay, summed over tokens. */
export interface SubsetErrors {
  readonly tokens: number;
  /**
   * Adds tokens: router logits [rows, E] and the outputs of every expert on every one of them, E arrays [rows, H].
   * @throws RangeError when an array is too short
   */
  add(logits: Floats, outputs: readonly Floats[], rows: number): void;
  /** || y - y_S ||_F / || y ||_F of the tokens added so far. @throws RangeError for a subset of another size */
  readonly errorOf: SubsetError;
}

/** Inner products of the experts' outputs for one token, [E, E]. */
function tokenGram(outputs: readonly Floats[], row: number, hidden: number, gram: Float64Array): void {
  const experts = outputs.length;
  const offset = row * hidden;
  for (let i = 0; i < experts; i++) {
    const a = outputs[i];
    for (let j = 0; j <= i; j++) {
      const b = outputs[j];
      let sum = 0;
      for (let c = 0; c < hidden; c++) sum += a[offset + c] * b[offset + c];
      gram[i * experts + j] = sum;
      gram[j * experts + i] = sum;
    }
  }
}

function quadraticForm(gram: Float64Array, w: Float64Array): number {
  const n = w.length;
  let total = 0;
  for (let i = 0; i < n; i++) {
    if (w[i] === 0) continue;
    let sum = 0;
    for (let j = 0; j < n; j++) sum += w[j] * gram[i * n + j];
    total += w[i] * sum;
  }
  return total;
}

/** Rows whose Gram matrices are held. */
const BLOCK_ROWS = 256;

const keyOf = (members: Iterable<number>): string => [...members].join(',');

/**
 * Opens the errors of all subsets of `keep` experts (NAEE 2024): a layer that keeps S routes among the experts of S alone, since
 * the router rows of the others are gone. One pass serves all subsets: the error of a token is a quadratic form of the
 * inner products of its outputs.
 * @param hidden H
 * @throws InputError when there are more than `exactSubsets`, or `keep` is not within 1..E
 */
export function createSubsetErrors(
  experts: number,
  keep: number,
  hidden: number,
  rule: RouterRule,
  options: { readonly exactSubsets?: number } = {},
): SubsetErrors {
  const most = options.exactSubsets ?? EXACT_SUBSETS;
  if (!(Number.isInteger(keep) && keep >= 1 && keep <= experts)) {
    throw new InputError(`${keep} of ${experts} experts cannot be kept`);
  }
  const count = binomial(experts, keep);
  if (count > most) {
    throw new InputError(
      `${count} choices of ${keep} of ${experts} experts are more than ${most}; prune by a score, or raise the limit`,
    );
  }
  const subsets: Int32Array[] = [];
  eachSubset(experts, keep, (members) => subsets.push(members.slice()));
  const places = new Map(subsets.map((members, i) => [keyOf(members), i]));
  const rules = subsets.map((members) => subsetRule(rule, members));
  const errors = new Float64Array(subsets.length);
  let [tokens, signal] = [0, 0];

  /** Adds the error of each subset on a block of rows, whose Gram matrices and full weights are known. */
  const addBlock = (logits: Floats, rows: number, grams: Float64Array, full: Float64Array): void => {
    const restricted = new Float64Array(rows * keep);
    const w = new Float64Array(experts);
    subsets.forEach((members, i) => {
      for (let row = 0; row < rows; row++) {
        for (let m = 0; m < keep; m++) restricted[row * keep + m] = logits[row * experts + members[m]];
      }
      const { chosen, weights, topK } = route(restricted, rows, keep, rules[i]);
      for (let row = 0; row < rows; row++) {
        w.set(full.subarray(row * experts, (row + 1) * experts));
        for (let j = row * topK; j < (row + 1) * topK; j++) w[members[chosen[j]]] -= weights[j];
        const gram = grams.subarray(row * experts * experts, (row + 1) * experts * experts);
        errors[i] += Math.max(0, quadraticForm(gram, w));
      }
    });
  };
  return {
    get tokens() {
      return tokens;
    },
    add(logits, outputs, rows) {
      if (outputs.length !== experts || outputs.some(({ length }) => length < rows * hidden)) {
        throw new RangeError(`outputs are not ${experts} times [${rows}, ${hidden}]`);
      }
      for (let from = 0; from < rows; from += BLOCK_ROWS) {
        const count = Math.min(BLOCK_ROWS, rows - from);
        const block = logits.subarray(from * experts, (from + count) * experts);
        const { chosen, weights, topK } = route(block, count, experts, rule);
        const grams = new Float64Array(count * experts * experts);
        const full = new Float64Array(count * experts);
        for (let row = 0; row < count; row++) {
          const gram = grams.subarray(row * experts * experts, (row + 1) * experts * experts);
          const mix = full.subarray(row * experts, (row + 1) * experts);
          tokenGram(outputs, from + row, hidden, gram);
          for (let j = row * topK; j < (row + 1) * topK; j++) mix[chosen[j]] += weights[j];
          signal += Math.max(0, quadraticForm(gram, mix));
        }
        addBlock(block, count, grams, full);
      }
      tokens += rows;
    },
    errorOf(kept) {
      const members = [...kept.keys()].filter((expert) => kept[expert] === 1);
      const place = places.get(keyOf(members));
      if (place === undefined) throw new RangeError(`errors of ${keep} experts, asked for ${members.length}`);
      return signal > 0 ? Math.sqrt(errors[place] / signal) : 0;
    },
  };
}

function subsetRule(rule: RouterRule, members: Int32Array): RouterRule {
  const { correctionBias } = rule;
  return {
    ...rule,
    topK: Math.min(rule.topK, members.length),
    ...(correctionBias !== undefined && { correctionBias: Float64Array.from(members, (e) => correctionBias[e]) }),
  };
}
