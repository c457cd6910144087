import { didYouMean, InputError } from '../../errors.js';
import { clipCov } from './clip-cov.js';
import { clipHigher } from './clip-higher.js';
import { entropyBonus } from './entropy-bonus.js';
import { grpo } from './grpo.js';
import { klCov } from './kl-cov.js';
import { steer } from './steer.js';
import type { Intervention } from './types.js';

/** Every intervention, in the order of tables and figures; plain GRPO first. */
export const INTERVENTIONS: readonly Intervention[] = [grpo, clipHigher, clipCov, klCov, steer, entropyBonus];

export const INTERVENTION_NAMES = INTERVENTIONS.map(({ name }) => name);

/** @throws InputError for a name that no intervention has */
export function findIntervention(name: string): Intervention {
  const found = INTERVENTIONS.find((one) => one.name === name);
  if (found !== undefined) return found;
  throw new InputError(
    `there is no intervention "${name}"${didYouMean(name, INTERVENTION_NAMES)}; there are ${INTERVENTION_NAMES.join(', ')}`,
  );
}
