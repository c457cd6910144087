import { multiply } from '../kernels/gemm.js';
import { nativeKernels } from '../kernels/native.js';
import { addInto } from '../kernels/optimizer-steps.js';
import type { ModelDescription } from '../models/description.js';
import { composeGraph } from '../models/graph.js';
import { runSession, type SessionPool } from '../models/sessions.js';
import { floatTensor } from './graph-segment.js';
import type { Floats, Precision } from './types.js';
import type { Workspace } from './workspace.js';

export interface HeadProductSettings {
  readonly model: ModelDescription;
  /** [vocabulary, hidden]. */
  readonly matrix: Floats;
  readonly precision: Precision;
  readonly threads: number;
  readonly sessions: SessionPool;
  readonly workspace: Workspace;
}

/** Products of a block of rows [count, hidden] with the head's matrix, and of its gradient [count, vocabulary]. */
export interface HeadProducts {
  /** Writes the logits [count, vocabulary], capped where the model caps them. */
  logits(rows: Floats, count: number, logits: Floats): Promise<void>;
  /** Adds the gradient of the rows. */
  addRowsGradient(gradient: Floats, count: number, rowsGradient: Floats): Promise<void>;
  /** Adds the gradient of the matrix. */
  addMatrixGradient(gradient: Floats, rows: Floats, count: number, matrixGradient: Floats): Promise<void>;
}

/** By the native kernel, which adds in place and is faster on matrices this wide; by graphs where there is none. */
export function createHeadProducts(settings: HeadProductSettings): HeadProducts {
  const graphs = graphProducts(settings);
  if (nativeKernels() === undefined) return graphs;
  const { matrix, threads } = settings;
  const { hiddenSize, vocabularySize, logitSoftcap } = settings.model;
  const direct: HeadProducts = {
    logits(rows, count, logits) {
      const sizes = { m: count, n: vocabularySize, k: hiddenSize };
      multiply(rows, matrix, logits, sizes, { transposeB: true, threads });
      return Promise.resolve();
    },
    addRowsGradient(gradient, count, rowsGradient) {
      const sizes = { m: count, n: hiddenSize, k: vocabularySize };
      multiply(gradient, matrix, rowsGradient, sizes, { beta: 1, threads });
      return Promise.resolve();
    },
    addMatrixGradient(gradient, rows, count, matrixGradient) {
      const sizes = { m: vocabularySize, n: hiddenSize, k: count };
      multiply(gradient, rows, matrixGradient, sizes, { transposeA: true, beta: 1, threads });
      return Promise.resolve();
    },
  };
  // The runtime has a vectorised hyperbolic tangent for the cap.
  return logitSoftcap === undefined ? direct : { ...direct, logits: graphs.logits };
}

function graphProducts({ model, matrix, precision, sessions, workspace }: HeadProductSettings): HeadProducts {
  const { hiddenSize, vocabularySize } = model;
  const weights = floatTensor(matrix, [vocabularySize, hiddenSize]);
  const product = (kind: 'logits' | 'rows' | 'matrix') =>
    sessions.get(`head|${kind}`, () => composeHead(model, precision, kind));
  return {
    async logits(rows, count, logits) {
      const feeds = { rows: floatTensor(rows, [count, hiddenSize]), matrix: weights };
      await runSession(await product('logits'), feeds, { logits: floatTensor(logits, [count, vocabularySize]) });
    },
    async addRowsGradient(gradient, count, rowsGradient) {
      const own = workspace.floats('head.rows', count * hiddenSize);
      const feeds = { gradient: floatTensor(gradient, [count, vocabularySize]), matrix: weights };
      await runSession(await product('rows'), feeds, { rows_gradient: floatTensor(own, [count, hiddenSize]) });
      addInto(rowsGradient, own);
    },
    async addMatrixGradient(gradient, rows, count, matrixGradient) {
      const own = workspace.floats('head.matrix', vocabularySize * hiddenSize);
      const feeds = {
        gradient: floatTensor(gradient, [count, vocabularySize]),
        rows: floatTensor(rows, [count, hiddenSize]),
      };
      const into = floatTensor(own, [vocabularySize, hiddenSize]);
      await runSession(await product('matrix'), feeds, { matrix_gradient: into });
      addInto(matrixGradient, own);
    },
  };
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
