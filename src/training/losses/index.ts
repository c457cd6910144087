/** Losses by name. A new loss is a file of this folder and a line here. */
import { didYouMean, InputError } from '../../errors.js';
import type { Loss, LossDeclaration } from '../types.js';
import { compSum } from './comp-sum.js';
import { crossEntropy, labelSmoothing } from './cross-entropy.js';
import { dist } from './dist.js';
import { jsd, reverseKl, totalVariation } from './divergences.js';
import { dkd } from './dkd.js';
import { kd } from './kd.js';
import { listMle } from './listmle.js';
import { pListMle } from './p-listmle.js';
import { pld } from './pld.js';
import { pldPartial } from './pld-partial.js';
import { hingeRanking, logisticRanking } from './ranking.js';
import { rkd } from './rkd.js';
import { smoothAdversarial } from './smooth-adversarial.js';
import { uld } from './uld.js';

export const LOSSES: readonly LossDeclaration[] = [
  crossEntropy,
  labelSmoothing,
  kd,
  dkd,
  dist,
  rkd,
  jsd,
  reverseKl,
  totalVariation,
  compSum,
  smoothAdversarial,
  logisticRanking,
  hingeRanking,
  uld,
  pld,
  pldPartial,
  listMle,
  pListMle,
];

/** @throws InputError for a name that is none, with the nearest one */
export function lossDeclaration(name: string): LossDeclaration {
  const found = LOSSES.find((declaration) => declaration.name === name);
  if (found !== undefined) return found;
  const names = LOSSES.map((declaration) => declaration.name);
  throw new InputError(`there is no loss "${name}" (${names.join(', ')})${didYouMean(name, names)}`);
}

/**
 * A loss with its parameters fixed; those left out have their defaults.
 *
 * @throws InputError for an unknown name or parameter, or one out of range
 */
export function createLoss(name: string, parameters: Readonly<Record<string, number | string>> = {}): Loss {
  return lossDeclaration(name).create(parameters);
}
