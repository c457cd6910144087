import { InputError } from '../../errors.js';
import { type CertifiedSettings, type CertifiedWeights, certifiedWeights } from './certified-weights.js';
import { exponentiatedGradient } from './exponentiated-gradient.js';
import { freeWeights } from './free-weights.js';
import { type Forecasts, type WeightForm, weightShape } from './weight-forms.js';
import { weightPrograms } from './weight-program.js';

/** How the exact problem of global weights is solved. */
export type ExactSolver = 'lp' | 'eg';

/** Optimal weights with their certificate. Losses are means over the levels. */
export interface ExactFit {
  readonly weights: Float64Array;
  readonly objective: number;
  /** No weights of this form have a smaller loss on the same rows. */
  readonly bound: number;
  readonly rounds: number;
  /** Pairs of row and level that were fitted, and those left out because an input is missing. */
  readonly cells: number;
  readonly incomplete: number;
}

/**
 * Weights of a form that minimise the mean pinball loss on `rows`, with a lower bound of the optimum.
 * @param normalised weights on the simplex; else free ones (ordinary quantile regression without intercept)
 * @throws InputError when no row is complete
 */
export function fitExactly(
  forecasts: Forecasts,
  outcomes: ArrayLike<number>,
  levels: Float64Array,
  form: WeightForm,
  rows: ArrayLike<number>,
  solver: ExactSolver,
  settings: CertifiedSettings,
  normalised: boolean,
  progress: (done: number, of: number) => void = () => undefined,
): ExactFit {
  const [inputs, columns] = weightShape(form, forecasts.models, forecasts.levels);
  const weights = new Float64Array(inputs * columns);
  let [objective, bound, rounds, cells, incomplete] = [0, 0, 0, 0, 0];
  let start: number[] = [];
  let column = 0;
  for (const program of weightPrograms(forecasts, outcomes, levels, form, rows)) {
    if (program.offsets.length === 0) {
      throw new InputError(
        `${form} weights: no row of the fit has an outcome and all forecasts; --solver adam takes rows with missing cells`,
      );
    }
    const own = form === 'fine' ? [...start, ...sameLevel(forecasts, column)] : start;
    const found: CertifiedWeights = !normalised
      ? freeWeights(program, settings)
      : solver === 'lp'
        ? certifiedWeights(program, settings, own)
        : exponentiatedGradient(program, settings);
    for (let r = 0; r < inputs; r++) weights[r * columns + column] = found.weights[r];
    start = Array.from({ length: inputs }, (_, r) => r).filter((r) => found.weights[r] > 1e-3);
    objective += found.objective / columns;
    bound += found.bound / columns;
    rounds += found.rounds;
    cells += found.rows;
    incomplete += found.incomplete;
    progress(++column, columns);
  }
  return { weights, objective, bound, rounds, cells, incomplete };
}

/** Inputs of the fine form at the output's own level. */
const sameLevel = ({ models, levels }: Forecasts, level: number): number[] =>
  Array.from({ length: models }, (_, k) => k * levels + level);
