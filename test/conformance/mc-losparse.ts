import { lowRankFactors, lowRankProduct, sparseResidual } from '../../src/linalg/low-rank.js';
import { rowMeanMagnitudes, spectrumFigures } from '../../src/moe/losparse.js';
import {
  createLoSparsePruner,
  type PrunedMatrix,
  type PrunerOptions,
  survivors,
} from '../../src/training/losparse-pruner.js';
import type { Json } from './harness.js';
import { float64, number, shapeOf, tensor } from './tensors.js';

type Inputs = { [key: string]: Json };

function object(value: Json, name: string): Inputs {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw new TypeError(`${name} is no object`);
  return value;
}

function runLowRank(inputs: Inputs): unknown {
  const weight = float64(inputs.weight, 'weight');
  const [rows, columns] = shapeOf(inputs.weight, 'weight');
  const wanted = number(inputs.low_rank_factor, 'low_rank_factor');
  const { rank, left, right, svd } = lowRankFactors(weight, rows, columns, wanted, { path: 'exact' });
  const sizes = { rows, columns, rank };
  const residual = sparseResidual(weight, left, right, sizes);
  const values = svd.spectrum ?? svd.values;
  const figures = spectrumFigures(values);
  return {
    reduced_rank: rank,
    low_rank_product: tensor([rows, columns], lowRankProduct(left, right, sizes)),
    residual: tensor([rows, columns], residual),
    singular_values: tensor([values.length], values),
    stable_rank: figures.stableRank,
    effective_rank_energy_entropy: figures.effectiveRank,
    relative_residual_fro: svd.residual / svd.norm,
    residual_row_mean_abs: tensor([rows], rowMeanMagnitudes(residual, rows, columns)),
  };
}

const STRUCTURES = { row: 'row', col: 'column' } as const;

/** Stands for a threshold where nothing was masked. */
const ABSENT = -1;

function runPruner(inputs: Inputs): unknown {
  const params = object(inputs.params, 'params');
  const matrices: PrunedMatrix[] = Object.entries(params).map(([name, value]) => {
    const [rows, columns] = shapeOf(value, name);
    return { name, rows, columns, values: float64(value, name) };
  });
  const config = object(inputs.config, 'config');
  const of = (key: string): number => number(config[key], key);
  const direction = inputs.structured_direction === 'col' ? 'col' : 'row';
  const options: PrunerOptions = {
    totalSteps: number(inputs.total_steps, 'total_steps'),
    warmupSteps: of('warmup_steps'),
    initialShare: of('initial_threshold'),
    finalShare: of('final_threshold'),
    initialWarmup: of('initial_warmup'),
    finalWarmup: of('final_warmup'),
    interval: of('deltaT'),
    beta1: of('beta1'),
    beta2: of('beta2'),
    structure: STRUCTURES[direction],
    reduction: inputs.structured_method as PrunerOptions['reduction'],
  };
  const pruner = createLoSparsePruner(matrices, options);
  const steps = (Array.isArray(inputs.gradients_per_step) ? inputs.gradients_per_step : []).map((entry) => {
    const gradients = object(entry, 'gradients');
    const { share, threshold } = pruner.step(matrices.map(({ name }) => float64(gradients[name], name)));
    const alive = Object.fromEntries(
      matrices.map((matrix) => [matrix.name, survivors(matrix, options.structure === 'column' ? 'column' : 'row')]),
    );
    return { share, threshold: threshold ?? ABSENT, alive };
  });
  return {
    remaining_ratio_per_step: steps.map(({ share }) => share),
    mask_threshold_per_step: steps.map(({ threshold }) => threshold),
    mask_threshold_absent_value: ABSENT,
    [`surviving_${direction}s_per_step`]: steps.map(({ alive }) => alive),
    final_params: Object.fromEntries(
      matrices.map(({ name, rows, columns, values }) => [name, tensor([rows, columns], values)]),
    ),
  };
}

export function run(inputs: Inputs): unknown {
  return inputs.weight === undefined ? runPruner(inputs) : runLowRank(inputs);
}
