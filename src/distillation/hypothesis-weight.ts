/**
 * Weight of a hypothesis: the prior mass of the models within a Kullback-Leibler radius of a reference, and the regret
 * of a mixture that follows from it (Feder, Urbanke and Fogel, "The Universality Lens", 2025). All in nats.
 */
import { InputError } from '../errors.js';

/** Models by their divergence from the reference, nearest first, with the prior mass up to each. */
export interface WeightProfile {
  /** Ascending KL(reference || model), nats per sample. */
  readonly divergences: Float64Array;
  /** Prior mass of the models up to and including each place. */
  readonly masses: Float64Array;
  /** Prior-weighted sum of the divergences up to each place. */
  readonly moments: Float64Array;
}

/** @param divergences [models], infinite where the reference leaves the model's support */
export function weightProfile(divergences: ArrayLike<number>, prior: ArrayLike<number>): WeightProfile {
  const order = Array.from({ length: divergences.length }, (_, m) => m).filter((m) => prior[m] > 0);
  order.sort((a, b) => divergences[a] - divergences[b] || a - b);
  const masses = new Float64Array(order.length);
  const moments = new Float64Array(order.length);
  let mass = 0;
  let moment = 0;
  order.forEach((m, place) => {
    mass += prior[m];
    moment += prior[m] * divergences[m];
    masses[place] = mass;
    moments[place] = moment;
  });
  return { divergences: Float64Array.from(order, (m) => divergences[m]), masses, moments };
}

/** Models within a radius. */
export interface Ball {
  readonly radius_nats: number;
  /** Prior mass. */
  readonly weight: number;
  readonly models: number;
  /** samples * radius - ln weight: no expected regret against the reference is larger. */
  readonly bound_nats: number;
}

/** -ln of a mass that rounding may have put above 1. */
const description = (mass: number): number => (mass > 0 ? Math.max(0, -Math.log(mass)) : Number.POSITIVE_INFINITY);

/** The ball of a radius for `samples` samples; an empty one has an infinite bound. */
export function ballOf(profile: WeightProfile, radius: number, samples: number): Ball {
  let models = 0;
  while (models < profile.divergences.length && profile.divergences[models] <= radius) models++;
  const weight = models === 0 ? 0 : profile.masses[models - 1];
  return { radius_nats: radius, weight, models, bound_nats: samples * radius + description(weight) };
}

export interface RegretBounds {
  /** min over radii of samples * radius - ln W(radius), and where. */
  readonly ball_nats: number;
  readonly ball_radius_nats: number;
  readonly ball_weight: number;
  /** The two parts of it: data misfit and description length of the ball. */
  readonly misfit_nats: number;
  readonly description_nats: number;
  /** min over balls of -ln W + samples * prior-weighted mean divergence inside: never larger. */
  readonly jensen_nats: number;
  readonly jensen_radius_nats: number;
}

/** The least bounds over all radii; the minimum lies at an observed divergence. */
export function regretBounds({ divergences, masses, moments }: WeightProfile, samples: number): RegretBounds {
  const best = { ball: Number.POSITIVE_INFINITY, ballAt: 0, jensen: Number.POSITIVE_INFINITY, jensenAt: 0 };
  for (let place = 0; place < divergences.length; place++) {
    if (place + 1 < divergences.length && divergences[place + 1] === divergences[place]) continue;
    const length = description(masses[place]);
    const ball = samples * divergences[place] + length;
    if (ball < best.ball) Object.assign(best, { ball, ballAt: place });
    const jensen = (samples * moments[place]) / masses[place] + length;
    if (jensen < best.jensen) Object.assign(best, { jensen, jensenAt: place });
  }
  const radius = divergences[best.ballAt];
  return {
    ball_nats: best.ball,
    ball_radius_nats: radius,
    ball_weight: masses[best.ballAt],
    misfit_nats: samples * radius,
    description_nats: description(masses[best.ballAt]),
    jensen_nats: best.jensen,
    jensen_radius_nats: divergences[best.jensenAt],
  };
}

/**
 * The smallest number of samples at which the ball bound per sample is at most `target` nats; undefined where no number
 * is enough.
 *
 * @throws InputError unless the target is positive
 */
export function sampleComplexity({ divergences, masses }: WeightProfile, target: number): number | undefined {
  if (!(target > 0)) throw new InputError(`the target regret must be above 0 nats per sample; it is ${target}`);
  let least = Number.POSITIVE_INFINITY;
  for (let place = 0; place < divergences.length && divergences[place] <= target; place++) {
    const length = description(masses[place]);
    const room = target - divergences[place];
    const samples = length === 0 ? 1 : Math.max(1, Math.ceil(length / room));
    least = Math.min(least, samples);
  }
  return Number.isFinite(least) ? least : undefined;
}
