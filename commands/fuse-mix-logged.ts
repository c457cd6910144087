import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { readRecords } from '../src/formats/documents.js';
import type { InputLedger } from '../src/formats/inputs.js';
import { checkProportions } from '../src/fusion/mixing/exponentiated-gradient.js';
import { LOGGED_SCHEMA, loggedBody, loggedFigure } from '../src/fusion/mixing/logged-report.js';
import { type LoggedInputs, runLogged } from '../src/fusion/mixing/logged-run.js';
import {
  type LossLog,
  readAlignments,
  readGroupMatrix,
  readGroupNumbers,
  readLossLog,
  readSweep,
} from '../src/fusion/mixing/loss-log.js';
import { MIX_COLUMNS, mixRows } from '../src/fusion/mixing/round-report.js';
import { prunedGraph } from '../src/fusion/mixing/rows/skill-it.js';
import type { MixerStart, MixingMethod } from '../src/fusion/mixing/types.js';
import { runAnalysis } from './analysis-run.js';
import { flagOf, parseNumber } from './edge-values.js';
import {
  checkPrior,
  type MixShared,
  methodOf,
  type ParameterOptions,
  parameterValues,
  parseParameters,
  parseShares,
} from './fuse-mix-options.js';

/** Own options of the form that reads logged losses, as commander gives them. */
export interface LoggedOptions {
  readonly losses?: string;
  readonly referenceLosses?: string;
  readonly alignments?: string;
  readonly learningRate?: string;
  readonly graph?: string;
  readonly sweep?: string;
  readonly prior?: string;
}

type Own = LoggedOptions & ParameterOptions & { readonly method?: string };

/** Declares them; --prior and --learning-rate are declared by the form that trains. */
export function addLoggedOptions(command: Command): Command {
  return command
    .option('--losses <file>', 'logged losses: columns round, probe (start or a number), probe_group, group, val_loss')
    .option('--reference-losses <file>', 'doremi: losses of the reference model, columns group and loss')
    .option('--alignments <file>', 'doge: columns round, group, inner_product, norm; with --learning-rate')
    .option('--graph <file>', 'skill-it: a matrix, first column and header name groups, row = trained group')
    .option('--sweep <file>', 'dml: runs on static mixtures, columns p_<group> and loss_<group>');
}

/** The file that a method needs beside the log, and the option that names it. */
const NEEDS: Readonly<Record<string, keyof LoggedOptions>> = {
  doremi: 'referenceLosses',
  doge: 'alignments',
  'skill-it': 'graph',
  dml: 'sweep',
};

/** @throws InputError for a file that is missing, or that the method does not read */
function checkFiles(own: Own, method: MixingMethod): void {
  const needed = NEEDS[method.name];
  if (needed !== undefined && own[needed] === undefined)
    throw new InputError(`${method.name} needs ${flagOf(needed)} FILE`);
  for (const option of Object.values(NEEDS)) {
    if (option !== needed && own[option] !== undefined) {
      throw new InputError(`${flagOf(option)}: ${method.name} does not read it`);
    }
  }
  checkPrior(own, method);
  if (own.learningRate !== undefined && method.name !== 'doge') {
    throw new InputError(`--learning-rate: ${method.name} does not read it from a log`);
  }
  if (method.name === 'doge' && own.learningRate === undefined) throw new InputError('doge needs --learning-rate');
}

/** Proportions from logged losses: from the options to the exit code. */
export function mixLogged(options: MixShared, own: Own): Promise<number> {
  const method = methodOf(own.method);
  checkFiles(own, method);
  const path = own.losses ?? '';
  const files = [path, own.referenceLosses, own.alignments, own.graph, own.sweep].filter((file) => file !== undefined);
  const read = async (ledger: InputLedger) => {
    const rows = (file: string) => readRecords([file], { ledger });
    const log = await readLossLog(rows(path));
    const k = log.groups.length;
    const parameters = parseParameters(own, method, k);
    const start: MixerStart = {
      groups: log.groups,
      parameters,
      seed: options.seed,
      ...(own.prior !== undefined && {
        initial: checkProportions(parseShares('--prior', own.prior, log.groups), log.groups, '--prior'),
      }),
      ...(own.graph !== undefined && { graph: prunedGraph(await readGroupMatrix(rows(own.graph), log.groups), k) }),
      ...(own.sweep !== undefined && { sweep: await sweepOf(rows(own.sweep), log) }),
    };
    const inputs: LoggedInputs = {
      ...(own.referenceLosses !== undefined && {
        reference: await readGroupNumbers(rows(own.referenceLosses), 'loss', log.groups),
      }),
      ...(own.alignments !== undefined && {
        alignments: await alignmentsOf(rows(own.alignments), log),
        learningRate: parseNumber('--learning-rate', own.learningRate ?? '', 0),
      }),
    };
    return { log, start, inputs };
  };
  return runAnalysis(
    {
      name: LOGGED_SCHEMA,
      command: 'fuse mix',
      columns: MIX_COLUMNS,
      unit: 'rounds',
      inputs: files,
      parameters: {
        method: method.name,
        ...parameterValues(method, parseParameters(own, method, 2)),
        losses: path,
        reference_losses: own.referenceLosses ?? null,
        alignments: own.alignments ?? null,
        learning_rate: own.learningRate === undefined ? null : Number(own.learningRate),
        graph: own.graph ?? null,
        sweep: own.sweep ?? null,
        prior: own.prior ?? null,
        seed: options.seed,
      },
      subtitle: `${method.name} on ${path}`,
    },
    { ...options, shard: undefined },
    {
      async measure(context) {
        const { log, start, inputs } = await read(context.ledger);
        const result = runLogged(method.name, start, log, inputs);
        const body = loggedBody(method, start, result);
        for (const warning of body.warnings) context.warn(warning);
        return {
          body,
          rows: () => mixRows(log.groups, result.rounds, false),
          figure: (subtitle) => loggedFigure(body, subtitle),
          summary: {
            header: ['group', 'p', 'last_loss_nats'],
            rows: log.groups.map((name, j) => [name, result.proportions[j], result.rounds.at(-1)?.losses[j] ?? '']),
          },
        };
      },
      async plan(context) {
        const { log } = await read(context.ledger);
        const probes = log.rounds.reduce((sum, round) => sum + round.probes.length, 0);
        return [
          ['method', method.name],
          ['groups', log.groups.join(', ')],
          ['rounds', log.rounds.length],
          ['probes', probes],
        ];
      },
    },
  );
}

async function sweepOf(rows: ReturnType<typeof readRecords>, { groups }: LossLog) {
  const sweep = await readSweep(rows);
  const same = sweep.sources.length === groups.length && sweep.sources.every((name, j) => name === groups[j]);
  if (same) return sweep;
  throw new InputError(
    `the sweep mixes ${sweep.sources.join(', ')}, the log holds ${groups.join(', ')}: the same groups in one order are needed`,
  );
}

async function alignmentsOf(rows: ReturnType<typeof readRecords>, { groups, rounds }: LossLog) {
  const found = await readAlignments(rows);
  if (found.groups.join() !== groups.join()) {
    throw new InputError(`the gradients are of ${found.groups.join(', ')}, the losses of ${groups.join(', ')}`);
  }
  if (found.rounds.length !== rounds.length) {
    throw new InputError(`gradients of ${found.rounds.length} rounds beside losses of ${rounds.length}`);
  }
  return found.rounds;
}
