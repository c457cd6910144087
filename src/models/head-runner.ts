import type { Tensor } from 'onnxruntime-node';
import { accumulateRows, createRowAccumulator, type RowAccumulator } from '../kernels/row-statistics.js';
import type { ModelDescription } from './description.js';
import { composeGraph } from './graph.js';
import { normalize } from './layer-parts.js';
import type { Floats } from './layer-runner.js';
import { TARGET_ROWS } from './memory-plan.js';
import { equalBitThreads } from './product-threads.js';
import { runSession, type SessionPool, tensorOf } from './sessions.js';
import type { StoredWeight, WeightReader } from './weights.js';

export interface HeadSettings {
  readonly model: ModelDescription;
  readonly precision: 'f32' | 'f64';
  readonly sessions: SessionPool;
  readonly reader: WeightReader;
  readonly threads: number;
  readonly headBlock: number;
  readonly rowsPerRun: number;
  /** Keep widened blocks for the next batch. */
  readonly resident: boolean;
  readonly weight: StoredWeight;
  readonly finalNorm: Floats;
  readonly finalNormBias?: Floats;
}

/** What is computed of every row of logits. */
export interface StatisticsRequest {
  readonly topK: number;
  readonly renyiOrders: readonly number[];
  /** Which sums are kept; `full` when absent. */
  readonly measures?: 'entropy' | 'full';
  /** Logits are divided by it: the distribution that was sampled from. 1 when absent. */
  readonly temperature?: number;
}

/** Logits of one vocabulary block and some rows. The buffers are valid only while the visitor runs. */
export interface LogitsPart {
  /** Vocabulary id of the first column, and the number of columns. */
  readonly columnOffset: number;
  readonly columns: number;
  /** First row, and the number of rows. */
  readonly rowOffset: number;
  readonly rows: number;
  /** [rows, columns] of each set of rows. */
  readonly logits: readonly Floats[];
}

/** Final norm and LM head, in fixed vocabulary blocks. Rows of logits never exist as a whole unless asked for. */
export interface HeadRunner {
  /** Final norm in place over rows [n, hidden]. */
  normalize(rows: Floats): Promise<void>;
  /** Statistics of the logits of normed rows [n, hidden] against targets [n]. */
  statistics(rows: Floats, targets: Int32Array, request: StatisticsRequest): Promise<RowAccumulator>;
  /** Logits [n, vocabulary] of normed rows [n, hidden]. */
  logits(rows: Floats): Promise<Floats>;
  /** Visits the logits of sets of normed rows, [n, hidden] each with one n, block by block of the vocabulary. */
  visitLogits(sets: readonly Floats[], visit: (part: LogitsPart) => void): Promise<void>;
}

/** A Gemm over fewer columns or rows takes another code path whose last bits differ: pad to these. */
const LEAST_ROWS = 2;
const LEAST_COLUMNS = 128;

export function createHeadRunner(settings: HeadSettings): HeadRunner {
  const { model, precision, sessions, reader, headBlock, weight, rowsPerRun, threads } = settings;
  const hidden = model.hiddenSize;
  const vocabulary = model.vocabularySize;
  const blocks = Math.ceil(vocabulary / headBlock);
  const kept = new Map<number, Floats>();
  const make = (length: number): Floats => (precision === 'f32' ? new Float32Array(length) : new Float64Array(length));
  let scratchBlock: Floats | undefined;
  let scratchLogits: Floats | undefined;
  let targetMatrix: Floats | undefined;

  const block = (index: number): Floats => {
    const found = kept.get(index);
    if (found) return found;
    const first = index * headBlock;
    const rows = Math.min(headBlock, vocabulary - first);
    let target: Floats;
    if (settings.resident) {
      target = make(rows * hidden);
      kept.set(index, target);
    } else {
      scratchBlock ??= make(headBlock * hidden);
      target = scratchBlock.subarray(0, rows * hidden);
    }
    reader.read(weight, target, first, rows);
    return target;
  };

  const normSession = () =>
    sessions.get(`norm|${precision}`, () => {
      const g = composeGraph('final_norm', precision);
      const rows = g.input('rows', g.float, ['n', hidden]);
      g.publish(normalize(g, model.norm, rows, 'final_norm', hidden), 'normed');
      return g.encode();
    });

  const headSession = (rows: number, columns: number, temperature: number) => {
    const most = equalBitThreads([{ columns, depth: hidden }], rows, threads);
    const key = temperature === 1 ? `head|${precision}` : `head|${precision}|${temperature}`;
    return sessions.get(key, () => composeHead(temperature), most);
  };

  const composeHead = (temperature: number): Uint8Array => {
    const g = composeGraph('head', precision);
    const rows = g.input('rows', g.float, ['n', hidden]);
    const matrix = g.input('matrix', g.float, ['columns', hidden]);
    let logits = g.node('Gemm', [rows, matrix], { attributes: { transB: { int: 1 } } });
    if (model.logitSoftcap !== undefined) {
      const cap = g.scalar(model.logitSoftcap);
      logits = g.node('Mul', [g.node('Tanh', [g.node('Div', [logits, cap])]), cap]);
    }
    if (temperature !== 1) logits = g.node('Div', [logits, g.scalar(temperature)]);
    g.publish(logits, 'logits', ['n', 'columns']);
    return g.encode();
  };

  /** rows [n, hidden] times matrix [columns, hidden] transposed, into `out` [n, columns]. */
  const multiply = async (rows: Floats, matrix: Floats, out: Floats, temperature = 1): Promise<void> => {
    const columns = matrix.length / hidden;
    const n = rows.length / hidden;
    await runSession(
      await headSession(n, columns, temperature),
      { rows: tensorOf(rows, [n, hidden]), matrix: tensorOf(matrix, [columns, hidden]) },
      { logits: tensorOf(out, [n, columns]) },
    );
  };

  /** The same rows with at least LEAST_ROWS of them. */
  const padded = (rows: Floats): Floats => {
    if (rows.length >= LEAST_ROWS * hidden) return rows;
    const wider = make(LEAST_ROWS * hidden);
    wider.set(rows);
    return wider;
  };

  const logitsBuffer = (length: number): Floats => {
    if (!scratchLogits || scratchLogits.length < length) scratchLogits = make(length);
    return scratchLogits.subarray(0, length);
  };

  /** Logits of at most TARGET_ROWS rows' targets, by the same product as the blocks. */
  const targetLogits = async (rows: Floats, targets: Int32Array, temperature: number): Promise<Float64Array> => {
    const ids = [...new Set(targets)].filter((id) => id >= 0).sort((a, b) => a - b);
    const place = new Map(ids.map((id, i) => [id, i]));
    const columns = LEAST_COLUMNS;
    targetMatrix ??= make(columns * hidden);
    const matrix = targetMatrix;
    ids.forEach((id, i) => {
      const known = kept.get(Math.floor(id / headBlock));
      const target = matrix.subarray(i * hidden, (i + 1) * hidden);
      if (known) target.set(known.subarray((id % headBlock) * hidden, ((id % headBlock) + 1) * hidden));
      else reader.read(weight, target, id, 1);
    });
    const out = logitsBuffer((rows.length / hidden) * columns);
    await multiply(rows, matrix, out, temperature);
    return Float64Array.from(targets, (id, r) => {
      const column = place.get(id);
      return column === undefined ? Number.NaN : out[r * columns + column];
    });
  };

  return {
    async normalize(rows) {
      const session = await normSession();
      const norm: Record<string, Tensor> = { final_norm: tensorOf(settings.finalNorm, [hidden]) };
      if (settings.finalNormBias) norm.final_norm_bias = tensorOf(settings.finalNormBias, [hidden]);
      for (let at = 0; at < rows.length; at += rowsPerRun * hidden) {
        const part = rows.subarray(at, Math.min(rows.length, at + rowsPerRun * hidden));
        const tensor = tensorOf(part, [part.length / hidden, hidden]);
        await runSession(session, { rows: tensor, ...norm }, { normed: tensor });
      }
    },

    async statistics(rows, targets, request) {
      const n = targets.length;
      const { temperature = 1, ...sums } = request;
      const accumulator = createRowAccumulator(n, sums);
      const known = new Float64Array(n);
      if (blocks > 1) {
        for (let at = 0; at < n; at += TARGET_ROWS) {
          const end = Math.min(n, at + TARGET_ROWS);
          const part = padded(rows.subarray(at * hidden, end * hidden));
          known.set(await targetLogits(part, targets.subarray(at, end), temperature), at);
        }
      }
      for (let index = 0; index < blocks; index++) {
        const matrix = block(index);
        const columns = matrix.length / hidden;
        for (let at = 0; at < n; at += rowsPerRun) {
          const end = Math.min(n, at + rowsPerRun);
          const part = padded(rows.subarray(at * hidden, end * hidden));
          const out = logitsBuffer((part.length / hidden) * columns);
          await multiply(part, matrix, out, temperature);
          accumulateRows(
            accumulator,
            { data: out, dtype: precision === 'f32' ? 'F32' : 'F64', rows: end - at, columns },
            {
              columnOffset: index * headBlock,
              rowOffset: at,
              targets,
              ...(blocks > 1 && { targetLogits: known }),
              threads,
            },
          );
        }
      }
      return accumulator;
    },

    async visitLogits(sets, visit) {
      const n = (sets[0]?.length ?? 0) / hidden;
      const buffers = sets.map(() => make(Math.min(Math.max(n, LEAST_ROWS), rowsPerRun) * headBlock));
      for (let index = 0; index < blocks; index++) {
        const matrix = block(index);
        const columns = matrix.length / hidden;
        for (let at = 0; at < n; at += rowsPerRun) {
          const end = Math.min(n, at + rowsPerRun);
          const logits: Floats[] = [];
          for (const [s, rows] of sets.entries()) {
            const part = padded(rows.subarray(at * hidden, end * hidden));
            const out = buffers[s].subarray(0, (part.length / hidden) * columns);
            await multiply(part, matrix, out);
            logits.push(out.subarray(0, (end - at) * columns));
          }
          visit({ columnOffset: index * headBlock, columns, rowOffset: at, rows: end - at, logits });
        }
      }
    },

    async logits(rows) {
      const n = rows.length / hidden;
      const all = make(n * vocabulary);
      for (let index = 0; index < blocks; index++) {
        const matrix = block(index);
        const columns = matrix.length / hidden;
        for (let at = 0; at < n; at += rowsPerRun) {
          const end = Math.min(n, at + rowsPerRun);
          const part = padded(rows.subarray(at * hidden, end * hidden));
          const out = logitsBuffer((part.length / hidden) * columns);
          await multiply(part, matrix, out);
          for (let r = at; r < end; r++) {
            all.set(out.subarray((r - at) * columns, (r - at + 1) * columns), r * vocabulary + index * headBlock);
          }
        }
      }
      return all;
    },
  };
}
