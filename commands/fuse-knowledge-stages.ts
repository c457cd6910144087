import { existsSync, mkdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { InputError } from '../src/errors.js';
import { resolveModelPath } from '../src/formats/hub.js';
import type { InputDigest } from '../src/formats/inputs.js';
import type { SequenceScores } from '../src/fusion/knowledge/capture-sequences.js';
import type { MovedModel, MoveResult } from '../src/fusion/knowledge/move-sequences.js';
import type { Tokenizer } from '../src/tokenizers/tokenizer.js';
import { tokenizerDigest } from '../src/tokenizers/tokenizer-digest.js';
import type { KnowledgeSettings } from './fuse-knowledge-options.js';
import type { FusionTexts, ReadingModel } from './fuse-knowledge-text.js';
import { modelDigests } from './model-digests.js';
import { runInThread } from './run-in-thread.js';
import type { SharedOptions } from './shared-options.js';

/** A model of the run; `run` is false where its captures stand for it. */
export interface OpenedModel extends ReadingModel {
  readonly path: string;
  readonly runs: boolean;
  readonly modelType: string;
  readonly maxPositions: number;
  readonly tokenizerSha256: string;
  readonly modelSha256: string;
  readonly digests: readonly InputDigest[];
}

/** Where the capture of model `index` lies, 0 the pivot. */
export const captureFile = (directory: string, index: number, name: string): string =>
  join(directory, `${index}-${basename(name.replace(/\/+$/, ''))}.capture`);

/**
 * Opens what is known of a model before it runs.
 * @param capture its capture, which stands for the model where that cannot be opened
 */
export async function openFusionModel(name: string, capture: string | undefined): Promise<OpenedModel> {
  const { path } = resolveModelPath(name, process.env);
  const { openModelTokenizer } = await import('../src/models/model-tokenizer.js');
  const tokenizer: Tokenizer = openModelTokenizer(path);
  const head = { name, path, tokenizer, tokenizerSha256: tokenizerDigest(tokenizer) };
  const { openModelFiles } = await import('../src/models/model-files.js');
  const { hashModelFiles } = await import('../src/models/model-hash.js');
  let opened: ReturnType<typeof openModelFiles>;
  try {
    opened = openModelFiles(path);
  } catch (error) {
    if (!(error instanceof InputError) || capture === undefined || !existsSync(capture)) throw error;
    const { openCapturePart } = await import('../src/training/language/capture-file.js');
    const part = openCapturePart(capture);
    part.close();
    const { vocabulary, modelSha256 } = part.header;
    return {
      ...head,
      ...{ runs: false, modelType: 'captured', maxPositions: Number.POSITIVE_INFINITY },
      ...{ vocabularySize: vocabulary, modelSha256, digests: [] },
    };
  }
  const { modelType, vocabularySize, maxPositions } = opened.description;
  opened.store.close();
  const { files, digests } = await modelDigests(name, path);
  const { checkVocabulary } = await import('../src/tokenizers/tokenizer.js');
  checkVocabulary(tokenizer, vocabularySize, `${name}: the tokenizer`);
  return {
    ...head,
    ...{ runs: true, modelType, vocabularySize, maxPositions, modelSha256: hashModelFiles(files), digests },
  };
}

/** What the stages share. */
export interface StageRun {
  readonly options: Pick<SharedOptions, 'threads' | 'maxMemory'>;
  readonly settings: KnowledgeSettings;
  readonly models: readonly OpenedModel[];
  readonly texts: FusionTexts;
  /** Folder of the captures, and of what is made of them. */
  readonly captures: string;
  readonly work: string;
  readonly context: number;
  /** Hears how many of how many sequences a stage has done. */
  readonly progress: (stage: string, done: number, of: number) => void;
}

const rowsOf = (value: unknown): number => (value as { readonly rows?: number }).rows ?? 0;

/** Captures every model on the sequences. */
export async function captureAll(run: StageRun): Promise<SequenceScores[]> {
  mkdirSync(run.captures, { recursive: true });
  const { captureSequences } = await import('../src/fusion/knowledge/capture-sequences.js');
  const module = new URL('../src/fusion/knowledge/capture-sequences.js', import.meta.url).href;
  const scores: SequenceScores[] = [];
  for (const [index, model] of run.models.entries()) {
    const { windows } = run.texts.models[index];
    scores.push(
      await runInThread(
        { module, job: captureSequences },
        {
          ...(model.runs && { model: model.path }),
          name: model.name,
          windows,
          vocabulary: model.vocabularySize,
          k: run.settings.topK,
          tokenizerSha256: model.tokenizerSha256,
          modelSha256: model.modelSha256,
          path: captureFile(run.captures, index, model.name),
          threads: run.options.threads,
          maxMemoryBytes: run.options.maxMemory,
          context: run.context,
        },
        (value) => run.progress(`capture ${model.name}`, rowsOf(value), windows.count),
        run.options.threads,
      ),
    );
  }
  return scores;
}

/** Where the moved capture of a source lies. */
export const movedFile = (work: string, index: number): string => join(work, 'moved', `${index}.capture`);

/** Aligns every source with the pivot and moves its rows. */
export async function moveAll(run: StageRun): Promise<MoveResult[]> {
  mkdirSync(join(run.work, 'moved'), { recursive: true });
  const { moveSequences } = await import('../src/fusion/knowledge/move-sequences.js');
  const { tokenTexts } = await import('../src/fusion/knowledge/token-text.js');
  const module = new URL('../src/fusion/knowledge/move-sequences.js', import.meta.url).href;
  const sideOf = (index: number): MovedModel => {
    const { name, tokenizer, vocabularySize, tokenizerSha256 } = run.models[index];
    return {
      name,
      texts: tokenTexts(tokenizer, run.settings.tokenText, name),
      sequences: run.texts.models[index],
      vocabulary: vocabularySize,
      tokenizerSha256,
    };
  };
  const results: MoveResult[] = [];
  const { map, statistics, cost, move } = run.settings;
  for (let index = 1; index < run.models.length; index++) {
    const model = run.models[index];
    results.push(
      await runInThread(
        { module, job: moveSequences },
        {
          pivot: sideOf(0),
          source: sideOf(index),
          modelSha256: model.modelSha256,
          capture: captureFile(run.captures, index, model.name),
          ...{ map, statistics, cost, move },
          path: movedFile(run.work, index),
        },
        (value) => run.progress(`align ${model.name}`, rowsOf(value), run.texts.domainOf.length),
        run.options.threads,
      ),
    );
  }
  return results;
}

/**
 * Sequences that are learnt: all, or those of which every model's cross-entropy is a number.
 * @throws InputError with their count where some are not and nothing says to leave them out
 */
export function keptSequences(run: StageRun, scores: readonly SequenceScores[], dropNan: boolean): Int32Array {
  const count = run.texts.domainOf.length;
  const kept = Int32Array.from({ length: count }, (_, s) => s).filter((s) =>
    scores.every(({ ces }) => Number.isFinite(ces[s])),
  );
  if (kept.length === count) return kept;
  const counts = scores.flatMap(({ ces }, m) => {
    const wrong = ces.filter((ce) => !Number.isFinite(ce)).length;
    return wrong === 0 ? [] : [`${wrong} under ${run.models[m].name}`];
  });
  if (!dropNan) {
    throw new InputError(
      `the cross-entropy of ${count - kept.length} of ${count} sequences is no number (${counts.join(', ')}); pass ` +
        '--drop-nan to leave them out',
    );
  }
  if (kept.length === 0) throw new InputError(`the cross-entropy of no sequence is a number under all models`);
  return kept;
}
