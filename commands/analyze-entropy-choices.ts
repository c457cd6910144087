import type { Command } from 'commander';
import {
  type EncodedQuestion,
  encodeQuestion,
  type QuestionFields,
  readQuestion,
} from '../src/entropy/choice-questions.js';
import { scoreQuestions } from '../src/entropy/choice-scoring.js';
import { CHOICE_NORMALISATIONS, type ChoiceNormalisation } from '../src/entropy/choices.js';
import {
  answerQuestion,
  CHOICE_COLUMNS,
  CHOICES_SCHEMA,
  type ChoicesBody,
  type ChoicesStatistics,
  choiceRows,
  choicesBody,
  choicesPartial,
  QUESTION_COLUMNS,
  questionRow,
} from '../src/entropy/choices-report.js';
import { InputError } from '../src/errors.js';
import { readRecords } from '../src/formats/documents.js';
import { createInputLedger, type InputLedger } from '../src/formats/inputs.js';
import { buildReport, writeReport } from '../src/report/json.js';
import { createProgress } from '../src/report/progress.js';
import { summaryTable } from '../src/report/summary-table.js';
import { type ReportValue, reportObject } from '../src/report/values.js';
import { prepareAsserts } from './edge-asserts.js';
import { openOutputs } from './edge-outputs.js';
import { parseChoice, parseInteger } from './edge-values.js';
import { toolVersion } from './edge-version.js';
import { type ModelSession, openModelSession, PRECISION_OPTION, parsePrecision, prefixToken } from './model-session.js';
import { startRunTimings } from './run-timings.js';
import { attachShared, requireOption, type SharedOptions } from './shared-options.js';

const SHARED = [
  'model',
  'data',
  'dataFormat',
  'limit',
  'out',
  'format',
  'report',
  'table',
  'plot',
  'seed',
  'threads',
  'maxMemory',
  'device',
  'context',
  'shard',
  'assert',
  'baseline',
  'timings',
  'quiet',
  'dryRun',
  'force',
] as const satisfies readonly (keyof SharedOptions)[];

type Shared = Pick<SharedOptions, (typeof SHARED)[number] | 'config' | 'debug'>;

/** Options of this view alone, as commander gives them. */
interface OwnOptions {
  contextField?: string;
  choicesField?: string;
  answerField?: string;
  idField?: string;
  delimiter?: string;
  normalisation?: string;
  prefixToken?: string;
  specialTokens: boolean;
  precision?: string;
}

/** Declares `surprisal analyze-entropy choices`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option('--context-field <name>', 'field of the context (default context)')
    .option('--choices-field <name>', 'field of the list of choices (default choices)')
    .option('--answer-field <name>', 'field of the right one: its index, text or label (default answer)')
    .option('--id-field <name>', 'field that names a question (default id)')
    .option('--delimiter <text>', 'what stands between context and choice (default one space)')
    .option(
      '--normalisation <unit>',
      `what a log-likelihood is divided by for probabilities and entropy: ${CHOICE_NORMALISATIONS.join(', ')} (default none)`,
    )
    .option('--prefix-token <id>', 'token that stands for an empty context (default BOS, else EOS)')
    .option('--no-special-tokens', "leave the tokenizer's own special tokens (BOS) away")
    .option(...PRECISION_OPTION)
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<OwnOptions>());
    });
}

/** How questions are read and scored. */
interface Reading {
  readonly fields: QuestionFields;
  readonly delimiter: string;
  readonly normalisation: ChoiceNormalisation;
  readonly prefixToken: number;
  readonly specialTokens: boolean;
}

async function run(options: Shared, own: OwnOptions): Promise<number> {
  const model = requireOption(options.model, '--model', 'a model directory, a .gguf or an .onnx file');
  const data = requireOption(options.data, '--data', 'the questions to read');
  const asserts = await prepareAsserts(options.assert, options.baseline);
  const timings = startRunTimings('analyze-entropy choices');
  const outputs = openOutputs(data, { force: options.force });
  let session: ModelSession | undefined;
  try {
    const table = outputs.table('--out', options.out, QUESTION_COLUMNS, options.format);
    const choiceTable = outputs.table('--table', options.table, CHOICE_COLUMNS);
    const reportFile = outputs.file('--report', options.report);
    const plotFile = outputs.file('--plot', options.plot);
    const timingsFile = outputs.file('--timings', options.timings);
    if (plotFile) (await import('../src/report/plots/figure.js')).plotExtension(options.plot as string);

    const precision = parsePrecision(own.precision);
    timings.begin('open the model');
    session = await openModelSession(model, { ...options, precision });
    const { host } = session;
    const reading = readingOptions(model, own, session);
    if (options.dryRun) {
      process.stdout.write(describePlan(model, session, reading));
      return 0;
    }

    timings.begin('score');
    const ledger = createInputLedger();
    const progress = await createProgress({
      stream: process.stderr,
      quiet: options.quiet,
      unit: 'tokens',
      now: () => performance.now(),
    });
    const statistics: ChoicesStatistics = { rows: [], truncatedQuestions: 0 };
    let fed = 0;
    const scored = scoreQuestions(questionsOf(data, options, reading, ledger, session), host, (rows) => {
      fed += rows;
      progress.update(fed);
    });
    for await (const question of scored) {
      const answered = answerQuestion(question, reading.normalisation);
      statistics.rows.push(answered.row);
      if (answered.truncatedTokens > 0) statistics.truncatedQuestions++;
      table?.write(questionRow(answered));
      if (choiceTable) for (const row of choiceRows(answered)) choiceTable.write(row);
    }
    progress.stop();
    timings.count('tokens', fed);
    timings.count('questions', statistics.rows.length);

    timings.begin('hash the inputs');
    const inputs = [...(await session.digests()), ...(await ledger.digests())];
    await session.close();
    session = undefined;

    timings.begin('summarise and write');
    const body = choicesBody(statistics, {
      seed: options.seed,
      normalisation: reading.normalisation,
      // A shard may be left without questions; the run as a whole may not.
      allowEmpty: options.shard !== undefined,
    });
    const report = buildReport(
      {
        name: CHOICES_SCHEMA,
        tool: { name: 'surprisal', version: toolVersion() },
        command: 'analyze-entropy choices',
        parameters: {
          model,
          data: [...data],
          data_format: options.dataFormat ?? null,
          limit: options.limit ?? null,
          context: options.context ?? null,
          ...parametersOf(reading),
          seed: options.seed,
          device: options.device,
          precision,
        },
        inputs,
      },
      reportObject(options.shard ? { ...body, shard: options.shard, partial: choicesPartial(statistics) } : body),
    );
    if (reportFile) writeReport(report, reportFile);
    if (plotFile) {
      const { choicesPlot } = await import('../src/entropy/choices-plot.js');
      plotFile.write(await choicesPlot(body, `${model}: ${data.join(', ')}`, options.plot as string));
    }
    if (timingsFile) timings.write(timingsFile, options);
    outputs.commit();
    if (!options.quiet) process.stdout.write(summary(body));
    return asserts.check(report);
  } finally {
    outputs.abort();
    await session?.close();
  }
}

function readingOptions(model: string, own: OwnOptions, { tokenizer, host }: ModelSession): Reading {
  if (!tokenizer) throw new InputError(`${model}: no tokenizer.json, so questions cannot be read`);
  const given = own.prefixToken === undefined ? undefined : parseInteger('--prefix-token', own.prefixToken);
  if (given !== undefined && given >= host.info.vocabularySize) {
    throw new InputError(`--prefix-token ${given} is outside the vocabulary of ${host.info.vocabularySize}`);
  }
  const prefix = prefixToken(given, tokenizer);
  if (prefix === undefined) {
    throw new InputError(
      `${model}: the tokenizer has no BOS or EOS to stand for an empty context: give --prefix-token`,
    );
  }
  return {
    fields: {
      context: own.contextField ?? 'context',
      choices: own.choicesField ?? 'choices',
      answer: own.answerField ?? 'answer',
      id: own.idField ?? 'id',
    },
    delimiter: own.delimiter ?? ' ',
    normalisation: parseChoice('--normalisation', own.normalisation ?? 'none', CHOICE_NORMALISATIONS),
    prefixToken: prefix,
    specialTokens: own.specialTokens,
  };
}

async function* questionsOf(
  data: readonly string[],
  options: Shared,
  reading: Reading,
  ledger: InputLedger,
  { tokenizer, context }: ModelSession,
): AsyncGenerator<EncodedQuestion, void, undefined> {
  if (!tokenizer) return;
  const encoding = { ...reading, tokenizer, maxLength: context };
  const records = readRecords(data, {
    ledger,
    ...(options.dataFormat && { format: options.dataFormat }),
    ...(options.limit !== undefined && { limit: options.limit }),
    ...(options.shard && { shard: options.shard }),
  });
  for await (const record of records) yield encodeQuestion(readQuestion(record, reading.fields), encoding);
}

function parametersOf({
  fields,
  delimiter,
  normalisation,
  prefixToken: prefix,
  specialTokens,
}: Reading): Record<string, ReportValue> {
  return {
    context_field: fields.context,
    choices_field: fields.choices,
    answer_field: fields.answer,
    id_field: fields.id,
    delimiter,
    normalisation,
    prefix_token: prefix,
    special_tokens: specialTokens,
  };
}

function describePlan(model: string, { host: { info }, context }: ModelSession, reading: Reading): string {
  return summaryTable(
    ['plan', 'value'],
    [
      ['model', `${model} (${info.modelType}, ${info.format})`],
      ['longest context with choice', context],
      ['delimiter', JSON.stringify(reading.delimiter)],
      ['normalisation', reading.normalisation],
      ['tokens per batch', info.rowsPerBatch],
      ['weights', info.residence],
      ['peak memory, MiB', info.peakBytes === null ? 'unknown' : Math.ceil(info.peakBytes / 2 ** 20)],
    ],
  );
}

function summary(body: ChoicesBody): string {
  const interval = (found: { low: number; high: number } | undefined): string =>
    found ? `${found.low.toPrecision(4)} to ${found.high.toPrecision(4)}` : '';
  const { intervals } = body;
  return summaryTable(
    ['figure', 'value', 'standard error', '95% over questions'],
    [
      ['questions', body.questions],
      ['accuracy', body.acc, body.acc_stderr, interval(body.acc_interval)],
      ['accuracy by characters (acc_norm)', body.acc_norm, body.acc_norm_stderr, interval(intervals?.acc_norm)],
      ['accuracy by bytes', body.acc_bytes, body.acc_bytes_stderr],
      ['accuracy by tokens', body.acc_tokens, body.acc_tokens_stderr],
      [
        'entropy over the choices, nats',
        body.mean_choice_entropy_nats,
        body.mean_choice_entropy_nats_se,
        interval(intervals?.mean_choice_entropy_nats),
      ],
      ['mean margin', body.mean_margin, body.mean_margin_se],
      ['Brier score', body.brier_score, body.brier_score_stderr, interval(intervals?.brier_score)],
      [
        'calibration error',
        body.expected_calibration_error,
        undefined,
        interval(intervals?.expected_calibration_error),
      ],
      ['AUROC of entropy for wrong answers', body.entropy_auroc],
      ...(body.truncated_questions > 0 ? [['questions cut to the context', body.truncated_questions] as const] : []),
    ],
  );
}
