import fs from 'node:fs';
import { RunError } from '../errors.js';
import { type AtomicOptions, createAtomicDirectory } from '../formats/atomic.js';
import { fileError } from '../formats/files.js';
import type { HashedFile } from '../formats/hash.js';
import { SAFETENSORS_INDEX } from '../formats/safetensors.js';
import { openShards, type ShardFiles } from '../formats/safetensors-shards.js';
import { encodeIndex } from '../formats/safetensors-writer.js';
import type { TensorInfo } from '../formats/tensor.js';
import { copySmallFiles, hashedFile, tensorBytes, writeHashed } from '../models/model-directory.js';
import { type Report, type ReportHead, serializeReport } from '../report/json.js';
import type { ReportValue } from '../report/values.js';
import type { ExpertLayer, ExpertModel } from './expert-model.js';
import { copyExpert, encodeExpert, type NewRouter, writeRouterRows } from './expert-writer.js';
import {
  type ConfigForm,
  type MergedConfig,
  type MergedLayerPlan,
  type MergedPlan,
  mergedConfig,
} from './merged-config.js';
import { finishedMerge, MANIFEST_FILE, mergeIdentity, openJournal } from './merged-journal.js';
import { layOutMerged, type MergedLayout } from './merged-layout.js';
import { manifestOf } from './merged-manifest.js';
import type { ExpertMatrices } from './types.js';

export type { NewRouter } from './expert-writer.js';
export { keepsEveryExpert, type MergedForm, type MergedLayerPlan, type MergedPlan } from './merged-config.js';
export { copyUnchanged } from './unchanged-copy.js';

export interface MergedWriterOptions extends AtomicOptions {
  /** Default 5 GB (5e9). */
  readonly maxShardBytes?: number;
  /** What decides the bytes: a run that resumes must repeat its parameters and inputs. It heads the manifest. */
  readonly head: Omit<ReportHead, 'name'>;
  readonly threads?: number;
}

/** A model directory that is being filled. Layers are named by `ExpertLayer.layer`. */
export interface MergedModel {
  readonly target: string;
  /** What a report should say: the extension and who reads it, layers left out, odd numbers of experts. */
  readonly notes: readonly string[];
  readonly configForm: ConfigForm;
  /** Bytes of all tensors before and after. */
  readonly bytesBefore: number;
  readonly bytesAfter: number;
  /** A run with `resume` found the output complete: nothing is left to write, `commit` gives its manifest. */
  readonly complete: boolean;
  /** Records of the layers that are finished, also by an interrupted run, by layer. */
  doneLayers(): ReadonlyMap<number, unknown>;
  /**
   * Matrices are rounded once to the source's type; `copyOf` gives the bytes of a source expert.
   * @throws RunError for values that the type cannot hold, or a full disk; RangeError for a place that the plan does not have
   */
  writeExpert(layer: number, place: number, expert: ExpertMatrices | { readonly copyOf: number }): void;
  /** Form `reduced` alone: the router of other forms stays as it was and is written by `commit`. */
  writeRouter(layer: number, router: NewRouter | Float32Array): void;
  /** All experts and the router as they were, for a layer that keeps its experts. */
  keepLayer(layer: number): void;
  /** Syncs the layer to the disk and notes it: a later run starts behind it. @throws RangeError when a part is missing */
  finishLayer(layer: number, record: ReportValue): void;
  /**
   * Writes what passes through, config and small files, the manifest last; gives the directory its name.
   * @param body figures for the manifest
   */
  commit(body?: { readonly [key: string]: ReportValue }): Report;
  /** Ends without a result; what is finished stays for `resume` unless `discard`. */
  abort(discard?: boolean): void;
}

/** What was written of a layer that is not finished. */
interface Progress {
  readonly places: Set<number>;
  router: boolean;
}

/**
 * Opens the directory of a merged model for writing. It is filled under a temporary name beside `target`: all files are laid
 * out at once, so that experts may come in any order; finished layers are noted in a journal, and a run with `resume`, the
 * same parameters, inputs and plan goes on behind them. Never more than a band of a matrix is held.
 * @throws InputError when `target` exists and neither `force` nor `resume` is given, an interrupted run differs, or the
 * plan cannot be said in a config (see {@link mergedConfig}); RangeError for a plan of another model
 */
export function createMergedModel(
  source: ExpertModel,
  target: string,
  plan: MergedPlan,
  options: MergedWriterOptions,
): MergedModel {
  const config = mergedConfig(source, plan);
  const { maxShardBytes, force, resume, head } = options;
  const layout = layOutMerged(source, plan, {
    ...(maxShardBytes !== undefined && { maxShardBytes }),
    dropsExtraLayers: config.dropsExtraLayers,
  });
  const finished = resume === true && force !== true ? finishedMerge(target, head) : undefined;
  if (finished !== undefined) return completeModel(target, config, layout, finished);
  const directory = createAtomicDirectory(target, { force, resume, resumable: true });
  const guarded = <T>(body: () => T): T => {
    try {
      return body();
    } catch (error) {
      throw fileError(error, target, 'write');
    }
  };
  const journal = guarded(() => openJournal(target, directory, mergeIdentity(head, plan, layout), layout));
  const files = guarded(() => openShards(directory.path, layout));
  const progress = new Map<number, Progress>();

  const planOf = (layer: number): { before: ExpertLayer; after: MergedLayerPlan; state: Progress } => {
    const index = plan.layers.findIndex((each) => each.layer === layer);
    if (index < 0) throw new RangeError(`layer ${layer} has no experts`);
    if (journal.done.has(layer)) throw new RangeError(`layer ${layer} is finished`);
    const state = progress.get(layer) ?? { places: new Set<number>(), router: false };
    progress.set(layer, state);
    return { before: source.layers[index], after: plan.layers[index], state };
  };

  const model: MergedModel = {
    target,
    notes: config.notes,
    configForm: config.form,
    bytesBefore: layout.bytesBefore,
    bytesAfter: layout.bytesAfter,
    complete: false,
    doneLayers: () => journal.done,
    writeExpert(layer, place, expert): void {
      const { before, after, state } = planOf(layer);
      if (!(Number.isSafeInteger(place) && place >= 0 && place < after.experts))
        throw new RangeError(`${before.name}: place ${place} of ${after.experts} experts`);
      guarded(() => {
        if ('copyOf' in expert) copyExpert(source, before, expert.copyOf, place, files);
        else encodeExpert(source, before, expert, place, files, options.threads);
      });
      state.places.add(place);
    },
    writeRouter(layer, router): void {
      const { before, after, state } = planOf(layer);
      if (plan.form !== 'reduced') throw new RangeError(`${before.name}: form ${plan.form} keeps the router as it was`);
      guarded(() => writeRouterRows(source, before, after.routerRows, router, files));
      state.router = true;
    },
    keepLayer(layer): void {
      const { before, after } = planOf(layer);
      if (after.experts !== before.experts)
        throw new RangeError(`${before.name}: keeps ${after.experts} of ${before.experts} experts`);
      for (let e = 0; e < before.experts; e++) model.writeExpert(layer, e, { copyOf: e });
      const rows = Int32Array.from({ length: before.routerRows }, (_, e) => e);
      if (plan.form === 'reduced') model.writeRouter(layer, { rows });
    },
    finishLayer(layer, record): void {
      const { before, after, state } = planOf(layer);
      if (state.places.size !== after.experts)
        throw new RangeError(`${before.name}: ${state.places.size} of ${after.experts} experts are written`);
      if (plan.form === 'reduced' && !state.router) throw new RangeError(`${before.name}: its router is not written`);
      guarded(() => {
        files.sync();
        journal.note(layer, record);
      });
      progress.delete(layer);
    },
    commit(body = {}): Report {
      const missing = source.layers.find(({ layer }) => !journal.done.has(layer));
      if (missing !== undefined) throw new RunError(`${target}: ${missing.name} was never finished`);
      return guarded(() => {
        for (const info of layout.passThrough) copyTensor(source, info, files);
        for (const [name, map] of layout.maps)
          files.write(name, 0, new Uint8Array(map.buffer, map.byteOffset, map.byteLength));
        files.sync();
        files.close();
        const written = writeCompanions(source, directory.path, layout, config);
        const { form, layers } = plan;
        const manifest = manifestOf(head, {
          source,
          form,
          layers,
          config,
          layout,
          written,
          records: journal.done,
          body,
        });
        journal.remove();
        writeHashed(directory.path, MANIFEST_FILE, serializeReport(manifest));
        directory.commit();
        return manifest;
      });
    },
    abort(discard = false): void {
      files.close();
      directory.abort();
      if (discard) fs.rmSync(directory.path, { recursive: true, force: true });
    },
  };
  return model;
}

function copyTensor(source: ExpertModel, info: TensorInfo, files: ShardFiles): void {
  let at = 0;
  for (const bytes of tensorBytes(source.store, info)) {
    files.write(info.name, at, bytes);
    at += bytes.length;
  }
}

/** Index, config and small files; hashes of everything. */
function writeCompanions(
  source: ExpertModel,
  directory: string,
  layout: MergedLayout,
  config: MergedConfig,
): HashedFile[] {
  const written = layout.files.map(({ fileName }) => hashedFile(directory, fileName));
  if (layout.files.length > 1)
    written.push(writeHashed(directory, SAFETENSORS_INDEX, encodeIndex(layout.shards, layout.bytesAfter)));
  written.push(writeHashed(directory, 'config.json', config.text));
  written.push(...copySmallFiles(source.path, directory));
  return written.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** The model of a run that was complete already. */
function completeModel(target: string, config: MergedConfig, layout: MergedLayout, manifest: Report): MergedModel {
  const layers = manifest.layers as readonly { readonly layer: number; readonly record: unknown }[];
  const done = new Map(layers.map(({ layer, record }) => [layer, record]));
  const refuse = (): never => {
    throw new RangeError(`${target}: the output is complete`);
  };
  return {
    target,
    notes: config.notes,
    configForm: config.form,
    bytesBefore: layout.bytesBefore,
    bytesAfter: layout.bytesAfter,
    complete: true,
    doneLayers: () => done,
    writeExpert: refuse,
    writeRouter: refuse,
    keepLayer: refuse,
    finishLayer: refuse,
    commit: () => manifest,
    abort: () => undefined,
  };
}
