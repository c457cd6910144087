import { statSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { resolveModelPath } from '../src/formats/hub.js';
import type { InputDigest, InputLedger } from '../src/formats/inputs.js';
import { MODEL_TYPES } from '../src/models/architectures.js';
import { openModelFiles, readJson } from '../src/models/model-files.js';
import { hashModelFiles } from '../src/models/model-hash.js';
import type { SteeringVectors } from '../src/steering/types.js';
import { chooseBlocks, type WeightedVectors } from '../src/steering/vector-algebra.js';
import {
  checkVectorsFit,
  type FittedModel,
  readSteeringVectors,
  VECTOR_FORMATS,
  VECTOR_POINTS,
  vectorFormat,
} from '../src/steering/vector-files/vector-files.js';
import { parseChoice, parseIndices, parseInteger, parseNumber } from './edge-values.js';
import { modelDigests } from './model-digests.js';
import { requireOption } from './shared-options.js';
import { parseVectorRequest } from './steer-options.js';

/** How files of vectors are read; options of every command that turns them into something else. */
export interface VectorFileOptions {
  vector?: string[];
  strength?: string;
  layer?: string;
  from?: string;
  fileLayer?: string;
  cvectorShift?: string;
  point?: string;
  anyModel?: boolean;
}

/** Largest number of blocks that a vector is shifted by. */
const MOST_SHIFT = 1000;

/** Declares {@link VectorFileOptions}. @param strength what a file has without one of its own, as the help says it */
export function addVectorFileOptions(command: Command, strength: string): Command {
  return command
    .option(
      '--vector <file...>',
      'vectors (.safetensors .gguf .json .svec .pt .npy, or a folder of vec_layer_N_MODEL.pt); file, file:strength or file:strength=2,layer=8-10',
    )
    .option('--strength <beta>', `factor of files without one of their own (default ${strength})`)
    .option('--layer <list>', 'blocks that are taken of each file, from 0, such as 4-12 (default: all it holds)')
    .option('--from <format>', `format of the files whatever their names (${VECTOR_FORMATS.join(', ')})`)
    .option('--file-layer <n>', 'block of a .npy or .pt file, which does not say it; of several rows the first')
    .option('--cvector-shift <n>', 'added to the blocks that the files name; -1 for those of cvector-generator')
    .option(
      '--point <which>',
      `${VECTOR_POINTS.join(' or ')}: where a file puts its vectors that are learnt at another point (default applied)`,
    )
    .option('--any-model', 'take vectors whose model has other weights, if architecture, hidden size and blocks fit');
}

/** Vectors of one file, and what was said of it. */
export interface VectorSource extends WeightedVectors {
  readonly format: string;
}

function parseOr<T>(text: string | undefined, parse: (text: string) => T): T | undefined {
  return text === undefined ? undefined : parse(text);
}

/** Reads the files of `--vector` in their order, each with its strength, checked against the model where there is one. */
export function readVectorSources(
  own: VectorFileOptions,
  defaultStrength: number,
  ledger: InputLedger,
  model?: FittedModel,
): VectorSource[] {
  const names = requireOption(own.vector, '--vector', 'the files of vectors');
  const strength = parseOr(own.strength, (text) => parseNumber('--strength', text)) ?? defaultStrength;
  const layers = parseOr(own.layer, (text) => parseIndices('--layer', text));
  return names.map((text) => {
    const request = parseVectorRequest(text);
    const vectors = readOne(request.file, own, ledger);
    if (model) checkVectorsFit(vectors, own.anyModel === true ? withoutHash(model) : model);
    const blocks = request.layers ?? layers;
    const chosen = blocks === undefined ? vectors : chooseBlocks({ name: request.file, vectors }, blocks);
    const meant = request.operator ? { ...chosen.origin, operator: request.operator } : chosen.origin;
    return {
      name: request.file,
      format: formatOf(request.file, own),
      weight: request.strength ?? strength,
      vectors: { ...chosen, origin: meant },
    };
  });
}

function withoutHash({ sha256: _, ...model }: FittedModel): FittedModel {
  return model;
}

function formatOf(file: string, own: VectorFileOptions): string {
  if (statSync(file).isDirectory()) return 'caa';
  return vectorFormat(
    file,
    parseOr(own.from, (text) => parseChoice('--from', text, VECTOR_FORMATS)),
  );
}

function readOne(file: string, own: VectorFileOptions, ledger: InputLedger): SteeringVectors {
  const layer = parseOr(own.fileLayer, (text) => parseInteger('--file-layer', text, -1, 1e6));
  const shift = parseOr(own.cvectorShift, (text) => parseInteger('--cvector-shift', text, -MOST_SHIFT, MOST_SHIFT));
  const point = parseOr(own.point, (text) => parseChoice('--point', text, VECTOR_POINTS));
  const format = parseOr(own.from, (text) => parseChoice('--from', text, VECTOR_FORMATS));
  const vectors = readSteeringVectors(file, {
    ...(layer !== undefined && { layer }),
    ...(shift !== undefined && { shift }),
    ...(point !== undefined && { point }),
    ...(format !== undefined && { format }),
  });
  if (statSync(file).isFile()) ledger.note(file);
  return vectors;
}

/** What `--model` says of the stream, from its headers, with the digests of its files. */
export interface VectorModel {
  readonly spec: string;
  readonly path: string;
  readonly fitted: FittedModel & { readonly modelType: string; readonly layers: number; readonly hiddenSize: number };
  readonly digests: readonly InputDigest[];
}

/** @throws InputError for an ONNX export, and a configuration that does not say its sizes */
export async function openVectorModel(spec: string): Promise<VectorModel> {
  const { path } = resolveModelPath(spec, process.env);
  if (/\.onnx$/i.test(path)) {
    throw new InputError(`${spec}: an ONNX export does not say its architecture; name the model that it was made from`);
  }
  const sizes = sizesOf(path);
  const { digests, files } = await modelDigests(spec, path);
  return { spec, path, digests, fitted: { path: spec, ...sizes, sha256: hashModelFiles(files) } };
}

function sizesOf(path: string): { modelType: string; layers: number; hiddenSize: number } {
  if (statSync(path).isDirectory()) {
    const file = join(path, 'config.json');
    const config = statSync(file, { throwIfNoEntry: false }) ? readJson(file) : {};
    const { model_type: modelType } = config;
    const hiddenSize = config.hidden_size ?? config.n_embd;
    const layers = config.num_hidden_layers ?? config.n_layer;
    // A type that the engine does not run can still have vectors.
    if (typeof modelType === 'string' && !MODEL_TYPES.includes(modelType)) {
      if (typeof hiddenSize === 'number' && typeof layers === 'number') return { modelType, layers, hiddenSize };
      throw new InputError(`${file}: a ${modelType} model without hidden_size or num_hidden_layers`);
    }
  }
  const { description, store } = openModelFiles(path);
  store.close();
  const { modelType, hiddenSize, layers } = description;
  return { modelType, hiddenSize, layers: layers.length };
}
