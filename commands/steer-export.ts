import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { vectorFormat } from '../src/steering/vector-files/vector-files.js';
import { attachShared, requireOption } from './shared-options.js';
import { addVectorFileOptions, readVectorSources, type VectorFileOptions } from './vector-files.js';
import { describeVectorCommand, encodeByName, runVectorWork, VECTOR_SHARED, weightedSum } from './vector-run.js';

interface OwnOptions extends VectorFileOptions {
  moveBlockZero?: boolean;
}

/** Declares `surprisal steer export`. */
export function configure(command: Command): void {
  const read = attachShared(command, VECTOR_SHARED);
  addVectorFileOptions(command, '1').option(
    '--move-block-zero',
    'write the vector of block 0 as one of block 1, where GGUF cannot hold it',
  );
  describeVectorCommand(command, [
    'The format is that of the name of --out: .gguf (a control vector of llama.cpp), .safetensors, .json, .svec, .npy.',
    'Several files add up. With --model the vectors are checked against it, and the file names it.',
  ]);
  command.action(async () => {
    const options = await read();
    const own = command.opts<OwnOptions>();
    const out = requireOption(options.out, '--out', 'the file to write');
    const format = vectorFormat(out);
    if (own.moveBlockZero && format !== 'gguf') {
      throw new InputError(`--move-block-zero has no meaning with --out ${out}: only .gguf cannot hold block 0`);
    }
    process.exitCode = await runVectorWork({ ...options, out }, own, {
      command: 'steer export',
      operation: 'convert',
      parameters: { ...vectorParameters(own), move_block_zero: own.moveBlockZero === true },
      read: (ledger, model) => readVectorSources(own, 1, ledger, model?.fitted),
      combine: weightedSum,
      encode: (file, vectors) => encodeByName(file, vectors, format, own.moveBlockZero),
    });
  });
}

/** Options of {@link readVectorSources} as a report has them. */
export function vectorParameters(own: VectorFileOptions) {
  return {
    vector: [...(own.vector ?? [])],
    strength: own.strength === undefined ? null : Number(own.strength),
    layer: own.layer ?? null,
    from: own.from ?? null,
    file_layer: own.fileLayer === undefined ? null : Number(own.fileLayer),
    cvector_shift: own.cvectorShift === undefined ? null : Number(own.cvectorShift),
    point: own.point ?? 'applied',
  };
}
