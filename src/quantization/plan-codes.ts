import { InputError } from '../errors.js';
import type { PyramidCode } from '../kernels/pyramid.js';
import { planRotation, type Rotation, tensorSeed } from '../linalg/hadamard.js';
import type { ModelFiles } from '../models/model-files.js';
import { createWeightReader, type WeightReader } from '../models/weights.js';
import { type Allocation, type AllocationItem, allocate, type CodeChoice } from './allocation.js';
import {
  bestSuperGroup,
  type ChoiceLimits,
  codeChoices,
  DEFAULT_LIMITS,
  expectedError,
  payloadBytes,
} from './code-choices.js';
import type { Hessians } from './hessian-file.js';
import { type PvqLayout, planPvqLayout, type QuantisedTensor } from './pvq-layout.js';
import { energyOf, measureSensitivity, type Sensitivity } from './sensitivity.js';
import type { QuantizeSettings } from './settings.js';
import { readTensorRows, type SelectedTensor } from './tensor-selection.js';

/** Which code each tensor gets, and where it will lie. */
export interface CodePlan {
  readonly layout: PvqLayout;
  readonly rotations: ReadonlyMap<string, Rotation | undefined>;
  readonly codes: ReadonlyMap<string, PyramidCode>;
  /** Bits of the files per quantised weight, metadata counted. */
  readonly bitsPerWeight: number;
  readonly bytes: number;
  /** Mean over weights of the relative error that is expected of white rows. */
  readonly expectedError: number;
  /** Of allocation `kl`: expected mean KL to the original, nats, per unit of relative squared error; empty otherwise. */
  readonly sensitivities: ReadonlyMap<string, number>;
}

export interface CodePlanRequest {
  readonly files: ModelFiles;
  readonly selected: readonly SelectedTensor[];
  readonly settings: QuantizeSettings;
  readonly hessians?: Hessians;
  /** For allocation `kl`: nats per unit of relative squared error, by tensor (`DivergenceSensitivity`). */
  readonly divergence?: Readonly<Record<string, number>>;
  readonly threads?: number;
  /** Called with each tensor as it is measured. */
  readonly progress?: (name: string) => void;
}

/**
 * Power of the measured sensitivities that bits follow. Below one, because what a sensitive tensor loses is known less well
 * than its order: layers and roles are taken as independent, and predictions saturate under large errors. Of 0.5, 0.75 and
 * 1, tried at 2.25, 3 and 4 bits on three models, this one gave the lowest geometric mean of KL (docs/quantize-pvq.md).
 * A factor for the part of white errors that feedback leaves, by the tensor's own Hessian, made eight of nine worse.
 */
const SENSITIVITY_EXPONENT = 0.75;

/** Digits of the longest numbers that stand for a code in the metadata: with them its size is an upper bound. */
const WIDEST: PyramidCode = { groupLength: 999, pulses: 9999, gainBits: 6, superGroup: 4 };

/** The rotation of a tensor's rows; undefined where rows stay as they are (odd widths too). */
export function rotationOf(item: SelectedTensor, settings: QuantizeSettings): Rotation | undefined {
  if (settings.rotation === 'none') return undefined;
  const rotation = planRotation(item.columns, tensorSeed(BigInt(settings.seed), item.name));
  return rotation.kind === 'none' ? undefined : rotation;
}

/**
 * Chooses the codes: one for all, or by allocation under the rate. Reads tensors only where the allocation weighs
 * them by what is measured.
 * @throws InputError when the rate cannot be reached, naming the range
 */
export function planCodes(request: CodePlanRequest): CodePlan {
  const { files, selected, settings } = request;
  const rotations = new Map(selected.map((item) => [item.name, rotationOf(item, settings)]));
  const quantised = selected.map(
    (item): QuantisedTensor => ({
      name: item.name,
      transposed: item.transposed,
      gainPolicy: settings.gain,
      levelPolicy: settings.levels,
      rotation: rotations.get(item.name),
    }),
  );
  const layout = planPvqLayout(files.store, files.format, quantised, BigInt(settings.seed));
  const { rate } = settings;
  const sensitivities = divergenceSensitivities(request);
  const codes =
    rate.kind === 'code' ? sameCode(selected, settings) : allocated(request, layout, rate.bitsPerWeight, sensitivities);
  const weights = selected.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
  const bitsPerWeight = layout.bitsPerWeight(new Map(selected.map(({ name }, i) => [name, codes[i].code])));
  return {
    layout,
    rotations,
    codes: new Map(selected.map(({ name }, i) => [name, codes[i].code])),
    bitsPerWeight,
    bytes: Math.round((bitsPerWeight * weights) / 8),
    expectedError:
      codes.reduce((sum, { relativeError }, i) => sum + relativeError * selected[i].rows * selected[i].columns, 0) /
      weights,
    sensitivities,
  };
}

/** Limits of the choice for rows of `columns` weights: group lengths that the rows hold. */
function limitsFor(columns: number, settings: QuantizeSettings): ChoiceLimits {
  const fitting = settings.groupLengths.filter((length) => length <= columns);
  const groupLengths = fitting.length > 0 ? fitting : [columns];
  // Groups that fill the rows waste no pulses on padding; where none does, the shortest loses least.
  const whole = groupLengths.filter((length) => columns % length === 0);
  return {
    ...DEFAULT_LIMITS,
    groupLengths: whole.length > 0 ? whole : [Math.min(...groupLengths)],
    ...(settings.superGroup !== 'auto' && {
      superGroups: [settings.superGroup],
      maxWordBits: Number.POSITIVE_INFINITY,
    }),
    ...(settings.cap && {
      maxPulses: Math.min(settings.cap.positive, settings.cap.negative) * Math.min(...groupLengths),
    }),
  };
}

function sameCode(selected: readonly SelectedTensor[], settings: QuantizeSettings): CodeChoice[] {
  const { rate } = settings;
  if (rate.kind !== 'code') throw new RangeError('no code is given');
  return selected.map(({ name, rows, columns }) => {
    if (rate.groupLength > columns) {
      throw new InputError(
        `tensor "${name}": groups of ${rate.groupLength} weights are longer than its rows of ${columns}; lower --group-length`,
      );
    }
    const groups = Math.ceil(columns / rate.groupLength);
    const limits = limitsFor(columns, { ...settings, groupLengths: [rate.groupLength] });
    const superGroup = bestSuperGroup(rate.groupLength, rate.pulses, groups, limits);
    const code = { groupLength: rate.groupLength, pulses: rate.pulses, gainBits: rate.gainBits, superGroup };
    return {
      code,
      bytes: payloadBytes(rows, columns, code),
      relativeError: expectedError(code, columns, settings.levels),
    };
  });
}

function allocated(
  request: CodePlanRequest,
  layout: PvqLayout,
  bitsPerWeight: number,
  divergences: ReadonlyMap<string, number>,
): readonly CodeChoice[] {
  const { selected, settings } = request;
  const byShape = new Map<string, CodeChoice[]>();
  const byPredictions = divergences.size > 0;
  const choicesOf = ({ rows, columns }: SelectedTensor): CodeChoice[] => {
    const key = `${rows},${columns}`;
    let choices = byShape.get(key);
    if (!choices) {
      choices = codeChoices(rows, columns, settings.levels, limitsFor(columns, settings));
      if (byPredictions)
        choices = choices.map((choice) => ({ ...choice, relativeError: toNoise(choice.relativeError) }));
      byShape.set(key, choices);
    }
    return choices;
  };
  const sensitivities = byPredictions ? divergenceWeights(request, divergences) : sensitivitiesOf(request);
  const items = selected.map(
    (item, i): AllocationItem => ({
      name: item.name,
      weights: item.rows * item.columns,
      sensitivity: sensitivities[i],
      choices: choicesOf(item),
    }),
  );
  const fixed = selected.reduce((sum, item) => {
    const signs = layout.quantised.get(item.name)?.rotation?.signs.length ?? 0;
    return sum + signs + layout.tensorBytes(item.name, WIDEST).metadata;
  }, layout.fixedBytes);
  const found: Allocation = allocate(items, bitsPerWeight, fixed);
  if (!byPredictions) return found.choices;
  return found.choices.map((choice) => ({ ...choice, relativeError: fromNoise(choice.relativeError) }));
}

/**
 * Of a decoded row 1 - e is signal, so that an error of relative energy e is noise of e / (1 - e) to predictions: without
 * this, tensors of little weight fall below a bit, where feedback and predictions are not linear any more.
 */
const toNoise = (error: number): number => error / (1 - error);
const fromNoise = (noise: number): number => noise / (1 + noise);

/** What the allocator weighs the relative error of each tensor with. */
function sensitivitiesOf(request: CodePlanRequest): number[] {
  const { files, selected, settings, hessians, threads } = request;
  const weights = (item: SelectedTensor): number => item.rows * item.columns;
  if (settings.allocation === 'uniform') return selected.map(weights);
  const reader = createWeightReader(threads ?? 1);
  return selected.map((item) => {
    request.progress?.(item.name);
    if (settings.allocation === 'energy') return tensorEnergy(files, item, reader);
    if (!hessians) throw new RangeError(`allocation ${settings.allocation} without Hessians`);
    const measured = measureTensor(files, item, reader, hessians, request);
    // An embedding has no inputs: its rows are looked up, and their errors are weighed as they are.
    if (measured.loss === null || measured.outputEnergy === null) {
      return settings.allocation === 'relative' ? weights(item) : measured.energy;
    }
    if (settings.allocation === 'hessian') return measured.loss;
    return measured.outputEnergy > 0 ? (measured.loss / measured.outputEnergy) * weights(item) : 0;
  });
}

/**
 * n_t (c_t / n_t)^p with the measured sensitivity c_t of a tensor of n_t weights and p = {@link SENSITIVITY_EXPONENT}.
 * Tensors that were not measured (embedding, head) get the mean of the others a weight.
 */
function divergenceWeights({ selected }: CodePlanRequest, sensitivities: ReadonlyMap<string, number>): number[] {
  return selected.map((item) => {
    const weights = weightsOf(item);
    return weights * ((sensitivities.get(item.name) ?? 0) / weights) ** SENSITIVITY_EXPONENT;
  });
}

/** Expected KL to the original per unit of relative squared error, by tensor. */
function divergenceSensitivities({ selected, settings, divergence }: CodePlanRequest): Map<string, number> {
  if (settings.allocation !== 'kl' || settings.rate.kind === 'code') return new Map();
  if (!divergence) throw new RangeError('allocation kl without measured divergences');
  let [sum, weights] = [0, 0];
  for (const item of selected) {
    const measured: number | undefined = divergence[item.name];
    if (measured === undefined) continue;
    sum += measured;
    weights += weightsOf(item);
  }
  const mean = sum > 0 ? sum / weights : 1;
  return new Map(selected.map((item) => [item.name, divergence[item.name] ?? mean * weightsOf(item)]));
}

function tensorEnergy(files: ModelFiles, item: SelectedTensor, reader: WeightReader): number {
  const rows = new Float32Array(weightsOf(item));
  readTensorRows(files, item, reader, rows);
  return energyOf(rows);
}

const weightsOf = (item: SelectedTensor): number => item.rows * item.columns;

function measureTensor(
  files: ModelFiles,
  item: SelectedTensor,
  reader: WeightReader,
  hessians: Hessians,
  { settings, threads }: CodePlanRequest,
): Sensitivity {
  const rowsEach = item.rows / item.matrices;
  const rows = new Float32Array(rowsEach * item.columns);
  const total = { energy: 0, loss: 0, outputEnergy: 0 };
  for (let m = 0; m < item.matrices; m++) {
    readTensorRows(files, item, reader, rows, m * rowsEach, rowsEach);
    const input = hessianInput(item, m, hessians);
    const hessian = input === undefined ? undefined : hessians.get(input);
    if (!hessian || hessian.tokens === 0) {
      total.energy += energyOf(rows);
      continue;
    }
    const measured = measureSensitivity(rows, rowsEach, item.columns, hessian, {
      tensor: item.name,
      seed: BigInt(settings.seed),
      rotated: settings.rotation !== 'none',
      errorFeedback: settings.feedback.errorFeedback,
      blockColumns: Math.min(...settings.groupLengths),
      damping: settings.feedback.damping,
      ...(threads !== undefined && { threads }),
    });
    total.energy += measured.energy;
    total.loss += measured.loss ?? 0;
    total.outputEnergy += measured.outputEnergy ?? 0;
  }
  return total.outputEnergy > 0 ? total : { energy: total.energy, loss: null, outputEnergy: null };
}

/**
 * The Hessian that matrix `m` of a tensor meets; undefined for an embedding, whose rows are looked up.
 * @throws InputError when the file does not have it
 */
export function hessianInput(item: SelectedTensor, m: number, hessians: Hessians): string | undefined {
  const input: string | undefined = item.inputs[m];
  if (input !== undefined && !hessians.inputs.includes(input)) {
    throw new InputError(
      `${hessians.path}: no Hessian of ${input}, which tensor "${item.name}" reads: it was made for other tensors; ` +
        'name another file, or delete it and it is made anew',
    );
  }
  return input;
}
