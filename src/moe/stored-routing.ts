import { InputError } from '../errors.js';
import { quoted } from '../formats/files.js';
import { createInputLedger } from '../formats/inputs.js';
import { readJsonLines } from '../formats/jsonl.js';
import { createRowSelection, placeOf, type Row } from '../formats/rows.js';
import { DTYPE_BYTES, type DType, elementCount, type TensorInfo, type TensorStore } from '../formats/tensor.js';
import { openTensorFile } from '../formats/tensor-file.js';
import type { ComputeReference } from '../kernels/compute-thread.js';
import { widenToF64 } from '../kernels/dtypes.js';
import { multiply } from '../kernels/gemm.js';
import { addRoutedDocument, createRoutingRun, type RouterHead, type RoutingRun } from './routing-run.js';
import { createRoutingSums, type RoutingSums } from './routing-statistics.js';
import { createRoutedTokens, logToken, type RoutedTokens } from './token-log.js';
import type { RouterRule, RoutingStatistics } from './types.js';

/** Router logits, or hidden states with the matrix of the router, that somebody has stored. */
export interface StoredRoutingArguments {
  /** `.npy`, `.npz`, `.safetensors` [L, ..., E] or [T, E], or JSON Lines. */
  readonly logits?: string;
  /** [L, ..., H] or [T, H], with the router [L, E, H] or [E, H]: z = h W^T. */
  readonly hiddenStates?: string;
  readonly routerWeight?: string;
  /** Tokens that count, [T]: 0 is padding. */
  readonly mask?: string;
  /** Padding counts too, whatever masks there are. */
  readonly countPadding: boolean;
  readonly topK: number;
  readonly score: RouterRule['score'];
  /** [E] or [L, E], sigmoid routers alone. */
  readonly correctionBias?: string;
  /** Whether every token is shown to `progress`. */
  readonly tokens: boolean;
  readonly threads: number;
}

/** Tokens of one layer and document, sent while the job works. */
export interface StoredTokens {
  readonly layer: number;
  readonly document: number;
  readonly documentId: string;
  readonly tokens: RoutedTokens;
}

export interface StoredRouting {
  readonly run: RoutingRun;
  /** Whether the source says which tokens are of one document. */
  readonly documentsKnown: boolean;
  /** Tokens that a mask left out, of one layer. */
  readonly maskedTokens: number;
}

const BLOCK_ELEMENTS = 1 << 20;
const MASK_NAMES = ['valid_token_mask', 'attention_mask', 'mask'];
const FLOATS: readonly string[] = ['F64', 'F32', 'F16', 'BF16'];

/** Rows [count, width] of one layer of a stored tensor. */
export interface StoredLayer {
  readonly layer: number;
  readonly rows: number;
  readonly width: number;
  read(from: number, count: number): Float64Array;
}

const described = ({ name, dtype, shape }: TensorInfo): string => `${quoted(name)} ${dtype} [${shape.join(', ')}]`;

/** The first number in a name: tensors that are one layer each are taken in its order. */
const numberIn = (name: string): number => Number(/\d+/.exec(name)?.[0] ?? Number.NaN);

function layerOf(store: TensorStore, info: TensorInfo, layer: number, offset: number, rows: number): StoredLayer {
  const width = info.shape[info.shape.length - 1];
  const dtype = info.dtype as DType;
  const rowBytes = width * DTYPE_BYTES[dtype];
  return {
    layer,
    rows,
    width,
    read(from, count) {
      const bytes = new Uint8Array(count * rowBytes);
      store.readInto(info, (offset + from) * rowBytes, bytes.length, bytes);
      const values = new Float64Array(count * width);
      widenToF64(bytes, dtype, values);
      return values;
    },
  };
}

/**
 * Layers of a file: one tensor [T, n] is one layer, [L, ..., n] are L; several tensors [..., n] are a layer each, in the
 * order of the first number in their names, which is the layer's. The tensor called `wanted` goes before those whose names
 * contain it, and these before all others.
 */
export function openLayers(store: TensorStore, wanted: string): StoredLayer[] {
  const candidates = [...store.tensors.values()].filter(({ dtype, shape, name }) => {
    return FLOATS.includes(dtype) && shape.length >= 2 && !MASK_NAMES.includes(name);
  });
  const exact = candidates.filter(({ name }) => name === wanted);
  const similar = candidates.filter(({ name }) => name.includes(wanted));
  const chosen = [exact, similar, candidates].find((list) => list.length > 0) ?? [];
  if (chosen.length === 0) {
    const listed = [...store.tensors.values()].slice(0, 6).map(described).join(', ');
    throw new InputError(
      `${store.path}: no tensor of ${wanted}: f64, f32, f16 or bf16 [layers, tokens, n]; it holds ${listed}`,
    );
  }
  for (const info of chosen)
    if (elementCount(info.shape) === 0) throw new InputError(`${store.path}: ${described(info)} is empty`);
  if (chosen.length === 1) {
    const [info] = chosen;
    const stacked = info.shape.length > 2;
    const layers = stacked ? info.shape[0] : 1;
    const rows = elementCount(info.shape.slice(stacked ? 1 : 0, -1));
    return Array.from({ length: layers }, (_, layer) => layerOf(store, info, layer, layer * rows, rows));
  }
  const unnumbered = chosen.find(({ name }) => Number.isNaN(numberIn(name)));
  if (unnumbered) {
    throw new InputError(
      `${store.path}: ${chosen.length} tensors may be ${wanted}, and ${described(unnumbered)} has no layer in its name; ` +
        `store one tensor [layers, tokens, n], or call it ${quoted(wanted)}`,
    );
  }
  const layers = chosen
    .map((info) => layerOf(store, info, numberIn(info.name), 0, elementCount(info.shape.slice(0, -1))))
    .sort((a, b) => a.layer - b.layer);
  const twin = layers.findIndex((layer, i) => i > 0 && layer.layer === layers[i - 1].layer);
  if (twin >= 0) throw new InputError(`${store.path}: several tensors of ${wanted} are of layer ${layers[twin].layer}`);
  return layers;
}

/** Values of a small tensor of any plain type. */
function smallTensor(store: TensorStore, info: TensorInfo): Float64Array {
  const bytes = new Uint8Array(info.byteLength);
  store.readInto(info, 0, bytes.length, bytes);
  const values = new Float64Array(elementCount(info.shape));
  widenToF64(bytes, info.dtype as DType, values);
  return values;
}

function onlyTensor(path: string, names: readonly string[]): Float64Array {
  const store = openTensorFile(path);
  try {
    const all = [...store.tensors.values()];
    const found = all.length === 1 ? all[0] : all.find(({ name }) => names.includes(name));
    if (found) return smallTensor(store, found);
    throw new InputError(`${path}: none of its ${all.length} tensors is called ${names.join(', ')}; store it alone`);
  } finally {
    store.close();
  }
}

/** The mask of the tokens that count, from its own file or from beside the logits. */
export function readMask(
  args: Pick<StoredRoutingArguments, 'mask' | 'countPadding'>,
  store: TensorStore,
  rows: number,
): Float64Array | undefined {
  if (args.countPadding) return undefined;
  const inside = MASK_NAMES.map((name) => store.tensors.get(name)).find((info) => info !== undefined);
  const mask = args.mask !== undefined ? onlyTensor(args.mask, MASK_NAMES) : inside && smallTensor(store, inside);
  if (mask !== undefined && mask.length !== rows) {
    throw new InputError(`${args.mask ?? store.path}: a mask of ${mask.length} tokens, the logits are of ${rows}`);
  }
  return mask;
}

function biasOf(args: StoredRoutingArguments): ((place: number, experts: number) => Float64Array) | undefined {
  if (args.correctionBias === undefined) return undefined;
  const path = args.correctionBias;
  const all = onlyTensor(path, ['e_score_correction_bias', 'correction_bias', 'bias']);
  return (place, experts) => {
    if (all.length === experts) return all;
    if (all.length >= (place + 1) * experts && all.length % experts === 0) {
      return all.slice(place * experts, (place + 1) * experts);
    }
    throw new InputError(`${path}: ${all.length} correction biases are neither [${experts}] nor [layers, ${experts}]`);
  };
}

type Progress = (value: unknown) => void;

/** @throws InputError for k beyond the experts, naming the option */
function headOf(args: StoredRoutingArguments, layer: number, experts: number, path: string): RouterHead {
  if (args.topK > experts)
    throw new InputError(`--top-k ${args.topK}: ${path} has ${experts} experts in layer ${layer}`);
  return { layer, experts, topK: args.topK, score: args.score };
}

/** Names the file in what the sums complain of. */
function placed<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof InputError && !error.message.startsWith(path))
      throw new InputError(`${path}: ${error.message}`);
    throw error;
  }
}

/** z = h W^T of a layer of hidden states. */
function projected(hidden: StoredLayer, router: StoredLayer, threads: number, path: string): StoredLayer {
  if (hidden.width !== router.width) {
    throw new InputError(
      `${path}: the router reads ${router.width} components, the hidden states have ${hidden.width}`,
    );
  }
  const weight = router.read(0, router.rows);
  return {
    layer: hidden.layer,
    rows: hidden.rows,
    width: router.rows,
    read(from, count) {
      const states = hidden.read(from, count);
      const sizes = { m: count, n: router.rows, k: hidden.width };
      return multiply(states, weight, new Float64Array(count * router.rows), sizes, { transposeB: true, threads });
    },
  };
}

interface OpenedLayers {
  readonly path: string;
  readonly store: TensorStore;
  readonly layers: readonly StoredLayer[];
  close(): void;
}

function openStored(args: StoredRoutingArguments): OpenedLayers {
  const path = args.logits ?? args.hiddenStates ?? '';
  const store = openTensorFile(path);
  const opened: TensorStore[] = [store];
  const close = (): void => {
    for (const each of opened) each.close();
  };
  try {
    if (args.logits !== undefined) return { path, store, layers: openLayers(store, 'router_logits'), close };
    const hidden = openLayers(store, 'hidden_states');
    const routerPath = args.routerWeight ?? '';
    const routerStore = openTensorFile(routerPath);
    opened.push(routerStore);
    const routers = openLayers(routerStore, 'router_weight');
    if (routers.length !== hidden.length) {
      throw new InputError(`${routerPath}: ${routers.length} routers for ${hidden.length} layers of hidden states`);
    }
    const layers = hidden.map((layer, i) => projected(layer, routers[i], args.threads, routerPath));
    return { path, store, layers, close };
  } catch (error) {
    close();
    throw error;
  }
}

function measureTensors(args: StoredRoutingArguments, progress: Progress): StoredRouting {
  const { path, store, layers, close } = openStored(args);
  try {
    const [{ rows }] = layers;
    const uneven = layers.find((layer) => layer.rows !== rows);
    if (uneven) throw new InputError(`${path}: layer ${uneven.layer} has ${uneven.rows} tokens, the first has ${rows}`);
    const mask = readMask(args, store, rows);
    const bias = biasOf(args);
    const heads = layers.map(({ layer, width }) => headOf(args, layer, width, path));
    const run = createRoutingRun(heads);
    let done = 0;
    const statistics = layers.map((layer, place): RoutingStatistics => {
      const block = Math.max(1, Math.floor(BLOCK_ELEMENTS / layer.width));
      let tokens = createRoutedTokens(0, args.topK);
      const sums = openSums(args, heads[place], bias?.(place, layer.width), () => tokens);
      for (let from = 0; from < rows; from += block) {
        const count = Math.min(block, rows - from);
        if (args.tokens) tokens = createRoutedTokens(count, args.topK);
        const valid = mask?.subarray(from, from + count);
        placed(path, () => sums.add(layer.read(from, count), count, valid ? { valid } : {}));
        done += count;
        const shown: StoredTokens = { layer: layer.layer, document: 0, documentId: '', tokens };
        progress({ done, ...(args.tokens && { shown }) });
      }
      return sums.finish();
    });
    addRoutedDocument(run, 0, statistics);
    run.documentsRead = 1;
    return { run, documentsKnown: false, maskedTokens: mask ? mask.filter((value) => value === 0).length : 0 };
  } finally {
    close();
  }
}

function openSums(
  args: StoredRoutingArguments,
  head: RouterHead,
  correctionBias: Float64Array | undefined,
  tokens: () => RoutedTokens,
): RoutingSums {
  const rule: RouterRule = {
    score: args.score,
    topK: args.topK,
    normalizeTopK: true,
    ...(correctionBias && { correctionBias }),
  };
  return createRoutingSums(head.layer, head.experts, rule, {
    grams: false,
    threads: args.threads,
    ...(args.tokens && { onToken: (routing) => logToken(tokens(), routing) }),
  });
}

/** One line: logits [E] of the layer `layer` (default 0), or [L][E]. */
function logitsOf(row: Row): Map<number, Float64Array> {
  const { record } = row;
  const value = record.router_logits ?? record.logits;
  const numbers = (list: unknown, layer: number): Float64Array => {
    if (!Array.isArray(list) || list.length === 0 || !list.every((entry) => typeof entry === 'number')) {
      throw new InputError(`${placeOf(row)}: layer ${layer}: router logits are a list of one number an expert`);
    }
    return Float64Array.from(list);
  };
  if (!Array.isArray(value)) {
    throw new InputError(`${placeOf(row)}: no field "router_logits" with [E] or [layers][E] numbers`);
  }
  if (Array.isArray(value[0])) return new Map(value.map((list, layer) => [layer, numbers(list, layer)]));
  const layer = record.layer ?? 0;
  if (typeof layer !== 'number' || !Number.isInteger(layer) || layer < 0) {
    throw new InputError(`${placeOf(row)}: "layer" is ${JSON.stringify(layer)}, an index from 0 is needed`);
  }
  return new Map([[layer, numbers(value, layer)]]);
}

interface OpenDocument {
  readonly id: string;
  readonly sums: Map<number, { readonly head: RouterHead; readonly sums: RoutingSums; tokens: RoutedTokens }>;
}

async function measureLines(args: StoredRoutingArguments, path: string, progress: Progress): Promise<StoredRouting> {
  const bias = biasOf(args);
  const seen = new Set<string>();
  let run: RoutingRun | undefined;
  let open: OpenDocument | undefined;
  let documentsKnown = false;
  let firstLayer: number | undefined;
  let [masked, done] = [0, 0];

  const close = (): void => {
    if (!open) return;
    const layers = [...open.sums.values()].sort((a, b) => a.head.layer - b.head.layer);
    const before = run?.layers.map(({ head }) => head.layer).join(' ');
    const own = layers.map(({ head }) => head.layer).join(' ');
    if (before !== undefined && before !== own) {
      throw new InputError(`${path}: document ${quoted(open.id)} has the layers ${own}, those before have ${before}`);
    }
    run ??= createRoutingRun(layers.map(({ head }) => head));
    addRoutedDocument(
      run,
      run.documentsRead++,
      layers.map(({ sums }) => sums.finish()),
    );
    open = undefined;
  };
  const begin = (row: Row, id: string): OpenDocument => {
    if (seen.has(id)) throw new InputError(`${placeOf(row)}: document ${quoted(id)} was ended before; sort the lines`);
    seen.add(id);
    return { id, sums: new Map() };
  };
  for await (const row of readJsonLines(createInputLedger().read(path), path, createRowSelection())) {
    const named = row.record.document;
    documentsKnown ||= named !== undefined;
    const id = named === undefined ? '' : String(named);
    if (open?.id !== id) {
      close();
      open = begin(row, id);
    }
    const { valid } = row.record;
    const counts = args.countPadding || valid === undefined || !(valid === 0 || valid === false);
    for (const [layer, logits] of logitsOf(row)) {
      firstLayer ??= layer;
      if (!counts && layer === firstLayer) masked++;
      let own = open.sums.get(layer);
      if (!own) {
        const head = headOf(args, layer, logits.length, path);
        const known = { head, tokens: createRoutedTokens(0, args.topK) };
        own = Object.assign(known, { sums: openSums(args, head, bias?.(layer, logits.length), () => known.tokens) });
        open.sums.set(layer, own);
      }
      if (logits.length !== own.head.experts) {
        throw new InputError(`${placeOf(row)}: layer ${layer}: ${logits.length} logits, ${own.head.experts} before`);
      }
      if (args.tokens) own.tokens = createRoutedTokens(1, args.topK);
      const { sums } = own;
      placed(placeOf(row), () => sums.add(logits, 1, { valid: [counts] }));
      const shown: StoredTokens = { layer, document: run?.documentsRead ?? 0, documentId: id, tokens: own.tokens };
      if (args.tokens && counts) progress({ done, shown });
    }
    if (++done % 1000 === 0) progress({ done });
  }
  close();
  if (!run) throw new InputError(`${path}: no line with router logits`);
  return { run, documentsKnown, maskedTokens: masked };
}

/**
 * Measures stored router logits in one pass; nothing of the size of the file is kept.
 * @throws InputError for files of other shapes, logits that are not finite (with layer, token, expert), or no token
 */
export async function measureStoredRouting(args: StoredRoutingArguments, progress: Progress): Promise<StoredRouting> {
  const lines = args.logits !== undefined && /\.(jsonl|ndjson)(\.gz)?$/i.test(args.logits);
  const found = lines ? await measureLines(args, args.logits ?? '', progress) : measureTensors(args, progress);
  if (found.run.documents.length === 0) {
    throw new InputError(`${args.logits ?? args.hiddenStates}: no token counts: the mask leaves out all of them`);
  }
  return found;
}

export const MEASURE_STORED_ROUTING: ComputeReference<StoredRoutingArguments, StoredRouting> = {
  module: import.meta.url,
  job: measureStoredRouting,
};
