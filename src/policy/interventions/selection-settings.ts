import { SCOPES, type Scope } from './scoped-selection.js';
import { choiceSetting } from './settings.js';
import type { InterventionSettings } from './types.js';

/** The setting `scope`. */
export function scopeOf(settings: InterventionSettings): Scope {
  const word = choiceSetting(settings, 'scope');
  const found = SCOPES.find((scope) => scope === word);
  if (found === undefined) throw new TypeError(`no scope ${word}`);
  return found;
}

/** Warns where the least count of one token makes the effective fraction much larger than the one asked for. */
export function effectiveFractionWarning(counted: Float64Array, fraction: number): string | undefined {
  if (!counted.some((tokens) => tokens > 0 && 1 / tokens > 5 * fraction)) return undefined;
  // Without counts of this step: the same warning of many steps is one warning.
  return (
    `at least one token is taken, which of fewer than ${Math.ceil(1 / (5 * fraction))} tokens is more than five times ` +
    `the fraction ${fraction}`
  );
}
