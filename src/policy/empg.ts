import { InputError } from '../errors.js';
import { meanOf } from './compensated-sum.js';

/** Parameters of EMPG (spec 5). */
export interface EmpgSettings {
  /** Sharpness of the scaling of a step by its own entropy. Default 1. */
  readonly k?: number;
  /** Sharpness of the bonus by the entropy of the next step. Default 1. */
  readonly kFuture?: number;
  /** Weight of the bonus. Default 0.05. */
  readonly zeta?: number;
  /** Added to the range of the entropies. Default 1e-8. */
  readonly eps?: number;
}

/** Everything EMPG makes of the steps of a batch, trajectory by trajectory: [steps] each. */
export interface EmpgSteps {
  /** Entropy over the range of the batch, in [0, 1]. */
  readonly normalised: Float64Array;
  /** Self-calibrating scale, mean 1 over steps. */
  readonly scale: Float64Array;
  /** zeta exp(-k' h) of the next step; 0 at the last step of a trajectory. */
  readonly bonus: Float64Array;
  readonly modulated: Float64Array;
  /** The modulated advantage without its mean over all steps. */
  readonly final: Float64Array;
  /** Steps that set the ends of the range; the first of equals. */
  readonly least: number;
  readonly most: number;
}

/**
 * Step advantages of entropy-modulated policy gradients. Equal entropies give h = 0 and g = 1; steps weigh the same whatever
 * their length.
 * @param stepEntropy Mean token entropy of every step, nats, [steps].
 * @param offsets [trajectories + 1], from 0.
 * @param advantage [trajectories].
 * @throws InputError without steps, or for a value that is not finite.
 */
export function empgSteps(
  stepEntropy: Float64Array,
  offsets: Int32Array,
  advantage: Float64Array,
  { k = 1, kFuture = 1, zeta = 0.05, eps = 1e-8 }: EmpgSettings = {},
): EmpgSteps {
  const n = stepEntropy.length;
  if (n === 0) throw new InputError('EMPG needs at least one step with tokens that count');
  let least = 0;
  let most = 0;
  for (let i = 0; i < n; i++) {
    if (!Number.isFinite(stepEntropy[i])) throw new InputError(`the entropy of step ${i} is ${stepEntropy[i]}`);
    if (stepEntropy[i] < stepEntropy[least]) least = i;
    if (stepEntropy[i] > stepEntropy[most]) most = i;
  }
  const low = stepEntropy[least];
  const range = stepEntropy[most] - low + eps;
  // A range of 0 with eps = 0 is that of equal entropies too.
  const normalised = stepEntropy.map((entropy) => (range > 0 ? (entropy - low) / range : 0));
  const scale = normalised.map((h) => Math.exp(-k * h));
  const mean = meanOf(scale);
  for (let i = 0; i < n; i++) scale[i] /= mean;
  const bonus = new Float64Array(n);
  const modulated = new Float64Array(n);
  for (let j = 0; j + 1 < offsets.length; j++) {
    const [from, to] = [offsets[j], offsets[j + 1]];
    if (to > from && !Number.isFinite(advantage[j]))
      throw new InputError(`the advantage of trajectory ${j} is ${advantage[j]}`);
    for (let i = from; i < to; i++) {
      if (i + 1 < to) bonus[i] = zeta * Math.exp(-kFuture * normalised[i + 1]);
      modulated[i] = advantage[j] * scale[i] + bonus[i];
    }
  }
  const centre = meanOf(modulated);
  return { normalised, scale, bonus, modulated, final: modulated.map((value) => value - centre), least, most };
}

/**
 * Expected squared norm of the gradient of log pi(a) in the logits, a drawn from pi: by enumeration, and the Renyi-2 entropy
 * H_2 = -ln sum pi^2 that it follows from, E = 1 - exp(-H_2).
 * @param logits [rows, size], finite or -Infinity.
 */
export function scoreNorms(
  logits: Float64Array,
  size: number,
): { expectedSquaredNorm: Float64Array; renyi2: Float64Array } {
  const rows = size === 0 ? 0 : logits.length / size;
  const expectedSquaredNorm = new Float64Array(rows);
  const renyi2 = new Float64Array(rows);
  const p = new Float64Array(size);
  for (let r = 0; r < rows; r++) {
    let most = Number.NEGATIVE_INFINITY;
    for (let v = 0; v < size; v++) most = Math.max(most, logits[r * size + v]);
    let sum = 0;
    for (let v = 0; v < size; v++) {
      p[v] = Math.exp(logits[r * size + v] - most);
      sum += p[v];
    }
    let collision = 0;
    for (let v = 0; v < size; v++) {
      p[v] /= sum;
      collision += p[v] * p[v];
    }
    let expected = 0;
    // ||e_a - pi||^2 = 1 - 2 pi_a + sum pi^2.
    for (let v = 0; v < size; v++) expected += p[v] * (1 - 2 * p[v] + collision);
    expectedSquaredNorm[r] = expected;
    renyi2[r] = -Math.log(collision);
  }
  return { expectedSquaredNorm, renyi2 };
}
