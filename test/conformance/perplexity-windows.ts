import { addDocument, addScoredTokens, createCorpus } from '../../src/entropy/corpus.js';
import { summarizeCorpus } from '../../src/entropy/corpus-summary.js';
import { type WindowRow, windowRow } from '../../src/entropy/window-table.js';
import {
  contextLengthOf,
  effectiveContext,
  LLAMA_CPP_MINIMUM,
  scoringWindows,
  type WindowOptions,
} from '../../src/entropy/windows.js';
import { InputError } from '../../src/errors.js';
import type { Json } from './harness.js';
import { float64, keysOf, number } from './tensors.js';

/** The stub model of the case, which stands where a language model would. */
function stubModel(inputs: { [key: string]: Json }): (token: number, context: number) => number {
  const base = float64(inputs.base, 'base');
  const amplitude = float64(inputs.amp, 'amp');
  return (token, context) => base[token] * (1 + amplitude[token] / (1 + context));
}

function score(inputs: { [key: string]: Json }, options: WindowOptions) {
  const model = stubModel(inputs);
  const tokens = Int32Array.from({ length: number(inputs.n_tokens, 'n_tokens') }, (_, i) => i);
  const corpus = createCorpus();
  const document = addDocument(corpus, {
    index: 0,
    id: '0',
    source: '',
    tokens: tokens.length,
    bytes: number(inputs.n_bytes, 'n_bytes'),
    words: number(inputs.n_words, 'n_words'),
  });
  const rows: WindowRow[] = [];
  for (const window of scoringWindows(tokens, 0, options)) {
    const count = window.targets.length;
    const contextLengths = Int32Array.from({ length: count }, (_, i) => contextLengthOf(window, i));
    const surprisalNats = Float64Array.from(window.targets, (token, i) => model(token, contextLengths[i]));
    addScoredTokens(
      corpus,
      document,
      {
        positions: Int32Array.from({ length: count }, (_, i) => window.targetStart + i),
        tokenIds: Int32Array.from(window.targets),
        contextLengths,
        surprisalNats,
        entropyNats: new Float64Array(count),
        varentropyNats2: new Float64Array(count),
        topProbability: new Float64Array(count),
        rank: new Int32Array(count),
        validLabels: window.validLabels,
      },
      () => ({ token: '', context: '' }),
    );
    rows.push(windowRow(window, surprisalNats));
  }
  return { rows, summary: summarizeCorpus(corpus, { seed: 0 }) };
}

const range = (row: WindowRow): number[] => {
  if (row.context_first === null || row.context_last === null) return [-1];
  return row.context_first === row.context_last ? [row.context_first] : [row.context_first, row.context_last];
};

/** llama.cpp puts BOS over the first token of a chunk; the stub knows tokens by their index, so none is put here. */
function runKey(inputs: { [key: string]: Json }, key: string): unknown {
  const context = number(inputs.max_seq_len, 'max_seq_len');
  const harness = /^lm_eval_context_len_(\d+)$/.exec(key);
  if (harness !== null) {
    const { rows, summary } = score(inputs, {
      convention: 'lm-eval',
      context,
      contextLength: Number(harness[1]),
      prefixToken: 0,
    });
    return {
      windows: rows.map((row) => ({
        context: range(row),
        n_context: row.context_tokens,
        pred_start: row.score_start,
        pred_end: row.score_end,
        n_input: row.input_tokens,
        nll: row.nll_nats,
      })),
      total_nll: summary.total_nll_nats,
      n_scored: summary.scored_tokens,
      token_perplexity: summary.perplexity,
      word_perplexity: summary.word_perplexity,
      byte_perplexity: summary.byte_perplexity,
      bits_per_byte: summary.bits_per_byte,
    };
  }
  const strided = /^hf_stride_(\d+)$/.exec(key);
  if (strided !== null) {
    const { rows, summary } = score(inputs, { convention: 'hf', context, stride: Number(strided[1]) });
    return {
      windows: rows.map((row) => ({
        begin: row.begin,
        end: row.end,
        score_start: row.score_start,
        score_end: row.score_end,
        n_scored: row.scored_tokens,
        n_valid_labels: row.unmasked_labels,
        nll: row.nll_nats,
      })),
      total_nll: summary.total_nll_nats,
      n_scored: summary.scored_tokens,
      perplexity: summary.perplexity,
      perplexity_hf_doc_weighting: summary.compat.hf_label_weighted_perplexity,
      perplexity_mean_of_window_means: summary.compat.hf_mean_of_window_means_perplexity,
    };
  }
  const chunked = /^llamacpp_nctx_(\d+)(?:_stride_(\d+))?$/.exec(key);
  if (chunked === null) return undefined;
  const options: WindowOptions = {
    convention: 'llama.cpp',
    context: Number(chunked[1]),
    ...(chunked[2] === undefined ? {} : { stride: Number(chunked[2]) }),
  };
  try {
    const { rows, summary } = score(inputs, options);
    return {
      effective_ctx: effectiveContext(options),
      windows: rows.map((row) => ({
        start: row.begin,
        end: row.end,
        score_start: row.score_start,
        score_end: row.score_end,
        n_scored: row.scored_tokens,
        nll: row.nll_nats,
      })),
      total_nll: summary.total_nll_nats,
      n_scored: summary.scored_tokens,
      perplexity: summary.perplexity,
      perplexity_uncertainty: summary.perplexity_se,
    };
  } catch (error) {
    if (error instanceof InputError && error.message.includes('2*n_ctx')) return { error: LLAMA_CPP_MINIMUM };
    throw error;
  }
}

export function run(inputs: { [key: string]: Json }, wanted: Json): unknown {
  return Object.fromEntries(keysOf(wanted).map((key) => [key, runKey(inputs, key)]));
}
