/** Records of models under log loss, from files: what the universality views read. */
import { InputError } from '../errors.js';
import { openFeatures } from '../features/open-features.js';
import { labelCount, readLabels } from '../formats/labels.js';
import { divergencesFrom, lossRecords } from './universality.js';

export interface EnsembleSource {
  /** Log losses [models, records], nats. */
  readonly losses?: string;
  /** Log-probabilities [models, records, classes]. */
  readonly logProbs?: string;
  readonly tensor?: string;
  /** Class of every record, for log-probabilities. */
  readonly labels?: string;
  readonly labelColumn?: string;
}

export interface EnsembleRecords {
  readonly models: number;
  readonly records: number;
  /** [models, records], nats. */
  readonly losses: Float64Array;
  /** Mean KL from a model to every model; absent where only losses are known. */
  divergencesFrom?(reference: number): Float64Array;
}

export interface EnsembleShape {
  readonly models: number;
  readonly records: number;
  readonly classes: number;
}

/**
 * Records of labels under log-probabilities [models, records, classes].
 *
 * @throws InputError for labels outside the classes
 */
export function recordsOfLogProbs(logProbs: Float64Array, labels: Int32Array, shape: EnsembleShape): EnsembleRecords {
  const { models, records } = shape;
  return {
    models,
    records,
    losses: lossRecords(logProbs, labels, shape),
    divergencesFrom: (reference) => divergencesFrom(reference, logProbs, shape),
  };
}

/** Rounding of log-probabilities that were stored in single precision. */
const MASS_TOLERANCE = 1e-3;

function checkDistributions(logProbs: Float64Array, classes: number, records: number, path: string): void {
  for (let row = 0; row < logProbs.length / classes; row++) {
    let sum = 0;
    for (let j = row * classes; j < (row + 1) * classes; j++) sum += Math.exp(logProbs[j]);
    if (Math.abs(sum - 1) <= MASS_TOLERANCE) continue;
    throw new InputError(
      `${path}: the probabilities of model ${Math.floor(row / records)}, record ${row % records} sum to ${sum}; give log-probabilities, not logits`,
    );
  }
}

/** @throws InputError for arrays of other shapes, labels outside the classes, log-probabilities that are none */
export async function readEnsemble(source: EnsembleSource): Promise<EnsembleRecords> {
  const path = source.losses ?? source.logProbs ?? '';
  const tensor = source.tensor === undefined ? {} : { tensor: source.tensor };
  const matrix = await openFeatures({ kind: 'file', path, ...tensor, flatten: true });
  try {
    const dims = matrix.rowDims ?? [matrix.columns];
    const values = new Float64Array(matrix.rows * matrix.columns);
    matrix.readRows(0, matrix.rows, values);
    const models = matrix.rows;
    if (source.losses !== undefined) {
      if (dims.length !== 1) throw new InputError(`${path}: losses must be [models, records]`);
      return { models, records: dims[0], losses: values };
    }
    if (dims.length !== 2) throw new InputError(`${path}: log-probabilities must be [models, records, classes]`);
    const [records, classes] = dims;
    checkDistributions(values, classes, records, path);
    if (source.labels === undefined) throw new InputError('--log-probs needs --labels');
    const column = source.labelColumn === undefined ? {} : { column: source.labelColumn };
    const labels = await readLabels(source.labels, { kind: 'numbers', ...column });
    if (labelCount(labels) !== records || labels.kind !== 'numbers') {
      throw new InputError(`${source.labels}: ${labelCount(labels)} labels for ${records} records`);
    }
    return recordsOfLogProbs(values, Int32Array.from(labels.values), { models, records, classes });
  } finally {
    matrix.close();
  }
}
