import type { RowStatistics } from '../../kernels/row-statistics.js';
import type { LanguageModel, PositionRange } from '../../models/language-model.js';

/** A response behind its prompt, as ids. The prompt has at least one token. */
export interface PromptedResponse {
  readonly prompt: Int32Array;
  readonly response: Int32Array;
}

/** What a model says of the tokens of a response, nats. */
export interface ForcedScores {
  /** Tokens that fit into the context; those behind them have no score. */
  readonly scored: number;
  /** [scored]: log-probability of each token given the prompt and the tokens before it. */
  readonly logProb: Float64Array;
  /** [scored]: entropy of the distribution that the token was drawn from. */
  readonly entropy: Float64Array;
}

export interface ForcingOptions {
  /** Sampling temperature: logits are divided by it before the softmax. */
  readonly temperature: number;
  /** Positions that the model takes at most. */
  readonly context: number;
  /** Called with the number of tokens that went through the model. */
  onRows?(rows: number): void;
}

interface Work {
  readonly at: number;
  readonly window: Int32Array;
  readonly wanted: PositionRange;
  readonly targets: Int32Array;
}

function workOf({ prompt, response }: PromptedResponse, at: number, context: number): Work {
  // The window holds all tokens but the last one scored: the last prediction is for it.
  const scored = Math.max(0, Math.min(response.length, context + 1 - prompt.length));
  const length = scored === 0 ? 0 : prompt.length + scored - 1;
  const window = new Int32Array(length);
  if (length > 0) {
    window.set(prompt);
    window.set(response.subarray(0, scored - 1), prompt.length);
  }
  return { at, window, wanted: [prompt.length - 1, prompt.length - 1 + scored], targets: response.subarray(0, scored) };
}

/** Windows in the order of their lengths, so that those of one length run together; batches of at most `rows` tokens. */
function* batches(works: readonly Work[], rows: number): Generator<Work[]> {
  const byLength = works
    .filter(({ window }) => window.length > 0)
    .sort((a, b) => a.window.length - b.window.length || a.at - b.at);
  let batch: Work[] = [];
  let held = 0;
  for (const work of byLength) {
    if (batch.length > 0 && held + work.window.length > rows) {
      yield batch;
      batch = [];
      held = 0;
    }
    batch.push(work);
    held += work.window.length;
  }
  if (batch.length > 0) yield batch;
}

function targetsOf(batch: readonly Work[]): Int32Array {
  const targets = new Int32Array(batch.reduce((sum, work) => sum + work.targets.length, 0));
  let at = 0;
  for (const work of batch) {
    targets.set(work.targets, at);
    at += work.targets.length;
  }
  return targets;
}

/**
 * Log-probabilities and entropies of responses by teacher forcing, in the order given. The distribution is the softmax of
 * logits / temperature over the whole vocabulary: what top-p, top-k or a repetition penalty did to it is not undone.
 */
export async function scoreResponses(
  model: LanguageModel,
  responses: readonly PromptedResponse[],
  { temperature, context, onRows }: ForcingOptions,
): Promise<ForcedScores[]> {
  const works = responses.map((response, at) => workOf(response, at, context));
  const scores = works.map(({ targets }) => ({
    scored: targets.length,
    logProb: new Float64Array(targets.length),
    entropy: new Float64Array(targets.length),
  }));
  const request = { topK: 0, renyiOrders: [], measures: 'entropy', temperature } as const;
  for (const batch of batches(works, model.info.rowsPerBatch)) {
    const statistics: RowStatistics = await model.statistics(
      batch.map(({ window }) => window),
      batch.map(({ wanted }) => wanted),
      targetsOf(batch),
      request,
    );
    let row = 0;
    for (const { at, targets } of batch) {
      for (let t = 0; t < targets.length; t++, row++) {
        scores[at].logProb[t] = Math.min(0, -statistics.surprisalNats[row]);
        scores[at].entropy[t] = statistics.entropyNats[row];
      }
    }
    onRows?.(batch.reduce((sum, { window }) => sum + window.length, 0));
  }
  return scores;
}
