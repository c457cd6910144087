import type { MergeSettings } from './merge-settings.js';
import { type ExpertMethod, greaterNeed, type StatisticsNeed } from './methods/method.js';
import { type SimilaritySource, similarityNeeds } from './similarity.js';

const NEED_OF_SOURCE: Readonly<Record<SimilaritySource, StatisticsNeed>> = {
  routing: 'routing',
  router: 'none',
  weights: 'none',
  outputs: 'outputs',
  everywhere: 'everywhere',
  pairs: 'none',
};

/** Whether the method compares experts by a similarity. */
export const comparesExperts = (method: ExpertMethod): boolean => !method.unused.includes('similarity');

/** What must be known of the layers before a method runs with these settings. */
export function statisticsNeed(method: ExpertMethod, settings: MergeSettings): StatisticsNeed {
  let need = method.needs;
  if (comparesExperts(method)) {
    for (const source of similarityNeeds(settings.similarity)) need = greaterNeed(need, NEED_OF_SOURCE[source]);
  }
  const byUsage = method.kind === 'merge' && ['usage', 'reversed'].includes(settings.weights);
  if (byUsage || settings.routerRows === 'mean' || settings.budget !== 'uniform') need = greaterNeed(need, 'routing');
  return settings.keepSuperExperts ? greaterNeed(need, 'outputs') : need;
}

/** What runs the calibration text through the model again while experts are merged; empty where nothing does. */
export function textUses(method: ExpertMethod, settings: MergeSettings): string[] {
  const merges = method.kind === 'merge';
  return [
    ...(method.needsText ? [`--method ${method.name}`] : []),
    ...(comparesExperts(method) && similarityNeeds(settings.similarity).includes('pairs')
      ? [`--similarity ${settings.similarity}`]
      : []),
    ...(merges && settings.align === 'activations' ? ['--align activations'] : []),
    ...(settings.refit === 'none' ? [] : [`--refit ${settings.refit}`]),
    ...(settings.routerRows === 'fit' ? ['--router-rows fit'] : []),
  ];
}
