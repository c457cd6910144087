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
  let units = 0;
  let fewest = Number.POSITIVE_INFINITY;
  for (const tokens of counted) {
    if (tokens === 0 || 1 / tokens <= 5 * fraction) continue;
    units++;
    fewest = Math.min(fewest, tokens);
  }
  if (units === 0) return undefined;
  const where = counted.length === 1 ? '' : ` in ${units} of ${counted.length} units`;
  return (
    `at least one token is taken${where}, so with ${fewest} tokens the effective fraction is ${(1 / fewest).toPrecision(3)}, ` +
    `more than five times ${fraction}`
  );
}
