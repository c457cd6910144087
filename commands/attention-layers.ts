import { MEASURE_ATTENTION } from '../src/entropy/attention-job.js';
import { attentionBody } from '../src/entropy/attention-report.js';
import { createAttentionRun, foldAttention } from '../src/entropy/attention-run.js';
import { attentionReserveBytes } from '../src/entropy/attention-tap.js';
import { runWindowJob } from '../src/entropy/window-batches.js';
import { InputError } from '../src/errors.js';
import { resolveModelPath } from '../src/formats/hub.js';
import { createInputLedger } from '../src/formats/inputs.js';
import { openModelFiles } from '../src/models/model-files.js';
import type { AttentionLayerReport } from '../src/representations/representations-report.js';
import type { AnalysisContext } from './analysis-run.js';
import type { FeatureOwnOptions, FeatureSharedOptions } from './feature-inputs.js';
import { DEFAULT_CONTEXT, openModelSession, parsePrecision } from './model-session.js';
import { documentsOf, windowOptions } from './scored-text.js';

/**
 * Mean attention entropy of every block on the text of a run: a second pass through the model, over the windows of
 * `analyze-entropy attention`.
 * @throws InputError for a model whose layers cannot be reached, a text without tokens
 */
export async function attentionByLayer(
  model: string,
  options: FeatureSharedOptions,
  own: FeatureOwnOptions,
  context: AnalysisContext,
): Promise<AttentionLayerReport[]> {
  const { path } = resolveModelPath(model, process.env);
  const files = openModelFiles(path);
  files.store.close();
  const { layers, maxPositions } = files.description;
  const { heads } = layers[0].attention;
  const precision = parsePrecision(own.precision);
  const longest = options.context ?? Math.min(maxPositions, DEFAULT_CONTEXT);
  const reserveBytes = attentionReserveBytes(files.description, longest, precision);
  context.timings.begin('attention');
  const session = await openModelSession(model, {
    ...options,
    maxMemory: Math.floor(options.maxMemory / 2),
    precision,
    reserveBytes,
  });
  try {
    const { host } = session;
    const subject = { ...session, name: model, vocabularySize: host.info.vocabularySize, maxPositions };
    const windows = windowOptions({ stride: undefined }, {}, subject);
    const run = createAttentionRun(layers.length, heads);
    const folder = foldAttention(run);
    const shared = { ...options, stride: undefined, shard: undefined };
    // The digests of the text are already in the run's own ledger.
    const documents = documentsOf(options.data, shared, own, createInputLedger(), subject);
    let tokens = 0;
    const batches = runWindowJob(documents, host, MEASURE_ATTENTION, {
      windows,
      rowsPerBatch: host.info.rowsPerBatch,
      argumentsOf: (head) => ({ ...head, context: windows.context }),
    });
    for await (const batch of batches) {
      folder.add(batch);
      tokens += batch.rows;
      context.progress.update(tokens, 'attention');
    }
    folder.finish();
    if (run.queries === 0)
      throw new InputError(`${options.data.join(', ')}: no token was read: the documents are empty`);
    const body = attentionBody(run, {
      convention: {},
      contextTokens: windows.context,
      windows: layers.map((layer) => layer.attention.window ?? null),
      seed: options.seed,
    });
    return body.by_layer.map((layer) => ({
      layer: layer.layer + 1,
      mean_entropy_nats: layer.mean_entropy_nats,
      mean_normalized_entropy: layer.mean_normalized_entropy,
    }));
  } finally {
    await session.close();
  }
}
