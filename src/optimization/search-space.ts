import { InputError } from '../errors.js';
import type { Box } from './cross-entropy-method.js';
import {
  bernoulliLaw,
  categoricalLaw,
  exponentialLaw,
  gaussianLaw,
  mixtureLaw,
  productLaw,
  type SamplingLaw,
  uniformLaw,
} from './sampling-law.js';

/** One variable of a search, continuous or discrete. */
export type SearchVariable =
  | {
      readonly name: string;
      readonly kind: 'continuous';
      readonly low: number;
      readonly high: number;
      /** Searched in the logarithm; bounds must be positive. */
      readonly scale?: 'linear' | 'log';
      /** First mean, in the variable's own units (default the centre of the searched range). */
      readonly mean?: number;
      /** First deviation, on the searched scale (default a third of the range). */
      readonly deviation?: number;
    }
  | { readonly name: string; readonly kind: 'choice'; readonly values: readonly (number | string)[] }
  | { readonly name: string; readonly kind: 'flag' }
  /** Exponential with this mean: for probabilities of rare events. */
  | { readonly name: string; readonly kind: 'exponential'; readonly mean: number };

export type SearchAssignment = Readonly<Record<string, number | string | boolean>>;

/** A space of named variables as the optimiser sees it. */
export interface SearchSpace {
  /** What a search begins with. */
  readonly law: SamplingLaw;
  readonly box: Box;
  /**
   * What a probability is meant under: uniform on ranges (of the logarithm, for a logarithmic one), on choices and on
   * flags, and the exponentials as they are.
   */
  readonly nominal: SamplingLaw;
  /** What a point [d] stands for. */
  assignment(point: Float64Array): SearchAssignment;
}

/**
 * The law, box and meaning of a space of variables, one coordinate each in the order given: normal for continuous ones,
 * categorical for choices, Bernoulli for flags, exponential.
 * @param components more than one: a mixture of so many such laws, so that the best value of one variable may depend on
 *   another (the strength on the layer); each component begins with a preference for its share of every choice
 * @throws InputError for an empty space, a range without width, a choice without values
 */
export function searchSpace(variables: readonly SearchVariable[], components = 1): SearchSpace {
  if (variables.length === 0) throw new InputError('a search needs at least one variable');
  const names = new Set<string>();
  for (const variable of variables) {
    if (names.has(variable.name)) throw new InputError(`variable ${variable.name} is named twice`);
    names.add(variable.name);
    checkVariable(variable);
  }
  const one = (k: number): SamplingLaw => productLaw(variables.map((variable) => variableLaw(variable, k, components)));
  const laws = Array.from({ length: components }, (_, k) => one(k));
  return {
    law: components === 1 ? laws[0] : mixtureLaw(new Float64Array(components).fill(1), laws),
    box: {
      low: Float64Array.from(variables, (variable) =>
        variable.kind === 'continuous' ? searched(variable, variable.low) : Number.NEGATIVE_INFINITY,
      ),
      high: Float64Array.from(variables, (variable) =>
        variable.kind === 'continuous' ? searched(variable, variable.high) : Number.POSITIVE_INFINITY,
      ),
    },
    nominal: productLaw(variables.map(nominalPart)),
    assignment: (point) =>
      Object.fromEntries(variables.map((variable, i) => [variable.name, meaning(variable, point[i])])),
  };
}

type Continuous = Extract<SearchVariable, { kind: 'continuous' }>;

const searched = ({ scale }: Continuous, value: number): number => (scale === 'log' ? Math.log(value) : value);

function checkVariable(variable: SearchVariable): void {
  if (variable.kind === 'choice' && variable.values.length === 0) {
    throw new InputError(`variable ${variable.name} has no values to choose from`);
  }
  if (variable.kind === 'exponential' && !(variable.mean > 0 && Number.isFinite(variable.mean))) {
    throw new InputError(`variable ${variable.name}: the mean ${variable.mean} of an exponential must be positive`);
  }
  if (variable.kind !== 'continuous') return;
  const { name, low, high, scale } = variable;
  if (!(low < high && Number.isFinite(low) && Number.isFinite(high))) {
    throw new InputError(`variable ${name}: the range ${low} to ${high} has no width`);
  }
  if (scale === 'log' && low <= 0) throw new InputError(`variable ${name}: a logarithmic range must be positive`);
}

function nominalPart(variable: SearchVariable): SamplingLaw {
  switch (variable.kind) {
    case 'continuous':
      return uniformLaw([searched(variable, variable.low)], [searched(variable, variable.high)]);
    case 'choice':
      return categoricalLaw([new Float64Array(variable.values.length).fill(1)]);
    case 'flag':
      return bernoulliLaw([0.5]);
    case 'exponential':
      return exponentialLaw([variable.mean]);
  }
}

function variableLaw(variable: SearchVariable, component: number, components: number): SamplingLaw {
  if (variable.kind === 'flag') return bernoulliLaw([0.5]);
  if (variable.kind === 'exponential') return exponentialLaw([variable.mean]);
  if (variable.kind === 'choice') {
    // A component prefers its share of the values, so that components are not copies that move alike.
    const weights = variable.values.map((_, i) =>
      Math.floor((i * components) / variable.values.length) === component ? components : 1,
    );
    return categoricalLaw([weights]);
  }
  const [low, high] = [searched(variable, variable.low), searched(variable, variable.high)];
  const mean = variable.mean === undefined ? (low + high) / 2 : searched(variable, variable.mean);
  return gaussianLaw([mean], [variable.deviation ?? (high - low) / 3]);
}

function meaning(variable: SearchVariable, value: number): number | string | boolean {
  if (variable.kind === 'flag') return value === 1;
  if (variable.kind === 'choice') return variable.values[value];
  if (variable.kind === 'exponential') return value;
  return variable.scale === 'log' ? Math.exp(value) : value;
}
