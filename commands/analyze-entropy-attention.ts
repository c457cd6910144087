import type { Command } from 'commander';
import { FIT_ATTENTION, type FitBatch } from '../src/entropy/attention-fit-job.js';
import { MEASURE_ATTENTION } from '../src/entropy/attention-job.js';
import { fitReport, regulariserGradients } from '../src/entropy/attention-regulariser-report.js';
import { ATTENTION_SCHEMA, type AttentionBody, attentionBody } from '../src/entropy/attention-report.js';
import {
  type AttentionRun,
  attentionRunToJson,
  createAttentionRun,
  foldAttention,
  isPrecise,
} from '../src/entropy/attention-run.js';
import type { HeadValues, RegulariserSettings } from '../src/entropy/attention-settings.js';
import { HEAD_COLUMNS, headRows, POSITION_COLUMNS, positionRows } from '../src/entropy/attention-table.js';
import { attentionReserveBytes, plainRowsPerRun } from '../src/entropy/attention-tap.js';
import { encodeHeadValues, type HeadTensor } from '../src/entropy/head-values.js';
import { runWindowJob } from '../src/entropy/window-batches.js';
import { InputError } from '../src/errors.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import {
  type AttentionNumbers,
  type AttentionOwnOptions,
  attentionFiles,
  attentionNumbers,
  attentionParameters,
  configureAttention,
  regulariserOption,
  temperaturesOption,
} from './attention-options.js';
import { runStoredAttention } from './attention-stored.js';
import {
  configureWindowView,
  runWindowView,
  type WindowInputs,
  type WindowOutcome,
  type WindowView,
  type WindowViewOptions,
} from './window-view.js';

/** Batches of a run whose result depends on where they end have a size of their own, not one that memory chooses. */
const FIXED_BATCH_ROWS = 4096;

/** Declares `surprisal analyze-entropy attention`. */
export function configure(command: Command): void {
  const read = configureWindowView(command);
  configureAttention(command);
  command.action(async () => {
    const options = await read();
    const own = command.opts<AttentionOwnOptions>();
    const stored = own.attention;
    process.exitCode =
      stored === undefined
        ? await runWindowView(VIEW, options, own)
        : await runStoredAttention(stored, own, options, summary);
  });
}

const VIEW: WindowView<AttentionOwnOptions> = {
  name: ATTENTION_SCHEMA,
  columns: HEAD_COLUMNS,
  tableColumns: POSITION_COLUMNS,
  parameters: (own, options) => attentionParameters(own, attentionNumbers(own, options)),
  files: attentionFiles,
  reserveBytes: attentionReserveBytes,
  plan(description, context, precision) {
    const rows = plainRowsPerRun(description, context, precision);
    return [['queries per run, at most', rows ?? "the engine's"]];
  },
  run: measure,
};

/** A run over all documents, and what the fit found where there was one. */
interface Measured {
  readonly run: AttentionRun;
  readonly regulariser: RegulariserSettings | undefined;
  readonly fit: FitBatch | undefined;
}

async function measure(
  inputs: WindowInputs,
  own: AttentionOwnOptions,
  options: WindowViewOptions,
): Promise<WindowOutcome> {
  const numbers = attentionNumbers(own, options);
  const { description } = inputs;
  const context = inputs.windows.context;
  const { run, regulariser, fit } = await measureHeads(inputs, own, numbers);
  if (inputs.writeTableRow) for (const row of positionRows(run)) inputs.writeTableRow(row);
  const how = { perPosition: numbers.perPosition, learnt: own.thresholds === 'learn' };
  const body = attentionBody(run, {
    convention: inputs.convention,
    contextTokens: context,
    windows: description.layers.map((layer) => layer.attention.window ?? null),
    seed: options.seed,
    ...(regulariser && { regulariser }),
    ...(fit && regulariser && { fit: fitReport(fit, regulariser, context, how) }),
  });
  return {
    body,
    partial: () => attentionRunToJson(run),
    rows: () => headRows(body),
    figure: async (subtitle) => (await import('../src/entropy/attention-plot.js')).drawAttention(body, subtitle),
    summary: { header: ['figure', 'value'], rows: summary(body) },
    measured: run.queries,
    files: () => ownFiles(own, { run, regulariser, fit }),
  };
}

async function measureHeads(
  inputs: WindowInputs,
  own: AttentionOwnOptions,
  numbers: AttentionNumbers,
): Promise<Measured> {
  const { host, description, windows, documents } = inputs;
  const context = windows.context;
  const layers = description.layers.length;
  const { heads } = description.layers[0].attention;
  const shape = { layers, heads, positions: context };
  const positions = numbers.perPosition ? context : 1;
  const temperatures = temperaturesOption(own, shape);
  const regulariser = regulariserOption(own, numbers, shape, context);
  const gradientPositions = own.gradients === undefined ? undefined : positions;
  const run = createAttentionRun(layers, heads);
  const folder = foldAttention(run);

  if (own.fitTemperatures && regulariser) {
    const start = atPositions(temperatures, layers * heads, positions);
    const [batch] = await all(
      runWindowJob(documents, host, FIT_ATTENTION, {
        windows,
        rowsPerBatch: Number.POSITIVE_INFINITY,
        argumentsOf: (head) => ({
          ...head,
          context,
          start,
          regulariser,
          learnThresholds: own.thresholds === 'learn',
          ...(gradientPositions !== undefined && { gradientPositions }),
          passes: numbers.passes,
          maxBytes: Math.max(0, inputs.maxMemory - (host.info.peakBytes ?? 0)),
        }),
      }),
    );
    const fit = batch?.result;
    if (batch) folder.add({ ...batch, result: fit?.before });
    if (batch) inputs.onRows(batch.rows);
    folder.finish();
    return { run, fit, regulariser: fit ? { ...regulariser, thresholds: fit.thresholds } : regulariser };
  }

  const fixed = numbers.targetSe !== undefined || gradientPositions !== undefined;
  const batches = runWindowJob(documents, host, MEASURE_ATTENTION, {
    windows,
    rowsPerBatch: fixed ? Math.max(context, FIXED_BATCH_ROWS) : host.info.rowsPerBatch,
    argumentsOf: (head) => ({
      ...head,
      context,
      ...(temperatures && { temperatures }),
      ...(regulariser && { regulariser }),
      ...(gradientPositions !== undefined && { gradientPositions }),
    }),
  });
  for await (const batch of batches) {
    folder.add(batch);
    inputs.onRows(batch.rows);
    if (numbers.targetSe !== undefined && isPrecise(run, context, numbers.targetSe)) break;
  }
  folder.finish();
  return { run, regulariser, fit: undefined };
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const item of items) list.push(item);
  return list;
}

/**
 * Temperatures `[layers * heads, positions]` to start from; 1 where none are given.
 * @throws InputError when they differ by position and the fit shall not
 */
function atPositions(given: HeadValues | undefined, size: number, positions: number): HeadValues {
  if (!given) return { values: new Float64Array(size * positions).fill(1), positions };
  if (given.positions === positions) return given;
  if (positions === 1) {
    throw new InputError('--temperatures holds values by position, --temperature-per head has none; fit by position');
  }
  const values = new Float64Array(size * positions);
  for (let i = 0; i < size; i++) {
    const own = given.values.subarray(i * given.positions, (i + 1) * given.positions);
    for (let p = 0; p < positions; p++) values[i * positions + p] = own[given.positions === 1 ? 0 : p];
  }
  return { values, positions };
}

/** Bytes of `--temperatures-out` and `--gradients`. */
function ownFiles(own: AttentionOwnOptions, { run, regulariser, fit }: Measured): ReadonlyMap<string, Uint8Array> {
  const files = new Map<string, Uint8Array>();
  const { layers, heads } = run.statistics;
  const size = layers * heads;
  const tensor = (name: string, data: Float64Array): HeadTensor => {
    const positions = data.length / size;
    return { name, data, shape: positions === 1 ? [layers, heads] : [layers, heads, positions] };
  };
  if (own.temperaturesOut !== undefined && fit) {
    const tensors = [tensor('temperatures', fit.temperatures)];
    if (!own.temperaturesOut.toLowerCase().endsWith('.npy')) tensors.push(tensor('thresholds', fit.thresholds));
    files.set('--temperatures-out', encodeHeadValues(own.temperaturesOut, tensors));
  }
  if (own.gradients !== undefined && regulariser) {
    const { thresholds, temperatures } = regulariserGradients(run, regulariser);
    const tensors = [tensor('thresholds', thresholds), tensor('temperatures', temperatures)];
    files.set('--gradients', encodeHeadValues(own.gradients, tensors));
  }
  return files;
}

function summary(body: AttentionBody): SummaryCell[][] {
  const { diagnosis, bins, regulariser, fit } = body;
  const percent = (shares: readonly number[]): string =>
    shares.map((share) => `${Math.round(100 * share)}%`).join(', ');
  const named = (flag: string): string => {
    const heads = body.offending_heads
      .filter((head) => head.flag === flag)
      .map(({ layer, head }) => `${layer}.${head}`);
    if (heads.length === 0) return 'none';
    return heads.length > 12 ? `${heads.slice(0, 12).join(' ')} and ${heads.length - 12} more` : heads.join(' ');
  };
  return [
    ['documents', body.documents],
    ['queries', body.queries],
    ['heads', `${body.layers} layers x ${body.heads}`],
    ['mean entropy, nats', body.mean_entropy_nats],
    ['mean share of log(visible keys)', body.mean_normalized_entropy],
    ['mean share of log(context)', body.mean_share_of_log_context],
    ['heads by quarter of the largest', percent(bins.relative.shares)],
    ['heads by quarter of log(context)', percent(bins.absolute.shares)],
    ['verdict', diagnosis.verdict],
    ['heads in the top quarter', named('overload')],
    ['heads in the bottom quarter', named('collapse')],
    ...(regulariser ? [[`regulariser (${regulariser.variant}), loss`, regulariser.loss]] : []),
    ...(fit
      ? [
          ['loss after the fit', fit.loss_after],
          ['mean entropy after the fit, nats', fit.mean_entropy_nats_after],
          ['heads by quarter of log(context) after the fit', percent(fit.absolute_shares_after)],
          ['fit settled', fit.settled ? 'yes' : 'no: raise --passes'],
        ]
      : []),
  ];
}
