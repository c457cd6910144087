import { comparisonReserveBytes } from '../src/entropy/compare-scoring.js';
import { resolveModelPath } from '../src/formats/hub.js';
import { createInputLedger, type InputLedger } from '../src/formats/inputs.js';
import { type EngineHost, startEngine } from '../src/models/engine-host.js';
import { describeActivations, parseActivations } from '../src/quantization/activations.js';
import type { EvaluationRecord, PredictionRecord } from '../src/quantization/quantize-report.js';
import { closeBeforeExit } from './edge-run.js';
import { DEFAULT_CONTEXT, type ModelSession, openModelSession, type Precision } from './model-session.js';
import { describeConvention, documentsOf, type ScoredTextOptions, windowOptions } from './scored-text.js';
import type { SharedOptions } from './shared-options.js';
import { answerChoices, compareWithOriginal, evaluationOf, firstTokens } from './sweep-evaluation.js';

export interface EvaluationRequest {
  /** The original, and where the changed model lies. */
  readonly spec: string;
  /** The original where it is open already; it stays open. */
  readonly session?: ModelSession;
  readonly path: string;
  readonly options: Pick<
    SharedOptions,
    | 'threads'
    | 'maxMemory'
    | 'device'
    | 'context'
    | 'stride'
    | 'dataFormat'
    | 'textSplit'
    | 'textField'
    | 'limit'
    | 'seed'
  >;
  readonly text: ScoredTextOptions;
  readonly data: readonly string[];
  readonly tokens?: number;
  readonly choices: readonly string[];
  readonly activations?: string;
  readonly precision: Precision;
  readonly ledger: InputLedger;
  onTokens(tokens: number): void;
}

/** Predictions and answers of a changed model beside those of the original, each in its own thread. */
export async function evaluateBesideOriginal(request: EvaluationRequest): Promise<EvaluationRecord> {
  const { options, precision } = request;
  const activations = request.activations === undefined ? undefined : parseActivations(request.activations);
  const used = process.memoryUsage.rss();
  const share = {
    precision,
    maxMemory: used + Math.floor(Math.max(0, options.maxMemory - used) / 2),
    threads: Math.max(1, Math.floor(options.threads / 2)),
    reserveBytes: comparisonReserveBytes(precision),
  };
  const session = request.session ?? (await openModelSession(request.spec, { ...options, ...share }));
  let host: EngineHost | undefined;
  let forget: (() => void) | undefined;
  try {
    const candidate = await startEngine(resolveModelPath(request.path, {}).path, {
      threads: share.threads,
      maxMemoryBytes: share.maxMemory,
      device: options.device,
      precision,
      context: options.context ?? DEFAULT_CONTEXT,
      reserveBytes: share.reserveBytes,
      ...(activations && { activations }),
    });
    host = candidate;
    forget = closeBeforeExit(() => candidate.close());
    const compared = request.data.length > 0 ? await predict(request, session, candidate) : null;
    return {
      context_tokens: session.context,
      convention: compared?.convention ?? null,
      activations: describeActivations(activations),
      documents: compared?.documents ?? 0,
      predictions: compared?.predictions ?? null,
      choices: request.choices.length > 0 ? await answer(request, session, candidate) : null,
    };
  } finally {
    forget?.();
    await host?.close();
    if (!request.session) await session.close();
  }
}

async function predict(request: EvaluationRequest, session: ModelSession, candidate: EngineHost) {
  const { options, text, data, ledger } = request;
  const { host, tokenizer, context } = session;
  const vocabulary = host.info.vocabularySize;
  const windows = windowOptions(options, text, {
    name: request.spec,
    ...(tokenizer && { tokenizer }),
    vocabularySize: vocabulary,
    maxPositions: host.info.maxPositions,
    context,
  });
  const subject = { ...(tokenizer && { tokenizer }), vocabularySize: vocabulary };
  const documents = () =>
    firstTokens(documentsOf(data, { ...options, shard: undefined }, text, ledger, subject), request.tokens);
  const compared = await compareWithOriginal(
    host,
    [{ name: 'changed', host: candidate }],
    { windows, vocabulary, seed: options.seed, documents },
    request.onTokens,
  );
  const [first] = compared.candidates;
  const predictions: PredictionRecord = {
    base_perplexity: first.base_perplexity,
    base_perplexity_se: first.base_perplexity_se,
    ...evaluationOf(first),
  };
  return {
    documents: compared.documents,
    predictions,
    convention: describeConvention(windows, host.info.modelType),
  };
}

async function answer(request: EvaluationRequest, session: ModelSession, candidate: EngineHost) {
  const { choices, options, ledger } = request;
  const reader = { tokenizer: session.tokenizer, context: session.context, seed: options.seed };
  return {
    before: await answerChoices(session.host, choices, reader, ledger),
    after: await answerChoices(candidate, choices, reader, createInputLedger()),
  };
}
