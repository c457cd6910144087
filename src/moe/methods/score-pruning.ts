import { InputError } from '../../errors.js';
import { pruneByScore } from '../pruning.js';
import { type ExpertScores, expertScores, superExperts } from '../reap.js';
import type { LayerStatistics } from '../types.js';
import type { ExpertMethod, GroupingRequest, MethodGrouping, MethodLayer } from './method.js';

/** Statistics of a layer. The pipeline has seen to it that methods have what they need. */
export function statisticsOf({ statistics, layer }: MethodLayer): LayerStatistics {
  if (statistics) return statistics;
  throw new RangeError(`layer ${layer} has no statistics`);
}

/** Drops the experts with the lowest scores; the fewest that the router can choose among stay. */
export function pruneLowest(
  request: GroupingRequest,
  scoresOf: (layer: LayerStatistics) => Float64Array,
): MethodGrouping {
  const { layers, merged, settings } = request;
  if (settings.budget === 'reference') {
    throw new InputError(`--budget reference counts groups around experts; ${settings.method} takes uniform or exact`);
  }
  const statistics = layers.map(statisticsOf);
  const protectedExperts = settings.keepSuperExperts ? superExperts(statistics) : [];
  const groupings = pruneByScore(
    layers.map(({ layer }) => layer),
    statistics.map(scoresOf),
    {
      keep: settings.experts,
      budget: settings.budget,
      pruned: merged,
      least: Math.max(...layers.map(({ rule }) => settings.topK ?? rule.topK)),
      protectedExperts,
    },
  );
  const warnings = protectedExperts.flatMap((experts, l) =>
    merged[l] && experts.length > 0
      ? [`layer ${layers[l].layer}: experts ${[...experts].join(', ')} give outputs far above all others and are kept`]
      : [],
  );
  return { groupings, warnings };
}

type Score = Pick<ExpertMethod, 'name' | 'summary' | 'reference'> & {
  readonly score: keyof ExpertScores;
};

/** A method that keeps the experts with the largest score. */
export function scorePruning({ name, summary, reference, score }: Score): ExpertMethod {
  const routed = score !== 'frequency';
  return {
    name,
    summary,
    reference,
    kind: 'prune',
    needs: routed ? 'outputs' : 'routing',
    defaults: {},
    ...(routed && { variants: { paper: { gateWeights: 'plain' }, code: { gateWeights: 'renormalized' } } }),
    unused: [...MERGING, ...(routed ? [] : (['gateWeights', 'keepSuperExperts'] as const))],
    group: (request) =>
      pruneLowest(request, (layer) =>
        routed
          ? expertScores(layer, { renormalize: request.settings.gateWeights === 'renormalized' })[score]
          : layer.routing.counts,
      ),
  };
}

/** Settings of merges, which no pruning reads. */
export const MERGING = [
  'similarity',
  'capacity',
  'linkage',
  'align',
  'assignment',
  'alignDown',
  'balance',
  'weights',
  'combine',
  'referenceEpsilon',
  'rank',
] as const satisfies ExpertMethod['unused'];
