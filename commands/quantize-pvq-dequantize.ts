import { setImmediate } from 'node:timers/promises';
import type { Command } from 'commander';
import { sha256Files } from '../src/formats/hash.js';
import { resolveModelPath } from '../src/formats/hub.js';
import { DEQUANTIZED_DTYPES, dequantizeModel, planDequantization } from '../src/quantization/dequantize.js';
import { createProgress } from '../src/report/progress.js';
import { summaryTable } from '../src/report/summary-table.js';
import { openOutputs } from './edge-outputs.js';
import { defaultMaxMemoryBytes } from './edge-resources.js';
import { parseChoice } from './edge-values.js';
import { toolVersion } from './edge-version.js';
import { noticeSlowKernels } from './kernel-notice.js';
import { startRunTimings } from './run-timings.js';
import { attachShared, requireOption } from './shared-options.js';

const SHARED = ['model', 'out', 'threads', 'timings', 'quiet', 'dryRun', 'force'] as const;

interface OwnOptions {
  readonly dtype?: string;
  readonly clamp?: boolean;
}

/** Declares `surprisal quantize-pvq dequantize`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option('--dtype <type>', `type of the weights: ${DEQUANTIZED_DTYPES.join(', ')} (default bf16)`)
    .option('--clamp', 'values that the type cannot hold become its largest instead of an error');
  command.action(async () => {
    const options = await read();
    const own = command.opts<OwnOptions>();
    const model = requireOption(options.model, '--model', 'a directory that quantize-pvq wrote');
    const out = requireOption(options.out, '--out', 'the directory to write');
    const dtype = parseChoice('--dtype', own.dtype ?? 'bf16', DEQUANTIZED_DTYPES);
    const { path } = resolveModelPath(model, process.env);
    const plan = planDequantization({ model: path, dtype, threads: options.threads });
    if (options.dryRun) {
      const rows = [
        ['tensors', plan.tensors],
        ['of them quantised', plan.decoded],
        ['bytes read', plan.bytesRead],
        ['bytes written', plan.bytesWritten],
        ['peak memory in bytes, about', plan.peakBytes],
      ];
      process.stdout.write(summaryTable(['plan', 'value'], rows));
      return;
    }
    noticeSlowKernels();
    const timings = startRunTimings('quantize-pvq dequantize');
    const outputs = openOutputs([], { force: options.force });
    const progress = await createProgress({
      stream: process.stderr,
      quiet: options.quiet,
      unit: 'tensors',
      now: () => performance.now(),
    });
    try {
      const timingsFile = outputs.file('--timings', options.timings);
      timings.begin('hash the inputs');
      const inputs = await sha256Files(path);
      timings.begin('decode and write');
      const manifest = await dequantizeModel({
        model: path,
        out,
        dtype,
        clamp: own.clamp === true,
        threads: options.threads,
        force: options.force,
        head: {
          tool: { name: 'surprisal', version: toolVersion() },
          command: 'quantize-pvq dequantize',
          parameters: { model, dtype, clamp: own.clamp === true },
          inputs: inputs.map(({ name, sha256, bytes }) => ({ path: name, sha256, bytes })),
        },
        progress: async (done, total, name) => {
          progress.setTotal(total);
          progress.update(done, name);
          await setImmediate();
        },
      });
      progress.stop();
      timings.count('weights', plan.weights);
      if (timingsFile) timings.write(timingsFile, { ...options, maxMemory: defaultMaxMemoryBytes() });
      outputs.commit();
      if (options.quiet) return;
      const rows = [
        ['tensors', manifest.tensors as number],
        ['of them decoded', manifest.decoded_tensors as number],
        ['clamped values', manifest.clamped_values as number],
        ['written to', out],
      ];
      process.stdout.write(summaryTable(['dequantised', dtype], rows));
    } catch (error) {
      progress.stop();
      outputs.abort();
      throw error;
    }
  });
}
