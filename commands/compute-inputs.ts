import { InputError } from '../src/errors.js';
import { type Document, readDocuments, requireField } from '../src/formats/documents.js';
import type { InputLedger } from '../src/formats/inputs.js';
import { placeOf } from '../src/formats/rows.js';
import type { ActionPattern } from '../src/steering/action-pattern.js';
import { checkParsed } from '../src/steering/action-pattern.js';
import type { ActivationRow } from '../src/steering/activation-file.js';
import { type ActionOrder, missingEntropy, type StepEntropy, stepEntropy } from '../src/steering/step-entropy.js';
import { type ChatMessage, renderChat } from '../src/tokenizers/chat-template.js';
import type { Tokenizer } from '../src/tokenizers/tokenizer.js';
import { type ActionOptions, actionPattern } from './action-options.js';
import { type Prompt, type PromptOptions, promptOf } from './prompt-inputs.js';
import { requireOption, type SharedOptions } from './shared-options.js';

type DataOptions = Pick<SharedOptions, 'data' | 'dataFormat' | 'textSplit' | 'limit' | 'shard'>;

/** How rows of `--data` become steps of runs. */
export interface StepOptions extends ActionOptions, PromptOptions {
  runField?: string;
  stepField?: string;
}

/** A step whose entropy may have to be measured yet. */
export interface StepInput {
  readonly prompt: Prompt;
  readonly row: ActivationRow;
  readonly logged: StepEntropy | undefined;
}

/** Steps by run, runs in the order in which they begin. */
export interface StepRun {
  /** The run as the data name it; with the file where several are read. */
  readonly name: string;
  readonly steps: readonly StepInput[];
}

/** Rows of the data, as they are. */
export async function readRows(options: DataOptions, ledger: InputLedger): Promise<Document[]> {
  const data = requireOption(options.data, '--data', 'prompts with their runs and entropies, or contrast pairs');
  const rows: Document[] = [];
  const documents = readDocuments(data, {
    ledger,
    textSplit: options.textSplit,
    requireText: false,
    ...(options.dataFormat && { format: options.dataFormat }),
    ...(options.limit !== undefined && { limit: options.limit }),
  });
  for await (const row of documents) rows.push(row);
  if (rows.length === 0) throw new InputError(`${data.join(', ')}: no prompts; give at least one row`);
  return rows;
}

/** Whether rows are contrast pairs. */
export const arePairs = (rows: readonly Document[]): boolean =>
  Object.hasOwn(rows[0].record, 'positive') || Object.hasOwn(rows[0].record, 'negative');

/** A run's name from a field: text or a number. */
function nameIn(row: Document, field: string): string {
  const value = requireField(row, field);
  if (typeof value === 'string' || typeof value === 'number') return String(value);
  throw new InputError(`${placeOf(row)}: field "${field}" holds ${JSON.stringify(value)}; a run is a text or a number`);
}

/** The run of each row; without the field in any row all are one run. */
function runNames(rows: readonly Document[], own: StepOptions): { names: string[]; single: boolean } {
  const field = own.runField ?? 'run';
  if (own.runField === undefined && !rows.some(({ record }) => Object.hasOwn(record, field))) {
    return { names: rows.map(() => 'all'), single: true };
  }
  const sources = new Set(rows.map(({ source }) => source));
  const names = rows.map((row) => {
    const name = nameIn(row, field);
    return sources.size > 1 ? `${row.source} ${name}` : name;
  });
  return { names, single: false };
}

/** The pattern by which logged completions are read, where the rows have no counts. */
function patternFor(rows: readonly Document[], own: StepOptions): ActionPattern | undefined {
  const needed = rows.some(({ record }) => record.counts === undefined && Array.isArray(record.completions));
  if (needed && own.actions !== undefined && own.samples === undefined) return actionPattern(own);
  return undefined;
}

/**
 * Steps of `--data` by run.
 * @param prefer which of the entropies that rows hold is taken first; none when absent
 * @throws InputError naming the row that cannot be used, and where no completion of any row parses
 */
export function stepRuns(
  rows: readonly Document[],
  own: StepOptions,
  tokenizer: Tokenizer | undefined,
  prefer: 'counts' | 'logged' | undefined,
): { readonly runs: readonly StepRun[]; readonly single: boolean } {
  const { names, single } = runNames(rows, own);
  const stepField = own.stepField ?? 'step';
  const pattern = prefer ? patternFor(rows, own) : undefined;
  const order: ActionOrder = [];
  const runs = new Map<string, StepInput[]>();
  const unparsed: string[] = [];
  rows.forEach((row, i) => {
    const prompt = promptOf(row, own, tokenizer);
    const found = prefer && stepEntropy(row.record, prompt.place, order, pattern, prefer);
    if (found?.source === 'completions' && Number.isNaN(found.entropyNats)) unparsed.push(prompt.place);
    const steps = runs.get(names[i]) ?? [];
    runs.set(names[i], steps);
    const step =
      own.stepField !== undefined || Object.hasOwn(row.record, stepField) ? requireField(row, stepField) : steps.length;
    steps.push({ prompt, row: { index: row.index, run: names[i], step: String(step) }, logged: found });
  });
  if (pattern) checkParsed(pattern, unparsed, rows.length);
  return { runs: [...runs].map(([name, steps]) => ({ name, steps })), single };
}

/** Refuses rows that lack what others have. */
export function requireEntropies(runs: readonly StepRun[]): void {
  for (const { steps } of runs) {
    for (const { prompt, logged } of steps) if (!logged) throw missingEntropy(prompt.record, prompt.place);
  }
}

/** One member of a contrast pair. */
export interface PairInput {
  readonly prompt: Prompt;
  readonly row: ActivationRow;
}

/**
 * Members of contrast pairs, positive and negative alternating: texts, or conversations of the chat template. A field
 * `prompt` with text stands before both texts.
 * @throws InputError naming the row and the side that is missing or empty
 */
export function pairMembers(
  rows: readonly Document[],
  own: PromptOptions,
  tokenizer: Tokenizer | undefined,
): PairInput[] {
  return rows.flatMap((row) =>
    (['positive', 'negative'] as const).map((side, s): PairInput => {
      const member: Document = { ...row, record: memberRecord(row, side, tokenizer), inputIds: undefined };
      const prompt = promptOf(member, { ...own, promptField: side }, tokenizer);
      return { prompt: { ...prompt, place: `${prompt.place}, ${side}` }, row: { index: 2 * row.index + s } };
    }),
  );
}

function memberRecord(
  row: Document,
  side: 'positive' | 'negative',
  tokenizer: Tokenizer | undefined,
): Readonly<Record<string, unknown>> {
  const value = requireField(row, side);
  const { prompt } = row.record;
  if (typeof value === 'string' && typeof prompt === 'string') return { ...row.record, [side]: `${prompt}${value}` };
  if (!Array.isArray(value) || !tokenizer) return row.record;
  const messages = value as readonly ChatMessage[];
  // A conversation that ends with the assistant's reply is read to the end of that reply.
  if (messages[messages.length - 1]?.role !== 'assistant') return row.record;
  return { ...row.record, [side]: renderChat(tokenizer, messages, { addGenerationPrompt: false }), rendered: true };
}
