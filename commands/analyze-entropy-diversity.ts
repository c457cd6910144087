import type { Command } from 'commander';
import { MEASURE_DIVERSITY } from '../src/diversity/diversity-job.js';
import {
  DIVERSITY_SCHEMA,
  type DiversityBody,
  detailColumns,
  detailRows,
  diversityBody,
  type MeasuredSet,
  measureKey,
  SCORE_COLUMNS,
  scoreRows,
  TABLE_KINDS,
  type TableKind,
} from '../src/diversity/diversity-report.js';
import { KERNELS, type KernelName, METHODS, planKernel } from '../src/diversity/kernel-plan.js';
import { NGRAM_UNITS } from '../src/diversity/ngram-kernel.js';
import type { DiversitySettings } from '../src/diversity/settings.js';
import { parseOrder } from '../src/diversity/vendi-score.js';
import { InputError } from '../src/errors.js';
import { openFeatures } from '../src/features/open-features.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import { finiteOrName, type ReportValue } from '../src/report/values.js';
import { type AnalysisContext, type AnalysisOutcome, type AnalysisView, runAnalysis } from './analysis-run.js';
import { type DiversityInputOptions, openDiversityInputs, TEXT_KERNELS } from './diversity-inputs.js';
import { parseChoice, parseInteger, parseNumber } from './edge-values.js';
import { addFeatureOptions, FEATURE_OPTIONS, featureParameters } from './feature-inputs.js';
import { ANALYSIS_OPTIONS, attachShared, requireOption } from './shared-options.js';

const SHARED = [...ANALYSIS_OPTIONS, ...FEATURE_OPTIONS, 'against', 'table'] as const;

type Options = Awaited<ReturnType<ReturnType<typeof attachShared<(typeof SHARED)[number]>>>>;

interface OwnOptions extends DiversityInputOptions {
  kernel?: string;
  method?: string;
  q?: string;
  truncate?: string;
  intdiv?: string;
  sigma?: string;
  ngrams?: string;
  ngramUnit?: string;
  lowercase?: boolean;
  normalize?: boolean;
  negativeEigenvalues?: string;
  cut?: string;
  compat?: string;
  features?: string;
  landmarks?: string;
  probes?: string;
  products?: string;
  curve?: string;
  subsamples?: string;
  resamples?: string;
  permutations?: string;
  leaveOneOut?: string;
  modes?: string;
  modeItems?: string;
  tableOf?: string;
}

/** Declares `surprisal analyze-entropy diversity`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  addFeatureOptions(command)
    .option('--similarity <file>', 'similarity matrix of the items, [n, n], instead of --data')
    .option('--kernel <name>', `${KERNELS.join(', ')} (default cosine; ngram for texts without --model)`)
    .option('--q <list>', 'orders of the score, from 0 to inf (default 0,0.5,1,2,inf)')
    .option('--truncate <list>', 'also the score of the t largest eigenvalues, for each t')
    .option('--intdiv <list>', 'orders of IntDiv, the mean dissimilarity (default 1,2)')
    .option('--weights <file|column>', 'weight of every item: numbers in a file, or a column of the data')
    .option('--group-column <name>', 'column or field that names the group of an item; --labels takes a file')
    .option('--sigma <value>', 'bandwidth of rbf: median, or a number (default median)')
    .option('--ngrams <list>', 'lengths that are averaged (default 1,2,3,4)')
    .option('--ngram-unit <unit>', `what a gram is made of: ${NGRAM_UNITS.join(', ')} (default words)`)
    .option('--lowercase', 'n-grams of the text in lower case')
    .option('--normalize', 'divide the kernel by its diagonal: K_ij / sqrt(K_ii K_jj)')
    .option(
      '--negative-eigenvalues <what>',
      'of a kernel that is not positive semidefinite: error or drop (default error)',
    )
    .option(
      '--cut <share>',
      'eigenvalues below this share of the largest are noise (default 1e-14, or n rounding errors)',
    )
    .option('--compat <name>', 'floor: raise eigenvalues to 1e-10 before truncation, as the reference does')
    .option('--method <name>', `${METHODS.join(', ')} (default auto)`)
    .option('--features <n>', 'fkea: random frequencies, two features each (default 1024)')
    .option('--landmarks <n>', 'nystrom: landmark items (default 512)')
    .option('--probes <n>', 'slq: probe vectors (default 64)')
    .option('--products <type>', 'auto, f64, or f32 with f64 sums for orders of at least 1 (default auto)')
    .option('--curve <sizes>', 'score against the number of items: sizes, auto or none (default auto)')
    .option('--subsamples <n>', 'subsamples of each size (default 5)')
    .option('--resamples <n>', 'half-samples of a standard error; 0 for none (default 50)')
    .option('--permutations <n>', 'exchanges of items between compared sets (default 200)')
    .option('--leave-one-out <items>', 'sampled items whose gain is measured (default 32 with --table, else 0)')
    .option('--modes <k>', 'leading modes, with the items that score highest in each (default 0)')
    .option('--mode-items <n>', 'items listed for a mode (default 8)')
    .option('--table-of <rows>', `rows of --table: ${TABLE_KINDS.join(', ')} (default items)`)
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<OwnOptions>());
    });
}

function numberList<T>(flag: string, text: string, parse: (part: string) => T): T[] {
  const found = [...new Set(text.split(',').map((part) => part.trim()))].filter((part) => part !== '');
  if (found.length === 0) throw new InputError(`${flag} ${text}: names nothing`);
  return found.map(parse);
}

const count = (flag: string, text: string | undefined, fallback: number, least = 1): number =>
  text === undefined ? fallback : parseInteger(flag, text, least);

function positive(flag: string, text: string): number {
  const value = parseNumber(flag, text);
  if (value > 0) return value;
  throw new InputError(`${flag} ${text}: a number above 0 is needed`);
}

function kernelOf(options: Options, own: OwnOptions): KernelName {
  if (own.similarity !== undefined) {
    if (own.kernel !== undefined) throw new InputError('--similarity is the kernel; leave out --kernel');
    if (options.data.length > 0 || options.model !== undefined)
      throw new InputError('--similarity stands for --data and --model; leave them out');
    if (options.against.length > 0) {
      throw new InputError(
        '--against needs the similarities between the sets; put both into one matrix and use --labels',
      );
    }
    return 'matrix';
  }
  const texts =
    options.data.length > 0 && options.data.every((path) => /\.(txt|text|md|jsonl|ndjson)(\.gz)?$/i.test(path));
  const fallback = texts && options.model === undefined && own.columns === undefined ? 'ngram' : 'cosine';
  const kernel = parseChoice('--kernel', own.kernel ?? fallback, KERNELS);
  if (TEXT_KERNELS.includes(kernel) && options.model !== undefined) {
    throw new InputError(`--kernel ${kernel} compares texts; leave out --model, or use --kernel cosine or rbf`);
  }
  const stray = (['layer', 'pool', 'precision', 'tensor'] as const).find((name) => own[name] !== undefined);
  if (TEXT_KERNELS.includes(kernel) && stray !== undefined) {
    throw new InputError(
      `--${stray} is for features; --kernel ${kernel} compares texts (name a --model to embed them)`,
    );
  }
  return kernel;
}

function settingsOf(options: Options, own: OwnOptions): DiversitySettings {
  const orders = numberList('--q', own.q ?? '0,0.5,1,2,inf', parseOrder);
  const precision = parseChoice('--products', own.products ?? 'auto', ['auto', 'f64', 'f32'] as const);
  if (precision === 'f32' && orders.some((q) => q < 1)) {
    throw new InputError('--products f32: orders below 1 see the rounding of single precision; use --products f64');
  }
  if (own.compat !== undefined) parseChoice('--compat', own.compat, ['floor'] as const);
  const kernel = kernelOf(options, own);
  return {
    kernel,
    method: parseChoice('--method', own.method ?? 'auto', METHODS),
    sigma: own.sigma === undefined || own.sigma === 'median' ? 'median' : positive('--sigma', own.sigma),
    ngrams: {
      lengths: numberList('--ngrams', own.ngrams ?? '1,2,3,4', (part) => parseInteger('--ngrams', part, 1, 64)),
      unit: parseChoice('--ngram-unit', own.ngramUnit ?? 'words', NGRAM_UNITS),
      lowercase: own.lowercase === true,
    },
    normalize: own.normalize === true,
    negative: parseChoice('--negative-eigenvalues', own.negativeEigenvalues ?? 'error', ['error', 'drop'] as const),
    relativeCut: own.cut === undefined ? null : parseNumber('--cut', own.cut, 0, 1),
    orders,
    truncations:
      own.truncate === undefined
        ? []
        : numberList('--truncate', own.truncate, (part) => parseInteger('--truncate', part, 1)),
    referenceFloor: own.compat === 'floor',
    internalOrders: numberList('--intdiv', own.intdiv ?? '1,2', (part) => positive('--intdiv', part)),
    frequencies: count('--features', own.features, 1024),
    landmarks: count('--landmarks', own.landmarks, 512),
    probes: count('--probes', own.probes, 64, 4),
    precision,
    curve: curveOf(own.curve),
    subsamples: count('--subsamples', own.subsamples, 5),
    resamples: count('--resamples', own.resamples, 50, 0),
    permutations: count('--permutations', own.permutations, 200, 0),
    leaveOneOut: count('--leave-one-out', own.leaveOneOut, leavesOneOut(options, own) ? 32 : 0, 0),
    itemGains: options.plot !== undefined || leavesOneOut(options, own),
    modes: count('--modes', own.modes, 0, 0),
    modeItems: count('--mode-items', own.modeItems, 8),
    seed: options.seed,
    threads: options.threads,
    maxMemoryBytes: options.maxMemory,
  };
}

const leavesOneOut = (options: Options, own: OwnOptions): boolean =>
  options.table !== undefined && (own.tableOf ?? 'items') === 'items';

function curveOf(text: string | undefined): readonly number[] | 'auto' {
  if (text === undefined || text === 'auto') return 'auto';
  if (text === 'none') return [];
  return numberList('--curve', text, (part) => parseInteger('--curve', part, 1)).sort((a, b) => a - b);
}

function parametersOf(options: Options, own: OwnOptions, settings: DiversitySettings): Record<string, ReportValue> {
  const {
    threads: _threads,
    maxMemoryBytes: _memory,
    itemGains: _gains,
    ngrams,
    relativeCut,
    referenceFloor,
    ...rest
  } = settings;
  const named = Object.fromEntries(
    Object.entries(rest).map(([key, value]) => [key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), value]),
  );
  return {
    ...featureParameters(options, own),
    ...named,
    precision: own.precision ?? null,
    products: settings.precision,
    orders: settings.orders.map(finiteOrName),
    ngrams: ngrams.lengths,
    ngram_unit: ngrams.unit,
    lowercase: ngrams.lowercase === true,
    cut: relativeCut,
    compat: referenceFloor ? 'floor' : null,
    similarity: own.similarity ?? null,
    weights: own.weights ?? null,
    group_column: own.groupColumn ?? null,
    against: [...options.against],
  };
}

async function run(options: Options, own: OwnOptions): Promise<number> {
  if (options.shard) {
    throw new InputError(
      '--shard: a score belongs to all items together, and parts of a kernel matrix do not unite; run it whole',
    );
  }
  const settings = settingsOf(options, own);
  const data =
    own.similarity === undefined
      ? requireOption(options.data, '--data', 'texts or files of features, or --similarity')
      : [own.similarity];
  if (own.weights !== undefined && options.against.length > 0) {
    throw new InputError('--weights belong to one set; compare sets without them');
  }
  const kind = parseChoice('--table-of', own.tableOf ?? 'items', TABLE_KINDS);
  const read: Options = { ...options, data };
  const view: AnalysisView = {
    name: DIVERSITY_SCHEMA,
    columns: SCORE_COLUMNS,
    tableColumns: detailColumns(kind, settings),
    unit: 'spectra',
    inputs: [...data, ...options.against, ...(own.labels === undefined ? [] : [own.labels])],
    parameters: parametersOf(options, own, settings),
    subtitle: options.model === undefined ? data.join(', ') : `${options.model}: ${data.join(', ')}`,
  };
  return runAnalysis(view, options, {
    measure: (context) => measure(read, own, settings, kind, context),
    plan: (context) => plan(read, own, settings, context),
  });
}

async function measure(
  options: Options,
  own: OwnOptions,
  settings: DiversitySettings,
  kind: TableKind,
  context: AnalysisContext,
): Promise<AnalysisOutcome> {
  const inputs = await openDiversityInputs(settings.kernel, options, own, context);
  context.timings.begin('spectra');
  const measured: MeasuredSet[] = [];
  let done = 0;
  for (const { main, against } of inputs.sets) {
    const before = done;
    const args = { set: main.set, against: against.map(({ set }) => set), settings };
    const measures = await context.run(MEASURE_DIVERSITY, args, (step) => {
      done = before + Number(step);
      context.progress.update(done);
    });
    for (const warning of measures.warnings) context.warn(warning);
    measured.push({
      measures,
      layer: main.layer,
      ...(main.ids && { ids: main.ids }),
      ...(main.excerpts && { excerpts: main.excerpts }),
      ...(main.groupOf && { groupOf: main.groupOf }),
    });
  }
  const body = diversityBody(measured, settings);
  return {
    body,
    rows: () => scoreRows(body),
    tableRows: () => detailRows(kind, body, measured, settings),
    figure: async (subtitle) =>
      (await import('../src/diversity/diversity-plot.js')).drawDiversity(body, measured, subtitle),
    summary: summary(body),
    digests: inputs.digests,
  };
}

const MEBIBYTE = 2 ** 20;

async function plan(
  options: Options,
  own: OwnOptions,
  settings: DiversitySettings,
  context: AnalysisContext,
): Promise<SummaryCell[][]> {
  const rows: SummaryCell[][] = [
    ['kernel', settings.kernel],
    ['orders', settings.orders.map(finiteOrName).join(', ')],
  ];
  if (options.model !== undefined) return [...rows, ['model', options.model], ['text', options.data.join(', ')]];
  const inputs = await openDiversityInputs(settings.kernel, options, own, context);
  const { kernel, method, frequencies, landmarks, maxMemoryBytes } = settings;
  for (const { main, against } of inputs.sets) {
    for (const { set } of [main, ...against]) {
      const [items, columns] = await extent(set.items);
      const pointBytes = 8 * items * columns;
      const found = planKernel({ kernel, method, items, columns, frequencies, landmarks, maxMemoryBytes, pointBytes });
      const size = columns === 0 ? `${items} items` : `${items} x ${columns}`;
      rows.push([set.name, `${size}, ${found.method}: ${found.reason}`]);
      rows.push(['order of the matrix', found.order]);
      rows.push(['memory of the kernel, MiB', Math.ceil(found.bytes / MEBIBYTE)]);
    }
  }
  return rows;
}

async function extent(
  items: Awaited<ReturnType<typeof openDiversityInputs>>['sets'][number]['main']['set']['items'],
): Promise<[number, number]> {
  if (items.kind === 'texts') return [items.texts.length, 0];
  const matrix = await openFeatures(items.source);
  matrix.close();
  return [matrix.rows, items.kind === 'matrix' ? 0 : matrix.columns];
}

function summary(body: DiversityBody): AnalysisOutcome['summary'] {
  const rows: SummaryCell[][] = [];
  for (const set of body.sets) {
    const name = set.layer === null ? set.name : `layer ${set.layer}`;
    for (const figure of set.figures) {
      const values = [figure.value, figure.value_se ?? undefined, figure.method, figure.method_error ?? undefined];
      rows.push([name, set.items, measureKey(figure), ...values]);
    }
  }
  for (const { set, against, figures } of body.comparisons) {
    for (const figure of figures) {
      const values = [figure.difference, figure.difference_se ?? undefined, 'difference', undefined];
      rows.push([`${set} less ${against}`, undefined, measureKey(figure), ...values]);
    }
  }
  return { header: ['set', 'items', 'measure', 'value', 'se', 'path', 'error of the path'], rows };
}
