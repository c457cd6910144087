import { InputError } from '../errors.js';
import type { AtomicOptions } from '../formats/atomic.js';
import { quoted } from '../formats/files.js';
import { type ImportanceMatrix, type ImportanceSums, openImatrix, writeImatrix } from '../formats/imatrix.js';
import type { ModelDescription } from '../models/description.js';
import { type LinearInput, linearInputs, weightsReading } from '../models/linear-inputs.js';
import type { ModelWeights } from '../models/weights.js';
import type { Hessians } from './hessian-file.js';

/** Importance of the columns of a weight's input. */
export interface ColumnImportance {
  /** Mean of the squares of every column, [columns]: the diagonal of a Hessian up to a factor. */
  readonly meanSquares: Float64Array;
  /** Rows that were averaged (chunks of text in an old binary file); with 0 all columns weigh 1. */
  readonly count: number;
  /** Name of the entry that gave it, `#expert` for a row of a stack. */
  readonly entry: string;
}

/** An importance matrix, for the weights of one model. */
export interface Importance {
  readonly matrix: ImportanceMatrix;
  /** By the name of a weight in a Hugging Face checkpoint, in a GGUF file, or as stored; undefined without an entry. */
  of(weight: string): ColumnImportance | undefined;
  /** Inputs of the model, LM head and router aside, for which the file has no entry. */
  readonly missing: readonly string[];
}

/**
 * Reads an importance matrix of llama.cpp for a model: GGUF names are matched with the model's own. Weights that read one
 * input share what was found for any of them.
 * @param weights the model's stored weights, whose names are known then too
 * @throws InputError for a damaged file, and naming the first tensor whose width is not that of the model
 */
export function openImportance(path: string, model: ModelDescription, weights?: ModelWeights): Importance {
  const matrix = openImatrix(path);
  const byWeight = new Map<string, ColumnImportance>();
  const missing: string[] = [];
  for (const input of linearInputs(model)) {
    const names = weightsReading(model, input, weights);
    const found = names.map((name) => columnsOf(matrix, name, input, expertsOf(model, input))).find(Boolean);
    if (found) for (const name of names) byWeight.set(name, found);
    else if (input.tap !== undefined) missing.push(input.name);
  }
  if (byWeight.size === 0) {
    const [first] = matrix.entries.keys();
    throw new InputError(
      `${path}: none of its ${matrix.entries.size} tensors (${quoted(first)}, ...) is a weight of this ${model.modelType} ` +
        "model; it is another model's",
    );
  }
  return { matrix, of: (weight) => byWeight.get(weight), missing };
}

function expertsOf(model: ModelDescription, input: LinearInput): number {
  const mlp = model.layers[input.layer]?.mlp;
  return mlp?.kind === 'moe' ? mlp.experts : 1;
}

function columnsOf(
  matrix: ImportanceMatrix,
  name: string,
  input: LinearInput,
  experts: number,
): ColumnImportance | undefined {
  const [base, slice] = name.split('#');
  const entry = matrix.entries.get(base);
  if (!entry) return undefined;
  const { columns } = input;
  const matrices = slice === undefined ? 1 : experts;
  if (entry.meanSquares.length !== matrices * columns) {
    const wanted = matrices === 1 ? `${columns}` : `${matrices} x ${columns}`;
    throw new InputError(
      `${matrix.path}: tensor ${quoted(base)} has ${entry.meanSquares.length} values where the model's weight has ` +
        `${wanted} inputs; it is another model's`,
    );
  }
  const row = slice === undefined ? 0 : Number(slice);
  return {
    meanSquares: Float64Array.from(entry.meanSquares.subarray(row * columns, (row + 1) * columns)),
    count: entry.counts[entry.counts.length === matrices ? row : 0],
    entry: name,
  };
}

/** Names of old GGUF files with a tensor an expert: stacks took their place. */
const SINGLE_EXPERT = /^blk\.\d+\.ffn_\w+\.\d+\.weight$/;

/**
 * Writes what Hessians know of the columns' squares as an importance matrix under GGUF names, for llama.cpp: GGUF, or the
 * old binary form where the name ends in `.dat`.
 * @param datasets names of the calibration texts, for the file
 */
export function exportImportance(
  path: string,
  hessians: Hessians,
  datasets: readonly string[],
  options: AtomicOptions = {},
): void {
  const entries = new Map<string, { counts: number[]; sums: Float64Array[] }>();
  for (const { name, weights } of hessians.header.inputs) {
    const { tokens, sumSquares } = hessians.moments(name);
    for (const weight of weights) {
      if (!/^(blk\.\d+\..*|output\.weight)/.test(weight) || SINGLE_EXPERT.test(weight)) continue;
      const [base, slice] = weight.split('#');
      const entry = entries.get(base) ?? { counts: [], sums: [] };
      entry.counts[Number(slice ?? 0)] = tokens;
      entry.sums[Number(slice ?? 0)] = sumSquares;
      entries.set(base, entry);
    }
  }
  const { tokens, windowTokens } = hessians.header;
  const source = { chunks: Math.ceil(tokens / windowTokens), chunkTokens: windowTokens, datasets };
  const sums = [...entries].map(([name, { counts, sums }]): ImportanceSums => {
    const columns = sums[0].length;
    const all = new Float64Array(columns * sums.length);
    sums.forEach((row, i) => {
      all.set(row, i * columns);
    });
    return { name, sumSquares: all, counts };
  });
  writeImatrix(path, sums, source, options);
}
