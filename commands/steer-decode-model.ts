import { DECODE, type DecodeProgress, type DecodeResult } from '../src/decoding/decode-job.js';
import { type PathNucleusSettings, parsePathNucleus } from '../src/decoding/path-nucleus.js';
import type { ComparisonSettings } from '../src/decoding/row-comparison.js';
import { InputError } from '../src/errors.js';
import { resolveModelPath } from '../src/formats/hub.js';
import { hashModelFiles } from '../src/models/model-hash.js';
import { tableBytes } from '../src/report/csv.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import {
  comparisonBody,
  type DecodeBody,
  pathBody,
  samplerBodies,
  writtenText,
} from '../src/steering/decode-report.js';
import {
  decodedRows,
  generationLines,
  PATH_STEP_COLUMNS,
  pathStepRows,
  samplerRows,
} from '../src/steering/decode-rows.js';
import { textFigures } from '../src/steering/decode-text.js';
import type { Tokenizer } from '../src/tokenizers/tokenizer.js';
import type { AnalysisContext, AnalysisOutcome, AnalysisWork } from './analysis-run.js';
import { modelDigests } from './model-digests.js';
import { openModelSession, parsePrecision } from './model-session.js';
import { type Prompt, type PromptShared, readPrompts } from './prompt-inputs.js';
import { requireOption } from './shared-options.js';
import { type DecodeOptions, newTokensOf, samplesOf } from './steer-decode.js';
import { readSteering } from './steer-options.js';

/** `steer decode --model`: texts of every sampler on the same prompts. */
export function modelWork(options: PromptShared, own: DecodeOptions, settings: ComparisonSettings): AnalysisWork {
  const paths = own.pathNucleus === undefined ? undefined : parsePathNucleus(own.pathNucleus);
  const answers = own.answerPattern === undefined ? undefined : answerPattern(own.answerPattern);
  return {
    measure: (context) => measure(context, options, own, { settings, paths, answers }),
    plan: async () => [
      ['samplers', settings.samplers.map(({ name }) => name).join('  ')],
      ['path nucleus', own.pathNucleus ?? 'none'],
      ['continuations a prompt', samplesOf(own)],
      ['tokens a continuation', newTokensOf(own)],
      ['second pass over the text', isReplayed(own, settings) ? 'yes' : 'no'],
    ],
  };
}

interface DecodeWork {
  readonly settings: ComparisonSettings;
  readonly paths: PathNucleusSettings | undefined;
  readonly answers: RegExp | undefined;
}

/** A second pass serves comparisons, bounds and searches; a lone sampler without top-H has none of them. */
const isReplayed = (own: DecodeOptions, { samplers, alphas, exactCandidates }: ComparisonSettings): boolean =>
  own.secondPass !== false &&
  (samplers.length > 1 || (samplers.length > 0 && (alphas.length > 0 || exactCandidates !== undefined)));

function answerPattern(text: string): RegExp {
  try {
    return new RegExp(text, 'u');
  } catch {
    throw new InputError(`--answer-pattern ${text}: is no regular expression`);
  }
}

async function measure(
  context: AnalysisContext,
  options: PromptShared,
  own: DecodeOptions,
  { settings, paths, answers }: DecodeWork,
): Promise<AnalysisOutcome> {
  const spec = requireOption(options.model, '--model', 'the model');
  context.timings.begin('hash the model');
  const { digests, files } = await modelDigests(spec, resolveModelPath(spec, process.env).path);
  context.timings.begin('open the model');
  const session = await openModelSession(spec, { ...options, precision: parsePrecision(own.precision) });
  try {
    const { tokenizer, host } = session;
    const { info } = host;
    const prompts = await readPrompts(options, own, tokenizer, context.ledger);
    checkLengths(prompts, newTokensOf(own), info.maxPositions);
    const subject = { spec, info, sha256: hashModelFiles(files) };
    const steering = await readSteering(own, subject, prompts.length, context.ledger);
    for (const line of steering?.assumptions ?? []) context.warn(line);
    const timed = timedProgress(context, [...settings.samplers.map(({ name }) => name), 'path-nucleus']);
    const result = await host.run(
      DECODE,
      {
        prompts: prompts.map(({ tokens }) => tokens),
        comparison: settings,
        replay: isReplayed(own, settings),
        samples: samplesOf(own),
        maxNewTokens: newTokensOf(own),
        stopIds: info.eosIds,
        seed: options.seed,
        ...(steering && { steering: steering.plan }),
        ...(paths && { paths }),
      },
      timed.note,
    );
    timed.finish();
    context.timings.begin('measure the texts');
    const warnings = warningsOf(settings, paths, result, samplesOf(own));
    for (const line of warnings) context.warn(line);
    const body: DecodeBody = {
      source: 'model',
      prompts: prompts.length,
      samples: samplesOf(own),
      vocabulary_size: info.vocabularySize,
      ...comparisonBody(result.comparison),
      samplers: samplerBodies(
        settings.samplers,
        result.comparison,
        result.decoded.map((decoded) => textFigures(writtenText(decoded), options.seed)),
      ),
      path_nucleus:
        paths && result.paths ? pathBody(paths, result.paths, options.seed, answerOf(answers, tokenizer)) : null,
      assumptions: steering?.assumptions ?? [],
      warnings,
    };
    return { ...outcomeOf(body, result, prompts, own, settings, tokenizer), digests: async () => digests };
  } finally {
    await session.close();
  }
}

function checkLengths(prompts: readonly Prompt[], more: number, limit: number | null): void {
  const long = prompts.find(({ tokens }) => limit !== null && tokens.length + more > limit);
  if (!long) return;
  throw new InputError(
    `${long.place}: ${long.tokens.length} tokens and ${more} new ones are more than the model's ${limit} positions; ` +
      'lower --max-new-tokens',
  );
}

/** Progress by tokens; every decoder is a stage of its own in the timings, with what a token took. */
function timedProgress(
  context: AnalysisContext,
  names: readonly string[],
): { readonly note: (value: unknown) => void; readonly finish: () => void } {
  const records: { decoder: string; tokens: number; seconds: number; seconds_per_token: number }[] = [];
  let stage: { readonly decoder: number; readonly from: number; tokens: number } | undefined;
  let all = 0;
  const close = (): void => {
    if (!stage || stage.decoder < 0) return;
    const seconds = (performance.now() - stage.from) / 1000;
    const { tokens } = stage;
    records.push({ decoder: names[stage.decoder], tokens, seconds, seconds_per_token: seconds / tokens });
  };
  return {
    note(value) {
      const { decoder, tokens } = value as DecodeProgress;
      if (decoder !== stage?.decoder) {
        close();
        stage = { decoder, from: performance.now(), tokens: 0 };
        context.timings.begin(decoder < 0 ? 'second pass' : `generate: ${names[decoder]}`);
      }
      stage.tokens += tokens;
      all += tokens;
      context.progress.update(all, 'tokens');
    },
    finish() {
      close();
      context.timings.count('tokens', all);
      context.timings.list('decoders', records);
    },
  };
}

function warningsOf(
  { samplers }: ComparisonSettings,
  paths: PathNucleusSettings | undefined,
  result: DecodeResult,
  samples: number,
): string[] {
  const warnings: string[] = [];
  const greedy = samplers.filter(({ plan }) => plan.greedy === true).map(({ name }) => name);
  if (greedy.length > 0 && samples > 1) {
    warnings.push(`${greedy.join('; ')}: takes the most probable token, so that one continuation a prompt is made`);
  }
  const short = result.paths?.some(
    ({ paths: kept }) => kept.some(({ finished }) => finished) && kept.some(({ finished }) => !finished),
  );
  if (paths?.lengthPenalty === 0 && short) {
    warnings.push(
      'path nucleus: finished paths compete with longer ones by their log-probability, which favours short answers; ' +
        'length-penalty=1 ranks by the mean',
    );
  }
  return warnings;
}

function answerOf(
  pattern: RegExp | undefined,
  tokenizer: Tokenizer | undefined,
): ((tokens: readonly number[]) => string | undefined) | undefined {
  if (!pattern || !tokenizer) return undefined;
  return (tokens) => {
    const found = pattern.exec(tokenizer.decode(tokens, { skipSpecialTokens: true }));
    return found ? (found[1] ?? found[0]).trim() : undefined;
  };
}

function outcomeOf(
  body: DecodeBody,
  { decoded, paths }: DecodeResult,
  prompts: readonly Prompt[],
  own: DecodeOptions,
  { samplers }: ComparisonSettings,
  tokenizer: Tokenizer | undefined,
): AnalysisOutcome {
  const names = samplers.map(({ name }) => name);
  const ids = prompts.map(({ id }) => id);
  const bytesOf = (token: number): Uint8Array => tokenizer?.tokenBytes(token) ?? new Uint8Array(0);
  const textOf = (tokens: ArrayLike<number>): string => tokenizer?.decode(tokens, { skipSpecialTokens: true }) ?? '';
  return {
    body,
    rows: () => samplerRows(body),
    tableRows: () => decodedRows(names, decoded, ids, bytesOf),
    files: () =>
      new Map([
        ['--generations', Buffer.from(generationLines(names, decoded, paths, ids, textOf))],
        ['--path-steps', tableBytes(own.pathSteps ?? '.csv', PATH_STEP_COLUMNS, pathStepRows(paths ?? [], ids))],
      ]),
    figure: async (subtitle) => (await import('../src/steering/decode-plot.js')).decodeFigure(body, subtitle),
    summary: summaryOf(body),
  };
}

function summaryOf(body: DecodeBody): AnalysisOutcome['summary'] {
  const line = (name: string, { text, kept, exact }: Omit<DecodeBody['samplers'][number], 'name' | 'plan'>) =>
    [
      name,
      text?.mean_surprisal_nats.mean,
      text?.mean_entropy_after_nats?.mean,
      kept?.mean_kept_mass.mean,
      kept?.mean_kept_count.mean,
      text?.distinct_2,
      text?.self_bleu_4.mean,
      exact?.mean_ratio.mean,
    ] satisfies SummaryCell[];
  return {
    header: [
      'sampler',
      'surprisal, nats',
      'entropy drawn, nats',
      'mass kept',
      'kept',
      'distinct-2',
      'self-BLEU',
      'of optimum',
    ],
    rows: [
      ...body.samplers.map((sampler) => line(sampler.name, sampler)),
      ...(body.path_nucleus ? [line('path-nucleus', { text: body.path_nucleus.text, kept: null, exact: null })] : []),
    ],
  };
}
