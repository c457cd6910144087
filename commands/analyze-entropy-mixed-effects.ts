import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { openFeatures } from '../src/features/open-features.js';
import type { FeatureSource } from '../src/formats/feature-matrix.js';
import { expandSources } from '../src/formats/inputs.js';
import { readLabels } from '../src/formats/labels.js';
import { isTensorFile } from '../src/formats/tensor-file.js';
import { FIT_MIXED_EFFECTS, type Freedom, type MixedArguments } from '../src/regression/mixed-job.js';
import {
  clusterColumns,
  clusterTable,
  EFFECT_COLUMNS,
  effectTable,
  MIXED_SCHEMA,
  type MixedBody,
  mixedBody,
} from '../src/regression/mixed-report.js';
import { createPenalty, DEFAULT_A, DEFAULT_GAMMA, PENALTIES, type Penalty } from '../src/regression/penalty.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import { type AnalysisContext, type AnalysisOutcome, type AnalysisView, runAnalysis } from './analysis-run.js';
import { parseChoice, parseInteger, parseNumber } from './edge-values.js';
import { ANALYSIS_OPTIONS, attachShared, requireOption } from './shared-options.js';

/** One fit is one unit of work; there is nothing to merge. */
const SHARED = [
  ...ANALYSIS_OPTIONS.filter((name) => name !== 'shard' && name !== 'seed' && name !== 'threads'),
  'data',
  'limit',
  'table',
] as const;

type Options = Awaited<ReturnType<ReturnType<typeof attachShared<(typeof SHARED)[number]>>>>;

interface OwnOptions {
  tensor?: string;
  columns?: string;
  except?: string;
  outcome?: string;
  labels?: string;
  group?: string;
  groups?: string;
  random?: string;
  intercept?: boolean;
  dof?: string;
  q?: string;
  errorCorrelation?: string;
  penalty?: string;
  lambda?: string;
  a?: string;
  gamma?: string;
  tolerance?: string;
  maxIterations?: string;
  profile?: boolean;
}

const DEFAULT_TOLERANCE = 1e-9;
const DEFAULT_ITERATIONS = 5000;

/** Declares `surprisal analyze-entropy mixed-effects`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option('--tensor <name>', 'array of an .npz or .safetensors file')
    .option('--outcome <name>', 'column to explain')
    .option('--labels <file>', 'the outcome in a file of its own')
    .option('--group <name>', 'column that names the cluster of every row')
    .option('--groups <file>', 'the clusters in a file of their own')
    .option('--columns <names>', 'columns with a fixed effect, separated by commas (default all others)')
    .option('--except <names>', 'columns that are left out, separated by commas')
    .option('--random <names>', 'columns with a random effect, 1 for the intercept (default 1)')
    .option('--no-intercept', 'no fixed intercept')
    .option('--dof <m>', 'degrees of freedom: estimate, gaussian, or a number above 0 (default estimate)')
    .option('--q <q>', 'q of the largest cluster instead of --dof: m = 2 / (q - 1) - n')
    .option('--error-correlation <rho>', 'correlation rho^|i-j| of the errors of a cluster, in its order (default 0)')
    .option('--penalty <name>', `penalty on the fixed effects, with --lambda: ${PENALTIES.join(', ')}`)
    .option('--lambda <x>', 'weight of the penalty')
    .option('--a <a>', `where SCAD becomes flat, above 2 (default ${DEFAULT_A})`)
    .option('--gamma <g>', `where MCP becomes flat, above 1 (default ${DEFAULT_GAMMA})`)
    .option('--tolerance <t>', `largest relative change at the end (default ${DEFAULT_TOLERANCE})`)
    .option('--max-iterations <n>', `steps of a fit (default ${DEFAULT_ITERATIONS})`)
    .option('--no-profile', 'no likelihood profile of the degrees of freedom')
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<OwnOptions>());
    });
}

const list = (text: string | undefined): string[] | undefined =>
  text
    ?.split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');

function parseFreedom(own: OwnOptions): Freedom {
  if (own.q !== undefined) {
    if (own.dof !== undefined) throw new InputError('--q and --dof both set the degrees of freedom; give one');
    return { kind: 'q', q: parseNumber('--q', own.q) };
  }
  const text = own.dof ?? 'estimate';
  if (text === 'estimate') return { kind: 'estimate' };
  if (text === 'gaussian' || text === 'inf') return { kind: 'fixed', m: Number.POSITIVE_INFINITY };
  const m = parseNumber('--dof', text);
  if (m > 0) return { kind: 'fixed', m };
  throw new InputError(`--dof ${text}: degrees of freedom are above 0`);
}

function parsePenalty(own: OwnOptions): Penalty | undefined {
  if (own.penalty === undefined) {
    if (own.lambda !== undefined) throw new InputError('--lambda needs --penalty');
    return undefined;
  }
  if (own.lambda === undefined) throw new InputError('--penalty needs --lambda');
  return createPenalty(
    parseChoice('--penalty', own.penalty, PENALTIES),
    parseNumber('--lambda', own.lambda),
    own.a === undefined ? DEFAULT_A : parseNumber('--a', own.a),
    own.gamma === undefined ? DEFAULT_GAMMA : parseNumber('--gamma', own.gamma),
  );
}

async function run(options: Options, own: OwnOptions): Promise<number> {
  const data = requireOption(options.data, '--data', 'a table of features');
  if (data.length !== 1) throw new InputError('a mixed-effects model takes one table; name one file with --data');
  if (own.outcome === undefined && own.labels === undefined) {
    throw new InputError('--outcome is missing; name the column to explain, or a file of outcomes with --labels');
  }
  if (own.group === undefined && own.groups === undefined) {
    throw new InputError('--group is missing; name the column of clusters, or a file of them with --groups');
  }
  const random = list(own.random) ?? ['1'];
  if (random.length === 0) throw new InputError('--random names no effect; 1 is the intercept');
  const freedom = parseFreedom(own);
  const penalty = parsePenalty(own);
  const correlation = own.errorCorrelation === undefined ? 0 : parseNumber('--error-correlation', own.errorCorrelation);
  const tolerance = own.tolerance === undefined ? DEFAULT_TOLERANCE : parseNumber('--tolerance', own.tolerance);
  const maxIterations = parseInteger('--max-iterations', own.maxIterations ?? String(DEFAULT_ITERATIONS), 1);
  const settings = { random, freedom, penalty, correlation, tolerance, maxIterations };
  const view: AnalysisView = {
    name: MIXED_SCHEMA,
    columns: clusterColumns(random),
    tableColumns: EFFECT_COLUMNS,
    unit: 'fits',
    inputs: [...data, own.labels, own.groups].filter((path): path is string => path !== undefined),
    parameters: {
      data: [...data],
      limit: options.limit ?? null,
      tensor: own.tensor ?? null,
      outcome: own.outcome ?? null,
      labels: own.labels ?? null,
      group: own.group ?? null,
      groups: own.groups ?? null,
      columns: list(own.columns) ?? null,
      except: list(own.except) ?? null,
      random,
      intercept: own.intercept !== false,
      dof: own.q === undefined ? (own.dof ?? 'estimate') : null,
      q: freedom.kind === 'q' ? freedom.q : null,
      error_correlation: correlation,
      penalty: penalty?.kind ?? null,
      lambda: penalty?.lambda ?? null,
      a: penalty?.kind === 'scad' ? penalty.a : null,
      gamma: penalty?.kind === 'mcp' ? penalty.gamma : null,
      tolerance,
      max_iterations: maxIterations,
      profile: own.profile !== false,
    },
    subtitle: `${data[0]}, outcome ${own.outcome ?? own.labels}, clusters ${own.group ?? own.groups}`,
  };
  return runAnalysis(
    view,
    { ...options, shard: undefined, seed: 0, threads: 1 },
    {
      measure: (context) => measure(options, own, settings, context),
      plan: (context) => plan(options, own, settings, context),
    },
  );
}

interface Settings {
  readonly random: readonly string[];
  readonly freedom: Freedom;
  readonly penalty: Penalty | undefined;
  readonly correlation: number;
  readonly tolerance: number;
  readonly maxIterations: number;
}

async function openInputs(
  options: Options,
  own: OwnOptions,
  context: AnalysisContext,
): Promise<Pick<MixedArguments, 'source' | 'outcome' | 'group'>> {
  const [path] = await expandSources(options.data);
  const stored = isTensorFile(path);
  if (stored && (own.labels === undefined || own.groups === undefined)) {
    throw new InputError(`${path}: has no named columns; give --labels and --groups as files`);
  }
  if (stored && (own.columns !== undefined || own.except !== undefined)) {
    throw new InputError(`${path}: has no named columns; --columns and --except are for tables`);
  }
  const limit = options.limit === undefined ? {} : { limit: options.limit };
  const columns = list(own.columns);
  const except = [
    ...(list(own.except) ?? []),
    ...(own.labels === undefined && own.outcome !== undefined ? [own.outcome] : []),
    ...(own.groups === undefined && own.group !== undefined ? [own.group] : []),
  ];
  const source: FeatureSource = {
    kind: 'file',
    path,
    ...(own.tensor !== undefined && { tensor: own.tensor }),
    ...(columns && { columns }),
    ...(!stored && except.length > 0 && { except }),
    ...limit,
  };
  context.ledger.note(path);
  for (const file of [own.labels, own.groups]) if (file !== undefined) context.ledger.note(file);
  const outcome = await readLabels(own.labels ?? path, {
    kind: 'numbers',
    ...limit,
    ...(own.outcome !== undefined && { column: own.outcome }),
  });
  const group = await readLabels(own.groups ?? path, {
    kind: 'classes',
    ...limit,
    ...(own.group !== undefined && { column: own.group }),
  });
  if (outcome.kind !== 'numbers' || group.kind !== 'classes') throw new Error('labels were not read as asked');
  return {
    source,
    outcome: { name: own.labels ?? `${path}: outcome "${own.outcome}"`, values: outcome.values },
    group: { ...group, name: own.groups ?? `${path}: group "${own.group}"` },
  };
}

async function measure(
  options: Options,
  own: OwnOptions,
  settings: Settings,
  context: AnalysisContext,
): Promise<AnalysisOutcome> {
  const inputs = await openInputs(options, own, context);
  const { freedom, penalty, correlation } = settings;
  context.timings.begin('fit');
  const result = await context.run(
    FIT_MIXED_EFFECTS,
    {
      ...inputs,
      random: settings.random,
      intercept: own.intercept !== false,
      freedom,
      correlation,
      ...(penalty && { penalty }),
      tolerance: settings.tolerance,
      maxIterations: settings.maxIterations,
      profile: own.profile !== false,
      maxMemoryBytes: options.maxMemory,
    },
    (value) => {
      const { step, label } = value as { step: number; label: string };
      context.progress.update(step, label);
    },
  );
  const body = mixedBody(result, {
    estimated: freedom.kind === 'estimate',
    errorCorrelation: correlation,
    penalty: penalty ? { kind: penalty.kind, lambda: penalty.lambda } : null,
  });
  for (const warning of body.warnings) context.warn(warning);
  return {
    body,
    rows: () => clusterTable(body),
    tableRows: () => effectTable(body),
    figure: async (subtitle) => (await import('../src/regression/mixed-plot.js')).drawMixedEffects(body, subtitle),
    summary: summary(body),
  };
}

async function plan(
  options: Options,
  own: OwnOptions,
  settings: Settings,
  context: AnalysisContext,
): Promise<SummaryCell[][]> {
  const { source, group } = await openInputs(options, own, context);
  const matrix = await openFeatures(source);
  const rows: SummaryCell[][] = [
    ['input', `${matrix.name}, ${matrix.rows} x ${matrix.columns} ${matrix.dtype}`],
    ['clusters', new Set(group.codes).size],
    ['random effects', settings.random.join(', ')],
    ['degrees of freedom', own.q === undefined ? (own.dof ?? 'estimate') : `from q = ${own.q}`],
    ['penalty', settings.penalty?.kind ?? 'none'],
  ];
  matrix.close();
  return rows;
}

function summary(body: MixedBody): AnalysisOutcome['summary'] {
  return {
    header: ['effect', 'theta', 'se', 'sandwich se', 'normal theta', 'normal se'],
    rows: [
      ...body.fixed_effects.map((row): SummaryCell[] => [
        row.effect,
        row.theta,
        row.theta_se ?? undefined,
        row.theta_sandwich_se ?? undefined,
        row.theta_gaussian,
        row.theta_gaussian_se ?? undefined,
      ]),
      ['sigma2', body.sigma2, undefined, undefined, body.sigma2_gaussian, undefined],
      ['degrees of freedom', body.degrees_of_freedom],
      ['log-likelihood, nats', body.log_likelihood, undefined, undefined, body.log_likelihood_gaussian, undefined],
      ['outlying clusters', body.outlying_clusters.length],
    ],
  };
}
