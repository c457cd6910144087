import { hadamardCore, type Rotation, signsFromBits } from '../linalg/hadamard.js';
import {
  type ActivationQuantization,
  activationRotation,
  LARGEST_HALF,
  LEAST_DIVISOR,
  SCALE_ROUNDS,
} from './activation-quantization.js';
import type { Floats } from './layer-runner.js';

/** Rounds to the precision of the graph. */
type Rounding = (value: number) => number;

/**
 * What the linears of a graph with simulated activations see of rows [n, width]: the definition of
 * {@link ActivationQuantization} written out, one row after the other, every operation rounded to the type of the array.
 */
export function quantizeActivations(rows: Floats, width: number, activations: ActivationQuantization): Floats {
  const round: Rounding = rows instanceof Float32Array ? Math.fround : (value) => value;
  const out = rows.slice();
  const rotation = activations.rotated ? activationRotation(width) : undefined;
  const q = rotation && denseRotation(rotation);
  for (let from = 0; from < rows.length; from += width) {
    let row = Array.from(rows.subarray(from, from + width));
    if (q) row = multiply(q, row, round);
    row = activations.kind === 'int' ? integerRow(row, activations, round) : pyramidRow(row, activations, round);
    if (q) row = multiply(transposed(q), row, round);
    out.set(row, from);
  }
  return out;
}

/** Q by its definition, row by row: y = n^-1/2 (H_core x H_segment)(s x), or blocks of it after the permutation. */
function denseRotation(rotation: Rotation): number[][] {
  const { kind, length, core, segment, permutation } = rotation;
  const identity = Array.from({ length }, (_, i) => Array.from({ length }, (_, j) => (i === j ? 1 : 0)));
  if (kind === 'none') return identity;
  const signs = signsFromBits(rotation.signs, length);
  const h = kind === 'blocks' ? undefined : hadamardCore({ kind, core });
  const popcount = (word: number): number => (word === 0 ? 0 : (word & 1) + popcount(word >>> 1));
  return identity.map((_, row) => {
    const entries = new Array<number>(length).fill(0);
    for (let k = 0; k < length; k++) {
      const [i, a, j, b] = [Math.floor(row / segment), row % segment, Math.floor(k / segment), k % segment];
      if (!h && i !== j) continue;
      const left = h ? h[i * core + j] : 1;
      const column = permutation ? permutation[k] : k;
      const sign = left * (popcount(a & b) % 2 === 0 ? 1 : -1) * signs[column];
      entries[column] = sign / Math.sqrt(h ? length : segment);
    }
    return entries;
  });
}

function multiply(matrix: readonly number[][], x: readonly number[], round: Rounding): number[] {
  return matrix.map((row) => round(row.reduce((sum, entry, i) => sum + entry * x[i], 0)));
}

function transposed(matrix: readonly number[][]): number[][] {
  return matrix.map((_, i) => matrix.map((row) => row[i]));
}

/** Nearest integer, ties to even. */
function roundEven(value: number): number {
  const rounded = Math.round(value);
  return Math.abs(value - Math.trunc(value)) === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

function integerRow(
  x: readonly number[],
  { bits, clip }: Extract<ActivationQuantization, { kind: 'int' }>,
  round: Rounding,
): number[] {
  const most = 2 ** (bits - 1) - 1;
  const largest = x.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
  const step = Math.max(round(largest * round(clip / most)), LEAST_DIVISOR);
  return x.map((value) => {
    const code = Math.min(most, Math.max(-most - 1, roundEven(round(value / step))));
    return round(code * step);
  });
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function dot(a: readonly number[], b: readonly number[]): number {
  return a.reduce((total, value, i) => total + value * b[i], 0);
}

/** Floor, then one pulse more on the largest fractions; undefined where that cannot be the nearest point. */
function nearestPoint(b: readonly number[], pulses: number): number[] | undefined {
  const y = b.map(Math.floor);
  const missing = pulses - sum(y);
  if (missing < 0 || missing > b.length) return undefined;
  const order = b.map((value, i) => ({ i, rest: value - y[i] })).sort((p, q) => q.rest - p.rest || p.i - q.i);
  for (const { i } of order.slice(0, missing)) y[i]++;
  return y;
}

function searchPoint(u: readonly number[], pulses: number, round: Rounding): number[] {
  const l1 = round(sum(u));
  if (l1 === 0) return u.map((_, i) => (i === 0 ? pulses : 0));
  const scaled = (alpha: number): number[] => u.map((value) => round(value * round(alpha)));
  const start = nearestPoint(scaled(pulses / l1), pulses);
  if (!start) throw new RangeError('floors sum to the pulses at most');
  const next = nearestPoint(scaled(round(dot(start, start)) / round(dot(u, start))), pulses);
  if (!next) return start;
  const better = dot(u, next) ** 2 * dot(start, start) > dot(u, start) ** 2 * dot(next, next);
  return better ? next : start;
}

/** The nearest f16 of a value from 0 to the largest f16, by way of f32. */
function roundHalf(value: number): number {
  const single = Math.fround(value);
  const exponent = Math.max(Math.floor(Math.log2(single || 1)), -14);
  const unit = 2 ** (exponent - 10);
  return roundEven(single / unit) * unit;
}

function nearestLevel(value: number, levels: readonly number[], round: Rounding): number {
  let index = 0;
  while (index + 1 < levels.length && value > round((levels[index] + levels[index + 1]) / 2)) index++;
  return round(levels[index]);
}

function pyramidRow(
  x: readonly number[],
  { groupLength: d, pulses, levels }: Extract<ActivationQuantization, { kind: 'pvq' }>,
  round: Rounding,
): number[] {
  const width = x.length;
  const padded = [...x, ...new Array<number>(Math.ceil(width / d) * d - width).fill(0)];
  const groups: { y: number[]; signs: number[]; length: number; gain: number }[] = [];
  for (let from = 0; from < padded.length; from += d) {
    const group = padded.slice(from, from + d);
    const u = group.map(Math.abs);
    const y = searchPoint(u, pulses, round);
    const length = round(Math.sqrt(dot(y, y)));
    groups.push({ y, signs: group.map((value) => (value < 0 ? -1 : 1)), length, gain: round(dot(u, y) / length) });
  }
  const root = round(Math.sqrt(d));
  const levelsFor = (a: number): number[] => {
    const unit = Math.max(round(a * root), LEAST_DIVISOR);
    return groups.map(({ gain }) => nearestLevel(round(gain / unit), levels, round));
  };
  let a = round(Math.sqrt(round(dot(padded, padded) / width)));
  for (let turn = 0; turn < SCALE_ROUNDS; turn++) {
    const q = levelsFor(a);
    const product = sum(q.map((level, i) => level * groups[i].gain));
    a = round(round(product) / round(round(dot(q, q)) * root));
  }
  a = roundHalf(Math.min(a, LARGEST_HALF));
  const q = levelsFor(a);
  const scale = round(a * root);
  return groups
    .flatMap(({ y, signs, length }, i) => y.map((pulse, j) => round(pulse * signs[j] * round((q[i] * scale) / length))))
    .slice(0, width);
}
