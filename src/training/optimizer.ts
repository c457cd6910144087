import { didYouMean, InputError } from '../errors.js';
import { adamStep, type DecaySegments, lionStep, momentumStep } from '../kernels/optimizer-steps.js';
import { addLangevinNoise } from './langevin-noise.js';
import type { Floats, Parameter, ParameterSet } from './types.js';

export const OPTIMIZERS = ['adamw', 'adam', 'sgd', 'lion', 'sgld'] as const;
export type OptimizerName = (typeof OPTIMIZERS)[number];

/** An optimiser and what differs from its defaults. A setting that the method does not read is an error. */
export interface OptimizerSettings {
  readonly method: OptimizerName;
  /** adamw, adam: 0.9 and 0.999; lion: 0.9 and 0.99. */
  readonly beta1?: number;
  readonly beta2?: number;
  /** adamw, adam: 1e-8, added behind the bias-corrected root. */
  readonly epsilon?: number;
  /**
   * adamw 0.01, lion 0: shrinkage of the parameters by lr * weightDecay. adam 0, sgd 0: added to the gradient times the
   * parameters.
   */
  readonly weightDecay?: number;
  /** Leaves tensors of fewer than two dimensions (biases, norms) out of the decay; default false, as in PyTorch. */
  readonly exemptVectors?: boolean;
  /** sgd: default 0. */
  readonly momentum?: number;
  readonly nesterov?: boolean;
  /** sgld: rows of the data set; the mean gradient of a step stands for that many. */
  readonly dataCount?: number;
  /** sgld: precision of the normal prior of every parameter, default 0 (flat). */
  readonly priorPrecision?: number;
  /** sgld: the posterior to the power 1 / temperature is sampled; default 1. */
  readonly temperature?: number;
  /** sgld: seed of the noise. */
  readonly seed?: number;
}

export interface OptimizerStep {
  readonly learningRate: number;
  /** Factor of the gradients: clip coefficient over the number of rows. Default 1. */
  readonly gradientScale?: number;
  /** Sets the gradients to zero behind the step; default false. */
  readonly clear?: boolean;
  readonly threads?: number;
}

/** Moves the values of one parameter set. */
export interface Optimizer {
  readonly settings: OptimizerSettings;
  /** Flat buffers beside the values: `m` and `v`, `velocity`, or none. */
  readonly state: Readonly<Record<string, Floats>>;
  /** Steps taken so far; the bias corrections and the noise depend on it. */
  readonly steps: number;
  step(options: OptimizerStep): void;
  /** Goes on behind step `steps`; the buffers of `state` are filled by the caller. */
  resumeAt(steps: number): void;
}

type Setting = Exclude<keyof OptimizerSettings, 'method'>;
const READS: Readonly<Record<OptimizerName, readonly Setting[]>> = {
  adamw: ['beta1', 'beta2', 'epsilon', 'weightDecay', 'exemptVectors'],
  adam: ['beta1', 'beta2', 'epsilon', 'weightDecay', 'exemptVectors'],
  sgd: ['momentum', 'nesterov', 'weightDecay', 'exemptVectors'],
  lion: ['beta1', 'beta2', 'weightDecay', 'exemptVectors'],
  sgld: ['dataCount', 'priorPrecision', 'temperature', 'seed'],
};

function checkSettings(settings: OptimizerSettings): void {
  const { method } = settings;
  if (!(OPTIMIZERS as readonly string[]).includes(method))
    throw new InputError(
      `unknown optimizer "${method}"${didYouMean(method, OPTIMIZERS)}; known: ${OPTIMIZERS.join(' ')}`,
    );
  for (const [name, value] of Object.entries(settings)) {
    if (name === 'method' || value === undefined) continue;
    if (!(READS[method] as readonly string[]).includes(name))
      throw new InputError(`optimizer ${method} has no ${name}; it reads ${READS[method].join(' ')}`);
  }
  const within = (name: Setting, least: number, below: number): void => {
    const value = settings[name];
    if (typeof value === 'number' && !(value >= least && value < below))
      throw new InputError(`optimizer ${method}: ${name} ${value} must lie in [${least}, ${below})`);
  };
  within('beta1', 0, 1);
  within('beta2', 0, 1);
  within('momentum', 0, 1);
  for (const name of ['epsilon', 'weightDecay', 'priorPrecision', 'temperature'] as const)
    within(name, 0, Number.POSITIVE_INFINITY);
  if (method === 'sgd' && settings.nesterov === true && (settings.momentum ?? 0) === 0)
    throw new InputError('optimizer sgd: nesterov needs a momentum above 0');
  if (method === 'sgld' && !((settings.dataCount ?? 0) >= 1))
    throw new InputError('optimizer sgld: needs dataCount, the number of rows of the data set');
}

/** Stretches of equal decay: neighbours that decay alike are one. */
function decaySegments(
  set: ParameterSet,
  decays: (parameter: Parameter) => boolean,
): (on: number, off: number) => DecaySegments {
  const ends: number[] = [];
  const flags: boolean[] = [];
  let end = 0;
  for (const parameter of set.parameters) {
    const { name, offset, length } = parameter;
    if (offset !== end) throw new RangeError(`parameter ${name} begins at ${offset}, not at ${end}`);
    end += length;
    const flag = decays(parameter);
    if (flags.length > 0 && flags[flags.length - 1] === flag) ends[ends.length - 1] = end;
    else {
      ends.push(end);
      flags.push(flag);
    }
  }
  if (end !== set.values.length)
    throw new RangeError(`parameters of ${end} entries in a buffer of ${set.values.length}`);
  const table = Float64Array.from(ends);
  return (on, off) => ({ ends: table, factors: Float64Array.from(flags, (flag) => (flag ? on : off)) });
}

const zerosLike = (values: Floats): Floats =>
  values instanceof Float32Array ? new Float32Array(values.length) : new Float64Array(values.length);

/**
 * An optimiser over the flat buffers of `set`, as PyTorch defines AdamW, Adam with L2 and SGD; Lion (Chen et al. 2023);
 * and Langevin sampling, theta <- theta - (lr / 2) (n g + priorPrecision theta) + N(0, lr temperature), g the mean gradient
 * (Welling & Teh 2011).
 * @throws InputError for an unknown method, a setting that it does not read, or a value out of range
 */
export function createOptimizer(set: ParameterSet, settings: OptimizerSettings): Optimizer {
  checkSettings(settings);
  const { values, gradients } = set;
  const { method, exemptVectors = false } = settings;
  const segments = decaySegments(set, ({ dims, undecayed }) => !undecayed && (!exemptVectors || dims.length >= 2));
  const rated = set.parameters.filter(({ rate = 1 }) => rate !== 1);
  let steps = 0;
  const state: Record<string, Floats> = {};
  const buffer = (name: string): Floats => {
    state[name] = zerosLike(values);
    return state[name];
  };
  let move: (options: Required<Omit<OptimizerStep, 'threads'>>, threads: number | undefined) => void;
  if (method === 'adamw' || method === 'adam') {
    const { beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weightDecay = method === 'adamw' ? 0.01 : 0 } = settings;
    const [m, v] = [buffer('m'), buffer('v')];
    const coupled = method === 'adam';
    move = ({ learningRate, gradientScale, clear }, threads) => {
      const decay = coupled ? segments(weightDecay, 0) : segments(1 - learningRate * weightDecay, 1);
      const stepSize = learningRate / (1 - beta1 ** steps);
      const rootScale = 1 / Math.sqrt(1 - beta2 ** steps);
      const step = { beta1, beta2, epsilon, stepSize, rootScale, coupled, gradientScale, clear };
      adamStep(values, gradients, m, v, decay, step, threads);
    };
  } else if (method === 'lion') {
    const { beta1 = 0.9, beta2 = 0.99, weightDecay = 0 } = settings;
    const m = buffer('m');
    move = ({ learningRate, gradientScale, clear }, threads) => {
      const decay = segments(1 - learningRate * weightDecay, 1);
      lionStep(values, gradients, m, decay, { beta1, beta2, learningRate, gradientScale, clear }, threads);
    };
  } else if (method === 'sgd') {
    const { momentum = 0, nesterov = false, weightDecay = 0 } = settings;
    const velocity = momentum === 0 ? undefined : buffer('velocity');
    const decay = segments(weightDecay, 0);
    move = ({ learningRate, gradientScale, clear }, threads) =>
      momentumStep(
        values,
        gradients,
        velocity,
        decay,
        { learningRate, momentum, nesterov, gradientScale, clear },
        threads,
      );
  } else {
    const { dataCount = 1, priorPrecision = 0, temperature = 1, seed = 0 } = settings;
    const decay = segments(priorPrecision, priorPrecision);
    move = ({ learningRate, gradientScale, clear }, threads) => {
      const step = { momentum: 0, nesterov: false, clear, gradientScale: gradientScale * dataCount };
      momentumStep(values, gradients, undefined, decay, { ...step, learningRate: learningRate / 2 }, threads);
      addLangevinNoise(values, Math.sqrt(learningRate * temperature), seed, steps);
    };
  }
  return {
    settings,
    state,
    get steps() {
      return steps;
    },
    step({ learningRate, gradientScale = 1, clear = false, threads }) {
      steps++;
      const before = rated.map(({ offset, length }) => values.slice(offset, offset + length));
      move({ learningRate, gradientScale, clear }, threads);
      // A step is linear in the rate.
      rated.forEach(({ offset, rate = 1 }, i) => {
        before[i].forEach((old, j) => {
          values[offset + j] = old + rate * (values[offset + j] - old);
        });
      });
    },
    resumeAt(before) {
      steps = before;
    },
  };
}
