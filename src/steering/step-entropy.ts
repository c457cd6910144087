import { InputError, nearestName } from '../errors.js';
import { type CountEntropy, countEntropy } from './action-entropy.js';
import type { ActionPattern } from './action-pattern.js';
import { createActionReader } from './action-pattern.js';

/** Where the entropy of a step came from. */
export type EntropySource = 'counts' | 'completions' | 'logged' | 'exact' | 'sampled';

/** What a row says of its action. Entropy in nats; NaN where no completion parsed. */
export interface StepEntropy {
  readonly source: EntropySource;
  readonly entropyNats: number;
  /** By action, in the order of the task's actions. */
  readonly counts?: readonly number[];
}

/** Fields that are read, the first that is there. */
export const ENTROPY_FIELDS = ['counts', 'completions', 'entropy_nats', 'entropy_bits'] as const;

/** Names of actions, in the order in which rows with counts by name first had them. */
export type ActionOrder = string[];

function countsOf(value: unknown, place: string, order: ActionOrder): number[] {
  const check = (count: unknown, name: string): number => {
    if (typeof count === 'number' && Number.isInteger(count) && count >= 0) return count;
    throw new InputError(
      `${place}: the count of ${name} is ${JSON.stringify(count)}; expected a whole number, 0 or more`,
    );
  };
  if (Array.isArray(value)) {
    if (value.length < 2) throw oneAction(place, value.length);
    return value.map((count, a) => check(count, `action ${a + 1}`));
  }
  if (typeof value !== 'object' || value === null) {
    throw new InputError(
      `${place}: "counts" holds ${JSON.stringify(value)}; expected a list of counts, or {"action": count}`,
    );
  }
  const named = Object.entries(value).map(([name, count]) => [name, check(count, JSON.stringify(name))] as const);
  for (const [name] of named) if (!order.includes(name)) order.push(name);
  const counts = new Map(named);
  return order.map((name) => counts.get(name) ?? 0);
}

function oneAction(place: string, actions: number): InputError {
  return new InputError(
    `${place}: "counts" has ${actions === 1 ? 'one action' : 'no action'}, whose entropy is zero whatever the model does; log two actions or more`,
  );
}

function entropyOf(value: unknown, field: string, place: string, scale: number): number {
  if (typeof value === 'number' && value >= 0 && Number.isFinite(value)) return value * scale;
  throw new InputError(`${place}: "${field}" is ${JSON.stringify(value)}; expected a finite number, 0 or more`);
}

function fromCounts(counts: readonly number[], source: EntropySource): StepEntropy {
  const { pluginNats }: CountEntropy = countEntropy(counts);
  return { source, entropyNats: pluginNats, counts };
}

/**
 * The action entropy that a row of a log holds: of `counts` (a list, or an object by action) and of `completions` parsed by
 * the pattern the plug-in estimate, else `entropy_nats` or `entropy_bits` as they stand; or the latter first.
 * @param order collects the names of actions over the rows
 * @returns undefined where the row says nothing of its action
 * @throws InputError naming the place of a field that cannot be used
 */
export function stepEntropy(
  record: Readonly<Record<string, unknown>>,
  place: string,
  order: ActionOrder,
  pattern?: ActionPattern,
  prefer: 'counts' | 'logged' = 'counts',
): StepEntropy | undefined {
  const logged = loggedEntropy(record, place);
  if (logged && prefer === 'logged') return logged;
  if (record.counts !== undefined && record.counts !== null)
    return fromCounts(countsOf(record.counts, place, order), 'counts');
  if (Array.isArray(record.completions) && pattern) {
    const reader = createActionReader(pattern);
    const counts = pattern.actions.map(() => 0);
    for (const completion of record.completions) {
      if (typeof completion !== 'string') {
        throw new InputError(`${place}: "completions" holds ${JSON.stringify(completion)}; expected texts`);
      }
      const action = reader.read(completion);
      if (action !== null) counts[action]++;
    }
    return fromCounts(counts, 'completions');
  }
  return logged;
}

function loggedEntropy(record: Readonly<Record<string, unknown>>, place: string): StepEntropy | undefined {
  if (record.entropy_nats !== undefined && record.entropy_nats !== null) {
    return { source: 'logged', entropyNats: entropyOf(record.entropy_nats, 'entropy_nats', place, 1) };
  }
  if (record.entropy_bits !== undefined && record.entropy_bits !== null) {
    return { source: 'logged', entropyNats: entropyOf(record.entropy_bits, 'entropy_bits', place, Math.LN2) };
  }
  return undefined;
}

/** What to say of a row that has no entropy, no counts, and no model was asked for them. */
export function missingEntropy(record: Readonly<Record<string, unknown>>, place: string): InputError {
  const others = Object.keys(record).filter((name) => !ENTROPY_FIELDS.some((field) => field === name));
  const near = ENTROPY_FIELDS.map((field) => nearestName(field, others)).find((name) => name !== undefined);
  const meant = near === undefined ? '' : ` (is "${near}" meant?)`;
  const completions = Array.isArray(record.completions)
    ? 'its completions need --actions (and --action-pattern) to be read'
    : 'it needs counts, completions or entropy_nats';
  return new InputError(
    `${place}: the row does not say how its action came out${meant}; ${completions}; or let the model find it with ` +
      '--actions and --entropy exact (or --samples 25)',
  );
}
