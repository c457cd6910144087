import { setImmediate } from 'node:timers/promises';
import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { sha256Files } from '../src/formats/hash.js';
import { resolveModelPath } from '../src/formats/hub.js';
import { VERIFY_SCHEMA, type Verification, type VerifiedTensor, verifyModel } from '../src/quantization/verify.js';
import { buildReport, writeReport } from '../src/report/json.js';
import { createProgress } from '../src/report/progress.js';
import { type SummaryCell, summaryTable } from '../src/report/summary-table.js';
import { reportObject } from '../src/report/values.js';
import { prepareAsserts } from './edge-asserts.js';
import { openOutputs } from './edge-outputs.js';
import { defaultMaxMemoryBytes } from './edge-resources.js';
import { toolVersion } from './edge-version.js';
import { noticeSlowKernels } from './kernel-notice.js';
import { startRunTimings } from './run-timings.js';
import { attachShared } from './shared-options.js';

const SHARED = ['report', 'table', 'threads', 'assert', 'baseline', 'timings', 'quiet', 'force'] as const;

interface OwnOptions {
  readonly source?: string;
}

const COLUMNS = [
  'name',
  'group_length',
  'pulses',
  'super_group',
  'gain_bits',
  'rotation',
  'weights',
  'payload_bytes',
  'metadata_bytes',
  'bits_per_weight',
  'groups',
  'zero_groups',
  'crc32',
  'mean_square',
  'mse',
  'sqnr_db',
  'cosine',
  'max_abs_error',
  'reported_sqnr_db',
  'reported_cosine',
  'holds',
] as const;

function tableRow(tensor: VerifiedTensor): (string | number | boolean | null)[] {
  const { error, shape: _, ...fields } = tensor;
  const flat = { ...fields, mean_square: null, mse: null, sqnr_db: null, cosine: null, max_abs_error: null, ...error };
  return COLUMNS.map((column) => flat[column]);
}

/** Declares `surprisal quantize-pvq verify`. */
export function configure(command: Command): void {
  command.argument('<model>', 'a directory that quantize-pvq wrote');
  const read = attachShared(command, SHARED);
  command.option('--source <model>', 'the model that was quantised: errors of the decoded weights are measured');
  command.action(async (model: string) => {
    const options = await read();
    const { source } = command.opts<OwnOptions>();
    const { path } = resolveModelPath(model, process.env);
    const sourcePath = source === undefined ? undefined : resolveModelPath(source, process.env).path;
    const asserts = await prepareAsserts(options.assert, options.baseline);
    const timings = startRunTimings('quantize-pvq verify');
    const outputs = openOutputs([], { force: options.force });
    noticeSlowKernels();
    const progress = await createProgress({
      stream: process.stderr,
      quiet: options.quiet,
      unit: 'tensors',
      now: () => performance.now(),
    });
    try {
      const reportFile = outputs.file('--report', options.report);
      const table = outputs.table('--table', options.table, COLUMNS);
      const timingsFile = outputs.file('--timings', options.timings);
      timings.begin('decode and compare');
      const verified = await verifyModel({
        model: path,
        ...(sourcePath !== undefined && { source: sourcePath }),
        threads: options.threads,
        progress: async (done, total, name) => {
          progress.setTotal(total);
          progress.update(done, name);
          await setImmediate();
        },
      });
      progress.stop();
      timings.begin('hash the inputs');
      const inputs = [path, ...(sourcePath === undefined ? [] : [sourcePath])];
      const digests = (await Promise.all(inputs.map(sha256Files))).flat();
      const report = buildReport(
        {
          name: VERIFY_SCHEMA,
          tool: { name: 'surprisal', version: toolVersion() },
          command: 'quantize-pvq verify',
          parameters: { model, source: source ?? null },
          inputs: digests.map(({ name, sha256, bytes }) => ({ path: name, sha256, bytes })),
        },
        reportObject({ verified: verified.problems.length === 0, ...verified }),
      );
      if (reportFile) writeReport(report, reportFile);
      for (const tensor of verified.tensors) table?.write(tableRow(tensor));
      if (timingsFile) timings.write(timingsFile, { ...options, maxMemory: defaultMaxMemoryBytes() });
      outputs.commit();
      if (!options.quiet) process.stdout.write(show(verified));
      refuse(model, verified);
      process.exitCode = asserts.check(report);
    } catch (error) {
      progress.stop();
      outputs.abort();
      throw error;
    }
  });
}

function show(verified: Verification): string {
  const measured = verified.tensors.some((tensor) => tensor.error !== null);
  const header = ['tensor', 'D', 'K', 'gain bits', 'bits/weight', ...(measured ? ['SQNR dB', 'cosine'] : []), 'holds'];
  const rows = verified.tensors.map((tensor): SummaryCell[] => [
    tensor.name,
    tensor.group_length,
    tensor.pulses,
    tensor.gain_bits,
    tensor.bits_per_weight,
    ...(measured ? [tensor.error?.sqnr_db, tensor.error?.cosine] : []),
    tensor.holds ? 'yes' : 'NO',
  ]);
  const total: SummaryCell[] = ['all', undefined, undefined, undefined, verified.bits_per_weight];
  const holds = verified.problems.length === 0 ? 'yes' : 'NO';
  return summaryTable(header, [
    ...rows,
    [...total, ...(measured ? [verified.sqnr_db ?? undefined, undefined] : []), holds],
  ]);
}

/** The first problem, and how many more there are. */
function refuse(model: string, { problems }: Verification): void {
  if (problems.length === 0) return;
  const [{ tensor, row, problem }] = problems;
  const where = `${tensor === null ? '' : `tensor "${tensor}"`}${row === null ? '' : `, row ${row}`}`;
  const more = problems.length > 1 ? `; ${problems.length - 1} more problems are in --report` : '';
  throw new InputError(`${model}: ${where === '' ? '' : `${where}: `}${problem}${more}`);
}
