import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, truncateSync, writeSync } from 'node:fs';
import { InputError } from '../../errors.js';
import { createAtomicFile } from '../../formats/atomic.js';
import { withRange } from '../../formats/files.js';
import { openLanguageModel } from '../../models/language-model.js';
import {
  type CaptureHeader,
  createCapture,
  openCapturePart,
  windowsSha256,
} from '../../training/language/capture-file.js';
import { captureWindows } from '../../training/language/capture-job.js';
import { openCapturedTeacher } from '../../training/language/captured-teacher.js';
import type { TokenWindows } from '../../training/language/token-data.js';
import { IGNORED } from '../../training/types.js';

/** What is kept of one model on the sequences. Structured-cloneable. */
export interface SequenceCapture {
  /** Directory or file of the model; absent where the capture must be there already. */
  readonly model?: string;
  /** As messages name it. */
  readonly name: string;
  readonly windows: TokenWindows;
  readonly vocabulary: number;
  readonly k: number;
  readonly tokenizerSha256: string;
  readonly modelSha256: string;
  /** The capture; its cross-entropies lie beside it under `scoresFile`. */
  readonly path: string;
  readonly threads: number;
  readonly maxMemoryBytes: number;
  readonly context: number;
}

/** Cross-entropies of one model, a number of nats a sequence. */
export interface SequenceScores {
  readonly ces: Float64Array;
  /** Share of labels that lie outside the stored lists, where cross-entropies had to be taken from these; else null. */
  readonly unlisted: number | null;
}

/** Where the cross-entropies of a capture are kept: f64, little-endian, a number a sequence. */
export const scoresFile = (capture: string): string => `${capture}.scores`;

/** Positions that are captured: all that hold text. */
function wantedPositions({ count, length, lengths }: TokenWindows): Uint8Array {
  const wanted = new Uint8Array(count * length);
  for (let w = 0; w < count; w++) wanted.fill(1, w * length, w * length + lengths[w]);
  return wanted;
}

/** Appends to the scores of an interrupted run. */
function openScores(path: string, resumed: number): { append(values: Float64Array): void; finish(): void } {
  const partial = `${path}.partial`;
  if (resumed > 0) truncateSync(partial, resumed * 8);
  const file = openSync(partial, resumed > 0 ? 'a' : 'w');
  return {
    append(values) {
      writeSync(file, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    },
    finish() {
      fsyncSync(file);
      closeSync(file);
      renameSync(partial, path);
    },
  };
}

function readScores(path: string): Float64Array {
  const bytes = readFileSync(path);
  return new Float64Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + 8 * Math.floor(bytes.length / 8)));
}

function headerOf(request: SequenceCapture): CaptureHeader {
  const { windows, vocabulary, k, tokenizerSha256, modelSha256 } = request;
  return {
    vocabulary,
    k: Math.min(k, vocabulary),
    dtype: 'f32',
    temperature: 1,
    tokenizerSha256,
    modelSha256,
    dataSha256: windowsSha256(windows),
    windows: windows.count,
    length: windows.length,
    first: 0,
    stored: windows.count,
  };
}

/**
 * Runs a model over the sequences: its k likeliest tokens at every position, and the mean cross-entropy of the labels of
 * each sequence. What is there already is checked and kept; an interrupted capture goes on.
 * @throws InputError for a capture that is of other data or another tokenizer, or none where no model may run
 */
export async function captureSequences(
  request: SequenceCapture,
  progress: (value: unknown) => void,
): Promise<SequenceScores> {
  const { path, model, windows } = request;
  if (!existsSync(path)) {
    if (model === undefined) throw new InputError(`${path}: there is no capture of ${request.name}`);
    await runCapture({ ...request, model }, progress);
  }
  progress({ kind: 'rows', rows: windows.count });
  return checkedScores(request);
}

async function runCapture(
  request: SequenceCapture & { readonly model: string },
  progress: (value: unknown) => void,
): Promise<void> {
  const { windows, path, k, threads } = request;
  const { count, length, lengths, tokens, labels } = windows;
  const header = headerOf(request);
  const file = createAtomicFile(path, { force: true, resume: true, resumable: true });
  const writer = createCapture(file, header, wantedPositions(windows), (bytes) =>
    withRange(file.partialPath, (range) => {
      const found = new Uint8Array(bytes);
      range.readInto(0, bytes, found);
      range.close();
      return found;
    }),
  );
  const partial = `${scoresFile(path)}.partial`;
  const model = await openLanguageModel(request.model, {
    threads,
    maxMemoryBytes: request.maxMemoryBytes,
    device: 'cpu',
    precision: 'f32',
    context: request.context,
  });
  try {
    const atOnce = Math.max(1, Math.floor(model.info.rowsPerBatch / length));
    const scored = writer.resumedRows > 0 && existsSync(partial) ? readScores(partial).length : 0;
    // Whole batches alone: bits do not depend on where a run was cut.
    const begin = Math.floor(scored / atOnce) * atOnce;
    const scores = openScores(scoresFile(path), begin);
    let rows = 0;
    for (let w = 0; w < begin; w++) rows += lengths[w];
    for (let first = begin; first < count; first += atOnce) {
      const places = Array.from({ length: Math.min(atOnce, count - first) }, (_, i) => first + i);
      const part = (of: Int32Array): Int32Array[] => places.map((w) => of.slice(w * length, w * length + lengths[w]));
      const found = await captureWindows(model, {
        windows: part(tokens),
        labels: part(labels),
        wanted: places.map((w) => new Uint8Array(lengths[w]).fill(1)),
        firstWindow: first,
        k: Math.min(k, header.vocabulary),
        temperature: 1,
        threads,
      });
      const skipped = Math.min(found.rows, Math.max(0, writer.resumedRows - rows));
      rows += found.rows;
      const width = header.k;
      writer.append(
        {
          kind: 'top',
          k: width,
          ids: found.ids.subarray(skipped * width),
          logProbs: found.logProbs.subarray(skipped * width),
          leftover: found.leftover.subarray(skipped),
        },
        found.rows - skipped,
      );
      scores.append(meanOfLabels(places, lengths, found.labelLogProbs ?? new Float64Array(0)));
      progress({ kind: 'rows', rows: first + places.length });
    }
    writer.finish();
    scores.finish();
    file.commit();
  } finally {
    file.abort();
    await model.close();
  }
}

/** Σ -ln p over the labels of each window, divided by their number. */
function meanOfLabels(places: readonly number[], lengths: Int32Array, logProbs: Float64Array): Float64Array {
  let row = 0;
  return Float64Array.from(places, (w) => {
    let sum = 0;
    let count = 0;
    for (const end = row + lengths[w]; row < end; row++) {
      if (Number.isNaN(logProbs[row])) continue;
      sum -= logProbs[row];
      count++;
    }
    return sum / count;
  });
}

/** @throws InputError for a capture of another model, with both sides */
function checkHeader({ path, name, model, vocabulary, modelSha256 }: SequenceCapture): void {
  const part = openCapturePart(path);
  part.close();
  const { header } = part;
  if (header.vocabulary !== vocabulary) {
    throw new InputError(
      `${path}: captured with a vocabulary of ${header.vocabulary}, and that of ${name} is ${vocabulary}`,
    );
  }
  if (model !== undefined && header.modelSha256 !== modelSha256) {
    throw new InputError(
      `${path}: captured from a model with the hash ${header.modelSha256}, and ${name} has ${modelSha256}; remove it, or name ` +
        'another directory with --captures',
    );
  }
}

/**
 * The scores beside a capture; where there are none, from the lists alone: a label outside its list has an equal share of
 * what the list leaves over.
 */
function checkedScores(request: SequenceCapture): SequenceScores {
  const { path, name, vocabulary, windows, tokenizerSha256 } = request;
  checkHeader(request);
  const capture = openCapturedTeacher([path], { vocabulary, tokenizerSha256, dataSha256: windowsSha256(windows) });
  try {
    if (existsSync(scoresFile(path))) {
      const ces = readScores(scoresFile(path));
      if (ces.length === windows.count) return { ces, unlisted: null };
      throw new InputError(
        `${scoresFile(path)}: ${ces.length} cross-entropies of ${name} for ${windows.count} sequences`,
      );
    }
    const { length, lengths, labels } = windows;
    let outside = 0;
    const ces = Float64Array.from({ length: windows.count }, (_, w) => {
      const rows = capture.rows(w, 0, lengths[w]);
      let sum = 0;
      let count = 0;
      for (let t = 0; t < lengths[w]; t++) {
        const label = labels[w * length + t];
        if (label === IGNORED) continue;
        count++;
        const ids = rows.ids.subarray(t * rows.k, (t + 1) * rows.k);
        const at = ids.indexOf(label);
        const listed = ids.filter((id) => id >= 0).length;
        if (at < 0) outside++;
        sum -= at >= 0 ? rows.logProbs[t * rows.k + at] : Math.log(rows.leftover[t] / (vocabulary - listed));
      }
      return sum / count;
    });
    return { ces, unlisted: outside / windows.validLabels };
  } finally {
    capture.close();
  }
}
