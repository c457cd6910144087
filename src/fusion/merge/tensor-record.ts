import {
  addMeasures,
  type BadValues,
  measureTensor,
  nonFinite,
  type TensorMeasures,
} from '../../kernels/merge-measures.js';
import { type DeltaSpectra, type DeltaSpectrum, deltaSpectra, hasSpectrum, spectrumBytes } from './delta-spectrum.js';
import type { MergeInput, MergeOutcome, MergeTask } from './types.js';

/** How much is measured of every tensor: counts of bad values alone, also norms and angles, also spectra. */
export type TensorDiagnostics = 'none' | 'norms' | 'auto' | 'full';

export const DIAGNOSTICS: readonly TensorDiagnostics[] = ['none', 'norms', 'auto', 'full'];

/** Spectra of larger matrices are taken with `full` alone: they cost more than the merge. */
const AUTO_SPECTRUM_SIDE = 1024;

/** What is known of a merged tensor: plain JSON values, in the order of its inputs. */
export interface TensorRecord {
  /** Of the bytes in the output. */
  readonly sha256: string;
  /** With which each input went in; null where the method has no such weights. */
  readonly weights: readonly number[] | null;
  readonly kept_density: readonly number[] | null;
  readonly smallest_divisor: number | null;
  readonly figures: Readonly<Record<string, number>>;
  readonly nonfinite_inputs: readonly number[];
  readonly nonfinite_output: number;
  /** Absent with `none`. */
  readonly measures: RecordedMeasures | null;
  /** By input; null for the base, and where none was taken. */
  readonly spectra: readonly (DeltaSpectrum | null)[] | null;
  readonly warnings: readonly string[];
}

export interface RecordedMeasures {
  /** ||theta_i||. */
  readonly norms: readonly number[];
  /** ||theta_i - theta_base||, 0 for the base; null without a base. */
  readonly delta_norms: readonly number[] | null;
  /** Cosines of pairs i < j of inputs that are not the base: of task vectors, without a base of the tensors. */
  readonly cosines: readonly (number | null)[];
  /** Share of the elements where two weighted task vectors have opposite signs; null without two of them. */
  readonly sign_conflict: number | null;
  /** ||merged - base||, and over ||base||; null without a base. */
  readonly change_norm: number | null;
  readonly relative_change: number | null;
  readonly merged_norm: number;
}

/** A task with the shape of the whole tensor, of which it may be some rows. */
export type MergedTask = MergeTask & { readonly wholeShape: readonly number[] };

export interface NonFiniteCounts {
  readonly inputs: readonly number[];
  readonly output: number;
}

export interface TensorRecording {
  /** Takes merged rows in. @returns counts of values that are NaN or infinite */
  add(task: MergedTask, outcome: MergeOutcome): NonFiniteCounts;
  finish(sha256: string): TensorRecord;
}

/** Bytes that measuring `rows` rows of a tensor takes beside the merge. */
export function diagnosticBytes(
  diagnostics: TensorDiagnostics,
  shape: readonly number[],
  rows: number,
  inputs: number,
): number {
  const side = spectrumSide(diagnostics);
  return side > 0 && hasSpectrum(shape, side, rows < (shape[0] ?? 1)) ? spectrumBytes(shape, rows, inputs) : 0;
}

/** Largest smaller side of a matrix whose spectra are taken. */
function spectrumSide(diagnostics: TensorDiagnostics): number {
  if (diagnostics === 'full') return Number.POSITIVE_INFINITY;
  return diagnostics === 'auto' ? AUTO_SPECTRUM_SIDE : 0;
}

/** Records a tensor whose rows come one part after the other. */
export function createTensorRecord(diagnostics: TensorDiagnostics, threads: number): TensorRecording {
  const outcomes: MergeOutcome[] = [];
  const counts: NonFiniteCounts[] = [];
  let measures: TensorMeasures | undefined;
  let spectra: DeltaSpectra | undefined;
  let inputs: readonly MergeInput[] = [];
  return {
    add(task, outcome): NonFiniteCounts {
      inputs = task.inputs;
      outcomes.push(outcome);
      if (diagnostics === 'none') {
        counts.push({
          inputs: task.inputs.map(({ tensor }) => badCount(nonFinite(tensor, threads))),
          output: badCount(nonFinite(task.output, threads)),
        });
        return counts[counts.length - 1];
      }
      const measured = measureTask(task, outcome, threads);
      measures = measures === undefined ? measured : addMeasures(measures, measured);
      counts.push(countsOf(task, measured));
      const whole = task.firstElement === 0 && task.wholeShape.join() === task.output.shape.join();
      const side = spectrumSide(diagnostics);
      if (side > 0 && hasSpectrum(task.wholeShape, side, !whole)) {
        spectra ??= deltaSpectra(task.wholeShape, threads);
        spectra.add(task);
      }
      return counts[counts.length - 1];
    },
    finish: (sha256) => ({
      sha256,
      ...summarizeOutcomes(outcomes),
      nonfinite_inputs: inputs.map((_, i) => counts.reduce((sum, count) => sum + count.inputs[i], 0)),
      nonfinite_output: counts.reduce((sum, count) => sum + count.output, 0),
      measures: measures === undefined ? null : recordedMeasures(measures, inputs),
      spectra: spectra === undefined ? null : spectra.finish(),
    }),
  };
}

const badCount = ({ nan, infinite }: BadValues): number => nan + infinite;

function measureTask(task: MergeTask, outcome: MergeOutcome, threads: number): TensorMeasures {
  const base = task.inputs.find(({ isBase }) => isBase);
  const weights = task.inputs.flatMap(({ isBase }, i) => (isBase ? [] : [outcome.weights?.[i] ?? 1]));
  return measureTensor({
    ...(base && { base: base.tensor }),
    models: task.inputs.filter(({ isBase }) => !isBase).map(({ tensor }) => tensor),
    weights,
    merged: task.output,
    threads,
  });
}

function countsOf(task: MergeTask, measures: TensorMeasures): NonFiniteCounts {
  const models = measures.modelBad.map(badCount);
  const inputs = task.inputs.map(({ isBase }) =>
    isBase ? (measures.baseBad ? badCount(measures.baseBad) : 0) : (models.shift() ?? 0),
  );
  return { inputs, output: measures.mergedBad ? badCount(measures.mergedBad) : 0 };
}

/** Figures of a method whose rows came in parts: means by parts, the smallest divisor, every warning once. */
function summarizeOutcomes(
  outcomes: readonly MergeOutcome[],
): Pick<TensorRecord, 'weights' | 'kept_density' | 'smallest_divisor' | 'figures' | 'warnings'> {
  const divisors = outcomes.flatMap(({ smallestDivisor }) => (smallestDivisor === undefined ? [] : [smallestDivisor]));
  const names = [...new Set(outcomes.flatMap(({ figures }) => Object.keys(figures ?? {})))];
  return {
    weights: meanOfLists(outcomes.map(({ weights }) => weights)),
    kept_density: meanOfLists(outcomes.map(({ keptDensity }) => keptDensity)),
    smallest_divisor: divisors.length > 0 ? Math.min(...divisors) : null,
    figures: Object.fromEntries(
      names.map((name) => {
        const values = outcomes.flatMap(({ figures }) => figures?.[name] ?? []);
        return [name, values.reduce((sum, value) => sum + value, 0) / values.length];
      }),
    ),
    warnings: [...new Set(outcomes.flatMap(({ warnings }) => warnings ?? []))],
  };
}

function meanOfLists(lists: readonly (readonly number[] | undefined)[]): number[] | null {
  const [first] = lists;
  if (first === undefined) return null;
  return first.map((_, i) => lists.reduce((sum, list) => sum + (list?.[i] ?? 0), 0) / lists.length);
}

/** Cosine from dot products; null where one vector is zero. */
function cosineOf(dot: number, a: number, b: number): number | null {
  const cosine = dot / Math.sqrt(a * b);
  return Number.isFinite(cosine) ? Math.max(-1, Math.min(1, cosine)) : null;
}

function recordedMeasures(measures: TensorMeasures, inputs: readonly MergeInput[]): RecordedMeasures {
  const models = measures.squares.length;
  const at = (i: number, j: number): number => (i * (2 * models - i + 1)) / 2 + (j - i);
  const cosines: (number | null)[] = [];
  for (let i = 0; i < models; i++)
    for (let j = i + 1; j < models; j++)
      cosines.push(cosineOf(measures.dots[at(i, j)], measures.dots[at(i, i)], measures.dots[at(j, j)]));
  const { baseSquares, changeSquares } = measures;
  const inOrder = (of: (model: number) => number, base: number): number[] => {
    let model = 0;
    return inputs.map(({ isBase }) => (isBase ? base : of(model++)));
  };
  const hasBase = baseSquares !== undefined;
  return {
    norms: inOrder((i) => Math.sqrt(measures.squares[i]), Math.sqrt(baseSquares ?? 0)),
    delta_norms: hasBase ? inOrder((i) => Math.sqrt(measures.dots[at(i, i)]), 0) : null,
    cosines,
    sign_conflict: hasBase && models > 1 && measures.elements > 0 ? measures.conflicts / measures.elements : null,
    change_norm: changeSquares === undefined ? null : Math.sqrt(changeSquares),
    relative_change: changeSquares === undefined || !hasBase ? null : Math.sqrt(changeSquares / baseSquares),
    merged_norm: Math.sqrt(measures.mergedSquares ?? 0),
  };
}
