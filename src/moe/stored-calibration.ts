import { createHash } from 'node:crypto';
import { InputError } from '../errors.js';
import { sha256File } from '../formats/hash.js';
import { openTensorFile } from '../formats/tensor-file.js';
import type { ComputeReference } from '../kernels/compute-thread.js';
import { multiply } from '../kernels/gemm.js';
import { openExpertModel } from './expert-layout.js';
import type { ExpertLayer, ExpertModel } from './expert-model.js';
import { type ReadExpert, readExpert, readRouter } from './expert-reader.js';
import { createExpertSums } from './expert-statistics.js';
import { createRoutingSums, type TokenRouting } from './routing-statistics.js';
import { createStatisticsWriter, type MoeStatistics, type WatchedOutputs } from './statistics-file.js';
import { openLayers, readMask, type StoredLayer } from './stored-routing.js';
import type { LayerStatistics, RouterRule } from './types.js';
import { chosenExperts, createExpertRun, keepChoice } from './watch-experts.js';

/**
 * Inputs of a model's experts that another program has stored, for models whose forward pass this tool does not have
 * (DeepSeek, GLM, Switch).
 */
export interface StoredCalibrationArguments {
  /** Hugging Face directory with experts of any known layout, and its hash (`hashModel`). */
  readonly model: string;
  readonly modelSha256: string;
  /**
   * What routers and experts read: `.npy`, `.npz`, `.safetensors`, one tensor [layers, ..., H] with the layers that have
   * experts in order, or a tensor [..., H] a layer with the layer's number in its name.
   */
  readonly hiddenStates: string;
  /** Tokens that count, [T]: 0 is padding. Without it a mask in the file itself. */
  readonly mask?: string;
  readonly countPadding: boolean;
  readonly outputs: WatchedOutputs;
  /** Folder of the statistics. */
  readonly folder: string;
  readonly force: boolean;
  readonly resume: boolean;
  /** Memory for rows and outputs of experts. It changes no bit. */
  readonly memoryBytes: number;
  readonly threads: number;
}

/** The rule of a layer's router, groups included. */
function ruleOf(layer: ExpertLayer): RouterRule {
  return { ...layer.rule, ...(layer.groups && { groups: layer.groups }) };
}

/** Stored rows of every layer with experts. @throws InputError when they are not those of the model */
function matchLayers(model: ExpertModel, stored: readonly StoredLayer[], path: string): readonly StoredLayer[] {
  const [{ rows }] = stored;
  const expected = model.layers.map(({ layer }) => layer).join(' ');
  const given = stored.map(({ layer }) => layer);
  const inOrder = given.every((layer, place) => layer === place);
  if (stored.length !== model.layers.length || (!inOrder && given.join(' ') !== expected)) {
    throw new InputError(
      `${path}: hidden states of ${stored.length} layers (${given.join(' ')}); ${model.path} has experts in the ` +
        `${model.layers.length} layers ${expected}`,
    );
  }
  stored.forEach((layer, place) => {
    const { hidden } = model.layers[place].shape;
    if (layer.width !== hidden) {
      throw new InputError(`${path}: layer ${layer.layer} has ${layer.width} components a token, the model ${hidden}`);
    }
    if (layer.rows !== rows) {
      throw new InputError(`${path}: layer ${layer.layer} has ${layer.rows} tokens, the first has ${rows}`);
    }
  });
  return stored;
}

/** Rows of a block that count, one after the other; all of them without a mask. */
function countedRows(values: Float64Array, width: number, mask: Float64Array | undefined): Float64Array {
  if (!mask?.includes(0)) return values;
  const kept = Float64Array.from({ length: width * mask.filter((valid) => valid !== 0).length });
  let next = 0;
  mask.forEach((valid, row) => {
    if (valid === 0) return;
    kept.set(values.subarray(row * width, (row + 1) * width), next);
    next += width;
  });
  return kept;
}

/** What routers and experts of one layer do with its stored inputs. */
function watchLayer(
  model: ExpertModel,
  place: number,
  stored: StoredLayer,
  mask: Float64Array | undefined,
  args: StoredCalibrationArguments,
  onRows: (rows: number) => void,
): LayerStatistics {
  const { outputs, threads, memoryBytes } = args;
  const layer = model.layers[place];
  const { layer: number, experts, shape, routerRows } = layer;
  const { hidden } = shape;
  const rule = ruleOf(layer);
  const sums =
    outputs === 'none'
      ? undefined
      : createExpertSums(number, { experts, hidden, width: shape.width }, { everywhere: outputs === 'all', threads });
  let chosen = chosenExperts(0, rule.topK);
  let first = 0;
  const onToken = (token: TokenRouting): void => keepChoice(chosen, token.token - first, token);
  const routing = createRoutingSums(number, routerRows, rule, { threads, ...(sums && { onToken }) });
  let buffers: ReadExpert | undefined;
  const run =
    sums &&
    createExpertRun({
      ...{ shape, experts, everywhere: outputs === 'all', blockBytes: memoryBytes / 2, threads, sums },
      expert(e) {
        buffers = readExpert(model, place, e, threads, buffers);
        return buffers;
      },
    });
  const router = readRouter(model, place, threads);
  const matrix = Float64Array.from(router.rows);
  // Experts are read once a block: blocks are as long as memory allows.
  const blockRows = Math.max(16, Math.floor(memoryBytes / 2 / (20 * hidden)));
  for (let from = 0; from < stored.rows; from += blockRows) {
    const count = Math.min(blockRows, stored.rows - from);
    const x = countedRows(stored.read(from, count), hidden, mask?.subarray(from, from + count));
    const rows = x.length / hidden;
    const logits = new Float64Array(rows * routerRows);
    multiply(x, matrix, logits, { m: rows, n: routerRows, k: hidden }, { transposeB: true, threads });
    if (router.bias) for (let i = 0; i < logits.length; i++) logits[i] += router.bias[i % routerRows];
    first = routing.tokens;
    chosen = chosenExperts(sums ? rows : 0, rule.topK);
    routing.add(logits, rows);
    run?.(Float32Array.from(x), rows, chosen);
    onRows(count);
  }
  return { routing: routing.finish(), ...(sums && { outputs: sums.finish() }) };
}

/** Digest of what was read. */
async function sourceDigest({ hiddenStates, mask, countPadding }: StoredCalibrationArguments): Promise<string> {
  const digest = await sha256File(hiddenStates);
  if (mask === undefined || countPadding) return digest;
  return createHash('sha256')
    .update(`${digest}\n${await sha256File(mask)}\n`)
    .digest('hex');
}

/**
 * Statistics of a model from stored inputs of its experts, as `calibrateToFolder` makes them from text. Routers run in f64,
 * experts in f32; one expert is in memory at a time.
 * @throws InputError for inputs of other layers or sizes, without a token that counts, or a folder that exists
 */
export async function calibrateStored(
  args: StoredCalibrationArguments,
  progress: (value: unknown) => void,
): Promise<{
  readonly statistics: MoeStatistics;
  readonly files: readonly { name: string; bytes: number; sha256: string }[];
}> {
  const model = openExpertModel(args.model);
  const store = openTensorFile(args.hiddenStates);
  try {
    const stored = matchLayers(model, openLayers(store, 'hidden_states'), args.hiddenStates);
    const [{ rows }] = stored;
    const mask = readMask(args, store, rows);
    const tokens = mask ? mask.filter((valid) => valid !== 0).length : rows;
    if (tokens === 0) throw new InputError(`${args.hiddenStates}: no token counts: the mask leaves out all of them`);
    const part = { textSha256: await sourceDigest(args), tokens, windowTokens: rows, shard: { index: 0, count: 1 } };
    const { modelSha256, outputs, force, resume } = args;
    const header = { modelType: model.family, modelSha256, precision: 'f32' as const, outputs, tokens, parts: [part] };
    const writer = createStatisticsWriter(args.folder, header, { force, resume });
    try {
      const known = new Map(writer.done.map((layer) => [layer.routing.layer, layer]));
      let done = 0;
      const layers = model.layers.map(({ layer }, place) => {
        const found = known.get(layer);
        if (found) return found;
        const made = watchLayer(model, place, stored[place], mask, args, (count) => {
          done += count;
          progress({ done, all: rows * (model.layers.length - known.size) });
        });
        writer.write(made);
        return made;
      });
      return { statistics: { header, layers }, files: writer.commit() };
    } catch (error) {
      writer.abort();
      throw error;
    }
  } finally {
    store.close();
    model.close();
  }
}

export const CALIBRATE_STORED: ComputeReference<
  StoredCalibrationArguments,
  Awaited<ReturnType<typeof calibrateStored>>
> = { module: import.meta.url, job: calibrateStored };
