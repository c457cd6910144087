import type { MergeBody } from '../src/report/merge.js';

/**
 * How the parts of each kind of report unite, by schema. A command that writes partial reports enters its own here.
 */
export const MERGERS: Readonly<Record<string, () => Promise<MergeBody>>> = {
  'surprisal/tokens': async () => (await import('../src/entropy/token-report.js')).mergeTokenReports,
};
