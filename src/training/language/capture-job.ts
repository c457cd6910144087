import { topLogProbs } from '../../kernels/top-log-probs.js';
import type { JobReference } from '../../models/engine-host.js';
import { gatherRows } from '../../models/gather-rows.js';
import type { LanguageModel, PositionRange } from '../../models/language-model.js';
import type { Floats } from '../../models/layer-runner.js';

/** Some windows and the positions of them that are captured. Structured-cloneable. */
export interface CaptureArguments {
  /** The tokens of each window, its filling left out. */
  readonly windows: readonly Int32Array[];
  /** Of each window, 1 at the positions that are captured. */
  readonly wanted: readonly Uint8Array[];
  /** Place of the first window in the data, for messages. */
  readonly firstWindow: number;
  readonly k: number;
  readonly temperature: number;
  readonly threads: number;
  /** Of each window, [its positions] the token behind each: asks for its log-probability too. */
  readonly labels?: readonly Int32Array[];
}

/** The teacher's likeliest tokens at the wanted positions, in the order of windows and positions. */
export interface CapturedRows {
  readonly rows: number;
  readonly ids: Int32Array;
  readonly logProbs: Float32Array;
  readonly leftover: Float32Array;
  /** [rows] ln p of the labels at the temperature; of labels below 0, NaN. */
  readonly labelLogProbs?: Float64Array;
}

/** Logits that are held at once. */
const LOGIT_BYTES = 2 ** 26;
/** Memory that a capture needs beside the engine: logits as the runtime gives them and as they are read. */
export const CAPTURE_BYTES = 2 * LOGIT_BYTES;

/** Positions from the first to the last that is wanted. */
function rangeOf(wanted: Uint8Array): PositionRange {
  const first = wanted.indexOf(1);
  return first < 0 ? [0, 0] : [first, wanted.lastIndexOf(1) + 1];
}

/** Gives the logits of consecutive rows of the ranges, block by block. */
async function eachBlock(
  model: LanguageModel,
  windows: readonly Int32Array[],
  ranges: readonly PositionRange[],
  take: (logits: Floats, rows: number) => void,
): Promise<void> {
  const { engine, info } = model;
  const block = Math.max(1, Math.floor(LOGIT_BYTES / 4 / info.vocabularySize));
  if (engine === undefined) {
    for (const [w, window] of windows.entries()) {
      const [from, to] = ranges[w];
      if (to > from) take(await model.logits([window], [ranges[w]]), to - from);
    }
    return;
  }
  const { hiddenSize } = engine.model;
  const groups = await engine.forward({ windows });
  const rows = gatherRows(groups, hiddenSize, ranges);
  await engine.normalize(rows);
  const count = rows.length / hiddenSize;
  for (let at = 0; at < count; at += block) {
    const end = Math.min(count, at + block);
    take(await engine.logits(rows.subarray(at * hiddenSize, end * hiddenSize)), end - at);
  }
}

/** Runs the teacher over some windows and keeps its likeliest tokens. */
export async function captureWindows(model: LanguageModel, args: CaptureArguments): Promise<CapturedRows> {
  const { windows, wanted, k, temperature, threads, firstWindow } = args;
  const vocabulary = model.info.vocabularySize;
  const ranges = wanted.map(rangeOf);
  const total = wanted.reduce((sum, mask) => sum + mask.reduce((count, one) => count + one, 0), 0);
  const ids = new Int32Array(total * k);
  const logProbs = new Float32Array(total * k);
  const leftover = new Float32Array(total);
  // Wanted or not, row after row of the ranges.
  const kept = ranges.flatMap(([from, to], w) => [...wanted[w].subarray(from, to)]);
  const labels = args.labels && ranges.flatMap(([from, to], w) => [...(args.labels?.[w].subarray(from, to) ?? [])]);
  const labelLogProbs = labels && new Float64Array(total).fill(Number.NaN);
  let seen = 0;
  let row = 0;
  await eachBlock(model, windows, ranges, (logits, rows) => {
    const name = `the teacher's logits, windows from ${firstWindow}`;
    const top = topLogProbs(logits, rows, vocabulary, k, { temperature, threads, name, firstRow: seen });
    for (let r = 0; r < rows; r++) {
      if (kept[seen++] === 0) continue;
      const label = labels?.[seen - 1] ?? -1;
      if (labelLogProbs && label >= 0) {
        const likeliest = logits[r * vocabulary + top.ids[r * k]];
        labelLogProbs[row] = (logits[r * vocabulary + label] - likeliest) / temperature + top.logProbs[r * k];
      }
      ids.set(top.ids.subarray(r * k, (r + 1) * k), row * k);
      logProbs.set(top.logProbs.subarray(r * k, (r + 1) * k), row * k);
      leftover[row++] = top.leftover[r];
    }
  });
  return { rows: total, ids, logProbs, leftover, ...(labelLogProbs && { labelLogProbs }) };
}

export const CAPTURE: JobReference<CaptureArguments, CapturedRows> = {
  module: import.meta.url,
  job: captureWindows,
};
