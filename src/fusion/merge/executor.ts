import { createHash } from 'node:crypto';
import { InputError } from '../../errors.js';
import type { ShardFiles } from '../../formats/safetensors-shards.js';
import { DTYPE_BYTES, elementCount } from '../../formats/tensor.js';
import { type BufferPool, createBufferPool } from './buffer-pool.js';
import type { MergeJournal } from './journal.js';
import { type LoadedItem, loadItem, shapeOfRows } from './load-item.js';
import { passthrough } from './methods/passthrough.js';
import { rowElements } from './source.js';
import {
  createTensorRecord,
  type MergedTask,
  type NonFiniteCounts,
  type TensorDiagnostics,
  type TensorRecord,
} from './tensor-record.js';
import type { MergePlan, MergeSource, MergeTask, MergeVariant, PlannedTensor } from './types.js';
import { STAGES, type WorkItem, type WorkPlan } from './work-plan.js';

export interface ExecuteOptions {
  readonly plan: MergePlan;
  /** In the order of the plan's models. */
  readonly sources: readonly MergeSource[];
  readonly work: WorkPlan;
  readonly files: ShardFiles;
  /** Tensors that are done, also by an interrupted run. */
  readonly journal: MergeJournal;
  /** Bytes that buffers may take. */
  readonly memoryBytes: number;
  readonly seed: number;
  readonly threads: number;
  readonly variant: MergeVariant;
  readonly diagnostics: TensorDiagnostics;
  /** NaN and infinity in inputs or results are counted, not an error. */
  readonly allowNonFinite: boolean;
  /** Sums of the tensor's group, where the method surveys the models first. */
  readonly surveyed: (tensor: PlannedTensor) => Float64Array | undefined;
  readonly progress: (done: { readonly bytes: number; readonly tensor: string }) => void;
}

/**
 * Merges tensor after tensor: while one is merged, the next are read and the last is written. At most `memoryBytes` of buffers
 * exist. Every finished tensor is noted with its SHA-256.
 * @throws InputError for values that are not finite (tensor, model, count), and what methods and files throw
 */
export async function executeMerge(options: ExecuteOptions): Promise<void> {
  const { plan, work, journal } = options;
  const pool = createBufferPool();
  const pending = work.items.filter(({ tensor }) => !journal.done.has(plan.tensors[tensor].name));
  const loading: { readonly item: WorkItem; readonly loaded: Promise<LoadedItem> }[] = [];
  const writing: { readonly bytes: number; readonly written: Promise<void> }[] = [];
  let ahead = 0;
  let bytesInUse = 0;
  const fill = (): void => {
    while (ahead < pending.length && loading.length < STAGES - 1) {
      const item = pending[ahead];
      const first = loading.length === 0 && writing.length === 0;
      if (!first && bytesInUse + item.bytes > options.memoryBytes) return;
      ahead++;
      bytesInUse += item.bytes;
      const loaded = loadItem(options, pool, item);
      // An error is met where the item is taken.
      loaded.catch(() => undefined);
      loading.push({ item, loaded });
    }
  };
  const finishWrite = async (): Promise<void> => {
    const write = writing.shift();
    if (write === undefined) return;
    await write.written;
    bytesInUse -= write.bytes;
  };
  let merging = startTensor(options);
  try {
    for (;;) {
      fill();
      while (loading.length === 0 && writing.length > 0) {
        await finishWrite();
        fill();
      }
      const next = loading.shift();
      if (next === undefined) break;
      const loaded = await next.loaded;
      fill();
      const output = merging.merge(loaded, pool);
      const { item } = next;
      const tensor = plan.tensors[item.tensor];
      const start = item.from * rowElements(tensor.shape) * DTYPE_BYTES[tensor.dtype];
      const record = item.last ? merging.finish() : undefined;
      if (item.last) merging = startTensor(options);
      const before = writing.at(-1)?.written ?? Promise.resolve();
      const written = options.files.writeBeside(tensor.name, start, output).then(async () => {
        pool.give(output);
        await before;
        // Behind the bytes of this tensor and of all before it.
        if (record) journal.note(tensor.name, record);
      });
      written.catch(() => undefined);
      writing.push({ bytes: item.bytes, written });
      options.progress({ bytes: output.length, tensor: tensor.name });
      if (writing.length >= STAGES - 1) await finishWrite();
    }
    while (writing.length > 0) await finishWrite();
  } finally {
    // Files may be closed only when nobody reads or writes them.
    await Promise.allSettled([...loading.map(({ loaded }) => loaded), ...writing.map(({ written }) => written)]);
  }
}

interface TensorMerging {
  /** Merges an item of the tensor; gives back its buffers, and the bytes of the output. */
  merge(loaded: LoadedItem, pool: BufferPool): Uint8Array;
  finish(): TensorRecord;
}

/** What is known of a tensor while its rows pass. */
function startTensor(options: ExecuteOptions): TensorMerging {
  const { plan, seed, threads, variant } = options;
  const hash = createHash('sha256');
  const record = createTensorRecord(options.diagnostics, threads);
  return {
    merge({ item, inputs, buffers }, pool): Uint8Array {
      const tensor = plan.tensors[item.tensor];
      const elements = (item.to - item.from) * rowElements(tensor.shape);
      const start = item.from * rowElements(tensor.shape) * DTYPE_BYTES[tensor.dtype];
      const output = pool.take(elements * DTYPE_BYTES[tensor.dtype], options.files.phase(tensor.name, start));
      const surveyed = options.surveyed(tensor);
      const task: MergedTask = {
        wholeShape: tensor.shape,
        name: tensor.name,
        inputs,
        parameters: tensor.parameters,
        output: { dtype: tensor.dtype, shape: shapeOfRows(tensor.shape, item), bytes: output },
        firstElement: item.from * rowElements(tensor.shape),
        seed,
        threads,
        variant,
        ...(surveyed && { surveyed }),
      };
      const method = tensor.copied ? passthrough : plan.method;
      const counts = record.add(task, method.merge(task));
      if (!options.allowNonFinite) checkFinite(task, counts);
      hash.update(output);
      for (const buffer of buffers) pool.give(buffer);
      return output;
    },
    finish: () => record.finish(hash.digest('hex')),
  };
}

/** @throws InputError naming the model and tensor with values that are NaN or infinite */
function checkFinite(task: MergeTask, { inputs, output }: NonFiniteCounts): void {
  for (const [i, count] of inputs.entries())
    if (count > 0)
      throw new InputError(
        `${task.inputs[i].model}: tensor ${task.name}: ${count} of ${elementCount(task.output.shape)} values are NaN or ` +
          'infinite: repair the model, or pass --allow-nonfinite to merge it all the same',
      );
  if (output > 0)
    throw new InputError(
      `tensor ${task.name}: the merge gives ${output} values that ${task.output.dtype} cannot hold (NaN or infinite): ` +
        'check weights and lambda, choose a wider dtype, or pass --allow-nonfinite',
    );
}
