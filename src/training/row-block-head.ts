import type { Tensor } from 'onnxruntime-node';
import { addInto } from '../kernels/optimizer-steps.js';
import type { ModelDescription } from '../models/description.js';
import { composeGraph } from '../models/graph.js';
import { normalize } from '../models/layer-parts.js';
import { runSession, type SessionPool } from '../models/sessions.js';
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

/** Graphs of the head's products on a block of rows; the logits before their cap are never kept. */
function composeHead(model: ModelDescription, precision: Precision, kind: 'logits' | 'rows' | 'matrix'): Uint8Array {
  const g = composeGraph(`head_${kind}`, precision);
  const { hiddenSize, vocabularySize, logitSoftcap } = model;
  const matrix = (): string => g.input('matrix', g.float, [vocabularySize, hiddenSize]);
  const rows = (): string => g.input('rows', g.float, ['n', hiddenSize]);
  if (kind === 'logits') {
    let logits = g.node('Gemm', [rows(), matrix()], { attributes: { transB: { int: 1 } } });
    if (logitSoftcap !== undefined) {
      const cap = g.scalar(logitSoftcap);
      logits = g.node('Mul', [g.node('Tanh', [g.node('Div', [logits, cap])]), cap]);
    }
    g.publish(logits, 'logits', ['n', vocabularySize]);
    return g.encode();
  }
  const gradient = g.input('gradient', g.float, ['n', vocabularySize]);
  if (kind === 'rows') g.publish(g.node('Gemm', [gradient, matrix()]), 'rows_gradient', ['n', hiddenSize]);
  else {
    const product = g.node('Gemm', [gradient, rows()], { attributes: { transA: { int: 1 } } });
    g.publish(product, 'matrix_gradient', [vocabularySize, hiddenSize]);
  }
  return g.encode();
}

/** d/dz of c tanh(z / c) is 1 - (logit / c)^2. */
function throughCap(gradient: Floats, logits: Floats, cap: number): void {
  for (let i = 0; i < gradient.length; i++) {
    const t = logits[i] / cap;
    gradient[i] *= 1 - t * t;
  }
}

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
  const matrix = floatTensor(head.values, [vocabularySize, hiddenSize]);
  const product = (kind: 'logits' | 'rows' | 'matrix') =>
    sessions.get(`head|${kind}`, () => composeHead(model, precision, kind));

  const logitsOf = async (normed: Floats, count: number): Promise<Floats> => {
    const logits = workspace.floats('logits', count * vocabularySize);
    const rows = floatTensor(normed, [count, hiddenSize]);
    const into = floatTensor(logits, [count, vocabularySize]);
    await runSession(await product('logits'), { rows, matrix }, { logits: into });
    return logits;
  };

  /** Gradients of one block: adds that of the matrix and to that of the normed rows. */
  const backward = async (gradient: Floats, normed: Floats, normedGradient: Floats, count: number): Promise<void> => {
    const tensor = floatTensor(gradient, [count, vocabularySize]);
    if (rowsLearn) {
      const rows = workspace.floats('head.rows', count * hiddenSize);
      const into = floatTensor(rows, [count, hiddenSize]);
      await runSession(await product('rows'), { gradient: tensor, matrix }, { rows_gradient: into });
      addInto(normedGradient, rows);
    }
    if (head.gradient) {
      const own = workspace.floats('head.matrix', vocabularySize * hiddenSize);
      const into = floatTensor(own, [vocabularySize, hiddenSize]);
      const rows = floatTensor(normed, [count, hiddenSize]);
      await runSession(await product('matrix'), { gradient: tensor, rows }, { matrix_gradient: into });
      addInto(head.gradient, own);
    }
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
