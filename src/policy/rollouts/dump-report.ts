import type { Rollouts, TokenColumn } from './types.js';

/** Names of columns and facts as users write them (`--map`). */
const FIELD_NAMES: Readonly<Record<string, string>> = {
  logProb: 'logprob',
  oldLogProb: 'old_logprob',
  referenceLogProb: 'ref_logprob',
  entropyLower: 'entropy_lower',
  entropyUpper: 'entropy_upper',
  textIds: 'token_text',
  topTokens: 'topk',
  thinkEnd: 'think_end',
  stepSpans: 'step_spans',
} satisfies Partial<Record<TokenColumn | 'textIds' | 'topTokens' | 'thinkEnd' | 'stepSpans', string>>;

const named = (name: string): string => FIELD_NAMES[name] ?? name;

/** The part `dump` of the report of every view that reads one (`$defs/rolloutDump` of the envelope's schema). */
export interface DumpReport {
  readonly records: number;
  readonly tokens: number;
  readonly counted_tokens: number;
  readonly groups: number;
  readonly steps: number;
  readonly first_step: number | null;
  readonly last_step: number | null;
  /** Columns that every token has. */
  readonly columns: readonly string[];
  /** Columns of the files. */
  readonly fields: readonly string[];
  /** What each column, and each fact of the records, was read or computed from. */
  readonly sources: Readonly<Record<string, string>>;
  readonly held: 'memory' | 'file';
  readonly vocabulary_size: number | null;
  readonly rescored: readonly {
    readonly columns: readonly string[];
    readonly model: string;
    readonly temperature: number;
    readonly chat_template: boolean;
    readonly cut_records: number;
    readonly cut_tokens: number;
  }[];
  readonly warnings: readonly string[];
}

/** Describes a dump for the report; plain data that a job can hand over. */
export function dumpReport(rollouts: Rollouts): DumpReport {
  const { index, steps, provenance } = rollouts;
  const sources: Record<string, string> = {};
  for (const name of Object.keys(provenance).sort()) sources[named(name)] = named(provenance[name]);
  return {
    records: index.records,
    tokens: rollouts.tokens,
    counted_tokens: rollouts.counted,
    groups: index.groups,
    steps: steps.length,
    first_step: steps.at(0)?.step ?? null,
    last_step: steps.at(-1)?.step ?? null,
    columns: [...rollouts.columns].map(named).sort(),
    fields: rollouts.fields,
    sources,
    held: rollouts.held,
    vocabulary_size: rollouts.vocabularySize ?? null,
    rescored: rollouts.rescored.map((one) => ({
      columns: one.columns.map(named),
      model: one.model,
      temperature: one.temperature,
      chat_template: one.chatTemplate,
      cut_records: one.cutRecords,
      cut_tokens: one.cutTokens,
    })),
    warnings: rollouts.warnings,
  };
}
