import { describe, expect, it } from 'vitest';
import { type ExpertLayerFunction, runLayer } from '../../src/moe/layer-function.js';
import { addOutputErrors, gateDivergence, outputErrorSums, outputErrors } from '../../src/moe/output-error.js';
import type { ExpertShape, RouterRule } from '../../src/moe/types.js';
import { normals, randomExpert } from './random-experts.js';

const shape: ExpertShape = { hidden: 6, width: 8, gated: true, activation: 'silu' };
const rule: RouterRule = { score: 'softmax', topK: 2, normalizeTopK: true };
const experts = [0, 1, 2, 3].map((key) => randomExpert(shape, key));
const stored = [randomExpert(shape, 8), randomExpert(shape, 9)];
const router = normals(4 * 6, 1);
const layer: ExpertLayerFunction = { shape, rule, router, routerRows: 4, experts: 4, expert: (e) => experts[e] };
const rows = 50;
const x = normals(rows * 6, 2);

function sumsOf(from: number, to: number, map: Int32Array) {
  const own = x.subarray(from * 6, to * 6);
  const count = to - from;
  const original = runLayer(layer, own, count);
  const remap = { ...layer, experts: 2, expert: (g: number) => stored[g], map };
  const remapped = runLayer(remap, own, count);
  const merged = runLayer({ ...remap, map: undefined, router: normals(12, 3), routerRows: 2 }, own, count);
  const outputs = { original: original.output, remapped: remapped.output, merged: merged.output };
  const weightSums = new Float64Array(count).fill(1);
  const routings = { rows: count, remapped: remapped.dispatch, merged: merged.dispatch, weightSums };
  return { ...outputs, sums: outputErrorSums({ rows: count, hidden: 6, ...outputs }, routings) };
}

const norm = (values: Float64Array) => Math.hypot(...values);
const minus = (a: Float64Array, b: Float64Array) => a.map((value, i) => value - b[i]);

describe('output errors', () => {
  const map = Int32Array.of(0, 1, 0, 1);

  it('are norms relative to the original output, and split without a remainder', () => {
    const { sums, original, remapped, merged } = sumsOf(0, rows, map);
    const figures = outputErrors(sums);
    expect(figures.total.value).toBeCloseTo(norm(minus(merged, original)) / norm(original), 12);
    expect(figures.experts.value).toBeCloseTo(norm(minus(remapped, original)) / norm(original), 12);
    expect(figures.routing.value).toBeCloseTo(norm(minus(merged, remapped)) / norm(original), 12);
    const parts = figures.experts.value ** 2 + figures.routing.value ** 2 + figures.cross;
    expect(parts).toBeCloseTo(figures.total.value ** 2, 12);
    expect(figures.lostShare).toBeCloseTo(0, 15);
  });

  it('unite over batches', () => {
    const whole = sumsOf(0, rows, map).sums;
    const parts = addOutputErrors(sumsOf(0, 20, map).sums, sumsOf(20, rows, map).sums);
    expect(parts.tokens).toBe(rows);
    expect(outputErrors(parts).total.value).toBeCloseTo(outputErrors(whole).total.value, 13);
    expect(outputErrors(parts).total.standardError).toBeCloseTo(outputErrors(whole).total.standardError, 13);
    expect(parts.changedTokens).toBe(whole.changedTokens);
  });

  it('have standard errors near those of a jackknife over tokens', () => {
    const figures = outputErrors(sumsOf(0, rows, map).sums);
    const without = Array.from({ length: rows }, (_, left) => {
      const before = left === 0 ? undefined : sumsOf(0, left, map).sums;
      const after = left === rows - 1 ? undefined : sumsOf(left + 1, rows, map).sums;
      const sums = before && after ? addOutputErrors(before, after) : (before ?? after);
      if (sums === undefined) throw new Error('no rows');
      return outputErrors(sums).total.value;
    });
    const mean = without.reduce((sum, value) => sum + value, 0) / rows;
    const variance = without.reduce((sum, value) => sum + (value - mean) ** 2, 0) * ((rows - 1) / rows);
    expect(figures.total.standardError / Math.sqrt(variance)).toBeGreaterThan(0.8);
    expect(figures.total.standardError / Math.sqrt(variance)).toBeLessThan(1.2);
  });

  it('say what dropped experts took with them', () => {
    const figures = outputErrors(sumsOf(0, rows, Int32Array.of(0, 1, -1, -1)).sums);
    expect(figures.lostShare).toBeGreaterThan(0.1);
    expect(figures.lostShare).toBeLessThan(0.9);
    expect(Number.isFinite(figures.divergenceNats.value)).toBe(true);
  });

  it('diverge by a finite amount where a group was lost', () => {
    expect(gateDivergence(Float64Array.of(1, 0), Float64Array.of(1, 0))).toBe(0);
    expect(gateDivergence(Float64Array.of(0.5, 0.5), Float64Array.of(1, 0), 1e-9)).toBeCloseTo(
      0.5 * Math.log(0.5) + 0.5 * Math.log(0.5e9),
      12,
    );
  });
});
