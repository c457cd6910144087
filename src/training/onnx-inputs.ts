import { Tensor } from 'onnxruntime-node';
import { InputError } from '../errors.js';
import { type OnnxValue, onnxInputs } from '../formats/onnx.js';
import type { ModelProto } from '../formats/onnx_pb.js';
import { createRandom } from '../random.js';
import { DROPOUT_SEED } from './autodiff/seeded-dropout.js';
import type { FeatureBatch, Precision, TokenBatch } from './types.js';

/** How batches become the inputs of a graph. */
export interface BatchFeeds {
  /** Extents of the inputs, apart by commas: batches with equal keys give outputs of equal shapes. */
  key(batch: FeatureBatch | TokenBatch): string;
  feeds(batch: FeatureBatch | TokenBatch): Record<string, Tensor>;
  /** A batch for probing: extents of its own on every dynamic axis. */
  readonly example: Record<string, Tensor>;
  /** Whether linear layers read one row for each row of the batch: no images, whose patches are rows of their own. */
  readonly rowsAreFlat: boolean;
  /** Rows of logits that a batch gives. */
  rowsOf(batch: FeatureBatch | TokenBatch): number;
}

const TOKEN_INPUTS = new Set(['input_ids', 'attention_mask', 'position_ids', 'token_type_ids']);
const EXAMPLE_ROWS = 3;
const EXAMPLE_LENGTH = 5;

/**
 * Reads what a graph asks for: token ids (`input_ids`, with `attention_mask`, `position_ids`, `token_type_ids` where it
 * has them), or one tensor of features [rows, ...dims].
 * @param dims extents of one row where the graph leaves them open
 * @throws InputError when the graph asks for something else
 */
export function planBatchFeeds(model: ModelProto, precision: Precision, dims?: readonly number[]): BatchFeeds {
  const inputs = onnxInputs(model).filter(({ name }) => name !== DROPOUT_SEED);
  if (inputs.some(({ name }) => name === 'input_ids')) return tokenFeeds(inputs);
  const [input, ...more] = inputs;
  if (input === undefined || more.length > 0) {
    const names = inputs.map(({ name }) => name).join(', ') || 'none';
    throw new InputError(`the graph has inputs ${names}: a student reads one tensor of features, or "input_ids"`);
  }
  return featureFeeds(input, precision, dims);
}

const isTokens = (batch: FeatureBatch | TokenBatch): batch is TokenBatch => 'tokens' in batch;

function fixedExtent(extent: number | string | undefined): number | undefined {
  return typeof extent === 'number' ? extent : undefined;
}

function tokenFeeds(inputs: readonly OnnxValue[]): BatchFeeds {
  for (const { name, dtype } of inputs) {
    if (!TOKEN_INPUTS.has(name)) {
      throw new InputError(
        `the graph asks for "${name}": a student reads input_ids, attention_mask and position_ids only`,
      );
    }
    if (dtype !== 'I64' && dtype !== 'I32') throw new InputError(`the input "${name}" is ${dtype}, not int64 or int32`);
  }
  const shape = inputs.find(({ name }) => name === 'input_ids')?.shape;
  const fixed = [fixedExtent(shape?.[0]), fixedExtent(shape?.[1])];
  const make = (tokens: Int32Array, batch: number, length: number): Record<string, Tensor> =>
    Object.fromEntries(
      inputs.map(({ name, dtype }) => {
        const values = tokenValues(name, tokens, batch, length);
        const tensor =
          dtype === 'I32'
            ? new Tensor('int32', values, [batch, length])
            : new Tensor('int64', BigInt64Array.from(values, BigInt), [batch, length]);
        return [name, tensor];
      }),
    );
  const [rows, length] = [fixed[0] ?? EXAMPLE_ROWS, fixed[1] ?? EXAMPLE_LENGTH];
  return {
    example: make(new Int32Array(rows * length), rows, length),
    rowsAreFlat: true,
    rowsOf: (batch) => (isTokens(batch) ? batch.batch * batch.length : batch.rows),
    key: (batch) => (isTokens(batch) ? `${batch.batch},${batch.length}` : ''),
    feeds(batch) {
      if (!isTokens(batch)) throw new InputError('the student reads tokens, not features');
      const given = [batch.batch, batch.length];
      fixed.forEach((extent, axis) => {
        if (extent !== undefined && extent !== given[axis]) {
          throw new InputError(`"input_ids" is [${given}], but the graph fixes [${fixed.map((e) => e ?? '?')}]`);
        }
      });
      return make(batch.tokens, batch.batch, batch.length);
    },
  };
}

function tokenValues(name: string, tokens: Int32Array, batch: number, length: number): Int32Array {
  if (name === 'input_ids') return tokens;
  const values = new Int32Array(batch * length);
  if (name === 'attention_mask') return values.fill(1);
  if (name === 'position_ids') for (let i = 0; i < values.length; i++) values[i] = i % length;
  return values;
}

function featureFeeds(input: OnnxValue, precision: Precision, dims: readonly number[] | undefined): BatchFeeds {
  const { name, shape, dtype } = input;
  if (dtype !== 'F32' && dtype !== 'F64' && dtype !== 'F16' && dtype !== 'BF16') {
    throw new InputError(`the input "${name}" holds ${dtype ?? 'no numbers'}: a student reads floating-point features`);
  }
  const declared = shape?.slice(1);
  const row = declared?.map((extent, axis) => fixedExtent(extent) ?? dims?.[axis]) ?? dims;
  const known = row?.filter((extent) => extent !== undefined);
  if (row === undefined || known === undefined || known.length !== row.length) {
    throw new InputError(`the input "${name}" leaves the extents of a row open: [${shape ?? '?'}]; say them`);
  }
  const width = known.reduce((product, extent) => product * extent, 1);
  const fixedRows = fixedExtent(shape?.[0]);
  const type = precision === 'f32' ? 'float32' : 'float64';
  const tensor = (features: FeatureBatch['features'], rows: number): Tensor => {
    const own = precision === 'f32' ? asSingle(features) : asDouble(features);
    return new Tensor(type, own, [rows, ...known]) as Tensor;
  };
  // Logarithms and roots of the example should not be NaN; its values decide nothing else.
  const random = createRandom(0);
  const rows = fixedRows ?? EXAMPLE_ROWS;
  const values = Float64Array.from({ length: rows * width }, () => random.uniform());
  return {
    example: { [name]: tensor(values, rows) },
    rowsAreFlat: known.length <= 1,
    rowsOf: (batch) => (isTokens(batch) ? batch.batch * batch.length : batch.rows),
    key: (batch) => (isTokens(batch) ? '' : `${batch.rows}`),
    feeds(batch) {
      if (isTokens(batch)) throw new InputError('the student reads features, not tokens');
      if (batch.features.length !== batch.rows * width) {
        throw new InputError(
          `${batch.rows} rows of features hold ${batch.features.length} numbers; the input "${name}" takes ` +
            `[${['rows', ...known]}], ${width} a row`,
        );
      }
      if (fixedRows !== undefined && fixedRows !== batch.rows) {
        throw new InputError(
          `the graph fixes ${fixedRows} rows a batch, not ${batch.rows}; export it with a dynamic first axis`,
        );
      }
      return { [name]: tensor(batch.features, batch.rows) };
    },
  };
}

const asSingle = (values: FeatureBatch['features']): Float32Array =>
  values instanceof Float32Array ? values : Float32Array.from(values);
const asDouble = (values: FeatureBatch['features']): Float64Array =>
  values instanceof Float64Array ? values : Float64Array.from(values);
