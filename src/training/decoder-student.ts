import type { Tensor } from 'onnxruntime-node';
import { InputError } from '../errors.js';
import { elementCount } from '../formats/tensor.js';
import { nativeKernels } from '../kernels/native.js';
import { addInto } from '../kernels/optimizer-steps.js';
import type { ModelDescription } from '../models/description.js';
import type { MemoryTensor } from '../models/memory-model.js';
import type { ModelFiles } from '../models/model-files.js';
import { createRopeFeeds } from '../models/rope-feeds.js';
import { createSessionPool } from '../models/sessions.js';
import { createRandom } from '../random.js';
import type { AttentionExtension } from './attention-composition.js';
import { type AttentionTensors, createGraphAttention } from './decoder-attention.js';
import { composeDecoder, type WholeGraph } from './decoder-graph.js';
import { createSeams, type Seam } from './decoder-seams.js';
import {
  type CompanionParameter,
  type LowRankAdapter,
  readDecoderWeights,
  type WeightView,
} from './decoder-weights.js';
import { createEmbedding } from './embedding.js';
import { createSavedBuffers, type Feeds, type SavedState } from './graph-segment.js';
import { createNativeAttention } from './native-attention.js';
import { createRowBlockHead } from './row-block-head.js';
import { trainedModel } from './trained-model.js';
import { planTraining, type TrainingPlan } from './training-memory.js';
import type { Floats, LogitsVisitor, OwnTerm, Precision, Student, TokenBatch, VisitOptions } from './types.js';
import { createWorkspace } from './workspace.js';

export interface DecoderStudentOptions {
  readonly precision: Precision;
  readonly threads: number;
  /** Most windows of a micro-batch, and the longest window. */
  readonly batch: number;
  readonly length: number;
  /** Limit of the process's resident memory; decides how many layers are recomputed. */
  readonly maxMemoryBytes?: number;
  /** At least so many layers are recomputed; for measurements. */
  readonly recomputedLayers?: number;
  /** Resident bytes of the process before, for the estimate. */
  readonly processBytes?: number;
  /** Buffers that the optimiser keeps for every trained element (AdamW 2). */
  readonly optimizerSlots?: number;
  /** Every visit will be of the whole batch. */
  readonly wholeBatch?: boolean;
  /** Globs of tensors that are trained (all when absent), and of those that are not. */
  readonly train?: readonly string[];
  readonly freeze?: readonly string[];
  /** Low-rank terms that are trained in place of the weights; see `src/training/lora.ts`. */
  readonly adapters?: readonly LowRankAdapter[];
  /** Another attention, with trained inputs and a penalty of its own. */
  readonly attention?: AttentionExtension;
  /** Parameters that no graph reads: whoever names them adds to their gradients. */
  readonly companions?: readonly CompanionParameter[];
}

/** A decoder that is trained. Its parameters have the names of Hugging Face checkpoints. */
export interface DecoderStudent extends Student<TokenBatch> {
  readonly description: ModelDescription;
  readonly plan: TrainingPlan;
  /**
   * Every tensor of the model by name, trained or frozen, where it lies: later steps change it. Adapters are not added.
   * Stacks of experts are [experts, out, in], whichever way the checkpoint has them.
   */
  readonly tensors: ReadonlyMap<string, MemoryTensor>;
  /**
   * The model as it is now, with adapters added and with what an extension of attention can say by factors of the
   * scores folded into the queries (see `unfoldableQueries`), to be opened with `createEngine`: for samples of the student and for evaluation. Its store reads the student's memory, so an engine that keeps weights must be made anew after a step.
   */
  currentModel(): ModelFiles;
  /** The model as one graph, for windows of at most the student's length; its weights lie in the student's memory. */
  wholeGraph(): WholeGraph;
  /** Extra inputs of each layer's attention by role, as they are now. */
  readonly extras: readonly ReadonlyMap<string, WeightView>[];
  /** Puts extra inputs that a step has moved out of their range back to its end. */
  confine(): void;
}

/** Tensors [heads, S, S] that attention keeps as a graph: scores and probabilities; with an extension, those of it too. */
const GRAPH_SCORES = 2;
const EXTENDED_SCORES = 5;

/** Graphs find out ranks on random numbers; no figure depends on them. */
const EXAMPLE_SEED = 7;

/**
 * Opens a decoder for training: every architecture that {@link ModelDescription} describes. The forward pass is a chain
 * of graphs cut at the attentions (see `decoder-seams.ts`); each is differentiated once, and layers of one kind share it.
 * The head shows the logits in blocks of rows (`plan.blockRows`).
 *
 * @throws InputError for a glob without a match, an adapter that fits no linear, or when the memory does not suffice
 */
export async function openDecoderStudent(files: ModelFiles, options: DecoderStudentOptions): Promise<DecoderStudent> {
  const { precision, threads } = options;
  const model = files.description;
  const { hiddenSize } = model;
  const layerCount = model.layers.length;
  const extension = options.attention;
  const extras = model.layers.map((layer, l) => extension?.inputs(l, layer.attention) ?? []);
  const weights = readDecoderWeights(files, {
    precision,
    threads,
    extras,
    ...(options.adapters && { adapters: options.adapters }),
    ...(options.companions && { companions: options.companions }),
    ...(options.train && { train: options.train }),
    ...(options.freeze && { freeze: options.freeze }),
  });
  // The kernel knows neither double precision nor what an extension does to scores.
  const native = precision === 'f32' && !extension && nativeKernels() !== undefined;
  const plan = planTraining({
    files,
    keptScores: native ? 0 : extension ? EXTENDED_SCORES : GRAPH_SCORES,
    trainedElements: weights.parameters.values.length,
    precision,
    batch: options.batch,
    length: options.length,
    optimizerSlots: options.optimizerSlots ?? 2,
    processBytes: options.processBytes ?? 0,
    ...(options.recomputedLayers !== undefined && { recomputedLayers: options.recomputedLayers }),
    ...(options.maxMemoryBytes !== undefined && { maxBytes: options.maxMemoryBytes }),
    ...(options.wholeBatch !== undefined && { wholeBatch: options.wholeBatch }),
  });
  const random = createRandom(EXAMPLE_SEED);
  const workspace = createWorkspace(precision);
  const sessions = createSessionPool({ threads, device: 'cpu', arena: true, precision });
  const { seams, close: closeSeams } = createSeams({ model, weights, precision, threads, random });
  const last = seams[layerCount];
  const head = await createRowBlockHead({
    model,
    weights,
    precision,
    threads,
    random: random.fork(layerCount + 1),
    sessions,
    workspace,
    streamLearns: last.outputLearns,
  });
  const recompute = (layer: number): boolean => layer < plan.recomputedLayers;
  const ropes = createRopeFeeds(model, precision);
  const attention = native
    ? createNativeAttention({ model, threads, ropes })
    : createGraphAttention({
        model,
        precision,
        threads,
        random: random.fork(layerCount + 2),
        ropes,
        workspace,
        extras,
        views: weights.extras,
        recompute,
        ...(extension && { extension }),
      });
  const embedding = createEmbedding(model, weights);
  const buffers = seams.map(createSavedBuffers);

  /** Stream before layer l, [B, S, hidden]; the one after the last layer has the number `layerCount`. */
  const streamOf = (layer: number, { batch, length }: TokenBatch, kept: boolean): Tensor =>
    workspace.tensor(`stream.${kept ? layer : layer % 2}`, [batch, length, hiddenSize]);

  const attentionOf = (layer: number, { batch, length }: TokenBatch, kept: boolean, prefix = ''): AttentionTensors => {
    const { heads, kvHeads, headDim } = model.layers[layer].attention;
    const place = kept ? layer : 'any';
    const tensor = (name: string, count: number): Tensor =>
      workspace.tensor(`${prefix}${name}.${place}`, [batch, length, count * headDim]);
    return {
      queries: tensor('queries', heads),
      keys: tensor('keys', kvHeads),
      values: tensor('values', kvHeads),
      heads: tensor('heads', heads),
    };
  };

  const seamFeeds = (seam: Seam, batch: TokenBatch, kept: boolean): Feeds => ({
    ...seam.feeds,
    resid: streamOf(Math.max(0, seam.index - 1), batch, kept),
    ...(seam.finished && { heads: attentionOf(seam.index - 1, batch, kept).heads }),
  });

  const seamOutputs = (seam: Seam, batch: TokenBatch, kept: boolean): Record<string, Tensor | null> => {
    const outputs: Record<string, Tensor | null> = {};
    if (seam.finished) outputs.resid_out = streamOf(seam.index, batch, kept);
    if (seam.next) {
      const { queries, keys, values } = attentionOf(seam.index, batch, kept);
      Object.assign(outputs, { queries, keys, values });
    }
    return outputs;
  };

  const check = (batch: TokenBatch): void => {
    if (batch.tokens.length !== batch.batch * batch.length) {
      throw new RangeError(`a batch of ${batch.batch} windows of ${batch.length} has ${batch.tokens.length} tokens`);
    }
    if (model.learnedPositions && batch.length > model.maxPositions) {
      throw new InputError(
        `a window of ${batch.length} tokens is longer than the model's ${model.maxPositions} positions`,
      );
    }
  };

  const blockRows = (batch: TokenBatch, visit: VisitOptions): number =>
    visit.wholeBatch ? batch.batch * batch.length : plan.blockRows;

  /** Forward to the stream after the last layer; returns the sum of penalties and what the backward pass needs. */
  const forward = async (batch: TokenBatch, kept: boolean): Promise<{ penalty: number; saved: SavedState[] }> => {
    const saved: SavedState[] = [];
    const shape = `${batch.batch}x${batch.length}`;
    embedding.gather(batch, streamOf(0, batch, kept).data as Floats);
    let penalty = 0;
    for (const seam of seams) {
      const segment = await seam.segment(recompute(seam.index));
      const feeds = seamFeeds(seam, batch, kept);
      const outputs = seamOutputs(seam, batch, kept);
      if (kept) saved.push((await segment.forward(feeds, outputs, buffers[seam.index], shape)).saved);
      else await segment.infer(feeds, outputs);
      if (!seam.next) continue;
      const call = { layer: seam.index, batch: batch.batch, length: batch.length, labels: batch.labels };
      const tensors = attentionOf(seam.index, batch, kept);
      const learns = kept && seams[seam.index + 1].headsLearn;
      penalty += await (learns ? attention.forward(call, tensors) : attention.infer(call, tensors));
    }
    return { penalty, saved };
  };

  /** Adds the gradients of one seam; the stream's goes to `streamGradient`, the heads' to the layer's cotangent. */
  const backwardSeam = async (
    seam: Seam,
    batch: TokenBatch,
    saved: SavedState,
    incoming: Tensor,
    outgoing: Tensor,
  ): Promise<void> => {
    const segment = await seam.segment(recompute(seam.index));
    const cotangents: Record<string, Tensor> = { resid_out: incoming };
    if (seam.next) {
      const { queries, keys, values } = attentionOf(seam.index, batch, false, 'grad.');
      Object.assign(cotangents, { queries, keys, values });
    }
    const into: Record<string, Tensor> = {};
    const reached = seam.trained.filter((name) => !segment.unreached.has(name));
    for (const name of reached) into[name] = workspace.tensor(`grad.${name}`, seam.weights.get(name)?.dims ?? []);
    if (seam.streamLearns && !segment.unreached.has('resid')) into.resid = outgoing;
    if (seam.headsLearn) into.heads = attentionOf(seam.index - 1, batch, false, 'grad.').heads;
    await segment.backward(seamFeeds(seam, batch, true), saved, cotangents, into);
    for (const name of reached) {
      const gradient = seam.weights.get(name)?.gradient;
      if (gradient) addInto(gradient, workspace.floats(`grad.${name}`, gradient.length));
    }
  };

  const backward = async (batch: TokenBatch, saved: SavedState[], penaltyScale: number): Promise<void> => {
    const dims = [batch.batch, batch.length, hiddenSize];
    const gradientOf = (layer: number): Tensor => workspace.tensor(`grad.stream.${layer % 2}`, dims);
    for (let index = layerCount; index >= 0; index--) {
      const seam = seams[index];
      if (seam.next && seams[index + 1].headsLearn) {
        const call = { layer: index, batch: batch.batch, length: batch.length, labels: batch.labels };
        const { heads, queries, keys, values } = attentionOf(index, batch, false, 'grad.');
        const gradients = seam.queriesLearn ? { heads, queries, keys, values } : { heads };
        await attention.backward(call, attentionOf(index, batch, true), gradients, penaltyScale);
      }
      if (!seam.outputLearns && !seam.queriesLearn) return;
      // The first seam gives no stream: its part of the embeddings' gradient is added to that of the second.
      const outgoing = index === 0 ? workspace.tensor('grad.stream.first', dims) : gradientOf(index - 1);
      await backwardSeam(seam, batch, saved[index], gradientOf(index), outgoing);
    }
    if (!seams[0].streamLearns) return;
    const total = workspace.floats('grad.stream.0', elementCount(dims));
    addInto(total, workspace.floats('grad.stream.first', elementCount(dims)));
    embedding.scatter(batch, total);
  };

  return {
    description: model,
    parameters: weights.parameters,
    classes: model.vocabularySize,
    plan,
    tensors: weights.tensors,
    currentModel: () => trainedModel(files, weights, options.adapters ?? [], extension),
    extras: weights.extras,
    confine() {
      extras.forEach((ofLayer, l) => {
        for (const { role, range } of ofLayer) {
          const values = weights.extras[l].get(role)?.values;
          if (!range || !values) continue;
          values.forEach((value, i) => {
            values[i] = Math.min(range.greatest, Math.max(range.least, value));
          });
        }
      });
    },
    wholeGraph: () =>
      composeDecoder({
        model,
        weights,
        precision,
        length: options.length,
        extras,
        ...(extension && { extension }),
      }),
    rowsOf: (batch) => batch.batch * batch.length,

    async accumulate(batch: TokenBatch, visit: LogitsVisitor, visitOptions: VisitOptions = {}): Promise<OwnTerm[]> {
      check(batch);
      const { penalty, saved } = await forward(batch, true);
      const stream = streamOf(layerCount, batch, true).data as Floats;
      const dims = [batch.batch, batch.length, hiddenSize];
      const gradient = workspace.floats(`grad.stream.${layerCount % 2}`, elementCount(dims));
      const rows = batch.batch * batch.length;
      const wanted = last.outputLearns ? gradient : undefined;
      await head.accumulate(stream, rows, blockRows(batch, visitOptions), visit, wanted);
      await backward(batch, saved, visitOptions.ownTermScale ?? 1);
      return extension?.penalty ? [{ name: extension.penalty, value: penalty }] : [];
    },

    async evaluate(batch: TokenBatch, visit: LogitsVisitor, visitOptions: VisitOptions = {}): Promise<void> {
      check(batch);
      await forward(batch, false);
      const stream = streamOf(layerCount, batch, false).data as Floats;
      await head.infer(stream, batch.batch * batch.length, blockRows(batch, visitOptions), visit);
    },

    async close() {
      await closeSeams();
      await attention.close();
      await head.close();
      await sessions.close();
    },
  };
}
