import type { Engine } from '../models/engine.js';
import type { JobReference } from '../models/engine-host.js';
import { gatherRows } from '../models/gather-rows.js';
import type { LanguageModel } from '../models/language-model.js';
import type { Floats } from '../models/layer-runner.js';
import { activePrompts, type Generated, generate } from './generation.js';
import { logSoftmax } from './log-softmax.js';
import { generatePaths, type PathsOfPrompt } from './path-generation.js';
import type { PathNucleusSettings } from './path-nucleus.js';
import {
  type ComparisonSettings,
  compareRows,
  createRowComparison,
  type PlanRows,
  type RowComparison,
} from './row-comparison.js';
import { interventionsOf, type SteeringPlan } from './steering-plan.js';

/** What is decoded, and what is asked about it. Structured-cloneable. */
export interface DecodeArguments {
  readonly prompts: readonly Int32Array[];
  /** The samplers, and what stands beside them on the rows that they meet. */
  readonly comparison: ComparisonSettings;
  /** Whether the rows that all samplers meet are run through all of them. */
  readonly replay: boolean;
  readonly samples: number;
  readonly maxNewTokens: number;
  readonly stopIds: readonly number[];
  readonly seed: number;
  readonly steering?: SteeringPlan;
  /** Path nucleus beside the samplers. */
  readonly paths?: PathNucleusSettings;
}

/** A continuation, with what a second pass over it found. */
export interface DecodedSequence extends Generated {
  /** Columns of the sampler's own `PlanRows` that generation does not give; absent without replay. */
  readonly review?: Pick<PlanRows, 'temperedEntropyNats' | 'boundNats' | 'exactMass' | 'optimalityRatio'>;
  /** -ln p of its tokens without steering; absent where none acted. */
  readonly unsteeredSurprisalNats?: Float64Array;
}

export interface DecodeResult {
  /** [sampler][prompt][sample] */
  readonly decoded: readonly (readonly (readonly DecodedSequence[])[])[];
  readonly comparison?: RowComparison;
  readonly paths?: readonly PathsOfPrompt[];
}

/** What the job tells while it runs: tokens that were generated since, and which decoder is at work. */
export interface DecodeProgress {
  readonly decoder: number;
  readonly tokens: number;
}

/** Tokens between two messages. */
const PROGRESS_TOKENS = 32;
/** Logits that are held at once. */
const LOGIT_BYTES = 2 ** 25;

/** Generates with every sampler on the same prompts and compares them, beside the engine. */
export async function decode(
  model: LanguageModel,
  args: DecodeArguments,
  progress: (value: unknown) => void,
): Promise<DecodeResult> {
  const { samplers } = args.comparison;
  const decoded: Generated[][][] = [];
  for (const [s, { plan }] of samplers.entries()) {
    const tell = (tokens: number): void => progress({ decoder: s, tokens } satisfies DecodeProgress);
    tell(0);
    let since = 0;
    decoded.push(
      await generate(model, {
        prompts: args.prompts,
        // Samples of a greedy plan would all be alike.
        samples: plan.greedy ? 1 : args.samples,
        maxNewTokens: args.maxNewTokens,
        stopIds: args.stopIds,
        plan,
        seed: args.seed,
        ...(args.steering && { steering: args.steering }),
        finished() {
          if (++since >= PROGRESS_TOKENS) {
            tell(since);
            since = 0;
          }
          return false;
        },
      }),
    );
    tell(since);
  }
  let paths: PathsOfPrompt[] | undefined;
  if (args.paths) {
    progress({ decoder: samplers.length, tokens: 0 } satisfies DecodeProgress);
    paths = await generatePaths(model, { ...args, settings: args.paths }, (tokens) =>
      progress({ decoder: samplers.length, tokens } satisfies DecodeProgress),
    );
  }
  progress({ decoder: -1, tokens: 0 } satisfies DecodeProgress);
  const comparison = args.replay ? createRowComparison(args.comparison) : undefined;
  const results: DecodedSequence[][][] = [];
  for (const [s, made] of decoded.entries()) results.push(await reviewed(model, args, made, s, comparison));
  return { decoded: results, ...(comparison && { comparison }), ...(paths && { paths }) };
}

/** Reads what a sampler wrote once more: the rows that it met, under all samplers, and its text without steering. */
async function reviewed(
  model: LanguageModel,
  args: DecodeArguments,
  made: readonly (readonly Generated[])[],
  sampler: number,
  comparison: RowComparison | undefined,
): Promise<DecodedSequence[][]> {
  const { engine } = model;
  if (!engine || (!comparison && !args.steering)) return made.map((row) => [...row]);
  const active = await activePrompts(engine, args.prompts, args.steering);
  const sequences = made.flatMap((samples, prompt) =>
    samples.map((generated) => ({ prompt, generated, steered: active[prompt] })),
  );
  const reviews = sequences.map(({ generated }) => {
    const column = (): Float64Array => new Float64Array(generated.tokens.length).fill(Number.NaN);
    return {
      temperedEntropyNats: column(),
      boundNats: column(),
      exactMass: column(),
      optimalityRatio: column(),
    };
  });
  const { vocabularySize: vocabulary } = engine.model;
  if (comparison) {
    await replay(engine, args, sequences, args.steering, (logits, places) => {
      const own = compareRows(comparison, logits, places.length, vocabulary, { firstRow: comparison.rows })[sampler];
      places.forEach(([sequence, step], row) => {
        const into = reviews[sequence];
        into.temperedEntropyNats[step] = own.temperedEntropyNats[row];
        into.boundNats[step] = own.boundNats[row];
        into.exactMass[step] = own.exactMass[row];
        into.optimalityRatio[step] = own.optimalityRatio[row];
      });
    });
  }
  const surprisals = sequences.map(({ generated }) => new Float64Array(generated.tokens.length));
  const steered = sequences.flatMap((sequence, index) => (sequence.steered ? [{ ...sequence, index }] : []));
  await replay(engine, args, steered, undefined, (logits, places) => {
    places.forEach(([which, step], row) => {
      const { index, generated } = steered[which];
      const logs = logSoftmax(logits.subarray(row * vocabulary, (row + 1) * vocabulary));
      surprisals[index][step] = -logs[generated.tokens[step]];
    });
  });
  let next = 0;
  return made.map((samples) =>
    samples.map((generated) => {
      const index = next++;
      return {
        ...generated,
        ...(comparison && { review: reviews[index] }),
        ...(sequences[index].steered && { unsteeredSurprisalNats: surprisals[index] }),
      };
    }),
  );
}

interface ReplayedSequence {
  readonly prompt: number;
  readonly generated: Generated;
}

/**
 * Visits the logits from which the tokens of sequences were drawn, by whole passes instead of steps; [rows, vocabulary] at
 * a time with the sequence and step of every row.
 */
async function replay(
  engine: Engine,
  { prompts }: DecodeArguments,
  sequences: readonly (ReplayedSequence & { readonly steered: boolean })[],
  steering: SteeringPlan | undefined,
  visit: (logits: Floats, places: readonly (readonly [sequence: number, step: number])[]) => void,
): Promise<void> {
  const { hiddenSize, vocabularySize } = engine.model;
  const most = Math.max(1, Math.floor(LOGIT_BYTES / (vocabularySize * (engine.precision === 'f32' ? 4 : 8))));
  const lengthOf = ({ prompt, generated }: ReplayedSequence): number =>
    prompts[prompt].length + generated.tokens.length - 1;
  for (let from = 0; from < sequences.length; ) {
    let tokens = 0;
    let to = from;
    while (to < sequences.length && (to === from || tokens + lengthOf(sequences[to]) <= engine.plan.rowsPerRun)) {
      tokens += lengthOf(sequences[to++]);
    }
    const batch = sequences.slice(from, to);
    const windows = batch.map(({ prompt, generated }) =>
      Int32Array.of(...prompts[prompt], ...generated.tokens.subarray(0, -1)),
    );
    const interventions = steering
      ? interventionsOf(
          steering,
          batch.map(({ prompt, steered }) => ({ prompt, promptLength: prompts[prompt].length, active: steered })),
        )
      : [];
    const groups = await engine.forward({ windows, interventions });
    const rows = gatherRows(
      groups,
      hiddenSize,
      batch.map(({ prompt, generated }) => {
        const first = prompts[prompt].length - 1;
        return [first, first + generated.tokens.length] as const;
      }),
    );
    await engine.normalize(rows);
    const places = batch.flatMap(({ generated }, b) =>
      Array.from(generated.tokens, (_, step) => [from + b, step] as const),
    );
    for (let first = 0; first < places.length; first += most) {
      const some = places.slice(first, first + most);
      const hidden = rows.subarray(first * hiddenSize, (first + some.length) * hiddenSize);
      visit(await engine.logits(hidden), some);
    }
    from = to;
  }
}

export const DECODE: JobReference<DecodeArguments, DecodeResult> = { module: import.meta.url, job: decode };
