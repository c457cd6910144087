import { InputError } from '../../errors.js';

/** @throws InputError for losses that are missing or no finite numbers, with group and place */
export function checkLosses(losses: ArrayLike<number>, groups: readonly string[], where: string): void {
  if (losses.length !== groups.length) {
    throw new InputError(`${where}: ${losses.length} losses for ${groups.length} groups (${groups.join(', ')})`);
  }
  groups.forEach((name, i) => {
    if (!Number.isFinite(losses[i])) throw new InputError(`${where}: the loss of ${name} is ${losses[i]}`);
  });
}
