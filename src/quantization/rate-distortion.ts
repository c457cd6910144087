import { InputError } from '../errors.js';
import { createSafetensorsWriter } from '../formats/safetensors-writer.js';
import { multiply } from '../kernels/gemm.js';
import { type ModelFiles, openModelFiles } from '../models/model-files.js';
import { createWeightReader } from '../models/weights.js';
import type { BaselineSettings } from './baselines/baseline.js';
import { type BaselineMethod, type InputMoments, methodBits, quantizeTensor } from './baselines/composed.js';
import { GGML_FALLBACKS } from './baselines/ggml.js';
import { findMethod } from './baselines/registry.js';
import { type Hessians, openHessians } from './hessian-file.js';
import { readTensorRows, type SelectedTensor, type SelectionOptions, selectTensors } from './tensor-selection.js';
import { shannonDecibels } from './tensor-statistics.js';

/** A method and its setting. */
export interface MethodChoice {
  readonly method: string;
  readonly settings: BaselineSettings;
}

/** What a method made of one tensor. */
export interface TensorPoint {
  readonly name: string;
  readonly role: string;
  readonly layer: number;
  readonly rows: number;
  readonly columns: number;
  /** The method that was used: another one of llama.cpp's where rows are not whole blocks. */
  readonly method: string;
  readonly stored_bits: number;
  readonly bits_per_weight: number;
  readonly mse: number;
  readonly sqnr_db: number;
  /** Sum of squares of the weights, and of the errors. */
  readonly energy: number;
  readonly error: number;
  /** tr(E H E^T), and the part it is of tr(W H W^T); null without a Hessian. */
  readonly hessian_loss: number | null;
  readonly hessian_loss_relative: number | null;
  /** What no code of these bits can exceed on Gaussian weights: 6.02 dB a bit. */
  readonly shannon_sqnr_db: number;
}

export interface RateDistortionArguments {
  /** Model directory or GGUF file. */
  readonly model: string;
  readonly selection: SelectionOptions;
  readonly choice: MethodChoice;
  /** Decimal. */
  readonly seed: string;
  /** File of Hessians, and the hash of the model that they must belong to. */
  readonly hessians?: { readonly path: string; readonly modelSha256: string };
  readonly damping?: number;
  /** Safetensors file for the reconstructed rows, as f32 in the layout of the model's own tensors. */
  readonly out?: string;
  readonly threads?: number;
}

export interface RateDistortionResult {
  readonly points: readonly TensorPoint[];
  readonly warnings: readonly string[];
}

/**
 * The method for rows of a width: the one that was asked for, or, for GGUF types whose blocks do not fill a row, the one
 * that llama.cpp takes instead.
 * @throws InputError when neither fits
 */
export function methodForColumns(method: BaselineMethod, settings: BaselineSettings, columns: number): BaselineMethod {
  const misfit = method.baseline.misfit?.(settings, columns);
  if (misfit === undefined) return method;
  const fallback = GGML_FALLBACKS[method.baseline.name];
  const name = fallback === undefined ? undefined : method.name.replace(method.baseline.name, fallback);
  const other = name === undefined ? undefined : findMethod(name);
  if (other && other.baseline.misfit?.(settings, columns) === undefined) return other;
  throw new InputError(misfit);
}

/** Exact bits of a selection under a method, before any tensor is read. @throws InputError for rows that do not fit */
export function foreseenBits(choice: MethodChoice, tensors: readonly SelectedTensor[]): number {
  const method = findMethod(choice.method);
  let bits = 0;
  for (const { rows, columns, matrices } of tensors) {
    const used = methodForColumns(method, choice.settings, columns);
    const once = methodBits(used, choice.settings, rows / matrices, columns);
    const signs = once - used.baseline.storedBits(choice.settings, rows / matrices, columns);
    bits += matrices * (once - signs) + signs;
  }
  return bits;
}

/**
 * A job: quantises the selected tensors of a model one after the other, measures each, and writes what they decode to.
 * One tensor, its reconstruction and its Hessian are in memory. Reports the points as they come.
 */
export async function measureMethod(
  args: RateDistortionArguments,
  progress: (value: unknown) => void,
): Promise<RateDistortionResult> {
  const files = openModelFiles(args.model, args.threads);
  const hessians = args.hessians ? openHessians(args.hessians.path, args.hessians.modelSha256) : undefined;
  try {
    const { selected } = selectTensors(files, args.selection);
    const writer =
      args.out === undefined ? undefined : createSafetensorsWriter(args.out, { plan: planOf(selected), force: true });
    const points: TensorPoint[] = [];
    const warnings: string[] = [];
    try {
      for (const item of selected) {
        const result = measureTensor(files, item, args, hessians);
        points.push(result.point);
        warnings.push(...result.warnings);
        writer?.write(item.name, storedLayout(item, result.decoded));
        progress(result.point);
      }
      writer?.commit();
    } catch (error) {
      writer?.abort();
      throw error;
    }
    return { points, warnings };
  } finally {
    hessians?.close();
    files.store.close();
  }
}

function planOf(selected: readonly SelectedTensor[]): { name: string; dtype: 'F32'; shape: readonly number[] }[] {
  return selected.map(({ name, tensor }) => ({ name, dtype: 'F32', shape: tensor.shape }));
}

interface MeasuredTensor {
  readonly point: TensorPoint;
  readonly decoded: Float32Array;
  readonly warnings: readonly string[];
}

function measureTensor(
  files: ModelFiles,
  item: SelectedTensor,
  args: RateDistortionArguments,
  hessians: Hessians | undefined,
): MeasuredTensor {
  const { rows, columns, matrices } = item;
  const weights = new Float32Array(rows * columns);
  readTensorRows(files, item, createWeightReader(args.threads ?? 1), weights);
  const method = methodForColumns(findMethod(args.choice.method), args.choice.settings, columns);
  const moments = (matrix: number): InputMoments | undefined => {
    const input = item.inputs[matrix];
    if (!hessians || input === undefined || !hessians.inputs.includes(input)) return undefined;
    const { H, tokens } = hessians.get(input);
    return { hessian: H, tokens };
  };
  const { decoded, storedBits, warnings } = quantizeTensor(method, args.choice.settings, {
    weights,
    rows,
    columns,
    matrices,
    name: item.name,
    seed: BigInt(args.seed),
    moments,
    ...(args.damping !== undefined && { damping: args.damping }),
    ...(args.threads !== undefined && { threads: args.threads }),
  });
  const { energy, error } = squaredError(weights, decoded);
  const losses = hessians ? lossesOf(item, weights, decoded, moments, args.threads) : undefined;
  const count = rows * columns;
  const point: TensorPoint = {
    name: item.name,
    role: item.role,
    layer: item.layer,
    rows,
    columns,
    method: method.name,
    stored_bits: storedBits,
    bits_per_weight: storedBits / count,
    mse: error / count,
    sqnr_db: 10 * Math.log10(energy / error),
    energy,
    error,
    hessian_loss: losses ? losses.loss : null,
    hessian_loss_relative: losses && losses.whole > 0 ? losses.loss / losses.whole : null,
    shannon_sqnr_db: shannonDecibels(storedBits / count),
  };
  return { point, decoded, warnings };
}

/** Sums of squares of the weights and of their errors, in f64 and in order. */
export function squaredError(weights: Float32Array, decoded: Float32Array): { energy: number; error: number } {
  let energy = 0;
  let error = 0;
  for (let i = 0; i < weights.length; i++) {
    const difference = weights[i] - decoded[i];
    energy += weights[i] * weights[i];
    error += difference * difference;
  }
  return { energy, error };
}

/** tr(E H E^T) and tr(W H W^T), over the matrices of a stack that saw tokens. */
function lossesOf(
  { rows, columns, matrices }: SelectedTensor,
  weights: Float32Array,
  decoded: Float32Array,
  moments: (matrix: number) => InputMoments | undefined,
  threads: number | undefined,
): { loss: number; whole: number } | undefined {
  const own = rows / matrices;
  let loss = 0;
  let whole = 0;
  let known = false;
  for (let m = 0; m < matrices; m++) {
    const found = moments(m);
    if (!found || found.tokens === 0) continue;
    known = true;
    const part = weights.subarray(m * own * columns, (m + 1) * own * columns);
    const errors = Float64Array.from(part, (value, i) => value - decoded[m * own * columns + i]);
    loss += quadraticForm(errors, found.hessian, own, columns, threads);
    whole += quadraticForm(Float64Array.from(part), found.hessian, own, columns, threads);
  }
  return known ? { loss, whole } : undefined;
}

/** tr(X H X^T) of rows [rows, n]. */
export function quadraticForm(
  x: Float64Array,
  hessian: Float64Array,
  rows: number,
  n: number,
  threads?: number,
): number {
  const product = new Float64Array(rows * n);
  multiply(x, hessian, product, { m: rows, n, k: n }, { ...(threads !== undefined && { threads }) });
  let sum = 0;
  for (let i = 0; i < product.length; i++) sum += product[i] * x[i];
  return sum;
}

/** Rows in the layout of the stored tensor, as bytes. */
function storedLayout(item: SelectedTensor, decoded: Float32Array): Uint8Array {
  const values = item.transposed ? turnBack(item, decoded) : decoded;
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

function turnBack({ rows, columns, matrices }: SelectedTensor, decoded: Float32Array): Float32Array {
  const out = rows / matrices;
  const turned = new Float32Array(decoded.length);
  for (let m = 0; m < matrices; m++) {
    const base = m * out * columns;
    for (let r = 0; r < out; r++) {
      for (let c = 0; c < columns; c++) turned[base + c * out + r] = decoded[base + r * columns + c];
    }
  }
  return turned;
}
