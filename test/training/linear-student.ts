import { createRandom } from '../../src/random.js';
import {
  type FeatureBatch,
  type Floats,
  IGNORED,
  type Loss,
  type OwnTerm,
  type ParameterSet,
  type Student,
} from '../../src/training/types.js';

/** logits = x W + b by plain loops, W [width, classes]: a student whose gradients are known. */
export function linearStudent(
  width: number,
  classes: number,
  options: {
    readonly precision?: 'f32' | 'f64';
    readonly seed?: number;
    readonly penalty?: number;
    readonly blockRows?: number;
  } = {},
): Student<FeatureBatch> & { readonly parameters: ParameterSet } {
  const { precision = 'f64', seed = 1, penalty, blockRows = 3 } = options;
  const make = (n: number): Floats => (precision === 'f64' ? new Float64Array(n) : new Float32Array(n));
  const size = width * classes + classes;
  const values = make(size);
  const gradients = make(size);
  const random = createRandom(seed);
  for (let i = 0; i < width * classes; i++) values[i] = 0.3 * random.normal();
  const parameters: ParameterSet = {
    precision,
    values,
    gradients,
    parameters: [
      { name: 'weight', dims: [width, classes], offset: 0, length: width * classes },
      { name: 'bias', dims: [classes], offset: width * classes, length: classes },
    ],
  };
  const forward = (batch: FeatureBatch, first: number, rows: number): Floats => {
    const logits = make(rows * classes);
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < classes; c++) {
        let sum: number = values[width * classes + c];
        for (let j = 0; j < width; j++) sum += batch.features[(first + r) * width + j] * values[j * classes + c];
        logits[r * classes + c] = sum;
      }
    }
    return logits;
  };
  const visitAll: Student<FeatureBatch>['accumulate'] = async (batch, visit, visitOptions) => {
    const step = visitOptions?.wholeBatch ? batch.rows : blockRows;
    for (let firstRow = 0; firstRow < batch.rows; firstRow += step) {
      const rows = Math.min(step, batch.rows - firstRow);
      const gradient = make(rows * classes);
      await visit({ firstRow, rows, classes, logits: forward(batch, firstRow, rows), gradient });
      for (let r = 0; r < rows; r++) {
        for (let c = 0; c < classes; c++) {
          const g = gradient[r * classes + c];
          gradients[width * classes + c] += g;
          for (let j = 0; j < width; j++) gradients[j * classes + c] += g * batch.features[(firstRow + r) * width + j];
        }
      }
    }
    const own: OwnTerm[] = [];
    if (penalty !== undefined) {
      // penalty / 2 |b|^2
      let value = 0;
      for (let c = 0; c < classes; c++) {
        const b = values[width * classes + c];
        value += (penalty / 2) * b * b;
        gradients[width * classes + c] += (visitOptions?.ownTermScale ?? 1) * penalty * b;
      }
      own.push({ name: 'penalty', value });
    }
    return own;
  };
  return {
    parameters,
    classes,
    rowsOf: (batch) => batch.rows,
    accumulate: visitAll,
    async evaluate(batch, visit) {
      await visit({ firstRow: 0, rows: batch.rows, classes, logits: forward(batch, 0, batch.rows) });
    },
    async close() {},
  };
}

/** Cross-entropy by its definition. */
export const crossEntropy: Loss = {
  label: 'ce',
  scope: 'row',
  reads: { teacher: 'none', labels: true, features: false },
  evaluate({ rows, classes, student, labels }, gradients) {
    let sum = 0;
    let validRows = 0;
    for (let r = 0; r < rows; r++) {
      const label = labels?.[r] ?? IGNORED;
      if (label === IGNORED) continue;
      validRows++;
      let normalizer = 0;
      for (let c = 0; c < classes; c++) normalizer += Math.exp(student[r * classes + c]);
      sum += Math.log(normalizer) - student[r * classes + label];
      if (gradients === undefined) continue;
      const { scale = 1 } = gradients;
      for (let c = 0; c < classes; c++) {
        const p = Math.exp(student[r * classes + c]) / normalizer;
        gradients.logits[r * classes + c] += scale * (p - (c === label ? 1 : 0));
      }
    }
    return { sum, validRows };
  },
};

/** Two clouds of points. */
export function clouds(
  rows: number,
  width: number,
  classes: number,
  seed = 3,
): { features: Float64Array; labels: Int32Array } {
  const random = createRandom(seed);
  const labels = Int32Array.from({ length: rows }, () => random.integer(classes));
  const features = new Float64Array(rows * width);
  for (let i = 0; i < features.length; i++) {
    const label = labels[Math.floor(i / width)];
    features[i] = random.normal() + (i % width === label % width ? 1.5 : 0);
  }
  return { features, labels };
}
