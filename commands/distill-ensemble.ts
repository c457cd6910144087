import type { Command } from 'commander';
import { gridRegret } from '../src/distillation/bernoulli-grid.js';
import { auditEnsemble, checkReference, type EnsembleOptions } from '../src/distillation/ensemble-audit.js';
import {
  type EnsembleRecords,
  type EnsembleSource,
  readEnsemble,
  recordsOfLogProbs,
} from '../src/distillation/ensemble-records.js';
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
  LANGEVIN_COLUMNS,
  langevinBody,
  MODEL_COLUMNS,
  SUMMARY_HEADER,
} from '../src/distillation/ensemble-report.js';
import type { LangevinArguments, LangevinEnsemble } from '../src/distillation/langevin-ensemble.js';
import { InputError } from '../src/errors.js';
import { readLabels } from '../src/formats/labels.js';
import { type AnalysisContext, type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import {
  addLangevinOptions,
  LANGEVIN_ONLY,
  type LangevinOptions,
  langevinArguments,
  langevinFiles,
} from './distill-ensemble-langevin.js';
import { flagOf, parseInteger, parseNumber } from './edge-values.js';
import { ANALYSIS_OPTIONS, attachShared, type SharedOptions } from './shared-options.js';

const SHARED = [
  ...ANALYSIS_OPTIONS.filter((name) => name !== 'shard' && name !== 'maxMemory'),
  ...(['table', 'data', 'limit'] as const),
] as const;
type Options = Pick<SharedOptions, (typeof SHARED)[number] | 'config' | 'debug'>;

/** Options as commander gives them. */
interface OwnOptions extends LangevinOptions {
  losses?: string;
  logProbs?: string;
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
    .option('--prior <list|file>', 'weights of the models (default uniform)')
    .option('--reference <model>', 'number of the model that the weight of a hypothesis is about')
    .option('--radii <list>', 'radii to list, nats per sample, beside the observed ones')
    .option('--betas <list>', 'powers of the likelihood in tempered posteriors (default 0.5,2)')
    .option('--train-records <n>', 'form the posterior on the first n records and test it on the others')
    .option('--target-regret <nats>', 'report the samples after which the bound per sample is below this')
    .option('--bernoulli <theta>', 'in place of files: the exact experiment on a grid of Bernoulli models')
    .option('--samples <n>', 'samples of it (default 200)')
    .option('--grids <list>', 'numbers of models of it (default 25,101,1001,10001)');
  addLangevinOptions(command);
  command.action(async () => {
    process.exitCode = await run(await read(), command.opts<OwnOptions>());
  });
}

const RECORD_OPTIONS = ['prior', 'reference', 'radii', 'betas', 'trainRecords', 'targetRegret'] as const;
const ROW_OPTIONS = ['tensor', 'labels', 'labelColumn'] as const;
const GRID_ONLY = ['samples', 'grids'] as const;
const SOURCES = ['losses', 'logProbs', 'langevin', 'bernoulli'] as const;

/** @throws InputError for no source, several, or options of another one */
function checkSources(options: Options, own: OwnOptions): void {
  const [source, ...others] = SOURCES.filter((name) => own[name] !== undefined);
  if (source === undefined || others.length > 0) {
    throw new InputError('pass one of --losses, --log-probs, --langevin and --bernoulli');
  }
  const langevin = source === 'langevin';
  const unread: readonly (keyof OwnOptions)[] = [
    ...(langevin ? [] : LANGEVIN_ONLY),
    ...(source === 'bernoulli' ? [...RECORD_OPTIONS, ...ROW_OPTIONS] : GRID_ONLY),
    ...(source === 'losses' ? (['labels', 'labelColumn'] as const) : []),
  ];
  const stray = unread.find((name) => own[name] !== undefined);
  if (stray) throw new InputError(`${flagOf(stray)} is of no use with ${flagOf(source)}`);
  const given = [options.data.length > 0 && '--data', options.limit !== undefined && '--limit'].find(Boolean);
  if (!langevin && given) throw new InputError(`${given} is of no use with ${flagOf(source)}`);
  const needy = (['targetRegret', 'radii'] as const).find((name) => own[name] !== undefined);
  if (needy && own.reference === undefined) throw new InputError(`${flagOf(needy)} needs --reference`);
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

function measureGrids(theta: number, own: OwnOptions, context: AnalysisContext): EnsembleResult {
  const samples = parseInteger('--samples', own.samples ?? '200', 1);
  const sizes = (own.grids ?? '25,101,1001,10001').split(',').map((part) => parseInteger('--grids', part.trim(), 1));
  context.progress.setTotal(sizes.length);
  const grids = sizes.map((grid, i) => {
    context.progress.update(i);
    return gridRegret(theta, samples, grid);
  });
  const half = 0.5 * Math.log(samples);
  const bernoulli = { theta, samples, half_log_samples_nats: half, grids };
  return { ensemble: null, langevin: null, bernoulli, warnings: [] };
}

async function sample(
  args: LangevinArguments,
  reference: number | undefined,
  context: AnalysisContext,
): Promise<LangevinEnsemble> {
  const { burnIn, snapshots, thinning } = args.plan;
  checkReference(reference, snapshots);
  for (const path of langevinFiles(args)) context.ledger.note(path);
  context.progress.setTotal(burnIn + snapshots * thinning);
  const { SAMPLE_CLASSIFIERS } = await import('../src/distillation/langevin-ensemble.js');
  return context.run(SAMPLE_CLASSIFIERS, args, (value) => {
    const { step, loss } = value as { step: number; loss: number };
    context.progress.update(step, `loss ${loss.toPrecision(4)}`);
  });
}

async function readRecords(own: OwnOptions, context: AnalysisContext): Promise<EnsembleRecords> {
  const source: EnsembleSource = {
    ...(own.losses !== undefined && { losses: own.losses }),
    ...(own.logProbs !== undefined && { logProbs: own.logProbs }),
    ...(own.tensor !== undefined && { tensor: own.tensor }),
    ...(own.labels !== undefined && { labels: own.labels }),
    ...(own.labelColumn !== undefined && { labelColumn: own.labelColumn }),
  };
  for (const path of inputsOf(own)) context.ledger.note(path);
  return readEnsemble(source);
}

async function measure(
  own: OwnOptions,
  langevin: LangevinArguments | undefined,
  context: AnalysisContext,
): Promise<EnsembleResult> {
  if (own.bernoulli !== undefined) {
    return measureGrids(parseNumber('--bernoulli', own.bernoulli, 0, 1), own, context);
  }
  const options = await optionsOf(own, context);
  const sampled = langevin && (await sample(langevin, options.reference, context));
  const records = sampled
    ? recordsOfLogProbs(sampled.logProbs, sampled.labels, sampled.shape)
    : await readRecords(own, context);
  const audit = auditEnsemble(records, options);
  const warnings = [...(sampled?.warnings ?? [])];
  if (audit.prior_normalised_by !== null) {
    warnings.push(`the prior sums to ${audit.prior_normalised_by}; it was divided by that`);
  }
  const clamped = audit.reference?.clamped_models ?? [];
  if (clamped.length > 0) {
    warnings.push(
      `the divergence of models ${clamped.join(', ')} was estimated below 0 and is 0: the reference did not generate these records`,
    );
  }
  return {
    ensemble: audit,
    langevin: langevin && sampled ? langevinBody(sampled, own.student ?? '', langevin) : null,
    bernoulli: null,
    warnings,
  };
}

const inputsOf = (own: OwnOptions): string[] =>
  [own.losses, own.logProbs, own.labels].filter((path) => path !== undefined);

function columnsOf(own: OwnOptions): readonly string[] {
  if (own.bernoulli !== undefined) return GRID_COLUMNS;
  return own.langevin === undefined ? MODEL_COLUMNS : LANGEVIN_COLUMNS;
}

function subtitleOf(own: OwnOptions, data: readonly string[]): string {
  if (own.langevin !== undefined) return `${own.langevin} samples of ${own.student}, ${data.join(', ')}`;
  return own.losses ?? own.logProbs ?? `theta ${own.bernoulli}, ${own.samples ?? 200} samples`;
}

async function run(options: Options, own: OwnOptions): Promise<number> {
  checkSources(options, own);
  const langevin = own.langevin === undefined ? undefined : await langevinArguments(own, options);
  const names = [...RECORD_OPTIONS, ...ROW_OPTIONS, ...GRID_ONLY, ...LANGEVIN_ONLY, ...SOURCES];
  const underscored = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  const view = {
    name: ENSEMBLE_SCHEMA,
    command: 'distill-pld ensemble',
    columns: columnsOf(own),
    tableColumns: BALL_COLUMNS,
    unit: langevin ? 'steps' : 'models',
    inputs: langevin ? langevinFiles(langevin) : inputsOf(own),
    parameters: {
      ...Object.fromEntries(names.map((name) => [underscored(name), own[name] ?? null])),
      ...(langevin && { data: [...options.data], limit: options.limit ?? null, seed: options.seed }),
    },
    subtitle: subtitleOf(own, options.data),
  };
  const shared = { ...options, maxMemory: 0, shard: undefined };
  return runAnalysis(view, shared, {
    async plan() {
      const source = ['source', view.subtitle];
      if (!langevin) return [source];
      const { burnIn, snapshots, thinning } = langevin.plan;
      return [source, ['files read', view.inputs.join(', ')], ['steps', burnIn + snapshots * thinning]];
    },
    async measure(context): Promise<AnalysisOutcome> {
      const result = await measure(own, langevin, context);
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
