import { InputError } from '../errors.js';
import { addRowSums } from '../kernels/kernel-tiles.js';
import { controlsOf, dot, mean, standardError, studentQuantile, withControls } from './control-variates.js';
import type { SymmetricOperator } from './kernel-operator.js';
import {
  advance,
  bytesOfLeading,
  bytesOfSpace,
  type KrylovGroup,
  type LeadingVectors,
  leadingVectors,
  nodesOf,
  squaredProjections,
  startGroup,
} from './krylov-spaces.js';
import type { NodeWeights } from './quadrature-nodes.js';

/** A function of the eigenvalues whose sum over the spectrum is wanted. */
export interface SpectralFunction {
  readonly name: string;
  /** Value at an eigenvalue; rounding may make those of a positive semi-definite matrix slightly negative. */
  at(eigenvalue: number): number;
}

/** An eigenpair that is known beforehand. */
export interface KnownEigenpair {
  readonly value: number;
  /** `[n]`, of length 1. */
  readonly vector: Float64Array;
}

export interface QuadratureOptions {
  /** Random vectors, at least 8. Default 64. */
  readonly probes?: number;
  /** Most Lanczos steps. Default 64; fewer are taken once they change nothing that matters. */
  readonly steps?: number;
  readonly seed: number;
  /** Use tr K² as well as tr K to take noise away; costs a pass over the matrix. Default true. */
  readonly squaredNorm?: boolean;
  /** Taken out of what the random vectors see, so that it adds no noise. Functions must be finite at 0 with it. */
  readonly known?: KnownEigenpair;
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
  /** What each probe's residual counts in a standard error, `[probes]`. */
  readonly errorWeights: Float64Array;
  /** Exact traces that were used: tr K, and tr K² when asked for. */
  readonly knownTraces: { readonly trace: number; readonly squaredNorm?: number };
  /** Largest and smallest Ritz value seen: within the spectrum, near its ends. */
  readonly largest: number;
  readonly smallest: number;
}

/** Further vectors that look for the leading eigenvectors. They enter no mean, so that the mean stays without bias. */
const SCOUTS = 4;
/** Streams of the scouts' signs, beyond those of probes. */
const SCOUT_STREAM = 2 ** 32;
/** Probes that decide how many steps are needed: fixed, so that a memory limit changes no figure. */
const PILOT = 8;
/** Steps between two looks at the quadrature. */
const STRIDE = 2;
const FEWEST_STEPS = 4;
/** The quadrature may change by this share of a standard error in its last steps. */
const SETTLED = 0.05;
/** Changes below this share of the estimate are rounding. */
const ROUNDING = { f32: 1e-7, f64: 1e-13 } as const;
const DEFAULT_PROBES = 64;
const MOST_STEPS = 64;
const DEFAULT_BYTES = 2 ** 30;

/** `n Σ_k w_k f(θ_k)`, the estimate of tr f(K) by one probe. */
function quadrature(nodes: NodeWeights, n: number, at: (eigenvalue: number) => number): number {
  let sum = 0;
  for (let k = 0; k < nodes.values.length; k++) if (nodes.weights[k] > 0) sum += nodes.weights[k] * at(nodes.values[k]);
  return n * sum;
}

/** What one probe saw of the spectrum. */
interface ProbeMeasure {
  /** Its quadrature after the last step, and STRIDE steps before. */
  readonly nodes: NodeWeights;
  readonly before: NodeWeights;
  /** Its squared projections on the leading eigenvectors. */
  readonly shares: Float64Array;
}

/**
 * The estimate of tr f(K) by each probe, less the noise of the leading eigenvectors: a probe adds f(λ) (u·z)² for each,
 * which is f(λ) on average.
 */
function perProbe(
  measures: readonly ProbeMeasure[],
  leading: Float64Array,
  n: number,
  at: (eigenvalue: number) => number,
): Float64Array {
  const known = leading.map(at);
  return Float64Array.from(measures, ({ nodes, shares }) => {
    let value = quadrature(nodes, n, at);
    for (let i = 0; i < known.length; i++) value -= known[i] * (shares[i] - 1);
    return value;
  });
}

/** How much the last steps changed the mean of the probes' quadratures. */
function lastChange(measures: readonly ProbeMeasure[], n: number, at: (eigenvalue: number) => number): number {
  return mean(measures.map(({ nodes, before }) => quadrature(nodes, n, at) - quadrature(before, n, at)));
}

const identity = (x: number): number => x;
const square = (x: number): number => x * x;

/** The measures of the spaces first..first+count-1 of a group. */
function measuresOf(
  group: KrylovGroup,
  [first, count]: readonly [number, number],
  n: number,
  steps: number,
  leading?: LeadingVectors,
  threads?: number,
): ProbeMeasure[] {
  return Array.from({ length: count }, (_, i) => {
    const space = first + i;
    const nodes = nodesOf(group, space, steps);
    // The quadrature of a closed space is exact: its last steps are no error.
    const before = group.closed[space] ? nodes : nodesOf(group, space, Math.max(1, steps - STRIDE));
    const shares = leading ? squaredProjections(leading, group, space, n, threads) : new Float64Array();
    return { nodes, before, shares };
  });
}

/** Whether the pilot's estimates of all functions stand still beside the error that all probes will have. */
function settled(
  group: KrylovGroup,
  steps: number,
  operator: SymmetricOperator,
  functions: readonly SpectralFunction[],
  { probes = DEFAULT_PROBES, squaredNorm, threads }: QuadratureOptions,
): boolean {
  const { n, precision } = operator;
  if (group.closed.slice(SCOUTS, SCOUTS + PILOT).every(Boolean)) return true;
  const withSquare = operator.squaredNorm !== undefined && squaredNorm !== false;
  const still = (leading?: LeadingVectors): boolean => {
    const measures = measuresOf(group, [SCOUTS, PILOT], n, steps, leading, threads);
    const known = leading?.values ?? new Float64Array();
    const values = (at: (x: number) => number): Float64Array => perProbe(measures, known, n, at);
    const moments = withSquare ? [values(identity), values(square)] : [values(identity)];
    // The exact values do not matter here: only how much of the noise the moments explain.
    const controls = controlsOf(PILOT, moments, moments.map(mean));
    return functions.every(({ at }) => {
      const own = values(at);
      const { residual } = withControls(own, controls);
      const variance = dot(residual, residual) / (PILOT - 1 - controls.columns.length);
      const allowed = SETTLED * Math.sqrt(variance / probes);
      return Math.abs(lastChange(measures, n, at)) <= Math.max(allowed, ROUNDING[precision] * Math.abs(mean(own)));
    });
  };
  // The leading eigenvectors only make the noise smaller: they are not needed for a no.
  return still() && still(leadingVectors(group, operator, SCOUTS, steps, threads));
}

/** What all probes saw, and the leading eigenvalues. */
interface ProbeMeasures {
  readonly steps: number;
  readonly measures: readonly ProbeMeasure[];
  readonly leading: Float64Array;
}

async function runProbes(
  operator: SymmetricOperator,
  functions: readonly SpectralFunction[],
  options: QuadratureOptions,
): Promise<ProbeMeasures> {
  const { probes = DEFAULT_PROBES, seed, threads, onProgress, maxMemoryBytes = DEFAULT_BYTES } = options;
  // The first group learns how many steps are needed and finds the leading eigenvectors; the others use both.
  let steps = Math.min(operator.n, Math.max(FEWEST_STEPS, options.steps ?? MOST_STEPS));
  let leading: LeadingVectors | undefined;
  const measures: ProbeMeasure[] = [];
  for (let first = 0; first < probes; ) {
    const scouts = first === 0 ? SCOUTS : 0;
    const least = first === 0 ? SCOUTS + PILOT : 1;
    const each = bytesOfSpace(operator, steps);
    const fits = Math.floor((maxMemoryBytes - bytesOfLeading(operator)) / each);
    if (fits < least) {
      const mebibytes = Math.ceil((least * each + bytesOfLeading(operator)) / 2 ** 20);
      throw new InputError(
        `${steps} Lanczos steps of ${least} random vectors of ${operator.n} entries need ${mebibytes} MiB: raise --max-memory`,
      );
    }
    const count = Math.min(fits - scouts, probes - first);
    const streams = Array.from({ length: scouts }, (_, s) => SCOUT_STREAM + s);
    for (let p = first; p < first + count; p++) streams.push(p);
    const group = startGroup(operator, seed, streams, steps);
    for (let taken = 1; taken <= steps; taken++) {
      await advance(operator, group, taken - 1, threads);
      onProgress?.((first + (count * taken) / steps) / probes);
      const look = first === 0 && taken >= FEWEST_STEPS && taken % STRIDE === 0 && taken < steps;
      if (look && settled(group, taken, operator, functions, options)) steps = taken;
    }
    leading ??= leadingVectors(group, operator, SCOUTS, steps, threads);
    measures.push(...measuresOf(group, [scouts, count], operator.n, steps, leading, threads));
    first += count;
  }
  return { steps, measures, leading: leading?.values ?? new Float64Array() };
}

function estimateOf(
  value: number,
  residual: Float64Array,
  { freedom, errorWeights }: Pick<TraceEstimates, 'freedom' | 'errorWeights'>,
): Estimate {
  const error = standardError(residual, errorWeights);
  const half = studentQuantile(freedom) * error;
  return { value, standardError: error, low: value - half, high: value + half };
}

/** The operator with 0 in the place of a known eigenvalue. */
function deflated(operator: SymmetricOperator, { value, vector }: KnownEigenpair): SymmetricOperator {
  const { n, squaredNorm } = operator;
  if (vector.length !== n) throw new RangeError(`an eigenvector of ${vector.length} entries, the operator has ${n}`);
  const weights = Float64Array.from(vector);
  return {
    n,
    precision: operator.precision,
    trace: async () => (await operator.trace()) - value,
    ...(squaredNorm && { squaredNorm: async () => (await squaredNorm()) - value * value }),
    async multiply(v, b, out) {
      await operator.multiply(v, b, out);
      for (let p = 0; p < b; p++) {
        const share = new Float64Array(1);
        addRowSums({ data: v.subarray(p * n, (p + 1) * n), rows: 1, columns: n }, share, { weights, threads: 1 });
        const factor = value * share[0];
        for (let i = 0; i < n; i++) out[p * n + i] -= factor * vector[i];
      }
    },
  };
}

/**
 * Stochastic Lanczos quadrature (Ubaru, Chen & Saad 2017): `tr f(K) ≈ (n / probes) Σ_p Σ_k w_pk f(θ_pk)` for several
 * functions from the same products, with random signs as probes (Hutchinson) and Gauss quadrature of each probe's
 * spectral measure. Three things take noise away. An eigenpair that is known is taken out of the matrix. The leading eigenvectors, found by four vectors
 * more, enter with their eigenvalues alone: what a probe makes of them is subtracted. tr K and tr K², which are known exactly,
 * are control variates: the estimates are regressed on the probes' own values of them. Steps are added until they change
 * the estimates by less than 0.05 of the standard error.
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
  const { known } = options;
  const rest = known === undefined ? operator : deflated(operator, known);
  const trace = await rest.trace();
  const squaredNorm = options.squaredNorm === false ? undefined : await rest.squaredNorm?.();
  const { steps, measures, leading } = await runProbes(rest, functions, options);
  const values = (at: (x: number) => number): Float64Array => perProbe(measures, leading, n, at);
  const controls =
    squaredNorm === undefined
      ? controlsOf(probes, [values(identity)], [trace])
      : controlsOf(probes, [values(identity), values(square)], [trace, squaredNorm]);
  const { errorWeights } = controls;
  const freedom = probes - 1 - controls.columns.length;
  const fitted = functions.map(({ at }) => {
    const { value, residual } = withControls(values(at), controls);
    // The rest has an eigenvalue 0 where the whole has the known one.
    return { value: value + (known === undefined ? 0 : at(known.value) - at(0)), residual };
  });
  const nodes = measures.map((measure) => measure.nodes.values);
  const ends = known === undefined ? [] : [known.value];
  const knownSquare = (known?.value ?? 0) ** 2;
  return {
    n,
    probes,
    steps,
    freedom,
    names: functions.map(({ name }) => name),
    traces: fitted.map(({ value, residual }) => estimateOf(value, residual, { freedom, errorWeights })),
    quadratureChanges: functions.map(({ at }) => lastChange(measures, n, at)),
    residuals: fitted.map(({ residual }) => residual),
    errorWeights,
    knownTraces: {
      trace: trace + (known?.value ?? 0),
      ...(squaredNorm !== undefined && { squaredNorm: squaredNorm + knownSquare }),
    },
    largest: Math.max(...ends, ...nodes.map((values) => values[values.length - 1])),
    smallest: Math.min(...ends, ...nodes.map((values) => values[0])),
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
