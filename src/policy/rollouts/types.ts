/** How prompts of a dump become the tokens that the policy saw (`createPromptEncoder`). */
export const PROMPT_FORMATS = ['auto', 'text', 'chat'] as const;
export type PromptFormat = (typeof PROMPT_FORMATS)[number];

/** What a dump says of one token, one number each; entropies and log-probabilities in nats. */
export const TOKEN_COLUMNS = [
  'logProb',
  'oldLogProb',
  'referenceLogProb',
  'entropy',
  'entropyLower',
  'entropyUpper',
  'advantage',
] as const;
export type TokenColumn = (typeof TOKEN_COLUMNS)[number];

/** The likeliest tokens of every position, by descending probability; -1 and -Infinity behind the last. */
export interface TopTokens {
  readonly k: number;
  /** [tokens, k]. */
  readonly ids: Int32Array;
  /** [tokens, k], nats. */
  readonly logProbs: Float64Array;
}

/**
 * Some whole records of one step, flattened: token t of record r stands at `offsets[r] + t`. Masked-out positions stay, so
 * that positions are those of the response; what stands there is 0 in every column and must not be used. Arrays may be those of the
 * store: they are read, never written.
 */
export interface TokenBlock {
  /** Numbers of the records in the index of the dump, ascending. */
  readonly records: Int32Array;
  /** [records + 1], from 0. */
  readonly offsets: Int32Array;
  /** Tokens of the step before this block, masked-out ones included: what makes the order of ties that of the dump. */
  readonly firstToken: number;
  /** 1 where the token counts. */
  readonly mask: Uint8Array;
  /** log pi(token) of the policy that would be updated. */
  readonly logProb?: Float64Array;
  /** log pi_old(token) of the policy that sampled; `logProb` where the dump has none. */
  readonly oldLogProb?: Float64Array;
  /** log pi_ref(token) of a reference policy. */
  readonly referenceLogProb?: Float64Array;
  /** Entropy over the whole vocabulary. Never a truncated sum. */
  readonly entropy?: Float64Array;
  /** Bounds on the entropy from the likeliest tokens (spec 0.1, rule 5), where those are what the dump has. */
  readonly entropyLower?: Float64Array;
  readonly entropyUpper?: Float64Array;
  /** Advantage: of the dump, or relative to the group from the rewards. */
  readonly advantage?: Float64Array;
  /** [records]: the same, where all tokens of a response have one. */
  readonly recordAdvantage?: Float64Array;
  /** Token ids. */
  readonly tokens?: Int32Array;
  /** What `Rollouts.textOf` takes. */
  readonly textIds?: Int32Array;
  readonly topTokens?: TopTokens;
}

/** Facts of every record, in the order of the dump. */
export interface RolloutIndex {
  readonly records: number;
  /** [records]; 0 where the dump has no steps. */
  readonly step: Float64Array;
  /** [records]: number of the group (step, prompt), by first appearance. */
  readonly group: Int32Array;
  readonly groups: number;
  /** Name of the prompt of every group. */
  readonly promptIds: readonly string[];
  /** [records]: positions, masked-out ones included, and those that count. */
  readonly length: Int32Array;
  readonly counted: Int32Array;
  /** [records], NaN where it is not known. */
  readonly reward?: Float64Array;
  /** [records], 1, 0, NaN where it is not known: of the field `correct`, else reward > 0 where rewards have two values. */
  readonly correct?: Float64Array;
  /** [records]: GRPO advantage from the rewards, or the scalar advantage of the dump; absent where neither is there. */
  readonly advantage?: Float64Array;
  /** [records]: position of the last token of the end-of-thinking marker, -1 without; first position of the marker beside it. */
  readonly thinkEnd?: Int32Array;
  readonly thinkMarkerStart?: Int32Array;
  /** Difficulty of every record as the dump words it. */
  readonly difficulty?: readonly (string | undefined)[];
  /** Spans [from, to) of the turns of every record. */
  readonly stepSpans?: readonly (Int32Array | undefined)[];
  readonly responseIds?: readonly (string | undefined)[];
  /** Component rewards by name, [records] each, where the dump has several. */
  readonly components?: ReadonlyMap<string, Float64Array>;
}

/** The tokens of one step. `blocks` can be asked as often as needed and gives the same records in the same order. */
export interface RolloutStep {
  readonly step: number;
  readonly records: Int32Array;
  /** Positions of all its records, and those that count. */
  readonly tokens: number;
  readonly counted: number;
  /** With `transient` a block may lie in the memory of the one before: use it before the next is taken, and keep nothing. */
  blocks(options?: { readonly transient?: boolean }): Iterable<TokenBlock>;
}

/** Where what a dump lacked came from. */
export interface Rescored {
  readonly columns: readonly string[];
  readonly model: string;
  readonly temperature: number;
  readonly chatTemplate: boolean;
  /** Records whose text was cut to the model's context, and tokens lost by it. */
  readonly cutRecords: number;
  readonly cutTokens: number;
}

/** A dump that has been read and checked, on the thread of a job. */
export interface Rollouts {
  readonly index: RolloutIndex;
  readonly tokens: number;
  readonly counted: number;
  /** Columns that every block has. */
  readonly columns: ReadonlySet<TokenColumn | 'tokens' | 'textIds' | 'topTokens'>;
  /** Steps in ascending order. */
  readonly steps: readonly RolloutStep[];
  readonly vocabularySize?: number;
  readonly rescored: readonly Rescored[];
  readonly warnings: readonly string[];
  /** Whether tokens are held in memory or in a work file. */
  readonly held: 'memory' | 'file';
  /** Text of a token as it stands in the response (with its space marks turned to spaces). */
  textOf?(textId: number): string;
  /** Text of a token id, where a tokenizer is at hand. */
  textOfToken?(id: number): string;
  /** Text of the prompt of a group, where the dump has it. */
  promptOf?(group: number): string | undefined;
  /** Where every column and figure of the index came from: a field of the dump, another column, a computation. */
  readonly provenance: Readonly<Record<string, string>>;
  /** Columns of the dump that were read, in the order of their first appearance. */
  readonly fields: readonly string[];
  /** `file:line` of a record. */
  place(record: number): string;
  close(): void;
}

/** What a job needs to open a dump: plain data. */
export interface RolloutRequest {
  /** Paths, patterns, or `-`. */
  readonly paths: readonly string[];
  /** File that holds what `-` gave. */
  readonly standardInput?: string;
  /** Only the index is needed: records need no lists of tokens. */
  readonly recordsOnly?: boolean;
  /** Column of the dump by field, of `--map field=column`. */
  readonly map: Readonly<Record<string, string>>;
  readonly limit?: number;
  readonly vocabularySize?: number;
  /** Token values that may be held in memory (2e7); more go to a work file. */
  readonly exactLimit: number;
  /**
   * From the rewards, divided by the standard deviation of the group (GRPO) or not (`no-std`); `dump`: those of the dump,
   * GRPO's where it has none.
   */
  readonly advantage: 'grpo' | 'no-std' | 'dump';
  /** Text, or ids separated by commas, of the end-of-thinking marker; `first` or `last` where it appears often. */
  readonly marker?: string;
  readonly markerChoice: 'first' | 'last';
  /** Model for what the dump lacks (the policy that is updated), and the one that sampled. */
  readonly model?: string;
  readonly oldModel?: string;
  /** Where models lie whose names are those of the hub, by name. */
  readonly locations?: Readonly<Record<string, string>>;
  readonly temperature: number;
  /** How prompts that are text become tokens, and the longest sequence that a model is given. */
  readonly promptFormat: PromptFormat;
  readonly context: number;
  readonly threads: number;
  readonly maxMemory: number;
  readonly workDirectory: string;
}
