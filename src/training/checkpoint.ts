import fs from 'node:fs';
import path from 'node:path';
import { InputError } from '../errors.js';
import { createAtomicDirectory, removeLeftovers } from '../formats/atomic.js';
import { fileError, quoted } from '../formats/files.js';
import { openSafetensors } from '../formats/safetensors.js';
import { createSafetensorsWriter, type PlannedTensor } from '../formats/safetensors-writer.js';
import type { TensorStore } from '../formats/tensor.js';
import { differingKey, readWorkFile } from '../formats/work-files.js';
import type { Optimizer } from './optimizer.js';
import type { Floats, ParameterSet } from './types.js';

const FORMAT = 'surprisal-training-checkpoint-1';
const TENSORS = 'tensors.safetensors';
const STATE = 'state.json';
const VALUES = 'values';

/** What decides every number of a run: a checkpoint of another run is refused. */
export interface RunIdentity {
  /** Digest of the model that is trained: its architecture and what is frozen of its weights. */
  readonly model: string;
  readonly seed: number;
  /** Losses, data, batches: any JSON, without paths. Optimiser, schedule and accumulation are compared by the trainer. */
  readonly configuration: Readonly<Record<string, unknown>>;
}

/** What a run knows beside its buffers. The place in the data follows from the step. */
export interface TrainState {
  /** Steps that were made. */
  readonly step: number;
  /** Those that moved the parameters. */
  readonly optimizerSteps: number;
  readonly skipped: number;
  readonly skippedInARow: number;
  readonly best?: { readonly step: number; readonly loss: number };
  /** What the steps were made with, as JSON. */
  readonly settings?: unknown;
}

/** Flat buffers beside the values, by name: the optimiser's, and those of what follows its steps. */
export type KeptBuffers = Pick<Optimizer, 'state'>;

/** Checkpoints of one run in one directory: the last one, and the values of the best evaluation. */
export interface CheckpointStore {
  readonly directory: string;
  /** Step of the newest complete checkpoint; undefined where there is none. */
  readonly last: number | undefined;
  /** Reads the newest checkpoint into the values of `set` and the buffers beside them; undefined where there is none. */
  load(set: ParameterSet, beside: KeptBuffers): TrainState | undefined;
  /** The values of the best evaluation. */
  loadBest(set: ParameterSet, best: { readonly step: number }): Floats;
  /** Writes a checkpoint, then removes what it replaces. @throws RunError when the disk is full; the last one stays */
  save(set: ParameterSet, beside: KeptBuffers, state: TrainState): void;
  saveBest(set: ParameterSet, best: { readonly step: number; readonly loss: number }): void;
}

interface StoredState {
  readonly format: string;
  readonly identity: RunIdentity;
  readonly precision: string;
  readonly state: TrainState;
}

const dirName = (kind: 'step' | 'best', step: number): string => `${kind}-${String(step).padStart(8, '0')}`;

/** Steps of the complete checkpoints of a kind, ascending. */
function stepsOf(directory: string, kind: 'step' | 'best'): number[] {
  let names: string[];
  try {
    names = fs.readdirSync(directory);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw fileError(error, directory, 'read');
  }
  const pattern = new RegExp(`^${kind}-(\\d+)$`);
  return names.flatMap((name) => pattern.exec(name)?.slice(1).map(Number) ?? []).sort((a, b) => a - b);
}

const bytesOf = (data: Floats): Uint8Array => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/** Writes flat buffers by name as tensors `<buffer>.<parameter>`, and a JSON, as one directory. */
function writeCheckpoint(
  place: string,
  set: ParameterSet,
  buffers: Readonly<Record<string, Floats>>,
  stored: StoredState,
): void {
  const dtype = set.precision === 'f64' ? 'F64' : 'F32';
  const plan: PlannedTensor[] = [];
  for (const buffer of Object.keys(buffers)) {
    for (const { name, dims } of set.parameters) plan.push({ name: `${buffer}.${name}`, dtype, shape: dims });
  }
  const directory = createAtomicDirectory(place, { force: true });
  try {
    const writer = createSafetensorsWriter(path.join(directory.path, TENSORS), { plan, metadata: { format: FORMAT } });
    try {
      for (const [buffer, data] of Object.entries(buffers)) {
        for (const { name, offset, length } of set.parameters)
          writer.write(`${buffer}.${name}`, bytesOf(data.subarray(offset, offset + length)));
      }
      writer.commit();
    } catch (error) {
      writer.abort();
      throw error;
    }
    const file = path.join(directory.path, STATE);
    try {
      fs.writeFileSync(file, `${JSON.stringify(stored, null, 2)}\n`);
    } catch (error) {
      throw fileError(error, file, 'write');
    }
    directory.commit();
  } catch (error) {
    directory.abort();
    throw error;
  }
}

function readState(place: string): StoredState {
  const file = path.join(place, STATE);
  const stored = readWorkFile(file) as StoredState | undefined;
  if (stored?.format !== FORMAT || stored.identity === undefined || stored.state === undefined)
    throw new InputError(
      `${file}: not a checkpoint of a training run that can be read: remove ${place} to start again`,
    );
  return stored;
}

/** What differs between two JSON values, in words; undefined when nothing does. */
export function difference(before: unknown, now: unknown): string | undefined {
  const key = differingKey(before, now);
  if (key === undefined) return undefined;
  const at = (value: unknown): unknown =>
    key.split('.').reduce<unknown>((inner, part) => (inner as Record<string, unknown> | undefined)?.[part], value);
  const show = (value: unknown): string => (JSON.stringify(value) ?? 'nothing').slice(0, 120);
  return `${key} was ${show(at(before))} and is now ${show(at(now))}`;
}

/** Refuses tensors that are not those of `set`. @throws InputError naming tensor and shapes */
function checkTensors(store: TensorStore, set: ParameterSet, buffers: readonly string[]): void {
  const dtype = set.precision === 'f64' ? 'F64' : 'F32';
  for (const buffer of buffers) {
    for (const { name, dims } of set.parameters) {
      const where = `${store.path}: tensor ${quoted(`${buffer}.${name}`)}`;
      const found = store.tensors.get(`${buffer}.${name}`);
      if (found === undefined)
        throw new InputError(`${where} is missing: the checkpoint is of another model or optimizer`);
      if (found.shape.join() !== dims.join())
        throw new InputError(
          `${where} has shape [${found.shape.join(', ')}], the model has [${dims.join(', ')}]: the checkpoint is of another model`,
        );
      if (found.dtype !== dtype) throw new InputError(`${where} is ${found.dtype}, this run computes in ${dtype}`);
    }
  }
}

/** Refuses tensors that belong to nothing. @throws InputError naming the first */
function checkNames(store: TensorStore, set: ParameterSet, buffers: readonly string[]): void {
  const known = new Set(set.parameters.map(({ name }) => name));
  for (const name of store.tensors.keys()) {
    const buffer = buffers.find((prefix) => name.startsWith(`${prefix}.`));
    if (buffer === undefined || !known.has(name.slice(buffer.length + 1)))
      throw new InputError(`${store.path}: tensor ${quoted(name)} is not of this model and optimizer`);
  }
}

/** Reads tensors `<buffer>.<parameter>` into flat buffers. */
function readBuffers(place: string, set: ParameterSet, buffers: Readonly<Record<string, Floats>>): void {
  const store = openSafetensors(path.join(place, TENSORS));
  try {
    checkTensors(store, set, Object.keys(buffers));
    checkNames(store, set, Object.keys(buffers));
    for (const [buffer, data] of Object.entries(buffers)) {
      for (const { name, offset, length } of set.parameters) {
        const info = store.tensors.get(`${buffer}.${name}`);
        if (info !== undefined)
          store.readInto(info, 0, info.byteLength, bytesOf(data.subarray(offset, offset + length)));
      }
    }
  } finally {
    store.close();
  }
}

/** Refuses a checkpoint whose values do not fit `set`. */
function checkValues(place: string, set: ParameterSet): void {
  const store = openSafetensors(path.join(place, TENSORS));
  try {
    checkTensors(store, set, [VALUES]);
  } finally {
    store.close();
  }
}

/**
 * Checkpoints in `directory`, which is made when it is not there. Each is a directory of its own, `step-<n>` with values
 * and optimiser state or `best-<n>` with values, that gets its name by one rename when it is complete and durable; only
 * then those before it are removed. So a kill or a full disk at any time leaves a complete one.
 * @throws InputError when the directory cannot be made
 */
export function openCheckpoints(directory: string, identity: RunIdentity): CheckpointStore {
  try {
    fs.mkdirSync(directory, { recursive: true });
  } catch (error) {
    throw fileError(error, directory, 'write');
  }
  removeLeftovers(directory);
  let last = stepsOf(directory, 'step').at(-1);
  const placeOf = (kind: 'step' | 'best', step: number): string => path.join(directory, dirName(kind, step));
  const prune = (kind: 'step' | 'best', kept: number | undefined): void => {
    for (const step of stepsOf(directory, kind)) {
      if (step === kept) continue;
      // Renamed first: a kill in the middle of a removal must not leave half a checkpoint under its name.
      const aside = path.join(directory, `.${dirName(kind, step)}.${process.pid}.0.replaced`);
      try {
        fs.renameSync(placeOf(kind, step), aside);
        fs.rmSync(aside, { recursive: true, force: true });
      } catch (error) {
        throw fileError(error, directory, 'write');
      }
    }
  };
  const describe = (set: ParameterSet, state: TrainState): StoredState => ({
    format: FORMAT,
    identity,
    precision: set.precision,
    state,
  });
  return {
    directory,
    get last() {
      return last;
    },
    load(set, beside) {
      if (last === undefined) return undefined;
      const place = placeOf('step', last);
      const { identity: before, state } = readState(place);
      // The tensors say more than two digests do, where they differ.
      if (before.model !== identity.model) checkValues(place, set);
      const differs = difference(before, identity);
      if (differs !== undefined)
        throw new InputError(`${place}: left by another run: ${differs}; use the same, or another output`);
      readBuffers(place, set, { [VALUES]: set.values, ...beside.state });
      return state;
    },
    loadBest(set, best) {
      const values = set.values.slice();
      readBuffers(placeOf('best', best.step), set, { [VALUES]: values });
      return values;
    },
    save(set, beside, state) {
      writeCheckpoint(
        placeOf('step', state.step),
        set,
        { [VALUES]: set.values, ...beside.state },
        describe(set, state),
      );
      last = state.step;
      prune('step', last);
      // A best one of before this checkpoint is needed until here: the run may have had to go on from an older step.
      prune('best', state.best?.step);
    },
    saveBest(set, best) {
      const state = { step: best.step, optimizerSteps: 0, skipped: 0, skippedInARow: 0, best };
      writeCheckpoint(placeOf('best', best.step), set, { [VALUES]: set.values }, describe(set, state));
    },
  };
}
