import { existsSync } from 'node:fs';
import { InputError } from '../src/errors.js';
import { resolveModelPath } from '../src/formats/hub.js';
import { expandSources } from '../src/formats/inputs.js';
import { parsePatterns } from '../src/formats/name-patterns.js';
import { pyramidLog2 } from '../src/kernels/pyramid.js';
import { type ModelFiles, openModelFiles } from '../src/models/model-files.js';
import { EXPORT_FORMATS, type ExportFormat, exportBits } from '../src/quantization/exports/export-format.js';
import type { QuantizeSettings, RateSetting } from '../src/quantization/settings.js';
import { sourceBits } from '../src/quantization/source-bits.js';
import { selectTensors, type TensorSelection } from '../src/quantization/tensor-selection.js';
import { parseChoice } from './edge-values.js';
import { type CodeOptions, parseSettings, type RotationOption, type SubjectOptions } from './quantize-pvq-options.js';
import type { ScoredTextOptions } from './scored-text.js';
import { requireOption, type SharedOptions } from './shared-options.js';

export const SHARED = [
  'model',
  'data',
  'dataFormat',
  'textSplit',
  'textField',
  'limit',
  'out',
  'report',
  'table',
  'plot',
  'seed',
  'threads',
  'maxMemory',
  'device',
  'context',
  'stride',
  'assert',
  'baseline',
  'timings',
  'quiet',
  'dryRun',
  'force',
  'resume',
] as const satisfies readonly (keyof SharedOptions)[];

export type QuantizeShared = Pick<SharedOptions, (typeof SHARED)[number] | 'config' | 'debug'>;

export const FORMATS = ['pvq', 'dequantized', ...EXPORT_FORMATS] as const;

export type OutputFormat = (typeof FORMATS)[number];

export const DTYPES = ['bf16', 'f16', 'f32'] as const;

/** Options of this command alone, as commander gives them. */
export interface QuantizeOptions extends CodeOptions, SubjectOptions, ScoredTextOptions {
  format?: string;
  dtype?: string;
  evalData?: string[];
  evalTokens?: string;
  choices?: string[];
  activations?: string;
  precision?: string;
}

/** Everything that is known before a tensor is read. */
export interface Subject {
  readonly spec: string;
  readonly path: string;
  readonly out: string;
  readonly format: OutputFormat;
  readonly files: ModelFiles;
  readonly selection: TensorSelection;
  readonly patterns: { readonly tensors: readonly string[]; readonly keep: readonly string[] };
  readonly settings: QuantizeSettings;
  readonly rotation: RotationOption;
  /** Calibration texts; Hessians may come from a file alone. */
  readonly data: readonly string[];
  readonly calibrated: boolean;
}

export async function openSubject(options: QuantizeShared, own: QuantizeOptions): Promise<Subject> {
  const spec = requireOption(options.model, '--model', 'a model directory or a .gguf file');
  const out = requireOption(options.out, '--out', 'the directory (or file) to write');
  const format = parseChoice('--format', own.format ?? 'pvq', FORMATS);
  const location = resolveModelPath(spec, process.env);
  if (location.kind === 'onnx') {
    throw new InputError(`${spec}: the weights of an ONNX export are not read; name a model directory or a .gguf file`);
  }
  const data = options.data.length > 0 ? await expandSources(options.data) : [];
  const hessiansGiven = own.hessians !== undefined && existsSync(own.hessians);
  if (own.hessians !== undefined && !hessiansGiven && data.length === 0) {
    throw new InputError(`${own.hessians}: no such file of Hessians; give --data to make it`);
  }
  const calibrated = data.length > 0 || hessiansGiven;
  if (own.imatrix !== undefined && calibrated) {
    throw new InputError('--imatrix stands for calibration text: leave out --data and --hessians');
  }
  for (const [flag, value] of [
    ['--calib-tokens', own.calibTokens],
    ['--calib-length', own.calibLength],
  ] as const) {
    if (value !== undefined && data.length === 0) throw new InputError(`${flag} needs --data`);
  }
  if (own.dtype !== undefined && format !== 'dequantized') throw new InputError('--dtype needs --format dequantized');
  const { settings, rotation } = parseSettings(own, {
    seed: options.seed,
    calibrated,
    text: data.length > 0,
    weighted: own.imatrix !== undefined,
    ...(isExport(format) && { exported: format }),
  });
  const files = openModelFiles(location.path);
  try {
    const patterns = { tensors: parsePatterns(own.tensors ?? []), keep: parsePatterns(own.keep ?? []) };
    const selection = selectTensors(files, patterns);
    checkSource(spec, files, selection, settings, format, own);
    return { spec, path: location.path, out, format, files, selection, patterns, settings, rotation, data, calibrated };
  } catch (error) {
    files.store.close();
    throw error;
  }
}

/** A source that has lost bits already is taken only when it is asked for, and never at its own rate or above. */
export function checkSource(
  spec: string,
  files: ModelFiles,
  { selected }: TensorSelection,
  { rate }: QuantizeSettings,
  format: OutputFormat,
  own: QuantizeOptions,
): void {
  const source = sourceBits(files, selected);
  if (!source.quantized) return;
  const what = `${spec}: is quantised already (${source.types.join(', ')}, ${source.bitsPerWeight.toFixed(3)} bits per weight)`;
  if (own.allowRequantize !== true) {
    throw new InputError(`${what}: errors would come on top of errors; --allow-requantize takes it all the same`);
  }
  const bits = bitsOf(rate, format);
  if (bits >= source.bitsPerWeight) {
    throw new InputError(`${what}: ${Number(bits.toFixed(3))} bits are not below that; ask for fewer`);
  }
}

/** Bits per weight that a rate comes to at least: those of the blocks where they are fixed. */
function bitsOf(rate: RateSetting, format: OutputFormat): number {
  if (rate.kind === 'bpw') return rate.bitsPerWeight;
  if (isExport(format)) return exportBits(format, rate.groupLength);
  return (pyramidLog2(rate.groupLength, rate.pulses) + rate.gainBits) / rate.groupLength;
}

export function isExport(format: OutputFormat): format is ExportFormat {
  return format !== 'pvq' && format !== 'dequantized';
}
