import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import type { InputLedger } from '../src/formats/inputs.js';
import type { SteeringVectors } from '../src/steering/types.js';
import {
  averageBlocks,
  combineVectors,
  mergeBlocks,
  orthogonalise,
  unitVectors,
} from '../src/steering/vector-algebra.js';
import { vectorFormat } from '../src/steering/vector-files/vector-files.js';
import { parseChoice, parseInteger } from './edge-values.js';
import { attachShared, requireOption } from './shared-options.js';
import { vectorParameters } from './steer-export.js';
import {
  addVectorFileOptions,
  readVectorSources,
  type VectorFileOptions,
  type VectorModel,
  type VectorSource,
} from './vector-files.js';
import { describeVectorCommand, encodeByName, runVectorWork, VECTOR_SHARED } from './vector-run.js';

const OPERATIONS = ['add', 'orthogonalise', 'merge', 'average', 'unit', 'compare'] as const;
type Operation = (typeof OPERATIONS)[number];

interface OwnOptions extends VectorFileOptions {
  operation?: string;
  orthogonalTo?: string[];
  block?: string;
}

/** Declares `surprisal steer combine`. */
export function configure(command: Command): void {
  const read = attachShared(command, [...VECTOR_SHARED, 'table']);
  addVectorFileOptions(command, '1')
    .option('--operation <name>', `${OPERATIONS.join(', ')} (default add)`)
    .option('--orthogonal-to <file...>', 'vectors whose span orthogonalise takes out, block by block')
    .option('--block <n>', 'block that average writes the mean of all vectors for');
  describeVectorCommand(command, [
    'add: the weighted sum block by block (file:-1 subtracts). orthogonalise: what is left of the one file. merge: one',
    'file of the blocks of several. average: the mean over files and blocks. unit: length 1. compare: cosines only.',
    'Every operation reports the cosines between all vectors that were read; --table has them by pair.',
  ]);
  command.action(async () => {
    const options = await read();
    const own = command.opts<OwnOptions>();
    const operation = parseChoice('--operation', own.operation ?? 'add', OPERATIONS);
    refuseStray(operation, own, options.out);
    const out = operation === 'compare' ? undefined : requireOption(options.out, '--out', 'the file to write');
    const format = out === undefined ? 'safetensors' : vectorFormat(out);
    const work = operationOf(operation, own);
    process.exitCode = await runVectorWork({ ...options, out }, own, {
      command: 'steer combine',
      operation,
      parameters: {
        ...vectorParameters(own),
        operation,
        orthogonal_to: [...(own.orthogonalTo ?? [])],
        block: own.block === undefined ? null : Number(own.block),
      },
      read: (ledger, model) => readAll(own, ledger, model),
      ...(work && { combine: work }),
      encode: (file, vectors) => encodeByName(file, vectors, format),
    });
  });
}

/** Options that an operation would ignore. */
function refuseStray(operation: Operation, own: OwnOptions, out: string | undefined): void {
  const stray: [boolean, string, Operation[]][] = [
    [own.orthogonalTo !== undefined, '--orthogonal-to', ['orthogonalise']],
    [own.block !== undefined, '--block', ['average']],
    [own.strength !== undefined, '--strength', ['add']],
    [out !== undefined, '--out', ['add', 'orthogonalise', 'merge', 'average', 'unit']],
  ];
  for (const [given, flag, read] of stray) {
    if (given && !read.includes(operation)) {
      throw new InputError(`${flag} is not read by --operation ${operation}; it belongs to ${read.join(', ')}`);
    }
  }
}

/** The files, then those of `--orthogonal-to`, which are read in the same way. */
function readAll(own: OwnOptions, ledger: InputLedger, model: VectorModel | undefined): VectorSource[] {
  const sources = readVectorSources(own, 1, ledger, model?.fitted);
  const others = own.orthogonalTo ?? [];
  if (others.length === 0) return sources;
  return [...sources, ...readVectorSources({ ...own, vector: others }, 1, ledger, model?.fitted)];
}

function operationOf(
  operation: Operation,
  own: OwnOptions,
): ((sources: readonly VectorSource[]) => SteeringVectors) | undefined {
  const weightless = (sources: readonly VectorSource[]): readonly VectorSource[] => {
    const weighted = sources.find(({ weight }) => weight !== 1);
    if (weighted) throw new InputError(`${weighted.name}: --operation ${operation} takes no strengths; add does`);
    return sources;
  };
  const only = (sources: readonly VectorSource[], count: number): VectorSource => {
    if (count !== 1) throw new InputError(`--operation ${operation} changes one file, and --vector names ${count}`);
    return sources[0];
  };
  switch (operation) {
    case 'add':
      return combineVectors;
    case 'merge':
      return (sources) => mergeBlocks(weightless(sources));
    case 'unit':
      return (sources) => unitVectors(only(weightless(sources), sources.length));
    case 'average': {
      const text = requireOption(own.block, '--block', 'the block that the mean is for');
      const block = parseInteger('--block', text, -1);
      return (sources) => averageBlocks(weightless(sources), block);
    }
    case 'orthogonalise': {
      const others = requireOption(own.orthogonalTo, '--orthogonal-to', 'the vectors to take out').length;
      return (sources) => {
        const of = only(weightless(sources), sources.length - others);
        return orthogonalise(of, sources.slice(sources.length - others));
      };
    }
    case 'compare':
      return undefined;
  }
}
