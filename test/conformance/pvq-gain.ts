import { gainError, gainLevels, gainMoments, type LevelLaw } from '../../src/quantization/gain-levels.js';
import type { Json } from './harness.js';
import { keysOf, number } from './tensors.js';

const LAWS: readonly LevelLaw[] = ['lloyd', 'compander', 'quantile'];

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  const configs = inputs.configs;
  if (!Array.isArray(configs) || wanted === null || typeof wanted !== 'object' || Array.isArray(wanted)) {
    throw new TypeError('no configs');
  }
  const blanks = wanted.results;
  const results = configs.map((config, c) => {
    if (config === null || typeof config !== 'object' || Array.isArray(config)) throw new TypeError('no config');
    const groupLength = number(config.G, 'G');
    const columns = number(config.n, 'n');
    const moments = gainMoments(groupLength, columns);
    const named: Record<string, unknown> = { mean_r: moments.mean, mean_r2: moments.square };
    for (const law of LAWS) {
      const levels = gainLevels(law, groupLength, columns, number(config.levels, 'levels'));
      named[law] = levels;
      named[`mse_${law}`] = gainError(levels, groupLength, columns);
    }
    const keys = Array.isArray(blanks) ? keysOf(blanks[c]) : [];
    return Object.fromEntries(keys.filter((key) => key in named).map((key) => [key, named[key]]));
  });
  return { results };
}
