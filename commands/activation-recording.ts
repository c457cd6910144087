import { RECORD_PREACTIVATIONS } from '../src/distillation/preactivation-job.js';
import { runWindowJob } from '../src/entropy/window-batches.js';
import { InputError } from '../src/errors.js';
import type { FeatureSource } from '../src/formats/feature-matrix.js';
import { resolveModelPath } from '../src/formats/hub.js';
import type { InputDigest } from '../src/formats/inputs.js';
import { openModelFiles } from '../src/models/model-files.js';
import { createRandom } from '../src/random.js';
import type { AnalysisContext } from './analysis-run.js';
import { openModelSession } from './model-session.js';
import { documentsOf, windowOptions } from './scored-text.js';
import type { SharedOptions } from './shared-options.js';

export type RecordingOptions = Pick<
  SharedOptions,
  'data' | 'dataFormat' | 'textSplit' | 'textField' | 'limit' | 'device' | 'context' | 'threads' | 'maxMemory' | 'seed'
>;

/** With more entries than this, half of them are dropped: all entries of the text have the same chance to stay. */
const MOST_INPUTS = 2_000_000;
/** Streams of the seed: batches have the even ones. */
const THINNING = 1;

/** Inputs of the activation of one block, recorded on a text: at most two million entries, drawn evenly. */
export async function recordActivationInputs(
  model: string,
  layer: number,
  options: RecordingOptions,
  context: AnalysisContext,
): Promise<{ readonly source: FeatureSource; readonly digests: readonly InputDigest[] }> {
  const { path } = resolveModelPath(model, process.env);
  const files = openModelFiles(path);
  files.store.close();
  const { layers, maxPositions } = files.description;
  if (layer >= layers.length) throw new InputError(`--layer ${layer}: ${model} has blocks 0 to ${layers.length - 1}`);
  context.timings.begin('record');
  const session = await openModelSession(model, { ...options, precision: 'f32' });
  try {
    const { host } = session;
    const subject = { ...session, name: model, vocabularySize: host.info.vocabularySize, maxPositions };
    const windows = windowOptions({ stride: undefined }, {}, subject);
    const documents = documentsOf(
      options.data,
      { ...options, stride: undefined, shard: undefined },
      {},
      context.ledger,
      subject,
    );
    const random = createRandom(options.seed).fork(THINNING);
    const thinned = (values: Float32Array, share: number): Float32Array =>
      share === 1 ? values : values.filter(() => random.uniform() < share);
    const shares: number[] = [];
    let share = 1;
    let data: Float32Array = new Float32Array(0);
    let batch = 0;
    const results = runWindowJob(documents, host, RECORD_PREACTIVATIONS, {
      windows,
      rowsPerBatch: host.info.rowsPerBatch,
      argumentsOf(head) {
        shares.push(share);
        return { ...head, layer, share, seed: options.seed, batch: 2 * shares.length };
      },
    });
    for await (const { result } of results) {
      if (!result) continue;
      // The share may have fallen since the batch was sent off.
      const part = thinned(result, share / shares[batch++]);
      const joined = new Float32Array(data.length + part.length);
      joined.set(data);
      joined.set(part, data.length);
      data = joined;
      while (data.length > MOST_INPUTS) {
        share /= 2;
        data = thinned(data, 0.5);
      }
    }
    if (data.length === 0)
      throw new InputError(`${options.data.join(', ')}: no token was read: the documents are empty`);
    const source: FeatureSource = {
      kind: 'array',
      name: `${model}, block ${layer}`,
      data,
      rows: data.length,
      columns: 1,
    };
    return { source, digests: await session.digests() };
  } finally {
    await session.close();
  }
}
