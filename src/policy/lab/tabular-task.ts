import { InputError } from '../../errors.js';
import type { Random } from '../../random.js';
import type { TabularPolicy } from './tabular-policy.js';
import type { LabEngine, LabTask } from './types.js';

/** What `--task` takes for the shared lock, with the values of the published table. */
export const SHARED_LOCK: LabEngine['task'] = {
  prompts: { kind: 'number', initial: 64, least: 1, help: 'prompts, each with its own key' },
  positions: { kind: 'number', initial: 3, least: 1, help: 'tokens of a response' },
  vocabulary: { kind: 'number', initial: 8, least: 2, help: 'tokens to choose from' },
  'head-start': { kind: 'number', initial: 2, help: 'initial logit of the base key, nats' },
  'batch-prompts': { kind: 'number', initial: 32, least: 1, help: 'prompts of a step, without replacement' },
  responses: { kind: 'number', initial: 16, least: 1, help: 'responses of a prompt' },
  minibatches: { kind: 'number', initial: 4, least: 1, help: 'updates of a step, by prompts' },
  'learning-rate': { kind: 'number', initial: 6, least: 0, help: 'rate of the logits of a prompt' },
  'shared-rate': { kind: 'number', initial: 0.5, least: 0, help: 'rate of the shared logits, as a part of the other' },
};

/** The shared lock with its sizes checked. */
export interface SharedLock {
  readonly prompts: number;
  readonly positions: number;
  readonly vocabulary: number;
  readonly headStart: number;
  readonly batchPrompts: number;
  readonly responses: number;
  readonly minibatches: number;
  readonly rates: { readonly own: number; readonly shared: number };
}

/** @throws InputError for counts that are no whole numbers, or a batch that does not divide */
export function sharedLock(task: LabTask): SharedLock {
  const count = (name: string): number => {
    const value = task[name];
    if (!Number.isInteger(value)) throw new InputError(`--task ${name}=${value}: must be a whole number`);
    return value;
  };
  const lock = {
    prompts: count('prompts'),
    positions: count('positions'),
    vocabulary: count('vocabulary'),
    headStart: task['head-start'],
    batchPrompts: count('batch-prompts'),
    responses: count('responses'),
    minibatches: count('minibatches'),
    rates: { own: task['learning-rate'], shared: task['learning-rate'] * task['shared-rate'] },
  };
  if (lock.batchPrompts > lock.prompts) {
    throw new InputError(
      `--task batch-prompts=${lock.batchPrompts}: a step draws prompts without replacement, of ${lock.prompts}`,
    );
  }
  if (lock.minibatches > lock.batchPrompts) {
    throw new InputError(
      `--task minibatches=${lock.minibatches}: minibatches hold whole groups, and a step has ${lock.batchPrompts}`,
    );
  }
  return lock;
}

/** Keys of all prompts, and the base key that they come from. */
export interface LockKeys {
  /** [positions]. */
  readonly base: Int32Array;
  /** [prompts, positions]. */
  readonly keys: Int32Array;
}

/** Draws a base key, and for prompt c a key that differs from it in c mod (positions + 1) positions. */
export function drawKeys({ prompts, positions, vocabulary }: SharedLock, random: Random): LockKeys {
  const base = Int32Array.from({ length: positions }, () => random.integer(vocabulary));
  const keys = new Int32Array(prompts * positions);
  for (let c = 0; c < prompts; c++) {
    keys.set(base, c * positions);
    const changed = random.permutation(positions).subarray(0, c % (positions + 1));
    for (const t of changed) keys[c * positions + t] = (base[t] + 1 + random.integer(vocabulary - 1)) % vocabulary;
  }
  return { base, keys };
}

/** The untrained policy: a head start for the base key in every prompt, and nothing else. */
export function initialPolicy(
  { prompts, positions, vocabulary, headStart }: SharedLock,
  base: Int32Array,
): TabularPolicy {
  const shared = new Float64Array(positions * vocabulary);
  for (let t = 0; t < positions; t++) shared[t * vocabulary + base[t]] = headStart;
  return { contexts: prompts, positions, vocabulary, shared, own: new Float64Array(prompts * positions * vocabulary) };
}
