import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createDataOrder } from '../../training/data-order.js';
import { windowsSha256 } from '../../training/language/capture-file.js';
import { type CapturedTeacher, openCapturedTeacher } from '../../training/language/captured-teacher.js';
import { evaluateLanguage, type LanguageEvaluation } from '../../training/language/language-evaluation.js';
import { orderedBatches, type TokenWindows } from '../../training/language/token-data.js';
import {
  type LanguageExtension,
  type LanguageProgress,
  type LanguageResult,
  type LanguageTraining,
  trainLanguageModel,
} from '../../training/language/train-language-job.js';
import { createLoss } from '../../training/losses/index.js';
import { createObjective } from '../../training/objective.js';
import type { Student, TokenBatch } from '../../training/types.js';
import { fusedObjective } from './fused-objective.js';
import type { FusionLoss } from './fusion-functions.js';
import { selectSources, sequenceScores } from './selector.js';
import {
  cesOf,
  fixedWeights,
  gateCompanions,
  gateOf,
  givenGate,
  type StepSelection,
  type StrategySettings,
  selectionRecorder,
  weighByCe,
  weighBySelector,
} from './strategies.js';

/** Held-out text of one kind. */
export interface HeldOutDomain {
  readonly name: string;
  readonly windows: TokenWindows;
}

/** Continued training of the pivot by fused targets. Structured-cloneable. */
export interface FusedTraining {
  readonly training: LanguageTraining;
  /** On the pivot's windows: its own capture, then the moved ones. */
  readonly captures: readonly string[];
  /** Columns of the pivot's logits. */
  readonly vocabulary: number;
  readonly tokenizerSha256: string;
  /** Of each model, [sequences] in nats. */
  readonly ces: readonly Float64Array[];
  readonly settings: StrategySettings;
  readonly kind: FusionLoss;
  readonly temperature: number;
  readonly mask: 'attention' | 'labels';
  /** Sequences that are learnt; all when absent. */
  readonly kept?: Int32Array;
  readonly domains: readonly HeldOutDomain[];
}

/** Perplexity of a kind of held-out text before and after. */
export interface DomainResult {
  readonly name: string;
  readonly before: LanguageEvaluation;
  readonly after: LanguageEvaluation;
}

export interface FusedResult {
  readonly language: LanguageResult;
  readonly domains: readonly DomainResult[];
  /** [sequences][models] weights at the end. */
  readonly weights: readonly Float64Array[];
  /** The selector's numbers at the end, and what it chose step by step. */
  readonly gate: Float64Array | null;
  readonly selections: readonly StepSelection[];
}

/** Rows of a file that an interrupted run left, up to a step. */
function keptRows(path: string, step: number): StepSelection[] {
  if (!existsSync(path)) return [];
  const rows: StepSelection[] = [];
  for (const line of readFileSync(path, 'utf8').split('\n')) {
    if (!line.endsWith('}')) continue;
    const row = JSON.parse(line) as StepSelection;
    if (row.step <= step) rows.push(row);
  }
  return rows;
}

/** Batches of chosen sequences, shuffled as all of them would be. */
function keptBatches(windows: TokenWindows, kept: Int32Array, batchSize: number, seed: number) {
  const order = createDataOrder({ count: kept.length, batchSize, seed });
  return orderedBatches(windows, {
    perEpoch: order.perEpoch,
    items: (index) => order.items(index).map((item) => kept[item]),
  });
}

/** Trains the pivot by fused targets: a job in a thread of its own. */
export async function trainFused(
  request: FusedTraining,
  progress: (value: LanguageProgress) => void,
): Promise<FusedResult> {
  const { training, captures: paths, settings, ces, domains, kept } = request;
  const { strategy, gate } = settings;
  const { windows, batchSize, seed, threads, precision } = training;
  const captures: CapturedTeacher[] = [];
  const recorder = selectionRecorder(ces.length);
  const log = join(training.checkpoints, 'selections.jsonl');
  const before = new Map<string, LanguageEvaluation>();
  const after = new Map<string, LanguageEvaluation>();
  let last: Float64Array | null = null;
  const evaluate = async (student: Student<TokenBatch>, into: Map<string, LanguageEvaluation>): Promise<void> => {
    for (const { name, windows: held } of domains) {
      into.set(name, await evaluateLanguage(student, held, { batchSize, seed, threads }));
    }
  };
  const extension: LanguageExtension = {
    ...(strategy === 'fusion-x' &&
      gate.mode === 'trained' && { companions: gateCompanions(ces.length, gate, settings.seed, precision) }),
    objective(student) {
      if (strategy === 'clm') {
        const terms = [{ loss: createLoss('ce'), weight: 1 }];
        return createObjective<TokenBatch>(terms, { labels: ({ labels }) => labels });
      }
      const learns = strategy === 'fusion-x';
      return fusedObjective({
        captures,
        vocabulary: request.vocabulary,
        lengths: windows.lengths,
        kind: request.kind,
        temperature: request.temperature,
        mask: request.mask,
        learns,
        threads,
        weigh: learns ? weighBySelector(settings, ces, student.parameters, recorder.observe) : weighByCe(settings, ces),
      });
    },
    ...(kept && { batches: () => keptBatches(windows, kept, batchSize, seed) }),
    async begun(student, step) {
      await evaluate(student, before);
      recorder.take(0);
      mkdirSync(dirname(log), { recursive: true });
      writeFileSync(
        log,
        keptRows(log, step)
          .map((row) => `${JSON.stringify(row)}\n`)
          .join(''),
      );
    },
    onStep({ step }) {
      const found = recorder.take(step);
      if (strategy === 'fusion-x') appendFileSync(log, `${JSON.stringify(found)}\n`);
    },
    async finished(student) {
      await evaluate(student, after);
      if (strategy === 'fusion-x' && gate.mode === 'trained') last = gateOf(student.parameters, ces.length);
    },
  };
  try {
    const expected = {
      vocabulary: request.vocabulary,
      tokenizerSha256: request.tokenizerSha256,
      dataSha256: windowsSha256(windows),
    };
    for (const path of paths) captures.push(openCapturedTeacher([path], expected));
    const language = await trainLanguageModel(training, progress, extension);
    return {
      language,
      domains: domains.map(({ name }) => domainResult(name, before.get(name), after.get(name))),
      weights: Array.from({ length: windows.count }, (_, s) => finalWeights(request, last, s)),
      gate: last,
      selections: strategy === 'fusion-x' ? keptRows(log, Number.POSITIVE_INFINITY) : [],
    };
  } finally {
    for (const capture of captures) capture.close();
  }
}

function domainResult(
  name: string,
  before: LanguageEvaluation | undefined,
  after: LanguageEvaluation | undefined,
): DomainResult {
  if (!before || !after) throw new RangeError(`${name} was not evaluated`);
  return { name, before, after };
}

/** Weights of a sequence behind the last step; of a random gate those of one that is drawn now. */
function finalWeights({ ces, settings }: FusedTraining, gate: Float64Array | null, sequence: number): Float64Array {
  const own = cesOf(ces, sequence);
  if (settings.strategy === 'clm') return new Float64Array(own.length);
  if (settings.strategy !== 'fusion-x') return fixedWeights(settings.strategy, own);
  const { seed, steps, gate: chosen } = settings;
  const values = gate ?? givenGate(chosen, own.length, seed, steps, sequence);
  return selectSources(values, sequenceScores(own), chosen.threshold).weights;
}
