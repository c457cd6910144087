import type { Command } from 'commander';
import { gridRegret } from '../src/distillation/bernoulli-grid.js';
import { auditEnsemble, type EnsembleOptions } from '../src/distillation/ensemble-audit.js';
import { type EnsembleSource, readEnsemble } from '../src/distillation/ensemble-records.js';
import {
  BALL_COLUMNS,
  ballRows,
  drawEnsemble,
  ENSEMBLE_SCHEMA,
  type EnsembleResult,
  ensembleBody,
  ensembleRows,
  ensembleSummary,
  GRID_COLUMNS,
  MODEL_COLUMNS,
  SUMMARY_HEADER,
} from '../src/distillation/ensemble-report.js';
import { InputError } from '../src/errors.js';
import { readLabels } from '../src/formats/labels.js';
import { type AnalysisContext, type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import { flagOf, parseInteger, parseNumber } from './edge-values.js';
import { ANALYSIS_OPTIONS, attachShared, type SharedOptions } from './shared-options.js';

const SHARED = [
  ...ANALYSIS_OPTIONS.filter((name) => name !== 'shard' && name !== 'seed' && name !== 'maxMemory'),
  'table',
] as const;
type Options = Pick<SharedOptions, (typeof SHARED)[number] | 'config' | 'debug'>;

/** Options as commander gives them. */
interface OwnOptions {
  losses?: string;
  logProbs?: string;
  tensor?: string;
  labels?: string;
  labelColumn?: string;
  prior?: string;
  reference?: string;
  radii?: string;
  betas?: string;
  trainRecords?: string;
  targetRegret?: string;
  bernoulli?: string;
  samples?: string;
  grids?: string;
}

/** Declares `surprisal distill-pld ensemble`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option('--losses <file>', 'log losses [models, records] in nats: .npy .npz .safetensors, or a table')
    .option('--log-probs <file>', 'in place of --losses: log-probabilities [models, records, classes]')
    .option('--tensor <name>', 'array of a file of several')
    .option('--labels <file>', 'class of every record, for --log-probs')
    .option('--label-column <name>', 'column or array of the labels')
    .option('--prior <list|file>', 'weights of the models (default uniform)')
    .option('--reference <model>', 'number of the model that the weight of a hypothesis is about')
    .option('--radii <list>', 'radii to list, nats per sample, beside the observed ones')
    .option('--betas <list>', 'powers of the likelihood in tempered posteriors (default 0.5,2)')
    .option('--train-records <n>', 'form the posterior on the first n records and test it on the others')
    .option('--target-regret <nats>', 'report the samples after which the bound per sample is below this')
    .option('--bernoulli <theta>', 'in place of files: the exact experiment on a grid of Bernoulli models')
    .option('--samples <n>', 'samples of it (default 200)')
    .option('--grids <list>', 'numbers of models of it (default 25,101,1001,10001)');
  command.action(async () => {
    process.exitCode = await run(await read(), command.opts<OwnOptions>());
  });
}

const FILE_ONLY = [
  ...(['tensor', 'labels', 'labelColumn', 'prior', 'reference', 'radii', 'betas', 'trainRecords'] as const),
  'targetRegret',
] as const;
const GRID_ONLY = ['samples', 'grids'] as const;

/** @throws InputError for no source, several, or options of another one */
function checkSources(own: OwnOptions): void {
  const sources = [own.losses, own.logProbs, own.bernoulli].filter((source) => source !== undefined);
  if (sources.length !== 1) throw new InputError('pass one of --losses, --log-probs and --bernoulli');
  const strays: readonly (keyof OwnOptions)[] = own.bernoulli === undefined ? GRID_ONLY : FILE_ONLY;
  const stray = strays.find((name) => own[name] !== undefined);
  if (stray) {
    throw new InputError(
      `${flagOf(stray)} is of no use ${own.bernoulli === undefined ? 'without' : 'with'} --bernoulli`,
    );
  }
  if (own.losses !== undefined && own.labels !== undefined) throw new InputError('--labels is of no use with --losses');
  if (own.targetRegret !== undefined && own.reference === undefined) {
    throw new InputError('--target-regret needs --reference');
  }
  if (own.radii !== undefined && own.reference === undefined) throw new InputError('--radii needs --reference');
}

const numbersOf = (flag: string, text: string, least?: number): number[] =>
  text.split(',').map((part) => parseNumber(flag, part.trim(), least));

async function priorOf(text: string, context: AnalysisContext): Promise<number[]> {
  if (/^[\d.,eE+\s-]+$/.test(text)) return numbersOf('--prior', text, 0);
  context.ledger.note(text);
  const labels = await readLabels(text, { kind: 'numbers' });
  return labels.kind === 'numbers' ? [...labels.values] : [];
}

async function optionsOf(own: OwnOptions, context: AnalysisContext): Promise<EnsembleOptions> {
  return {
    ...(own.prior !== undefined && { prior: await priorOf(own.prior, context) }),
    ...(own.reference !== undefined && { reference: parseInteger('--reference', own.reference) }),
    radii: own.radii === undefined ? [] : numbersOf('--radii', own.radii, 0),
    betas: numbersOf('--betas', own.betas ?? '0.5,2', 0),
    ...(own.trainRecords !== undefined && { trained: parseInteger('--train-records', own.trainRecords, 1) }),
    ...(own.targetRegret !== undefined && { target: parseNumber('--target-regret', own.targetRegret, 0) }),
  };
}

async function measure(own: OwnOptions, context: AnalysisContext): Promise<EnsembleResult> {
  if (own.bernoulli !== undefined) {
    const theta = parseNumber('--bernoulli', own.bernoulli, 0, 1);
    const samples = parseInteger('--samples', own.samples ?? '200', 1);
    const sizes = (own.grids ?? '25,101,1001,10001').split(',').map((part) => parseInteger('--grids', part.trim(), 1));
    context.progress.setTotal(sizes.length);
    const grids = sizes.map((grid, i) => {
      context.progress.update(i);
      return gridRegret(theta, samples, grid);
    });
    const half = 0.5 * Math.log(samples);
    return { ensemble: null, bernoulli: { theta, samples, half_log_samples_nats: half, grids }, warnings: [] };
  }
  const source: EnsembleSource = {
    ...(own.losses !== undefined && { losses: own.losses }),
    ...(own.logProbs !== undefined && { logProbs: own.logProbs }),
    ...(own.tensor !== undefined && { tensor: own.tensor }),
    ...(own.labels !== undefined && { labels: own.labels }),
    ...(own.labelColumn !== undefined && { labelColumn: own.labelColumn }),
  };
  for (const path of inputsOf(own)) context.ledger.note(path);
  const records = await readEnsemble(source);
  const audit = auditEnsemble(records, await optionsOf(own, context));
  const warnings: string[] = [];
  if (audit.prior_normalised_by !== null) {
    warnings.push(`the prior sums to ${audit.prior_normalised_by}; it was divided by that`);
  }
  const clamped = audit.reference?.clamped_models ?? [];
  if (clamped.length > 0) {
    warnings.push(
      `the divergence of models ${clamped.join(', ')} was estimated below 0 and is 0: the reference did not generate these records`,
    );
  }
  return { ensemble: audit, bernoulli: null, warnings };
}

const inputsOf = (own: OwnOptions): string[] =>
  [own.losses, own.logProbs, own.labels].filter((path) => path !== undefined);

async function run(options: Options, own: OwnOptions): Promise<number> {
  checkSources(own);
  const names = [...FILE_ONLY, ...GRID_ONLY, 'losses', 'logProbs', 'bernoulli'] as const;
  const underscored = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  const view = {
    name: ENSEMBLE_SCHEMA,
    command: 'distill-pld ensemble',
    columns: own.bernoulli === undefined ? MODEL_COLUMNS : GRID_COLUMNS,
    tableColumns: BALL_COLUMNS,
    unit: 'models',
    inputs: inputsOf(own),
    parameters: Object.fromEntries(names.map((name) => [underscored(name), own[name] ?? null])),
    subtitle: own.losses ?? own.logProbs ?? `theta ${own.bernoulli}, ${own.samples ?? 200} samples`,
  };
  const shared = { ...options, seed: 0, maxMemory: 0, shard: undefined };
  return runAnalysis(view, shared, {
    async plan() {
      return [['source', view.subtitle]];
    },
    async measure(context): Promise<AnalysisOutcome> {
      const result = await measure(own, context);
      for (const warning of result.warnings) context.warn(warning);
      return {
        body: ensembleBody(result),
        rows: () => ensembleRows(result),
        tableRows: () => ballRows(result),
        figure: (subtitle) => drawEnsemble(result, subtitle),
        summary: { header: SUMMARY_HEADER, rows: ensembleSummary(result) },
      };
    },
  });
}
