import { InputError } from '../errors.js';
import { matchesPattern } from '../formats/name-patterns.js';
import type { PlannedTensor } from '../formats/safetensors-writer.js';
import { DTYPE_BYTES, type DType, type TensorInfo } from '../formats/tensor.js';
import { isFactorisedStore } from '../models/factorised-store.js';
import { readJson } from '../models/model-files.js';
import { isPvqStore } from '../models/pvq-store.js';
import { EXTENSION_TYPE, openExpertModel } from './expert-layout.js';
import { type ExpertModel, expertTensorNames } from './expert-model.js';
import { expertParts } from './expert-reader.js';
import type { RowScore } from './losparse.js';

/** `factorised`: the parts of W ~ L R + S, which this tool reads. `dense`: W ~ L R + S multiplied out, as large as before. */
export const COMPRESSED_FORMS = ['factorised', 'dense'] as const;
export type CompressedForm = (typeof COMPRESSED_FORMS)[number];

/** Matrices that share a number of rows: each on its own, those of a layer, those of the model. */
export const ROW_SCOPES = ['matrix', 'layer', 'model'] as const;
export type RowScope = (typeof ROW_SCOPES)[number];

/** What decides the bytes of a compressed model, besides the model and what rows are scored by. */
export interface CompressSettings {
  readonly form: CompressedForm;
  /** r of L R; matrices with a smaller side get that. */
  readonly rank: number;
  /** Share of the entries of S that stay, as whole rows. */
  readonly keepRows: number;
  readonly scope: RowScope;
  readonly score: RowScore;
  /** Patterns of the matrices to compress; default all of the experts. */
  readonly tensors?: readonly string[];
  /** 0-based decoder layers that stay as they are. */
  readonly excluded?: readonly number[];
  readonly oversamples: number;
  readonly powerIterations: number;
  /** The effective rank of every matrix, from its whole spectrum. */
  readonly spectra: boolean;
  readonly seed: number;
}

/** One matrix of one expert. */
export interface ExpertMatrixPlan {
  /** Place in `model.layers`. */
  readonly index: number;
  /** Decoder layer. */
  readonly layer: number;
  readonly expert: number;
  readonly role: 'gate' | 'up' | 'down';
  /** Under this name a reader finds the matrix; that of the source, where experts are stored one by one. */
  readonly name: string;
  /** [out, in]. */
  readonly rows: number;
  readonly columns: number;
  readonly rank: number;
  readonly dtype: DType;
}

export interface CompressPlan {
  /** Matrices that are compressed: layers, experts, then gate, up, down. */
  readonly matrices: readonly ExpertMatrixPlan[];
  /** Matrices that are not, of tensors that hold others that are: they are written one by one as they were. */
  readonly split: readonly ExpertMatrixPlan[];
  /** Tensors of the source that are replaced. */
  readonly replaced: ReadonlySet<string>;
}

/**
 * Opens a model whose experts can be compressed: also one that was merged into the tool's own extension.
 * @throws InputError as `openExpertModel`, and for experts that were compressed or quantised already
 */
export function openCompressible(location: string): ExpertModel {
  let own = false;
  try {
    own = readJson(`${location}/config.json`).model_type === EXTENSION_TYPE;
  } catch {
    // What is wrong with the directory is said below.
  }
  const model = openExpertModel(location, { merged: own ? 'read' : 'refuse' });
  if (!isFactorisedStore(model.store) && !isPvqStore(model.store)) return model;
  model.close();
  throw new InputError(
    `${location}: its experts were compressed or quantised by surprisal already: compress the model that was merged`,
  );
}

/** Names that this tool reads a single matrix of a fused tensor by. */
function separateName(fused: string, expert: number, role: ExpertMatrixPlan['role']): string {
  const prefix = fused.replace(/\.experts\.(gate_up|down)_proj(\.weight)?$/, '');
  const mixtral = { gate: 'w1', up: 'w3', down: 'w2' }[role];
  const own = prefix.endsWith('.block_sparse_moe') ? mixtral : `${role}_proj`;
  return `${prefix}.experts.${expert}.${own}.weight`;
}

/**
 * Which matrices are compressed, and which tensors they take the place of.
 * @throws InputError for layers or patterns that name nothing, and for a factorised form of a model that this tool does not run
 */
export function planCompression(model: ExpertModel, settings: CompressSettings): CompressPlan {
  const { form, rank, tensors = [], excluded = [] } = settings;
  if (form === 'factorised' && !model.runs) {
    throw new InputError(
      `${model.path}: factors are read by this tool alone, and it has no forward pass of ${model.family}: pass --form dense`,
    );
  }
  for (const layer of excluded) {
    if (!model.layers.some((each) => each.layer === layer)) {
      throw new InputError(`${model.path}: layer ${layer} has no experts that could be kept as they are`);
    }
  }
  const used = new Set<string>();
  const isWanted = (layer: number, name: string): boolean => {
    const matching = tensors.filter((pattern) => matchesPattern(name, pattern));
    for (const pattern of matching) used.add(pattern);
    return (tensors.length === 0 || matching.length > 0) && !excluded.includes(layer);
  };
  const matrices: ExpertMatrixPlan[] = [];
  const others: (ExpertMatrixPlan & { readonly tensor: string })[] = [];
  const replaced = new Set<string>();
  model.layers.forEach((layer, index) => {
    for (let expert = 0; expert < layer.experts; expert++) {
      for (const { role, tensor, rows, columns } of expertParts(layer, model.layout, expert)) {
        const name = model.layout === 'separate' ? tensor : separateName(tensor, expert, role);
        const sizes = { rows, columns, rank: Math.min(rank, rows, columns), dtype: layer.dtype };
        const matrix = { index, layer: layer.layer, expert, role, name, ...sizes };
        if (isWanted(layer.layer, name)) {
          matrices.push(matrix);
          replaced.add(tensor);
        } else {
          others.push({ ...matrix, tensor });
        }
      }
    }
  });
  const unused = tensors.find((pattern) => !used.has(pattern));
  if (unused !== undefined) {
    throw new InputError(
      `--tensors ${unused}: matches no matrix of an expert; they are named like ${others[0]?.name ?? matrices[0].name}`,
    );
  }
  if (matrices.length === 0)
    throw new InputError(`${model.path}: every layer with experts stays as it is: there is nothing to compress`);
  return { matrices, split: others.filter(({ tensor }) => replaced.has(tensor)), replaced };
}

/** Names of all tensors that hold experts, in the layers' order. */
export function expertTensors(model: ExpertModel): string[] {
  return model.layers.flatMap(({ tensors, experts }) => expertTensorNames(tensors, experts));
}

/** How a matrix is stored once its rows are known. */
export interface StoredMatrix {
  readonly plan: ExpertMatrixPlan;
  /** Rows of S that stay; undefined where the matrix is written as it was, since its parts would take more. */
  readonly sparseRows?: Int32Array;
}

/** Bytes of L, R, the numbers of the rows and the rows. */
export function factorisedBytes({ rows, columns, rank, dtype }: ExpertMatrixPlan, sparseRows: number): number {
  const size = DTYPE_BYTES[dtype];
  return rank * (rows + columns) * size + sparseRows * (4 + columns * size);
}

export const denseBytes = ({ rows, columns, dtype }: ExpertMatrixPlan): number => rows * columns * DTYPE_BYTES[dtype];

/** Tensors of a matrix in the file. */
export function storedTensors({ plan, sparseRows }: StoredMatrix): PlannedTensor[] {
  const { name, rows, columns, rank, dtype } = plan;
  if (sparseRows === undefined) return [{ name, dtype, shape: [rows, columns] }];
  return [
    { name: `${name}.low_rank_left`, dtype, shape: [rows, rank] },
    { name: `${name}.low_rank_right`, dtype, shape: [rank, columns] },
    ...(sparseRows.length === 0
      ? []
      : ([
          { name: `${name}.sparse_rows`, dtype: 'I32', shape: [sparseRows.length] },
          { name: `${name}.sparse_values`, dtype, shape: [sparseRows.length, columns] },
        ] as const)),
  ];
}

export const copiedTensor = ({ name, dtype, shape }: TensorInfo): PlannedTensor => ({
  name,
  dtype: dtype as DType,
  shape,
});
