import { didYouMean, InputError } from '../../errors.js';

/**
 * Fields of a rollout dump (spec 0.1) and the columns in which trainers store them, the first that a record has being taken.
 * `--map field=column` replaces the list of a field by one column.
 */
export const FIELD_COLUMNS = {
  step: ['step', 'global_step', 'global_steps', 'training_step'],
  prompt_id: ['prompt_id', 'uid', 'group_id', 'group', 'problem_id', 'question_id'],
  response_id: ['response_id', 'rollout_id', 'sample_id', 'id'],
  prompt: ['prompt', 'input', 'question'],
  response: ['response', 'output', 'completion'],
  tokens: [
    'tokens',
    'token_ids',
    'response_ids',
    'completion_ids',
    'response_token_ids',
    'completion_token_ids',
    'output_ids',
    'responses',
  ],
  token_text: ['token_text', 'token_texts', 'token_strings', 'token_strs'],
  logprob: [
    'logprob',
    'logprobs',
    'log_prob',
    'log_probs',
    'new_logprob',
    'new_log_probs',
    'token_logprobs',
    'per_token_logps',
  ],
  old_logprob: [
    'old_logprob',
    'old_logprobs',
    'old_log_prob',
    'old_log_probs',
    'rollout_log_probs',
    'old_per_token_logps',
    'sampling_logprobs',
    'sampling_per_token_logps',
    'behavior_logprobs',
  ],
  ref_logprob: [
    'ref_logprob',
    'ref_logprobs',
    'ref_log_prob',
    'ref_log_probs',
    'reference_logprob',
    'ref_per_token_logps',
  ],
  entropy: ['entropy', 'entropies', 'entropys', 'token_entropy', 'token_entropies'],
  topk: ['topk', 'top_k', 'top_logprobs'],
  topk_ids: ['topk_ids', 'topk_token_ids', 'topk_indices', 'top_ids'],
  topk_logprobs: ['topk_logprobs', 'topk_logprob', 'topk_log_probs', 'topk_logps'],
  mask: ['mask', 'response_mask', 'completion_mask', 'loss_mask', 'token_mask'],
  advantage: ['advantage', 'advantages'],
  reward: ['reward', 'rewards', 'score', 'scores', 'token_level_scores', 'token_level_rewards'],
  difficulty: ['difficulty', 'level'],
  correct: ['correct', 'is_correct'],
  think_end: ['think_end', 'think_end_index'],
  step_spans: ['step_spans', 'turn_spans'],
} as const satisfies Readonly<Record<string, readonly string[]>>;

export type Field = keyof typeof FIELD_COLUMNS;

const FIELDS = Object.keys(FIELD_COLUMNS) as Field[];
const isField = (name: string): name is Field => Object.hasOwn(FIELD_COLUMNS, name);

/** A field of one record: its column, and what stands there. */
export interface Picked {
  readonly column: string;
  readonly value: unknown;
}

/** Finds the fields of records. */
export interface FieldPicker {
  /** The field of a record; undefined where the record has no such column, or null in it. */
  pick(fields: ReadonlyMap<string, unknown>, field: Field): Picked | undefined;
  /** The field that a column may hold. */
  fieldOf(column: string): Field | undefined;
  /**
   * Checks the mapped columns against those of the first record.
   * @throws InputError naming the nearest column
   */
  check(columns: Iterable<string>, place: string): void;
}

/**
 * @param map column by field, of `--map`
 * @throws InputError for a field that does not exist, and for a column that is given to two fields
 */
export function createFieldPicker(map: Readonly<Record<string, string>>): FieldPicker {
  const mapped = new Map<string, Field>();
  for (const [field, column] of Object.entries(map)) {
    if (!isField(field))
      throw new InputError(
        `--map ${field}=${column}: no field "${field}"${didYouMean(field, FIELDS)} fields: ${FIELDS.join(', ')}`,
      );
    const before = mapped.get(column);
    if (before !== undefined) throw new InputError(`--map: column "${column}" is given to ${before} and to ${field}`);
    mapped.set(column, field);
  }
  const candidates = new Map<Field, readonly string[]>();
  const columns = new Map<string, Field>();
  for (const field of FIELDS) {
    const own = map[field];
    // A column that was given to one field is no alias of another.
    const list = own === undefined ? FIELD_COLUMNS[field].filter((column) => !mapped.has(column)) : [own];
    candidates.set(field, list);
    for (const column of list) columns.set(column, field);
  }
  return {
    pick(fields, field) {
      for (const column of candidates.get(field) ?? []) {
        const value = fields.get(column);
        if (value !== undefined && value !== null) return { column, value };
      }
      return undefined;
    },
    fieldOf: (column) => columns.get(column),
    check(present, place) {
      const names = new Set(present);
      for (const [column, field] of mapped) {
        if (names.has(column)) continue;
        throw new InputError(
          `${place}: no column "${column}", which --map gives to ${field}${didYouMean(column, names)} columns: ${[...names].join(', ')}`,
        );
      }
    },
  };
}
