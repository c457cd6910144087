import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { vectorFormat } from '../src/steering/vector-files/vector-files.js';
import { attachShared, requireOption } from './shared-options.js';
import { vectorParameters } from './steer-export.js';
import { addVectorFileOptions, readVectorSources, type VectorFileOptions } from './vector-files.js';
import { describeVectorCommand, encodeByName, runVectorWork, VECTOR_SHARED, weightedSum } from './vector-run.js';

/** Formats that keep where vectors come from and how they are meant. */
const KEEPING = ['safetensors', 'json'];

/** Declares `surprisal steer import`. */
export function configure(command: Command): void {
  const read = attachShared(command, VECTOR_SHARED);
  addVectorFileOptions(command, '1');
  describeVectorCommand(command, [
    "Reads vectors of other tools into .safetensors or .json with 0-based blocks, added at the block's output, and says",
    'what had to be assumed. --model is what they were made for: a mismatch is refused, and the file names it.',
  ]);
  command.action(async () => {
    const options = await read();
    const own = command.opts<VectorFileOptions>();
    requireOption(options.model, '--model', 'the model that the vectors were made for');
    const out = requireOption(options.out, '--out', 'the .safetensors or .json file to write');
    const format = vectorFormat(out);
    if (!KEEPING.includes(format)) {
      throw new InputError(
        `--out ${out}: import writes .safetensors or .json, which keep the origin; use steer export`,
      );
    }
    process.exitCode = await runVectorWork({ ...options, out }, own, {
      command: 'steer import',
      operation: 'convert',
      parameters: vectorParameters(own),
      read: (ledger, model) => readVectorSources(own, 1, ledger, model?.fitted),
      combine: weightedSum,
      encode: (file, vectors) => encodeByName(file, vectors, format),
    });
  });
}
