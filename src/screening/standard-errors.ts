import { addClassDensity, classGrid, pairDensity } from '../kernels/column-density.js';
import { densityScratch, kernelPlaces, regularBins } from '../kernels/column-information-reference.js';
import { columnSpread, type GridPlaces } from '../kernels/column-scale.js';
import type { EstimatorSettings } from './estimators.js';
import { distinctValues, mostLevels, type Outcome } from './variables.js';

/** Standard error of a mean of `terms`. */
function errorOfMean(terms: Float64Array): number {
  const n = terms.length;
  let mean = 0;
  for (const term of terms) mean += term / n;
  let squares = 0;
  for (const term of terms) squares += (term - mean) ** 2;
  return Math.sqrt(squares / (n * (n - 1)));
}

/** The codes of a column: its levels when it is discrete, else its bins. */
function codesOf(x: Float64Array, discreteLevels: number): { codes: Int32Array; levels: number; discrete: boolean } {
  const distinct = distinctValues(x, mostLevels(x.length, discreteLevels));
  if (distinct) {
    return { codes: Int32Array.from(x, (value) => distinct.indexOf(value)), levels: distinct.length, discrete: true };
  }
  const codes = new Int32Array(x.length);
  return { codes, levels: regularBins(x, codes), discrete: false };
}

/** Delta-method error of the plug-in information of a column with the outcome: that of the mean of `log p_ab / p_a p_b`. */
export function binnedError(x: Float64Array, outcome: Outcome, discreteLevels: number): number {
  const n = x.length;
  const a = codesOf(x, discreteLevels);
  const b = outcome.codes;
  const table = new Float64Array(a.levels * b.levels);
  const rows = new Float64Array(a.levels);
  const columns = new Float64Array(b.levels);
  for (let i = 0; i < n; i++) {
    table[a.codes[i] * b.levels + b.codes[i]]++;
    rows[a.codes[i]]++;
    columns[b.codes[i]]++;
  }
  return errorOfMean(
    Float64Array.from({ length: n }, (_, i) => {
      const [r, c] = [a.codes[i], b.codes[i]];
      return Math.log((table[r * b.levels + c] * n) / (rows[r] * columns[c]));
    }),
  );
}

/**
 * Error of the information from kernel densities to first order: that of the mean of the pointwise information
 * `log J / J_a J_b` at the observations. The densities are taken as they are; their bias is not in it.
 */
export function kernelError(
  x: Float64Array,
  outcome: Outcome,
  settings: Pick<EstimatorSettings, 'grid' | 'classGrid' | 'rule'>,
  discreteLevels: number,
): number {
  const own = codesOf(x, discreteLevels);
  if (own.discrete && (outcome.kind === 'discrete' || outcome.values === undefined)) {
    return binnedError(x, outcome, discreteLevels);
  }
  if (own.discrete && outcome.values) return classError(outcome.values, own.codes, own.levels, settings.classGrid);
  if (outcome.kind === 'discrete' || outcome.values === undefined) {
    return classError(x, outcome.codes.codes, outcome.codes.levels, settings.classGrid);
  }
  const a = kernelPlaces(x, settings.grid, settings.rule);
  const b = kernelPlaces(outcome.values, settings.grid, settings.rule);
  return pairError(a, b, settings.grid);
}

function pairError(a: GridPlaces, b: GridPlaces, points: number): number {
  const { counts, density } = densityScratch(points);
  pairDensity(a, b, undefined, counts, density);
  const rows = new Float64Array(points);
  const columns = new Float64Array(points);
  let total = 0;
  for (let r = 0; r < points; r++) {
    for (let c = 0; c < points; c++) {
      rows[r] += density[r * points + c];
      columns[c] += density[r * points + c];
    }
    total += rows[r];
  }
  return errorOfMean(
    Float64Array.from(a.index, (at, i) => {
      const u = a.fraction[i];
      const v = b.fraction[i];
      const place = at * points + b.index[i];
      const joint =
        (1 - u) * ((1 - v) * density[place] + v * density[place + 1]) +
        u * ((1 - v) * density[place + points] + v * density[place + points + 1]);
      const row = (1 - u) * rows[at] + u * rows[at + 1];
      const column = (1 - v) * columns[b.index[i]] + v * columns[b.index[i] + 1];
      return Math.log((joint * total) / (row * column));
    }),
  );
}

function classError(x: Float64Array, codes: Int32Array, levels: number, points: number): number {
  const n = x.length;
  const pooled = columnSpread(Float64Array.from(x).sort());
  const { low, step } = classGrid(pooled, points);
  const density = new Float64Array(levels * points);
  const share = new Float64Array(levels);
  for (let c = 0; c < levels; c++) {
    const members = x.filter((_, i) => codes[i] === c).sort();
    if (members.length < 3) continue;
    const { silverman } = columnSpread(members);
    const out = density.subarray(c * points, (c + 1) * points);
    addClassDensity(members, silverman > 0 ? silverman : pooled.silverman, members.length / n, low, step, out);
    for (const value of out) share[c] += value;
  }
  const total = share.reduce((sum, value) => sum + value, 0);
  const terms: number[] = [];
  for (let i = 0; i < n; i++) {
    const at = (x[i] - low) / step;
    const below = Math.min(points - 2, Math.floor(at));
    const densityOf = (c: number): number => {
      const start = c * points + below;
      return density[start] + (at - below) * (density[start + 1] - density[start]);
    };
    let all = 0;
    for (let c = 0; c < levels; c++) all += densityOf(c);
    const own = densityOf(codes[i]);
    if (own > 0) terms.push(Math.log((own * total) / (share[codes[i]] * all)));
  }
  return errorOfMean(Float64Array.from(terms));
}
