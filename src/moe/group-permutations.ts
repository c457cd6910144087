import type { AssignmentMode } from '../kernels/linear-assignment.js';
import type { Floats } from '../models/layer-runner.js';
import { alignByActivations, createCorrelation } from './activation-matching.js';
import { alignExpert } from './alignment.js';
import { runInner } from './expert-function.js';
import { gatherRows, route } from './layer-function.js';
import type { StreamCursor } from './stream-cursor.js';
import type { ExpertMatrices, ExpertShape, RouterRule } from './types.js';

/** How the neurons of a member went to the places of its dominant, and what it gained. */
export interface MemberAlignment {
  readonly permutation: Int32Array;
  readonly gainBefore: number;
  readonly gain: number;
  readonly bound: number;
  readonly gap: number;
  /** Squared distances of the weights; only where weights were matched. */
  readonly distanceBefore?: number;
  readonly distanceAfter?: number;
  /** Tokens that activations were correlated over. */
  readonly tokens?: number;
}

export interface AlignmentSettings {
  readonly mode: AssignmentMode;
  readonly includeDown: boolean;
  readonly balance: boolean;
  readonly threads: number;
  readonly maxBytes: number;
}

/** Alignment of a member to its dominant by their weights. */
export function alignByWeights(
  dominant: ExpertMatrices,
  member: ExpertMatrices,
  shape: ExpertShape,
  settings: AlignmentSettings,
): MemberAlignment {
  return alignExpert(dominant, member, shape, settings);
}

/** A dominant and one of its members. */
export interface ExpertPair {
  readonly dominant: number;
  readonly member: number;
}

export interface ActivationAlignment {
  readonly layer: number;
  readonly shape: ExpertShape;
  readonly rule: RouterRule;
  readonly experts: number;
  readonly pairs: readonly ExpertPair[];
  /** Reads an expert in the precision of the engine. */
  readonly read: (expert: number) => ExpertMatrices;
  readonly cursor: StreamCursor;
  readonly settings: AlignmentSettings;
  /** Bytes that correlations and experts of pairs that are summed together may take. */
  readonly memoryBytes: number;
}

/** Pairs that are correlated in one pass over the text. */
function chunks({ pairs, shape, memoryBytes }: ActivationAlignment): ExpertPair[][] {
  const { width, hidden } = shape;
  const each = 8 * width * width + 2 * 4 * 3 * width * hidden;
  const together = Math.max(1, Math.floor(memoryBytes / each));
  const result: ExpertPair[][] = [];
  for (let first = 0; first < pairs.length; first += together) result.push(pairs.slice(first, first + together));
  return result;
}

/**
 * Alignments of members to their dominants by the correlation of inner activations over the tokens that are routed to
 * either (M-SMoE 2023, activation matching), one pass over the text for as many pairs as memory holds.
 * @returns one a pair
 */
export async function alignPairsByActivations(request: ActivationAlignment): Promise<MemberAlignment[]> {
  const { layer, shape, rule, experts, read, cursor, settings } = request;
  const { threads } = settings;
  const results: MemberAlignment[] = [];
  for (const pairs of chunks(request)) {
    const loaded = new Map<number, ExpertMatrices>();
    for (const expert of new Set(pairs.flatMap(({ dominant, member }) => [dominant, member]))) {
      loaded.set(expert, read(expert));
    }
    const sums = pairs.map(() => createCorrelation(shape.width, { threads }));
    await cursor.visit(layer, ['mlp_input', 'router_logits'], ({ taps }) => {
      const x = taps.get('mlp_input') as Floats;
      const logits = taps.get('router_logits') as Floats;
      const rows = logits.length / experts;
      const { chosen, topK } = route(logits, rows, experts, rule);
      pairs.forEach(({ dominant, member }, p) => {
        const either = rowsOfEither(chosen, rows, topK, dominant, member);
        if (either.length === 0) return;
        const inputs = gatherRows(x, shape.hidden, either);
        const inner = (expert: number): Floats => {
          const matrices = loaded.get(expert) as ExpertMatrices;
          const size = either.length * shape.width;
          const out = x instanceof Float32Array ? new Float32Array(size) : new Float64Array(size);
          runInner(matrices, shape, inputs, either.length, out, { threads });
          return out;
        };
        sums[p].add(inner(dominant), inner(member), either.length);
      });
    });
    for (const sum of sums) {
      const correlation = sum.finish();
      results.push({ ...alignByActivations(correlation, settings), tokens: correlation.tokens });
    }
  }
  return results;
}

/** Rows that chose one of two experts, ascending. */
export function rowsOfEither(chosen: Int32Array, rows: number, topK: number, a: number, b: number): Int32Array {
  const found: number[] = [];
  for (let row = 0; row < rows; row++) {
    for (let slot = row * topK; slot < (row + 1) * topK; slot++) {
      if (chosen[slot] === a || chosen[slot] === b) {
        found.push(row);
        break;
      }
    }
  }
  return Int32Array.from(found);
}

/** The members of a group, whose neurons are correlated among one another. */
export interface StackedCorrelation extends Omit<ActivationAlignment, 'pairs' | 'memoryBytes' | 'settings'> {
  readonly members: Int32Array;
  readonly threads: number;
}

/**
 * Correlations of the inner activations of all neurons of all members, [M I, M I], over the tokens that are routed to any of
 * them: what a zip by activations chooses pairs by.
 */
export async function correlateMembers(
  request: StackedCorrelation,
): Promise<{ readonly tokens: number; readonly matrix: Float64Array }> {
  const { layer, shape, rule, experts, members, read, cursor, threads } = request;
  const matrices = Array.from(members, read);
  const stacked = members.length * shape.width;
  const sums = createCorrelation(stacked, { threads });
  const isMember = new Uint8Array(experts);
  for (const member of members) isMember[member] = 1;
  await cursor.visit(layer, ['mlp_input', 'router_logits'], ({ taps }) => {
    const x = taps.get('mlp_input') as Floats;
    const logits = taps.get('router_logits') as Floats;
    const rows = logits.length / experts;
    const { chosen, topK } = route(logits, rows, experts, rule);
    const found = Int32Array.from({ length: rows }, (_, row) => row).filter((row) =>
      chosen.subarray(row * topK, (row + 1) * topK).some((expert) => isMember[expert] === 1),
    );
    if (found.length === 0) return;
    const inputs = gatherRows(x, shape.hidden, found);
    const make = (size: number): Floats =>
      x instanceof Float32Array ? new Float32Array(size) : new Float64Array(size);
    const all = make(found.length * stacked);
    const own = make(found.length * shape.width);
    matrices.forEach((expert, m) => {
      runInner(expert, shape, inputs, found.length, own, { threads });
      for (let row = 0; row < found.length; row++) {
        all.set(own.subarray(row * shape.width, (row + 1) * shape.width), row * stacked + m * shape.width);
      }
    });
    sums.add(all, all, found.length);
  });
  return sums.finish();
}
