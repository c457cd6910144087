import fs from 'node:fs';
import path from 'node:path';
import { RunError } from '../errors.js';
import { createAtomicDirectory } from '../formats/atomic.js';
import { updateCrc32 } from '../formats/crc32.js';
import { fileError, quoted } from '../formats/files.js';
import type { HashedFile } from '../formats/hash.js';
import { matrixOf } from '../formats/pvq.js';
import { hashBytes } from '../formats/work-files.js';
import type { EncodedRows } from '../kernels/pyramid.js';
import { sha256Tensor, writeHashed } from '../models/model-directory.js';
import { type Report, type ReportHead, serializeReport, validateReport } from '../report/json.js';
import { toJsonValue } from '../report/values.js';
import { assembleFile, type CompanionOptions, writeCompanions } from './pvq-assembly.js';
import type { PvqFilePlan } from './pvq-layout.js';
import { MANIFEST_FILE, manifestOf } from './pvq-manifest.js';
import { encodeParts, type FinishedTensor, type FlatRecord } from './pvq-parts.js';
import { blobName, checkSameRun, finishedManifest, identityOf, takeOver, WORK_FOLDER } from './pvq-resume.js';

/** `store` is the source as it is to be stored: copied tensors are read from there. */
export interface PvqWriterOptions extends CompanionOptions {
  /** The directory that will appear when all is written. */
  readonly out: string;
  /** Head of the manifest. Its parameters and inputs say whether an interrupted run is continued by this one. */
  readonly head: Omit<ReportHead, 'name'>;
  readonly force?: boolean;
  readonly resume?: boolean;
}

/** What belongs to a tensor beside its rows. */
export interface TensorEntry {
  /** SHA-256 of the source's bytes; computed when absent. */
  readonly sourceSha256?: string;
  /** Figures for the manifest, such as `sqnr_db` and `cosine`. */
  readonly record?: FlatRecord;
}

export interface PvqWriter {
  /** `--resume` found the finished directory of the same run: nothing is left to do. */
  readonly complete: boolean;
  /** Whether a tensor was finished by an earlier run with the same parameters, or by this one. */
  hasTensor(name: string): boolean;
  /** Its figures, as they were given. */
  recordOf(name: string): FlatRecord | undefined;
  /** Bytes that a finished tensor takes in the files. */
  bytesOf(name: string): { readonly payload: number; readonly metadata: number };
  /**
   * Stores a tensor, in any order of tensors. A file whose quantised tensors are all there is assembled at once.
   * @throws RunError when the disk is full; what was finished before stays for `--resume`
   */
  writeTensor(name: string, encoded: EncodedRows, entry?: TensorEntry): void;
  /**
   * Writes what is left, the manifest last, and gives the directory its name.
   * @param body further figures of the manifest
   */
  commit(body?: FlatRecord): Report;
  /** Leaves the output unwritten. Finished tensors are kept for `--resume` unless `discard` is set. */
  abort(discard?: boolean): void;
}

/**
 * Opens the directory of a quantised model for writing. It is filled under a temporary name beside `out`; finished
 * tensors and files stay there when the run ends early, and a run with `resume`, the same parameters and the same
 * inputs takes them over by their hashes.
 * @throws InputError when `out` exists and neither `force` nor `resume` is given, or what was left belongs to a run
 * with other parameters (nothing is removed then)
 */
export function createPvqWriter(options: PvqWriterOptions): PvqWriter {
  const { out, layout, store } = options;
  const identity = identityOf(options);
  const finished = options.resume === true && options.force !== true ? finishedManifest(out, options) : undefined;
  if (finished !== undefined) return completeWriter(finished);
  const { force, resume } = options;
  const directory = createAtomicDirectory(out, { force, resume, resumable: true });
  const work = path.join(directory.path, WORK_FOLDER);
  const runFile = path.join(work, 'run.json');
  if (directory.resumed) checkSameRun(out, directory, runFile, identity);
  const records = new Map<string, FinishedTensor>();
  const done = new Map<string, HashedFile>();
  const fileOf = new Map(layout.files.flatMap((file) => file.tensors.map((info) => [info.name, file] as const)));
  const blobOf = (name: string): string => blobName(layout, name);
  const guarded = <T>(body: () => T): T => {
    try {
      return body();
    } catch (error) {
      throw fileError(error, out, 'write');
    }
  };
  guarded(() => {
    fs.mkdirSync(work, { recursive: true });
    if (directory.resumed) takeOver(directory.path, layout, records, done);
    writeHashed(work, 'run.json', `${JSON.stringify(identity)}\n`);
  });

  const finishFile = (file: PvqFilePlan): void => {
    const hashed = assembleFile(directory.path, file, layout, store, records);
    writeHashed(work, `file-${layout.files.indexOf(file)}.json`, JSON.stringify(hashed));
    done.set(file.fileName, hashed);
    for (const { name } of file.tensors)
      if (layout.quantised.has(name)) fs.rmSync(path.join(directory.path, blobOf(name)), { force: true });
  };
  const isReady = (file: PvqFilePlan): boolean =>
    file.tensors.every(({ name }) => !layout.quantised.has(name) || records.has(name));

  return {
    complete: false,
    hasTensor: (name) => records.has(name),
    recordOf: (name) => records.get(name)?.record,
    bytesOf(name) {
      const record = records.get(name);
      if (record === undefined) throw new RangeError(`tensor ${quoted(name)} is not finished`);
      const { tensor, wideScales, zeroGroups } = record;
      return layout.tensorBytes(name, tensor.code, { wideScales, zeroGroups });
    },
    writeTensor(name, encoded, entry = {}): void {
      const info = store.tensors.get(name);
      const file = fileOf.get(name);
      if (info === undefined || file === undefined || !layout.quantised.has(name))
        throw new RangeError(`tensor ${quoted(name)} is not in the plan`);
      guarded(() => {
        const described = layout.describe(name, encoded.code);
        const { rows, columns } = matrixOf(described.shape, described.transposed);
        if (encoded.rows !== rows || encoded.columns !== columns)
          throw new RangeError(
            `tensor ${quoted(name)}: rows [${encoded.rows}, ${encoded.columns}] for [${rows}, ${columns}]`,
          );
        const signs = layout.quantised.get(name)?.rotation?.signs ?? new Uint8Array(0);
        const { wideScales, zeroGroups, parts } = encodeParts(described, encoded, signs);
        const blob = writeHashed(directory.path, blobOf(name), Buffer.concat(parts));
        const crc32 = parts.reduce((crc, bytes) => updateCrc32(crc, bytes), 0);
        const sourceSha256 = entry.sourceSha256 ?? sha256Tensor(store, info);
        const record: FinishedTensor = {
          tensor: { ...described, crc32, sourceSha256 },
          wideScales,
          zeroGroups,
          blob,
          record: toJsonValue(entry.record ?? {}) as FlatRecord,
        };
        const text = JSON.stringify(record);
        writeHashed(
          work,
          path.basename(blobOf(name)).replace(/bin$/, 'json'),
          JSON.stringify({ sha256: hashBytes(Buffer.from(text)), text }),
        );
        records.set(name, record);
        if (isReady(file) && !done.has(file.fileName)) finishFile(file);
      });
    },
    commit(body = {}): Report {
      const missing = [...layout.quantised.keys()].find((name) => !records.has(name));
      if (missing !== undefined) throw new RunError(`${out}: tensor ${quoted(missing)} was never written`);
      return guarded(() => {
        for (const file of layout.files) if (!done.has(file.fileName)) finishFile(file);
        const files = layout.files.flatMap((file) => done.get(file.fileName) ?? []);
        files.push(...writeCompanions(directory.path, options, records));
        files.sort((a, b) => (a.name < b.name ? -1 : 1));
        const manifest = manifestOf(layout, options.head, records, files, body);
        validateReport(manifest, path.join(out, MANIFEST_FILE));
        fs.rmSync(work, { recursive: true });
        writeHashed(directory.path, MANIFEST_FILE, serializeReport(manifest));
        directory.commit();
        return manifest;
      });
    },
    abort(discard = false): void {
      directory.abort();
      if (discard) fs.rmSync(directory.path, { recursive: true, force: true });
    },
  };
}

function completeWriter(manifest: Report): PvqWriter {
  const tensors = new Map(
    (
      (manifest.tensors ?? []) as { name: string; payload_bytes: number; metadata_bytes: number; record: FlatRecord }[]
    ).map((tensor) => [tensor.name, tensor] as const),
  );
  return {
    complete: true,
    hasTensor: (name) => tensors.has(name),
    recordOf: (name) => tensors.get(name)?.record,
    bytesOf: (name) => ({
      payload: tensors.get(name)?.payload_bytes ?? 0,
      metadata: tensors.get(name)?.metadata_bytes ?? 0,
    }),
    writeTensor(name): void {
      throw new RangeError(`tensor ${quoted(name)}: the output is complete`);
    },
    commit: () => manifest,
    abort: () => undefined,
  };
}
