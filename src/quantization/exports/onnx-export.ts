import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { create, toBinary } from '@bufbuild/protobuf';
import { InputError } from '../../errors.js';
import { type AtomicFile, createAtomicDirectory, createAtomicFile } from '../../formats/atomic.js';
import { onnxElementType } from '../../formats/onnx.js';
import {
  AttributeProto_AttributeType,
  AttributeProtoSchema,
  type ModelProto,
  ModelProtoSchema,
  type NodeProto,
  NodeProtoSchema,
  StringStringEntryProtoSchema,
  type TensorProto,
  TensorProto_DataLocation,
  TensorProtoSchema,
} from '../../formats/onnx_pb.js';
import { DTYPE_BYTES, type DType, elementCount } from '../../formats/tensor.js';
import { changedConfig, copySmallFiles } from '../../models/model-directory.js';
import type { ModelFiles } from '../../models/model-files.js';
import { ropeFrequencies, ropeTables } from '../../models/rope.js';
import { createWeightReader, type StoredWeight, type WeightReader } from '../../models/weights.js';
import { checkExportable, type ExportRows, isStepRows, startCheck, wholeRows } from './carriers.js';
import { nbitsBlock } from './export-format.js';
import {
  type EncodedTensors,
  type ExportedTensor,
  type ExportOptions,
  type ExportReport,
  shapeOf,
} from './gguf-export.js';
import { type PackedNbits, packNbits, runNbitsCheck } from './nbits.js';
import { composeDecoder, isFed } from './onnx-graph.js';

const MODEL_FILE = 'model.onnx';
const DATA_FILE = 'model.onnx.data';
/** Large tensors begin at a page, so that a runtime can map them. */
const PAGE = 4096;
const BAND_WEIGHTS = 1 << 20;

/** Types that are stored as they are, widened by a Cast where they are not F32. */
const PLAIN: readonly string[] = ['F32', 'F16', 'BF16'];

/**
 * Writes a model as an ONNX decoder for ONNX Runtime: a directory with `model.onnx`, its weights in `model.onnx.data`,
 * and the tokenizer and configuration of the source. Linears of coded tensors are com.microsoft.MatMulNBits with 4 bits,
 * zero point 8 and one f32 scale a block, which holds codes without any rounding; all other weights keep their type.
 * Every matrix is read back, and run through ONNX Runtime at some of its columns.
 * @throws InputError for what the graph cannot express, by name
 */
export async function exportOnnx(
  source: ModelFiles,
  encoded: EncodedTensors,
  target: string,
  options: ExportOptions = {},
): Promise<ExportReport> {
  checkModel(source, encoded);
  const directory = createAtomicDirectory(target, options);
  let data: AtomicFile | undefined;
  try {
    data = createAtomicFile(join(directory.path, DATA_FILE));
    const model = composeDecoder(source.description);
    const builder = createBuilder(source, encoded, data, options);
    await builder.fill(model);
    data.commit();
    writeFileSync(join(directory.path, MODEL_FILE), toBinary(ModelProtoSchema, model));
    if (source.format === 'huggingface') {
      copySmallFiles(source.path, directory.path);
      const config = changedConfig(source.path, {});
      if (config !== undefined) writeFileSync(join(directory.path, 'config.json'), config);
    }
    directory.commit();
    const { tensors, tensorBytes, weights } = builder.report();
    const notes = source.format === 'gguf' ? ['a GGUF source has no tokenizer.json to copy beside the graph'] : [];
    return { format: 'onnx-nbits', path: target, tensors, tensorBytes, weights, notes };
  } catch (error) {
    data?.abort();
    directory.abort();
    throw error;
  }
}

function checkModel(source: ModelFiles, encoded: EncodedTensors): void {
  const { description: model, weights, path } = source;
  const odd = model.layers.find(({ attention }) => attention.headDim % 8 !== 0);
  if (odd) {
    throw new InputError(
      `${path}: heads of ${odd.attention.headDim} values are no multiple of 8, which GroupQueryAttention asks for; it ` +
        'cannot be written to ONNX',
    );
  }
  const rope = model.ropes.find(({ type }) => type === 'dynamic' || type === 'longrope');
  if (rope) {
    throw new InputError(
      `${path}: its rotary embedding (${rope.type}) depends on the length of the text; it cannot be written to ONNX`,
    );
  }
  if (encoded.has(weights.embedding.tensor.name)) {
    throw new InputError(
      `${path}: "${weights.embedding.tensor.name}" is looked up row by row, which MatMulNBits cannot do; keep it as it ` +
        'is with --keep',
    );
  }
  const all = [...weights.layers.flatMap((layer) => [...layer.values()]), weights.head];
  for (const { tensor } of all) {
    if (encoded.has(tensor.name)) checkExportable(tensor.name, shapeOf(encoded, tensor.name), 'onnx-nbits');
  }
}

interface Builder {
  /** Gives every weight input of the graph its values. */
  fill(model: ModelProto): Promise<void>;
  report(): Pick<ExportReport, 'tensors' | 'tensorBytes' | 'weights'>;
}

function createBuilder(source: ModelFiles, encoded: EncodedTensors, data: AtomicFile, options: ExportOptions): Builder {
  const { threads = 1 } = options;
  const reader = createWeightReader(threads);
  const exported: ExportedTensor[] = [];
  let weightCount = 0;

  const place = (
    name: string,
    elementType: number,
    dims: readonly number[],
    parts: Iterable<Uint8Array>,
  ): TensorProto => {
    const offset = Math.ceil(data.position / PAGE) * PAGE;
    if (offset > data.position) data.write(new Uint8Array(offset - data.position));
    for (const part of parts) data.write(part);
    const entry = (key: string, value: string) => create(StringStringEntryProtoSchema, { key, value });
    return create(TensorProtoSchema, {
      name,
      dataType: elementType,
      dims: dims.map(BigInt),
      dataLocation: TensorProto_DataLocation.EXTERNAL,
      externalData: [
        entry('location', DATA_FILE),
        entry('offset', String(offset)),
        entry('length', String(data.position - offset)),
      ],
    });
  };

  const fillCoded = async (model: ModelProto, name: string, weight: StoredWeight): Promise<void> => {
    const graph = model.graph;
    const at = graph ? graph.node.findIndex((node) => node.opType === 'Gemm' && node.input[1] === name) : -1;
    if (!graph || at < 0) throw new RangeError(`no product takes "${name}"`);
    const coded = encoded.get(weight.tensor.name);
    const { packed, tensor } = await packMatrix(name, weight, coded, threads, source.description.linearLayout);
    exported.push(tensor);
    const { outputs, columns, blocks, block, codes, scales } = packed;
    graph.initializer.push(
      place(`${name}.codes`, onnxElementType('U8'), [outputs, blocks, block / 2], [codes]),
      place(`${name}.scales`, onnxElementType('F32'), [outputs * blocks], [bytesOf(scales)]),
    );
    graph.node.splice(at, 1, ...nbitsNodes(graph.node[at], name, { outputs, columns, block }));
    weightCount += outputs * columns;
  };

  const fillPlain = (model: ModelProto, name: string, weight: StoredWeight): void => {
    const graph = model.graph;
    if (!graph) return;
    weightCount += elementCount(weight.shape);
    const { tensor } = weight;
    const kept = PLAIN.includes(tensor.dtype) && weight.interleavedHeadDim === undefined;
    const dtype: DType = kept ? (tensor.dtype as DType) : 'F32';
    const values = kept ? storedBytes(weight) : widenedBytes(reader, weight);
    if (dtype === 'F32') {
      graph.initializer.push(place(name, onnxElementType('F32'), weight.shape, values));
      return;
    }
    graph.initializer.push(place(`${name}.stored`, onnxElementType(dtype), weight.shape, values));
    graph.node.unshift(node('Cast', `${name}.widen`, [`${name}.stored`], [name], '', { to: onnxElementType('F32') }));
  };

  const fillTable = (model: ModelProto, name: string): void => {
    const [, index, part] = /^rope\.(\d+)\.(cos|sin)\.table$/.exec(name) ?? [];
    const { description } = source;
    const rope = description.ropes[Number(index)];
    const count = description.maxPositions;
    const tables = ropeTables(ropeFrequencies(rope, count), 0, count, 'f32');
    const values = (part === 'cos' ? tables.cos : tables.sin) as Float32Array;
    model.graph?.initializer.push(place(name, onnxElementType('F32'), [count, rope.dims / 2], [bytesOf(values)]));
  };

  return {
    async fill(model) {
      const graph = model.graph;
      if (!graph) return;
      const wanted = graph.input.map((value) => value.name).filter((name) => !isFed(name));
      graph.input = graph.input.filter((value) => isFed(value.name));
      for (const name of wanted) {
        if (name.startsWith('rope.')) fillTable(model, name);
        else {
          const weight = findWeight(source, name);
          if (encoded.has(weight.tensor.name)) await fillCoded(model, name, weight);
          else fillPlain(model, name, weight);
        }
      }
    },
    report: () => ({ tensors: exported, tensorBytes: data.position, weights: weightCount }),
  };
}

/** The weight that an input of the graph stands for. */
function findWeight({ weights, path }: ModelFiles, name: string): StoredWeight {
  const ends: Readonly<Record<string, StoredWeight | undefined>> = {
    embedding: weights.embedding,
    head: weights.head,
    final_norm: weights.finalNorm,
    final_norm_bias: weights.finalNormBias,
    positions: weights.positions,
  };
  const [, layer, role] = /^layer\.(\d+)\.(.+)$/.exec(name) ?? [];
  const found = role === undefined ? ends[name] : weights.layers[Number(layer)].get(role);
  if (!found) throw new RangeError(`${path}: the graph asks for "${name}"`);
  return found;
}

/** Rows of one matrix as MatMulNBits holds them, read back and run. */
async function packMatrix(
  name: string,
  weight: StoredWeight,
  coded: ExportRows,
  threads: number,
  layout: 'out-in' | 'in-out',
): Promise<{ readonly packed: PackedNbits; readonly tensor: ExportedTensor }> {
  if (isStepRows(coded)) throw new RangeError('codes by steps are of GGUF');
  const { columns } = coded;
  const outputs = weight.shape[layout === 'out-in' ? 0 : 1];
  const block = nbitsBlock(coded.code.groupLength);
  if (block === undefined) throw new RangeError(`groups of ${coded.code.groupLength}`);
  const blocks = Math.ceil(columns / block);
  const packed: PackedNbits = {
    outputs,
    columns,
    block,
    blocks,
    codes: new Uint8Array((outputs * blocks * block) / 2),
    scales: new Float32Array(outputs * blocks),
  };
  // A stack of experts is coded as one; this weight is one of its matrices.
  const firstRow = (weight.start / weight.byteLength) * outputs;
  const check = startCheck();
  const most = Math.max(1, Math.floor(BAND_WEIGHTS / columns));
  for (let first = 0; first < outputs; first += most) {
    const count = Math.min(most, outputs - first);
    const band = wholeRows(coded, firstRow + first, count, threads);
    packNbits(weight.tensor.name, band, packed, (r) => restoredRow(first + r, weight.interleavedHeadDim), check);
  }
  await runNbitsCheck(weight.tensor.name, packed, threads);
  const bytes = packed.codes.length + 4 * packed.scales.length;
  const tensor = { name: weight.tensor.name, storedName: name, type: `int4 blocks of ${block}`, rows: outputs };
  return { packed, tensor: { ...tensor, columns, bytes, lossy: false, check } };
}

/** Where row `r` of the interleaved layout of GGUF stands in that of the graph. */
function restoredRow(r: number, headDim: number | undefined): number {
  if (headDim === undefined) return r;
  const within = r % headDim;
  return r - within + (within % 2) * (headDim / 2) + (within >> 1);
}

/** MatMulNBits in place of a Gemm, and the addition of its bias. */
function nbitsNodes(
  gemm: NodeProto,
  name: string,
  size: { readonly outputs: number; readonly columns: number; readonly block: number },
): NodeProto[] {
  const [value, , bias] = gemm.input;
  const product = bias === undefined ? gemm.output[0] : `${gemm.output[0]}_product`;
  const attributes = { K: size.columns, N: size.outputs, bits: 4, block_size: size.block, accuracy_level: 1 };
  const made = [
    node('MatMulNBits', gemm.name, [value, `${name}.codes`, `${name}.scales`], [product], 'com.microsoft', attributes),
  ];
  if (bias !== undefined) made.push(node('Add', `${gemm.name}_bias`, [product, bias], [gemm.output[0]], '', {}));
  return made;
}

function node(
  opType: string,
  name: string,
  input: string[],
  output: string[],
  domain: string,
  attributes: Readonly<Record<string, number>>,
): NodeProto {
  const attribute = Object.entries(attributes).map(([key, value]) =>
    create(AttributeProtoSchema, { name: key, type: AttributeProto_AttributeType.INT, i: BigInt(value) }),
  );
  return create(NodeProtoSchema, { opType, name, input, output, domain, attribute });
}

function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

function* storedBytes({ store, tensor, start, byteLength }: StoredWeight): Generator<Uint8Array> {
  const chunk = new Uint8Array(Math.min(byteLength, 4 * BAND_WEIGHTS));
  for (let at = 0; at < byteLength; at += chunk.length) {
    const piece = chunk.subarray(0, Math.min(chunk.length, byteLength - at));
    store.readInto(tensor, start + at, piece.length, piece);
    yield piece;
  }
}

function* widenedBytes(reader: WeightReader, weight: StoredWeight): Generator<Uint8Array> {
  const rows = weight.shape[0];
  const width = elementCount(weight.shape.slice(1));
  // Rows that a reader brings back from the interleaved order are read together.
  const most = weight.interleavedHeadDim === undefined ? Math.max(1, Math.floor(BAND_WEIGHTS / width)) : rows;
  for (let first = 0; first < rows; first += most) {
    const count = Math.min(most, rows - first);
    const values = new Float32Array(count * width);
    reader.read(weight, values, first, count);
    yield new Uint8Array(values.buffer, 0, count * width * DTYPE_BYTES.F32);
  }
}
