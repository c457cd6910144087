import path from 'node:path';
import { InputError, RunError } from '../errors.js';
import { type AtomicDirectory, type AtomicOptions, createAtomicDirectory } from '../formats/atomic.js';
import { fileError } from '../formats/files.js';
import type { HashedFile } from '../formats/hash.js';
import { SAFETENSORS_INDEX } from '../formats/safetensors.js';
import { encodeIndex, layOutSafetensors, type PlannedTensor, planShards } from '../formats/safetensors-writer.js';
import { DTYPE_BYTES } from '../formats/tensor.js';
import { differingKey, hashBytes, readWorkFile } from '../formats/work-files.js';
import { FACTORISED_KEY } from '../models/factorised-store.js';
import {
  changedConfig,
  copySmallFiles,
  createHashedOutput,
  tensorBytes,
  writeHashed,
} from '../models/model-directory.js';
import { buildReport, type Report, type ReportHead, serializeReport, validateReport } from '../report/json.js';
import { encodeSparseRows, factoriseMatrix, factorType } from './compress-matrix.js';
import {
  type CompressPlan,
  type CompressSettings,
  copiedTensor,
  denseBytes,
  type ExpertMatrixPlan,
  factorisedBytes,
  planCompression,
  type StoredMatrix,
  storedTensors,
} from './compress-plan.js';
import {
  COMPRESS_SCHEMA,
  type CompressedMatrix,
  compressBody,
  compressedMatrix,
  type WeighedMatrix,
} from './compress-report.js';
import { denseTensorBytes, multipliedOut } from './dense-experts.js';
import { encodeValues } from './expert-encoding.js';
import type { ExpertModel } from './expert-model.js';
import { expertParts, type ReadExpert, readExpert } from './expert-reader.js';
import { type FactorJournal, type MatrixFactors, openFactorJournal, removeFactorJournal } from './factor-journal.js';
import { selectRows } from './losparse.js';
import type { RowWeightSource } from './row-weights.js';

const MANIFEST_FILE = 'manifest.json';
const DEFAULT_SHARD_BYTES = 5e9;

export interface CompressOptions extends AtomicOptions {
  readonly settings: CompressSettings;
  readonly weights: RowWeightSource;
  readonly out: string;
  /** What decides the bytes: a run that resumes must repeat its parameters and inputs. */
  readonly head: Omit<ReportHead, 'name'>;
  readonly maxShardBytes?: number;
  readonly threads?: number;
  /** Called before each matrix and waited for, so that signals are served in between. */
  readonly progress?: (done: number, total: number, name: string) => Promise<void>;
}

export interface CompressedModel {
  readonly report: Report;
  /** Empty where a run with `resume` found the output complete. */
  readonly matrices: readonly CompressedMatrix[];
}

/** One expert at a time. */
function expertCache(model: ExpertModel, threads: number | undefined): (matrix: ExpertMatrixPlan) => Float32Array {
  let held: { readonly index: number; readonly expert: number; readonly read: ReadExpert } | undefined;
  return ({ index, expert, role, name }) => {
    if (held?.index !== index || held.expert !== expert) {
      // Buffers of the last expert serve again where sizes allow.
      const same = held !== undefined && held.index === index ? held.read : undefined;
      held = { index, expert, read: readExpert(model, index, expert, threads, same) };
    }
    const matrix = held.read[role];
    if (matrix === undefined) throw new RangeError(`${name}: the expert has no such matrix`);
    return matrix;
  };
}

/** The manifest of a complete output of this very run. @throws InputError when another run made it */
function finishedRun(out: string, head: Omit<ReportHead, 'name'>): Report | undefined {
  const manifest = readWorkFile(path.join(out, MANIFEST_FILE)) as Report | undefined;
  if (manifest === undefined || manifest.schema !== `surprisal/${COMPRESS_SCHEMA}`) return undefined;
  const { parameters, inputs } = buildReport({ ...head, name: COMPRESS_SCHEMA }, {});
  const differing = differingKey({ parameters: manifest.parameters, inputs: manifest.inputs }, { parameters, inputs });
  if (differing === undefined) return manifest;
  throw new InputError(
    `${out}: is complete, and was made with another "${differing}": pass --force to replace it, or choose another path`,
  );
}

/**
 * Writes a model whose expert matrices are W ~ L R + S, low rank and whole rows of what is left (MC-SMoE 2023, after LoSparse
 * 2023). A first pass over the experts finds the factors, which wait in a journal, and what each row of S is worth; the rows
 * that stay are chosen; a second pass writes. One expert is in memory. A run that was killed goes on behind its last matrix.
 * @throws InputError for what cannot be compressed, an output that exists, an interrupted run that differs, or values that are
 * not finite; RunError for a full disk
 */
export async function compressModel(model: ExpertModel, options: CompressOptions): Promise<CompressedModel> {
  const { settings, out, head, force, resume } = options;
  const plan = planCompression(model, settings);
  const finished = resume === true && force !== true ? finishedRun(out, head) : undefined;
  if (finished !== undefined) return { report: finished, matrices: [] };
  const directory = createAtomicDirectory(out, { force, resume, resumable: true });
  const identity = identityOf(head, plan);
  const journal = openFactorJournal(
    out,
    directory,
    identity,
    plan.matrices,
    ({ dtype }) => DTYPE_BYTES[factorType(settings.form, dtype)],
  );
  try {
    await factorise(model, plan, journal, options);
    const stored = chooseRows(plan, settings, journal);
    const outcome = await writeModel(model, plan, stored, journal, directory, options);
    const report = buildReport({ ...head, name: COMPRESS_SCHEMA }, compressBody(model, settings, outcome));
    validateReport(report, path.join(out, MANIFEST_FILE));
    removeFactorJournal(directory);
    writeHashed(directory.path, MANIFEST_FILE, serializeReport(report));
    directory.commit();
    return { report, matrices: outcome.matrices.map(({ matrix }) => matrix) };
  } catch (error) {
    directory.abort();
    throw fileError(error, out, 'write');
  } finally {
    journal.close();
  }
}

function identityOf(head: Omit<ReportHead, 'name'>, { matrices }: CompressPlan): unknown {
  const { parameters, inputs } = buildReport({ ...head, name: COMPRESS_SCHEMA }, {});
  return { version: 1, parameters, inputs, matrices: hashBytes(Buffer.from(JSON.stringify(matrices))) };
}

/** First pass: factors and scores of every matrix that the journal does not have. */
async function factorise(
  model: ExpertModel,
  { matrices }: CompressPlan,
  journal: FactorJournal,
  { settings, weights, threads, progress }: CompressOptions,
): Promise<void> {
  const read = expertCache(model, threads);
  while (journal.done < matrices.length) {
    const matrix = matrices[journal.done];
    await progress?.(journal.done, 2 * matrices.length, matrix.name);
    journal.append(factoriseMatrix(matrix, read(matrix), settings, weights.weightsOf(matrix), threads));
  }
}

/** Which rows stay, and which matrices take fewer bytes as they are. */
function chooseRows({ matrices }: CompressPlan, settings: CompressSettings, journal: FactorJournal): StoredMatrix[] {
  const groups = new Map<string, number[]>();
  matrices.forEach(({ index }, place) => {
    const key = { matrix: `${place}`, layer: `${index}`, model: '' }[settings.scope];
    groups.set(key, [...(groups.get(key) ?? []), place]);
  });
  const chosen: Int32Array[] = [];
  for (const places of groups.values()) {
    const candidates = places.map((place) => ({
      scores: journal.read(place).scores,
      columns: matrices[place].columns,
    }));
    selectRows(candidates, settings.keepRows).forEach((rows, i) => {
      chosen[places[i]] = rows;
    });
  }
  return matrices.map((plan, place) => {
    const sparseRows = chosen[place];
    const smaller = settings.form === 'dense' || factorisedBytes(plan, sparseRows.length) < denseBytes(plan);
    return { plan, ...(smaller && { sparseRows }) };
  });
}

/** A tensor of the output with what gives its bytes. */
interface OutputTensor {
  readonly planned: PlannedTensor;
  readonly bytes: () => Iterable<Uint8Array>;
}

/** Second pass: what it needs of every matrix, one at a time, and the errors that it notes. */
interface SecondPass {
  readonly read: (matrix: ExpertMatrixPlan) => Float32Array;
  readonly factorsOf: (place: number) => MatrixFactors;
  readonly errorSquares: Float64Array;
  readonly threads?: number;
}

const int32Bytes = (values: Int32Array): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

const sumOver = (values: Float64Array, rows: Iterable<number>): number => {
  let sum = 0;
  for (const row of rows) sum += values[row];
  return sum;
};

/** The tensors of one matrix in the factorised form. */
function matrixOutputs(stored: StoredMatrix, place: number, pass: SecondPass): OutputTensor[] {
  const { plan, sparseRows } = stored;
  const { read, factorsOf, errorSquares, threads } = pass;
  const planned = storedTensors(stored);
  if (sparseRows === undefined) {
    return [{ planned: planned[0], bytes: () => [encodeValues(read(plan), plan.dtype, plan.name, threads)] }];
  }
  const dropped = (): number => {
    const all = factorsOf(place).residualSquares;
    const kept = new Set(sparseRows);
    return sumOver(
      all,
      [...all.keys()].filter((row) => !kept.has(row)),
    );
  };
  const values = (): Uint8Array => {
    const sparse = encodeSparseRows(plan, read(plan), factorsOf(place), sparseRows, threads);
    errorSquares[place] += sparse.errorSquares;
    return sparse.bytes;
  };
  const left = (): Uint8Array => {
    errorSquares[place] += dropped();
    return factorsOf(place).left;
  };
  const makers = [left, () => factorsOf(place).right, () => int32Bytes(sparseRows), values];
  return planned.map((tensor, i) => ({ planned: tensor, bytes: () => [makers[i]()] }));
}

/** All tensors of the output, in the order of the source. */
function outputTensors(
  model: ExpertModel,
  plan: CompressPlan,
  stored: readonly StoredMatrix[],
  pass: SecondPass,
  form: CompressSettings['form'],
): OutputTensor[] {
  const places = new Map(plan.matrices.map(({ name }, place) => [name, place]));
  const bySource = new Map<string, ExpertMatrixPlan[]>();
  const roles = ['gate', 'up', 'down'];
  const all = [...plan.matrices, ...plan.split].sort(
    (a, b) => a.index - b.index || a.expert - b.expert || roles.indexOf(a.role) - roles.indexOf(b.role),
  );
  for (const matrix of all) {
    const part = expertParts(model.layers[matrix.index], model.layout, matrix.expert).find(
      ({ role }) => role === matrix.role,
    );
    if (part === undefined) throw new RangeError(`${matrix.name}: is no part of its expert`);
    bySource.set(part.tensor, [...(bySource.get(part.tensor) ?? []), matrix]);
  }
  const valuesOf = (matrix: ExpertMatrixPlan): Float32Array => {
    const place = places.get(matrix.name);
    const rows = place === undefined ? undefined : stored[place].sparseRows;
    if (place === undefined || rows === undefined) return pass.read(matrix);
    const result = multipliedOut(matrix, pass.read(matrix), pass.factorsOf(place), rows, pass.threads);
    pass.errorSquares[place] += result.errorSquares;
    return result.values;
  };
  return [...model.store.tensors.values()].flatMap((info): OutputTensor[] => {
    const own = plan.replaced.has(info.name) ? bySource.get(info.name) : undefined;
    if (own === undefined) return [{ planned: copiedTensor(info), bytes: () => tensorBytes(model.store, info) }];
    if (form === 'dense') {
      const bytes = (): Iterable<Uint8Array> => denseTensorBytes(model.layout, own, valuesOf, pass.threads);
      return [{ planned: copiedTensor(info), bytes }];
    }
    return own.flatMap((matrix) => {
      const place = places.get(matrix.name);
      return place === undefined
        ? matrixOutputs({ plan: matrix }, -1, pass)
        : matrixOutputs(stored[place], place, pass);
    });
  });
}

async function writeModel(
  model: ExpertModel,
  plan: CompressPlan,
  stored: readonly StoredMatrix[],
  journal: FactorJournal,
  directory: AtomicDirectory,
  options: CompressOptions,
): Promise<{ matrices: WeighedMatrix[]; bytesBefore: number; bytesAfter: number; files: HashedFile[] }> {
  const { settings, threads, progress, maxShardBytes = DEFAULT_SHARD_BYTES } = options;
  let held: { readonly place: number; readonly factors: MatrixFactors } | undefined;
  const factorsOf = (place: number): MatrixFactors => {
    if (held?.place !== place) held = { place, factors: journal.read(place) };
    return held.factors;
  };
  const errorSquares = new Float64Array(stored.length);
  const pass = {
    read: expertCache(model, threads),
    factorsOf,
    errorSquares,
    ...(threads !== undefined && { threads }),
  };
  const outputs = outputTensors(model, plan, stored, pass, settings.form);
  const makers = new Map(outputs.map(({ planned, bytes }) => [planned.name, bytes]));
  const shards = planShards(
    outputs.map(({ planned }) => planned),
    maxShardBytes,
  );
  const metadata = { format: 'pt', ...(settings.form === 'factorised' && { [FACTORISED_KEY]: '{"version":1}' }) };
  const files: HashedFile[] = [];
  let [bytesAfter, done] = [0, 0];
  for (const { fileName, tensors } of shards) {
    const { header, order, byteLength } = layOutSafetensors(tensors, metadata);
    bytesAfter += byteLength - header.length;
    const output = createHashedOutput(directory.path, fileName);
    output.write(header);
    for (const { name } of order) {
      const matrices = plan.matrices.length;
      await progress?.(matrices + Math.floor((matrices * done++) / outputs.length), 2 * matrices, name);
      const maker = makers.get(name);
      if (maker === undefined) throw new RunError(`${name}: nothing gives its bytes`);
      for (const bytes of maker()) output.write(bytes);
    }
    files.push(output.commit());
  }
  if (shards.length > 1) files.push(writeHashed(directory.path, SAFETENSORS_INDEX, encodeIndex(shards, bytesAfter)));
  files.push(...writeCompanions(model, directory.path, settings.form));
  const matrices = stored.map((matrix, place) => {
    const { figures, residualSquares } = journal.read(place);
    const whole = sumOver(residualSquares, residualSquares.keys());
    const record = compressedMatrix(matrix, figures, settings.form, errorSquares[place], whole);
    return { matrix: record, squares: figures.norm ** 2 };
  });
  const bytesBefore = [...model.store.tensors.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
  return { matrices, bytesBefore, bytesAfter, files: files.sort((a, b) => (a.name < b.name ? -1 : 1)) };
}

function writeCompanions(model: ExpertModel, target: string, form: CompressSettings['form']): HashedFile[] {
  // Without "quant_method": transformers skips one that it does not know, and would draw the missing weights at random;
  // where there is none it refuses.
  const changes =
    form === 'factorised' ? { quantization_config: { format: 'surprisal_factorised', reader: 'surprisal' } } : {};
  const config = changedConfig(model.path, changes);
  return [
    ...(config === undefined ? [] : [writeHashed(target, 'config.json', config)]),
    ...copySmallFiles(model.path, target),
  ];
}
