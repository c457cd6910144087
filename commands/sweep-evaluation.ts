import { encodeQuestion, type QuestionFields, readQuestion } from '../src/entropy/choice-questions.js';
import { scoreQuestions } from '../src/entropy/choice-scoring.js';
import { answerQuestion, type ChoicesStatistics, choicesBody } from '../src/entropy/choices-report.js';
import { addCandidateRows, type CandidateBody, compareBody, createCandidate } from '../src/entropy/compare-report.js';
import { compareDocuments } from '../src/entropy/compare-scoring.js';
import type { TokenisedDocument } from '../src/entropy/tokenised-document.js';
import type { WindowOptions } from '../src/entropy/windows.js';
import { InputError } from '../src/errors.js';
import { readRecords } from '../src/formats/documents.js';
import type { InputLedger } from '../src/formats/inputs.js';
import type { EngineHost } from '../src/models/engine-host.js';
import type { SweepChoices, SweepEvaluation } from '../src/quantization/sweep-report.js';
import type { Tokenizer } from '../src/tokenizers/tokenizer.js';
import { prefixToken } from './model-session.js';

/** The text of a sweep, cut to a number of tokens. */
export interface EvaluationText {
  readonly windows: WindowOptions;
  readonly vocabulary: number;
  readonly seed: number;
  /** A fresh pass over the documents. */
  documents(): AsyncIterable<TokenisedDocument>;
}

/** Predictions of candidates beside the base's, all in one pass. */
export interface Compared {
  readonly documents: number;
  readonly scoredTokens: number;
  readonly candidates: readonly CandidateBody[];
}

/** The first `limit` tokens of documents; the last document is cut. */
export async function* firstTokens(
  documents: AsyncIterable<TokenisedDocument>,
  limit: number | undefined,
): AsyncGenerator<TokenisedDocument, void, undefined> {
  let left = limit ?? Number.POSITIVE_INFINITY;
  for await (const document of documents) {
    if (left <= 0) return;
    const { tokens } = document;
    yield tokens.length <= left ? document : { ...document, tokens: tokens.slice(0, left) };
    left -= tokens.length;
  }
}

/** Runs the base once and every candidate beside it. @throws InputError when nothing is scored */
export async function compareWithOriginal(
  base: EngineHost,
  candidates: readonly { readonly name: string; readonly host: EngineHost }[],
  text: EvaluationText,
  onTokens: (tokens: number) => void,
): Promise<Compared> {
  const statistics = candidates.map(({ name }) => createCandidate(name, 1));
  const counts = { documents: 0, tokens: 0, scoredTokens: 0 };
  const events = compareDocuments(
    text.documents(),
    { kind: 'model', host: base },
    candidates.map(({ host }) => host),
    { windows: text.windows, vocabulary: text.vocabulary, onRows: onTokens },
  );
  for await (const event of events) {
    if (event.kind === 'document') {
      counts.documents++;
      counts.tokens += event.document.tokens.length;
      continue;
    }
    counts.scoredTokens += event.places.targets.length;
    for (const [c, comparison] of event.comparisons.entries()) {
      addCandidateRows(statistics[c], comparison, event.places, undefined);
    }
  }
  if (counts.scoredTokens === 0)
    throw new InputError('--eval-data: no token was scored: the text is empty or too short');
  const body = compareBody(statistics, counts, {
    convention: {},
    base: { kind: 'model', name: base.info.path, vocabulary_size: text.vocabulary },
    seed: text.seed,
  });
  return { documents: counts.documents, scoredTokens: counts.scoredTokens, candidates: body.candidates };
}

/** The figures of a comparison that a sweep reports. */
export function evaluationOf(candidate: CandidateBody): SweepEvaluation {
  return {
    tokens: candidate.tokens,
    perplexity: candidate.candidate_perplexity,
    perplexity_se: candidate.candidate_perplexity_se,
    perplexity_ratio: candidate.perplexity_ratio,
    perplexity_ratio_se: candidate.perplexity_ratio_se,
    mean_kl_nats: candidate.mean_kl_nats,
    mean_kl_nats_se: candidate.mean_kl_nats_se,
    p99_kl_nats: candidate.kl_quantiles_nats.p99,
    top1_agreement: candidate.top1_agreement,
    top1_agreement_se: candidate.top1_agreement_se,
  };
}

const FIELDS: QuestionFields = { context: 'context', choices: 'choices', answer: 'answer', id: 'id' };

/** Accuracy of a model on the questions of files, as `analyze-entropy choices` scores them by default. */
export async function answerChoices(
  host: EngineHost,
  files: readonly string[],
  reader: { readonly tokenizer: Tokenizer | undefined; readonly context: number; readonly seed: number },
  ledger: InputLedger,
): Promise<SweepChoices> {
  const { tokenizer, context, seed } = reader;
  const prefix = prefixToken(undefined, tokenizer);
  if (!tokenizer || prefix === undefined) {
    throw new InputError('--choices: the model has no tokenizer with BOS or EOS, so questions cannot be read');
  }
  const encoding = { tokenizer, delimiter: ' ', prefixToken: prefix, specialTokens: true, maxLength: context };
  const questions = async function* () {
    for await (const record of readRecords(files, { ledger })) {
      yield encodeQuestion(readQuestion(record, FIELDS), encoding);
    }
  };
  const statistics: ChoicesStatistics = { rows: [], truncatedQuestions: 0 };
  for await (const question of scoreQuestions(questions(), host)) {
    statistics.rows.push(answerQuestion(question, 'none').row);
  }
  const { questions: count, acc, acc_stderr } = choicesBody(statistics, { seed, normalisation: 'none' });
  return { questions: count, accuracy: acc, accuracy_se: acc_stderr };
}
