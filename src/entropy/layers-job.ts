import { InputError } from '../errors.js';
import { accumulateRows, createRowAccumulator, finalizeRows, type RowStatistics } from '../kernels/row-statistics.js';
import type { Engine } from '../models/engine.js';
import type { JobReference } from '../models/engine-host.js';
import { gatherRows } from '../models/gather-rows.js';
import type { LanguageModel } from '../models/language-model.js';
import type { Floats } from '../models/layer-runner.js';
import { addWindowMoments, createExactMoments, type ExactMoments } from './exact-moments.js';
import { type LayerRows, rowNorms } from './layer-measures.js';
import type { WindowArguments } from './window-batches.js';

export interface LayersArguments extends WindowArguments {
  /** Token that each wanted position predicts, windows in order. */
  readonly targets: Int32Array;
  /** Name of the document of each window, for errors. */
  readonly documents: readonly string[];
  /** Whether second moments of the residual streams are summed. */
  readonly moments: boolean;
}

/** What a batch gives: measures of every wanted position, windows in order, at layers 0 (embeddings) to L. */
export interface LayersBatch {
  readonly rows: readonly Required<LayerRows>[];
  readonly moments: readonly ExactMoments[];
}

/** Statistics of the lens need no top-k beyond the likeliest token. */
const REQUEST = { topK: 1, renyiOrders: [] } as const;

/** Refuses states that are not finite: from there on every figure would be NaN. */
function requireFinite(norms: Float64Array, layer: number, args: LayersArguments): void {
  const bad = norms.findIndex((norm) => !Number.isFinite(norm));
  if (bad < 0) return;
  let window = 0;
  let first = 0;
  for (; first + args.wanted[window][1] - args.wanted[window][0] <= bad; window++) {
    first += args.wanted[window][1] - args.wanted[window][0];
  }
  throw new InputError(
    `document ${args.documents[window]}: the residual stream at layer ${layer} has the norm ${norms[bad]}, at position ` +
      `${args.wanted[window][0] + bad - first} of a window; look at the weights, or try --precision f64`,
  );
}

function cosines(a: Floats, b: Floats, width: number, normsA: Float64Array, normsB: Float64Array): Float64Array {
  const result = new Float64Array(normsA.length);
  for (let r = 0; r < result.length; r++) {
    let product = 0;
    for (let i = r * width; i < (r + 1) * width; i++) product += a[i] * b[i];
    result[r] = Math.max(-1, Math.min(1, product / (normsA[r] * normsB[r])));
  }
  return result;
}

/**
 * The logit lens: statistics of the head applied to normed rows of a layer, against the final distribution of the same
 * rows. `KL(p || q) = sum p (l - z) - log Z_p + log Z_q` with the final logits l and the lens logits z, folded block by
 * block of the vocabulary, so that no row of logits exists as a whole.
 */
async function lens(
  engine: Engine,
  finalRows: Floats,
  finalStatistics: RowStatistics,
  rows: Floats,
  targets: Int32Array,
): Promise<Pick<Required<LayerRows>, 'lensEntropyNats' | 'lensKlNats' | 'lensSurprisalNats' | 'lensAgreement'>> {
  const n = targets.length;
  const accumulator = createRowAccumulator(n, REQUEST);
  const mass = new Float64Array(n);
  const gap = new Float64Array(n);
  const targetLogits = new Float64Array(n);
  const dtype = engine.precision === 'f32' ? 'F32' : 'F64';
  const { logSumExp } = finalStatistics;
  await engine.visitLogits([finalRows, rows], ({ columnOffset, columns, rowOffset, rows: count, logits }) => {
    const [final, own] = logits;
    accumulateRows(
      accumulator,
      { data: own, dtype, rows: count, columns },
      { columnOffset, rowOffset, threads: engine.threads },
    );
    for (let r = 0; r < count; r++) {
      const shift = logSumExp[rowOffset + r];
      let sum = 0;
      let weighted = 0;
      for (let i = r * columns; i < (r + 1) * columns; i++) {
        const p = Math.exp(final[i] - shift);
        if (p === 0) continue;
        sum += p;
        weighted += p * (final[i] - own[i]);
      }
      mass[rowOffset + r] += sum;
      gap[rowOffset + r] += weighted;
      const column = targets[rowOffset + r] - columnOffset;
      if (column >= 0 && column < columns) targetLogits[rowOffset + r] = own[r * columns + column];
    }
  });
  const found = finalizeRows(accumulator, engine.model.vocabularySize);
  return {
    lensEntropyNats: found.entropyNats,
    lensKlNats: found.logSumExp.map((value, r) => Math.max(0, gap[r] / mass[r] - logSumExp[r] + value)),
    lensSurprisalNats: found.logSumExp.map((value, r) => value - targetLogits[r]),
    lensAgreement: agreement(found, finalStatistics),
  };
}

function agreement(own: RowStatistics, final: RowStatistics): Float64Array {
  return Float64Array.from({ length: own.rows }, (_, r) =>
    own.topColumns[r * own.topK] === final.topColumns[r * final.topK] ? 1 : 0,
  );
}

/**
 * Runs beside the engine: two passes over a batch of windows. The first gives the final rows and their distributions, the
 * second meets the residual stream of every layer when it arises, so that memory does not grow with the depth.
 * @throws InputError when the layers cannot be reached, or a residual stream is not finite
 */
export async function measureLayers({ engine, info }: LanguageModel, args: LayersArguments): Promise<LayersBatch> {
  if (!engine) throw new InputError(`${info.path}: layers are not reachable in an ONNX export; pass the model itself`);
  const { windows, wanted, targets } = args;
  const width = engine.model.hiddenSize;
  const depth = engine.model.layers.length;

  const finalRows = gatherRows(await engine.forward({ windows }), width, wanted);
  requireFinite(rowNorms(finalRows, width), depth, args);
  await engine.normalize(finalRows);
  const final = await engine.statistics(finalRows, targets, REQUEST);

  const measured: Required<LayerRows>[] = [];
  const moments: ExactMoments[] = [];
  let scratch: Float64Array | undefined;
  let previous: { rows: Floats; norms: Float64Array } | undefined;
  await engine.forward({
    windows,
    onResidual: async (layer, groups) => {
      const rows = gatherRows(groups, width, wanted);
      const norms = rowNorms(rows, width);
      requireFinite(norms, layer, args);
      const cosineToPrevious = previous
        ? cosines(rows, previous.rows, width, norms, previous.norms)
        : new Float64Array(norms.length).fill(Number.NaN);
      if (args.moments) {
        const own = createExactMoments(width);
        scratch ??= new Float64Array(own.whole.length);
        let first = 0;
        for (const [from, to] of wanted) {
          addWindowMoments(own, rows.subarray(first * width, (first + to - from) * width), scratch);
          first += to - from;
        }
        moments.push(own);
      }
      const shared = { residualNorm: norms, cosineToPrevious };
      if (layer === depth) {
        measured.push({
          ...shared,
          lensEntropyNats: final.entropyNats,
          lensKlNats: new Float64Array(norms.length),
          lensSurprisalNats: final.surprisalNats,
          lensAgreement: new Float64Array(norms.length).fill(1),
        });
        return;
      }
      previous = { rows, norms };
      const normed = rows.slice();
      await engine.normalize(normed);
      measured.push({ ...shared, ...(await lens(engine, finalRows, final, normed, targets)) });
    },
  });
  return { rows: measured, moments };
}

export const MEASURE_LAYERS: JobReference<LayersArguments, LayersBatch> = {
  module: import.meta.url,
  job: measureLayers,
};
