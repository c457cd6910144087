import { didYouMean, InputError } from '../../errors.js';
import { ares } from './ares.js';
import { clipCov } from './clip-cov.js';
import { clipHigher } from './clip-higher.js';
import { cure } from './cure.js';
import { empg } from './empg.js';
import { entropyBonus } from './entropy-bonus.js';
import { grpo } from './grpo.js';
import { hardnessWeights } from './hardness-weights.js';
import { klCov } from './kl-cov.js';
import { pear } from './pear.js';
import { recentSamples } from './recent-samples.js';
import { steer } from './steer.js';
import { targetedEntropy } from './targeted-entropy.js';
import type { Intervention } from './types.js';

/** Every intervention, in the order of tables and figures; plain GRPO first. */
export const INTERVENTIONS: readonly Intervention[] = [
  grpo,
  clipHigher,
  clipCov,
  klCov,
  steer,
  entropyBonus,
  targetedEntropy,
  pear,
  ares,
  empg,
  cure,
  hardnessWeights,
  recentSamples,
];

export const INTERVENTION_NAMES = INTERVENTIONS.map(({ name }) => name);

/** @throws InputError for a name that no intervention has */
export function findIntervention(name: string): Intervention {
  const found = INTERVENTIONS.find((one) => one.name === name);
  if (found !== undefined) return found;
  throw new InputError(
    `there is no intervention "${name}"${didYouMean(name, INTERVENTION_NAMES)}; there are ${INTERVENTION_NAMES.join(', ')}`,
  );
}
