import { InputError } from '../../../errors.js';
import { localAggregator } from '../local-aggregator.js';
import type { FitProblem, FittedMethod, Method } from '../methods.js';
import { CODE_TRAINING } from '../training.js';
import { type WeightForm, weightShape } from '../weight-forms.js';
import { searchWeights } from '../weight-search.js';

/** Rows that go through the network at once. */
const BATCH = 512;

function trainLocal(problem: FitProblem, form: WeightForm): FittedMethod {
  const { forecasts, outcomes, levels, rows, features, settings, progress } = problem;
  if (features === undefined) {
    throw new InputError(`local-${form}: needs features of the rows; name their columns with --features`);
  }
  const m = forecasts.levels;
  const found = searchWeights(
    forecasts,
    outcomes,
    levels,
    rows,
    (trial) => localAggregator(forecasts, features, form, trial, settings.normalised, settings.threads),
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
  const { aggregator, parameters } = found;
  return {
    facts: {
      objective: found.objective,
      trials: found.trials,
      chosen: found.chosen,
      parameters: aggregator.parameterCount,
    },
    predict(chosen) {
      const result = new Float64Array(chosen.length * m);
      for (let start = 0; start < chosen.length; start += BATCH) {
        result.set(aggregator.forward(parameters, chosen.subarray(start, start + BATCH)), start * m);
      }
      return result;
    },
    meanWeights(chosen) {
      const [inputs, columns] = weightShape(form, forecasts.models, m);
      const sum = new Float64Array(inputs * columns);
      for (let start = 0; start < chosen.length; start += BATCH) {
        const batch = chosen.subarray(start, start + BATCH);
        aggregator.forward(parameters, batch);
        aggregator.addWeights?.(sum);
      }
      return { form, values: sum.map((value) => value / chosen.length) };
    },
  };
}

const method = (form: WeightForm): Method => ({
  name: `local-${form}`,
  summary: `the ${form} weights as a function of the features, by a perceptron`,
  needsFeatures: true,
  fit: (problem) => trainLocal(problem, form),
});

export const LOCAL_COARSE = method('coarse');
export const LOCAL_MEDIUM = method('medium');
export const LOCAL_FINE = method('fine');
