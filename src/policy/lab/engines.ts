import { didYouMean, InputError } from '../../errors.js';
import type { LabEngine } from './types.js';

/** Engines by name; each is loaded when it is asked for. */
const ENGINES: Readonly<Record<string, () => Promise<LabEngine>>> = {
  tabular: async () => (await import('./tabular.js')).tabularEngine,
  transformer: async () => (await import('./transformer/transformer-engine.js')).additionEngine,
  'transformer-chain': async () => (await import('./transformer/transformer-engine.js')).chainEngine,
};

export const ENGINE_NAMES = Object.keys(ENGINES);

/** @throws InputError for a name that no engine has */
export function loadEngine(name: string): Promise<LabEngine> {
  const load = ENGINES[name];
  if (load === undefined) {
    throw new InputError(`--engine: there is no engine "${name}"${didYouMean(name, ENGINE_NAMES)}`);
  }
  return load();
}
