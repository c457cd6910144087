import { InputError } from '../../../errors.js';
import { fitExactly } from '../fit-weights.js';
import { globalAggregator, globalWeights } from '../global-aggregator.js';
import type { FitProblem, FittedMethod, Method } from '../methods.js';
import { CODE_TRAINING } from '../training.js';
import { aggregate, type WeightForm } from '../weight-forms.js';
import { searchWeights } from '../weight-search.js';

function exact(problem: FitProblem, form: WeightForm): FittedMethod {
  const { forecasts, outcomes, levels, rows, settings, progress } = problem;
  const solver = settings.solver === 'eg' ? 'eg' : 'lp';
  if (solver === 'eg' && !settings.normalised) {
    throw new InputError('--solver eg works on the simplex; free weights need --solver lp or adam');
  }
  const fit = fitExactly(
    forecasts,
    outcomes,
    levels,
    form,
    rows,
    solver,
    { tolerance: settings.tolerance, seed: settings.seed, threads: settings.threads },
    settings.normalised,
    progress,
  );
  const { weights, objective, bound, rounds, cells, incomplete } = fit;
  return {
    facts: { objective, bound, rounds, cells, incomplete },
    weights: { form, values: weights },
    predict: (chosen) => aggregate(forecasts, form, weights, chosen),
  };
}

function trained(problem: FitProblem, form: WeightForm): FittedMethod {
  const { forecasts, outcomes, levels, rows, settings, progress } = problem;
  const found = searchWeights(
    forecasts,
    outcomes,
    levels,
    rows,
    () => globalAggregator(forecasts, form, settings.normalised, settings.threads),
    {
      margins: settings.margins,
      smoothing: settings.smoothing,
      trials: settings.trials,
      validationShare: settings.validationShare,
      training: { ...CODE_TRAINING, mostSteps: settings.mostSteps },
      ...(settings.crossing !== undefined && { crossing: settings.crossing }),
      seed: settings.seed,
    },
    progress,
  );
  const values = globalWeights(form, forecasts.models, forecasts.levels, found.parameters, settings.normalised);
  return {
    facts: {
      objective: found.objective,
      trials: found.trials,
      chosen: found.chosen,
      parameters: found.aggregator.parameterCount,
    },
    weights: { form, values },
    predict: (chosen) => aggregate(forecasts, form, values, chosen),
  };
}

const method = (form: WeightForm, summary: string): Method => ({
  name: form,
  summary,
  fit: (problem) => (problem.settings.solver === 'adam' ? trained(problem, form) : exact(problem, form)),
});

export const COARSE = method('coarse', 'one weight a model');
export const MEDIUM = method('medium', 'one weight a model and level');
export const FINE = method('fine', 'for each level one weight a model and input level');
