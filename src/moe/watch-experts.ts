import type { Floats } from '../models/layer-runner.js';
import { runExpert } from './expert-function.js';
import type { ExpertSums } from './expert-statistics.js';
import type { TokenRouting } from './routing-statistics.js';
import type { ExpertMatrices, ExpertShape } from './types.js';

/** A block of tokens has a few rows however wide and many the experts are. */
const LEAST_BLOCK_ROWS = 16;

/** Chosen experts of rows, [rows, k], with the router's p and p divided by its sum over the chosen. */
export interface ChosenExperts {
  readonly topK: number;
  readonly experts: Int32Array;
  readonly weights: Float64Array;
  readonly shares: Float64Array;
}

/** Room for the choices of `rows` rows, which `keepChoice` fills row by row. */
export function chosenExperts(rows: number, topK: number): ChosenExperts {
  const slots = rows * topK;
  return {
    topK,
    experts: new Int32Array(slots),
    weights: new Float64Array(slots),
    shares: new Float64Array(slots),
  };
}

/** Notes what a router did with the token of a row. */
export function keepChoice(chosen: ChosenExperts, row: number, token: TokenRouting): void {
  const slot = row * chosen.topK;
  chosen.experts.set(token.chosen, slot);
  chosen.weights.set(token.scores, slot);
  chosen.shares.set(token.weights, slot);
}

/** Place of an expert among the chosen of a row; -1 where it is not. */
function slotOf({ experts, topK }: ChosenExperts, row: number, expert: number): number {
  for (let slot = 0; slot < topK; slot++) if (experts[row * topK + slot] === expert) return slot;
  return -1;
}

/** p and shares of an expert at rows that chose it. */
export function valuesAt(
  chosen: ChosenExperts,
  expert: number,
  rows: Int32Array,
): { readonly weights: Float64Array; readonly shares: Float64Array } {
  const slots = Int32Array.from(rows, (row) => row * chosen.topK + slotOf(chosen, row, expert));
  return {
    weights: Float64Array.from(slots, (slot) => chosen.weights[slot]),
    shares: Float64Array.from(slots, (slot) => chosen.shares[slot]),
  };
}

/** Rows of a block, counted from its first, that chose an expert. */
function rowsChoosing(chosen: ChosenExperts, expert: number, from: number, count: number): Int32Array {
  const rows: number[] = [];
  for (let row = 0; row < count; row++) if (slotOf(chosen, from + row, expert) >= 0) rows.push(row);
  return Int32Array.from(rows);
}

export interface ExpertRun {
  readonly shape: ExpertShape;
  readonly experts: number;
  /** Matrices of an expert, of the precision of the rows; asked for once a block, valid until the next is asked for. */
  expert(e: number): ExpertMatrices;
  /** Every expert runs on every token; else on those that chose it. */
  readonly everywhere: boolean;
  /** Memory of the outputs of a block of tokens. It changes no bit. */
  readonly blockBytes: number;
  readonly threads: number;
  readonly sums: ExpertSums;
}

/**
 * Runs experts on rows, a block of rows at a time, and adds what they do to the sums. The result keeps its buffers for the
 * next rows.
 * @returns adds rows x [rows, H] with what the router chose for them
 */
export function createExpertRun(run: ExpertRun): (x: Floats, rows: number, chosen: ChosenExperts) => void {
  const { shape, experts, everywhere, threads, sums } = run;
  const { hidden: size, width } = shape;
  const kept = new Map<string, Floats>();
  const buffer = (name: string, like: Floats, length: number): Floats => {
    let found = kept.get(name);
    if (!found || found.length < length) {
      found = like instanceof Float32Array ? new Float32Array(length) : new Float64Array(length);
      kept.set(name, found);
    }
    return found.subarray(0, length);
  };

  const onAll = (block: Floats, count: number, from: number, chosen: ChosenExperts): void => {
    const outputs = buffer('outputs', block, experts * count * size);
    const hidden = buffer('hidden', block, count * width);
    for (let e = 0; e < experts; e++) {
      const output = outputs.subarray(e * count * size, (e + 1) * count * size);
      runExpert(run.expert(e), shape, block, count, { hidden, out: output, threads });
      const rows = rowsChoosing(chosen, e, from, count);
      const values = valuesAt(
        chosen,
        e,
        rows.map((row) => row + from),
      );
      sums.addChosen(e, { inputs: { x: block, rows }, hidden, output, at: rows, ...values });
    }
    sums.addEverywhere(outputs, count);
  };

  const onChosen = (block: Floats, count: number, from: number, chosen: ChosenExperts): void => {
    for (let e = 0; e < experts; e++) {
      const rows = rowsChoosing(chosen, e, from, count);
      if (rows.length === 0) continue;
      const own = buffer('own', block, rows.length * size);
      rows.forEach((row, i) => {
        own.set(block.subarray(row * size, (row + 1) * size), i * size);
      });
      const hidden = buffer('hidden', block, rows.length * width);
      const output = buffer('outputs', block, rows.length * size);
      runExpert(run.expert(e), shape, own, rows.length, { hidden, out: output, threads });
      const at = Int32Array.from(rows, (_, i) => i);
      const values = valuesAt(
        chosen,
        e,
        rows.map((row) => row + from),
      );
      sums.addChosen(e, { inputs: { x: block, rows }, hidden, output, at, ...values });
    }
  };

  return (x, rows, chosen) => {
    sums.addInputs(x, rows);
    const rowBytes = x.BYTES_PER_ELEMENT * (everywhere ? experts * size : 2 * size + width);
    const blockRows = Math.max(LEAST_BLOCK_ROWS, Math.floor(run.blockBytes / rowBytes));
    for (let from = 0; from < rows; from += blockRows) {
      const count = Math.min(blockRows, rows - from);
      const block = x.subarray(from * size, (from + count) * size);
      if (everywhere) onAll(block, count, from, chosen);
      else onChosen(block, count, from, chosen);
    }
  };
}
