import type { AtomicOptions } from '../formats/atomic.js';
import type { Report, ReportHead } from '../report/json.js';
import type { ReportValue } from '../report/values.js';
import type { ExpertModel } from './expert-layout.js';
import type { RouterTensors } from './expert-reader.js';
import type { ExpertMatrices } from './types.js';

/**
 * What the merged model stores. `remap`: merged experts once, the router as it was and a map from its rows to experts.
 * `reduced`: as many router rows as experts. `expanded`: as many experts as before, some of them copies.
 */
export type MergedForm = 'remap' | 'reduced' | 'expanded';

export interface MergedLayerPlan {
  /** {@link ExpertLayer.layer} (not the place in the list of layers). */
  readonly layer: number;
  /** Experts that will be stored. */
  readonly experts: number;
  /** Rows of the new router: `experts` for reduced, the source's for remap and expanded. */
  readonly routerRows: number;
  /** remap: stored expert of each router row, -1 = dropped. Without it every expert keeps its place. */
  readonly map?: Int32Array;
}

/** Every layer with experts stands in `layers` once, in order, also those that stay as they are. */
export interface MergedPlan {
  readonly form: MergedForm;
  /** A new number of experts a token (`reduced` alone). */
  readonly topK?: number;
  readonly layers: readonly MergedLayerPlan[];
}

export interface MergedWriterOptions extends AtomicOptions {
  /** Default 5 GB (5e9). */
  readonly maxShardBytes?: number;
  /** What decides the bytes: a run that resumes must repeat it. It heads the manifest. */
  readonly head: Omit<ReportHead, 'name'>;
}

/**
 * Rows of a new router: rows of the old one by number (bit-identical, biases with them), or new values; a layer with biases
 * needs theirs too.
 */
export type NewRouter = { readonly rows: Int32Array } | RouterTensors;

/** Layers are named by {@link ExpertLayer.layer}. */
export interface MergedModel {
  readonly target: string;
  /** What a report should say: the extension and who reads it, layers left out, odd numbers of experts. */
  readonly notes: readonly string[];
  /** `standard`: loads wherever the source does; `surprisal_moe`: this tool's extension. */
  readonly configForm: 'standard' | 'surprisal_moe';
  /** Bytes of all tensors before and after. */
  readonly bytesBefore: number;
  readonly bytesAfter: number;
  /** A run with `resume` found the output complete: nothing is left to write, `commit` gives its manifest. */
  readonly complete: boolean;
  /** Records of the layers that are finished, also by an interrupted run. */
  doneLayers(): ReadonlyMap<number, unknown>;
  /** Matrices are rounded once to the source's type; `copyOf` gives the bytes of a source expert. */
  writeExpert(layer: number, place: number, expert: ExpertMatrices | { readonly copyOf: number }): void;
  /** Form `reduced`. The router of other forms stays as it was and is written by itself. */
  writeRouter(layer: number, router: NewRouter | Float32Array): void;
  /** All experts and the router as they were, for a layer that keeps its experts. */
  keepLayer(layer: number): void;
  /** Syncs the layer to the disk and notes it: a later run starts behind it. */
  finishLayer(layer: number, record: ReportValue): void;
  /** Writes what passes through, config and small files, the manifest last; gives the directory its name. */
  commit(body?: { readonly [key: string]: ReportValue }): Report;
  /** Ends without a result; what is finished stays for `resume` unless `discard`. */
  abort(discard?: boolean): void;
}

export declare function createMergedModel(
  source: ExpertModel,
  target: string,
  plan: MergedPlan,
  options: MergedWriterOptions,
): MergedModel;

/** Copies a model directory byte for byte, for a plan that changes nothing, and writes its manifest. */
export declare function copyUnchanged(source: ExpertModel, target: string, options: MergedWriterOptions): Report;
