import { InputError } from '../errors.js';
import type { Activation, RopeDescription } from './description.js';

/** A parsed `config.json` (or the same facts gathered from GGUF metadata). */
export type Config = Readonly<Record<string, unknown>>;

/** Typed access to a config; every complaint names the file and the key. */
export interface ConfigReader {
  readonly path: string;
  readonly config: Config;
  number(key: string, fallback?: number): number;
  optionalNumber(key: string): number | undefined;
  boolean(key: string, fallback: boolean): boolean;
  string(key: string, fallback: string): string;
  numbers(key: string): number[] | undefined;
  strings(key: string): string[] | undefined;
  object(key: string): ConfigReader | undefined;
}

export function configReader(config: Config, path: string): ConfigReader {
  const wrong = (key: string, wanted: string): InputError =>
    new InputError(`${path}: "${key}" is ${JSON.stringify(config[key]) ?? 'missing'}; expected ${wanted}`);
  const absent = (key: string): boolean => config[key] === undefined || config[key] === null;
  const list = <T>(key: string, type: 'number' | 'string'): T[] | undefined => {
    if (absent(key)) return undefined;
    const value = config[key];
    if (!Array.isArray(value) || value.some((item) => typeof item !== type)) throw wrong(key, `a list of ${type}s`);
    return value as T[];
  };
  const reader: ConfigReader = {
    path,
    config,
    optionalNumber(key) {
      if (absent(key)) return undefined;
      const value = config[key];
      if (typeof value !== 'number' || !Number.isFinite(value)) throw wrong(key, 'a number');
      return value;
    },
    number(key, fallback) {
      const value = reader.optionalNumber(key) ?? fallback;
      if (value === undefined) throw wrong(key, 'a number');
      return value;
    },
    boolean(key, fallback) {
      if (absent(key)) return fallback;
      const value = config[key];
      if (typeof value !== 'boolean') throw wrong(key, 'true or false');
      return value;
    },
    string(key, fallback) {
      if (absent(key)) return fallback;
      const value = config[key];
      if (typeof value !== 'string') throw wrong(key, 'a string');
      return value;
    },
    numbers: (key) => list<number>(key, 'number'),
    strings: (key) => list<string>(key, 'string'),
    object(key) {
      if (absent(key)) return undefined;
      const value = config[key];
      if (typeof value !== 'object' || Array.isArray(value)) throw wrong(key, 'an object');
      return configReader(value as Config, `${path}: ${key}`);
    },
  };
  return reader;
}

const ACTIVATIONS: Readonly<Record<string, Activation>> = {
  silu: 'silu',
  swish: 'silu',
  gelu: 'gelu',
  gelu_new: 'gelu_tanh',
  gelu_fast: 'gelu_tanh',
  gelu_pytorch_tanh: 'gelu_tanh',
  relu: 'relu',
  relu2: 'relu2',
};

export function readActivation(reader: ConfigReader, keys: readonly string[], fallback: string): Activation {
  const key = keys.find((name) => typeof reader.config[name] === 'string') ?? keys[0];
  const name = reader.string(key, fallback);
  const activation = ACTIVATIONS[name];
  if (activation === undefined) {
    const known = Object.keys(ACTIVATIONS).join(', ');
    throw new InputError(`${reader.path}: activation "${name}" (${key}) is not supported; known: ${known}`);
  }
  return activation;
}

const ROPE_TYPES: Readonly<Record<string, RopeDescription['type']>> = {
  default: 'default',
  linear: 'linear',
  dynamic: 'dynamic',
  llama3: 'llama3',
  yarn: 'yarn',
  longrope: 'longrope',
  su: 'longrope',
};

/** Where the rotary parameters of one layer type are found. */
export interface RopeSource {
  /** Key inside `rope_parameters` when it is nested by layer type. */
  readonly layerType?: string;
  /** Config key of the base in older files. */
  readonly thetaKey: string;
  readonly defaultTheta: number;
  /** Older files: whether `rope_scaling` applies to this layer type. */
  readonly scaled: boolean;
}

/** Reads `rope_parameters` (transformers 5) or `rope_theta` with `rope_scaling` (older files). */
export function readRope(reader: ConfigReader, headDim: number, source: RopeSource): RopeDescription {
  const modern = reader.object('rope_parameters');
  const nested = modern !== undefined && source.layerType !== undefined ? modern.object(source.layerType) : undefined;
  const scaling = reader.object('rope_scaling');
  const parameters = nested ?? modern ?? (source.scaled ? scaling : undefined) ?? configReader({}, reader.path);
  const theta =
    parameters.optionalNumber('rope_theta') ?? reader.optionalNumber(source.thetaKey) ?? source.defaultTheta;
  const typeName = parameters.string('rope_type', parameters.string('type', 'default'));
  const type = ROPE_TYPES[typeName];
  if (type === undefined) {
    const known = Object.keys(ROPE_TYPES).join(', ');
    throw new InputError(`${parameters.path}: rope type "${typeName}" is not supported; known: ${known}`);
  }
  const share =
    parameters.optionalNumber('partial_rotary_factor') ??
    reader.optionalNumber('partial_rotary_factor') ??
    reader.optionalNumber('rotary_pct') ??
    1;
  const dims = Math.floor(headDim * share);
  if (dims % 2 !== 0 || dims <= 0) {
    throw new InputError(`${reader.path}: rotary embedding over ${dims} of ${headDim} dimensions; it must be even`);
  }
  const maxPositions = reader.number('max_position_embeddings', 2048);
  const optional = (key: string, name: string): Record<string, number> => {
    const value = parameters.optionalNumber(key);
    return value === undefined ? {} : { [name]: value };
  };
  const original =
    reader.optionalNumber('original_max_position_embeddings') ??
    parameters.optionalNumber('original_max_position_embeddings');
  const factorsOf = (key: string): number[] | undefined => {
    const factors = parameters.numbers(key);
    if (factors && factors.length !== dims / 2) {
      throw new InputError(`${parameters.path}: "${key}" has ${factors.length} entries; expected ${dims / 2}`);
    }
    return factors;
  };
  const shortFactors = factorsOf('short_factor');
  const longFactors = factorsOf('long_factor');
  if (type === 'longrope' && (!shortFactors || !longFactors)) {
    throw new InputError(`${parameters.path}: longrope needs "short_factor" and "long_factor"`);
  }
  return {
    type,
    theta,
    dims,
    maxPositions,
    ...optional('factor', 'factor'),
    ...optional('attention_factor', 'attentionFactor'),
    ...optional('low_freq_factor', 'lowFrequencyFactor'),
    ...optional('high_freq_factor', 'highFrequencyFactor'),
    ...optional('beta_fast', 'betaFast'),
    ...optional('beta_slow', 'betaSlow'),
    ...optional('mscale', 'mscale'),
    ...optional('mscale_all_dim', 'mscaleAllDims'),
    ...(original !== undefined && { originalMaxPositions: original }),
    truncate: parameters.boolean('truncate', true),
    ...(shortFactors && { shortFactors }),
    ...(longFactors && { longFactors }),
  };
}
