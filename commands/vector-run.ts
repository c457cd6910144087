import { createHash } from 'node:crypto';
import type { Command } from 'commander';
import { InputError } from '../src/errors.js';
import { createInputLedger, type InputLedger } from '../src/formats/inputs.js';
import { buildReport, writeReport } from '../src/report/json.js';
import { type SummaryCell, shownNumber, summaryTable } from '../src/report/summary-table.js';
import { type ReportValue, reportObject } from '../src/report/values.js';
import type { SteeringVectors } from '../src/steering/types.js';
import { combineVectors } from '../src/steering/vector-algebra.js';
import { type EncodedVectors, encodeSteeringVectors } from '../src/steering/vector-files/vector-files.js';
import {
  blockRecords,
  COSINE_COLUMNS,
  type CosineRecord,
  cosineRecord,
  cosineRows,
  MOST_COSINES,
  originRecord,
  sourceRecord,
  VECTORS_SCHEMA,
  type VectorsBody,
} from '../src/steering/vector-report.js';
import { prepareAsserts } from './edge-asserts.js';
import { openOutputs } from './edge-outputs.js';
import { toolVersion } from './edge-version.js';
import type { SharedOptions } from './shared-options.js';
import { openVectorModel, type VectorModel, type VectorSource } from './vector-files.js';

/** Shared options of the commands that turn files of vectors into others. */
export const VECTOR_SHARED = [
  'model',
  'out',
  'report',
  'assert',
  'baseline',
  'quiet',
  'dryRun',
  'force',
] as const satisfies readonly (keyof SharedOptions)[];

export type VectorShared = Pick<SharedOptions, (typeof VECTOR_SHARED)[number] | 'config' | 'debug'> &
  Partial<Pick<SharedOptions, 'table'>>;

/** One command of this kind. */
export interface VectorWork {
  readonly command: string;
  readonly operation: VectorsBody['operation'];
  /** Options that decide the result. */
  readonly parameters: Readonly<Record<string, ReportValue>>;
  /** Files that are read, as the user gave them. */
  read(ledger: InputLedger, model: VectorModel | undefined): readonly VectorSource[];
  /** The vectors that are written; absent where nothing is. */
  combine?(sources: readonly VectorSource[]): SteeringVectors;
  /** Format and limits of `--out`. */
  encode(out: string, vectors: SteeringVectors): EncodedVectors & { readonly format: string };
}

/** The weighted sum of the files; of one file at strength 1 the file as it is. */
export function weightedSum(sources: readonly VectorSource[]): SteeringVectors {
  const [first] = sources;
  if (sources.length === 1 && first.weight === 1) return first.vectors;
  return combineVectors(sources);
}

/** Vectors with what `--model` says of where they belong. */
export function namedAfter(
  vectors: SteeringVectors,
  model: VectorModel | undefined,
  keepHash: boolean,
): SteeringVectors {
  const { modelSha256, ...known } = vectors.origin;
  if (!model) return keepHash ? vectors : { ...vectors, origin: known };
  const { modelType, layers, sha256 } = model.fitted;
  return {
    ...vectors,
    origin: { ...known, modelType: known.modelType ?? modelType, layers, ...(sha256 && { modelSha256: sha256 }) },
  };
}

/** Reads, combines, writes and reports. Files of vectors are small: everything is held in memory. */
export async function runVectorWork(
  options: VectorShared,
  own: { anyModel?: boolean },
  work: VectorWork,
): Promise<number> {
  const asserts = await prepareAsserts(options.assert, options.baseline);
  const ledger = createInputLedger();
  const model = options.model === undefined ? undefined : await openVectorModel(options.model);
  const sources = work.read(ledger, model);
  const combined = work.combine?.(sources);
  const vectors = combined && namedAfter(combined, model, own.anyModel !== true);
  const outputs = openOutputs(
    sources.map(({ name }) => name),
    { force: options.force },
  );
  try {
    const encoded = options.out !== undefined && vectors ? work.encode(options.out, vectors) : undefined;
    const cosines = cosineRecord(sources);
    if (options.table !== undefined && !cosines) {
      throw new InputError(
        `--table ${options.table}: has the cosines of 2 to ${MOST_COSINES} vectors; choose by --layer`,
      );
    }
    const shown = vectors ?? sources[0].vectors;
    const body: VectorsBody = {
      operation: work.operation,
      sources: sources.map(({ name, format, weight, vectors: read }) => sourceRecord(name, format, weight, read)),
      hidden_size: shown.hiddenSize,
      layer_base: 0,
      injection: 'block output',
      blocks: vectors ? blockRecords(vectors) : [],
      origin: originRecord(shown),
      model: model ? { path: model.spec, model_type: model.fitted.modelType, blocks: model.fitted.layers } : null,
      output: encoded
        ? {
            format: encoded.format,
            bytes: encoded.bytes.length,
            sha256: createHash('sha256').update(encoded.bytes).digest('hex'),
          }
        : null,
      assumptions: assumptionsOf(sources),
      notes: [...(encoded?.notes ?? [])],
      cosines,
    };
    if (options.dryRun) {
      process.stdout.write(summary(body, options.out));
      return 0;
    }
    const file = encoded ? outputs.file('--out', options.out) : undefined;
    const table = outputs.table('--table', options.table, COSINE_COLUMNS);
    const reportFile = outputs.file('--report', options.report);
    const report = buildReport(
      {
        name: VECTORS_SCHEMA,
        tool: { name: 'surprisal', version: toolVersion() },
        command: work.command,
        parameters: { model: options.model ?? null, any_model: own.anyModel === true, ...work.parameters },
        inputs: [...(model?.digests ?? []), ...(await ledger.digests())],
      },
      reportObject(body),
    );
    if (file && encoded) file.write(encoded.bytes);
    if (table && cosines) for (const row of cosineRows(cosines)) table.write(row);
    if (reportFile) writeReport(report, reportFile);
    outputs.commit();
    if (!options.quiet) process.stdout.write(summary(body, options.out));
    return asserts.check(report);
  } finally {
    outputs.abort();
  }
}

function assumptionsOf(sources: readonly VectorSource[]): string[] {
  return sources.flatMap(({ name, vectors }) => vectors.assumptions.map((line) => `${name}: ${line}`));
}

function summary(body: VectorsBody, out: string | undefined): string {
  const rows: SummaryCell[][] = body.sources.map(({ file, format, strength, blocks }) => [
    file,
    `${format}, blocks ${ranges(blocks)}, strength ${strength}`,
  ]);
  if (body.output && out !== undefined) {
    rows.push([`written: ${out}`, `${body.output.format}, blocks ${ranges(body.blocks.map(({ block }) => block))}`]);
  }
  if (body.operation === 'compare' && body.cosines) rows.push(...cosineLines(body.cosines));
  for (const line of body.assumptions) rows.push(['assumed', line]);
  for (const line of body.notes) rows.push(['note', line]);
  return summaryTable(['vectors', `hidden size ${body.hidden_size}`], rows);
}

/** Lines of standard output for cosines; the table has all. */
const SHOWN_COSINES = 40;

/** Vectors of different files for one block; of a single file each block with the next. */
function cosineLines({ entries, cosines }: CosineRecord): SummaryCell[][] {
  const alone = entries.every(({ file }) => file === entries[0].file);
  const lines: SummaryCell[][] = [];
  entries.forEach((a, i) => {
    for (let j = i + 1; j < entries.length; j++) {
      const b = entries[j];
      if (alone ? j === i + 1 : a.file !== b.file && a.block === b.block) {
        const what = alone ? `blocks ${a.block} and ${b.block}` : `block ${a.block}, ${a.file} and ${b.file}`;
        lines.push([`cosine ${shownNumber(cosines[i][j])}`, what]);
      }
    }
  });
  if (lines.length <= SHOWN_COSINES) return lines;
  return [...lines.slice(0, SHOWN_COSINES), ['', `and ${lines.length - SHOWN_COSINES} more: --table has all`]];
}

/** `4 to 7, 9` of ascending blocks. */
function ranges(blocks: readonly number[]): string {
  const parts: [number, number][] = [];
  for (const block of blocks) {
    const last = parts.at(-1);
    if (last && block === last[1] + 1) last[1] = block;
    else parts.push([block, block]);
  }
  return parts.map(([from, to]) => (from === to ? String(from) : `${from} to ${to}`)).join(', ');
}

/** Encodes by the name of the file. */
export function encodeByName(
  out: string,
  vectors: SteeringVectors,
  format: string,
  moveBlockZero = false,
): EncodedVectors & { readonly format: string } {
  return { ...encodeSteeringVectors(out, vectors, { moveBlockZero }), format };
}

/** Adds what {@link runVectorWork} reads to the help. */
export function describeVectorCommand(command: Command, lines: readonly string[]): Command {
  return command.addHelpText('after', `\n${lines.join('\n')}`);
}
