import { InputError } from '../errors.js';

/** How a document is cut into windows and which predictions of a window count; see `scoringWindows`. */
export type WindowConvention = 'lm-eval' | 'hf' | 'llama.cpp' | 'full';

export const WINDOW_CONVENTIONS: readonly WindowConvention[] = ['lm-eval', 'hf', 'llama.cpp', 'full'];

/** The condition of the `llama.cpp` convention that an input which is too short breaks. */
export const LLAMA_CPP_MINIMUM = 'needs at least 2*n_ctx tokens';

/** Options of `scoringWindows`. What a convention does not know must be absent. */
export interface WindowOptions {
  readonly convention: WindowConvention;
  /** L: the most tokens a window feeds (lm-eval, hf, full), or n_ctx (llama.cpp). */
  readonly context: number;
  /** hf: tokens between the starts of windows (default: half of the context, at least 1). llama.cpp: its --ppl-stride. */
  readonly stride?: number;
  /** lm-eval: c, the tokens of context that every window after the first starts from (default 1). */
  readonly contextLength?: number;
  /**
   * lm-eval: the prefix token, required. hf and full: put once before the document. llama.cpp: the BOS token that takes
   * the place of the first token of every chunk, where the model adds BOS.
   */
  readonly prefixToken?: number;
  /** hf: put `prefixToken` before every window, which then holds L-1 tokens of the document. */
  readonly prefixEachWindow?: boolean;
}

/**
 * One forward pass and the predictions of it that count. Row `scoreFrom + i` of the outputs over `inputs` predicts token
 * `targetStart + i` of the document, `targets[i]`, for `0 <= i < targets.length`. Tokens that no counted prediction
 * depends on are not among the inputs.
 */
export interface ScoringWindow {
  readonly documentIndex: number;
  /** Token ids to feed: `prefixLength` prefix tokens, then tokens `inputStart, inputStart+1, ...` of the document. */
  readonly inputs: Int32Array;
  readonly prefixLength: number;
  readonly inputStart: number;
  /** One past the last document token that belongs to the window, fed or predicted. */
  readonly end: number;
  readonly scoreFrom: number;
  readonly targetStart: number;
  readonly targets: Int32Array;
  /** Labels that the Hugging Face recipe leaves unmasked: it weighs the window's mean by this number less one. */
  readonly validLabels: number;
}

/** Tokens before target `i` of the window that the model sees, the prefix counted: the context length of a prediction. */
export function contextLengthOf(window: ScoringWindow, i: number): number {
  return window.scoreFrom + i + 1;
}

function requireInteger(value: number, name: string, least: number): void {
  if (!Number.isSafeInteger(value) || value < least) {
    throw new InputError(`${name} must be a whole number of at least ${least}, got ${value}`);
  }
}

/**
 * Checks the options against each other and against the model before any token is read.
 * @param modelContext the longest input the model takes, where it is known
 * @throws InputError naming the option and what it may be
 */
export function validateWindowOptions(options: WindowOptions, modelContext?: number): void {
  const { convention, context, stride, contextLength, prefixToken } = options;
  if (!WINDOW_CONVENTIONS.includes(convention)) {
    throw new InputError(`unknown convention "${convention}"; choose one of ${WINDOW_CONVENTIONS.join(', ')}`);
  }
  requireInteger(context, '--context', convention === 'lm-eval' ? 1 : 2);
  if (prefixToken !== undefined) requireInteger(prefixToken, 'prefix token', 0);
  if (stride !== undefined) {
    if (convention === 'lm-eval' || convention === 'full') {
      throw new InputError(`--stride has no meaning for the convention ${convention}; use hf or llama.cpp, or drop it`);
    }
    requireInteger(stride, '--stride', 1);
    if (stride > context) {
      throw new InputError(
        `--stride ${stride} is longer than --context ${context}: tokens between windows would be lost`,
      );
    }
  }
  if (contextLength !== undefined) {
    if (convention !== 'lm-eval') {
      throw new InputError(`a context length (c) belongs to the convention lm-eval, not ${convention}; drop it`);
    }
    if (!Number.isSafeInteger(contextLength) || contextLength < 1 || contextLength > context) {
      throw new InputError(
        `context length c must satisfy 1 <= c <= context, got c=${contextLength}, context=${context}`,
      );
    }
  }
  if (convention === 'lm-eval' && prefixToken === undefined) {
    throw new InputError(
      'the convention lm-eval needs a prefix token; the tokenizer has no BOS or EOS: give --prefix-token',
    );
  }
  if (options.prefixEachWindow === true) {
    if (convention !== 'hf') {
      throw new InputError(`--bos-each-window belongs to the convention hf, not ${convention}; drop it`);
    }
    if (prefixToken === undefined)
      throw new InputError('--bos-each-window needs a BOS token and the tokenizer has none');
    if ((stride ?? 1) > context - 1) {
      throw new InputError(
        `--stride ${stride} with --bos-each-window needs --context ${(stride ?? 1) + 1}; BOS takes a place`,
      );
    }
  }
  const longest = effectiveContext(options);
  if (modelContext !== undefined && longest > modelContext) {
    throw new InputError(
      `windows of ${longest} tokens are longer than the model's context of ${modelContext}; lower --context`,
    );
  }
}

/** Tokens of a full window. llama.cpp with a stride enlarges the context by half of the stride, rounded down. */
export function effectiveContext(options: WindowOptions): number {
  const { convention, context, stride } = options;
  return convention === 'llama.cpp' && stride !== undefined ? context + Math.floor(stride / 2) : context;
}

function windowOf(
  tokens: Int32Array,
  documentIndex: number,
  prefix: readonly number[],
  inputStart: number,
  end: number,
  targetStart: number,
  validLabels: number,
): ScoringWindow {
  const targets = tokens.subarray(targetStart, end);
  const fed = targets.length === 0 ? 0 : end - 1 - inputStart;
  const inputs = new Int32Array(targets.length === 0 ? 0 : prefix.length + fed);
  if (targets.length > 0) {
    inputs.set(prefix);
    inputs.set(tokens.subarray(inputStart, end - 1), prefix.length);
  }
  const scoreFrom = prefix.length + targetStart - inputStart - 1;
  return {
    documentIndex,
    inputs,
    prefixLength: prefix.length,
    inputStart,
    end,
    scoreFrom,
    targetStart,
    targets,
    validLabels,
  };
}

function* harnessWindows(tokens: Int32Array, index: number, options: WindowOptions): Generator<ScoringWindow> {
  const { context, contextLength = 1, prefixToken } = options;
  const total = tokens.length;
  if (total === 0) return;
  const first = Math.min(context, total);
  yield windowOf(tokens, index, [prefixToken as number], 0, first, 0, first);
  const predicted = context - contextLength + 1;
  for (let done = first; done < total; ) {
    const count = Math.min(total - done, predicted);
    const end = done + count;
    yield windowOf(tokens, index, [], end - context - 1, end, done, count);
    done = end;
  }
}

/**
 * Hugging Face's strided windows. A prefix before the document only is part of the sequence that is cut, as it is when
 * a tokenizer adds BOS; in document coordinates it stands at position -1.
 */
function* stridedWindows(
  tokens: Int32Array,
  index: number,
  options: WindowOptions,
  stride: number,
): Generator<ScoringWindow> {
  const { context, prefixToken, prefixEachWindow = false } = options;
  const total = tokens.length;
  if (total === 0) return;
  const origin = prefixToken !== undefined && !prefixEachWindow ? -1 : 0;
  const prefix = prefixToken === undefined ? [] : [prefixToken];
  const span = prefixEachWindow ? context - 1 : context;
  let previousEnd = origin;
  for (let begin = origin; ; begin += stride) {
    const end = Math.min(begin + span, total);
    const labels = end - previousEnd;
    const fedPrefix = prefixEachWindow || begin < 0 ? prefix : [];
    const inputStart = Math.max(begin, 0);
    // Without a prefix in front nothing predicts the window's own first token: the recipe's shift drops it.
    const targetStart = Math.max(previousEnd, fedPrefix.length > 0 ? inputStart : begin + 1);
    yield windowOf(tokens, index, fedPrefix, inputStart, end, Math.min(targetStart, end), labels);
    previousEnd = end;
    if (end === total) return;
  }
}

function* chunkWindows(tokens: Int32Array, index: number, options: WindowOptions): Generator<ScoringWindow> {
  const { context, stride, prefixToken } = options;
  const total = tokens.length;
  if (total < 2 * context) {
    throw new InputError(
      `llama.cpp convention needs at least 2*n_ctx = ${2 * context} tokens, the input has ${total}; ` +
        'lower --context or use --convention lm-eval',
    );
  }
  const length = effectiveContext(options);
  if (stride !== undefined) {
    if (total <= length) {
      throw new InputError(
        `llama.cpp convention with stride ${stride} needs more than ${length} tokens, the input has ${total}; ` +
          'lower --context or --stride',
      );
    }
    // There BOS is put in place after decoding only, so the chunk is fed as it stands.
    const chunks = Math.ceil((total - length) / stride);
    for (let chunk = 0; chunk < chunks; chunk++) {
      const start = chunk * stride;
      const end = start + length;
      yield windowOf(tokens, index, [], start, end, end - stride, stride);
    }
    return;
  }
  const chunks = Math.floor(total / length);
  const first = Math.floor(length / 2);
  for (let chunk = 0; chunk < chunks; chunk++) {
    const start = chunk * length;
    const end = start + length;
    const window = windowOf(tokens, index, [], start, end, start + first + 1, length - 1 - first);
    if (prefixToken !== undefined && window.inputs.length > 0) window.inputs[0] = prefixToken;
    yield window;
  }
}

/**
 * Cuts one document into scoring windows.
 *
 * - `lm-eval`: lm-evaluation-harness's rolling windows: every token scored once, the first after the prefix token, the
 *   last window filled to full length on the left.
 * - `hf`: Hugging Face's strided recipe: windows every `stride` tokens, labels that an earlier window had are masked,
 *   and a window's own first token has no prediction.
 * - `llama.cpp`: disjoint chunks of n_ctx, only the second half scored, the tail dropped; with a stride, chunks of
 *   `n_ctx + floor(stride/2)` every `stride` tokens, the last `stride` predictions scored. The tokens are the whole stream as that tool
 *   tokenises it.
 * - `full`: every token after the first with the longest context there is room for, at most `context - 1` tokens: `hf`
 *   with stride 1.
 *
 * An empty document has no window. A window may score nothing (hf, stride = context, one token left).
 *
 * @param tokens document token ids, without the prefix token
 * @throws InputError for bad options, or fewer tokens than llama.cpp's minimum (both numbers)
 * Sources: lm-evaluation-harness `get_rolling_token_windows`; Hugging Face "Perplexity of fixed-length models";
 * llama.cpp tools/perplexity.
 */
export function* scoringWindows(
  tokens: Int32Array,
  documentIndex: number,
  options: WindowOptions,
): Generator<ScoringWindow> {
  validateWindowOptions(options);
  switch (options.convention) {
    case 'lm-eval':
      yield* harnessWindows(tokens, documentIndex, options);
      return;
    case 'hf':
      yield* stridedWindows(
        tokens,
        documentIndex,
        options,
        options.stride ?? Math.max(1, Math.floor(options.context / 2)),
      );
      return;
    case 'full':
      yield* stridedWindows(tokens, documentIndex, options, 1);
      return;
    case 'llama.cpp':
      yield* chunkWindows(tokens, documentIndex, options);
  }
}

/**
 * Keeps of a window the targets with `start <= position < end` (a `--score-only` span) and the inputs they depend on.
 * Returns undefined when none is left.
 */
export function restrictToSpan(window: ScoringWindow, start: number, end: number): ScoringWindow | undefined {
  const from = Math.max(window.targetStart, start);
  const to = Math.min(window.targetStart + window.targets.length, end);
  if (from >= to) return undefined;
  const skipped = from - window.targetStart;
  const scoreFrom = window.scoreFrom + skipped;
  return {
    ...window,
    inputs: window.inputs.subarray(0, scoreFrom + (to - from)),
    end: to,
    scoreFrom,
    targetStart: from,
    targets: window.targets.subarray(skipped, skipped + (to - from)),
    validLabels: to - from,
  };
}
