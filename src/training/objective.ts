import { InputError, RunError } from '../errors.js';
import { type Floats, IGNORED, type LogitsBlock, type LogitsVisitor, type Loss, type TeacherRows } from './types.js';

/** How far a run is. */
export interface Progress {
  /** The optimiser step that is being made, 1-based. */
  readonly step: number;
  /** Passes over the data so far, with their fraction. */
  readonly epoch: number;
}

/** A term of the loss. A weight may grow or shrink over the run. */
export interface WeightedLoss {
  readonly weight: number | ((progress: Progress) => number);
  readonly loss: Loss;
}

/** Rows of a batch that are asked for. */
export interface RowRange {
  readonly firstRow: number;
  readonly rows: number;
  readonly classes: number;
}

/** Where a loss finds what the logits do not hold. */
export interface ObjectiveSource<Batch> {
  /** Labels of all rows of the batch; undefined where there are none and every row counts. */
  labels(batch: Batch): Int32Array | undefined;
  /** Sequences whose positions the rows are; absent where every row stands for itself. */
  sequences?(batch: Batch): number;
  teacher?(batch: Batch, range: RowRange): TeacherRows | undefined | Promise<TeacherRows | undefined>;
  teacherFeatures?(batch: Batch, range: RowRange): TeacherFeatures | undefined | Promise<TeacherFeatures | undefined>;
}

export interface TeacherFeatures {
  /** [rows, width]. */
  readonly features: Floats;
  readonly width: number;
}

/** Sums over the rows of one batch that count. */
export interface ObjectiveTotals {
  /** Of the weighted terms. */
  readonly sum: number;
  readonly validRows: number;
  /** Of each term before its weight, by label. */
  readonly terms: Readonly<Record<string, number>>;
  /** What the losses say beside, as `label.name`. */
  readonly diagnostics: Readonly<Record<string, number>>;
}

/** The visit of one batch. */
export interface ObjectiveVisit {
  readonly visit: LogitsVisitor;
  /** Behind the visit of all rows. */
  totals(): ObjectiveTotals;
}

/** What a run makes small. */
export interface Objective<Batch> {
  /** Labels of the terms, in order. */
  readonly terms: readonly string[];
  /** A term couples rows: all rows of a batch must come in one block. */
  readonly wholeBatch: boolean;
  /** Rows of the batch that count, of `rows`. */
  validRows(batch: Batch, rows: number): number;
  /** Visits one batch; where blocks carry gradients, those of the weighted sum are added. */
  begin(batch: Batch, progress: Progress): ObjectiveVisit;
}

/** Entries that are not IGNORED. */
export function countValid(labels: Int32Array): number {
  let count = 0;
  for (const label of labels) if (label !== IGNORED) count++;
  return count;
}

function checkTerms<Batch>(terms: readonly WeightedLoss[], source: ObjectiveSource<Batch>): void {
  if (terms.length === 0) throw new InputError('no loss is given: name at least one');
  const labels = new Set<string>();
  for (const { loss } of terms) {
    if (labels.has(loss.label)) throw new InputError(`loss ${loss.label} stands twice: add the weights up`);
    labels.add(loss.label);
    if (loss.reads.teacher !== 'none' && source.teacher === undefined)
      throw new InputError(`loss ${loss.label} needs a teacher`);
    if (loss.reads.features && source.teacherFeatures === undefined)
      throw new InputError(`loss ${loss.label} needs the features of a teacher`);
  }
}

/** A student that has diverged is no wrong input: what a loss says of its logits becomes a failure of the run. */
export function asDivergence(error: unknown, block: LogitsBlock): unknown {
  if (!(error instanceof InputError)) return error;
  const { logits, classes, firstRow, rows } = block;
  for (let i = 0; i < rows * classes; i++) {
    if (Number.isNaN(logits[i]) || logits[i] === Number.POSITIVE_INFINITY)
      return new RunError(
        `the student's logits hold ${logits[i]} at row ${firstRow + Math.floor(i / classes)}, column ${i % classes}`,
      );
  }
  return error;
}

/**
 * A weighted sum of losses, visited block by block. The teacher's rows of a block are fetched once for all terms.
 * @throws InputError for a loss without what it reads, or one that stands twice
 */
export function createObjective<Batch>(
  terms: readonly WeightedLoss[],
  source: ObjectiveSource<Batch>,
): Objective<Batch> {
  checkTerms(terms, source);
  const readsTeacher = terms.some(({ loss }) => loss.reads.teacher !== 'none');
  const readsFeatures = terms.some(({ loss }) => loss.reads.features);
  return {
    terms: terms.map(({ loss }) => loss.label),
    wholeBatch: terms.some(({ loss }) => loss.scope === 'batch'),
    validRows(batch, rows) {
      const labels = source.labels(batch);
      return labels === undefined ? rows : countValid(labels);
    },
    begin(batch, progress) {
      const labels = source.labels(batch);
      const weights = terms.map(({ weight }) => (typeof weight === 'number' ? weight : weight(progress)));
      const sequences = source.sequences?.(batch);
      const rowsPerSequence =
        labels === undefined || sequences === undefined ? undefined : countValid(labels) / sequences;
      const sums = new Float64Array(terms.length);
      const diagnostics: Record<string, number> = {};
      let validRows = 0;
      const visit: LogitsVisitor = async (block) => {
        const { firstRow, rows, classes } = block;
        const range = { firstRow, rows, classes };
        const ofBlock = labels?.subarray(firstRow, firstRow + rows);
        const teacher = readsTeacher ? await source.teacher?.(batch, range) : undefined;
        const features = readsFeatures ? await source.teacherFeatures?.(batch, range) : undefined;
        validRows += ofBlock === undefined ? rows : countValid(ofBlock);
        const input = {
          ...range,
          student: block.logits,
          labels: ofBlock,
          teacher,
          studentFeatures: block.features,
          studentWidth: block.featureWidth,
          teacherFeatures: features?.features,
          teacherWidth: features?.width,
          rowsPerSequence,
        };
        for (let t = 0; t < terms.length; t++) {
          const gradients =
            block.gradient === undefined || weights[t] === 0
              ? undefined
              : { logits: block.gradient, features: block.featureGradient, scale: weights[t] };
          try {
            const { loss } = terms[t];
            const output = loss.evaluate(input, gradients);
            sums[t] += output.sum;
            for (const [name, value] of Object.entries(output.diagnostics ?? {})) {
              const key = `${loss.label}.${name}`;
              diagnostics[key] = (diagnostics[key] ?? 0) + value;
            }
          } catch (error) {
            throw asDivergence(error, block);
          }
        }
      };
      return {
        visit,
        totals() {
          let sum = 0;
          for (let t = 0; t < terms.length; t++) if (weights[t] !== 0) sum += weights[t] * sums[t];
          const named = Object.fromEntries(terms.map(({ loss }, t) => [loss.label, sums[t]]));
          return { sum, validRows, terms: named, diagnostics };
        },
      };
    },
  };
}
