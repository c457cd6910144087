import fs from 'node:fs';
import path from 'node:path';
import { InputError } from '../errors.js';
import type { AtomicDirectory } from '../formats/atomic.js';
import { differingKey, hashBytes, readWorkFile } from '../formats/work-files.js';
import { writeHashed } from '../models/model-directory.js';
import { buildReport, type Report, type ReportHead } from '../report/json.js';
import { type ReportValue, toJsonValue } from '../report/values.js';
import type { MergedPlan } from './merged-config.js';
import type { MergedLayout } from './merged-layout.js';

/** Finished layers of a run that is not complete, inside the directory that is being filled. */
const WORK_FOLDER = '.merge';

export const MANIFEST_FILE = 'manifest.json';
export const MANIFEST_SCHEMA = 'merge-moe-manifest';

/** Version of the work files; another one is not continued. */
const VERSION = 1;

/** What two runs must share for one to continue the other: everything that decides the bytes. */
export function mergeIdentity(head: Omit<ReportHead, 'name'>, plan: MergedPlan, layout: MergedLayout): unknown {
  const { parameters, inputs } = buildReport({ ...head, name: MANIFEST_SCHEMA }, {});
  const files = layout.files.map(({ fileName, header, byteLength }) => ({
    name: fileName,
    bytes: byteLength,
    header: hashBytes(header),
  }));
  return { version: VERSION, parameters, inputs, plan: toJsonValue(planValue(plan)), files };
}

/** A plan as a report shows it. */
function planValue({ form, topK, layers }: MergedPlan): ReportValue {
  return {
    form,
    top_k: topK ?? null,
    layers: layers.map(({ layer, experts, routerRows, map }) => ({
      layer,
      experts,
      router_rows: routerRows,
      map: map ?? null,
    })),
  };
}

/** The manifest of a complete output of this very run. @throws InputError when another run made it */
export function finishedMerge(out: string, head: Omit<ReportHead, 'name'>): Report | undefined {
  const manifest = readWorkFile(path.join(out, MANIFEST_FILE)) as Report | undefined;
  if (manifest === undefined || manifest.schema !== `surprisal/${MANIFEST_SCHEMA}`) return undefined;
  const { parameters, inputs } = buildReport({ ...head, name: MANIFEST_SCHEMA }, {});
  const differing = differingKey({ parameters: manifest.parameters, inputs: manifest.inputs }, { parameters, inputs });
  if (differing === undefined) return manifest;
  throw new InputError(
    `${out}: is complete, and was made with another "${differing}": pass --force to replace it, or choose another path`,
  );
}

/** The layers that are done, on the disk. */
export interface MergeJournal {
  readonly done: ReadonlyMap<number, unknown>;
  /** Notes a layer whose bytes are on the disk. */
  note(layer: number, record: ReportValue): void;
  remove(): void;
}

interface Entry {
  readonly sha256: string;
  readonly text: string;
}

/** Finished layers of an interrupted run, if all of its files are there. */
function takeOver(place: string, work: string, layout: MergedLayout): Map<number, unknown> {
  const done = new Map<number, unknown>();
  const whole = layout.files.every(
    ({ fileName, byteLength }) =>
      fs.statSync(path.join(place, fileName), { throwIfNoEntry: false })?.size === byteLength,
  );
  if (!whole || !fs.existsSync(work)) return done;
  for (const name of fs.readdirSync(work)) {
    if (!/^layer-\d+\.json$/.test(name)) continue;
    const entry = readWorkFile(path.join(work, name)) as Entry | undefined;
    if (entry === undefined || hashBytes(Buffer.from(entry.text)) !== entry.sha256) continue;
    const { layer, record } = JSON.parse(entry.text) as { layer: number; record: unknown };
    done.set(layer, record);
  }
  return new Map([...done].sort(([a], [b]) => a - b));
}

/**
 * Opens the journal of a directory that is being filled; with what an interrupted run finished.
 * @throws InputError when that run had other parameters, inputs or another plan; its directory stays
 */
export function openJournal(
  out: string,
  directory: AtomicDirectory,
  identity: unknown,
  layout: MergedLayout,
): MergeJournal {
  const work = path.join(directory.path, WORK_FOLDER);
  const runFile = path.join(work, 'run.json');
  const before = directory.resumed ? readWorkFile(runFile) : undefined;
  const differing = before === undefined ? undefined : differingKey(before, identity);
  if (differing !== undefined) {
    directory.abort();
    throw new InputError(
      `${out}: the interrupted run in ${directory.path} had another "${differing}": repeat its options, or remove that directory and leave out --resume`,
    );
  }
  const done = before === undefined ? new Map<number, unknown>() : takeOver(directory.path, work, layout);
  if (done.size === 0)
    for (const name of fs.readdirSync(directory.path))
      fs.rmSync(path.join(directory.path, name), { recursive: true, force: true });
  fs.mkdirSync(work, { recursive: true });
  writeHashed(work, 'run.json', `${JSON.stringify(identity)}\n`);
  return {
    done,
    note(layer, record): void {
      const text = JSON.stringify({ layer, record: toJsonValue(record) ?? null });
      writeHashed(work, `layer-${layer}.json`, JSON.stringify({ sha256: hashBytes(Buffer.from(text)), text }));
      // As a later run would read it.
      done.set(layer, (JSON.parse(text) as { readonly record: unknown }).record);
    },
    remove: () => fs.rmSync(work, { recursive: true, force: true }),
  };
}
