import { existsSync } from 'node:fs';
import { InputError } from '../src/errors.js';
import type { InputLedger } from '../src/formats/inputs.js';
import { hashWindows } from '../src/models/calibration-windows.js';
import type { ModelFiles } from '../src/models/model-files.js';
import { hashModel } from '../src/models/model-hash.js';
import { calibrate, calibrationReserve } from '../src/quantization/calibration.js';
import {
  type DivergenceSensitivity,
  divergenceReserve,
  measureDivergence,
  noiseEnergy,
} from '../src/quantization/divergence-sensitivity.js';
import { openHessians } from '../src/quantization/hessian-file.js';
import type { SelectedTensor } from '../src/quantization/tensor-selection.js';
import type { Progress } from '../src/report/progress.js';
import { MOST_CALIBRATION_TOKENS, readCalibrationWindows } from './calibration-text.js';
import { type ModelSession, openModelSession, type Precision } from './model-session.js';
import type { RunTimings } from './run-timings.js';
import type { ScoredTextOptions } from './scored-text.js';
import type { SharedOptions } from './shared-options.js';

export interface CalibrationRequest {
  /** The model as the user named it, and where it lies. */
  readonly spec: string;
  readonly path: string;
  readonly files: ModelFiles;
  readonly selected: readonly SelectedTensor[];
  /** Texts; none where a file of Hessians is read. */
  readonly data: readonly string[];
  readonly options: Pick<
    SharedOptions,
    | 'threads'
    | 'maxMemory'
    | 'device'
    | 'context'
    | 'dataFormat'
    | 'textSplit'
    | 'textField'
    | 'limit'
    | 'seed'
    | 'stride'
  >;
  readonly text: ScoredTextOptions;
  readonly precision: Precision;
  /** Tokens, and those of a window. */
  readonly tokens?: number;
  readonly length?: number;
  /** The file of Hessians: taken when it is of the same model and text, and of any text without `data`. */
  readonly file: string;
  /** Measures how predictions answer to errors of the weights; needs `data`. */
  readonly sensitivity?: {
    readonly tokens: number;
    /** Fewer calibration tokens are an error. */
    readonly explicit: boolean;
    readonly bitsPerWeight: number;
    /** Decimal. */
    readonly seed: string;
  };
  readonly ledger: InputLedger;
  readonly progress: Progress;
  readonly timings: RunTimings;
  warn(message: string): void;
}

/** Hessians that lie ready. */
export interface Calibration {
  readonly path: string;
  readonly modelSha256: string;
  readonly tokens: number;
  readonly windowTokens: number;
  readonly textSha256: string;
  /** Inputs (of experts) that no token reached. */
  readonly unreached: readonly string[];
  readonly divergence?: DivergenceSensitivity;
}

/**
 * The Hessians of the inputs of the chosen tensors: those of `file` where it exists and fits, else made from the text and
 * written there.
 * @throws InputError for text that is shorter than asked, a file of another model, or neither text nor file
 */
export async function prepareHessians(request: CalibrationRequest): Promise<Calibration> {
  const { files, path, file, data, options, precision, timings } = request;
  timings.begin('hash the model');
  const modelSha256 = await hashModel(path);
  if (data.length === 0) {
    if (!existsSync(file)) throw new InputError(`${file}: no such file of Hessians; give --data to make it`);
    return describe(request, modelSha256);
  }
  timings.begin('calibrate');
  const memoryBytes = calibrationReserve(files.description, {
    tokens: request.tokens ?? MOST_CALIBRATION_TOKENS,
    maxMemoryBytes: options.maxMemory,
    precision,
  });
  const noiseBytes = request.sensitivity
    ? divergenceReserve(files, request.selected, { tokens: request.sensitivity.tokens, precision })
    : 0;
  // One after the other: first the Hessians, then the noise.
  const reserveBytes = Math.max(memoryBytes, noiseBytes);
  const session = await openModelSession(request.spec, { ...options, precision, reserveBytes });
  try {
    const { windows, length } = await readCalibrationWindows(request, session);
    checkTokens(request, windows);
    const unreached = existsSync(file)
      ? checkSameText(file, modelSha256, windows)
      : await sumHessians(request, session, { windows, length, modelSha256, memoryBytes });
    const divergence = await measureSensitivity(request, session, windows);
    return { ...describe(request, modelSha256), unreached, ...(divergence && { divergence }) };
  } finally {
    await session.close();
  }
}

/** @throws InputError when the file's Hessians are those of another text */
function checkSameText(file: string, modelSha256: string, windows: readonly Int32Array[]): readonly string[] {
  const hessians = openHessians(file, modelSha256);
  const { textSha256, tokens } = hessians.header;
  hessians.close();
  if (textSha256 === hashWindows(windows)) return [];
  throw new InputError(
    `${file}: Hessians of another text or other windows (${tokens} tokens): name another file, delete it, or leave --data out to use it`,
  );
}

/** Writes the Hessians of the windows; gives the inputs that no token reached. */
async function sumHessians(
  request: CalibrationRequest,
  session: ModelSession,
  run: {
    readonly windows: readonly Int32Array[];
    readonly length: number;
    readonly modelSha256: string;
    readonly memoryBytes: number;
  },
): Promise<readonly string[]> {
  const { length, ...rest } = run;
  const wanted = new Set(request.selected.flatMap(({ inputs }) => inputs));
  const { unreached } = await calibrate(session.host, request.files, {
    ...rest,
    windowTokens: length,
    path: request.file,
    precision: request.precision,
    include: ({ name }) => wanted.has(name),
    progress: (done, all) => {
      request.progress.setTotal(all);
      request.progress.update(done, 'calibrate');
    },
  });
  if (unreached.length > 0) request.warn(`no calibration token reached ${unreached.join(', ')}`);
  return unreached;
}

/** @throws InputError when fewer tokens are calibrated on than are to be measured on */
function checkTokens({ sensitivity }: CalibrationRequest, windows: readonly Int32Array[]): void {
  const tokens = windows.reduce((sum, window) => sum + window.length, 0);
  if (!sensitivity?.explicit || tokens >= sensitivity.tokens) return;
  throw new InputError(
    `--sensitivity-tokens ${sensitivity.tokens}: there are ${tokens} calibration tokens; ask for fewer`,
  );
}

async function measureSensitivity(
  { sensitivity, files, selected, timings, progress }: CalibrationRequest,
  session: ModelSession,
  windows: readonly Int32Array[],
): Promise<DivergenceSensitivity | undefined> {
  if (!sensitivity) return undefined;
  timings.begin('measure sensitivities');
  return measureDivergence(session.host, files, selected, {
    tokens: sensitivity.tokens,
    relativeEnergy: noiseEnergy(sensitivity.bitsPerWeight),
    seed: sensitivity.seed,
    windows,
    progress(done, all) {
      progress.setTotal(all);
      progress.update(done, 'sensitivity');
    },
  });
}

function describe({ file }: CalibrationRequest, modelSha256: string): Calibration {
  const hessians = openHessians(file, modelSha256);
  const { tokens, windowTokens, textSha256 } = hessians.header;
  hessians.close();
  return { path: file, modelSha256, tokens, windowTokens, textSha256, unreached: [] };
}
