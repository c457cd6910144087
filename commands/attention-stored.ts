import { ATTENTION_SCHEMA, type AttentionBody, attentionBody } from '../src/entropy/attention-report.js';
import { runOfSequences } from '../src/entropy/attention-run.js';
import {
  MEASURE_STORED,
  type StoredArguments,
  type StoredShape,
  storedShape,
} from '../src/entropy/attention-stored.js';
import { HEAD_COLUMNS, headRows, POSITION_COLUMNS, positionRows } from '../src/entropy/attention-table.js';
import { InputError } from '../src/errors.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import { runAnalysis } from './analysis-run.js';
import {
  type AttentionOwnOptions,
  attentionFiles,
  attentionNumbers,
  attentionParameters,
  regulariserOption,
} from './attention-options.js';
import { parseNumber } from './edge-values.js';
import type { WindowViewOptions } from './window-view.js';

/** Options that only a model with a text has. */
const OF_MODELS: Readonly<Record<string, string>> = {
  model: '--model',
  data: '--data',
  shard: '--shard',
  limit: '--limit',
  contextLen: '--context-len',
  prefixToken: '--prefix-token',
  chatTemplate: '--chat-template',
  idField: '--id-field',
  targetSe: '--target-se',
  temperatures: '--temperatures',
  fitTemperatures: '--fit-temperatures',
  gradients: '--gradients',
};

/**
 * Runs the view over attention that another program stored, to its exit code.
 * @param summary rows of standard output from the body of the report
 */
export async function runStoredAttention(
  path: string,
  own: AttentionOwnOptions,
  options: WindowViewOptions,
  summary: (body: AttentionBody) => SummaryCell[][],
): Promise<number> {
  const given: Readonly<Record<string, unknown>> = { ...options, ...own };
  for (const [name, flag] of Object.entries(OF_MODELS)) {
    const value = given[name];
    if (value === undefined || (Array.isArray(value) && value.length === 0)) continue;
    throw new InputError(`${flag} and --attention exclude each other: stored attention comes without a model`);
  }
  const numbers = attentionNumbers(own, options);
  const tolerance = parseNumber('--row-tolerance', own.rowTolerance ?? '1e-3', 0, 1);
  const args: StoredArguments = {
    path,
    ...(own.tensor !== undefined && { tensor: own.tensor }),
    fromScores: own.fromScores === true,
    causal: own.bidirectional !== true,
    tolerance,
    logarithm: own.compat ? 'code' : 'exact',
  };
  if (own.compat && own.fromScores) {
    throw new InputError('--compat and --from-scores exclude each other: scores have no logarithm of a probability');
  }
  const shape = storedShape(args);
  const context = options.context ?? shape.keys;
  const regulariser = regulariserOption(own, numbers, shape, context);
  const view = {
    name: ATTENTION_SCHEMA,
    columns: HEAD_COLUMNS,
    tableColumns: POSITION_COLUMNS,
    unit: 'rows',
    inputs: [path, ...attentionFiles(own).read],
    parameters: {
      attention: path,
      tensor: own.tensor ?? null,
      from_scores: args.fromScores,
      bidirectional: !args.causal,
      row_tolerance: tolerance,
      compat: args.logarithm === 'code',
      context,
      seed: options.seed,
      ...attentionParameters(own, numbers),
    },
    subtitle: path,
  };
  return runAnalysis(view, options, {
    async plan() {
      return [
        ['attention', `${path}: ${describe(shape)}`],
        ['path', args.fromScores ? 'scores' : 'probabilities'],
      ];
    },
    async measure({ ledger, progress, run }) {
      for (const input of view.inputs) ledger.note(input);
      let rows = 0;
      const batch = await run(MEASURE_STORED, { ...args, ...(regulariser && { regulariser }) }, (more) => {
        rows += Number(more);
        progress.update(rows);
      });
      const heads = runOfSequences(batch, shape.queries);
      const body = attentionBody(heads, {
        convention: { name: 'stored', context_tokens: context, queries: shape.queries, keys: shape.keys },
        contextTokens: context,
        windows: new Array<null>(shape.layers).fill(null),
        seed: options.seed,
        ...(regulariser && { regulariser }),
      });
      return {
        body,
        rows: () => headRows(body),
        tableRows: () => positionRows(heads),
        figure: async (subtitle) => (await import('../src/entropy/attention-plot.js')).drawAttention(body, subtitle),
        summary: { header: ['figure', 'value'], rows: summary(body) },
      };
    },
  });
}

function describe({ layers, batch, heads, queries, keys }: StoredShape): string {
  return `${layers} layers, ${batch} sequences, ${heads} heads, ${queries} queries, ${keys} keys`;
}
