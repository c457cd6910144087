import { InputError } from '../errors.js';
import { addColumnSums, addRowSums } from '../kernels/kernel-tiles.js';
import { createRandom } from '../random.js';
import { controlsOf, dot, mean, studentQuantile, withControls } from './control-variates.js';
import type { SymmetricOperator } from './kernel-operator.js';
import { type NodeWeights, quadratureNodes } from './quadrature-nodes.js';

/** A function of the eigenvalues whose sum over the spectrum is wanted. */
export interface SpectralFunction {
  readonly name: string;
  /** Value at an eigenvalue; rounding may make those of a positive semi-definite matrix slightly negative. */
  at(eigenvalue: number): number;
}

export interface QuadratureOptions {
  /** Random vectors, at least 8. Default 64. */
  readonly probes?: number;
  /** Most Lanczos steps. Default 64; fewer are taken once they change nothing that matters. */
  readonly steps?: number;
  readonly seed: number;
  /** Use tr K² as well as tr K to take noise away; costs a pass over the matrix. Default true. */
  readonly squaredNorm?: boolean;
  /** Bounds the memory of the Krylov spaces: fewer probes share a pass when it is small. Default 1 GiB. */
  readonly maxMemoryBytes?: number;
  readonly threads?: number;
  /** Called after every step with the share of the steps that is done, at most. */
  readonly onProgress?: (share: number) => void;
}

/** An estimate with its error. */
export interface Estimate {
  readonly value: number;
  /** Over the random vectors. */
  readonly standardError: number;
  /** Ends of the 95 % interval, by Student's distribution. */
  readonly low: number;
  readonly high: number;
}

export interface TraceEstimates {
  readonly n: number;
  readonly probes: number;
  /** Lanczos steps taken. */
  readonly steps: number;
  /** Degrees of freedom of the standard errors. */
  readonly freedom: number;
  /** Names of the functions, in the order of what follows. */
  readonly names: readonly string[];
  /** Estimates of `tr f(K)`, one a function. */
  readonly traces: readonly Estimate[];
  /** How much the last two steps changed each estimate: the error of the quadrature, in value. */
  readonly quadratureChanges: readonly number[];
  /**
   * What each probe adds to the estimate of each function beyond its mean, `[functions, probes]`, after the known traces
   * took their share: errors of functions of several traces come from these, see `combineTraces`.
   */
  readonly residuals: readonly Float64Array[];
  /** Variance of the mean of one residual over that of independent ones: what fitting the known traces costs. */
  readonly inflation: number;
  /** Exact traces that were used: tr K, and tr K² when asked for. */
  readonly knownTraces: { readonly trace: number; readonly squaredNorm?: number };
  /** Largest and smallest Ritz value seen: within the spectrum, near its ends. */
  readonly largest: number;
  readonly smallest: number;
}

/** Probes that decide how many steps are needed: fixed, so that a memory limit changes no figure. */
const PILOT = 8;
/** Steps between two looks at the quadrature. */
const STRIDE = 2;
const FEWEST_STEPS = 4;
/** The quadrature may change by this share of a standard error in its last steps. */
const SETTLED = 0.02;
/** Changes below this share of the estimate are rounding. */
const ROUNDING = { f32: 1e-7, f64: 1e-13 } as const;
/** A residual this small beside the operator ends a Krylov space. */
const BREAKDOWN = { f32: 1e-6, f64: 1e-13 } as const;
const DEFAULT_PROBES = 64;
const DEFAULT_BYTES = 2 ** 30;

type Basis = Float32Array | Float64Array;

/** Krylov spaces of a group of probes, in lockstep. */
interface KrylovGroup {
  readonly first: number;
  readonly count: number;
  readonly bases: Basis[];
  /** Diagonals and off-diagonals of the tridiagonal matrices, one a probe. */
  readonly alphas: number[][];
  readonly betas: number[][];
  /** Probes whose space is closed under K: their quadrature is exact. */
  readonly closed: boolean[];
  /** The current basis vectors `[count, n]`. */
  readonly current: Float64Array;
  readonly image: Float64Array;
}

/** Random signs of probe p: a stream of its own, whatever the group. */
function signs(seed: number, probe: number, target: Float64Array): void {
  const random = createRandom(seed).fork(probe);
  for (let i = 0; i < target.length; i += 64) {
    let word = random.next64();
    for (let j = i; j < Math.min(i + 64, target.length); j++) {
      target[j] = (word & 1n) === 1n ? 1 : -1;
      word >>= 1n;
    }
  }
}

function startGroup(
  operator: SymmetricOperator,
  seed: number,
  first: number,
  count: number,
  most: number,
): KrylovGroup {
  const { n, precision } = operator;
  const current = new Float64Array(count * n);
  for (let p = 0; p < count; p++) {
    const vector = current.subarray(p * n, (p + 1) * n);
    signs(seed, first + p, vector);
    for (let i = 0; i < n; i++) vector[i] /= Math.sqrt(n);
  }
  const basis = (): Basis => (precision === 'f32' ? new Float32Array(most * n) : new Float64Array(most * n));
  return {
    first,
    count,
    bases: Array.from({ length: count }, basis),
    alphas: Array.from({ length: count }, () => []),
    betas: Array.from({ length: count }, () => []),
    closed: Array.from({ length: count }, () => false),
    current,
    image: new Float64Array(count * n),
  };
}

function norm(vector: Float64Array): number {
  const sums = new Float64Array(1);
  addRowSums({ data: vector, rows: 1, columns: vector.length }, sums, { power: 2, threads: 1 });
  return Math.sqrt(sums[0]);
}

/**
 * One step of every space: w = K q, alpha = q·w, then w is made orthogonal to the whole basis, twice, and its length is
 * beta. Full orthogonalisation keeps every weight of the quadrature where short recurrences would repeat nodes.
 */
async function advance(operator: SymmetricOperator, group: KrylovGroup, step: number, threads?: number): Promise<void> {
  const { n, precision } = operator;
  const { count, bases, alphas, betas, closed, current, image } = group;
  await operator.multiply(current, count, image);
  for (let p = 0; p < count; p++) {
    const vector = current.subarray(p * n, (p + 1) * n);
    if (closed[p]) continue;
    const basis = bases[p];
    basis.set(vector, step * n);
    const residual = image.subarray(p * n, (p + 1) * n);
    const tile = { data: basis, rows: step + 1, columns: n };
    for (let pass = 0; pass < 2; pass++) {
      const coefficients = new Float64Array(step + 1);
      addRowSums(tile, coefficients, { weights: residual, threads });
      if (pass === 0) alphas[p].push(coefficients[step]);
      for (let k = 0; k <= step; k++) coefficients[k] = -coefficients[k];
      addColumnSums(tile, residual, { weights: coefficients, threads });
    }
    const beta = norm(residual);
    const size = Math.max(...alphas[p].map(Math.abs), ...betas[p], beta);
    if (!Number.isFinite(beta)) throw new RangeError('the operator gives values that are not finite');
    if (step + 1 >= n || beta <= BREAKDOWN[precision] * size) {
      closed[p] = true;
      vector.fill(0);
      continue;
    }
    betas[p].push(beta);
    for (let i = 0; i < n; i++) vector[i] = residual[i] / beta;
  }
}

/** Nodes and weights of a probe after at most `steps` steps. */
function nodesOf(group: KrylovGroup, probe: number, steps: number): NodeWeights {
  const alphas = group.alphas[probe].slice(0, steps);
  return quadratureNodes(alphas, group.betas[probe].slice(0, alphas.length - 1));
}

/** `n Σ_k w_k f(θ_k)`, the estimate of tr f(K) by one probe. */
function quadrature(nodes: NodeWeights, n: number, at: (eigenvalue: number) => number): number {
  let sum = 0;
  for (let k = 0; k < nodes.values.length; k++) if (nodes.weights[k] > 0) sum += nodes.weights[k] * at(nodes.values[k]);
  return n * sum;
}

/** The estimate of tr f(K) by each probe. */
function perProbe(nodes: readonly NodeWeights[], n: number, at: (eigenvalue: number) => number): Float64Array {
  return Float64Array.from(nodes, (one) => quadrature(one, n, at));
}

/** The estimates of tr K, and of tr K² when it is known, by each probe. */
function momentsOf(nodes: readonly NodeWeights[], n: number, square: boolean): Float64Array[] {
  const first = perProbe(nodes, n, (x) => x);
  return square ? [first, perProbe(nodes, n, (x) => x * x)] : [first];
}

/** Whether the pilot's estimates of all functions stand still beside the error that all probes will have. */
function settled(
  group: KrylovGroup,
  steps: number,
  operator: SymmetricOperator,
  functions: readonly SpectralFunction[],
  { probes = DEFAULT_PROBES, squaredNorm }: QuadratureOptions,
): boolean {
  const { n, precision } = operator;
  const pilot = Math.min(PILOT, group.count);
  if (group.closed.slice(0, pilot).every(Boolean)) return true;
  const now = Array.from({ length: pilot }, (_, p) => nodesOf(group, p, steps));
  const before = Array.from({ length: pilot }, (_, p) => nodesOf(group, p, steps - STRIDE));
  // The exact values do not matter here: only how much of the noise the moments explain.
  const moments = momentsOf(now, n, operator.squaredNorm !== undefined && squaredNorm !== false);
  const controls = controlsOf(moments, moments.map(mean));
  return functions.every(({ at }) => {
    const values = perProbe(now, n, at);
    const change = mean(values) - mean(perProbe(before, n, at));
    const { residual } = withControls(values, controls);
    const variance = dot(residual, residual) / (pilot - 1 - controls.columns.length);
    const allowed = SETTLED * Math.sqrt(variance / probes);
    return Math.abs(change) <= Math.max(allowed, ROUNDING[precision] * Math.abs(mean(values)));
  });
}

/** Bytes of the Krylov space of one probe: its basis and the vectors of the current step. */
const bytesOfProbe = (operator: SymmetricOperator, steps: number): number =>
  operator.n * (steps * (operator.precision === 'f32' ? 4 : 8) + 4 * 8);

/** What the probes gave: nodes at the last step and two before it. */
interface ProbeNodes {
  readonly steps: number;
  readonly last: NodeWeights[];
  readonly before: NodeWeights[];
}

async function runProbes(
  operator: SymmetricOperator,
  functions: readonly SpectralFunction[],
  options: QuadratureOptions,
): Promise<ProbeNodes> {
  const { probes = DEFAULT_PROBES, seed, threads, onProgress, maxMemoryBytes = DEFAULT_BYTES } = options;
  const most = Math.min(operator.n, Math.max(FEWEST_STEPS, options.steps ?? 64));
  // The first group learns how many steps are needed; it grows its bases up to the limit of memory.
  let planned = most;
  let steps = most;
  const last: NodeWeights[] = [];
  const before: NodeWeights[] = [];
  for (let first = 0; first < probes; ) {
    const fits = Math.floor(maxMemoryBytes / bytesOfProbe(operator, planned));
    const pilot = first === 0 ? Math.min(PILOT, probes) : 1;
    if (fits < pilot) {
      const least = Math.ceil((pilot * bytesOfProbe(operator, planned)) / 2 ** 20);
      throw new InputError(
        `${planned} Lanczos steps of ${pilot} random vectors of ${operator.n} entries need ${least} MiB: raise --max-memory or take fewer steps`,
      );
    }
    const count = Math.min(fits, probes - first);
    const group = startGroup(operator, seed, first, count, planned);
    for (let step = 0; step < steps; step++) {
      await advance(operator, group, step, threads);
      onProgress?.((first + (count * (step + 1)) / steps) / probes);
      const taken = step + 1;
      if (first === 0 && taken >= FEWEST_STEPS && taken % STRIDE === 0 && taken < steps) {
        if (settled(group, taken, operator, functions, options)) steps = taken;
      }
    }
    for (let p = 0; p < count; p++) {
      last.push(nodesOf(group, p, steps));
      before.push(nodesOf(group, p, Math.max(1, steps - STRIDE)));
    }
    planned = steps;
    first += count;
  }
  return { steps, last, before };
}

function estimateOf(
  value: number,
  residual: Float64Array,
  { freedom, inflation }: Pick<TraceEstimates, 'freedom' | 'inflation'>,
): Estimate {
  const variance = dot(residual, residual) / freedom;
  const standardError = Math.sqrt((variance / residual.length) * inflation);
  const half = studentQuantile(freedom) * standardError;
  return { value, standardError, low: value - half, high: value + half };
}

/**
 * Stochastic Lanczos quadrature (Ubaru, Chen & Saad 2017): `tr f(K) ≈ (n / probes) Σ_p Σ_k w_pk f(θ_pk)` for several
 * functions from the same products, with random signs as probes (Hutchinson) and Gauss quadrature of each probe's
 * spectral measure. tr K and tr K², which are known exactly, are control variates: the estimates are regressed on the
 * probes' own values of them. Steps are added until they change the estimates by less than 0.02 of the standard error.
 *
 * Same seed, same figures, whatever the threads and the limit of memory.
 * @throws InputError when the Krylov spaces of eight probes do not fit `maxMemoryBytes`
 * @throws RangeError for fewer than 8 probes, and for an operator with values that are not finite
 */
export async function traceFunctions(
  operator: SymmetricOperator,
  functions: readonly SpectralFunction[],
  options: QuadratureOptions,
): Promise<TraceEstimates> {
  const { probes = DEFAULT_PROBES } = options;
  if (probes < PILOT) throw new RangeError(`${probes} random vectors, at least ${PILOT} are needed`);
  const { n } = operator;
  const trace = await operator.trace();
  const squaredNorm = options.squaredNorm === false ? undefined : await operator.squaredNorm?.();
  const { steps, last, before } = await runProbes(operator, functions, options);
  const moments = momentsOf(last, n, squaredNorm !== undefined);
  const controls = controlsOf(moments, squaredNorm === undefined ? [trace] : [trace, squaredNorm]);
  const freedom = probes - 1 - controls.columns.length;
  const inflation = controls.columns.reduce(
    (sum, column, k) => sum + (probes * controls.excess[k] ** 2) / dot(column, column),
    1,
  );
  const fitted = functions.map(({ at }) => {
    const values = perProbe(last, n, at);
    const change = mean(values) - mean(perProbe(before, n, at));
    return { ...withControls(values, controls), change };
  });
  return {
    n,
    probes,
    steps,
    freedom,
    names: functions.map(({ name }) => name),
    traces: fitted.map(({ value, residual }) => estimateOf(value, residual, { freedom, inflation })),
    quadratureChanges: fitted.map(({ change }) => change),
    residuals: fitted.map(({ residual }) => residual),
    inflation,
    knownTraces: { trace, ...(squaredNorm !== undefined && { squaredNorm }) },
    largest: last.reduce((most, { values }) => Math.max(most, values[values.length - 1]), Number.NEGATIVE_INFINITY),
    smallest: last.reduce((least, { values }) => Math.min(least, values[0]), Number.POSITIVE_INFINITY),
  };
}

/**
 * An estimate of a function of several traces, with the standard error of its linearisation (the delta method).
 * @param parts which traces it takes, and the derivative after each
 */
export function combineTraces(
  estimates: TraceEstimates,
  value: number,
  parts: readonly { readonly index: number; readonly derivative: number }[],
): Estimate {
  const residual = new Float64Array(estimates.probes);
  for (const { index, derivative } of parts) {
    const own = estimates.residuals[index];
    for (let p = 0; p < residual.length; p++) residual[p] += derivative * own[p];
  }
  return estimateOf(value, residual, estimates);
}
