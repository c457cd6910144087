import { type LogitSource, openLogitSource } from '../src/decoding/logit-source.js';
import {
  type ComparisonSettings,
  compareRows,
  createRowComparison,
  type PlanRows,
  type RowComparison,
} from '../src/decoding/row-comparison.js';
import { createSequenceSampler, type KeyedSampler, sampleRows } from '../src/decoding/sampler.js';
import type { SampledToken } from '../src/decoding/types.js';
import { InputError } from '../src/errors.js';
import { comparisonBody, type DecodeBody, samplerBodies } from '../src/steering/decode-report.js';
import { samplerRows, stepCells } from '../src/steering/decode-rows.js';
import type { AnalysisContext, AnalysisOutcome, AnalysisWork } from './analysis-run.js';
import type { PromptShared } from './prompt-inputs.js';
import type { DecodeOptions } from './steer-decode.js';

/** Logits of one block stay below this. */
const BLOCK_BYTES = 16 << 20;

/** `steer decode --logits`: every sampler on every row of stored logits, in blocks. */
export function logitsWork(options: PromptShared, own: DecodeOptions, settings: ComparisonSettings): AnalysisWork {
  const opened = <T>(work: (sources: readonly LogitSource[]) => T): T => work(openAll(own));
  return {
    measure: (context) => opened((sources) => measure(context, sources, options, settings)),
    plan: async () =>
      opened((sources) => {
        const lines = sources.map(({ path, rows, vocabulary, kind }): [string, string] => [
          path,
          `${kind} [${rows}, ${vocabulary}]`,
        ]);
        for (const source of sources) source.close();
        return [...lines, ['samplers', settings.samplers.map(({ name }) => name).join('  ')]];
      }),
  };
}

function openAll({ logits = [], tensor }: DecodeOptions): LogitSource[] {
  const sources: LogitSource[] = [];
  try {
    for (const path of logits) sources.push(openLogitSource(path, tensor));
    const odd = sources.find(({ vocabulary }) => vocabulary !== sources[0].vocabulary);
    if (odd) {
      throw new InputError(
        `${odd.path}: a vocabulary of ${odd.vocabulary}, ${sources[0].path} has ${sources[0].vocabulary}; compare them apart`,
      );
    }
    return sources;
  } catch (error) {
    for (const source of sources) source.close();
    throw error;
  }
}

async function measure(
  context: AnalysisContext,
  sources: readonly LogitSource[],
  options: PromptShared,
  settings: ComparisonSettings,
): Promise<AnalysisOutcome> {
  const comparison = createRowComparison(settings);
  try {
    for (const [file, source] of sources.entries()) {
      context.ledger.note(source.path);
      await measureSource(context, source, file, comparison, options);
    }
  } finally {
    for (const source of sources) source.close();
  }
  context.timings.count('rows', comparison.rows);
  const body: DecodeBody = {
    source: 'logits',
    prompts: null,
    samples: null,
    vocabulary_size: sources[0].vocabulary,
    ...comparisonBody(comparison),
    samplers: samplerBodies(settings.samplers, comparison, undefined),
    path_nucleus: null,
    assumptions: sources
      .filter(({ kind }) => kind !== 'tensor')
      .map(({ path }) => `${path}: log-probabilities in 16 bits; what lies 16 nats below the largest shares its mass`),
    warnings: [],
  };
  return {
    body,
    rows: () => samplerRows(body),
    figure: async (subtitle) => (await import('../src/steering/decode-plot.js')).decodeFigure(body, subtitle),
    summary: summaryOf(body),
  };
}

async function measureSource(
  context: AnalysisContext,
  source: LogitSource,
  file: number,
  comparison: RowComparison,
  { limit, seed, threads }: PromptShared,
): Promise<void> {
  const { samplers } = comparison.settings;
  const { vocabulary, sequenceRows, name } = source;
  const rows = Math.min(source.rows, limit ?? source.rows);
  const block = Math.max(1, Math.floor(BLOCK_BYTES / (8 * vocabulary)));
  const drawing = samplers.map(() => ({ sequence: -1, surprisal: 0, sampler: undefined as KeyedSampler | undefined }));
  for (let first = 0; first < rows; first += block) {
    const count = Math.min(block, rows - first);
    const logits = source.readRows(first, count);
    const figures = compareRows(comparison, logits, count, vocabulary, { name, firstRow: first });
    if (context.writeTableRow) {
      for (const [s, { plan }] of samplers.entries()) {
        const state = drawing[s];
        const samplerOf = (row: number): KeyedSampler => {
          const sequence = Math.floor((first + row) / sequenceRows);
          if (sequence !== state.sequence || !state.sampler) {
            // Numbers of the files are apart by more rows than a file has.
            state.sampler = createSequenceSampler(plan, { seed, sequence: file * 2 ** 40 + sequence });
            state.sequence = sequence;
            state.surprisal = 0;
          }
          return state.sampler;
        };
        writeRows(context, source, {
          name: samplers[s].name,
          first,
          count,
          figures: figures[s],
          // Rows that stand alone are served in one call of the kernel.
          drawn:
            sequenceRows === 1
              ? sampleRows(
                  Array.from({ length: count }, (_, row) => samplerOf(row)),
                  logits,
                  vocabulary,
                  threads,
                )
              : undefined,
          draw: (row) => samplerOf(row).next(logits.subarray(row * vocabulary, (row + 1) * vocabulary)),
          surprisal: (more) => {
            state.surprisal += more;
            return state.surprisal;
          },
        });
      }
    }
    context.progress.update(comparison.rows, 'rows');
    // Signals and the progress line get their turn between blocks.
    await new Promise(setImmediate);
  }
}

interface WrittenBlock {
  readonly name: string;
  readonly first: number;
  readonly count: number;
  readonly figures: PlanRows;
  readonly drawn: readonly SampledToken[] | undefined;
  readonly draw: (row: number) => SampledToken;
  /** Adds to the surprisal of the sequence and gives the sum. */
  readonly surprisal: (more: number) => number;
}

function writeRows(context: AnalysisContext, { sequenceRows, path }: LogitSource, block: WrittenBlock): void {
  const { figures } = block;
  for (let row = 0; row < block.count; row++) {
    const sampled = block.drawn?.[row] ?? block.draw(row);
    const at = block.first + row;
    const step = at % sequenceRows;
    const sum = sequenceRows === 1 ? sampled.surprisalNats : block.surprisal(sampled.surprisalNats);
    context.writeTableRow?.(
      stepCells({
        sampler: block.name,
        prompt: Math.floor(at / sequenceRows),
        id: path,
        sample: 0,
        step,
        token: sampled.token,
        tokenBytes: '',
        surprisalNats: sampled.surprisalNats,
        runningSurprisalNats: sum / (step + 1),
        entropyNats: sampled.entropyNats,
        temperedEntropyNats: figures.temperedEntropyNats[row],
        entropyAfterNats: sampled.entropyAfterNats,
        keptMass: sampled.keptMass,
        keptCount: sampled.keptCount,
        boundNats: figures.boundNats[row],
        exactMass: figures.exactMass[row],
        optimalityRatio: figures.optimalityRatio[row],
      }),
    );
  }
}

function summaryOf({ samplers, rows }: DecodeBody): AnalysisOutcome['summary'] {
  return {
    header: ['sampler', 'rows', 'H(p), nats', 'H(q), nats', 'mass kept', 'kept', 'bound held', 'of optimum'],
    rows: samplers.map(({ name, kept, exact }) => [
      name,
      rows ?? undefined,
      kept?.mean_entropy_tempered_nats.mean,
      kept?.mean_entropy_after_nats.mean,
      kept?.mean_kept_mass.mean,
      kept?.mean_kept_count.mean,
      kept?.bound_held_share ?? undefined,
      exact?.mean_ratio.mean,
    ]),
  };
}
