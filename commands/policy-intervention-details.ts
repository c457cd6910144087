import { readFileSync } from 'node:fs';
import { didYouMean, InputError } from '../src/errors.js';
import { createAtomicDirectory } from '../src/formats/atomic.js';
import { fileError } from '../src/formats/files.js';
import { parseTriggerWords } from '../src/policy/ares/triggers.js';
import { chooseMethods, type MethodChoice } from '../src/policy/interventions/comparison.js';
import { DESCRIBE_METHOD, type DetailArguments } from '../src/policy/interventions/details/details-job.js';
import {
  DETAILS_SCHEMA,
  type DetailsBody,
  detailsBody,
  figureRows,
} from '../src/policy/interventions/details/details-report.js';
import { METHOD_DETAILS } from '../src/policy/interventions/details/method-details.js';
import type { RolloutRequest } from '../src/policy/rollouts/types.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import type { ReportValue } from '../src/report/values.js';
import { type AnalysisContext, type AnalysisOptions, type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import { parseInteger, parseList } from './edge-values.js';
import { rolloutModelDigests, rolloutModels, withRollouts } from './policy-rollouts.js';

/** Options of `--details`, as commander gives them. */
export interface DetailOptions {
  details?: string;
  tables?: string;
  triggerWords?: string;
  specialTokens?: string;
}

export const DETAIL_METHODS = Object.keys(METHOD_DETAILS);

/** The one method of `--details`. @throws InputError for a method without details */
function chooseMethod(text: string): MethodChoice {
  const [choice] = chooseMethods([text]);
  if (DETAIL_METHODS.includes(choice.name)) return choice;
  throw new InputError(
    `--details ${choice.name}: the comparison says all there is to say of it; there are details of ${DETAIL_METHODS.join(', ')}` +
      didYouMean(choice.name, DETAIL_METHODS),
  );
}

/** Words and ids that methods with details may be given, from the options. */
export function vocabularyOf(own: DetailOptions): Pick<DetailArguments, 'triggerWords' | 'specialTokens'> {
  const { triggerWords: file, specialTokens: ids } = own;
  const words = (path: string): string[] => {
    try {
      return parseTriggerWords(readFileSync(path, 'utf8'));
    } catch (error) {
      if (error instanceof InputError) throw new InputError(`--trigger-words ${path}: ${error.message}`);
      throw fileError(error, path, 'read');
    }
  };
  return {
    ...(file !== undefined && { triggerWords: words(file) }),
    ...(ids !== undefined && { specialTokens: parseList(ids).map((id) => parseInteger('--special-tokens', id, 0)) }),
  };
}

/** What the details of one method need of the view. */
export interface DetailView {
  readonly options: Omit<AnalysisOptions, 'shard'> & { readonly data: readonly string[] };
  readonly own: DetailOptions & { readonly details: string };
  readonly paths: readonly string[];
  readonly rollouts: RolloutRequest;
  readonly parameters: Readonly<Record<string, ReportValue>>;
}

/** Runs `analyze-policy interventions --details METHOD` to its exit code. */
export async function runDetails({ options, own, paths, rollouts, parameters }: DetailView): Promise<number> {
  const method = chooseMethod(own.details);
  if (own.triggerWords !== undefined && method.name !== 'ares')
    throw new InputError('--trigger-words is for ares, not for --details of another method');
  if (own.specialTokens !== undefined && method.name !== 'cure')
    throw new InputError('--special-tokens is for cure, not for --details of another method');
  const args: DetailArguments = { rollouts, method, seed: options.seed, ...vocabularyOf(own) };
  return runAnalysis(
    {
      name: DETAILS_SCHEMA,
      command: 'analyze-policy interventions',
      columns: ['figure', 'value'],
      unit: 'tokens',
      inputs: [...paths, ...rolloutModels(rollouts), ...(own.triggerWords === undefined ? [] : [own.triggerWords])],
      ...(own.tables !== undefined && { targets: new Map([['--tables', own.tables]]) }),
      parameters: {
        ...parameters,
        details: method.label,
        settings: method.settings,
        seed: options.seed,
        ...(own.specialTokens !== undefined && { special_tokens: own.specialTokens }),
        ...(args.triggerWords && { trigger_words: args.triggerWords.length }),
      },
      subtitle: `${method.label} on ${options.data.join(', ')}`,
    },
    { ...options, shard: undefined },
    {
      measure: (context) => measure(args, own, options.force, context),
      plan: async () => planOf(args, own, paths),
    },
  );
}

async function measure(
  args: DetailArguments,
  own: DetailOptions,
  force: boolean,
  context: AnalysisContext,
): Promise<AnalysisOutcome> {
  if (own.triggerWords !== undefined) context.ledger.note(own.triggerWords);
  const directory = own.tables === undefined ? undefined : createAtomicDirectory(own.tables, { force });
  try {
    context.timings.begin('details');
    const result = await withRollouts(context.ledger, args.rollouts, (rollouts) =>
      context.run(DESCRIBE_METHOD, { ...args, rollouts, ...(directory && { directory: directory.path }) }),
    );
    context.timings.count('tokens', result.dump.tokens);
    const body = detailsBody(args.method, result);
    for (const warning of [...result.dump.warnings, ...result.warnings]) context.warn(warning);
    if (directory) context.join(directory);
    return {
      body,
      digests: () => rolloutModelDigests(args.rollouts),
      rows: () => figureRows(body.figures),
      figure: async (subtitle) =>
        (await import('../src/policy/interventions/details/draw-details.js')).drawDetails(
          body.title,
          subtitle,
          result.charts,
          headlineOf(body),
        ),
      summary: {
        header: ['figure', 'value'],
        rows: figureRows(body.figures).map((row): SummaryCell[] => row.map(shown)),
      },
    };
  } catch (error) {
    directory?.abort();
    throw error;
  }
}

function shown(value: number | string | boolean | null): SummaryCell {
  return typeof value === 'boolean' ? (value ? 'yes' : 'no') : (value ?? '-');
}

function headlineOf({ dump, tables }: DetailsBody): { label: string; value: number }[] {
  return [
    { label: 'Responses', value: dump.records },
    { label: 'Tokens that count', value: dump.counted_tokens },
    ...tables.map(({ name, rows }) => ({ label: `Rows of ${name}`, value: rows })),
  ];
}

function planOf(args: DetailArguments, own: DetailOptions, paths: readonly string[]): (readonly SummaryCell[])[] {
  const { name, settings } = args.method;
  const files = METHOD_DETAILS[name].tables.map((table) => `${table.name}.${table.form}`).join(', ');
  return [
    ['dump', paths.join(', ')],
    ['method', name],
    ...Object.entries(settings).map(([key, value]): SummaryCell[] => [`setting ${key}`, value]),
    ['tables', own.tables === undefined ? `not written (${files})` : `${own.tables}: ${files}`],
  ];
}
