/** Rows of the framework by name. A new one is a file of this folder and a line here. */
import { didYouMean, InputError } from '../../../errors.js';
import type { MixingMethod } from '../types.js';
import { aioli } from './aioli.js';
import { dml } from './dml.js';
import { doge } from './doge.js';
import { doremi } from './doremi.js';
import { skillIt } from './skill-it.js';
import { stratified } from './stratified.js';

export const MIXING_METHODS: readonly MixingMethod[] = [stratified, doremi, doge, skillIt, dml, aioli];

/** @throws InputError for a name that is none, with the nearest one */
export function mixingMethod(name: string): MixingMethod {
  const found = MIXING_METHODS.find((method) => method.name === name);
  if (found) return found;
  const names = MIXING_METHODS.map((method) => method.name);
  throw new InputError(`there is no mixing method "${name}"${didYouMean(name, names)}; known: ${names.join(', ')}`);
}
