import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { InputError } from '../../errors.js';
import type { AtomicDirectory } from '../../formats/atomic.js';
import { fileError } from '../../formats/files.js';
import type { ShardLayout } from '../../formats/safetensors-shards.js';
import { differingKey, hashBytes, readWorkFile } from '../../formats/work-files.js';
import { COPY_BYTES, writeHashed } from '../../models/model-directory.js';
import { type ReportValue, toJsonValue } from '../../report/values.js';
import type { TensorRecord } from './tensor-record.js';

/** Finished tensors of a run that is not complete, inside the directory that is being filled. */
const WORK_FOLDER = '.merge';
const JOURNAL = 'tensors.jsonl';
/** Version of the work files; another one is not continued. */
const VERSION = 1;

/** The tensors that are done, on the disk. */
export interface MergeJournal {
  /** By name in the output. */
  readonly done: ReadonlyMap<string, TensorRecord>;
  /** Notes a tensor whose bytes are written. */
  note(name: string, record: TensorRecord): void;
  close(): void;
  /** Removes the work files: the output is complete. */
  remove(): void;
}

/**
 * Opens the journal of a directory that is being filled. Tensors that an interrupted run finished are taken over when the bytes
 * in the shards have the SHA-256 that was noted: also after a crash of the machine nothing is believed that is not there.
 * @param identity everything that decides the bytes: two runs must share it for one to continue the other
 * @throws InputError when the interrupted run had another one; its directory stays
 */
export function openMergeJournal(
  out: string,
  directory: AtomicDirectory,
  identity: ReportValue,
  layout: ShardLayout,
): MergeJournal {
  const work = path.join(directory.path, WORK_FOLDER);
  const wanted = toJsonValue({ version: VERSION, run: identity, files: layout.files.map(fileIdentity) });
  const before = directory.resumed ? readWorkFile(path.join(work, 'run.json')) : undefined;
  const differing = before === undefined ? undefined : differingKey(before, wanted);
  if (differing !== undefined) {
    directory.abort();
    throw new InputError(
      `${out}: the interrupted run in ${directory.path} had another "${differing}": repeat its options, or remove that ` +
        'directory and leave out --resume',
    );
  }
  const done = before === undefined ? new Map<string, TensorRecord>() : takeOver(directory.path, work, layout);
  // Also what a kill has cut among the small files, which are written anew.
  const kept = new Set(done.size === 0 ? [] : [WORK_FOLDER, ...layout.files.map(({ fileName }) => fileName)]);
  for (const name of fs.readdirSync(directory.path))
    if (!kept.has(name)) fs.rmSync(path.join(directory.path, name), { recursive: true, force: true });
  fs.mkdirSync(work, { recursive: true });
  writeHashed(work, 'run.json', `${JSON.stringify(wanted)}\n`);
  const file = path.join(work, JOURNAL);
  // What is taken over is written anew, so that a cut last line does not spoil the next one; the old file stays until then.
  writeHashed(work, JOURNAL, [...done].map(([name, record]) => line(name, record)).join(''));
  const fd = fs.openSync(file, 'a');
  let open = true;
  const close = (): void => {
    if (open) fs.closeSync(fd);
    open = false;
  };
  return {
    done,
    note(name, record): void {
      try {
        fs.writeSync(fd, line(name, record));
      } catch (error) {
        throw fileError(error, file, 'write');
      }
      done.set(name, record);
    },
    close,
    remove(): void {
      close();
      fs.rmSync(work, { recursive: true, force: true });
    },
  };
}

function fileIdentity({ fileName, byteLength, header }: ShardLayout['files'][number]): ReportValue {
  return { name: fileName, bytes: byteLength, header: hashBytes(header) };
}

function line(name: string, record: TensorRecord): string {
  const text = JSON.stringify({ name, record });
  return `${JSON.stringify({ sha256: hashBytes(Buffer.from(text)), text })}\n`;
}

/** Finished tensors of an interrupted run whose bytes are there. */
function takeOver(place: string, work: string, layout: ShardLayout): Map<string, TensorRecord> {
  const done = new Map<string, TensorRecord>();
  let text: string;
  try {
    text = fs.readFileSync(path.join(work, JOURNAL), 'utf8');
  } catch {
    return done;
  }
  for (const written of text.split('\n')) {
    const noted = parseLine(written);
    const slot = noted && layout.slots.get(noted.name);
    if (!noted || !slot) continue;
    const file = path.join(place, layout.files[slot.file].fileName);
    if (sha256Range(file, slot.offset, slot.byteLength) === noted.record.sha256) done.set(noted.name, noted.record);
  }
  return done;
}

function parseLine(text: string): { readonly name: string; readonly record: TensorRecord } | undefined {
  try {
    const entry = JSON.parse(text) as { readonly sha256: string; readonly text: string };
    if (hashBytes(Buffer.from(entry.text)) !== entry.sha256) return undefined;
    return JSON.parse(entry.text) as { readonly name: string; readonly record: TensorRecord };
  } catch {
    return undefined;
  }
}

/** SHA-256 of a range; undefined when the file ends before. */
function sha256Range(file: string, start: number, length: number): string | undefined {
  const size = fs.statSync(file, { throwIfNoEntry: false })?.size ?? 0;
  if (size < start + length) return undefined;
  const hash = createHash('sha256');
  const fd = fs.openSync(file, 'r');
  try {
    const buffer = new Uint8Array(Math.min(COPY_BYTES, length));
    for (let at = 0; at < length; ) {
      const count = fs.readSync(fd, buffer, 0, Math.min(buffer.length, length - at), start + at);
      hash.update(buffer.subarray(0, count));
      at += count;
    }
  } finally {
    fs.closeSync(fd);
  }
  return hash.digest('hex');
}
