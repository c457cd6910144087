import { InputError } from '../../errors.js';
import { type DumpRow, isNumberArray, type NumberArray, numberOf, numberTable } from './dump-rows.js';
import type { FieldPicker, Picked } from './fields.js';
import type { TopTokens } from './types.js';

interface Context {
  readonly row: DumpRow;
  readonly picker: FieldPicker;
  readonly place: string;
  readonly record: number;
}

/** Probabilities may exceed 1 together by the rounding of half precision. */
const MOST_MASS = 1.01;
const LOG_PROB_SLACK = 1e-6;

type Pair = readonly [id: number, logProb: number];

/** The log-probability of an entry: a number, or an object that has one. */
function logProbOf(value: unknown): number | undefined {
  if (typeof value === 'object' && value !== null && 'logprob' in value)
    return numberOf((value as { logprob: unknown }).logprob);
  return value === null ? undefined : numberOf(value);
}

/** One position: pairs [id, logprob], objects {id, logprob}, or one object {id: logprob}. */
function pairsOf(value: unknown, fail: () => never): Pair[] {
  if (isNumberArray(value) && value.shape.length === 2 && value.shape[1] === 2)
    return Array.from({ length: value.shape[0] }, (_, j) => [value.values[2 * j], value.values[2 * j + 1]] as const);
  if (value === null || (isNumberArray(value) && value.values.length === 0)) return [];
  if (Array.isArray(value)) {
    return value.map((entry): Pair => {
      if (Array.isArray(entry) && entry.length === 2)
        return [numberOf(entry[0]) ?? fail(), logProbOf(entry[1]) ?? fail()];
      if (typeof entry !== 'object' || entry === null) return fail();
      const { id, token_id: tokenId, token } = entry as Record<string, unknown>;
      return [numberOf(id ?? tokenId ?? token) ?? fail(), logProbOf(entry) ?? fail()];
    });
  }
  if (typeof value !== 'object') return fail();
  return Object.entries(value).map(([id, entry]): Pair => [Number(id), logProbOf(entry) ?? fail()]);
}

/** Pairs of every position as two arrays [T, k], k the most that a position has. */
function fromPairs(positions: readonly (readonly Pair[])[]): TopTokens {
  let k = 1;
  for (const pairs of positions) k = Math.max(k, pairs.length);
  const ids = new Int32Array(positions.length * k).fill(-1);
  const logProbs = new Float64Array(positions.length * k).fill(Number.NEGATIVE_INFINITY);
  positions.forEach((pairs, t) => {
    pairs.forEach(([id, logProb], j) => {
      ids[t * k + j] = id;
      logProbs[t * k + j] = logProb;
    });
  });
  return { k, ids, logProbs };
}

/** The regular case [T, k, 2] without an object a pair. */
function fromTable({ values, shape: [positions, k] }: NumberArray): TopTokens {
  const ids = new Int32Array(positions * k);
  const logProbs = new Float64Array(positions * k);
  for (let i = 0; i < ids.length; i++) {
    ids[i] = values[2 * i];
    logProbs[i] = values[2 * i + 1];
  }
  return { k, ids, logProbs };
}

/** Lists of ids and log-probabilities of every position, [T][k]. */
function fromLists(logProbs: Picked, ids: Picked | undefined, { place }: Context): TopTokens {
  const table = numberTable(logProbs.value);
  const idTable = ids === undefined ? undefined : numberTable(ids.value);
  if (table === undefined || table.shape.length !== 2)
    throw new InputError(`${place}: "${logProbs.column}" is not a list of k log-probabilities at every token`);
  if (ids !== undefined && idTable?.shape.join() !== table.shape.join())
    throw new InputError(
      `${place}: "${ids.column}" is [${idTable?.shape.join(', ') ?? '?'}] and "${logProbs.column}" [${table.shape.join(', ')}]; they belong together`,
    );
  const k = table.shape[1];
  return {
    k,
    logProbs: table.values,
    ids: idTable === undefined ? new Int32Array(table.values.length).fill(-1) : Int32Array.from(idTable.values),
  };
}

/** Sorts a position by descending probability, ties by their order, unless it is sorted. */
function sortPosition({ k, ids, logProbs }: TopTokens, t: number): void {
  const start = t * k;
  for (let i = start + 1; i < start + k; i++) {
    const [id, logProb] = [ids[i], logProbs[i]];
    let j = i;
    for (; j > start && logProbs[j - 1] < logProb; j--) {
      logProbs[j] = logProbs[j - 1];
      ids[j] = ids[j - 1];
    }
    logProbs[j] = logProb;
    ids[j] = id;
  }
}

function checkPosition({ k, logProbs }: TopTokens, t: number, column: string, { place, record }: Context): void {
  const at = `${place}: "${column}" at record ${record} token ${t}`;
  let mass = 0;
  for (let j = t * k; j < (t + 1) * k; j++) {
    const logProb = logProbs[j];
    if (Number.isNaN(logProb)) throw new InputError(`${at} holds NaN, and the mask counts this token`);
    if (logProb > LOG_PROB_SLACK)
      throw new InputError(`${at}: log-probability must be <= 0; got ${logProb}: are these logits or probabilities?`);
    mass += Math.exp(logProb);
  }
  if (mass > MOST_MASS)
    throw new InputError(`${at}: the likeliest tokens have probability ${mass.toFixed(4)} together`);
}

/**
 * The likeliest tokens of a record: field `topk` with pairs or objects at every token, or `topk_logprobs` with `topk_ids`.
 * Masked-out positions have none.
 * @param checkLength is told the number of positions
 * @throws InputError naming file, row, column and token
 */
export function readTopTokens(
  context: Context,
  mask: Uint8Array | undefined,
  checkLength: (column: string, length: number) => void,
): TopTokens | undefined {
  const { row, picker, place } = context;
  const lists = picker.pick(row.fields, 'topk_logprobs');
  const picked = lists ?? picker.pick(row.fields, 'topk');
  if (picked === undefined || typeof picked.value === 'number') return undefined;
  let top: TopTokens;
  if (lists) top = fromLists(lists, picker.pick(row.fields, 'topk_ids'), context);
  else if (isNumberArray(picked.value) && picked.value.shape.length === 3 && picked.value.shape[2] === 2) {
    top = fromTable(picked.value);
  } else {
    const { column, value } = picked;
    const fail = (): never => {
      throw new InputError(`${place}: "${column}" is not a list of (token id, log-probability) at every token`);
    };
    top = fromPairs(Array.isArray(value) ? value.map((entry) => pairsOf(entry, fail)) : fail());
  }
  const positions = top.ids.length / top.k;
  checkLength(picked.column, positions);
  for (let t = 0; t < positions; t++) {
    if (mask !== undefined && mask[t] === 0) {
      top.ids.fill(-1, t * top.k, (t + 1) * top.k);
      top.logProbs.fill(Number.NEGATIVE_INFINITY, t * top.k, (t + 1) * top.k);
      continue;
    }
    checkPosition(top, t, picked.column, context);
    sortPosition(top, t);
  }
  return top;
}
