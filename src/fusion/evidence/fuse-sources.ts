import { InputError } from '../../errors.js';
import { createRandom } from '../../random.js';
import { type AlloyTable, canonicalRows, type ElementSets } from './alloy-table.js';
import type { Combinations } from './exchanges.js';
import type { Expert } from './experts.js';
import { macroF1, meanAndError } from './label-scores.js';
import { type Predictions, predictSets } from './predict.js';
import type { SubstitutionSettings } from './substitution.js';
import { type SourceSettings, type SubstitutionModel, substitutionModel } from './substitution-model.js';

/** Name of the source that the alloys are. */
export const DATA_SOURCE = 'dataset';

/** Reliability of the data before they are fused with experts (Ha et al. 2025). */
export const DATA_RELIABILITY = 2 / 3;

/** Up to this many alloys sources are scored by leaving one out. */
const FEW_ALLOYS = 10;

/** What is decided before rows are. */
export interface FusionSetup {
  readonly table: AlloyTable;
  readonly combinations: Combinations;
  readonly experts: readonly Expert[];
  readonly settings: SubstitutionSettings;
  /** Used where there are experts. */
  readonly discount: SourceSettings['discount'];
  /** Scores by name of source; without them they are found by cross-validation. */
  readonly scores?: ReadonlyMap<string, number>;
  readonly folds: number;
  readonly seed: number;
  readonly prior: Float64Array;
}

export interface SourceScore {
  readonly name: string;
  readonly score: number;
  /** Over the folds; NaN where there are none. */
  readonly standardError: number;
  readonly by: 'given' | 'macro-f1' | 'leave-one-out' | 'alone';
}

/** The sources one by one: the data, then the experts. */
export function sourceNames({ experts }: FusionSetup): string[] {
  return [DATA_SOURCE, ...experts.map(({ name }) => name)];
}

/** A model of one source alone, without discount. */
export function singleSourceModel(setup: FusionSetup, rows: Int32Array, source: string): SubstitutionModel {
  const { table, combinations, settings, experts } = setup;
  const alone = experts.filter(({ name }) => name === source).map((expert) => ({ expert, score: 1 }));
  const dataScore = source === DATA_SOURCE ? 1 : 0;
  return substitutionModel(
    table,
    combinations,
    rows,
    { ...settings, dataScore, discount: { factor: 1, mode: 'once' } },
    alone,
  );
}

/** The sets of some rows. */
export function setsOfRows({ elements, low, high }: AlloyTable, rows: Int32Array): ElementSets {
  return { elements, low: rows.map((row) => low[row]), high: rows.map((row) => high[row]) };
}

/** Folds with about equal shares of every label, whatever the order of the rows [rows of every fold]. */
export function stratifiedFolds(table: AlloyTable, rows: Int32Array, folds: number, seed: number): Int32Array[] {
  const ordered = canonicalRows(table, rows);
  const random = createRandom(seed).fork(1);
  const parts = Array.from({ length: folds }, (): number[] => []);
  let next = 0;
  for (let label = 0; label < table.labelNames.length; label++) {
    const members = ordered.filter((row) => table.labels[row] === label);
    for (const at of random.fork(label).permutation(members.length)) parts[next++ % folds].push(members[at]);
  }
  return parts.filter((part) => part.length > 0).map((part) => Int32Array.from(part).sort());
}

/** Rows that are not in a part. */
export function otherRows(rows: Int32Array, part: Int32Array): Int32Array {
  const left = new Set(part);
  return rows.filter((row) => !left.has(row));
}

/**
 * Score of every source alone: mean macro F1 over folds, or accuracy when one is left out where there are at most ten
 * alloys (Ha et al. 2025).
 */
export function scoreSources(setup: FusionSetup, rows: Int32Array): SourceScore[] {
  const few = rows.length <= FEW_ALLOYS;
  const parts = few
    ? Array.from(rows, (row) => Int32Array.of(row))
    : stratifiedFolds(setup.table, rows, Math.min(setup.folds, rows.length), setup.seed);
  return sourceNames(setup).map((name) => {
    const found = parts.map((part) => {
      const model = singleSourceModel(setup, otherRows(rows, part), name);
      const { labels } = predictSets(model, setsOfRows(setup.table, part), setup);
      const truth = part.map((row) => setup.table.labels[row]);
      return few ? Number(labels[0] === truth[0]) : macroF1(truth, labels);
    });
    const { mean, se } = meanAndError(found);
    return { name, score: mean, standardError: se, by: few ? 'leave-one-out' : 'macro-f1' };
  });
}

/**
 * Fuses all sources on the substitutions, each discounted by its score. Data alone are neither discounted nor scored.
 * @throws InputError for a given score that is missing, unknown or outside [0, 1]
 */
export function fuseSources(
  setup: FusionSetup,
  rows: Int32Array,
): { readonly model: SubstitutionModel; readonly scores: readonly SourceScore[] } {
  const { table, combinations, settings, experts, discount } = setup;
  if (experts.length === 0) {
    const model = singleSourceModel(setup, rows, DATA_SOURCE);
    return { model, scores: [{ name: DATA_SOURCE, score: 1, standardError: Number.NaN, by: 'alone' }] };
  }
  const scores = setup.scores === undefined ? scoreSources(setup, rows) : givenScores(setup, setup.scores);
  const [data, ...others] = scores;
  const model = substitutionModel(
    table,
    combinations,
    rows,
    { ...settings, discount, dataScore: data.score },
    experts.map((expert, i) => ({ expert, score: others[i].score })),
  );
  return { model, scores };
}

function givenScores(setup: FusionSetup, given: ReadonlyMap<string, number>): SourceScore[] {
  const names = sourceNames(setup);
  const unknown = [...given.keys()].find((name) => !names.includes(name));
  if (unknown !== undefined) throw new InputError(`a score for "${unknown}"; the sources are ${names.join(', ')}`);
  return names.map((name) => {
    const score = given.get(name);
    if (score === undefined) throw new InputError(`no score for source ${name}; give one for each, or none`);
    if (!(score >= 0 && score <= 1)) throw new InputError(`score ${score} of source ${name} is not from 0 to 1`);
    return { name, score, standardError: Number.NaN, by: 'given' };
  });
}

/** Predictions of rows of the table by a model. */
export const predictRows = (setup: FusionSetup, model: SubstitutionModel, rows: Int32Array): Predictions =>
  predictSets(model, setsOfRows(setup.table, rows), setup);
