import { statSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { readDocuments, requireField } from '../src/formats/documents.js';
import { sha256File } from '../src/formats/hash.js';
import { resolveDirectory, resolveModelPath } from '../src/formats/hub.js';
import { expandSources, type InputDigest } from '../src/formats/inputs.js';
import type {
  AlignArguments,
  AlignedCorpus,
  AlignSettings,
  AlignText,
  TokenizerPlace,
} from '../src/fusion/knowledge/align-job.js';
import type { BlockRows, Measurement } from '../src/fusion/knowledge/align-measure.js';
import {
  ALIGN_COLUMNS,
  type AlignBody,
  alignBody,
  alignRows,
  type SourceFigures,
  sourceFigures,
  TOKEN_MAP_COLUMNS,
  tokenMapRows,
} from '../src/fusion/knowledge/align-report.js';
import { movedLine, pairRows, type RowPair } from '../src/fusion/knowledge/row-pairs.js';
import { tokenPair } from '../src/fusion/knowledge/token-pair.js';
import type { MoveOptions, SparseRows } from '../src/fusion/knowledge/types.js';
import { mapByText } from '../src/fusion/knowledge/vocabulary-map.js';
import type { SummaryCell } from '../src/report/summary-table.js';
import type { ReportValue } from '../src/report/values.js';
import { CAPTURE, CAPTURE_BYTES } from '../src/training/language/capture-job.js';
import { type AnalysisContext, type AnalysisOutcome, runAnalysis } from './analysis-run.js';
import { parseChoice, parseInteger } from './edge-values.js';
import { modelDigests } from './model-digests.js';
import { type ModelSession, openModelSession, PRECISION_OPTION, parsePrecision } from './model-session.js';
import { ANALYSIS_OPTIONS, attachShared, requireOption } from './shared-options.js';

const SHARED = [
  ...ANALYSIS_OPTIONS.filter((name) => name !== 'shard'),
  'data',
  'dataFormat',
  'textSplit',
  'textField',
  'limit',
  'table',
  'device',
] as const;

type Options = Awaited<ReturnType<ReturnType<typeof attachShared<(typeof SHARED)[number]>>>>;

interface OwnOptions {
  pivot?: string;
  source?: string[];
  domainField?: string;
  rule?: string;
  map?: string;
  msRule?: string;
  window?: string;
  tokenText?: string;
  alignmentMatrix?: boolean;
  blockSize?: string;
  dropDifferent?: boolean;
  withLogits?: boolean;
  topK?: string;
  mapOut?: string;
  pivotRows?: string[];
  sourceRows?: string[];
  dropNan?: boolean;
  rowsOut?: string;
  fallback?: string;
  precision?: string;
}

const COMMAND = 'fuse align';
const DEFAULT_BLOCK = 2048;
const DEFAULT_K = 10;
const DEFAULT_WINDOW = 5;

/** Declares `surprisal fuse align`. */
export function configure(command: Command): void {
  const read = attachShared(command, SHARED);
  command
    .option('--pivot <model>', 'the model that learns: a directory with tokenizer.json, a .gguf, or org/name')
    .option('--source <model...>', 'models that teach, likewise; each is aligned with the pivot by itself')
    .option('--domain-field <name>', 'field that names the domain of a document (default: the file)')
    .option('--rule <name>', 'how sequences are aligned and distributions moved: fusellm, fusechat (default fusellm)')
    .option(
      '--map <kind>',
      'map of the vocabularies: exact, mined, cooccurrence, ms (default mined; with --rule fusechat ms)',
    )
    .option('--ms-rule <rule>', 'choice of --map ms: frequency, fusechat (default frequency)')
    .option('--window <n>', `neighbours to either side, of --map cooccurrence (default ${DEFAULT_WINDOW})`)
    .option('--token-text <form>', 'strings that are compared: vocab, decoded (default vocab)')
    .option('--no-alignment-matrix', 'of --rule fusechat: no row where several source positions meet one of the pivot')
    .option(
      '--block-size <tokens>',
      `longer texts are cut (default ${DEFAULT_BLOCK}; at most the context of the model)`,
    )
    .option('--drop-different', 'leave out texts that the two tokenizers spell differently')
    .option('--with-logits', 'run the sources: what of the probability of their likeliest tokens reaches the pivot')
    .option('--top-k <k>', `likeliest tokens a position, of --with-logits (default ${DEFAULT_K})`)
    .option(
      '--map-out <file.json>',
      "the map in FuseLLM's form, source string to pivot string; by source where there are several",
    )
    .option('--pivot-rows <file...>', 'sequences of the pivot in the columns of FuseLLM, instead of --data')
    .option('--source-rows <file...>', 'those of the one source, with per_step_logits and per_step_indices')
    .option('--drop-nan', 'leave out stored sequences whose cross-entropy is NaN')
    .option('--rows-out <file.jsonl>', "stored rows moved to the pivot, beside the pivot's own columns")
    .option('--fallback <label>', 'of --rows-out, positions without a source row: next, fusellm (default next)')
    .option(...PRECISION_OPTION)
    .action(async () => {
      process.exitCode = await run(await read(), command.opts<OwnOptions>());
    });
}

/** Where a tokenizer is, in words of the file system. */
function placeOf(spec: string): TokenizerPlace {
  if (/\.(gguf|onnx)$/i.test(spec)) return { name: spec, path: resolveModelPath(spec, process.env).path };
  if (basename(spec) === 'tokenizer.json') return { name: spec, path: spec };
  return { name: spec, path: resolveDirectory(spec, process.env) };
}

/** Files of a directory that say how it reads text. */
const TOKENIZER_FILES = ['tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json'];

async function tokenizerDigests({ name, path }: TokenizerPlace): Promise<InputDigest[]> {
  const isFile = statSync(path).isFile();
  if (isFile) return [{ path: name, bytes: statSync(path).size, sha256: await sha256File(path) }];
  const found = TOKENIZER_FILES.filter((file) => statSync(join(path, file), { throwIfNoEntry: false })?.isFile());
  return Promise.all(
    found.map(async (file) => ({
      path: `${name.replace(/\/$/, '')}/${file}`,
      bytes: statSync(join(path, file)).size,
      sha256: await sha256File(join(path, file)),
    })),
  );
}

/** Everything that the options decide. */
interface Plan {
  readonly pivot: TokenizerPlace;
  readonly sources: readonly TokenizerPlace[];
  readonly files: readonly string[];
  readonly settings: AlignSettings;
  readonly move: MoveOptions;
  readonly topK: number | undefined;
  /** Stored sequences, instead of texts. */
  readonly stored: { readonly pivot: readonly string[]; readonly source: readonly string[] } | undefined;
}

async function storedFiles(own: OwnOptions, options: Options, sources: number): Promise<Plan['stored']> {
  const { pivotRows, sourceRows } = own;
  if (pivotRows === undefined && sourceRows === undefined) {
    const stray = own.rowsOut !== undefined ? '--rows-out' : own.dropNan ? '--drop-nan' : undefined;
    if (stray) throw new InputError(`${stray} needs --pivot-rows and --source-rows`);
    return undefined;
  }
  if (pivotRows === undefined || sourceRows === undefined) {
    throw new InputError(`${pivotRows ? '--source-rows' : '--pivot-rows'} is missing; stored rows of both are needed`);
  }
  const refused = [
    options.data.length > 0 && '--data',
    own.withLogits && '--with-logits',
    own.domainField !== undefined && '--domain-field',
    own.blockSize !== undefined && '--block-size',
  ].find((flag) => typeof flag === 'string');
  if (refused) throw new InputError(`${refused} has no meaning with stored rows; leave it out`);
  if (sources !== 1) throw new InputError('--source-rows holds the rows of one source; name one with --source');
  return { pivot: await expandSources(pivotRows), source: await expandSources(sourceRows) };
}

async function planOf(options: Options, own: OwnOptions): Promise<Plan> {
  const pivot = placeOf(requireOption(own.pivot, '--pivot', 'the model that learns'));
  const sources = requireOption(own.source, '--source', 'a model that teaches').map(placeOf);
  const names = sources.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new InputError(`--source: ${twice} stands twice`);
  const rule = parseChoice('--rule', own.rule ?? 'fusellm', ['fusellm', 'fusechat'] as const);
  const kind = own.map ?? (rule === 'fusechat' ? 'ms' : 'mined');
  const map = parseChoice('--map', kind, ['exact', 'mined', 'cooccurrence', 'ms'] as const);
  if (own.msRule !== undefined && map !== 'ms') throw new InputError('--ms-rule needs --map ms');
  if (own.window !== undefined && map !== 'cooccurrence') throw new InputError('--window needs --map cooccurrence');
  if (own.alignmentMatrix === false && rule !== 'fusechat') {
    throw new InputError('--no-alignment-matrix needs --rule fusechat');
  }
  const refused = own.withLogits ? undefined : own.topK !== undefined ? '--top-k' : own.precision && '--precision';
  if (refused) throw new InputError(`${refused} needs --with-logits`);
  if (own.fallback !== undefined && own.rowsOut === undefined) throw new InputError('--fallback needs --rows-out');
  const stored = await storedFiles(own, options, sources.length);
  const data = stored ? [] : requireOption(options.data, '--data', 'text in the domains that are to be fused');
  return {
    pivot,
    sources,
    files: stored ? [...stored.pivot, ...stored.source] : await expandSources(data),
    stored,
    settings: {
      rule,
      tokenText: parseChoice('--token-text', own.tokenText ?? 'vocab', ['vocab', 'decoded'] as const),
      map,
      msRule: parseChoice('--ms-rule', own.msRule ?? 'frequency', ['frequency', 'fusechat'] as const),
      window: parseInteger('--window', own.window ?? String(DEFAULT_WINDOW), 1),
      blockSize: parseInteger('--block-size', own.blockSize ?? String(DEFAULT_BLOCK), 64, 2 ** 15),
      dropDifferent: own.dropDifferent ?? false,
    },
    move: {
      rule: rule === 'fusechat' ? 'fusechat' : map === 'exact' ? 'fusellm-hard' : 'fusellm-soft',
      alignmentMatrix: own.alignmentMatrix ?? true,
      fallback: parseChoice('--fallback', own.fallback ?? 'next', ['next', 'fusellm'] as const),
    },
    topK: own.withLogits ? parseInteger('--top-k', own.topK ?? String(DEFAULT_K), 1) : undefined,
  };
}

function parametersOf(options: Options, own: OwnOptions, plan: Plan): Record<string, ReportValue> {
  const { settings, move, topK } = plan;
  return {
    pivot: plan.pivot.name,
    sources: plan.sources.map(({ name }) => name),
    data: [...options.data],
    data_format: options.dataFormat ?? null,
    text_split: options.textSplit,
    text_field: options.textField,
    pivot_rows: own.pivotRows ? [...own.pivotRows] : null,
    source_rows: own.sourceRows ? [...own.sourceRows] : null,
    drop_nan: plan.stored ? (own.dropNan ?? false) : null,
    fallback: own.rowsOut === undefined ? null : (move.fallback ?? 'next'),
    domain_field: own.domainField ?? null,
    limit: options.limit ?? null,
    rule: settings.rule,
    map: settings.map,
    ms_rule: settings.map === 'ms' ? settings.msRule : null,
    window: settings.map === 'cooccurrence' ? settings.window : null,
    token_text: settings.tokenText,
    alignment_matrix: settings.rule === 'fusechat' ? (move.alignmentMatrix ?? true) : null,
    block_size: settings.blockSize,
    drop_different: settings.dropDifferent,
    top_k: topK ?? null,
    precision: topK === undefined ? null : parsePrecision(own.precision),
    seed: options.seed,
  };
}

interface Texts {
  readonly texts: readonly AlignText[];
  readonly domains: readonly string[];
  /** Stored sequences, one a text. */
  readonly pairs?: readonly RowPair[];
  readonly warnings: readonly string[];
}

/** Stored sequences of both models: the domain is the pivot's file. */
async function readStored(
  { pivot, sources }: Plan,
  files: NonNullable<Plan['stored']>,
  options: Options,
  own: OwnOptions,
  context: AnalysisContext,
): Promise<Texts> {
  const { openPlace } = await import('../src/fusion/knowledge/align-job.js');
  const { readSourceRows } = await import('../src/fusion/knowledge/source-rows.js');
  const read = (paths: readonly string[], place: TokenizerPlace) =>
    readSourceRows(paths, {
      vocabulary: openPlace(place).vocabularySize,
      pivotVocabulary: openPlace(pivot).vocabularySize,
      dropNan: own.dropNan ?? false,
      ledger: context.ledger,
    });
  const ofPivot = await read(files.pivot, pivot);
  const ofSource = await read(files.source, sources[0]);
  const pairs = pairRows(ofPivot, ofSource).slice(0, options.limit);
  const all = ofPivot.rows.length + ofPivot.dropped.length;
  const nan = new Set([...ofPivot.dropped, ...ofSource.dropped]).size;
  return {
    pairs,
    texts: pairs.map(({ pivot: to, source: from }) => ({
      place: to.place,
      ids: { source: from.inputIds, pivot: to.inputIds },
    })),
    domains: pairs.map(({ pivot: to }) => to.file),
    warnings: nan > 0 ? [`${nan} of ${all} sequences have a cross-entropy that is NaN and were left out`] : [],
  };
}

async function readTexts(options: Options, own: OwnOptions, plan: Plan, context: AnalysisContext): Promise<Texts> {
  if (plan.stored) return readStored(plan, plan.stored, options, own, context);
  const texts: AlignText[] = [];
  const domains: string[] = [];
  const documents = readDocuments(plan.files, {
    ledger: context.ledger,
    textField: options.textField,
    textSplit: options.textSplit,
    ...(options.dataFormat && { format: options.dataFormat }),
    ...(options.limit !== undefined && { limit: options.limit }),
  });
  for await (const document of documents) {
    const { source, line, index, id, text } = document;
    const place = `${source}:${line ?? index} (${id})`;
    if (text === undefined) throw new InputError(`${place}: token ids of one model; text is needed for two tokenizers`);
    texts.push({ place, text });
    domains.push(own.domainField === undefined ? source : String(requireField(document, own.domainField)));
  }
  return { texts, domains, warnings: [] };
}

/** Likeliest tokens of windows, row by row; what has no probability is left out. */
function sparseRows(k: number, ids: Int32Array, logProbs: Float32Array, first: number, count: number): SparseRows {
  const offsets = new Int32Array(count + 1);
  const kept: number[] = [];
  for (let t = 0; t < count; t++) {
    for (let i = (first + t) * k; i < (first + t + 1) * k; i++) if (ids[i] >= 0) kept.push(i);
    offsets[t + 1] = kept.length;
  }
  return {
    offsets,
    ids: Int32Array.from(kept, (i) => ids[i]),
    logits: Float32Array.from(kept, (i) => logProbs[i]),
  };
}

/** Runs a source over its blocks. */
async function runSource(
  session: ModelSession,
  corpus: AlignedCorpus,
  topK: number,
  threads: number,
  onBlock: (done: number) => void,
): Promise<BlockRows> {
  const { host, tokenizer, context } = session;
  const k = Math.min(topK, host.info.vocabularySize);
  const begin = tokenizer?.addBosDefault && tokenizer.bosId !== undefined ? [tokenizer.bosId] : [];
  const atOnce = Math.max(1, Math.floor(host.info.rowsPerBatch / context));
  const rows: SparseRows[] = [];
  for (let from = 0; from < corpus.blocks.length; from += atOnce) {
    const blocks = corpus.blocks.slice(from, from + atOnce);
    const windows = blocks.map(({ source }) => Int32Array.of(...begin, ...source));
    const longest = Math.max(...windows.map(({ length }) => length));
    if (longest > context) {
      throw new InputError(`a block takes ${longest} tokens, the model holds ${context}; lower --block-size`);
    }
    const found = await host.run(CAPTURE, {
      windows,
      wanted: windows.map((window) => new Uint8Array(window.length).fill(1, begin.length)),
      firstWindow: from,
      k,
      temperature: 1,
      threads,
    });
    let first = 0;
    for (const { source } of blocks) {
      rows.push(sparseRows(k, found.ids, found.logProbs, first, source.length));
      first += source.length;
    }
    onBlock(rows.length);
  }
  return { rows, normalised: true };
}

/** The stored rows of the blocks: a sequence is a block. */
function storedRows(pairs: readonly RowPair[], corpus: AlignedCorpus): BlockRows {
  const rows = corpus.blocks.map(({ text }) => pairs[text].source.rows);
  return { rows: rows.filter((own) => own !== undefined), normalised: false };
}

interface Measured {
  readonly corpus: AlignedCorpus;
  readonly figures: SourceFigures;
  readonly moved: Measurement['moved'];
}

async function measureSource(
  source: TokenizerPlace,
  { texts, domains, pairs }: Texts,
  options: Options,
  own: OwnOptions,
  plan: Plan,
  context: AnalysisContext,
): Promise<Measured> {
  const { ALIGN_TEXTS } = await import('../src/fusion/knowledge/align-job.js');
  const { MEASURE_ALIGNMENT } = await import('../src/fusion/knowledge/align-measure.js');
  const session =
    plan.topK === undefined
      ? undefined
      : await openModelSession(source.name, {
          threads: options.threads,
          maxMemory: options.maxMemory,
          device: options.device,
          context: undefined,
          precision: parsePrecision(own.precision),
          reserveBytes: CAPTURE_BYTES,
        });
  try {
    const args: AlignArguments = {
      ...plan.settings,
      blockSize: Math.min(plan.settings.blockSize, session?.context ?? plan.settings.blockSize),
      pivot: plan.pivot,
      source,
      texts,
      threads: options.threads,
    };
    context.timings.begin(`align ${source.name}`);
    context.progress.setTotal(texts.length);
    const corpus = await context.run(ALIGN_TEXTS, args, (done) => context.progress.update(done as number, source.name));
    let blockRows = pairs && storedRows(pairs, corpus);
    if (session && plan.topK !== undefined) {
      context.timings.begin(`run ${source.name}`);
      context.progress.setTotal(corpus.blocks.length);
      blockRows = await runSource(session, corpus, plan.topK, options.threads, (done) =>
        context.progress.update(done, source.name),
      );
    }
    const { sums, moved } = await context.run(MEASURE_ALIGNMENT, {
      corpus,
      texts: texts.length,
      options: plan.move,
      ...(blockRows && { blockRows }),
      keepMoved: own.rowsOut !== undefined,
    });
    const names = { source: source.name, pivot: plan.pivot.name };
    const settings = { seed: options.seed, normalised: blockRows?.normalised ?? true };
    return { corpus, moved, figures: sourceFigures(names, corpus, sums, domains, settings) };
  } finally {
    await session?.close();
  }
}

/** Of one source its map; of several a map for each, by their names. */
function mapFile(measured: readonly Measured[]): Uint8Array {
  const maps = measured.map(({ corpus, figures }): [string, Record<string, string>] => [
    figures.source,
    mapByText(tokenPair(corpus.source, corpus.pivot), corpus.map),
  ]);
  const content = maps.length === 1 ? maps[0][1] : Object.fromEntries(maps);
  return new TextEncoder().encode(`${JSON.stringify(content, null, 1)}\n`);
}

/** Moved rows, a line a sequence. */
function movedFile(plan: Plan, { pairs = [] }: Texts, [{ corpus, moved }]: readonly Measured[]): Uint8Array {
  const lines = moved.map((rows, b) => movedLine(pairs[corpus.blocks[b].text], rows, plan.settings.rule));
  return new TextEncoder().encode(lines.map((line) => `${line}\n`).join(''));
}

function filesOf(plan: Plan, texts: Texts, measured: readonly Measured[], own: OwnOptions): Map<string, Uint8Array> {
  const files = new Map<string, Uint8Array>();
  if (own.mapOut !== undefined) files.set('--map-out', mapFile(measured));
  if (own.rowsOut !== undefined) files.set('--rows-out', movedFile(plan, texts, measured));
  return files;
}

const SUMMARY = ['source', 'domain', 'documents', 'learnt', 'se', 'exact', 'mapped', '1-n', 'n-1', 'fallback', 'cost'];

function summaryRows({ sources }: AlignBody): SummaryCell[][] {
  return sources.flatMap(({ source, domains, total, verdict }) => [
    ...(domains.length > 1 ? [...domains, total] : [total]).map((own): SummaryCell[] => [
      source,
      own.domain,
      own.documents,
      own.learnt.value,
      own.learnt.se ?? undefined,
      own.shares.exact.value,
      own.shares.mapped.value,
      own.shares.one_to_many.value,
      own.shares.many_to_one.value,
      own.shares.fallback.value,
      own.mean_cost.value,
    ]),
    [source, `verdict: ${verdict.fused}`],
  ]);
}

function outcomeOf(plan: Plan, texts: Texts, measured: readonly Measured[], own: OwnOptions): AnalysisOutcome {
  const [{ corpus }] = measured;
  const warnings = [...texts.warnings, ...new Set(measured.flatMap(({ corpus: { warnings: found } }) => found))];
  for (const one of measured) {
    if (one.corpus.dropped.length === 0) continue;
    warnings.push(`${one.figures.source}: ${one.corpus.dropped.length} of ${texts.texts.length} texts were left out`);
  }
  const pivot = { name: plan.pivot.name, vocabulary: corpus.pivot.texts.length, marker: corpus.pivot.marker };
  const figures = measured.map((one) => one.figures);
  const body = alignBody(pivot, texts.texts.length, figures, warnings);
  return {
    body,
    rows: () => alignRows(body),
    *tableRows() {
      for (const one of measured) yield* tokenMapRows(one.figures.source, one.corpus);
    },
    figure: async (subtitle) => {
      const { alignFigure } = await import('../src/fusion/knowledge/align-plot.js');
      return alignFigure(
        body,
        measured.map((one) => one.corpus),
        subtitle,
      );
    },
    summary: { header: SUMMARY, rows: summaryRows(body) },
    async digests() {
      const ofSources = plan.sources.map(plan.topK === undefined ? tokenizerDigests : digestsOfModel);
      return (await Promise.all([tokenizerDigests(plan.pivot), ...ofSources])).flat();
    },
    files: () => filesOf(plan, texts, measured, own),
  };
}

async function digestsOfModel({ name, path }: TokenizerPlace): Promise<InputDigest[]> {
  return (await modelDigests(name, path)).digests;
}

function ownFiles({ mapOut, rowsOut }: OwnOptions): Map<string, string> {
  const files = new Map<string, string>();
  if (mapOut !== undefined) files.set('--map-out', mapOut);
  if (rowsOut !== undefined) files.set('--rows-out', rowsOut);
  return files;
}

async function run(options: Options, own: OwnOptions): Promise<number> {
  const plan = await planOf(options, own);
  const { settings } = plan;
  return runAnalysis(
    {
      name: 'fuse-align',
      command: COMMAND,
      columns: ALIGN_COLUMNS,
      tableColumns: TOKEN_MAP_COLUMNS,
      files: ownFiles(own),
      unit: plan.topK === undefined ? 'documents' : 'documents, then blocks',
      inputs: [...plan.files, ...[plan.pivot, ...plan.sources].map(tokenizerFile)],
      parameters: parametersOf(options, own, plan),
      subtitle: `rule ${settings.rule}, map ${settings.map}, ${settings.tokenText} strings`,
    },
    { ...options, shard: undefined },
    {
      async measure(context) {
        const texts = await readTexts(options, own, plan, context);
        const measured: Measured[] = [];
        for (const source of plan.sources) {
          measured.push(await measureSource(source, texts, options, own, plan, context));
        }
        const outcome = outcomeOf(plan, texts, measured, own);
        for (const warning of (outcome.body as AlignBody).warnings) context.warn(warning);
        for (const { figures } of measured) if (!options.quiet) process.stderr.write(`${figures.verdict.text}\n`);
        return outcome;
      },
      async plan() {
        return [
          ['files read', plan.files.join(', ')],
          ['pivot', plan.pivot.name],
          ['sources', plan.sources.map(({ name }) => name).join(', ')],
          ['rule', settings.rule],
          ['map', settings.map],
          ['blocks', `${settings.blockSize} tokens, ${settings.blockSize ** 2} bytes of steps`],
          ['sources are run', plan.topK === undefined ? 'no' : `yes, ${plan.topK} tokens a position`],
        ];
      },
    },
  );
}

function tokenizerFile({ path }: TokenizerPlace): string {
  return statSync(path).isFile() ? path : join(path, 'tokenizer.json');
}
