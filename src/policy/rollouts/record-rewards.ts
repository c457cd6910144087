import { InputError } from '../../errors.js';
import { groupAdvantages } from '../advantages.js';
import type { RolloutRequest } from './types.js';

/** Numbers of records, some of which may be unknown. */
export interface Sparse {
  values: number[];
  known: number;
  column: string;
}

/** Appends the value of a record, those before it unknown. */
export const put = (list: Sparse | undefined, record: number, value: number, column: string): Sparse => {
  const target = list ?? { values: [], known: 0, column };
  while (target.values.length < record) target.values.push(Number.NaN);
  target.values.push(value);
  target.known++;
  return target;
};

/** [records], NaN where unknown. */
export const filled = (list: Sparse, records: number): Float64Array => {
  const values = new Float64Array(records).fill(Number.NaN);
  values.set(list.values);
  return values;
};

/** Sum of component rewards; one that does not apply to a record (NaN) is left out, as TRL does. */
export function totalOf(parts: readonly (readonly [string, Float64Array])[], records: number): Float64Array {
  const total = new Float64Array(records).fill(Number.NaN);
  for (const [, values] of parts) {
    for (let r = 0; r < records; r++) {
      if (!Number.isNaN(values[r])) total[r] = Number.isNaN(total[r]) ? values[r] : total[r] + values[r];
    }
  }
  return total;
}

/** Of the field, else reward > 0 where rewards have two values (or one of -1, 0, 1 alone). */
export function correctness(
  field: Sparse | undefined,
  rewards: Float64Array | undefined,
  records: number,
  provenance: Record<string, string>,
): Float64Array | undefined {
  if (field) {
    provenance.correct = field.column;
    return filled(field, records);
  }
  if (rewards === undefined) return undefined;
  const values = new Set<number>();
  for (const value of rewards) if (!Number.isNaN(value) && values.size <= 2) values.add(value);
  const isBinary = values.size === 2 || (values.size === 1 && [-1, 0, 1].includes([...values][0]));
  if (!isBinary) return undefined;
  provenance.correct = 'reward > 0 (rewards have two values)';
  return rewards.map((value) => (Number.isNaN(value) ? value : value > 0 ? 1 : 0));
}

interface AdvantageSources {
  readonly advantage: Sparse | undefined;
  readonly rewards: Float64Array | undefined;
  readonly group: Int32Array;
  readonly groups: number;
  readonly tokenAdvantages: boolean;
}

/**
 * Advantages of records: those of the dump, or computed in groups from the rewards. None where the dump has one a token, or where a reward
 * is missing.
 * @throws InputError when they are asked from rewards that are not there
 */
export function advantageOf(
  request: RolloutRequest,
  { advantage, rewards, group, groups, tokenAdvantages }: AdvantageSources,
  records: number,
): { values?: Float64Array; from?: string; warning?: string } {
  const variant = request.advantage === 'dump' ? 'grpo' : request.advantage;
  const unknown = rewards?.reduce((count, value) => count + (Number.isNaN(value) ? 1 : 0), 0) ?? 0;
  const computed = (): { values: Float64Array; from: string } | undefined =>
    rewards && unknown === 0
      ? { values: groupAdvantages(rewards, group, groups, { variant, eps: 1e-6 }), from: `${variant} from rewards` }
      : undefined;
  if (request.advantage !== 'dump') {
    const own = computed();
    if (own === undefined)
      throw new InputError(
        `--advantage ${variant} needs the reward of every record, which ${unknown > 0 ? `${unknown} of ${records} records lack` : 'the dump lacks'}`,
      );
    return own;
  }
  if (advantage && advantage.known === records) return { values: filled(advantage, records), from: advantage.column };
  if (tokenAdvantages) return {};
  const own = computed();
  if (own === undefined && unknown > 0)
    return { warning: `${unknown} of ${records} records have no reward: advantages are not computed` };
  if (advantage === undefined || own === undefined) return own ?? {};
  return {
    ...own,
    warning: `only ${advantage.known} of ${records} records have "${advantage.column}": advantages are computed from rewards`,
  };
}

/** Groups of one, and groups whose rewards are all equal. */
export function groupWarnings(rewards: Float64Array, group: Int32Array, groups: number): string[] {
  const members = new Int32Array(groups);
  const least = new Float64Array(groups).fill(Number.POSITIVE_INFINITY);
  const most = new Float64Array(groups).fill(Number.NEGATIVE_INFINITY);
  for (let r = 0; r < rewards.length; r++) {
    const g = group[r];
    members[g]++;
    least[g] = Math.min(least[g], rewards[r]);
    most[g] = Math.max(most[g], rewards[r]);
  }
  const single = members.filter((count) => count === 1).length;
  const constant = members.filter((count, g) => count > 1 && least[g] === most[g]).length;
  const warnings: string[] = [];
  if (single > 0) warnings.push(`${single} of ${groups} groups have one record: their advantage is the reward itself`);
  if (constant > 0) warnings.push(`${constant} of ${groups} groups have equal rewards: their advantages are 0`);
  return warnings;
}
