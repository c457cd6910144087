import type { Command } from 'commander';
import { momentBytes } from '../src/entropy/exact-moments.js';
import { MEASURE_LAYERS } from '../src/entropy/layers-job.js';
import { LAYER_COLUMNS, LAYERS_SCHEMA, type LayersBody, layerRows, layersBody } from '../src/entropy/layers-report.js';
import {
  createLayersRun,
  DOCUMENT_LAYER_COLUMNS,
  foldLayers,
  layersRunToJson,
  takesMoments,
  WIDEST_MOMENTS,
} from '../src/entropy/layers-run.js';
import { type PlacedWindow, runWindowJob, type WindowArguments } from '../src/entropy/window-batches.js';
import type { ModelDescription } from '../src/models/description.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import type { Precision } from './model-session.js';
import {
  configureWindowView,
  runWindowView,
  type WindowInputs,
  type WindowOutcome,
  type WindowOwnOptions,
  type WindowView,
} from './window-view.js';

/** Positions of a batch, unless one window is longer: several copies of their residual streams are held. */
const BATCH_ROWS = 2048;
/** Rows of the layer before, of this layer, of this layer normed, and of the final layer normed. */
const STREAM_COPIES = 4;
/** The batch's moments, those of the run, and one layer's on their way. */
const MOMENT_COPIES = 2;
/** Logits of the second set of rows in a block of the head. */
const LENS_BYTES = 32 << 20;

/** Declares `surprisal analyze-entropy layers`. */
export function configure(command: Command): void {
  const read = configureWindowView(command);
  command.action(async () => {
    process.exitCode = await runWindowView(VIEW, await read(), command.opts<WindowOwnOptions>());
  });
}

const VIEW: WindowView<WindowOwnOptions> = {
  name: LAYERS_SCHEMA,
  columns: LAYER_COLUMNS,
  tableColumns: DOCUMENT_LAYER_COLUMNS,
  parameters: () => ({}),
  reserveBytes(description, context, precision) {
    const { hiddenSize, layers } = description;
    const rows = Math.max(context, BATCH_ROWS);
    const streams = STREAM_COPIES * rows * hiddenSize * (precision === 'f32' ? 4 : 8);
    const moments = takesMoments(hiddenSize, layers.length)
      ? (MOMENT_COPIES * (layers.length + 1) + 1) * momentBytes(hiddenSize)
      : 0;
    return streams + moments + LENS_BYTES;
  },
  plan: describePasses,
  run: measure,
};

function describePasses(description: ModelDescription, context: number, _precision: Precision): SummaryCell[][] {
  const { hiddenSize, layers } = description;
  return [
    ['positions per batch', Math.max(context, BATCH_ROWS)],
    ['passes', `2 through the layers, ${2 * layers.length + 1} through the head`],
    ['effective rank', takesMoments(hiddenSize, layers.length) ? 'measured' : `left out: wider than ${WIDEST_MOMENTS}`],
  ];
}

async function measure(inputs: WindowInputs): Promise<WindowOutcome> {
  const { host, description, windows, documents } = inputs;
  const { hiddenSize, layers, vocabularySize } = description;
  const run = createLayersRun(layers.length, hiddenSize);
  const folder = foldLayers(run, inputs.writeTableRow);
  const moments = run.moments.length > 0;
  const batches = runWindowJob(documents, host, MEASURE_LAYERS, {
    windows,
    rowsPerBatch: Math.min(host.info.rowsPerBatch, Math.max(windows.context, BATCH_ROWS)),
    argumentsOf: (head, placed) => ({
      ...head,
      targets: targetsOf(head, placed),
      documents: placed.map(({ document }) => document.id),
      moments,
    }),
  });
  for await (const batch of batches) {
    folder.add(batch);
    inputs.onRows(batch.rows);
  }
  folder.finish();
  const body = layersBody(run, { convention: inputs.convention, hiddenSize, vocabularySize });
  return {
    body,
    partial: () => layersRunToJson(run),
    rows: () => layerRows(body),
    figure: async (subtitle) => (await import('../src/entropy/layers-plot.js')).drawLayers(body, subtitle),
    summary: summary(body),
    measured: run.positions,
  };
}

function targetsOf(head: WindowArguments, placed: readonly PlacedWindow[]): Int32Array {
  const targets = new Int32Array(head.wanted.reduce((sum, [from, to]) => sum + to - from, 0));
  let at = 0;
  for (const { window } of placed) {
    targets.set(window.targets, at);
    at += window.targets.length;
  }
  return targets;
}

function summary(body: LayersBody): { header: string[]; rows: SummaryCell[][] } {
  const header = ['layer', 'norm', 'lens entropy', 'KL to final', 'surprisal', 'top-1', 'cosine', 'effective rank'];
  return {
    header,
    rows: body.by_layer.map((layer) => [
      layer.layer,
      layer.residual_norm,
      layer.lens_entropy_nats,
      layer.lens_kl_to_final_nats,
      layer.lens_surprisal_nats,
      layer.lens_top1_agreement,
      layer.cosine_to_previous,
      layer.effective_rank ?? undefined,
    ]),
  };
}
