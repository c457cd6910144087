import { createHash } from 'node:crypto';
import { InputError } from '../../errors.js';
import { type DumpRow, isNumberArray, kindOf, nameOf, numberOf, numberTable, requireNumber } from './dump-rows.js';
import type { FieldPicker } from './fields.js';
import { advantageOf, correctness, filled, groupWarnings, put, type Sparse, totalOf } from './record-rewards.js';
import { textOrMessages } from './text-records.js';
import type { MarkerPlace } from './think-marker.js';
import type { RolloutIndex, RolloutRequest } from './types.js';

/** What the index takes of a record beside its row. */
export interface RecordFacts {
  readonly length: number;
  readonly counted: number;
  /** Sum of token rewards, where the dump has those. */
  readonly rewardSum?: number;
  /** Place of the end-of-thinking marker; null where it was looked for in vain, undefined where it could not be looked for. */
  readonly marker?: MarkerPlace | null;
}

/** The index with what the reader must say of it. */
export interface FinishedIndex {
  readonly index: RolloutIndex;
  readonly promptOf?: (group: number) => string | undefined;
  readonly provenance: Record<string, string>;
  readonly warnings: string[];
}

export interface IndexBuilder {
  /** @returns the step of the record. */
  add(row: DumpRow, facts: RecordFacts, place: string): number;
  /** @param tokenAdvantages the dump has advantages, one a token, in every record */
  finish(tokenAdvantages: boolean): FinishedIndex;
  readonly records: number;
}

/** Name of a prompt that the dump gives as text: short, and the same in every step. */
const textName = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 16);

function promptText(prompt: unknown): string | undefined {
  const value = textOrMessages(prompt);
  if (value === undefined) return undefined;
  if (typeof value === 'string') return value;
  return value.map(({ content }) => (typeof content === 'string' ? content : JSON.stringify(content))).join('\n');
}

/** Several rewards of one record by name: an object of numbers, or columns of numbers that no field knows. */
function componentsOf(row: DumpRow, picker: FieldPicker, reward: unknown): Map<string, number> | undefined {
  const found = new Map<string, number>();
  if (
    typeof reward === 'object' &&
    reward !== null &&
    !Array.isArray(reward) &&
    !isNumberArray(reward) &&
    !ArrayBuffer.isView(reward)
  ) {
    for (const [name, value] of Object.entries(reward)) {
      const number = numberOf(value);
      if (number !== undefined) found.set(name, number);
    }
    return found;
  }
  for (const [name, value] of row.fields) {
    if (picker.fieldOf(name) !== undefined) continue;
    if (typeof value === 'number' || (value === null && /reward/i.test(name))) found.set(name, value ?? Number.NaN);
  }
  return found.size > 0 ? found : undefined;
}

function spansOf(value: unknown, column: string, length: number, place: string): Int32Array {
  const table = numberTable(value);
  const isEmpty = (Array.isArray(value) && value.length === 0) || (table !== undefined && table.values.length === 0);
  if (isEmpty) return new Int32Array(0);
  if (table === undefined || table.shape.length !== 2 || table.shape[1] !== 2)
    throw new InputError(`${place}: "${column}" is not a list of [from, to) pairs`);
  const spans = Int32Array.from(table.values);
  for (let s = 0; s < spans.length; s += 2) {
    const [from, to] = [table.values[s], table.values[s + 1]];
    const inOrder = s === 0 || from >= spans[s - 1];
    if (!(Number.isInteger(from) && Number.isInteger(to) && inOrder && from >= 0 && to > from && to <= length))
      throw new InputError(
        `${place}: "${column}" has the span [${from}, ${to}); spans are ascending, not empty, and within the ${length} tokens`,
      );
  }
  return spans;
}

/** Collects facts of records; memory is a few numbers a record and one text a prompt. */
export function createIndexBuilder(request: RolloutRequest, picker: FieldPicker): IndexBuilder {
  const steps: number[] = [];
  const groupOf: number[] = [];
  const lengths: number[] = [];
  const counts: number[] = [];
  const groups = new Map<string, number>();
  const promptIds: string[] = [];
  const prompts: (string | undefined)[] = [];
  const ends: number[] = [];
  const starts: number[] = [];
  const components = new Map<string, Sparse>();
  const difficulty: (string | undefined)[] = [];
  const spans: (Int32Array | undefined)[] = [];
  const responseIds: (string | undefined)[] = [];
  let reward: Sparse | undefined;
  let correct: Sparse | undefined;
  let advantage: Sparse | undefined;
  let has = {
    completions: false,
    difficulty: false,
    spans: false,
    responseIds: false,
    markers: true,
    prompts: false,
    steps: false,
  };
  let unnamed = 0;
  let withoutMarker = 0;
  const provenance: Record<string, string> = {};

  const addGroup = (row: DumpRow, step: number, record: number): void => {
    const id = picker.pick(row.fields, 'prompt_id');
    const prompt = picker.pick(row.fields, 'prompt');
    const text = prompt && promptText(prompt.value);
    let name = id && nameOf(id.value);
    if (name !== undefined) provenance.group ??= `step and ${id?.column}`;
    else if (text !== undefined) {
      name = textName(text);
      provenance.group ??= `step and the text of ${prompt?.column}`;
    } else {
      name = `record ${record}`;
      unnamed++;
    }
    const key = `${step} ${name}`;
    let group = groups.get(key);
    if (group === undefined) {
      group = groups.size;
      groups.set(key, group);
      promptIds.push(name);
      prompts.push(text);
      has.prompts ||= text !== undefined;
    }
    groupOf.push(group);
  };

  const addReward = (row: DumpRow, facts: RecordFacts, record: number, place: string): void => {
    const picked = picker.pick(row.fields, 'reward');
    const parts = componentsOf(row, picker, picked?.value);
    for (const [name, value] of parts ?? []) components.set(name, put(components.get(name), record, value, name));
    if (picked === undefined) return;
    if (facts.rewardSum !== undefined) {
      reward = put(reward, record, facts.rewardSum, `sum of ${picked.column} over tokens`);
      return;
    }
    if (parts && typeof picked.value === 'object' && !Array.isArray(picked.value)) {
      let sum = 0;
      for (const value of parts.values()) sum += value;
      reward = put(reward, record, sum, `sum of the entries of ${picked.column}`);
      return;
    }
    const value = requireNumber(picked.value, picked.column, place);
    if (!Number.isFinite(value) && !Number.isNaN(value))
      throw new InputError(`${place}: "${picked.column}" is ${value}; rewards are finite`);
    if (!Number.isNaN(value)) reward = put(reward, record, value, picked.column);
  };

  const addNumbers = (row: DumpRow, record: number, place: string): void => {
    const right = picker.pick(row.fields, 'correct');
    if (right) {
      const value = requireNumber(right.value, right.column, place);
      if (value !== 0 && value !== 1 && !Number.isNaN(value))
        throw new InputError(`${place}: "${right.column}" is ${value}; it is true or false, 1 or 0`);
      correct = put(correct, record, value, right.column);
    }
    const scalar = picker.pick(row.fields, 'advantage');
    if (scalar && (typeof scalar.value === 'number' || typeof scalar.value === 'bigint')) {
      const value = Number(scalar.value);
      if (!Number.isFinite(value))
        throw new InputError(`${place}: "${scalar.column}" is ${value}; advantages are finite`);
      advantage = put(advantage, record, value, scalar.column);
    }
  };

  const addMarker = (row: DumpRow, facts: RecordFacts, place: string): void => {
    const picked = picker.pick(row.fields, 'think_end');
    let found: MarkerPlace | null | undefined = facts.marker;
    if (picked) {
      const end = requireNumber(picked.value, picked.column, place);
      if (!Number.isInteger(end) || end < -1 || end >= facts.length)
        throw new InputError(
          `${place}: "${picked.column}" is ${end}, which is no position of the ${facts.length} tokens (-1: none)`,
        );
      const shown = facts.marker;
      found = end < 0 ? null : { start: shown && shown.end === end ? shown.start : end, end };
      provenance.thinkEnd ??= picked.column;
    } else if (found !== undefined) provenance.thinkEnd ??= `marker ${request.marker}`;
    if (found === undefined) has.markers = false;
    if (!found) withoutMarker++;
    ends.push(found?.end ?? -1);
    starts.push(found?.start ?? -1);
  };

  return {
    get records() {
      return steps.length;
    },
    add(row, facts, place) {
      const record = steps.length;
      const stepField = picker.pick(row.fields, 'step');
      const step = stepField ? requireNumber(stepField.value, stepField.column, place) : 0;
      if (!Number.isFinite(step))
        throw new InputError(`${place}: "${stepField?.column}" is ${step}; a step is a number`);
      if (stepField) {
        has.steps = true;
        provenance.step ??= stepField.column;
      }
      steps.push(step);
      lengths.push(facts.length);
      counts.push(facts.counted);
      addGroup(row, step, record);
      addReward(row, facts, record, place);
      addNumbers(row, record, place);
      addMarker(row, facts, place);
      const level = picker.pick(row.fields, 'difficulty');
      difficulty.push(level && (nameOf(level.value) ?? kindOf(level.value)));
      if (level) provenance.difficulty ??= level.column;
      const turns = picker.pick(row.fields, 'step_spans');
      spans.push(turns && spansOf(turns.value, turns.column, facts.length, place));
      if (turns) provenance.stepSpans ??= turns.column;
      const response = picker.pick(row.fields, 'response_id');
      responseIds.push(response && nameOf(response.value));
      has = {
        ...has,
        completions: has.completions || row.fields.has('completion'),
        difficulty: has.difficulty || level !== undefined,
        spans: has.spans || turns !== undefined,
        responseIds: has.responseIds || response !== undefined,
      };
      return step;
    },
    finish(tokenAdvantages) {
      const records = steps.length;
      const group = Int32Array.from(groupOf);
      const warnings: string[] = [];
      const named = new Map([...components].map(([name, list]) => [name, filled(list, records)]));
      let rewards = reward && filled(reward, records);
      if (reward) provenance.reward = reward.column;
      else {
        const parts = [...named].filter(([name]) => has.completions || /reward/i.test(name));
        if (parts.length > 0) {
          rewards = totalOf(parts, records);
          provenance.reward = `sum of ${parts.map(([name]) => name).join(', ')}`;
        }
      }
      const right = correctness(correct, rewards, records, provenance);
      const advantages = advantageOf(
        request,
        { advantage, rewards, group, groups: groups.size, tokenAdvantages },
        records,
      );
      if (advantages.from) provenance.advantage = advantages.from;
      if (advantages.warning) warnings.push(advantages.warning);
      if (unnamed > 0)
        warnings.push(`${unnamed} of ${records} records have neither prompt_id nor prompt: each is a group of its own`);
      if (rewards) warnings.push(...groupWarnings(rewards, group, groups.size));
      if (has.markers && withoutMarker > 0)
        warnings.push(
          `${withoutMarker} of ${records} records have no end-of-thinking marker: all of them counts as thinking`,
        );
      return {
        index: {
          records,
          step: Float64Array.from(steps),
          group,
          groups: groups.size,
          promptIds,
          length: Int32Array.from(lengths),
          counted: Int32Array.from(counts),
          ...(rewards && { reward: rewards }),
          ...(right && { correct: right }),
          ...(advantages.values && { advantage: advantages.values }),
          ...(has.markers &&
            records > 0 && { thinkEnd: Int32Array.from(ends), thinkMarkerStart: Int32Array.from(starts) }),
          ...(has.difficulty && { difficulty }),
          ...(has.spans && { stepSpans: spans }),
          ...(has.responseIds && { responseIds }),
          ...(named.size > 0 && { components: named }),
        },
        ...(has.prompts && { promptOf: (g: number) => prompts[g] }),
        provenance,
        warnings,
      };
    },
  };
}
