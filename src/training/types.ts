/** What the parts of the training engine say to each other. No part knows more of another than this. */
import type { GraphComposer } from '../models/graph.js';

export type Precision = 'f32' | 'f64';
export type Floats = Float32Array | Float64Array;

/** One trainable tensor: a stretch of the flat buffers. */
export interface Parameter {
  readonly name: string;
  readonly dims: readonly number[];
  /** First element in the flat buffers, and the number of elements. */
  readonly offset: number;
  readonly length: number;
  /** No optimiser shrinks it, whatever its shape. */
  readonly undecayed?: true;
  /** Its learning rate as a multiple of that of the others; 1 when absent. */
  readonly rate?: number;
}

/** All trainable tensors of a student, side by side. What is frozen is not among them. */
export interface ParameterSet {
  readonly precision: Precision;
  readonly parameters: readonly Parameter[];
  readonly values: Floats;
  /** Sum of the gradients of the micro-batches since the last step. */
  readonly gradients: Floats;
}

/** Consecutive rows of the logits of a batch. All buffers are the student's and are valid only during the visit. */
export interface LogitsBlock {
  /** Place of the first row among the rows of the batch. */
  readonly firstRow: number;
  readonly rows: number;
  readonly classes: number;
  /** [rows, classes]. */
  readonly logits: Floats;
  /** [rows, classes]: zero at first; the visitor adds dL/dlogits. Absent in a forward pass alone. */
  readonly gradient?: Floats;
  /** [rows, featureWidth]: what the head reads, where the student shows it; and its gradient as above. */
  readonly features?: Floats;
  readonly featureWidth?: number;
  readonly featureGradient?: Floats;
}

export type LogitsVisitor = (block: LogitsBlock) => void | Promise<void>;

/** How a batch is visited. */
export interface VisitOptions {
  /** One block with all rows, for losses that couple rows. */
  readonly wholeBatch?: boolean;
  /**
   * Factor of the gradient of the student's own terms (penalties inside its graph); the gradient of a step is divided
   * once by the number of rows that count, so a term that is a mean comes with the rows of its micro-batch here.
   */
  readonly ownTermScale?: number;
}

/** A term of the loss that the student computes itself, such as a penalty on its attention. */
export interface OwnTerm {
  readonly name: string;
  readonly value: number;
}

/** A model that can be differentiated. `Batch` is what it reads. */
export interface Student<Batch> {
  readonly parameters: ParameterSet;
  /** Columns of its logits. */
  readonly classes: number;
  /** Rows of logits that a batch gives. */
  rowsOf(batch: Batch): number;
  /**
   * Forward, visit of all rows in ascending blocks, backward. ADDS dL/dparameters to `parameters.gradients`, where L is
   * the sum whose derivative the visitor wrote, plus own terms times `ownTermScale`.
   */
  accumulate(batch: Batch, visit: LogitsVisitor, options?: VisitOptions): Promise<readonly OwnTerm[]>;
  /** Forward and visit alone; blocks carry no gradient. */
  evaluate(batch: Batch, visit: LogitsVisitor, options?: VisitOptions): Promise<void>;
  close(): Promise<void>;
}

/** Windows of token ids. Row (b, i) of the logits predicts `labels[b * length + i]`, which is token i + 1 of window b. */
export interface TokenBatch {
  /** [batch, length]. */
  readonly tokens: Int32Array;
  readonly batch: number;
  readonly length: number;
  /** [batch * length]; IGNORED where nothing is asked. */
  readonly labels: Int32Array;
  /** Place of each window in the data set, for captures; -1 for sampled windows. */
  readonly windows: Int32Array;
}

/** Rows of features with class labels. */
export interface FeatureBatch {
  /** [rows, ...dims], row-major. */
  readonly features: Floats;
  readonly rows: number;
  readonly labels: Int32Array;
  /** Place of each row in the data set. */
  readonly indices: Int32Array;
}

/** Label of a row that does not count. */
export const IGNORED = -100;

/** Teacher's logits of the same rows and classes. */
export interface DenseTeacher {
  readonly kind: 'dense';
  /** [rows, classes]. */
  readonly logits: Floats;
}

/** The teacher's likeliest classes. */
export interface TopTeacher {
  readonly kind: 'top';
  readonly k: number;
  /** [rows, k], by descending log-probability; -1 from the end of a row that holds fewer. */
  readonly ids: Int32Array;
  /** [rows, k], natural logarithms of probabilities over the whole vocabulary at temperature 1. */
  readonly logProbs: Floats;
  /** [rows]: the probability of all other classes. */
  readonly leftover: Floats;
}

export type TeacherRows = DenseTeacher | TopTeacher;

/** What a loss reads. */
export interface LossInput {
  readonly rows: number;
  readonly classes: number;
  /** [rows, classes]. */
  readonly student: Floats;
  readonly teacher?: TeacherRows;
  /** [rows]; rows labelled IGNORED count nowhere. */
  readonly labels?: Int32Array;
  /** [rows, width] each, for losses on features. */
  readonly studentFeatures?: Floats;
  readonly studentWidth?: number;
  readonly teacherFeatures?: Floats;
  readonly teacherWidth?: number;
  /** Place of the first row in the batch or file, for messages. */
  readonly firstRow?: number;
  /** Rows that count of the whole batch, divided by its sequences; 1 (default) where every row stands for itself. */
  readonly rowsPerSequence?: number;
}

export interface LossGradients {
  /** [rows, classes]; the derivative is added. */
  readonly logits: Floats;
  /** [rows, studentWidth]. */
  readonly features?: Floats;
  /** Factor of what is added; default 1. */
  readonly scale?: number;
}

export interface LossOutput {
  /** Sum over the rows that count. A loss of a whole batch gives its value times that number. */
  readonly sum: number;
  readonly validRows: number;
  /** [rows], 0 where a row does not count; absent for losses that have no rows. */
  readonly perRow?: Float64Array;
  /** Sums over rows by name, for diagnostics. */
  readonly diagnostics?: Readonly<Record<string, number>>;
}

/** A ball about the inputs in which a loss asks for its worst point. */
export interface Perturbation {
  readonly radius: number;
  readonly norm: '2' | 'inf';
  /** Steps of projected ascent. */
  readonly steps: number;
}

/** Names of values in a graph that hold what a loss reads. */
export interface LossGraphInputs {
  /** [rows, classes]. */
  readonly student: string;
  /** [rows, classes]; '' where there is none. */
  readonly teacher: string;
  /** [rows], int64; IGNORED where a row does not count. */
  readonly labels: string;
  readonly classes: number;
}

/** A loss with its parameters fixed. Gradients are those of `sum`. Values are nats. */
export interface Loss {
  /** As written in reports: the name with the parameters that are not default. */
  readonly label: string;
  /** `batch`: rows are coupled, and all rows of a batch are needed at once. */
  readonly scope: 'row' | 'batch';
  readonly reads: {
    /** `any`: full logits and top-k rows alike. */
    readonly teacher: 'none' | 'dense' | 'any';
    readonly labels: boolean;
    readonly features: boolean;
  };
  /** The second half of every batch must be perturbed copies of the first (`perturbed-batches.ts`). */
  readonly perturbation?: Perturbation;
  /** @throws InputError for wrong labels, NaN, sizes that differ, with row and column */
  evaluate(input: LossInput, gradients?: LossGradients): LossOutput;
  /**
   * Adds the loss to a graph in standard operators that all have gradients, with the teacher's full logits: the value
   * [rows] of every row, anything but NaN where a row does not count. Absent where the loss has no such form.
   */
  compose?(g: GraphComposer, inputs: LossGraphInputs): string;
}

/** A loss as the registry knows it: one file of `src/training/losses/` each. */
export interface LossDeclaration {
  /** Name on the command line. */
  readonly name: string;
  readonly summary: string;
  /** Parameters with their defaults. */
  readonly parameters: Readonly<Record<string, number | string>>;
  /** @throws InputError naming a parameter out of range */
  create(parameters: Readonly<Record<string, number | string>>): Loss;
}

/** Micro-batches by number: a function of the seed and the number alone, so that a run resumes from its step. */
export interface BatchSource<Batch> {
  /** Micro-batches that pass over the data once. */
  readonly perEpoch: number;
  batch(index: number): Batch | Promise<Batch>;
}

/** One optimiser step, as metrics tell it. */
export interface StepRecord {
  /** 1-based. */
  readonly step: number;
  /** Mean over the valid rows of the step, in nats, before the step. */
  readonly loss: number;
  /** Mean of each term before its weight, by label. */
  readonly terms: Readonly<Record<string, number>>;
  readonly learningRate: number;
  /** Before clipping. */
  readonly gradientNorm: number;
  readonly validRows: number;
  /** The gradient was not finite and the step was left out. */
  readonly skipped: boolean;
}
