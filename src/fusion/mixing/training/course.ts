import { createRandom } from '../../../random.js';
import { checkLosses } from '../checked-losses.js';
import { probeMixture, probeMixtures } from '../probe-mixtures.js';
import type { Mixer, MixerStart, MixingMethod, MixingRound, Probe } from '../types.js';

/** What was measured behind a step; the line of a log that a resumed run reads again. */
export interface Observation {
  /** Steps that had been made. */
  readonly step: number;
  /** Validation losses [k], nats. */
  readonly losses?: readonly number[];
  /** Losses [k] on the batch of the step, of the student and of the reference. */
  readonly excess?: { readonly losses: readonly number[]; readonly reference: readonly number[] };
  readonly alignments?: {
    readonly inner: readonly number[];
    readonly norms: readonly number[];
    readonly learningRate: number;
  };
}

/** A round of a run, as reports tell it. */
export interface CourseRound {
  readonly step: number;
  /** Validation losses before the update, [k]. */
  readonly losses: Float64Array;
  /** What the update found; absent in a round without one. */
  readonly update?: MixingRound;
  /** Proportions that the steps behind it are trained on, [k]. */
  readonly proportions: Float64Array;
}

/** A line of the log of losses, in the form that logged losses are read in. */
export interface LossLine {
  readonly round: number;
  /** -1 at the start of a round, else the probe's number in it. */
  readonly probe: number;
  /** Group that was probed; -1 at the start. */
  readonly probed: number;
  readonly losses: Float64Array;
}

/** How a run goes: which proportions a step is trained on, when losses are measured, and what follows from them. */
export interface MixingCourse {
  /** Of step `step`, 1-based, which comes next. */
  proportions(step: number): Float64Array;
  /** Whether validation losses are wanted behind `step` steps. */
  measures(step: number): boolean;
  /** What every step measures on its own batch. */
  readonly ofSteps: 'excess' | 'alignments' | null;
  observe(observation: Observation): void;
  readonly rounds: readonly CourseRound[];
  readonly log: readonly LossLine[];
  /** Steps spent on probe mixtures. */
  readonly probeSteps: number;
  /** What the method recommends. */
  result(): Float64Array;
}

export interface CourseSettings {
  readonly steps: number;
  /** Steps of a round. */
  readonly updateEvery: number;
  /** Aioli: sweeps over the probes, and steps of each. */
  readonly sweeps: number;
  readonly probeSteps: number;
  /** Steps on the initial proportions before the first round. */
  readonly priorSteps: number;
}

/** The course of a method. */
export function createCourse(method: MixingMethod, start: MixerStart, settings: CourseSettings): MixingCourse {
  const mixer = method.create(start);
  switch (method.evidence) {
    case 'probes':
      return probingCourse(mixer, start, settings);
    case 'excess':
    case 'alignments':
      return steppingCourse(mixer, start.groups, settings, method.evidence);
    default:
      return roundCourse(mixer, start.groups, settings, method.evidence !== null);
  }
}

/** A course on proportions that never change. */
export function staticCourse(
  proportions: Float64Array,
  groups: readonly string[],
  settings: CourseSettings,
): MixingCourse {
  const still: Mixer = {
    proportions,
    update: () => {
      throw new TypeError('these proportions do not change');
    },
    result: () => proportions,
  };
  return roundCourse(still, groups, settings, false);
}

const lossesOf = (observation: Observation, groups: readonly string[]): Float64Array => {
  const losses = Float64Array.from(observation.losses ?? []);
  checkLosses(losses, groups, `evaluation behind step ${observation.step}`);
  return losses;
};

const line = (round: number, losses: Float64Array): LossLine => ({ round, probe: -1, probed: -1, losses });

/** Losses at the end of every round; the mixer hears them where it wants to, from the second on. */
function roundCourse(
  mixer: Mixer,
  groups: readonly string[],
  { steps, updateEvery, priorSteps }: CourseSettings,
  updates: boolean,
): MixingCourse {
  const rounds: CourseRound[] = [];
  const log: LossLine[] = [];
  return {
    ofSteps: null,
    probeSteps: 0,
    rounds,
    log,
    proportions: () => mixer.proportions,
    measures: (step) => step === 0 || step === steps || (step > priorSteps && (step - priorSteps) % updateEvery === 0),
    observe(observation) {
      const losses = lossesOf(observation, groups);
      const { step } = observation;
      const update = updates && step > 0 && step < steps ? mixer.update({ kind: 'losses', losses }) : undefined;
      log.push(line(rounds.length, losses));
      rounds.push({ step, losses, ...(update && { update }), proportions: mixer.proportions });
    },
    result: () => mixer.result(),
  };
}

/** An update behind every step; losses, and the last update, at the end of every round. */
function steppingCourse(
  mixer: Mixer,
  groups: readonly string[],
  { steps, updateEvery, priorSteps }: CourseSettings,
  ofSteps: 'excess' | 'alignments',
): MixingCourse {
  const rounds: CourseRound[] = [];
  const log: LossLine[] = [];
  let last: MixingRound | undefined;
  return {
    ofSteps,
    probeSteps: 0,
    rounds,
    log,
    proportions: () => mixer.proportions,
    measures: (step) => step === 0 || step === steps || (step > priorSteps && (step - priorSteps) % updateEvery === 0),
    observe(observation) {
      const { step, excess, alignments } = observation;
      if (excess && step > priorSteps) {
        last = mixer.update({
          kind: 'excess',
          losses: Float64Array.from(excess.losses),
          reference: Float64Array.from(excess.reference),
        });
      }
      if (alignments && step > priorSteps) {
        last = mixer.update({
          kind: 'alignments',
          inner: Float64Array.from(alignments.inner),
          norms: Float64Array.from(alignments.norms),
          learningRate: alignments.learningRate,
        });
      }
      if (observation.losses === undefined) return;
      const losses = lossesOf(observation, groups);
      log.push(line(rounds.length, losses));
      rounds.push({ step, losses, ...(last && { update: last }), proportions: mixer.proportions });
    },
    result: () => mixer.result(),
  };
}

/** Stream of the order of the probes. */
const ORDER = 0x70726f62;

/**
 * Rounds of probes and of training. A round of `updateEvery` steps begins with sweeps over the probe mixtures, each group in a
 * random order; what is left of it is trained on the proportions that they gave. Probes are steps of the run like any other. A last
 * round that is not whole has no probes and goes on with the proportions of before.
 */
function probingCourse(mixer: Mixer, { groups, seed, parameters }: MixerStart, settings: CourseSettings): MixingCourse {
  const { steps, updateEvery, sweeps, probeSteps, priorSteps } = settings;
  const k = groups.length;
  const mixtures = probeMixtures(k, parameters.gamma);
  const shares = groups.map((_, j) => probeMixture(mixtures, j));
  const ofRound = sweeps * k * probeSteps;
  const wholeRounds = Math.max(0, Math.floor((steps - priorSteps) / updateEvery));
  const random = createRandom(seed).fork(ORDER);
  const orderOf = (round: number): Int32Array => {
    const stream = random.fork(round);
    return Int32Array.from(Array.from({ length: sweeps }, () => [...stream.permutation(k)]).flat());
  };
  let known: { readonly round: number; readonly order: Int32Array } | undefined;
  const probed = (round: number, probe: number): number => {
    if (known?.round !== round) known = { round, order: orderOf(round) };
    return known.order[probe];
  };
  /** Round and steps within it behind `step` steps; round -1 before the first. */
  const placeOf = (step: number): readonly [number, number] =>
    step < priorSteps ? [-1, step] : [Math.floor((step - priorSteps) / updateEvery), (step - priorSteps) % updateEvery];
  const rounds: CourseRound[] = [];
  const log: LossLine[] = [];
  let start: Float64Array | undefined;
  let probes: Probe[] = [];
  const finish = (step: number, losses: Float64Array): void => {
    rounds.push({ step, losses, proportions: mixer.proportions });
  };
  return {
    ofSteps: null,
    probeSteps: wholeRounds * ofRound,
    rounds,
    log,
    proportions(step) {
      const [round, within] = placeOf(step - 1);
      if (round < 0 || round >= wholeRounds || within >= ofRound) return mixer.proportions;
      return shares[probed(round, Math.floor(within / probeSteps))];
    },
    measures(step) {
      const [round, within] = placeOf(step);
      if (step === 0 || step === steps) return true;
      if (round < 0) return false;
      return within === 0 || (round < wholeRounds && within <= ofRound && within % probeSteps === 0);
    },
    observe(observation) {
      const losses = lossesOf(observation, groups);
      const { step } = observation;
      const [round, within] = placeOf(step);
      if (round < 0) {
        finish(step, losses);
        return;
      }
      if (round >= wholeRounds) {
        if (log.at(-1)?.round !== wholeRounds) log.push(line(wholeRounds, losses));
        finish(step, losses);
        return;
      }
      if (within === 0) {
        start = losses;
        probes = [];
        log.push(line(round, losses));
        return;
      }
      if (within <= ofRound) {
        const probe = within / probeSteps - 1;
        const group = probed(round, probe);
        probes.push({ group, losses });
        log.push({ round, probe, probed: group, losses });
        if (within < ofRound || start === undefined) return;
        const update = mixer.update({ kind: 'probes', start, probes });
        rounds.push({ step: step - ofRound, losses: start, update, proportions: mixer.proportions });
      }
    },
    result: () => mixer.result(),
  };
}
