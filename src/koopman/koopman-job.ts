import { InputError } from '../errors.js';
import { readArray, readTrajectories, type TrajectoryData, type TrajectoryOptions } from '../features/trajectories.js';
import { openTensorFile } from '../formats/tensor-file.js';
import type { ComputeReference } from '../kernels/compute-thread.js';
import { type GaussianTerms, gaussianFit, gaussianTerms } from './audit.js';
import {
  decode,
  encode,
  type FitSettings,
  type FitStep,
  fitKoopman,
  type KoopmanModel,
  type Trajectories,
} from './fit.js';
import type { GaussianSystem, Observation } from './gaussian-information.js';
import { koopmanMatrix } from './koopman-matrix.js';
import { type LagrangianSettings, type LagrangianTerms, lagrangianTerms } from './lagrangian.js';
import { latentEntropy } from './latent-entropy.js';
import { koopmanModes, type Mode } from './modes.js';
import { fitKoopmanNetwork, type NetworkFitSettings } from './network-fit.js';
import { type RolloutError, rolloutErrors } from './rollout.js';
import { sequencesOf, stackedLatents, stepCount } from './sequences.js';

export interface KoopmanArguments {
  readonly path: string;
  readonly options: TrajectoryOptions;
  /** Array of the same file that holds the rows one step later. */
  readonly nextTensor?: string;
  /** .npz or .safetensors with K, Sigma, C (and D, R) that stand for the fitted Gaussian model. */
  readonly system?: string;
  readonly settings: LagrangianSettings;
  readonly maxMemoryBytes: number;
  readonly lags: readonly number[];
  readonly horizons: readonly number[];
  readonly budget?: number;
  readonly noiseRidge?: number;
  /** Learn encoder and decoder first; otherwise the rows are the latents. With `network` by the training engine. */
  readonly fit?: FitSettings | NetworkFitSettings;
}

export interface KoopmanResult {
  readonly sequences: number;
  readonly steps: number;
  readonly observedWidth: number;
  readonly width: number;
  readonly terms: LagrangianTerms;
  readonly modes: readonly Mode[];
  /** Largest singular value of C. */
  readonly operatorNorm: number;
  readonly gaussian: GaussianTerms;
  readonly noiseRidge: number;
  /** Whether the Gaussian model was given, not fitted. */
  readonly systemGiven: boolean;
  readonly spectrum: Float64Array;
  readonly rollout: readonly RolloutError[];
  readonly fitSteps: readonly FitStep[];
  readonly model?: KoopmanModel;
  /** Networks of the training engine, where they were asked for. */
  readonly networks?: KoopmanNetworks;
  /** Latents of the first two leading directions, for the portrait: `[points, 2]` and the sequence of each. */
  readonly portrait: { readonly points: Float64Array; readonly sequence: Int32Array };
  readonly warnings: readonly string[];
}

/** Trained networks as ONNX files: raw observations to latents, and latents to standardised observations. */
export interface KoopmanNetworks {
  readonly encoder: Uint8Array;
  readonly decoder: Uint8Array;
  /** Weights and biases of both. */
  readonly weights: number;
}

const PORTRAIT_POINTS = 2000;

function readSystem(path: string): { system: GaussianSystem; observation?: Observation } {
  const store = openTensorFile(path);
  try {
    const squareOf = (name: string): { data: Float64Array; width: number } => {
      const { data, shape } = readArray(store, name);
      if (shape.length !== 2 || shape[0] !== shape[1]) {
        throw new InputError(`${path}: array "${name}" is [${shape.join(', ')}], a square matrix is needed`);
      }
      return { data, width: shape[0] };
    };
    const koopman = squareOf('K');
    const noise = squareOf('Sigma');
    const covariance = squareOf('C');
    for (const [name, matrix] of Object.entries({ Sigma: noise, C: covariance })) {
      if (matrix.width !== koopman.width) {
        throw new InputError(`${path}: "${name}" is ${matrix.width} wide, "K" is ${koopman.width}`);
      }
    }
    const system = { width: koopman.width, koopman: koopman.data, noise: noise.data, covariance: covariance.data };
    if (!store.tensors.has('D')) return { system };
    const map = readArray(store, 'D');
    const error = squareOf('R');
    if (map.shape.length !== 2 || map.shape[1] !== koopman.width || map.shape[0] !== error.width) {
      throw new InputError(`${path}: "D" is [${map.shape.join(', ')}]; [${error.width}, ${koopman.width}] is needed`);
    }
    return { system, observation: { observed: error.width, map: map.data, noise: error.data } };
  } finally {
    store.close();
  }
}

async function readNext(args: KoopmanArguments, data: TrajectoryData): Promise<Float64Array | undefined> {
  if (args.nextTensor === undefined) return undefined;
  const next = await readTrajectories(args.path, { ...args.options, tensor: args.nextTensor });
  if (next.width !== data.width || next.data.length !== data.data.length) {
    throw new InputError(`${args.path}: "${args.nextTensor}" has another shape than the trajectories`);
  }
  return next.data;
}

/** Copies of the rows, of the latents and of their rollouts that are held at once. */
const HELD_COPIES = 8;

function requireMemory({ fit, maxMemoryBytes, path }: KoopmanArguments, { data, width }: TrajectoryData): void {
  const bytes = 8 * HELD_COPIES * (data.length / width) * Math.max(width, fit?.latent ?? 0, fit?.hidden ?? 0);
  if (bytes <= maxMemoryBytes) return;
  throw new InputError(
    `${path}: ${data.length / width} steps take some ${Math.ceil(bytes / 2 ** 20)} MiB, more than --max-memory; use fewer steps`,
  );
}

/** Square root of the largest eigenvalue of C Cᵀ by power iteration to rounding. */
function largestSingularValue(c: Float64Array, n: number): number {
  let vector = Float64Array.from({ length: n }, (_, i) => 1 + 0.1 * Math.sin(i + 1));
  let previous = 0;
  for (let step = 0; step < 1000; step++) {
    const image = new Float64Array(n);
    const back = new Float64Array(n);
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) image[i] += c[i * n + j] * vector[j];
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) back[j] += c[i * n + j] * image[i];
    const norm = Math.sqrt(back.reduce((sum, value) => sum + value * value, 0));
    if (norm === 0) return 0;
    vector = back.map((value) => value / norm);
    if (Math.abs(norm - previous) <= 1e-14 * norm) return Math.sqrt(norm);
    previous = norm;
  }
  return Math.sqrt(previous);
}

function portraitOf(latents: Float64Array, width: number, lengths: readonly number[]): KoopmanResult['portrait'] {
  const rows = latents.length / width;
  const variance = new Float64Array(width);
  const mean = new Float64Array(width);
  for (let i = 0; i < latents.length; i++) mean[i % width] += latents[i] / rows;
  for (let i = 0; i < latents.length; i++) variance[i % width] += (latents[i] - mean[i % width]) ** 2;
  const order = Array.from(variance, (_, i) => i).sort((a, b) => variance[b] - variance[a]);
  const [first, second] = [order[0], order[Math.min(1, width - 1)]];
  const stride = Math.max(1, Math.ceil(rows / PORTRAIT_POINTS));
  const points: number[] = [];
  const sequence: number[] = [];
  let at = 0;
  lengths.forEach((length, s) => {
    for (let t = 0; t < length; t += stride) {
      points.push(latents[(at + t) * width + first], latents[(at + t) * width + second]);
      sequence.push(s);
    }
    at += length;
  });
  return { points: Float64Array.from(points), sequence: Int32Array.from(sequence) };
}

/** Reads trajectories, fits what is asked for and gives every term of the information Lagrangian. */
export async function analyseKoopman(
  args: KoopmanArguments,
  progress: (value: unknown) => void,
): Promise<KoopmanResult> {
  const read = await readTrajectories(args.path, args.options);
  requireMemory(args, read);
  const next = await readNext(args, read);
  const trajectories: Trajectories = { data: read.data, width: read.width, lengths: read.lengths };
  if (args.fit && 'network' in args.fit) {
    const fitted = await fitKoopmanNetwork(trajectories, args.fit, progress);
    try {
      return await describe(args, { trajectories, next }, { ...fitted, decode: (rows) => fitted.decode(rows) });
    } finally {
      await fitted.close();
    }
  }
  const fitted = args.fit && fitKoopman(trajectories, args.fit, ({ step }) => progress(step + 1));
  const model = fitted?.model;
  return describe(
    args,
    { trajectories, next },
    model && {
      steps: fitted?.steps ?? [],
      latents: encode(model, read.data),
      koopman: model.koopman,
      model,
      decode: (rows) => decode(model, rows),
    },
  );
}

/** A fitted representation of the trajectories, whatever fitted it. */
interface Representation {
  readonly steps: readonly FitStep[];
  readonly latents: Float64Array;
  readonly koopman: Float64Array;
  readonly model?: KoopmanModel;
  readonly encoder?: Uint8Array;
  readonly decoder?: Uint8Array;
  readonly weights?: number;
  decode(rows: Float64Array): Float64Array | Promise<Float64Array>;
}

/** All terms of a representation, or of the rows themselves. */
async function describe(
  args: KoopmanArguments,
  read: { readonly trajectories: Trajectories; readonly next: Float64Array | undefined },
  fitted: Representation | undefined,
): Promise<KoopmanResult> {
  const { trajectories, next } = read;
  const width = args.fit ? args.fit.latent : trajectories.width;
  const latents = fitted?.latents ?? trajectories.data;
  const sequences = sequencesOf(latents, width, trajectories.lengths, next, args.path);
  const { settings } = args;
  const longest = Math.max(...sequences.list.map(({ steps }) => steps));
  const warnings: string[] = [];
  if (longest <= 2 * settings.window) {
    warnings.push(
      `no sequence has more than 2 k = ${2 * settings.window} steps (the longest has ${longest}), so the coherence has no ` +
        'anchor and is 0; lower --window',
    );
  }
  const koopman = fitted?.koopman ?? koopmanMatrix(sequences, settings.ridge);
  const terms = lagrangianTerms(sequences, settings, koopman);
  if (terms.collapsed) warnings.push('all latents are equal: the von Neumann entropy is 0 by convention');
  const modes = koopmanModes(koopman, width);
  if (modes[0].modulus > 1) {
    warnings.push(
      `the spectral radius is ${modes[0].modulus.toFixed(4)}: information grows without bound with the lag`,
    );
  }
  const given = args.system === undefined ? undefined : readSystem(args.system);
  const fit = given ? undefined : gaussianFit(sequences, koopman, args.noiseRidge);
  const system = given?.system ?? fit?.system;
  if (!system) throw new Error('no Gaussian system');
  if (fit && fit.noiseRidge > 0 && args.noiseRidge === undefined) {
    warnings.push(`the residual covariance is singular; a ridge of ${fit.noiseRidge.toExponential(2)} was added`);
  }
  const gamma = settings.weights.gamma > 0 ? settings.weights.gamma : 0.1;
  const gaussian = gaussianTerms(system, args.lags, gamma, args.budget, given?.observation);
  const { spectrum } = latentEntropy(stackedLatents(sequences), stepCount(sequences), width, settings.variant);
  const horizons = args.horizons.filter((horizon) => trajectories.lengths.some((length) => length > horizon));
  return {
    sequences: trajectories.lengths.length,
    steps: stepCount(sequences),
    observedWidth: trajectories.width,
    width,
    terms,
    modes,
    operatorNorm: largestSingularValue(koopman, width),
    gaussian,
    noiseRidge: fit?.noiseRidge ?? 0,
    systemGiven: given !== undefined,
    spectrum,
    rollout: await rolloutErrors(trajectories, latents, width, koopman, horizons, (rows) =>
      fitted ? fitted.decode(rows) : rows,
    ),
    fitSteps: fitted?.steps ?? [],
    ...(fitted?.model && { model: fitted.model }),
    ...(fitted?.encoder &&
      fitted.decoder && {
        networks: { encoder: fitted.encoder, decoder: fitted.decoder, weights: fitted.weights ?? 0 },
      }),
    portrait: portraitOf(latents, width, trajectories.lengths),
    warnings,
  };
}

export const ANALYSE_KOOPMAN: ComputeReference<KoopmanArguments, KoopmanResult> = {
  module: import.meta.url,
  job: analyseKoopman,
};
