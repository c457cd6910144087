import type { Cell } from '../report/csv.js';
import type { Allocation } from './allocation.js';
import type { KoopmanArguments, KoopmanResult } from './koopman-job.js';
import { NEAR_UNIT, nearUnitCount } from './modes.js';

export const KOOPMAN_SCHEMA = 'koopman';

/** Columns of `--out`: one row a mode. Eigenvalues and gains are each in their own falling order. */
export const MODE_COLUMNS = [
  'mode',
  'eigenvalue_real',
  'eigenvalue_imaginary',
  'eigenvalue_modulus',
  'eigenvalue_argument_rad',
  'gain',
  'water_filling_power',
  'entropy_regularised_power',
  'latent_spectrum_share',
] as const;

/** Columns of `--table` with `--fit`: one row a logged step of the optimiser. */
export const STEP_COLUMNS = [
  'step',
  'objective',
  'reconstruction_mse',
  'prediction_mse',
  'coherence_nats',
  'consistency',
  'von_neumann_entropy_nats',
  'effective_dimension',
] as const;

/** Columns of `--table` without `--fit`: one row a lag. */
export const LAG_COLUMNS = ['lag_steps', 'latent_mi_nats', 'fast_dissipating_mi_nats'] as const;

function allocationBody(allocation: Allocation, level: string): object {
  return {
    power: allocation.power,
    [level]: allocation.level,
    information_nats: allocation.informationNats,
    effective_dimension: allocation.effectiveDimension,
  };
}

export interface KoopmanBody {
  readonly [key: string]: unknown;
}

/** The report of a run. */
export function koopmanBody(result: KoopmanResult, args: Pick<KoopmanArguments, 'settings' | 'fit'>): KoopmanBody {
  const { terms, gaussian, modes } = result;
  const { variant, similarity, denominator } = args.settings;
  return {
    variant,
    sequences: result.sequences,
    steps: result.steps,
    observed_width: result.observedWidth,
    latent_width: result.width,
    coherence: {
      definition:
        variant === 'paper'
          ? `mean log share of the neighbours (${similarity ?? 'cosine'}, denominator over the ${denominator ?? 'sequence'}); maximised`
          : `contrastive loss of the released code (${similarity ?? 'cosine'}); minimised`,
      nats: terms.coherenceNats,
      anchors: terms.anchors,
    },
    consistency: terms.consistency,
    von_neumann_entropy_nats: terms.entropyNats,
    effective_dimension: terms.effectiveDimension,
    lagrangian: terms.lagrangian,
    spectral_radius: modes[0].modulus,
    operator_norm: result.operatorNorm,
    near_unit_modes: nearUnitCount(modes),
    near_unit_tolerance: NEAR_UNIT,
    gaussian: {
      source: result.systemGiven ? 'given' : 'fitted',
      noise_ridge: result.noiseRidge,
      by_lag: gaussian.lags.map(({ lag, latentNats, fastDissipatingNats }) => ({
        lag_steps: lag,
        latent_mi_nats: latentNats,
        fast_dissipating_mi_nats: fastDissipatingNats ?? null,
      })),
      observation_noise_entropy_nats: gaussian.observationNoiseNats ?? null,
      gain_lag_steps: gaussian.lags[0].lag,
      gains: gaussian.gains,
      budget: gaussian.budget,
      water_filling: allocationBody(gaussian.waterFilling, 'level'),
      entropy_regularised: allocationBody(gaussian.regularised, 'multiplier'),
    },
    rollout: result.rollout.map(({ horizon, nrmse, rmse, predictions }) => ({
      horizon_steps: horizon,
      nrmse,
      rmse,
      predictions,
    })),
    rollout_definition: 'nrmse is |x_hat - x| / |x| over all predictions of a horizon together',
    modes: modes.map(({ real, imaginary, modulus, argument }) => ({
      real,
      imaginary,
      modulus,
      argument_rad: argument,
    })),
    latent_spectrum: result.spectrum,
    koopman_matrix_row_convention: terms.koopman,
    fit_steps: args.fit?.steps ?? null,
    network_weights: result.networks?.weights ?? null,
    warnings: result.warnings,
  };
}

/** Rows of `--out`. */
export function* modeRows(result: KoopmanResult): Generator<readonly Cell[]> {
  const { gaussian, modes, spectrum } = result;
  for (const [i, mode] of modes.entries()) {
    yield [
      i,
      mode.real,
      mode.imaginary,
      mode.modulus,
      mode.argument,
      gaussian.gains[i],
      gaussian.waterFilling.power[i],
      gaussian.regularised.power[i],
      spectrum[i] ?? 0,
    ];
  }
}

/** Rows of `--table`. */
export function* koopmanTableRows(result: KoopmanResult): Generator<readonly Cell[]> {
  if (result.fitSteps.length > 0) {
    for (const step of result.fitSteps) {
      yield [
        step.step,
        step.objective,
        step.reconstruction,
        step.prediction,
        step.coherenceNats,
        step.consistency,
        step.entropyNats,
        step.effectiveDimension,
      ];
    }
    return;
  }
  for (const { lag, latentNats, fastDissipatingNats } of result.gaussian.lags) {
    yield [lag, latentNats, fastDissipatingNats];
  }
}
