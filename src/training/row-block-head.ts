import type { Tensor } from 'onnxruntime-node';
import { addInto } from '../kernels/optimizer-steps.js';
import type { ModelDescription } from '../models/description.js';
import { composeGraph } from '../models/graph.js';
import { normalize } from '../models/layer-parts.js';
import type { SessionPool } from '../models/sessions.js';
import type { Random } from '../random.js';
import type { DecoderWeights } from './decoder-weights.js';
import {
  createSavedBuffers,
  type Feeds,
  floatTensor,
  openSegment,
  type SavedState,
  type Segment,
} from './graph-segment.js';
import { createHeadProducts } from './head-products.js';
import type { Floats, LogitsVisitor, Precision } from './types.js';
import type { Workspace } from './workspace.js';

export interface HeadSettings {
  readonly model: ModelDescription;
  readonly weights: DecoderWeights;
  readonly precision: Precision;
  readonly threads: number;
  readonly random: Random;
  readonly sessions: SessionPool;
  readonly workspace: Workspace;
  /** Whether the stream before the final norm has a gradient. */
  readonly streamLearns: boolean;
}

/** Final norm and head, which show the logits of some rows at a time. */
export interface RowBlockHead {
  /** Logits of all rows of the stream [rows, hidden], `blockRows` at a time, without gradients. */
  infer(stream: Floats, rows: number, blockRows: number, visit: LogitsVisitor): Promise<void>;
  /**
   * The same with gradients: adds those of the head and the norm, and writes that of the stream into
   * `streamGradient` [rows, hidden].
   */
  accumulate(
    stream: Floats,
    rows: number,
    blockRows: number,
    visit: LogitsVisitor,
    streamGradient: Floats | undefined,
  ): Promise<void>;
  close(): Promise<void>;
}

/** d/dz of c tanh(z / c) is 1 - (logit / c)^2. */
function throughCap(gradient: Floats, logits: Floats, cap: number): void {
  for (let i = 0; i < gradient.length; i++) {
    const t = logits[i] / cap;
    gradient[i] *= 1 - t * t;
  }
}

/** Final norm and vocabulary projection in blocks of rows, so that logits of a whole batch are never held. */
export async function createRowBlockHead(settings: HeadSettings): Promise<RowBlockHead> {
  const { model, weights, precision, workspace, sessions, streamLearns } = settings;
  const { hiddenSize, vocabularySize, logitSoftcap } = model;
  const { head, finalNorm, finalNormBias } = weights;
  const norms = [
    { name: 'final_norm', view: finalNorm },
    ...(finalNormBias ? [{ name: 'final_norm_bias', view: finalNormBias }] : []),
  ];
  const trained = norms.filter(({ view }) => view.gradient);
  const normFeeds: Feeds = Object.fromEntries(
    norms.map(({ name, view }) => [name, floatTensor(view.values, view.dims)]),
  );
  const rowsLearn = streamLearns || trained.length > 0;
  const norm: Segment = await openSegment({
    graph: composeNorm(model, precision),
    wanted: [...(streamLearns ? ['rows'] : []), ...trained.map(({ name }) => name)],
    seeds: ['normed'],
    example: { rows: exampleRows(settings), ...normFeeds },
    precision,
    threads: settings.threads,
    recompute: false,
    fixedShapes: true,
  });
  const buffers = createSavedBuffers();
  const products = createHeadProducts({
    model,
    matrix: head.values,
    precision,
    threads: settings.threads,
    sessions,
    workspace,
  });

  const logitsOf = async (normed: Floats, count: number): Promise<Floats> => {
    const logits = workspace.floats('logits', count * vocabularySize);
    await products.logits(normed, count, logits);
    return logits;
  };

  /** Gradients of one block: adds that of the matrix and to that of the normed rows. */
  const backward = async (gradient: Floats, normed: Floats, normedGradient: Floats, count: number): Promise<void> => {
    if (rowsLearn) await products.addRowsGradient(gradient, count, normedGradient);
    if (head.gradient) await products.addMatrixGradient(gradient, normed, count, head.gradient);
  };

  const normedRows = async (
    stream: Floats,
    rows: number,
  ): Promise<{ normed: Floats; saved: SavedState; feeds: Feeds }> => {
    const normed = workspace.floats('normed', rows * hiddenSize);
    const dims = [rows, hiddenSize];
    const feeds: Feeds = { rows: floatTensor(stream, dims), ...normFeeds };
    const { saved } = await norm.forward(feeds, { normed: floatTensor(normed, dims) }, buffers, String(rows));
    return { normed, saved, feeds };
  };

  return {
    async infer(stream, rows, blockRows, visit) {
      const { normed } = await normedRows(stream, rows);
      for (let firstRow = 0; firstRow < rows; firstRow += blockRows) {
        const count = Math.min(blockRows, rows - firstRow);
        const features = normed.subarray(firstRow * hiddenSize, (firstRow + count) * hiddenSize);
        const logits = await logitsOf(features, count);
        await visit({ firstRow, rows: count, classes: vocabularySize, logits, features, featureWidth: hiddenSize });
      }
    },

    async accumulate(stream, rows, blockRows, visit, streamGradient) {
      const { normed, saved, feeds } = await normedRows(stream, rows);
      const normedGradient = workspace.floats('grad.normed', rows * hiddenSize).fill(0);
      for (let firstRow = 0; firstRow < rows; firstRow += blockRows) {
        const count = Math.min(blockRows, rows - firstRow);
        const [from, to] = [firstRow * hiddenSize, (firstRow + count) * hiddenSize];
        const features = normed.subarray(from, to);
        const featureGradient = normedGradient.subarray(from, to);
        const logits = await logitsOf(features, count);
        const gradient = workspace.floats('grad.logits', count * vocabularySize).fill(0);
        await visit({
          firstRow,
          rows: count,
          classes: vocabularySize,
          logits,
          gradient,
          features,
          featureWidth: hiddenSize,
          featureGradient,
        });
        if (logitSoftcap !== undefined) throughCap(gradient, logits, logitSoftcap);
        await backward(gradient, features, featureGradient, count);
      }
      if (!rowsLearn) return;
      const dims = [rows, hiddenSize];
      const into: Record<string, Tensor> = {};
      if (streamGradient) into.rows = floatTensor(streamGradient, dims);
      for (const { name, view } of trained) into[name] = workspace.tensor(`grad.${name}`, view.dims);
      await norm.backward(feeds, saved, { normed: floatTensor(normedGradient, dims) }, into);
      for (const { name, view } of trained) {
        if (view.gradient) addInto(view.gradient, workspace.floats(`grad.${name}`, view.gradient.length));
      }
    },

    close: () => norm.close(),
  };
}

function composeNorm(model: ModelDescription, precision: Precision): Uint8Array {
  const g = composeGraph('final_norm', precision);
  const rows = g.input('rows', g.float, ['n', model.hiddenSize]);
  g.publish(normalize(g, model.norm, rows, 'final_norm', model.hiddenSize), 'normed');
  return g.encode();
}

function exampleRows({ model, precision, random }: HeadSettings): Tensor {
  const size = 3 * model.hiddenSize;
  const data = precision === 'f32' ? new Float32Array(size) : new Float64Array(size);
  for (let i = 0; i < size; i++) data[i] = random.normal();
  return floatTensor(data, [3, model.hiddenSize]);
}
