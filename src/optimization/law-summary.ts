import { dimensionOf, type SamplingLaw } from './sampling-law.js';

/** Where a law stands in one coordinate. */
export interface CoordinateSummary {
  /** Mean; of a choice the index of the most probable value, of a bit the probability of 1. */
  readonly centre: number;
  /** Deviation; of a choice 1 less the largest probability, of a bit the smaller of both probabilities. */
  readonly spread: number;
}

/** Every coordinate of a law; a mixture is described by its heaviest component. */
export function lawSummary(law: SamplingLaw): CoordinateSummary[] {
  switch (law.kind) {
    case 'gaussian':
      return Array.from(law.mean, (centre, i) => ({ centre, spread: law.deviation[i] }));
    case 'exponential':
      return Array.from(law.mean, (centre) => ({ centre, spread: centre }));
    case 'uniform':
      return Array.from(law.low, (low, i) => ({
        centre: (low + law.high[i]) / 2,
        spread: (law.high[i] - low) / Math.sqrt(12),
      }));
    case 'bernoulli':
      return Array.from(law.probability, (p) => ({ centre: p, spread: Math.min(p, 1 - p) }));
    case 'categorical':
      return law.probabilities.map((row) => {
        const top = Math.max(...row);
        return { centre: row.indexOf(top), spread: 1 - top };
      });
    case 'product':
      return law.factors.flatMap(lawSummary);
    case 'mixture': {
      const heaviest = law.weights.indexOf(Math.max(...law.weights));
      const own = lawSummary(law.components[heaviest]);
      return own.slice(0, dimensionOf(law));
    }
  }
}
