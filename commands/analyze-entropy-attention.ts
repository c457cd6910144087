import type { Command } from 'commander';
import { attentionReserveBytes, attentionRowsPerRun, MEASURE_ATTENTION } from '../src/entropy/attention-job.js';
import { ATTENTION_SCHEMA, type AttentionBody, attentionBody } from '../src/entropy/attention-report.js';
import { attentionRunToJson, createAttentionRun, foldAttention, isPrecise } from '../src/entropy/attention-run.js';
import { HEAD_COLUMNS, headRows, POSITION_COLUMNS, positionRows } from '../src/entropy/attention-table.js';
import { runWindowJob } from '../src/entropy/window-batches.js';
import { InputError } from '../src/errors.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import { parseNumber } from './edge-values.js';
import {
  configureWindowView,
  runWindowView,
  type WindowInputs,
  type WindowOutcome,
  type WindowOwnOptions,
  type WindowView,
  type WindowViewOptions,
} from './window-view.js';

interface OwnOptions extends WindowOwnOptions {
  targetSe?: string;
}

/** Batches of a run that may stop early have a size of their own, so that where it stops does not depend on memory. */
const ROWS_TO_STOP_AT = 4096;

/** Declares `surprisal analyze-entropy attention`. */
export function configure(command: Command): void {
  const read = configureWindowView(command);
  command
    .option('--target-se <nats>', 'stop reading once every head is known to this standard error, such as 0.01')
    .action(async () => {
      process.exitCode = await runWindowView(VIEW, await read(), command.opts<OwnOptions>());
    });
}

function targetError(own: OwnOptions): number | undefined {
  if (own.targetSe === undefined) return undefined;
  const target = parseNumber('--target-se', own.targetSe, 0);
  if (target > 0) return target;
  throw new InputError(`--target-se ${own.targetSe}: a number above 0 is needed, such as 0.01`);
}

const VIEW: WindowView<OwnOptions> = {
  name: ATTENTION_SCHEMA,
  columns: HEAD_COLUMNS,
  tableColumns: POSITION_COLUMNS,
  parameters(own, options) {
    const target = targetError(own);
    if (target !== undefined && options.shard) {
      throw new InputError('--target-se and --shard exclude each other: where a run stops depends on all documents');
    }
    return { target_se_nats: target ?? null };
  },
  reserveBytes(description, context, precision) {
    const { heads } = description.layers[0].attention;
    return attentionReserveBytes(heads, context, precision === 'f32' ? 4 : 8);
  },
  plan(description, context, precision) {
    const { heads } = description.layers[0].attention;
    return [['queries per run, at most', attentionRowsPerRun(heads, context, precision === 'f32' ? 4 : 8)]];
  },
  run: measure,
};

async function measure(inputs: WindowInputs, own: OwnOptions, options: WindowViewOptions): Promise<WindowOutcome> {
  const { host, description, windows, documents } = inputs;
  const context = windows.context;
  const target = targetError(own);
  const run = createAttentionRun(description.layers.length, description.layers[0].attention.heads);
  const folder = foldAttention(run);
  const batches = runWindowJob(documents, host, MEASURE_ATTENTION, {
    windows,
    rowsPerBatch: target === undefined ? host.info.rowsPerBatch : Math.max(context, ROWS_TO_STOP_AT),
    argumentsOf: (head) => ({ ...head, context }),
  });
  for await (const batch of batches) {
    folder.add(batch);
    inputs.onRows(batch.rows);
    if (target !== undefined && isPrecise(run, context, target)) break;
  }
  folder.finish();
  if (inputs.writeTableRow) for (const row of positionRows(run)) inputs.writeTableRow(row);
  const body = attentionBody(run, {
    convention: inputs.convention,
    contextTokens: context,
    windows: description.layers.map((layer) => layer.attention.window ?? null),
    seed: options.seed,
  });
  return {
    body,
    partial: () => attentionRunToJson(run),
    rows: () => headRows(body),
    figure: async (subtitle) => (await import('../src/entropy/attention-plot.js')).drawAttention(body, subtitle),
    summary: { header: ['figure', 'value'], rows: summary(body) },
    measured: run.queries,
  };
}

function summary(body: AttentionBody): SummaryCell[][] {
  const { diagnosis, bins } = body;
  const [first, second, third, fourth] = bins.relative.shares;
  const shares = [first, second, third, fourth].map((share) => `${Math.round(100 * share)}%`).join(', ');
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
    ['heads by quarter of the largest', shares],
    ['verdict', diagnosis.verdict],
    ['heads in the top quarter', named('overload')],
    ['heads in the bottom quarter', named('collapse')],
  ];
}
