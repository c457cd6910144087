import type { MergeBody } from '../src/report/merge.js';

/**
 * How the parts of each kind of report unite, by schema. A command that writes partial reports enters its own here.
 */
export const MERGERS: Readonly<Record<string, () => Promise<MergeBody>>> = {
  'surprisal/attention': async () => (await import('../src/entropy/attention-report.js')).mergeAttentionReports,
  'surprisal/merge-moe-entropy': async () => (await import('../src/moe/entropy-report.js')).mergeRoutingReports,
  'surprisal/layers': async () => (await import('../src/entropy/layers-report.js')).mergeLayersReports,
  'surprisal/tokens': async () => (await import('../src/entropy/token-report.js')).mergeTokenReports,
  'surprisal/logits': async () => (await import('../src/entropy/logits-report.js')).mergeLogitsReports,
  'surprisal/logprobs': async () => (await import('../src/entropy/logprobs-report.js')).mergeLogProbsReports,
  'surprisal/compare': async () => (await import('../src/entropy/compare-report.js')).mergeCompareReports,
  'surprisal/choices': async () => (await import('../src/entropy/choices-report.js')).mergeChoicesReports,
  'surprisal/screen': async () => (await import('../src/screening/screen-report.js')).mergeScreenReports,
};
