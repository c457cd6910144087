import fs from 'node:fs';
import path from 'node:path';
import { InputError } from '../errors.js';
import type { AtomicDirectory } from '../formats/atomic.js';
import type { HashedFile } from '../formats/hash.js';
import { PVQ_VERSION } from '../formats/pvq.js';
import { differingKey, hashBytes, readWorkFile } from '../formats/work-files.js';
import { sha256Sync } from '../models/model-directory.js';
import { buildReport, type Report, type ReportHead } from '../report/json.js';
import type { PvqLayout } from './pvq-layout.js';
import { MANIFEST_FILE, MANIFEST_SCHEMA } from './pvq-manifest.js';
import type { FinishedTensor } from './pvq-parts.js';

/** Finished work of a run that is not complete, inside the directory that is being filled. */
export const WORK_FOLDER = '.pvq';

export interface RunIdentity {
  readonly layout: PvqLayout;
  readonly head: Omit<ReportHead, 'name'>;
  readonly config?: Readonly<Record<string, unknown>>;
}

/** Where the bytes of a finished tensor wait for their file, below the output's directory. */
export function blobName(layout: PvqLayout, name: string): string {
  return path.join(WORK_FOLDER, `${layout.ordinals.get(name)}.bin`);
}

/** What two runs must share for one to continue the other: everything that decides the bytes but the codes. */
export function identityOf({ layout, head, config }: RunIdentity): unknown {
  const { parameters, inputs } = buildReport({ ...head, name: MANIFEST_SCHEMA }, {});
  const files = layout.files.map(({ fileName, tensors }) => ({
    file: fileName,
    tensors: tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape, quantised: layout.quantised.has(name) })),
  }));
  return { version: PVQ_VERSION, parameters, inputs, config: config ?? {}, files };
}

function isThere(directory: string, { name, bytes, sha256 }: HashedFile): boolean {
  const file = path.join(directory, name);
  return fs.statSync(file, { throwIfNoEntry: false })?.size === bytes && sha256Sync(file) === sha256;
}

/** The manifest of a complete output of this very run. */
export function finishedManifest(out: string, options: RunIdentity): Report | undefined {
  const manifest = readWorkFile(path.join(out, MANIFEST_FILE)) as Report | undefined;
  const { parameters, inputs } = buildReport({ ...options.head, name: MANIFEST_SCHEMA }, {});
  if (manifest === undefined || manifest.schema !== `surprisal/${MANIFEST_SCHEMA}`) return undefined;
  const differing = differingKey({ parameters: manifest.parameters, inputs: manifest.inputs }, { parameters, inputs });
  if (differing !== undefined)
    throw new InputError(
      `${out}: is complete, and was made with another "${differing}": pass --force to replace it, or choose another path`,
    );
  return manifest;
}

/** @throws InputError when an interrupted run had other parameters; its directory stays. */
export function checkSameRun(out: string, directory: AtomicDirectory, runFile: string, identity: unknown): void {
  const before = readWorkFile(runFile);
  const differing = before === undefined ? undefined : differingKey(before, identity);
  if (differing === undefined) return;
  directory.abort();
  throw new InputError(
    `${out}: the interrupted run in ${directory.path} had another "${differing}": repeat its options, or remove that directory and leave out --resume`,
  );
}

/** Takes over what an earlier run finished and removes what it left half-written. */
export function takeOver(
  place: string,
  layout: PvqLayout,
  records: Map<string, FinishedTensor>,
  done: Map<string, HashedFile>,
): void {
  const work = path.join(place, WORK_FOLDER);
  for (const [i, file] of layout.files.entries()) {
    const hashed = readWorkFile(path.join(work, `file-${i}.json`)) as HashedFile | undefined;
    if (hashed !== undefined && isThere(place, hashed)) done.set(file.fileName, hashed);
  }
  const inDone = new Set(
    layout.files.filter((file) => done.has(file.fileName)).flatMap((file) => file.tensors.map(({ name }) => name)),
  );
  for (const name of layout.quantised.keys()) {
    const kept = readWorkFile(path.join(place, blobName(layout, name).replace(/bin$/, 'json'))) as
      | { readonly sha256: string; readonly text: string }
      | undefined;
    if (kept === undefined || hashBytes(Buffer.from(kept.text)) !== kept.sha256) continue;
    const record = JSON.parse(kept.text) as FinishedTensor;
    if (record.tensor.name === name && (inDone.has(name) || isThere(place, record.blob))) records.set(name, record);
  }
  for (const [fileName] of done) {
    const file = layout.files.find((candidate) => candidate.fileName === fileName);
    // A file counts only with the records of all of its tensors: the manifest is made of them.
    if (file?.tensors.some(({ name }) => layout.quantised.has(name) && !records.has(name))) {
      for (const { name } of file.tensors) records.delete(name);
      done.delete(fileName);
    }
  }
  for (const name of fs.readdirSync(place, { recursive: true, encoding: 'utf8' }))
    if (name.endsWith('.partial')) fs.rmSync(path.join(place, name), { force: true });
}
