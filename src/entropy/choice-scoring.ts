import type { EngineHost, JobReference } from '../models/engine-host.js';
import { gatherRows } from '../models/gather-rows.js';
import type { LanguageModel, PositionRange } from '../models/language-model.js';
import type { EncodedQuestion } from './choice-questions.js';
import type { ChoiceWindow } from './choices.js';

interface ContinuationArguments {
  /** What goes through the model. */
  readonly windows: readonly Int32Array[];
  /** One entry a continuation: its window, the output that predicts its first token, and its tokens. */
  readonly window: Int32Array;
  readonly from: Int32Array;
  readonly targets: readonly Int32Array[];
}

const NO_MEASURES = { topK: 0, renyiOrders: [] } as const;

/** Runs beside the engine: the summed log-likelihood of each continuation, nats. */
export async function scoreContinuations(model: LanguageModel, args: ContinuationArguments): Promise<Float64Array> {
  const { windows, window, from, targets } = args;
  const count = targets.reduce((sum, { length }) => sum + length, 0);
  const all = new Int32Array(count);
  let at = 0;
  for (const tokens of targets) {
    all.set(tokens, at);
    at += tokens.length;
  }
  const ranges = targets.map((tokens, c): PositionRange => [from[c], from[c] + tokens.length]);
  const { engine } = model;
  let surprisal: Float64Array;
  if (engine) {
    const hidden = engine.model.hiddenSize;
    const wanted = windows.map((_, w): PositionRange => {
      const own = ranges.filter((_range, c) => window[c] === w);
      return [Math.min(...own.map(([first]) => first)), Math.max(...own.map(([, end]) => end))];
    });
    const kept = gatherRows(await engine.forward({ windows }), hidden, wanted);
    await engine.normalize(kept);
    const starts: number[] = [];
    let next = 0;
    for (const [first, end] of wanted) {
      starts.push(next - first);
      next += end - first;
    }
    const rows = kept instanceof Float32Array ? new Float32Array(count * hidden) : new Float64Array(count * hidden);
    let row = 0;
    for (const [c, [first, end]] of ranges.entries()) {
      const start = starts[window[c]];
      rows.set(kept.subarray((start + first) * hidden, (start + end) * hidden), row * hidden);
      row += end - first;
    }
    surprisal = (await engine.statistics(rows, all, NO_MEASURES)).surprisalNats;
  } else {
    const repeated = Array.from(window, (w) => windows[w]);
    surprisal = (await model.statistics(repeated, ranges, all, NO_MEASURES)).surprisalNats;
  }
  const sums = new Float64Array(targets.length);
  let token = 0;
  for (const [c, tokens] of targets.entries()) {
    for (let i = 0; i < tokens.length; i++) sums[c] -= surprisal[token++];
  }
  return sums;
}

const SCORE_CONTINUATIONS: JobReference<ContinuationArguments, Float64Array> = {
  module: import.meta.url,
  job: scoreContinuations,
};

function isPrefix(short: Int32Array, long: Int32Array): boolean {
  for (let i = 0; i < short.length; i++) if (short[i] !== long[i]) return false;
  return true;
}

/**
 * Windows of one question that must go through the model, and where each choice finds its own: attention looks back only,
 * so a window that begins another one is read off that one. Choices of one token share a single window.
 */
export function sharedWindows(windows: readonly ChoiceWindow[]): { inputs: Int32Array[]; owner: number[] } {
  const order = [...windows.keys()].sort((a, b) => windows[b].inputs.length - windows[a].inputs.length || a - b);
  const inputs: Int32Array[] = [];
  const owner = new Array<number>(windows.length).fill(0);
  for (const i of order) {
    const found = inputs.findIndex((longer) => isPrefix(windows[i].inputs, longer));
    owner[i] = found >= 0 ? found : inputs.push(windows[i].inputs) - 1;
  }
  return { inputs, owner };
}

/** Questions that go together; `rows` tokens go through the model. */
interface Batch {
  readonly questions: EncodedQuestion[];
  readonly windows: Int32Array[];
  readonly window: number[];
  rows: number;
}

const emptyBatch = (): Batch => ({ questions: [], windows: [], window: [], rows: 0 });

/** A scored question: the summed log-likelihood of each choice. */
export interface ScoredQuestion {
  readonly encoded: EncodedQuestion;
  readonly logLikelihoods: Float64Array;
}

/**
 * Scores questions in order. While the engine works on one batch the next is read and tokenised; windows of equal length
 * run together whatever question they belong to.
 * @param onRows called with the tokens that went through the model
 */
export async function* scoreQuestions(
  questions: AsyncIterable<EncodedQuestion>,
  host: EngineHost,
  onRows: (rows: number) => void = () => undefined,
): AsyncGenerator<ScoredQuestion, void, undefined> {
  type Work = { readonly batch: Batch; readonly result: Promise<Float64Array> };
  const submit = (batch: Batch): Work => {
    const choices = batch.questions.flatMap(({ windows }) => windows);
    const result = host.run(SCORE_CONTINUATIONS, {
      windows: batch.windows,
      window: Int32Array.from(batch.window),
      from: Int32Array.from(choices, ({ scoreFrom }) => scoreFrom),
      targets: choices.map(({ targets }) => targets),
    });
    // A failure is seen where the result is awaited; until then it must not count as unhandled.
    result.catch(() => undefined);
    return { batch, result };
  };
  async function* drain({ batch, result }: Work): AsyncGenerator<ScoredQuestion, void, undefined> {
    const sums = await result;
    onRows(batch.rows);
    let at = 0;
    for (const encoded of batch.questions) {
      const end = at + encoded.windows.length;
      yield { encoded, logLikelihoods: sums.slice(at, end) };
      at = end;
    }
  }
  let running: Work | undefined;
  let batch = emptyBatch();
  for await (const encoded of questions) {
    const { inputs, owner } = sharedWindows(encoded.windows);
    const rows = inputs.reduce((sum, { length }) => sum + length, 0);
    if (batch.rows > 0 && batch.rows + rows > host.info.rowsPerBatch) {
      const next = submit(batch);
      if (running) yield* drain(running);
      running = next;
      batch = emptyBatch();
    }
    for (const own of owner) batch.window.push(batch.windows.length + own);
    batch.windows.push(...inputs);
    batch.questions.push(encoded);
    batch.rows += rows;
  }
  if (running) yield* drain(running);
  if (batch.questions.length > 0) yield* drain(submit(batch));
}
