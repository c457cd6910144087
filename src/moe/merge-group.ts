import type { Random } from '../random.js';
import { createCombination, createFisherCombination, memberWeights } from './combine.js';
import { createFixedDominant, nearestNeurons, weightCorrelation } from './fixed-dominant.js';
import { type AlignmentSettings, alignByWeights, type MemberAlignment } from './group-permutations.js';
import type { MemberRecord } from './merge-record.js';
import type { MergeSettings } from './merge-settings.js';
import { createJointSvd } from './sub-moe.js';
import type { ExpertMatrices, ExpertShape } from './types.js';
import { zipByActivations, zipByWeights } from './zip-merge.js';

/** The experts of a group and what is known of them. */
export interface GroupTask {
  readonly layer: number;
  /** Ascending. */
  readonly members: Int32Array;
  readonly dominant: number;
  readonly shape: ExpertShape;
  /** Of all experts of the layer, [E]. */
  readonly usage: Float64Array;
  /** [E, E]; where the method compares experts by it. */
  readonly similarity?: Float64Array;
  readonly settings: MergeSettings;
  readonly alignment: AlignmentSettings;
  /** Alignments by activations, by member. */
  readonly byActivations?: ReadonlyMap<number, MemberAlignment>;
  /** Correlation of all neurons of all members, for a zip by activations. */
  readonly correlation?: { readonly tokens: number; readonly matrix: Float64Array };
  /** Fisher information of an expert, for a mean by it. */
  readonly fisher?: (expert: number) => ExpertMatrices;
  /** Of random weights. */
  readonly random: Random;
  readonly read: (expert: number) => ExpertMatrices;
}

export interface MergedGroupResult {
  readonly expert: ExpertMatrices;
  readonly members: readonly MemberRecord[];
  readonly jointEnergy?: number;
  readonly warnings: readonly string[];
}

/**
 * One expert of several: members are read one at a time, put in the order of the dominant's neurons, and combined.
 * @throws InputError when an assignment or a zip does not fit in memory
 */
export function mergeGroup(task: GroupTask): MergedGroupResult {
  const { members, dominant, usage, settings, random } = task;
  const policy = memberWeights(settings.weights, usage, members, { dominant, random });
  const total = policy.weights.reduce((sum, weight) => sum + weight, 0);
  const combined = combinations[settings.combine](task, policy.weights);
  const experts = usage.length;
  return {
    expert: combined.expert,
    members: Array.from(members, (expert, m) => ({
      expert,
      usage: usage[expert],
      weight: policy.weights[m] / total,
      similarity: task.similarity ? task.similarity[dominant * experts + expert] : null,
      alignment: alignmentRecord(combined.alignments.get(expert)),
    })),
    ...(combined.energy !== undefined && { jointEnergy: combined.energy }),
    warnings: policy.warning === undefined ? [] : [`layer ${task.layer}: ${policy.warning}`],
  };
}

interface Combined {
  readonly expert: ExpertMatrices;
  readonly alignments: ReadonlyMap<number, MemberAlignment>;
  readonly energy?: number;
}

type Combine = (task: GroupTask, weights: Float64Array) => Combined;

const combinations: Readonly<Record<MergeSettings['combine'], Combine>> = {
  mean(task, weights) {
    const sums = createCombination(task.shape, { threads: task.alignment.threads });
    const alignments = addAligned(task, weights, sums);
    return { expert: sums.finish(task.settings.referenceEpsilon), alignments };
  },

  'joint-svd'(task, weights) {
    const { rank } = task.settings;
    const { threads } = task.alignment;
    const sums = createJointSvd(task.shape, { threads, ...(rank !== undefined && { rank }) });
    const alignments = addAligned(task, weights, sums);
    const { expert, energy } = sums.finish();
    const parts = Object.values(energy);
    return { expert, alignments, energy: parts.reduce((sum, part) => sum + part, 0) / parts.length };
  },

  fisher(task, weights) {
    const { fisher } = task;
    if (!fisher) throw new RangeError('a mean by Fisher information that is not there');
    const sums = createFisherCombination(task.shape);
    const add: AddMember = (expert, _weight, permutation, member) => sums.add(expert, fisher(member), permutation);
    const alignments = addAligned(task, weights, { add });
    return { expert: sums.finish(task.settings.referenceEpsilon), alignments };
  },

  zip({ members, shape, read, settings, alignment, correlation }, weights) {
    const options = {
      coefficients: weights,
      epsilon: settings.referenceEpsilon,
      threads: alignment.threads,
      maxBytes: alignment.maxBytes,
    };
    const experts = Array.from(members, read);
    const expert = correlation
      ? zipByActivations(experts, shape, correlation, options)
      : zipByWeights(experts, shape, { ...options, includeDown: alignment.includeDown });
    return { expert, alignments: new Map() };
  },

  'fixed-dominant'({ members, dominant, shape, read, alignment }, weights) {
    const own = read(dominant);
    const place = members.indexOf(dominant);
    // A dominant that was never used keeps its neurons all the same.
    const lead = weights[place] > 0 ? weights[place] : Math.max(...weights) * Number.EPSILON;
    const merge = createFixedDominant(shape, own, lead);
    members.forEach((member, m) => {
      if (member === dominant) return;
      const other = read(member);
      const { threads } = alignment;
      merge.add(other, weights[m], nearestNeurons(weightCorrelation(own, other, shape, { threads }), shape.width));
    });
    return { expert: merge.finish(), alignments: new Map() };
  },
};

type AddMember = (expert: ExpertMatrices, weight: number, permutation: Int32Array | undefined, member: number) => void;

/** Adds the members in ascending order, each with its neurons where the dominant's are. */
function addAligned(
  task: GroupTask,
  weights: Float64Array,
  sums: { add: AddMember },
): ReadonlyMap<number, MemberAlignment> {
  const { members, dominant, shape, settings, read, alignment } = task;
  const alignments = new Map<number, MemberAlignment>();
  const reference = settings.align === 'weights' ? read(dominant) : undefined;
  members.forEach((member, m) => {
    const expert = member === dominant && reference ? reference : read(member);
    const aligned =
      member === dominant
        ? undefined
        : reference
          ? alignByWeights(reference, expert, shape, alignment)
          : task.byActivations?.get(member);
    if (aligned) alignments.set(member, aligned);
    sums.add(expert, weights[m], aligned?.permutation, member);
  });
  return alignments;
}

function alignmentRecord(alignment: MemberAlignment | undefined): MemberRecord['alignment'] {
  if (!alignment) return null;
  return {
    gain_before: alignment.gainBefore,
    gain: alignment.gain,
    gain_bound: alignment.bound,
    gap: alignment.gap,
    squared_distance_before: alignment.distanceBefore ?? null,
    squared_distance_after: alignment.distanceAfter ?? null,
    correlated_tokens: alignment.tokens ?? null,
  };
}
