import { type CrossEntropyRound, startCrossEntropy } from '../optimization/cross-entropy-method.js';
import type { SamplingLaw } from '../optimization/sampling-law.js';
import { searchSpace } from '../optimization/search-space.js';
import { createRandom } from '../random.js';
import type { SweepCell } from './sweep-cells.js';
import type { CellMeasures, SearchResult } from './sweep-report.js';

/** What a search over layer and strength wants. */
export interface SearchGoal {
  /** Mean action entropy to reach, nats; the highest one when null. */
  readonly targetNats: number | null;
  /** Least mean probability of saying an action at all: below it, what is missing is taken off the score. */
  readonly leastMass: number;
  readonly layers: readonly number[];
  /** Range of strengths of each layer. */
  readonly low: number;
  readonly high: number;
  /** Norm-free strengths are multiplied by this, by layer. */
  readonly unitOf: (layer: number) => number;
  readonly samples: number;
  readonly rounds: number;
  readonly seed: number;
}

const STREAM = 0x73777065;

const meanOf = (values: Float64Array): number => values.reduce((sum, value) => sum + value, 0) / values.length;

function scoreOf({ entropyNats, actionMass }: CellMeasures, goal: SearchGoal): number {
  const entropy = meanOf(entropyNats);
  const missing = Math.max(0, goal.leastMass - meanOf(actionMass));
  return (goal.targetNats === null ? entropy : -Math.abs(entropy - goal.targetNats)) - missing;
}

/** Probabilities of the layers and the strength's moments, over the components of a mixture. */
function describeLaw(law: SamplingLaw): { layers: number[]; mean: number; deviation: number } {
  const components = law.kind === 'mixture' ? law.components : [law];
  const weights = law.kind === 'mixture' ? law.weights : Float64Array.of(1);
  let layers: number[] = [];
  let mean = 0;
  let square = 0;
  components.forEach((component, k) => {
    const factors = component.kind === 'product' ? component.factors : [component];
    for (const factor of factors) {
      if (factor.kind === 'categorical') {
        const [row] = factor.probabilities;
        layers = Array.from(row, (probability, i) => (layers[i] ?? 0) + weights[k] * probability);
      }
      if (factor.kind === 'gaussian') {
        mean += weights[k] * factor.mean[0];
        square += weights[k] * (factor.deviation[0] ** 2 + factor.mean[0] ** 2);
      }
    }
  });
  return { layers, mean, deviation: Math.sqrt(Math.max(0, square - mean * mean)) };
}

/**
 * Searches layer and strength together by the cross-entropy method: a mixture of one law a layer, so that each layer has a
 * strength of its own.
 * @param evaluate measures of cells on the prompts; layers' strengths in units of their stored vectors
 */
export async function searchStrength(
  goal: SearchGoal,
  evaluate: (cells: readonly SweepCell[]) => Promise<readonly CellMeasures[]>,
): Promise<SearchResult> {
  const space = searchSpace(
    [
      { name: 'layer', kind: 'choice', values: goal.layers },
      { name: 'strength', kind: 'continuous', low: goal.low, high: goal.high },
    ],
    goal.layers.length,
  );
  const search = startCrossEntropy({
    law: space.law,
    box: space.box,
    samples: goal.samples,
    eliteShare: 0.2,
    maxRounds: goal.rounds,
    deviationTolerance: 1e-3 * (goal.high - goal.low),
  });
  const random = createRandom(goal.seed).fork(STREAM);
  const rounds: SearchResult['rounds'][number][] = [];
  let best: { cell: SweepCell; measures: CellMeasures; score: number } | undefined;
  while (!search.done) {
    const points = search.ask(random);
    const cells = Array.from({ length: points.length / search.dimension }, (_, i): SweepCell => {
      const { layer, strength } = space.assignment(points.subarray(i * search.dimension, (i + 1) * search.dimension));
      const block = Number(layer);
      const scaled = Number(strength) * goal.unitOf(block);
      return { kind: 'vector', layer: block, control: null, strength: scaled, temperature: 1 };
    });
    const measured = await evaluate(cells);
    const scores = measured.map((measures) => scoreOf(measures, goal));
    scores.forEach((score, i) => {
      if (best === undefined || score > best.score) best = { cell: cells[i], measures: measured[i], score };
    });
    rounds.push(roundRecord(search.tell(scores)));
  }
  if (best === undefined) throw new RangeError('a search without rounds');
  return {
    objective: goal.targetNats === null ? 'highest action entropy' : `action entropy of ${goal.targetNats} nats`,
    layer: best.cell.layer ?? -1,
    strength: best.cell.strength,
    score: best.score,
    action_entropy_nats: meanOf(best.measures.entropyNats),
    action_mass: meanOf(best.measures.actionMass),
    evaluations: search.result().evaluations,
    rounds,
  };
}

function roundRecord(round: CrossEntropyRound): SearchResult['rounds'][number] {
  const { layers, mean, deviation } = describeLaw(round.law);
  return {
    round: round.round,
    threshold: round.threshold,
    best_score: round.best,
    strength_mean: mean,
    strength_deviation: deviation,
    layer_probabilities: layers,
  };
}
