import type { Random } from '../../random.js';
import { type Expression, formulaText, OPERATOR_CLASSES } from './expression.js';
import { parseFormula } from './parse-formula.js';
import { isGrammatical, randomFormula, type SearchSpace } from './search-space.js';
import type { Plain, Searcher } from './searcher.js';

/** Population, size of a tournament, and how offspring arises (the rest is copied with a point changed). */
export interface GeneticSettings {
  readonly population: number;
  readonly tournament: number;
  readonly crossover: number;
  readonly subtreeMutation: number;
  readonly hoist: number;
}

export const GENETIC_DEFAULTS: GeneticSettings = {
  population: 100,
  tournament: 7,
  crossover: 0.6,
  subtreeMutation: 0.2,
  hoist: 0.05,
};

const ATTEMPTS = 20;

interface Individual {
  readonly expression: Expression;
  readonly fitness: number;
}

/** The sub-expressions of a formula, itself first. */
function partsOf(expression: Expression, parts: Expression[] = []): Expression[] {
  parts.push(expression);
  if (expression.kind === 'call') for (const operand of expression.operands) partsOf(operand, parts);
  return parts;
}

/** The formula with its part number `index` (as `partsOf` counts) changed. */
function changePart(expression: Expression, index: number, change: (part: Expression) => Expression): Expression {
  let count = -1;
  const walk = (one: Expression): Expression => {
    count++;
    if (count === index) {
      count += partsOf(one).length - 1;
      return change(one);
    }
    return one.kind === 'call' ? { ...one, operands: one.operands.map(walk) } : one;
  };
  return walk(expression);
}

/** Another token of the same kind in the place of the root of a part. */
function changePoint(part: Expression, random: Random, space: SearchSpace): Expression {
  const pick = <T>(list: readonly T[]): T => list[random.integer(list.length)];
  if (part.kind === 'feature') return { kind: 'feature', name: pick(space.features) };
  if (part.kind === 'constant') return { kind: 'constant', value: pick(space.constants) };
  if (part.window !== undefined && random.uniform() < 0.5) return { ...part, window: pick(space.windows) };
  const kind = OPERATOR_CLASSES[part.operator];
  return { ...part, operator: pick(space.operators.filter((name) => OPERATOR_CLASSES[name] === kind)) };
}

/**
 * Genetic programming over the same grammar: tournaments on the single |IC|, crossover of sub-formulas, mutation, hoisting.
 * Offspring that the grammar or the length refuses is drawn again. Every individual is offered to the pool, as those of the
 * other searchers are.
 */
export function createGeneticSearch(space: SearchSpace, settings: GeneticSettings = GENETIC_DEFAULTS): Searcher {
  let population: Individual[] = [];
  const offspring = (random: Random): Expression => {
    const tournament = (): Expression => {
      let winner = population[random.integer(population.length)];
      for (let i = 1; i < settings.tournament; i++) {
        const other = population[random.integer(population.length)];
        if (other.fitness > winner.fitness) winner = other;
      }
      return winner.expression;
    };
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const parent = tournament();
      const place = random.integer(partsOf(parent).length);
      const draw = random.uniform();
      let child: Expression;
      if (draw < settings.crossover) {
        const donor = partsOf(tournament());
        const part = donor[random.integer(donor.length)];
        child = changePart(parent, place, () => part);
      } else if (draw < settings.crossover + settings.subtreeMutation) {
        child = changePart(parent, place, () => randomFormula(random, space, Math.ceil(space.maxTokens / 2)));
      } else if (draw < settings.crossover + settings.subtreeMutation + settings.hoist) {
        child = partsOf(parent)[place];
      } else child = changePart(parent, place, (part) => changePoint(part, random, space));
      if (isGrammatical(child, space)) return child;
    }
    return randomFormula(random, space);
  };
  return {
    round(number, random, scorer) {
      const next: Individual[] = [];
      const elite = population.reduce<Individual | undefined>(
        (best, one) => (best === undefined || one.fitness > best.fitness ? one : best),
        undefined,
      );
      if (elite !== undefined) next.push(elite);
      while (next.length < settings.population && !scorer.done) {
        const expression = number === 0 ? randomFormula(random, space) : offspring(random);
        next.push({ expression, fitness: Math.abs(scorer.offer(expression).ic) });
        scorer.mark(null);
      }
      population = next;
    },
    state: () => population.map(({ expression, fitness }) => [formulaText(expression), fitness]),
    restore(state: Plain) {
      population = (state as readonly (readonly [string, number])[]).map(([text, fitness]) => ({
        expression: parseFormula(text),
        fitness,
      }));
    },
  };
}
