import { InputError } from '../errors.js';
import type { ComputeReference } from '../kernels/compute-thread.js';
import { openEncoder } from '../models/encoder.js';
import type { Floats } from '../models/layer-runner.js';
import { openOnnxEncoder } from '../models/onnx-encoder.js';
import type { FeatureLayer, LayerFeatures } from './model-features.js';
import { addToPool, createPoolState, finishPool, type Pooling } from './pooling.js';
import { finishEmbedding, type SentenceModules } from './sentence-modules.js';

export interface EmbeddingArguments {
  readonly path: string;
  readonly kind: 'encoder' | 'onnx';
  readonly threads: number;
  readonly precision: 'f32' | 'f64';
  /** Token ids of each text with its special tokens. */
  readonly texts: readonly Int32Array[];
  /** Names of the texts, for errors. */
  readonly ids: readonly string[];
  /** 0 is the embeddings; `final` and L are the output of the last block. */
  readonly layers: readonly FeatureLayer[];
  /** Undefined: what the model's own files say. */
  readonly pool: Pooling | undefined;
  readonly modules: SentenceModules | undefined;
  /** Rows of a batch: texts of one length run together. */
  readonly tokensPerBatch: number;
}

export interface EmbeddedTexts {
  readonly layers: readonly LayerFeatures[];
  /** Text of every row. */
  readonly textOfRow: Int32Array;
  readonly tokens: number;
  /** How rows were made, for the report. */
  readonly pool: Pooling | 'model output';
}

interface Batch {
  readonly length: number;
  readonly texts: readonly number[];
  readonly ids: Int32Array;
}

/** Texts of one length together, so that nothing is padded and a text's bits do not depend on its neighbours. */
function* batchesOf(texts: readonly Int32Array[], tokensPerBatch: number): Generator<Batch> {
  const order = texts.map((_, i) => i).sort((a, b) => texts[a].length - texts[b].length || a - b);
  for (let at = 0; at < order.length; ) {
    const { length } = texts[order[at]];
    const most = Math.max(1, Math.floor(tokensPerBatch / length));
    const own: number[] = [];
    while (at < order.length && own.length < most && texts[order[at]].length === length) own.push(order[at++]);
    const ids = new Int32Array(own.length * length);
    for (const [i, text] of own.entries()) ids.set(texts[text], i * length);
    yield { length, texts: own, ids };
  }
}

/** Runs one batch and hands over the positions (or rows) of every text at every wanted layer. */
type RunBatch = (batch: Batch, use: (layer: number, text: number, rows: Floats) => void) => Promise<void>;

interface Runner {
  readonly run: RunBatch;
  /** Whether rows come pooled. */
  readonly pooled: boolean;
  close(): Promise<void>;
}

function encoderRunner(args: EmbeddingArguments): Runner {
  const encoder = openEncoder(args.path, args);
  const depth = encoder.description.layers;
  const width = encoder.description.hiddenSize;
  return {
    pooled: false,
    async run({ ids, texts, length }, use) {
      await encoder.forward(ids, texts.length, length, (layer, rows) => {
        args.layers.forEach((wanted, l) => {
          if ((wanted === 'final' ? depth : wanted) !== layer) return;
          const size = length * width;
          for (const [i, text] of texts.entries()) use(l, text, rows.slice(i * size, (i + 1) * size));
        });
      });
    },
    close: () => encoder.close(),
  };
}

async function onnxRunner(args: EmbeddingArguments): Promise<Runner> {
  const encoder = await openOnnxEncoder(args.path, args.threads);
  const own = args.pool === undefined && args.modules === undefined && encoder.textOutput !== undefined;
  const name = own ? encoder.textOutput : (encoder.tokenOutput ?? encoder.textOutput);
  if (name === undefined) throw new Error('an encoder without output');
  const pooled = name === encoder.textOutput;
  if (pooled && args.pool !== undefined) {
    await encoder.close();
    throw new InputError(`${args.path}: gives embeddings of whole texts alone ("${name}"); leave --pool out`);
  }
  return {
    pooled,
    async run({ ids, texts, length }, use) {
      const { data, width } = await encoder.forward(ids, texts.length, length, name);
      const size = pooled ? width : length * width;
      for (const [i, text] of texts.entries()) use(0, text, data.slice(i * size, (i + 1) * size));
    },
    close: () => encoder.close(),
  };
}

/**
 * Embeds texts by an encoder directory or an ONNX file, in a thread of its own. Rows come in the order of the texts.
 * @throws InputError for a text without tokens, or a hidden state that is not finite (text named)
 */
export async function embedTexts(args: EmbeddingArguments, progress: (value: unknown) => void): Promise<EmbeddedTexts> {
  const empty = args.texts.findIndex((ids) => ids.length === 0);
  if (empty >= 0) throw new InputError(`document ${args.ids[empty]}: has no token, so there is nothing to embed`);
  const runner = args.kind === 'onnx' ? await onnxRunner(args) : encoderRunner(args);
  const pool = args.pool ?? args.modules?.pool ?? 'mean';
  const rowsOf: Floats[][] = args.layers.map(() => new Array<Floats>(args.texts.length));
  let tokens = 0;
  try {
    for (const batch of batchesOf(args.texts, args.tokensPerBatch)) {
      await runner.run(batch, (layer, text, rows) => {
        const bad = rows.findIndex((value) => !Number.isFinite(value));
        if (bad >= 0)
          throw new InputError(`document ${args.ids[text]}: its embedding is not finite; try --precision f64`);
        rowsOf[layer][text] = runner.pooled ? rows : pooledRows(rows, batch.length, pool, args);
      });
      tokens += batch.ids.length;
      progress(tokens);
    }
  } finally {
    await runner.close();
  }
  const keepsTokens = !runner.pooled && pool === 'tokens';
  const counts = args.texts.map(({ length }) => (keepsTokens ? length : 1));
  const total = counts.reduce((sum, count) => sum + count, 0);
  const textOfRow = new Int32Array(total);
  let at = 0;
  counts.forEach((count, text) => {
    textOfRow.fill(text, at, at + count);
    at += count;
  });
  const layers = args.layers.map((layer, l): LayerFeatures => {
    const width = (rowsOf[l][0]?.length ?? 0) / counts[0];
    const data = new Float32Array(total * width);
    let row = 0;
    for (const rows of rowsOf[l]) {
      data.set(rows, row * width);
      row += rows.length / width;
    }
    return { layer, data, rows: total, width };
  });
  return { layers, textOfRow, tokens, pool: runner.pooled ? 'model output' : pool };
}

function pooledRows(rows: Floats, length: number, pool: Pooling, args: EmbeddingArguments): Floats {
  if (pool === 'tokens') return rows;
  const state = createPoolState(rows.length / length);
  addToPool(state, rows, pool);
  const row = finishPool(state, pool);
  return args.modules && args.pool === undefined ? finishEmbedding(row, args.modules) : row;
}

export const EMBED_TEXTS: ComputeReference<EmbeddingArguments, EmbeddedTexts> = {
  module: import.meta.url,
  job: embedTexts,
};
