import type { MergeArguments } from '../src/fusion/merge/merge-arguments.js';
import { type PlannedDocument, planModels, SAMPLE_ENDS, SAMPLE_STARTS } from '../src/fusion/merge/plan-job.js';
import { type SummaryCell, summaryTable } from '../src/report/summary-table.js';
import { runInThread } from './run-in-thread.js';

const PLAN_JOB = new URL('../src/fusion/merge/plan-job.js', import.meta.url).href;

/** What a disk is taken to write in the estimate of time. */
const WRITTEN_PER_SECOND = 5e8;

/** What `--dry-run` prints. Times are of reading and merging at the speed of a sample, and of writing as much. */
export async function planOf(args: MergeArguments): Promise<string> {
  const samples: number[] = [];
  let started = 0;
  const onProgress = (value: unknown): void => {
    if (value === SAMPLE_STARTS) started = performance.now();
    if (value === SAMPLE_ENDS) samples.push((performance.now() - started) / 1e3);
  };
  const plans = await runInThread({ module: PLAN_JOB, job: planModels }, args, onProgress, args.threads);
  return plans
    .map((plan) => {
      const { elements, sampleElements, bytesWritten } = plan;
      const sampled = sampleElements > 0 ? (samples.shift() ?? Number.NaN) : Number.NaN;
      return planText(plan, (sampled * elements) / sampleElements + bytesWritten / WRITTEN_PER_SECOND);
    })
    .join('\n');
}

function planText(plan: PlannedDocument, seconds: number): string {
  const rows = plan.tensors.map(({ name, shape, dtype, parameters }): SummaryCell[] => [
    name,
    shape,
    dtype,
    parameters,
  ]);
  const facts: SummaryCell[][] = [
    ['document', plan.name ?? 'the output'],
    ['directory', plan.out],
    ['method', plan.method],
    ['models', plan.models.join(', ')],
    ['bytes read', plan.bytesRead],
    ['bytes written', plan.bytesWritten],
    ['peak memory in bytes, about', plan.peakBytes],
    ['seconds, about', Number.isFinite(seconds) ? seconds.toPrecision(2) : 'unknown until the models are there'],
    ...plan.warnings.map((warning): SummaryCell[] => ['warning', warning]),
  ];
  return `${summaryTable(['tensor', 'shape', 'dtype', 'parameters'], rows)}${summaryTable(['plan', 'value'], facts)}`;
}
