import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { openFeatures } from '../src/features/open-features.js';
import type { FeatureSource } from '../src/formats/feature-matrix.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import type { ReportValue } from '../src/report/values.js';
import { bandwidthName, parseBandwidth } from '../src/representations/bandwidth.js';
import { chooseMethod, exactBytes } from '../src/representations/entropy-estimate.js';
import { sweptName } from '../src/representations/measure-set.js';
import { MEASURE_REPRESENTATIONS, type RepresentationProgress } from '../src/representations/representations-job.js';
import {
  DETAIL_COLUMNS,
  detailRows,
  entropyColumns,
  entropyRows,
  REPRESENTATIONS_SCHEMA,
  type RepresentationsBody,
  representationsBody,
  TABLE_KINDS,
  type TableKind,
} from '../src/representations/representations-report.js';
import {
  ENTROPY_METHODS,
  type Reference,
  type RepresentationSettings,
  type SweptBandwidth,
  VARIANTS,
  type Variant,
} from '../src/representations/settings.js';
import { type AnalysisContext, type AnalysisOutcome, type AnalysisView, runAnalysis } from './analysis-run.js';
import { parseChoice, parseInteger, parseNumber } from './edge-values.js';
import {
  addFeatureOptions,
  FEATURE_OPTIONS,
  type FeatureInputs,
  type FeatureOwnOptions,
  featureParameters,
  openFeatureInputs,
} from './feature-inputs.js';
import { ANALYSIS_OPTIONS, attachShared, requireOption } from './shared-options.js';

/** One set is one unit of work; there is nothing to merge. */
const SHARED = [...ANALYSIS_OPTIONS.filter((name) => name !== 'shard'), ...FEATURE_OPTIONS, 'table'] as const;

type Options = Awaited<ReturnType<ReturnType<typeof attachShared<(typeof SHARED)[number]>>>>;

interface OwnOptions extends FeatureOwnOptions {
  sigma?: string;
  t?: string;
  operator?: string;
  maxN?: string;
  method?: string;
  probes?: string;
  features?: string;
  landmarks?: string;
  variants?: string;
  knn?: string;
  bins?: string;
  constantColumns?: string;
  sweep?: string | boolean;
  curve?: string;
  repetitions?: string;
  miWith?: string[];
  clusters?: string;
  attention?: boolean;
  tableOf?: string;
}

/** Declares `surprisal analyze-entropy representations`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  addFeatureOptions(command)
    .option('--sigma <rule>', 'bandwidth: median distance, knn:<k>, or a number; 10 is the reference (default median)')
    .option('--t <list>', 'diffusion times, such as 1,2,5 (default 1)')
    .option('--operator <name>', 'K, as the reference, or P, the row-stochastic matrix (default K)')
    .option('--max-n <rows>', 'rows used of more, a seeded subsample; all for every row (default 10000)')
    .option('--method <name>', `auto, ${ENTROPY_METHODS.join(', ')} (default auto)`)
    .option('--probes <n>', 'slq: probe vectors (default 64)')
    .option('--features <n>', 'fkea: random frequencies, two features each (default 512)')
    .option('--landmarks <n>', 'nystrom: landmark rows (default 512)')
    .option('--variants <list>', `other entropies: ${VARIANTS.join(', ')}, or all`)
    .option('--knn <k>', 'neighbours of the variant knn, the row itself included (default 10)')
    .option('--bins <n>', 'bins a column of the variant shannon (default 2)')
    .option('--constant-columns <what>', 'shannon: error or drop (default error)')
    .option('--sweep [sigmas]', 'entropies over bandwidths (median, knn:<k>, numbers, x<factor>) and --t')
    .option('--curve <sizes>', 'entropy against the number of rows: sizes, auto or none (default auto for one set)')
    .option('--repetitions <n>', 'random subsets for a point of the curve and for a category (default 5)')
    .option(
      '--mi-with <reference...>',
      'mutual information with labels (default where given), input (the first set) or a file',
    )
    .option('--clusters <n>', 'bins of a real reference, clusters of a vector one (default 10)')
    .option('--attention', 'also the mean attention entropy of every layer, by a second pass through the model')
    .option('--table-of <rows>', `rows of --table: ${TABLE_KINDS.join(', ')} (default spectrum)`)
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<OwnOptions>());
    });
}

const parts = (text: string): string[] =>
  text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');

function parseTimes(text: string): number[] {
  const times = parts(text).map((part) => parseNumber('--t', part));
  if (times.length === 0 || times.some((t) => !(t > 0))) {
    throw new InputError(`--t ${text}: diffusion times are positive numbers, such as 1,2,5`);
  }
  return [...new Set(times)];
}

function parseVariants(text: string | undefined): Variant[] {
  if (text === undefined) return [];
  if (text === 'all') return [...VARIANTS];
  return [...new Set(parts(text).map((part) => parseChoice('--variants', part, VARIANTS)))];
}

/** Multiples of the chosen bandwidth when the sweep names none; the reference's 10 stands beside them. */
const SWEPT = ['x0.0625', 'x0.125', 'x0.25', 'x0.5', 'x1', 'x2', 'x4', 'x8', '10'].join(',');

function parseSweep(given: string | boolean | undefined): SweptBandwidth[] {
  if (given === undefined || given === false) return [];
  return parts(given === true ? SWEPT : given).map((part): SweptBandwidth => {
    if (!part.startsWith('x')) return parseBandwidth('--sweep', part);
    const factor = Number(part.slice(1));
    if (factor > 0 && Number.isFinite(factor)) return { kind: 'multiple', factor };
    throw new InputError(`--sweep ${part}: give median, knn:<k>, a number, or x<factor> for a multiple of --sigma`);
  });
}

function parseCurve(text: string | undefined, sets: number): readonly number[] | 'auto' {
  if (text === undefined) return sets === 1 ? 'auto' : [];
  if (text === 'auto') return 'auto';
  if (text === 'none') return [];
  return [...new Set(parts(text).map((part) => parseInteger('--curve', part, 1)))].sort((a, b) => a - b);
}

const count = (flag: string, text: string | undefined, fallback: number, least = 1): number =>
  text === undefined ? fallback : parseInteger(flag, text, least);

function settingsOf(options: Options, own: OwnOptions): RepresentationSettings {
  return {
    sigma: parseBandwidth('--sigma', own.sigma ?? 'median'),
    times: parseTimes(own.t ?? '1'),
    operator: parseChoice('--operator', own.operator ?? 'K', ['K', 'P'] as const),
    method: parseChoice('--method', own.method ?? 'auto', ['auto', ...ENTROPY_METHODS] as const),
    mostRows: own.maxN === 'all' ? Number.POSITIVE_INFINITY : count('--max-n', own.maxN, 10_000),
    variants: parseVariants(own.variants),
    neighbours: count('--knn', own.knn, 10),
    bins: count('--bins', own.bins, 2, 2),
    constantColumns: parseChoice('--constant-columns', own.constantColumns ?? 'error', ['error', 'drop'] as const),
    sweep: parseSweep(own.sweep),
    curveSizes: [],
    repetitions: count('--repetitions', own.repetitions, 5),
    categories: count('--clusters', own.clusters, 10, 2),
    probes: count('--probes', own.probes, 64, 8),
    features: count('--features', own.features, 512, 2),
    landmarks: count('--landmarks', own.landmarks, 512, 2),
    seed: options.seed,
    threads: options.threads,
    maxMemoryBytes: options.maxMemory,
  };
}

function parametersOf(
  options: Options,
  own: OwnOptions,
  settings: RepresentationSettings,
): Record<string, ReportValue> {
  return {
    ...featureParameters(options, own),
    layer: options.model === undefined ? null : (own.layer ?? 'all'),
    pool: options.model === undefined ? null : (own.pool ?? 'mean'),
    sigma: bandwidthName(settings.sigma),
    t: settings.times,
    operator: settings.operator,
    max_n: Number.isFinite(settings.mostRows) ? settings.mostRows : 'all',
    method: settings.method,
    probes: settings.probes,
    features: settings.features,
    landmarks: settings.landmarks,
    variants: settings.variants,
    knn: settings.neighbours,
    bins: settings.bins,
    constant_columns: settings.constantColumns,
    sweep: settings.sweep.map(sweptName),
    curve: own.curve ?? null,
    repetitions: settings.repetitions,
    mi_with: [...referenceNames(own)],
    clusters: settings.categories,
    attention: own.attention === true,
  };
}

/** What `--mi-with` names; labels that were given speak for themselves. */
function referenceNames(own: OwnOptions): readonly string[] {
  const labelled = own.labels !== undefined || own.labelColumn !== undefined;
  return own.miWith ?? (labelled ? ['labels'] : []);
}

/** What mutual information is measured with. @throws InputError for labels that are not there */
function referencesOf(own: OwnOptions, inputs: FeatureInputs): Reference[] {
  return referenceNames(own).map((name): Reference => {
    if (name === 'labels') {
      const labels = inputs.sets[0].labels;
      if (labels) return { kind: 'labels', name: own.labels ?? `column ${own.labelColumn}`, labels };
      throw new InputError('--mi-with labels: there are none; name them with --labels or --label-column');
    }
    if (name === 'input') return { kind: 'features', name, source: inputs.sets[0].source };
    const source: FeatureSource = { kind: 'file', path: name };
    return { kind: 'features', name, source };
  });
}

async function run(options: Options, own: OwnOptions): Promise<number> {
  const data = requireOption(options.data, '--data', 'files of features, or a text with --model');
  const settings = settingsOf(options, own);
  const kind: TableKind = parseChoice('--table-of', own.tableOf ?? 'spectrum', TABLE_KINDS);
  const references = referenceNames(own);
  if (own.attention && options.model === undefined) throw new InputError('--attention needs --model and a text');
  if (kind === 'terms' && references.length === 0) throw new InputError('--table-of terms needs --mi-with');
  if (kind === 'sweep' && settings.sweep.length === 0) throw new InputError('--table-of sweep needs --sweep');
  parseCurve(own.curve, 1);
  const view: AnalysisView = {
    name: REPRESENTATIONS_SCHEMA,
    columns: entropyColumns(settings, references),
    tableColumns: DETAIL_COLUMNS[kind],
    unit: 'steps',
    inputs: [
      ...data,
      ...(own.labels === undefined ? [] : [own.labels]),
      ...references.filter((name) => name !== 'labels' && name !== 'input'),
    ],
    parameters: parametersOf(options, own, settings),
    subtitle: options.model === undefined ? data.join(', ') : `${options.model}: ${data.join(', ')}`,
  };
  return runAnalysis(
    view,
    { ...options, shard: undefined },
    {
      measure: (context) => measure(options, own, settings, kind, context),
      plan: (context) => plan(options, own, settings, context),
    },
  );
}

const FALLBACK = { layer: 'all', pool: 'mean' } as const;

async function measure(
  options: Options,
  own: OwnOptions,
  settings: RepresentationSettings,
  kind: TableKind,
  context: AnalysisContext,
): Promise<AnalysisOutcome> {
  const inputs = await openFeatureInputs(options, own, context, FALLBACK);
  const references = referencesOf(own, inputs);
  for (const reference of references) {
    if (reference.kind === 'features' && reference.source.kind === 'file') context.ledger.note(reference.source.path);
  }
  const attention =
    own.attention && options.model !== undefined
      ? await (await import('./attention-layers.js')).attentionByLayer(options.model, options, own, context)
      : null;
  context.timings.begin('spectra');
  const curveSizes = parseCurve(own.curve, inputs.sets.length);
  const measures = await context.run(
    MEASURE_REPRESENTATIONS,
    {
      sets: inputs.sets.map(({ name, layer, source }) => ({ name, layer, source })),
      references,
      settings: { ...settings, curveSizes },
    },
    (value) => {
      const { done, label } = value as RepresentationProgress;
      context.progress.update(done, label);
    },
  );
  for (const warning of measures.warnings) context.warn(warning);
  const body = representationsBody(measures, attention, settings);
  return {
    body,
    rows: () => entropyRows(body),
    tableRows: () => detailRows(kind, body, measures),
    figure: async (subtitle) =>
      (await import('../src/representations/representations-plot.js')).drawRepresentations(body, measures, subtitle),
    summary: summary(body),
    digests: inputs.digests,
  };
}

const mebibytes = (bytes: number): number => Math.ceil(bytes / 2 ** 20);

async function plan(
  options: Options,
  own: OwnOptions,
  settings: RepresentationSettings,
  context: AnalysisContext,
): Promise<SummaryCell[][]> {
  if (options.model !== undefined) {
    return [
      ['model', options.model],
      ['layers', own.layer ?? FALLBACK.layer],
      ['pooling', own.pool ?? FALLBACK.pool],
      ['bandwidth', bandwidthName(settings.sigma)],
      ['rows used, at most', Number.isFinite(settings.mostRows) ? settings.mostRows : 'all'],
    ];
  }
  const rows: SummaryCell[][] = [['bandwidth', bandwidthName(settings.sigma)]];
  for (const { name, source } of (await openFeatureInputs(options, own, context, FALLBACK)).sets) {
    const matrix = await openFeatures(source);
    const n = Math.min(matrix.rows, settings.mostRows);
    const method = chooseMethod(settings.method, n, matrix.columns, settings.maxMemoryBytes, name);
    rows.push([name, `${matrix.rows} x ${matrix.columns} ${matrix.dtype}, ${n} rows used, ${method}`]);
    if (method === 'exact') rows.push(['memory of a spectrum, MiB', mebibytes(exactBytes(n, matrix.columns))]);
    matrix.close();
  }
  return rows;
}

function summary(body: RepresentationsBody): AnalysisOutcome['summary'] {
  const informed = body.sets[0].information;
  const rows: SummaryCell[][] = [];
  for (const set of body.sets) {
    for (const [k, { t, dse_bits, dse_bits_se, effective_rank, dse_over_log2_n }] of set.entropies.entries()) {
      rows.push([
        set.layer ?? set.name,
        set.rows_used,
        set.sigma,
        t,
        set.method,
        dse_bits,
        ...(body.sets.some(({ entropies }) => entropies[0].dse_bits_se !== null) ? [dse_bits_se ?? undefined] : []),
        effective_rank,
        dse_over_log2_n,
        set.rankme,
        set.von_neumann_effective_dimension,
        set.condition_number,
        ...set.information.map(({ by_time }) => by_time[k].dsmi_bits),
      ]);
    }
  }
  return {
    header: [
      body.sets[0].layer === null ? 'set' : 'layer',
      'n',
      'sigma',
      't',
      'method',
      'DSE, bits',
      ...(body.sets.some(({ entropies }) => entropies[0].dse_bits_se !== null) ? ['+-'] : []),
      'effective rank',
      'of log2 n',
      'RankMe',
      'e^S',
      'condition',
      ...informed.map(({ with: reference }) => `DSMI, ${reference}`),
    ],
    rows,
  };
}
